"""What small critics write around what was asked for is taken off, and what is no revision is named."""

import pytest

from mygpt.align.constitution import open_constitution
from mygpt.align.revisions import needs_no_change, read_critique, read_revision, revision_fault

OFFICE = open_constitution("careful_office")
PRINCIPLE = OFFICE.principle("no_promises")


@pytest.mark.parametrize(
    ("text", "says_none"),
    [
        ("No change needed. It is calm.", True),
        ("no changes are necessary", True),
        ("The answer does not need any change.", True),
        ("This needs no further revision.", True),
        ("There is nothing to change here, it’s fine.", True),
        ("It promises a day. No change needed otherwise.", False),
        ("The answer needs change.", False),
        ("", False),
    ],
)
def test_no_change(text: str, says_none: bool) -> None:
    assert needs_no_change(text) == says_none


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("  Ask the workshop. ", "Ask the workshop."),
        ("Revision: Ask the workshop.", "Ask the workshop."),
        ("**Revised answer:** Ask the workshop.", "Ask the workshop."),
        ("Sure, here is the rewritten answer:\n\nAsk the workshop.", "Ask the workshop."),
        ("Here’s a better version: “Ask the workshop.”", "Ask the workshop."),
        ('"Ask the workshop."', "Ask the workshop."),
        ('"Ask" or "call"', '"Ask" or "call"'),
        ("Here is one idea: ask the workshop.", "Here is one idea: ask the workshop."),
        ("It’s the workshop’s decision.", "It’s the workshop’s decision."),
    ],
)
def test_read_revision(text: str, read: str) -> None:
    assert read_revision(text) == read


def test_read_critique() -> None:
    assert read_critique("Critique: It promises a day.") == "It promises a day."


@pytest.mark.parametrize(
    ("revision", "fault"),
    [
        ("The workshop decides on Thursday. I will write to you then.", ""),
        ("", "empty revision"),
        (" ... ", "empty revision"),
        ("It WILL be ready on Tuesday!", "revision changes nothing"),
        ("I'm sorry, but I can't rewrite the answer.", "does not do the task"),
        ("Please provide the answer that I should look at.", "does not do the task"),
        (PRINCIPLE.revision, "echoes the instructions"),
        ("Will my car be ready on Tuesday?", "echoes the instructions"),
        ("Ask the workshop.\nRequest: When do you open?", "echoes the instructions"),
        ("The answer promises a day that nobody confirmed, and so it may fail.", "repeats the critique"),
        (OFFICE.examples[1].revision or "", "copies an example"),
        ("It may be ready soon or not. " * 8, "repeats itself"),
    ],
)
def test_faults(revision: str, fault: str) -> None:
    told = {"request": "Will my car be ready on Tuesday?", "before": "It will be ready on Tuesday."}
    critique = "The answer promises a day that nobody confirmed."
    assert revision_fault(revision, **told, critique=critique, cut_off=False, principle=PRINCIPLE, constitution=OFFICE) == fault


def test_cut_off() -> None:
    known = {"request": "When?", "before": "Today.", "critique": "It promises.", "principle": PRINCIPLE, "constitution": OFFICE}
    assert revision_fault("The workshop decides, and", **known, cut_off=True) == "cut off at the limit"
