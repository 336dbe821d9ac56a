"""Merge: write what an adapter learnt into the base's own matrices, so that the result is a plain model, as fast as the base.

For LoRA with its kinds (rsLoRA, DoRA) and for IA3, on a base with full weights; other methods are refused with the reason. The sum is made
in float32 and rounded once, to the number format in which the base is stored.

Source     Hu et al. 2021, arXiv:2106.09685, section 4.1 (W + B A, no latency added)
"""

import json
from typing import Literal

import torch

from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.lm.adapters import full, methods
from mygpt.lm.load import load_lm


class MergeConfig(Config):
    precision: Literal["base", "float32", "bfloat16"] = "base"  # of the new Model's files; base: as the base is stored


@recipe
def merge(config: MergeConfig, *, adapter: Adapter, run: Run) -> Model:
    """A new Model that answers as the adapter on its base does."""
    base = adapter.base
    loaded = load_lm(base, adapter=adapter, dtype=torch.float32)
    module = methods.merge(loaded.module).to(stored_dtype(base) if config.precision == "base" else getattr(torch, config.precision))
    learnt = {key: value for key, value in adapter.manifest.facts.items() if key in ("method", "template", "trainable")}
    precision = str(module.dtype).removeprefix("torch.")
    facts = {**base.manifest.facts, **learnt, "source": "merged", "base": base.digest, "precision": precision}
    origin = {"source": f"merged from {adapter.id}", "licence": adapter.manifest.provenance.get("licence")}
    return publish(Model, run, lambda folder: full.save(module, loaded.tokenizer, folder), facts=facts, provenance=origin)


def stored_dtype(model: Model) -> torch.dtype:
    """The number format of its files, as its config.json says."""
    settings = json.loads((model.payload / "config.json").read_text(encoding="utf-8"))
    found = getattr(torch, str(settings.get("dtype") or settings.get("torch_dtype")), None)
    return found if isinstance(found, torch.dtype) else torch.float32
