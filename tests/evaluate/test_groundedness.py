"""Groundedness: labels and shares by hand, retrieval's precision and recall by hand, and an answer without claims has no score."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.groundedness import (
    Groundedness,
    GroundednessConfig,
    Label,
    WordSupporter,
    claims,
    contextual_precision,
    contextual_recall,
    count_labels,
    groundedness,
)
from mygpt.infer.protocols import Identity
from tests.evaluate.made_up import HELD_OUT_TEXT, MadeUpConfig, made_up_corpus

PASSAGES = [
    "The Heron ferry carries 72 passengers across the sound. It does not run on Sundays.",
    "Tickets cost 1,200 crowns a year. The office in Leeds opens at nine in the morning.",
]


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        ("The Heron ferry carries 72 passengers.", "supported"),
        ("The ferry does not run on Sundays.", "supported"),
        ("The office in Leeds opens at nine, and tickets cost 1,200 crowns.", "supported"),  # two sentences together
        ("Tickets cost 1200 crowns a year.", "supported"),
        ("The office in Leeds opens at 9 in the morning.", "supported"),
        ("The Heron ferry carries 80 passengers.", "contradicted"),
        ("The Heron ferry does not carry passengers across the sound.", "contradicted"),
        ("The office in York opens at nine in the morning.", "unsupported"),  # a name that stands nowhere
        ("The museum is open on public holidays.", "unsupported"),
        ("The Heron carries 72 passengers across the sound and does not run on Sundays.", "contradicted"),  # wrongly: the page says so
        ("72.", "supported"),
        ("Is it?!", "unparsed"),
    ],
)
def test_labels_of_the_word_supporter(claim: str, expected: str) -> None:
    assert WordSupporter().label([claim], PASSAGES) == [expected]


def test_nothing_given_supports_nothing() -> None:
    assert WordSupporter().label(["The Heron ferry carries 72 passengers."], []) == ["unsupported"]
    assert WordSupporter().label([], PASSAGES) == []


class TwoVectors:
    """Texts that speak of boats are one vector, all others another at right angles."""

    dimensions = 2

    @property
    def identity(self) -> Identity:
        return {"embedder": "two vectors"}

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([[1.0, 0.0] if any(w in t for w in ("ferry", "boat")) else [0.0, 1.0] for t in texts], dtype=np.float32)


def test_an_embedder_counts_half() -> None:
    """Heron, carries, passengers, 72 of boat, Heron, carries, over, 72, passengers, daily: 4 / 7 is enough alone, (4 / 7 + 0) / 2 not."""
    near, far = "A boat, the Heron, carries over 72 passengers daily.", "A bus, the Heron, carries over 72 passengers daily."
    for claim, cosine_helps in ((near, True), (far, False)):
        assert WordSupporter(threshold=0.5).label([claim], PASSAGES) == ["supported"]
        expected = "supported" if cosine_helps else "unsupported"
        assert WordSupporter(TwoVectors(), threshold=0.5).label([claim], PASSAGES) == [expected]
    assert WordSupporter(TwoVectors()).identity != WordSupporter().identity


def test_what_is_a_claim() -> None:
    answer = "Sure! The ferry carries 72 passengers. It runs daily. Is there anything else? I do not know the price. Let me know."
    assert claims(answer) == ["The ferry carries 72 passengers.", "It runs daily."]
    assert claims("") == claims("?!") == claims("I don't know.") == []


def test_the_share_by_hand() -> None:
    labels: list[Label] = ["supported", "supported", "contradicted", "unsupported", "unparsed"]
    counted = count_labels(labels)
    assert counted == Groundedness(supported=2, contradicted=1, unsupported=1, unparsed=1)
    assert counted.score == pytest.approx(2 / 4)
    assert count_labels([]).score is None and count_labels(["unparsed"]).score is None
    with pytest.raises(UsageError, match="'idk'"):
        count_labels(["idk"])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("relevant", "expected"),
    [
        ([True, False, True], (1 / 1 + 2 / 3) / 2),
        ([False, True], 1 / 2),
        ([True, True, False], 1.0),
        ([False, False], None),
        ([], None),
    ],
)
def test_contextual_precision_by_hand(relevant: list[bool], expected: float | None) -> None:
    assert contextual_precision(relevant) == (None if expected is None else pytest.approx(expected))


def test_contextual_recall_by_hand() -> None:
    assert contextual_recall(["supported", "unsupported", "contradicted", "unparsed"]) == pytest.approx(1 / 3)
    assert contextual_recall(["unparsed"]) is None


class AnsweredConfig(Config):
    rows: tuple[dict[str, Any], ...]


@recipe
def answered(config: AnsweredConfig, *, run: Run) -> Predictions:
    facts = {"model": {"name": "made up"}}
    return publish(Predictions, run, lambda folder: write_predictions(folder, [dict(row) for row in config.rows]), facts=facts)


def test_predictions_are_judged_claim_by_claim(run: Run) -> None:
    """Answer 1: one supported, one contradicted. 2: nothing claimed. 3: supported. Mean of the two that claim something: 0.75."""
    reference = "The Heron ferry carries 72 passengers. The office in Leeds opens at nine in the morning."
    rows = (
        {"item_id": "1", "answer": "The Heron ferry carries 72 passengers. Tickets cost 900 crowns a year.", "passages": PASSAGES},
        {"item_id": "2", "answer": "I don't know.", "passages": PASSAGES},
        {"item_id": "3", "answer": "Tickets cost 1,200 crowns a year.", "passages": PASSAGES[::-1]},
    )
    given = answered(AnsweredConfig(rows=tuple({**row, "question": "?", "reference": reference} for row in rows)), run=run)
    predictions = groundedness(GroundednessConfig(num_resamples=500), predictions=given, supporter=WordSupporter(), run=run)
    facts = predictions.manifest.facts
    assert [row["groundedness"] for row in predictions.rows] == [0.5, None, 1.0]
    assert facts["groundedness"]["estimate"] == pytest.approx(0.75) and facts["groundedness"]["items"] == 2
    assert facts["claims"] == {"supported": 2, "contradicted": 1, "unsupported": 0, "unparsed": 0}
    assert (facts["answers_without_claims"], facts["answers"]) == (1, 3)
    assert facts["model"] == {"name": "made up"}
    assert (facts["contextual_precision"]["estimate"], facts["contextual_recall"]["estimate"]) == (1.0, 1.0)
    assert predictions.rows[0]["labels"] == ["supported", "contradicted"]


def test_the_passage_may_stand_in_the_corpus(run: Run) -> None:
    corpus = made_up_corpus(MadeUpConfig(), run=run)
    given = answered(AnsweredConfig(rows=({"item_id": "1", "answer": "It opens at nine.", "passage": "held-out-0"},)), run=run)
    found = groundedness(GroundednessConfig(), predictions=given, supporter=WordSupporter(), corpus=corpus, run=run)
    assert HELD_OUT_TEXT.endswith("It opens at nine.") and found.rows[0]["labels"] == ["supported"]
    with pytest.raises(UsageError, match=r"Row 1 of .* \(`1`\) does not say from which passages"):
        groundedness(GroundednessConfig(), predictions=given, supporter=WordSupporter(), run=run)


def test_an_answer_that_was_refused_claims_nothing(run: Run) -> None:
    """As the arms with retrieval write it: no passages were read."""
    rows = (
        {"item_id": "1", "answer": "The documents do not say. They are about ferries.", "finish_reason": "abstained", "passages": None},
        {"item_id": "2", "answer": "Tickets cost 1,200 crowns a year.", "finish_reason": "stop", "passages": PASSAGES},
    )
    given = answered(AnsweredConfig(rows=rows), run=run)
    found = groundedness(GroundednessConfig(num_resamples=500), predictions=given, supporter=WordSupporter(), run=run)
    assert [row["groundedness"] for row in found.rows] == [None, 1.0]


def test_when_nothing_is_claimed_there_is_no_figure(run: Run) -> None:
    given = answered(AnsweredConfig(rows=({"item_id": "1", "answer": "", "passages": PASSAGES},)), run=run)
    facts = groundedness(GroundednessConfig(), predictions=given, supporter=WordSupporter(), run=run).manifest.facts
    assert (facts["groundedness"], facts["contextual_precision"], facts["contextual_recall"]) == (None, None, None)
