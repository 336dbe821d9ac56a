"""The contrastive embedder: its loss by hand, GradCache against the whole batch, duplicates, and search that gets better."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mygpt.artifacts.dataset import Dataset, TextPair, row_facts, write_pairs
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.errors import Refused
from mygpt.core.run import Alone, Run
from mygpt.finetune.embedder import Contrast, EmbedderConfig, backward_in_parts, embedded, embedder, embedder_forecast, info_nce, plan_pairs
from mygpt.infer.torch_embedder import TorchEmbedder
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.heads import open_head
from mygpt.lm.inputs import encode, length_batches, padded
from tests.finetune import label_data, shapes

FAST: dict[str, Any] = {"learning_rate": 2e-3, "epochs": 2, "step_pairs": 3, "precision": "float32", "max_example_tokens": 64}


@pytest.fixture
def dataset(run: Run) -> Dataset:
    return label_data.answers(label_data.Nothing(), run=run)


def base(shape: str, run: Run) -> Model:
    return shapes.base(shapes.BaseConfig(shape=shape), run=run)


def tuned(shape: str, dataset: Dataset, run: Run, **changes: Any) -> Any:
    return embedder(EmbedderConfig(**{**FAST, **changes}), model=base(shape, run), dataset=dataset, run=run)


def test_info_nce_by_hand() -> None:
    """Similarities 0.8 0.2 / 0.1 0.6, temperature 0.5: logits 1.6 0.4 / 0.2 1.2, so ln(1 + e^-1.2) and ln(1 + e^-1)."""
    anchors_BD, candidates_CD = torch.eye(2), torch.tensor([[0.8, 0.1], [0.2, 0.6]])
    by_hand = (math.log(1 + math.exp(-1.2)) + math.log(1 + math.exp(-1.0))) / 2  # = (0.2633 + 0.3133) / 2
    assert float(info_nce(anchors_BD, candidates_CD, [0, 1], [], 0.5)) == pytest.approx(by_hand, abs=1e-6)
    assert by_hand == pytest.approx(0.28827, abs=1e-5)
    left_out = float(info_nce(anchors_BD, candidates_CD, [0, 1], [(0, 1)], 0.5))  # nothing but its positive is left to the first
    assert left_out == pytest.approx(math.log(1 + math.exp(-1.0)) / 2, abs=1e-6)


def test_no_positive_is_a_negative() -> None:
    """Two anchors share a positive: it is one candidate. Another positive of an anchor, known from the training set, is left out."""
    rows = [TextPair("q1", "a"), TextPair("q2", "a"), TextPair("q1", "b"), TextPair("q3", "c", ("a", "d"))]
    part = Contrast.of(rows, {"q1": {"a", "b"}, "q2": {"a"}, "q3": {"c", "e"}})
    assert part.texts == ["q1", "q2", "q3", "a", "b", "c", "d"]
    assert [part.texts[i] for i in part.candidates] == ["a", "b", "c", "d"]
    assert part.right == [0, 0, 1, 2] and [part.texts[i] for i in part.anchors] == ["q1", "q2", "q1", "q3"]
    assert part.left_out == [(0, 1), (2, 0)]


@pytest.mark.parametrize("shape", ["bert", "llama"])
def test_parts_have_the_gradient_of_the_whole(shape: str, dataset: Dataset, run: Run) -> None:
    opened = open_head(base(shape, run), "embedder", dtype=torch.float32)
    part = Contrast.of(dataset.pairs("train"), {row.anchor: {row.positive} for row in dataset.pairs("train")})
    encoded = [encode(opened.tokenizer, text) for text in part.texts]

    def vectors(numbers: Any) -> torch.Tensor:
        return embedded(opened.module, padded([encoded[i] for i in numbers], opened.module, padding_id=0))

    def loss_of(vectors_ND: torch.Tensor) -> torch.Tensor:
        return info_nce(vectors_ND[part.anchors], vectors_ND[part.candidates], part.right, part.left_out, 0.1)

    found = []
    for batch_tokens in (10_000, 60, 1):
        micro_batches = list(length_batches([len(e) for e in encoded], batch_tokens))
        opened.module.zero_grad()
        loss = backward_in_parts(micro_batches, vectors, loss_of, all_ND=torch.zeros(len(encoded), 32), ranks=Alone())
        gradient = torch.cat([p.grad.flatten() for p in opened.module.parameters() if p.grad is not None])
        found.append((len(micro_batches), float(loss.detach()), gradient))
    assert found[0][0] == 1 < found[1][0] < found[2][0] == len(encoded)
    for _, loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][1], rel=1e-5)
        assert float((gradient - found[0][2]).norm() / found[0][2].norm()) < 1e-5
    assert float(found[0][2].norm()) > 1e-3


def test_steps_are_of_equal_size(run: Run) -> None:
    plan = plan_pairs(10, EmbedderConfig(step_pairs=4, epochs=2), order=run.random)
    assert [len(step[0]) for step in plan] == [5, 5, 5, 5]
    assert sorted(i for step in plan[:2] for i in step[0]) == list(range(10)) and plan[:2] != plan[2:]


def test_every_weight_end_to_end(dataset: Dataset, run: Run) -> None:
    from transformers import AutoModel, AutoTokenizer

    made = tuned("bert", dataset, run, epochs=12)
    facts = made.manifest.facts
    assert isinstance(made, Model) and made.head == "embedder" and facts["dimensions"] == 32 and facts["context_tokens"] == 64
    assert facts["held_out"]["ndcg_at_10"] > facts["held_out_before"]["ndcg_at_10"]
    assert facts["held_out"]["documents"] == 5  # four positives, and "Nobody." once
    assert {"modules.json", "sentence_bert_config.json", "1_Pooling/config.json"} <= set(made.manifest.files)
    assert json.loads((made.payload / "tokenizer.json").read_text())["truncation"] is None  # texts are cut in use, not by the file
    plain = AutoModel.from_pretrained(made.payload, dtype=torch.float32).eval()
    inputs = AutoTokenizer.from_pretrained(made.payload)("Who sails?", return_tensors="pt")
    with torch.no_grad():
        mean_D = plain(**inputs).last_hidden_state[0].mean(0)
    ours = TorchEmbedder(made, dtype=torch.float32).embed(["Who sails?", "A far longer text, for padding."])
    assert np.allclose(ours[0], (mean_D / mean_D.norm()).numpy(), atol=1e-5)


def test_a_decoder_and_an_adapter(dataset: Dataset, run: Run) -> None:
    made = tuned("gpt2", dataset, run, method=LoRA(rank=2))
    assert isinstance(made, Adapter) and made.manifest.facts["head"] == "embedder"
    vectors_ND = TorchEmbedder(made.base, adapter=made).embed(["Who sails?", ""])
    assert vectors_ND.shape == (2, 32) and np.allclose(np.linalg.norm(vectors_ND, axis=1), 1, atol=1e-3)


def test_micro_batches_change_nothing(dataset: Dataset, run: Run) -> None:
    curves = [tuned("roberta", dataset, run, micro_batch_tokens=n).manifest.facts["curve"] for n in (2048, 30)]
    assert [loss for _, loss in curves[1]] == pytest.approx([loss for _, loss in curves[0]], abs=2e-4)


class OneText(Config):
    pass


@recipe
def one_text(config: OneText, *, run: Run) -> Dataset:
    splits = {"train": [TextPair("a", "x"), TextPair("b", "x")]}

    def write(folder: Path) -> None:
        write_pairs(folder, splits)

    return publish(Dataset, run, write, facts=row_facts("pairs", splits))


def test_dry_run_counts_the_texts_that_the_training_cuts(dataset: Dataset, run: Run) -> None:
    said: list[str] = []
    run.listeners.append(lambda event: said.append(event["text"]) if event["event"] == "warning" else None)
    tuned("bert", dataset, run, max_example_tokens=8)
    config = EmbedderConfig(max_example_tokens=8)
    told = embedder_forecast(config, model=base("bert", run), dataset=dataset, home=run.home)
    (cut,) = [text for text in said if "lose their end" in text]
    assert cut.startswith(f"{told['longer_than_allowed']} of {told['texts']} texts are longer than 8 tokens")
    assert 0 < told["longer_than_allowed"] <= told["texts"]


def test_refusals(dataset: Dataset, run: Run) -> None:
    with pytest.raises(Refused, match="has one text to be found"):
        tuned("bert", one_text(OneText(), run=run), run)
    with pytest.raises(Refused, match="has no embedder head in transformers"):
        tuned("t5", dataset, run)
