"""What a recipe would need, for `--dry-run`: its own forecast, where it has one and nothing has to be fetched for it."""

import importlib
import inspect
from pathlib import Path
from typing import Any

from mygpt.artifacts.artifact import Artifact
from mygpt.artifacts.kinds import noun
from mygpt.artifacts.store import Store
from mygpt.core.config import Config
from mygpt.core.home import model_cache


def foresee(path: str, config: Config, store: Store, inputs: dict[str, tuple[tuple[type[Artifact], ...], str]]) -> dict[str, Any] | None:
    """`path` is "mygpt.finetune.sft:sft", whose forecast is `sft_forecast` beside it; `inputs` are (kinds, reference) by argument, of which
    it takes those that decide."""
    module, _, name = path.partition(":")
    forecast = getattr(importlib.import_module(module), f"{name}_forecast", None)
    if forecast is None:
        return None
    taken = inspect.signature(forecast).parameters
    opened = {name: at_hand(store, kinds, reference) for name, (kinds, reference) in inputs.items() if name in taken}
    if None in opened.values():
        return None
    foreseen: dict[str, Any] = forecast(config, **opened, home=store.home)
    return foreseen


def at_hand(store: Store, kinds: tuple[type[Artifact], ...], reference: str) -> Artifact | None:
    """None: it has to be made or fetched first."""
    cache = Store(model_cache(), cache=False) if Path(model_cache()).is_dir() else store
    for kind in kinds:
        for place, called in ((store, reference), (cache, reference), (cache, f"{reference}-q4_1")):
            if (found := place.lookup(called, kind=kind.kind)) is not None:
                return noun(found, place)
    return None
