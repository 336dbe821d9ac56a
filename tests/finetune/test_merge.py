"""Merging: a plain model that computes what adapter and base do, with any head, and what is refused."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mygpt.artifacts.model import Adapter, Model
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.finetune.merge import MergeConfig, merge
from mygpt.finetune.sft import SFTConfig, sft
from mygpt.infer.torch_classifier import TorchClassifier
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.adapters import methods
from mygpt.lm.adapters.bottleneck import Bottleneck
from mygpt.lm.adapters.ia3 import IA3
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.adapters.prefix import Prefix
from mygpt.lm.adapters.prompt import Prompt
from mygpt.lm.heads import open_head
from mygpt.lm.load import load_lm
from tests.finetune import objectives, toys

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
    assert (plain - unmerged).abs().max() <= 1e-5 * unmerged.abs().max()
    facts = merged.manifest.facts
    assert facts["source"] == "merged" and facts["method"] == method.name and facts["base"] == model.digest and facts["head"] == "lm"
    assert merged.manifest.provenance["licence"] == "Apache-2.0"
    assert TorchEngine(merged).renderer.template_digest == adapter.manifest.facts["template"]


DORA = LoRA(rank=2, weight_decomposed=True)


@pytest.mark.parametrize(
    ("objective", "shape", "method"),
    [
        *(("classifier", "bert", LoRA(rank=2)), ("classifier", "bert", DORA), ("classifier", "llama", IA3()), ("classifier", "gpt2", DORA)),
        *(("tagger", "bert", LoRA(rank=2)), ("tagger", "llama", IA3()), ("embedder", "roberta", DORA), ("embedder", "llama", IA3())),
        *(("masked_lm", "bert", LoRA(rank=2)), ("seq2seq", "t5", DORA), ("seq2seq", "bart", IA3())),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.name}{'-dora' * (value == DORA)}",
)
def test_any_head_computes_the_same_in_plain_transformers(objective: str, shape: str, method: Any, run: Run) -> None:
    adapter = objectives.tuned(objective, shape, run, method=method, learning_rate=1e-2)
    head = objectives.OBJECTIVES[objective].head
    module = open_head(adapter.base, head, adapter=adapter, dtype=torch.float32).module
    unmerged = objectives.output(module)
    with methods.switched_off(module):
        before = objectives.output(module)
    merged = merge(MergeConfig(), adapter=adapter, run=run)
    plain = objectives.plain(merged, head)
    furthest = np.abs(unmerged).max()
    assert np.abs(objectives.output(plain) - unmerged).max() <= 1e-5 * furthest
    assert np.abs(before - unmerged).max() > 1e-3 * furthest  # without the adapter it would be another model

    facts, weights = merged.manifest.facts, plain.state_dict()
    learnt = load_file(adapter.payload / "adapter_model.safetensors")
    whole = {name.removeprefix("base_model.model."): p for name, p in learnt.items() if "lora_" not in name and "ia3_" not in name}
    assert whole or objective not in ("classifier", "tagger")
    assert all(torch.equal(weights[name], p) for name, p in whole.items())
    assert facts["head"] == merged.head == head and facts["architecture"] == type(plain).__name__ and facts["precision"] == "float32"
    assert facts["parameters"] == sum(p.numel() for p in plain.parameters()) and facts["base"] == adapter.base.digest
    assert [facts.get(key) for key in ("labels", "cut_tokens", "dimensions")] == [
        adapter.manifest.facts.get(key) for key in ("labels", "cut_tokens", "dimensions")
    ]
    objectives.OBJECTIVES[objective].use(merged)
    if head == "classifier":
        assert TorchClassifier(merged).labels == ("cold", "hot") == tuple(plain.config.id2label.values())
    if head == "embedder":
        told = json.loads((merged.payload / "sentence_bert_config.json").read_text(encoding="utf-8"))
        assert told["max_seq_length"] == facts["context_tokens"] == 64 and (merged.payload / "1_Pooling" / "config.json").exists()


def test_stored_in_the_bases_format_or_another(run: Run) -> None:
    model, adapter = tuned(LoRA(rank=2), run)
    assert merge(MergeConfig(), adapter=adapter, run=run).manifest.facts["precision"] == "float32"
    small = merge(MergeConfig(precision="bfloat16"), adapter=adapter, run=run)
    sizes = [sum(f.stat().st_size for f in one.payload.glob("*.safetensors")) for one in (model, small)]
    assert sizes[1] < 0.6 * sizes[0]


TRAINED_OTHERWISE = "train with `method=lora` or `method=ia3`"


@pytest.mark.parametrize(
    ("method", "reason", "instead"),
    [
        (Prefix(num_tokens=3), "Virtual tokens are no weights", TRAINED_OTHERWISE),
        (Bottleneck(size=4), "networks of their own", TRAINED_OTHERWISE),
        (LoRA(rank=2, weights="nf4"), "held in four bits", "`method.weights=full`"),
    ],
    ids=["prefix", "bottleneck", "nf4"],
)
def test_refused(method: Any, reason: str, instead: str, run: Run) -> None:
    _, adapter = tuned(method, run)
    with pytest.raises(Refused, match=reason) as refused:
        merge(MergeConfig(), adapter=adapter, run=run)
    assert instead in refused.value.fix
    assert len(list(run.home.glob("artifacts/model/*"))) == 1  # the base


@pytest.mark.parametrize(("method", "reason"), [(Prompt(num_tokens=3), "Virtual tokens"), (Bottleneck(size=4), "networks of their own")])
def test_refused_with_another_head(method: Any, reason: str, run: Run) -> None:
    adapter = objectives.tuned("classifier", "bert", run, method=method)
    with pytest.raises(Refused, match=reason) as refused:
        merge(MergeConfig(), adapter=adapter, run=run)
    assert TRAINED_OTHERWISE in refused.value.fix
