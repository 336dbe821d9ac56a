"""Losses of masks and of answers: the head is asked for labels only, virtual tokens are seen, and a head that does more is refused.

That they equal transformers' own, padded beside others: tests/finetune/test_masked_lm.py, test_seq2seq.py and test_span_corruption.py.
"""

from typing import Any

import pytest
import torch

from mygpt.core.errors import Refused
from mygpt.lm.adapters import methods
from mygpt.lm.adapters.prompt import Prompt
from mygpt.training.label_losses import (
    NO_LABEL,
    require_own_answer_loss,
    require_own_masked_loss,
    summed_answer_loss,
    summed_masked_loss,
)
from tests.training import tiny

INPUTS = {"input_ids": torch.tensor([[5, 6, 7, 8, 9], [5, 7, 9, 0, 0]]), "attention_mask": torch.tensor([[1] * 5, [1] * 3 + [0] * 2])}
MASKED = [[NO_LABEL, 6, NO_LABEL, 8], [7]]
ANSWERS = [[11, 12, 13, 2], [14, 2]]


def rows_seen(part: Any) -> list[int]:
    """How many positions `part` is given, call by call."""
    seen: list[int] = []
    part.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[:-1].numel()))
    return seen


def test_the_head_makes_logits_for_labels_only() -> None:
    """3 masks of 10 places; 6 answer tokens in a rectangle of 8."""
    encoder, both = tiny.family("bert"), tiny.family("t5")
    masked, written = rows_seen(encoder.cls), rows_seen(both.lm_head)
    summed_masked_loss(encoder, INPUTS, MASKED)
    summed_answer_loss(both, INPUTS, ANSWERS)
    assert (masked, written) == ([3], [6])


@torch.no_grad()
def test_a_head_in_parts_that_are_not_known_makes_all_logits() -> None:
    from transformers import DistilBertConfig, DistilBertForMaskedLM

    torch.manual_seed(0)
    module = DistilBertForMaskedLM(DistilBertConfig(vocab_size=64, dim=32, hidden_dim=48, n_layers=2, n_heads=4)).eval()
    labels_BT = torch.tensor([[NO_LABEL, 6, NO_LABEL, 8, NO_LABEL], [7, *[NO_LABEL] * 4]])
    assert float(summed_masked_loss(module, INPUTS, MASKED)) == pytest.approx(3 * float(module(**INPUTS, labels=labels_BT).loss), rel=1e-5)


@pytest.mark.parametrize("shape", ["t5", "bart"])
@torch.no_grad()
def test_an_answer_after_virtual_tokens_has_pefts_own_loss(shape: str) -> None:
    class Words:
        """Of a tokenizer, what a method asks for."""

        all_special_ids: tuple[int, ...] = ()

        def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
            return {"input_ids": [20, 21, 22]}

    base = summed_answer_loss(tiny.family(shape), INPUTS, ANSWERS)
    module = methods.attach(tiny.family(shape), Prompt(num_tokens=3), tokenizer=Words()).eval()
    labels_BA = torch.tensor([[11, 12, 13, 2], [14, 2, NO_LABEL, NO_LABEL]])
    ours = float(summed_answer_loss(module, INPUTS, ANSWERS))
    assert ours == pytest.approx(6 * float(module(**INPUTS, labels=labels_BA).loss), rel=1e-5)
    assert abs(ours - float(base)) > 1e-2


def test_a_head_that_does_more_is_refused() -> None:
    """Logits doubled by the model's own forward pass, where nothing in its settings says so."""
    encoder, both = tiny.family("bert"), tiny.family("t5")
    for module, check, labels in ((encoder, require_own_masked_loss, MASKED), (both, require_own_answer_loss, ANSWERS)):
        check(module, INPUTS, labels)
        module.register_forward_hook(lambda _, __, made: made.__setitem__("logits", made.logits * 2) or made)
        with pytest.raises(Refused, match="computes its logits in a way that is not known here"):
            check(module, INPUTS, labels)
