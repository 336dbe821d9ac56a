"""What an `up` would do, cost and make, before it does anything (`--dry-run`)."""

import os
from pathlib import Path
from random import Random
from typing import Any

from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.deployment import Deployment
from mygpt.artifacts.store import Store
from mygpt.core.home import model_cache
from mygpt.finetune.rows import forecast_of
from mygpt.finetune.sft import sft_forecast
from mygpt.lm.load import load_tokenizer
from mygpt.lm.sources import at_hand
from mygpt.pipelines.sources import Sources
from mygpt.pipelines.up import UpConfig, scaled
from mygpt.training.steps import Examples

_PAIR_TOKENS = 100  # of a question with its answer, before any was written

def forecast(config: UpConfig, *, sources: Sources, home: Path, retune: bool = False) -> dict[str, Any]:
    files = [f for path in sources.paths for f in files_of(path)]
    store = Store(home)
    made = store.lookup(sources.name, kind=Deployment.kind)
    cache = Store(model_cache(), cache=False)
    absent = [
        name
        for name in (config.model, config.embedder)
        if cache.lookup(f"model/{name}") is None and cache.lookup(f"model/{name}-q4_1") is None
    ]
    return {
        "name": sources.name,
        "home": str(home),
        "sources": [str(p) for p in sources.paths],
        "files": len(files),
        "megabytes": round(sum(f.stat().st_size for f in files) / 1e6, 2),
        "downloads": absent,
        "steps": ["models", "read", "index", "question", "train", "measure", "deploy"],
        "minutes_at_most": config.minutes,
        "already_made": made.id if made else None,
        "trains": made is None or retune,
        "training": training_needs(config, store, Deployment(made, store).dataset if made else None),
    }


def training_needs(config: UpConfig, store: Store, dataset: Dataset | None) -> str:
    """Memory and time of its training: on the questions of last time, else on as many as are aimed at, of an assumed length. Replay comes
    on top."""
    model = at_hand(store, config.model)
    if model is None:
        return f"not known before {config.model} is there"
    if dataset is not None:
        return f"{sft_forecast(config.sft, model=model, dataset=dataset, home=store.home)['needs']}, on the questions of last time"
    num_pairs = scaled(config.questions, config.minutes, ()).train_pairs
    known = Examples((), num_tokens=[_PAIR_TOKENS] * num_pairs, num_trained=[_PAIR_TOKENS // 2] * num_pairs)
    found = forecast_of(config.sft, model, load_tokenizer(model), known, Random, home=store.home)
    return f"{found.told()}, on {num_pairs} questions of {_PAIR_TOKENS} tokens"


def files_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = []
    for folder, subfolders, names in os.walk(path):
        subfolders[:] = [s for s in subfolders if not s.startswith(".")]
        found += [Path(folder) / n for n in names if not n.startswith(".") and (Path(folder) / n).is_file()]
    return found
