"""What a recipe would need, for `--dry-run`: its own forecast, where it has one and nothing has to be fetched for it."""

import importlib
import inspect
from typing import Any

from mygpt.artifacts.artifact import Artifact
from mygpt.artifacts.kinds import noun
from mygpt.artifacts.model import Model
from mygpt.artifacts.store import Store
from mygpt.core.config import Config


def foresee(path: str, config: Config, store: Store, inputs: dict[str, tuple[tuple[type[Artifact], ...], str]]) -> dict[str, Any] | None:
    """`path` is "mygpt.finetune.sft:sft", whose forecast is `sft_forecast` beside it; `inputs` are (kinds, reference) by argument, of which
    it takes those that decide."""
    module, _, name = path.partition(":")
    forecast = getattr(importlib.import_module(module), f"{name}_forecast", None)
    if forecast is None:
        return None
    taken = inspect.signature(forecast).parameters
    opened = {name: _found(store, kinds, reference) for name, (kinds, reference) in inputs.items() if name in taken}
    if None in opened.values():
        return None
    foreseen: dict[str, Any] = forecast(config, **opened, home=store.home)
    return foreseen


def _found(store: Store, kinds: tuple[type[Artifact], ...], reference: str) -> Artifact | None:
    """None: it has to be made or fetched first."""
    from mygpt.lm.sources import at_hand

    for kind in kinds:
        if kind is Model:
            found: Artifact | None = at_hand(store, reference)
        else:
            manifest = store.lookup(reference, kind=kind.kind)
            found = noun(manifest, store) if manifest else None
        if found is not None:
            return found
    return None
