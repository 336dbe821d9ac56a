"""What an `up` would do, cost and make, before it does anything (`--dry-run`)."""

import os
from pathlib import Path
from typing import Any

from mygpt.artifacts.deployment import Deployment
from mygpt.artifacts.store import Store
from mygpt.core.home import model_cache
from mygpt.pipelines.sources import Sources
from mygpt.pipelines.up import UpConfig


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
    }


def files_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = []
    for folder, subfolders, names in os.walk(path):
        subfolders[:] = [s for s in subfolders if not s.startswith(".")]
        found += [Path(folder) / n for n in names if not n.startswith(".") and (Path(folder) / n).is_file()]
    return found
