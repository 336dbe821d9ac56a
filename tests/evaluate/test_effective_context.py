"""Effective context length: a reader of the last N words has length N, whatever the depth; a window is a window; figures by hand."""

import re
from collections.abc import Sequence
from typing import Any

import pytest

from mygpt.artifacts.dataset import Conversation
from mygpt.core.errors import MygptError, UsageError
from mygpt.core.run import Run
from mygpt.evaluate.behaviour_set import load_items
from mygpt.evaluate.effective_context import EffectiveContextConfig, effective_context, figures, recalled
from mygpt.infer.protocols import Answer, Identity, Sampling
from mygpt.infer.scripted import ScriptedCompleter
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.load import Loaded
from tests.infer.tiny_models import byte_tokenizer, tiny_module

CONFIG = EffectiveContextConfig(lengths=(128, 256, 512, 1_024), facts_per_cell=2)


def last_words(count: int) -> ScriptedCompleter:
    def reply(conversation: Conversation) -> str:
        seen = " ".join(conversation.question.split()[-count:])
        found = re.search(r"locker is (\d+)\.", seen)
        return f"The code is {found[1]}." if found else "I do not know."

    return ScriptedCompleter(reply, name=f"the last {count} words")


@pytest.mark.parametrize("length", [128, 256, 512])
def test_a_reader_of_the_last_n_words_has_effective_length_n(length: int, run: Run) -> None:
    facts = effective_context(CONFIG, completer=last_words(length), run=run).manifest.facts
    assert (facts["effective_length"], facts["unit"], facts["reason"]) == (length, "words", "")
    recall = {(cell["length"], cell["depth"]): cell["recall"]["estimate"] for cell in facts["cells"]}
    assert all(found == 1.0 for (size, _), found in recall.items() if size <= length)
    assert (recall[2 * length, 0], recall[2 * length, 25], recall[2 * length, 100]) == (0.0, 0.0, 1.0)
    by_length = {row["length"]: row["recall"]["estimate"] for row in facts["by_length"]}
    assert by_length[2 * length] <= 3 / 5


def test_texts_are_as_long_as_asked_and_facts_lie_as_deep(run: Run) -> None:
    seen: list[str] = []
    completer = ScriptedCompleter(lambda c: seen.append(c.question) or "?")  # type: ignore[func-returns-value]
    predictions = effective_context(CONFIG, completer=completer, run=run)
    assert len(seen) == len(predictions.rows) == 4 * 5 * 2
    for row, text in zip(predictions.rows, seen, strict=True):
        words = text.split()
        room = row["length"] - CONFIG.max_tokens
        assert room - 16 < len(words) == row["size"] <= room  # the next sentence would not have fitted: the longest has 16 words
        before = text.index("The code of") / (text.rindex("What is the code") - len("The code of the green locker is 1234. "))
        assert before * 100 == pytest.approx(row["depth"], abs=20 if row["length"] == 128 else 8)
        assert text.count(row["reference"]) == 1
    facts = {row["depth"]: [r["reference"] for r in predictions.rows if r["depth"] == row["depth"]] for row in predictions.rows}
    assert all(codes[:2] == codes[2:4] == codes[4:6] for codes in facts.values())  # one fact at every length
    assert predictions.manifest.facts["effective_length"] is None
    assert predictions.manifest.facts["reason"] == "nothing was recalled at the shortest length, 128"


class Tiny(TorchEngine):
    """An engine of random weights, which no artefact holds."""

    @property
    def identity(self) -> Identity:
        return {"engine": "tiny"}


def test_a_window_is_no_recall_of_zero(run: Run) -> None:
    """The engine itself, a byte for a token, with a window of 400."""
    config = EffectiveContextConfig(lengths=(400, 512, 1_024), depths=(0, 100), facts_per_cell=1, max_tokens=4)
    model: Any = None
    tiny = Tiny(model, loaded=Loaded(tiny_module("llama"), byte_tokenizer(), model))
    predictions = effective_context(config, completer=tiny, run=run)
    facts = predictions.manifest.facts
    assert (facts["unit"], facts["nominal_tokens"], facts["does_not_fit"]) == ("tokens", 400, [512, 1_024])
    assert [row["recall"] is None for row in facts["by_length"]] == [False, True, True]
    assert [row["fits"] for row in predictions.rows] == [True, True, False, False, False, False]
    assert all(row["prompt_tokens"] == row["size"] <= 396 for row in predictions.rows if row["fits"])


class Failing:
    def __init__(self, error: Exception):
        self._error = error

    @property
    def identity(self) -> Identity:
        return {"engine": "failing", "error": str(self._error)}

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        raise self._error


def test_only_a_window_is_caught(run: Run) -> None:
    said = "http://127.0.0.1/v1 answered 400: This model's maximum context length is 64 tokens."
    facts = effective_context(CONFIG, completer=Failing(MygptError(said, fix="Shorten it.")), run=run).manifest.facts
    assert (facts["effective_length"], facts["reason"]) == (None, "the shortest length, 128, does not fit")
    with pytest.raises(MygptError, match="answered 500"):
        effective_context(CONFIG, completer=Failing(MygptError("The server answered 500.", fix="Wait.")), run=run)


def cell(length: int, depth: int, hits: int, of: int = 10, fits: bool = True) -> list[dict[str, Any]]:
    return [{"length": length, "depth": depth, "fits": fits, "recalled": float(i < hits)} for i in range(of)]


def test_figures_by_hand() -> None:
    """Recall 0.9, 0.8, 0.75, 0.9: with 0.85 of 0.9 = 0.765 the third falls below, and the fourth does not mend it."""
    rows = [*cell(100, 0, 9), *cell(100, 50, 9), *cell(200, 0, 9), *cell(200, 50, 7), *cell(400, 0, 9), *cell(400, 50, 6)]
    rows += [*cell(800, 0, 9), *cell(800, 50, 9), *cell(1600, 0, 0, fits=False)]
    found = figures(rows, keep=0.85)
    assert [row["recall"] and row["recall"]["estimate"] for row in found["by_length"]] == pytest.approx([0.9, 0.8, 0.75, 0.9, None])
    assert (found["effective_length"], found["does_not_fit"]) == (200, [1600])
    assert figures(rows, keep=0.8)["effective_length"] == 800
    low, high = (found["cells"][0]["recall"][limit] for limit in ("low", "high"))
    assert (low, high) == pytest.approx((0.5958, 0.9821), abs=1e-4)  # Wilson, 9 of 10


@pytest.mark.parametrize(
    ("reply", "expected"),
    [("4821", True), ("The code is 4,821.", True), ("It's 4821!", True), ("14821", False), ("48210", False), ("482", False), ("", False)],
)
def test_what_counts_as_recalled(reply: str, expected: bool) -> None:
    assert recalled(reply, "4821") is expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lengths": ()}, "nothing to measure"),
        ({"depths": (0, 120)}, "depth of 120 %"),
        ({"keep": 0.0}, "`keep` is 0.0"),
        ({"lengths": (40,)}, "holds no text"),
    ],
)
def test_settings_that_cannot_be_measured(settings: dict[str, Any], message: str, run: Run) -> None:
    with pytest.raises(UsageError, match=message):
        effective_context(EffectiveContextConfig(**settings), completer=last_words(10), run=run)


def test_the_filler_holds_no_number() -> None:
    text = " ".join(row["text"] for row in load_items("filler"))
    assert not re.search(r"\d", text) and "locker" not in text
    assert max(len(s.split()) for s in re.split(r"(?<=[.!?])\s+", text)) == 16
