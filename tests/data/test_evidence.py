"""Which sentences state a fact by themselves, and that each can be found again in its document."""

import pytest

from mygpt.artifacts.corpus import Passage, Span
from mygpt.data.evidence import Evidence, best_evidence, content_words, evidence_in, plain, shared_words, states_a_fact

FACTS = [
    "The museum was founded in 1921 by Clara Voss.",
    "A family ticket costs 24 euros.",
    "By default, logs are kept on the server!",
    "Notes on each visit are kept for two years.",  # "Notes" is not "Note"
    "Software updates are installed every Monday night.",  # "Software" is not "So"
    "The client raises `TooManyRedirects` after twenty redirects in a row.",
    "Die Werkstatt öffnet werktags um acht Uhr morgens.",
]
NO_FACTS = {
    "too short": "It opens at eight.",
    "too long": "The list names " + ", ".join(["one word"] * 22) + " in one sentence.",
    "a question": "When does the museum open on a Sunday in winter?",
    "no full stop": "The museum was founded in 1921 by Clara Voss",
    "a colon": "The museum was founded in 1921 by these people:",
    "trails off": "The museum was founded in 1921 and then...",
    "leans on the one before": "It was founded in 1921 by Clara Voss.",
    "leans, in small letters": "however the museum was founded in 1921 by her.",
    "a note": "Note that the museum was founded in 1921.",
    "points below": "The opening hours of the museum are listed below.",
    "points at a section": "The next section tells who founded the museum in 1921.",
    "points at this page": "On this page we tell who founded the museum.",
    "mostly numbers": "Totals 12.5 13.5 14.5 15.5 16.5 17.5 18.5.",
    "an address": "The museum is found at http://example.com in the city.",
    "two paragraphs": "The museum was founded in 1921.\n\nClara Voss was its head.",
    "nothing": "",
}


@pytest.mark.parametrize("sentence", FACTS)
def test_states_a_fact(sentence: str) -> None:
    assert states_a_fact(sentence)


@pytest.mark.parametrize("reason", NO_FACTS)
def test_does_not(reason: str) -> None:
    assert not states_a_fact(NO_FACTS[reason])


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("A [family ticket](prices.md#family) costs\n**24** euros.", "A family ticket costs 24 euros."),
        ("*Dogs* must be kept on a _lead_.", "Dogs must be kept on a lead."),
        ("The ![old](a.png) __tower__ stands.", "The old tower stands."),
        ("A quote that\n> goes on\n> > twice.", "A quote that goes on twice."),
        ("Set snake_case_name and 2 * 3 * 4.", "Set snake_case_name and 2 * 3 * 4."),
        ("The `__init__` method takes `*args` and `**kwargs`.", "The `__init__` method takes `*args` and `**kwargs`."),
        ("Call **`run_all`** or [`stop`](a_b.md), not [x](`y`) or `z_1_`.", "Call `run_all` or `stop`, not x or `z_1_`."),
    ],
)
def test_plain_by_hand(markdown: str, expected: str) -> None:
    assert plain(markdown) == expected
    assert plain(expected) == expected


DOCUMENT = """# Museum

The *museum* was founded in 1921 by [Clara
Voss](people.md). It opens at eight. Does it cost anything to come in?

- A family ticket costs **24** euros.
- Tickets

> Visitors may leave bags in the
> lockers for one day.

| Day | Hours of the museum are these. |
|---|---|
| Monday | The museum is closed on that day. |

```
The filter removes all empty lines from the report.
```
"""


def passage(text: str, start: int = 0) -> Passage:
    return Passage("p", Span("d", start, start + len(text), "Museum"), text, "Museum", "museum.md")


def test_evidence_in_a_passage() -> None:
    """Headings, tables, code and sentences that state nothing are passed over; spans count from the document's beginning."""
    before = "An earlier passage.\n\n"
    found = list(evidence_in(passage(DOCUMENT, start=len(before))))
    assert [e.text for e in found] == [
        "The museum was founded in 1921 by Clara Voss.",
        "A family ticket costs 24 euros.",
        "Visitors may leave bags in the lockers for one day.",
    ]
    document = before + DOCUMENT
    for evidence in found:
        assert plain(document[evidence.span.start : evidence.span.end]) == evidence.text
        assert (evidence.span.document_id, evidence.span.place) == ("d", "Museum")
    first = document[found[0].span.start : found[0].span.end]
    assert first == "The *museum* was founded in 1921 by [Clara\nVoss](people.md)."


def test_words_in_common_by_hand() -> None:
    assert content_words("When was the Museum founded, and by whom?") == {"museum", "founded"}
    assert shared_words("the museum in Bern", "The museum was founded.") == 0.5  # museum of {museum, bern}
    assert shared_words("it is", "It is so.") == 0.0  # nothing was said


def test_best_evidence() -> None:
    candidates = [Evidence(text, passage(text), Span("d", 0, len(text))) for text in FACTS[:2]]
    assert best_evidence("Clara Voss", candidates, 0.5) is candidates[0]
    assert best_evidence("24 euros and a coat", candidates, 0.5) is candidates[1]  # 2 of 3
    assert best_evidence("24 coats and hats", candidates, 0.5) is None  # 1 of 3
    assert best_evidence("Clara", [], 0.5) is None
