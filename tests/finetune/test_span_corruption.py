"""Span corruption: the paper's own example, how spans are drawn, the loss of transformers, exact resume."""

import random
from collections.abc import Callable
from itertools import pairwise
from statistics import mean
from typing import Any

import pytest
import torch

from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.model import Model
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.finetune import span_corruption as module_under_test
from mygpt.finetune.span_corruption import SpanCorruptionConfig, corrupt, corrupted_tokens, draw_spans, span_corruption, windows
from mygpt.lm.heads import open_head
from mygpt.lm.inputs import Encoded, padded
from mygpt.training.label_losses import summed_answer_loss
from tests.finetune import label_data, shapes
from tests.finetune.conftest import Killed

FAST: dict[str, Any] = {"learning_rate": 3e-3, "epochs": 2, "step_tokens": 128, "micro_batch_tokens": 128, "precision": "float32"}
PAPER = "Thank you for inviting me to your party last week"


@pytest.fixture
def dataset(run: Run) -> Dataset:
    return label_data.prose(label_data.Nothing(), run=run)


def base(shape: str, run: Run) -> Model:
    return shapes.base(shapes.BaseConfig(shape=shape), run=run)


def tuned(dataset: Dataset, run: Run, *, shape: str = "t5", **changes: Any) -> Any:
    settings = {**FAST, "max_example_tokens": 48, **changes}
    return span_corruption(SpanCorruptionConfig(**settings), model=base(shape, run), dataset=dataset, run=run)


def test_the_papers_example() -> None:
    """Figure 2: "for inviting" and "last" are dropped."""
    words: Any = PAPER.split()
    read, written = corrupt(words, [(2, 4), (8, 9)], ["<X>", "<Y>", "<Z>"])  # type: ignore[list-item]
    assert " ".join(map(str, read)) == "Thank you <X> me to your party <Y> week"
    assert " ".join(map(str, written)) == "<X> for inviting <Y> last <Z>"


@pytest.mark.parametrize("length", [2, 3, 7, 48, 511])
def test_spans(length: int) -> None:
    """15 % of the tokens (at least one, never all) in spans of 3 on average, apart, the first token kept; both together hold the text."""
    config = SpanCorruptionConfig()
    num_noise = min(max(round(length * 0.15), 1), length - 1)
    for seed in range(20):
        spans = draw_spans(length, config, draw=random.Random(seed))
        assert sum(end - start for start, end in spans) == num_noise
        assert len(spans) == max(round(num_noise / 3), 1)
        assert spans[0][0] > 0 and all(a_end < b_start for (_, a_end), (b_start, _) in pairwise(spans))
        read, written = corrupt(range(length), spans, [-1 - i for i in range(200)])
        assert sorted(token for token in (*read, *written) if token >= 0) == list(range(length))
        assert [t for t in read if t < 0] == [t for t in written if t < 0][:-1] == [-1 - i for i in range(len(spans))]


def test_spans_of_a_512_token_window_as_in_the_paper() -> None:
    """512 tokens: 77 dropped in 26 spans; read 461, written 104, before the end tokens; the mean span is 2.96."""
    spans = draw_spans(512, SpanCorruptionConfig(), draw=random.Random(0))
    read, written = corrupt(range(512), spans, [-1 - i for i in range(200)])
    assert (len(spans), len(read), len(written)) == (26, 512 - 77 + 26, 77 + 27)
    assert corrupted_tokens(512, SpanCorruptionConfig()) == (len(read) + 1, len(written) + 1)
    assert mean(end - start for start, end in spans) == pytest.approx(2.96, abs=0.01)


def test_windows_hold_the_whole_text() -> None:
    tokenizer = shapes.byte_tokenizer("t5")
    pieces = windows(tokenizer, "abc<extra_id_0>z", 4)
    assert [len(piece) for piece in pieces] == [4, 4, 4, 4]
    assert "".join(tokenizer.decode(piece) for piece in pieces) == "abc<extra_id_0>z"
    assert [len(piece) for piece in windows(tokenizer, "abcde", 4)] == [4]  # one token alone cannot be corrupted


@pytest.mark.parametrize("shape", ["t5", "bart"])
def test_loss_is_transformers_own(shape: str, run: Run) -> None:
    opened = open_head(base(shape, run), "seq2seq_lm", dtype=torch.float32)
    rows = [(Encoded((20, 30, 4, 40, 2), (0,) * 5), [4, 31, 5, 2]), (Encoded((21, 4, 2), (0,) * 3), [4, 22, 23, 24, 5, 2])]
    with torch.no_grad():
        ours = summed_answer_loss(opened.module, padded([read for read, _ in rows], opened.module, padding_id=0), [w for _, w in rows]) / 10
        alone = [opened.module(input_ids=torch.tensor([r.token_ids]), labels=torch.tensor([w])).loss * len(w) for r, w in rows]
    assert float(ours) == pytest.approx(float(sum(alone)) / 10, rel=1e-5)


def test_end_to_end(dataset: Dataset, run: Run) -> None:
    from transformers import AutoModelForSeq2SeqLM

    made = tuned(dataset, run, epochs=20)
    facts = made.manifest.facts
    assert isinstance(made, Model) and made.head == "seq2seq_lm"
    assert facts["held_out"]["loss"] < 0.8 * facts["held_out_before"]["loss"]
    plain = AutoModelForSeq2SeqLM.from_pretrained(made.payload, dtype=torch.float32).eval()
    ids_1T = torch.tensor([[40, 4, 50, 2]])
    ours = open_head(made, "seq2seq_lm", dtype=torch.float32).module
    with torch.no_grad():
        assert torch.equal(plain(input_ids=ids_1T, labels=ids_1T).logits, ours(input_ids=ids_1T, labels=ids_1T).logits)


def test_spans_are_drawn_anew_in_every_epoch(dataset: Dataset, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[list[int]]] = []
    real = module_under_test.summed_answer_loss

    def watched(module: Any, inputs: Any, answers: Any) -> torch.Tensor:
        if torch.is_grad_enabled():
            seen.append(sorted(answers))
        return real(module, inputs, answers)

    monkeypatch.setattr(module_under_test, "summed_answer_loss", watched)
    tuned(dataset, run, epochs=2, step_tokens=4096, micro_batch_tokens=4096)
    assert len(seen) == 2 and seen[0] != seen[1]
    assert sorted(map(len, seen[0])) == sorted(map(len, seen[1]))


def test_killed_and_resumed_is_uninterrupted(dataset: Dataset, run: Run, killed_at: Callable[..., Run]) -> None:
    whole = tuned(dataset, run, checkpoint_seconds=0)
    with pytest.raises(Killed):
        tuned(dataset, killed_at(len(whole.manifest.facts["curve"]) // 2 + 1), checkpoint_seconds=0)
    assert tuned(dataset, killed_at(0), checkpoint_seconds=0).manifest.content == whole.manifest.content


def test_refusals(dataset: Dataset, run: Run) -> None:
    with pytest.raises(Refused, match="has no seq2seq_lm head in transformers"):
        tuned(dataset, run, shape="gpt2")
    with pytest.raises(Refused, match=r"A window of 47 tokens has 14 spans, and the tokenizer 12 sentinels"):
        tuned(dataset, run, noise_share=0.3, mean_span=1.0)
