"""Merging: a plain model with the logits of adapter and base, and what is refused."""

from typing import Any

import pytest
import torch

from mygpt.artifacts.model import Adapter, Model
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.finetune.merge import MergeConfig, merge
from mygpt.finetune.sft import SFTConfig, sft
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.adapters.ia3 import IA3
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.adapters.prefix import Prefix
from mygpt.lm.load import load_lm
from tests.finetune import toys

FAST: dict[str, Any] = {"step_tokens": 512, "precision": "float32", "learning_rate": 1e-2, "epochs": 1}


def tuned(method: Any, run: Run) -> tuple[Model, Adapter]:
    model, dataset = toys.base(toys.BaseConfig(), run=run), toys.pairs(toys.PairsConfig(), run=run)
    made = sft(SFTConfig(**FAST, method=method), model=model, dataset=dataset, run=run)
    assert isinstance(made, Adapter)
    return model, made


@torch.no_grad()
def logits(module: Any) -> torch.Tensor:
    found: torch.Tensor = module(input_ids=torch.arange(3, 43)[None]).logits
    return found


@pytest.mark.parametrize("method", [LoRA(rank=2), LoRA(rank=2, weight_decomposed=True), IA3()], ids=["lora", "dora", "ia3"])
def test_same_logits_in_plain_transformers(method: Any, run: Run) -> None:
    from transformers import AutoModelForCausalLM

    model, adapter = tuned(method, run)
    merged = merge(MergeConfig(), adapter=adapter, run=run)
    unmerged = logits(load_lm(model, adapter=adapter, dtype=torch.float32).module)
    plain = logits(AutoModelForCausalLM.from_pretrained(merged.payload, dtype=torch.float32).eval())
    assert (plain - unmerged).abs().max() <= 1e-4 * unmerged.abs().max()
    facts = merged.manifest.facts
    assert facts["source"] == "merged" and facts["method"] == method.name and facts["base"] == model.digest and facts["head"] == "lm"
    assert merged.manifest.provenance["licence"] == "Apache-2.0"
    assert TorchEngine(merged).renderer.template_digest == adapter.manifest.facts["template"]


def test_stored_in_the_bases_format_or_another(run: Run) -> None:
    model, adapter = tuned(LoRA(rank=2), run)
    assert merge(MergeConfig(), adapter=adapter, run=run).manifest.facts["precision"] == "float32"
    small = merge(MergeConfig(precision="bfloat16"), adapter=adapter, run=run)
    sizes = [sum(f.stat().st_size for f in one.payload.glob("*.safetensors")) for one in (model, small)]
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.parametrize(
    ("method", "reason"), [(Prefix(num_tokens=3), "Virtual tokens are no weights"), (LoRA(rank=2, weights="nf4"), "held in four bits")]
)
def test_refused(method: Any, reason: str, run: Run) -> None:
    _, adapter = tuned(method, run)
    with pytest.raises(Refused, match=reason):
        merge(MergeConfig(), adapter=adapter, run=run)
    assert len(list(run.home.glob("artifacts/model/*"))) == 1  # the base
