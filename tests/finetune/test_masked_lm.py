"""Masked language modelling: what is masked, how often, the loss of transformers, and that a resumed run meets the same masks."""

import random
from collections import Counter
from typing import Any

import pytest
import torch

from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.model import Model
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.finetune import masked_lm as module_under_test
from mygpt.finetune.masked_lm import MaskedLMConfig, mask, masked_lm
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.heads import open_head
from mygpt.lm.inputs import Encoded, encode_windows, padded
from mygpt.training.label_losses import NO_LABEL, summed_masked_loss
from mygpt.training.tuning import numbered_on
from tests.finetune import label_data, shapes

FAST: dict[str, Any] = {"learning_rate": 3e-3, "epochs": 2, "step_tokens": 128, "micro_batch_tokens": 128, "precision": "float32"}
SPECIAL = frozenset(range(len(shapes.SPECIAL)))
ORDINARY = range(len(shapes.SPECIAL), len(shapes.SPECIAL) + 256)


@pytest.fixture
def dataset(run: Run) -> Dataset:
    return label_data.prose(label_data.Nothing(), run=run)


def base(shape: str, run: Run) -> Model:
    return shapes.base(shapes.BaseConfig(shape=shape), run=run)


def tuned(shape: str, dataset: Dataset, run: Run, **changes: Any) -> Any:
    settings = {**FAST, "max_example_tokens": 48, **changes}
    return masked_lm(MaskedLMConfig(**settings), model=base(shape, run), dataset=dataset, run=run)


def test_shares() -> None:
    """15 % asked for, exactly; of 3,000 of them 80 / 10 / 10 % within three standard deviations (22, 16, 16)."""
    draw = random.Random(0)
    window = Encoded((1, *(20 + i % 200 for i in range(100)), 2), (0,) * 102)
    became: Counter[str] = Counter()
    places: Counter[int] = Counter()
    for _ in range(200):
        read, labels = mask(window, mask_id=3, special=SPECIAL, ordinary=ORDINARY, share=0.15, draw=draw)
        asked = [i for i, label in enumerate(labels) if label != NO_LABEL]
        assert len(asked) == 15 and 0 not in asked and 101 not in asked
        assert all(read.token_ids[i] == window.token_ids[i] for i in range(102) if i not in asked)
        assert all(labels[i] == window.token_ids[i] for i in asked)
        now = [read.token_ids[i] for i in asked]
        assert not (set(now) - {3}) & SPECIAL  # a random token is an ordinary one
        became.update("mask" if token == 3 else "kept" if token == labels[i] else "random" for token, i in zip(now, asked, strict=True))
        places.update(asked)
    assert abs(became["mask"] - 2400) < 66 and abs(became["random"] - 300) < 50 and abs(became["kept"] - 300) < 50
    assert len(places) == 100  # every place is asked for at some time


def test_examples_are_numbered_on_by_hand() -> None:
    """Three windows in two epochs: 0 1 2, then 3 4 5, in whatever steps they stand."""
    assert numbered_on([[[2, 0]], [[1]], [[0], [1, 2]]], 3) == [[[2, 0]], [[1]], [[3], [4, 5]]]


def test_a_short_text_has_one_question() -> None:
    _, labels = mask(Encoded((1, 50, 2), (0, 0, 0)), mask_id=3, special=SPECIAL, ordinary=ORDINARY, share=0.15, draw=random.Random(1))
    assert labels == [NO_LABEL, 50, NO_LABEL]


def test_windows_hold_the_whole_text() -> None:
    """10 letters in windows of 6 tokens, 4 letters and what stands around them; a special spelling stays text."""
    tokenizer = shapes.byte_tokenizer("bert")
    pieces = encode_windows(tokenizer, "ab</s>wxyz", max_tokens=6)
    assert [len(piece) for piece in pieces] == [6, 6, 4]
    assert "".join(tokenizer.decode(piece.token_ids[1:-1]) for piece in pieces) == "ab</s>wxyz"
    assert all(piece.token_ids[0] == 1 and piece.token_ids[-1] == 2 and 2 not in piece.token_ids[:-1] for piece in pieces)


