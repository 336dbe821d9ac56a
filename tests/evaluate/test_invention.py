"""Invention: replies read by hand, and scripted models whose shares are known."""

import pytest

from mygpt.artifacts.dataset import Conversation
from mygpt.core.run import Run
from mygpt.evaluate.behaviour_set import load_items
from mygpt.evaluate.invention import InventionConfig, invention, read
from mygpt.infer.scripted import ScriptedCompleter

ITEMS = load_items("invention")


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        ("It was built in 1874.", "right"),
        ("1874", "right"),
        ("In 18745.", "other"),
        ("The text does not say.", "admitted"),
        ("The text doesn’t actually mention who designed it.", "admitted"),
        ("That is not stated in the text, but it may have been John Smith.", "admitted"),
        ("There is no information about the designer.", "admitted"),
        ("I don't know.", "admitted"),
        ("It was designed by John Smith.", "other"),
        ("He did not design it; John Smith did.", "other"),
        ("...", "unparsed"),
        ("", "unparsed"),
    ],
)
def test_replies_read_by_hand(reply: str, outcome: str) -> None:
    assert read(reply, ["1874"]) == outcome


def test_items_are_what_they_claim() -> None:
    """36 texts; an accepted answer stands in its text, and both questions are another."""
    assert len(ITEMS) == 36 and len({item["text"] for item in ITEMS}) == 36
    for item in ITEMS:
        assert item["present"] != item["missing"]
        assert any(answer.lower() in item["text"].lower() for answer in item["answers"]), item["id"]


def reader(conversation: Conversation) -> str:
    item = next(item for item in ITEMS if item["text"] in conversation.question)
    return item["answers"][0] if item["present"] in conversation.question else "The text does not say."


@pytest.mark.parametrize(
    ("reply", "admission", "right"),
    [(reader, 1.0, 1.0), (lambda asked: "The text does not say.", 1.0, 0.0), (lambda asked: "John Smith, of course.", 0.0, 0.0)],
)
def test_scripted_models(reply, admission: float, right: float, run: Run) -> None:  # type: ignore[no-untyped-def]
    predictions = invention(InventionConfig(), completer=ScriptedCompleter(reply), run=run)
    facts = predictions.manifest.facts
    assert (facts["admission"]["estimate"], facts["right"]["estimate"]) == (admission, right)
    assert facts["admission"]["items"] == 36 and facts["admission"]["reliable"]
    assert sum(row["appropriate"] for row in predictions.rows) == 36 * (admission + right)
    assert facts["admitted_though_present"] == (36 if (admission, right) == (1.0, 0.0) else 0)
