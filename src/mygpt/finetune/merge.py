"""Merge: write what an adapter learnt into the base's own matrices, so that the result is a plain model, as fast as the base.

For LoRA with its kinds (rsLoRA, DoRA) and for IA3, whatever head the adapter gave its base, on a base with full weights; other methods are
refused with the reason. The sum is made in float32 and rounded once, to the number format in which the base is stored. A head that was
trained whole goes along, and so do files of the adapter's recipe (value heads).

Source     Hu et al. 2021, arXiv:2106.09685, section 4.1 (W + B A, no latency added)
"""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch

from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.lm.adapters import full, methods
from mygpt.lm.heads import open_head
from mygpt.lm.pooling import write_sentence_files

_LEARNT = ("method", "trainable", "template", "objective", "labels", "cut_tokens", "context_tokens", "dimensions", "normalised")
_OF_PEFT = ("adapter_config.json", "adapter_model.safetensors")


class MergeConfig(Config):
    precision: Literal["base", "float32", "bfloat16"] = "base"  # of the new Model's files; base: as the base is stored


@recipe
def merge(config: MergeConfig, *, adapter: Adapter, run: Run) -> Model:
    """A new Model that computes what the adapter on its base does."""
    base, head = adapter.base, str(adapter.manifest.facts.get("head", "lm"))
    opened = open_head(base, head, adapter=adapter, dtype=torch.float32)
    module = methods.merge(opened.module).to(stored_dtype(base) if config.precision == "base" else getattr(torch, config.precision))
    facts = {
        **inherited(base, head),
        **{key: value for key, value in adapter.manifest.facts.items() if key in _LEARNT},
        "head": head,
        "architecture": type(module).__name__,
        "parameters": sum(p.numel() for p in module.parameters()),
        "source": "merged",
        "base": base.digest,
        "precision": str(module.dtype).removeprefix("torch."),
    }

    def write(folder: Path) -> None:
        full.save(module, opened.tokenizer, folder)
        if head == "embedder":
            write_sentence_files(folder, dimensions=facts["dimensions"], max_tokens=facts["context_tokens"])
        for beside in adapter.payload.iterdir():
            if beside.name not in _OF_PEFT:
                shutil.copyfile(beside, folder / beside.name)

    origin = {"source": f"merged from {adapter.id}", "licence": adapter.manifest.provenance.get("licence")}
    return publish(Model, run, write, facts=facts, provenance=origin)


def inherited(base: Model, head: str) -> dict[str, Any]:
    """What is true of the base whatever it learnt; of a language model all, as its other recipes keep it."""
    facts = base.manifest.facts
    return facts if head == "lm" else {k: v for k, v in facts.items() if k in ("context_tokens", "hidden_size", "dimensions")}


def stored_dtype(model: Model) -> torch.dtype:
    """The number format of its files, as its config.json says."""
    settings = json.loads((model.payload / "config.json").read_text(encoding="utf-8"))
    found = getattr(torch, str(settings.get("dtype") or settings.get("torch_dtype")), None)
    return found if isinstance(found, torch.dtype) else torch.float32