@pytest.mark.parametrize("shape", ["bert", "roberta"])
def test_loss_is_transformers_own(shape: str, dataset: Dataset, run: Run) -> None:
    opened = open_head(base(shape, run), "masked_lm", dtype=torch.float32)
    windows = [w for text in dataset.texts("train") for w in encode_windows(opened.tokenizer, text, max_tokens=48)]
    draw = random.Random(0)
    asked = [mask(w, mask_id=3, special=SPECIAL, ordinary=ORDINARY, share=0.15, draw=draw) for w in windows]
    counts = [sum(label != NO_LABEL for label in labels) for _, labels in asked]
    with torch.no_grad():
        inputs = padded([read for read, _ in asked], opened.module, padding_id=0)
        ours = summed_masked_loss(opened.module, inputs, [labels for _, labels in asked]) / sum(counts)
        alone = [
            opened.module(input_ids=torch.tensor([read.token_ids]), labels=torch.tensor([labels])).loss * n
            for (read, labels), n in zip(asked, counts, strict=True)
        ]
    assert float(ours) == pytest.approx(float(sum(alone)) / sum(counts), rel=1e-5)


def test_end_to_end(dataset: Dataset, run: Run) -> None:
    from transformers import AutoModelForMaskedLM

    made = tuned("bert", dataset, run, epochs=25)
    facts = made.manifest.facts
    assert isinstance(made, Model) and made.head == "masked_lm"
    assert facts["held_out"]["loss"] < 0.8 * facts["held_out_before"]["loss"]
    assert facts["held_out"]["windows"] == 2 and facts["windows"] == 8  # 186 letters at 46 a window make 5, the others one each
    plain = AutoModelForMaskedLM.from_pretrained(made.payload, dtype=torch.float32).eval()
    ids_1T = torch.tensor([[1, 40, 3, 50, 2]])
    with torch.no_grad():
        assert torch.equal(
            plain(input_ids=ids_1T).logits, open_head(made, "masked_lm", dtype=torch.float32).module(input_ids=ids_1T).logits
        )
    assert open_head(made, "classifier", labels=("a", "b"), dtype=torch.float32).labels == ("a", "b")  # a base like any other


def test_masks_are_drawn_anew_in_every_epoch(dataset: Dataset, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[list[int]]] = []
    real = module_under_test.summed_masked_loss

    def watched(module: Any, inputs: Any, labels: Any) -> torch.Tensor:
        seen.append(sorted(labels))
        return real(module, inputs, labels)

    monkeypatch.setattr(module_under_test, "summed_masked_loss", watched)
    tuned("bert", dataset, run, epochs=3, step_tokens=4096, micro_batch_tokens=4096)
    assert len(seen) == 3 and seen[0] != seen[1] != seen[2] != seen[0]
    counts = [sum(label != NO_LABEL for row in labels for label in row) for labels in seen]
    assert counts == [counts[0]] * 3


def test_micro_batches_change_nothing(dataset: Dataset, run: Run) -> None:
    curves = [tuned("bert", dataset, run, micro_batch_tokens=n).manifest.facts["curve"] for n in (128, 1)]
    assert [loss for _, loss in curves[1]] == pytest.approx([loss for _, loss in curves[0]], abs=2e-4)


def test_refusals(dataset: Dataset, run: Run) -> None:
    with pytest.raises(Refused, match="has no masked_lm head in transformers"):
        tuned("llama", dataset, run)
    bare = shapes.base(shapes.BaseConfig(shape="bert", head="embedder"), run=run)
    with pytest.raises(Refused, match="has no masked-language head, and a new one shares its matrix with the embeddings"):
        masked_lm(MaskedLMConfig(**{**FAST, "method": LoRA(rank=2)}), model=bare, dataset=dataset, run=run)
