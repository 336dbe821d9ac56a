"""Which tokens of a compared answer are learnt, and which pairs nothing can be learnt from."""

import pytest

from mygpt.align.answers import rendered_answer, usable_pairs
from mygpt.artifacts.dataset import Message, Preference
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.lm.chat import ChatRenderer
from tests.training import tiny

RENDERER = ChatRenderer(tiny.chat_tokenizer(template=tiny.CHATML))


def pair(chosen: str, rejected: str, question: str = "When?") -> Preference:
    return Preference((Message("user", question),), chosen, rejected, id="one")


def usable(rows: list[Preference], run: Run, *, drop: bool = False, most: int = 1000) -> int:
    return len(usable_pairs(rows, RENDERER, max_example_tokens=most, context_tokens=2000, drop_unusable=drop, run=run))


def test_only_the_last_answer_is_learnt() -> None:
    prompt = (Message("user", "Hello"), Message("assistant", "Good day."), Message("user", "When?"))
    example = rendered_answer(RENDERER, prompt, "At noon.")
    learnt = [i for i, trained in zip(example.token_ids, example.trained, strict=True) if trained]
    assert RENDERER.text(learnt[:-1]) == "At noon." and learnt[-1] in RENDERER.stop_token_ids


@pytest.mark.parametrize(
    ("row", "most", "told"),
    [
        (pair("At 8.", " At 8. "), 1000, "1 of identical answers"),
        (pair("At 8.", "  "), 1000, "1 with an empty answer"),
        (pair("At 8.", "At 8 " * 50), 60, "1 longer than 60 tokens.*: 276 tokens with its prompt"),  # 250 bytes, 26 around them
    ],
)
def test_what_nothing_can_be_learnt_from(row: Preference, most: int, told: str, run: Run) -> None:
    good = pair("At 8.", "No.")
    with pytest.raises(Refused, match=told) as refused:
        usable([good, row], run, most=most)
    assert "number 1 (one)" in refused.value.what and "drop_unusable" in refused.value.fix
    assert usable([good, row], run, drop=True, most=most) == 1
    with pytest.raises(Refused, match="none would be left"):
        usable([row], run, drop=True, most=most)


def test_no_pairs_at_all(run: Run) -> None:
    with pytest.raises(Refused, match="no pairs"):
        usable([], run)
