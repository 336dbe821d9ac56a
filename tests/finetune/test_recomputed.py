"""Layers computed again for their gradients (`recompute`), with every objective: nothing but memory changes. sft: test_sft_methods.py."""

from typing import Any

import pytest

from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.adapters.prefix import Prefix
from mygpt.lm.adapters.prompt import Prompt
from tests.finetune.objectives import tuned
from tests.training.recomputed import is_same_with_and_without

CASES: tuple[Any, ...] = (
    ("classifier", "bert", Full()),
    ("classifier", "llama", LoRA(rank=2)),  # whose forward pass makes a cache unasked
    ("classifier", "bart", LoRA(rank=2)),
    ("tagger", "bert", LoRA(rank=2)),
    ("embedder", "roberta", Full()),  # in parts
    ("masked_lm", "roberta", Full()),
    ("seq2seq", "t5", LoRA(rank=2)),
    ("seq2seq", "t5", Prompt(num_tokens=4)),
    ("span_corruption", "t5", Full()),
)


@pytest.mark.parametrize(("objective", "shape", "method"), CASES, ids=lambda value: getattr(value, "name", value))
def test_gradients_are_the_same(objective: str, shape: str, method: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    more = {"micro_batch_tokens": 30} if objective == "embedder" else {}
    is_same_with_and_without(
        lambda recompute: tuned(objective, shape, run, method=method, epochs=1, recompute=recompute, **more), monkeypatch
    )


def test_a_prefix_of_an_encoder_decoder_is_refused(run: Run) -> None:
    with pytest.raises(Refused, match="add to the cache that brings a learnt prefix: computed again, they would add twice") as refused:
        tuned("seq2seq", "t5", run, method=Prefix(num_tokens=4), recompute=True)
    assert "`recompute` to false" in refused.value.fix
