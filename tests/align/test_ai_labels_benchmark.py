"""The figures of `benchmarks/ai_labels.py`, by hand, and how it asks its judge."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.ai_labels import ASKED, SOLUTIONS, against_the_next, by_likelihood, measured, of_two_principles, preferences_figures, right
from benchmarks.record import RESULTS
from mygpt.align.ai_preferences import Compared
from mygpt.artifacts.dataset import Conversation, Message, Preference
from mygpt.core.run import Run
from mygpt.infer.protocols import Identity, Score

ASKS = (Message("user", "Q"),)


def compared(forward: float | None, backward: float | None) -> Compared:
    return Compared(Conversation(ASKS), ("good", "bad"), SOLUTIONS.principles[0], forward, backward, mass=0.5)


def test_what_both_orders_say_and_mend() -> None:
    """Labels 0.85, 0.40, 0.35 and 0.40: one of four is right. The second and the fourth turn with the order."""
    pairs = [compared(0.9, 0.8), compared(0.6, 0.2), compared(0.3, 0.4), compared(0.1, 0.7), compared(None, 0.5)]
    found = preferences_figures(pairs, [10, -5, 0, 3, 1])
    assert found["unreadable"] == 1 and found["mean_mass"] == 0.5
    assert found["right"]["estimate"] == 0.25 and found["right"]["pairs"] == 4
    assert found["one_order"]["estimate"] == (1 + 0.5 + 0 + 0.5) / 4
    assert found["mended"]["estimate"] == -0.25
    assert found["where_orders_agree"]["estimate"] == 0.5 and found["turned"]["estimate"] == 0.5
    assert found["names_first_shown"] == 0.5  # both times in the second, once in the first and the third, never in the fourth
    assert found["names_longer"]["estimate"] == pytest.approx(2 / 3, abs=1e-4) and found["names_longer"]["ties"] == 1
    assert found["over_length"] | {"low": 0, "high": 0} == {"rule": "longer", "estimate": 0.25 - 0.625, "low": 0, "high": 0}
    log_loss = -sum(map(math.log, (0.85, 0.4, 0.35, 0.4))) / 4
    assert found["soft"]["log_loss"] == pytest.approx(log_loss, abs=1e-4)
    assert found["soft"]["mean_confidence"] == pytest.approx((0.85 + 0.6 + 0.65 + 0.6) / 4, abs=1e-4)


def test_two_principles() -> None:
    """The second pair's labels are 0.4 and 0.8: another answer, 0.4 apart; together 0.6."""
    found = of_two_principles([compared(0.9, 0.7), compared(0.5, 0.3)], [compared(0.6, 0.8), compared(0.7, 0.9)])
    assert found["same_answer"]["estimate"] == 0.5 and found["apart"] == pytest.approx((0.1 + 0.4) / 2)
    assert found["right_together"]["estimate"] == 1.0


def test_ties_are_counted_apart() -> None:
    assert {k: v for k, v in right([2, -1, 0]).items() if k not in ("low", "high")} == {"estimate": 0.5, "pairs": 2, "ties": 1}
    assert right([0, 0]) == {"ties": 2}


def test_answers_of_another_prompt() -> None:
    pairs = [Preference((Message("user", name),), f"right {name}", "wrong") for name in "abc"]
    assert [row.prompt[0].content + row.rejected[-1] for row in against_the_next(pairs)] == ["ab", "bc", "ca"]


class Counts:
    """Likes the letter e: a nat for each; a verdict is worth the letters e of the reply that it names."""

    @property
    def identity(self) -> Identity:
        return {"scorer": "counts"}

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        return [Score(self._worth(p, c), max(1, len(c.split())), len(c), None) for p, c in zip(prompts, continuations, strict=True)]

    def _worth(self, prompt: str, continuation: str) -> float:
        if continuation in (" A", " B"):
            return float(prompt.rpartition(f"Reply{continuation}: ")[2].partition("\n")[0].count("e")) - 20
        if prompt.endswith("Grade from 1 to 10:"):
            return -abs(int(continuation) - prompt.rpartition("Reply: ")[2].count("e")) - 5.0
        return float(continuation.count("e")) - 20


def test_every_label_from_one_judge(run: Run) -> None:
    """A judge that likes what people like is always right, in both orders, though the answer is the shorter one."""
    pairs = [Preference(ASKS, "eeee" + "e" * n, "long and bad", str(n)) for n in range(3)]
    found = measured(pairs, ASKED["gsm8k"], Counts(), run)
    assert found["ai_preferences"]["right"]["estimate"] == found["direct_feedback"]["right"]["estimate"] == 1.0
    assert found["ai_preferences"]["turned"]["estimate"] == 0.0 and found["ai_preferences"]["names_first_shown"] == 0.5
    assert found["likelihood"]["whole"]["estimate"] == 1.0 and found["length"]["longer"]["estimate"] == 0.0
    assert by_likelihood(pairs[:1], Counts()) == ([4.0], [-16 / 1 + 20 / 3])


def test_the_worked_solutions_name_each_letter_once() -> None:
    """A judge that saw one letter only would say it."""
    assert sorted(one.better for one in SOLUTIONS.comparisons) == ["a", "b"]


def test_the_figures_of_the_pages_are_those_measured() -> None:
    record = json.loads((RESULTS / "ai_labels.json").read_text(encoding="utf-8"))
    docs = Path(__file__).parents[2] / "docs" / "align"
    names = ("ai_preferences", "direct_feedback", "constitution")
    preferences, feedback, constitution = (" ".join((docs / f"{name}.md").read_text(encoding="utf-8").split()) for name in names)
    sets = [record[name] for name in ASKED]
    for found in sets:
        label, likelihood, length = found["ai_preferences"], found["likelihood"], found["length"]
        shares = [label["right"], label["one_order"], found["direct_feedback"]["right"], likelihood["whole"], likelihood["by_token"]]
        cells = [str(found["pairs"]), *map(percent, shares), ", ".join(percent(length[n]).split()[0] for n in ("longer", "shorter"))]
        assert f"| {' | '.join(cells)} |" in preferences
        assert percent(label["turned"]).replace(" ", " % ", 1) in preferences and f"{label['soft']['log_loss']:.3f}" in preferences
        assert percent(label["where_orders_agree"]).replace(" ", " % ", 1) in preferences
        assert percent(label["mended"]).partition(" ")[2] in preferences
        assert percent(found["direct_feedback"]["right"]).replace(" ", " % ", 1) in feedback
    first = ["20 %", "32 %", "42 %"]
    assert [f"{100 * found['ai_preferences']['names_first_shown']:.0f} %" for found in sets] == first
    principles = record["harmless"]["principles"]
    assert percent(principles["same_answer"]).replace(" ", " % ", 1) in preferences
    assert f"{principles['apart']:.3f} apart" in preferences and f"{principles['apart']:.3f} apart" in constitution
    assert percent(principles["right_together"]).replace(" ", " % ", 1) in constitution
    spreads = {f"{found['direct_feedback']['spread_of_rewards']:.2f}" for found in sets}
    assert spreads == {"0.09", "0.14"} and "deviation of 0.09 and 0.14" in feedback


def percent(interval: dict[str, float]) -> str:
    estimate, low, high = (f"{100 * interval[key]:.0f}".replace("-", "−") for key in ("estimate", "low", "high"))
    return f"{estimate} ({low} to {high})"
