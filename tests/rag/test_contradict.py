"""What a source cannot support, sentence by sentence."""

import pytest

from mygpt.rag.contradict import Claim, contradiction, misplaced_number
from mygpt.rag.search import Search

FARE = "An adult single costs £4.20 and an adult day return costs £7.00."


@pytest.mark.parametrize(
    ("said", "source", "veto"),
    [
        ("An adult single costs £4.30.", FARE, "number"),
        ("A single costs seven pounds.", FARE, ""),  # 7 stands there; whose it is, `misplaced_number` says
        ("The boat waits ten minutes.", "The boat waits 10 minutes.", ""),
        ("The boat waits ten minutes.", "The boat waits twelve minutes.", "number"),
        ("Members of the Kestrel Club pay less.", "Members pay less.", "name"),
        ("Ines Calloway leads the ferry.", "Ines Calloway has led the ferry since 2018.", ""),
        ("The boats do not sail in fog.", "The boats sail in fog.", "negation"),
        ("The boats sail in fog.", "The boats do not sail in fog.", "negation"),
        ("The boats sail in fog.", "Neither the wind nor rain stops us, and the boats sail in fog.", ""),  # another clause is denied
        ("Leads may be two metres long.", "Leads may be no longer than two metres.", ""),  # a comparison denies nothing
        ("Tickets are sold before the crossing.", "Tickets are sold after the crossing.", "opposite"),
        ("A carnet is valid for 18 weeks.", "A carnet is valid for 18 months.", "opposite"),
        ("The first boat leaves at noon.", "The last boat leaves at 12:00.", "opposite"),
        ("The red flag means danger.", "The green flag means danger.", "opposite"),
        ("The tea room takes only cash.", "The tea room takes cash.", "scope"),
        ("The tea room takes only cash.", "The tea room takes nothing but cash.", ""),
        ("A member with more shares has more votes.", "Each member has one vote, however many shares he holds.", "scope"),
        ("Pass it as default_encoding.", "Set the `default_encoding` argument.", ""),
        ("Pass it as fallback_encoding.", "Set the `default_encoding` argument.", "identifier"),
        ("Close it with client.aclose().", "Use `await client.aclose()` to close it.", ""),
    ],
)
def test_veto(ferries: Search, said: str, source: str, veto: str) -> None:
    assert contradiction(Claim(said), source, "", ferries.weights) == veto


def test_a_heading_may_give_the_name_but_not_the_number(ferries: Search) -> None:
    assert contradiction(Claim("On the Heron, bicycles are free."), "Bicycles are free.", "The Heron", ferries.weights) == ""
    assert contradiction(Claim("Bicycles are free for 12 days."), "Bicycles are free for days.", "Rule 12", ferries.weights) == "number"


@pytest.mark.parametrize(
    ("said", "is_misplaced"),
    [
        ("An adult single costs £4.20.", False),
        ("An adult day return costs £7.00.", False),
        ("An adult day return costs £4.20.", True),
        ("An adult single costs £4.20 and an adult day return costs £7.00.", False),
        ("An adult single costs £7.00 and an adult day return costs £4.20.", True),
        ("The Wren carries 40 passengers.", False),
        ("The Wren carries 72 passengers.", True),
        ("Boats carry passengers.", False),
    ],
)
def test_numbers_belong_to_their_clause(ferries: Search, said: str, is_misplaced: bool) -> None:
    sources = [FARE, "The Heron carries 72 passengers.", "The Wren carries 40 passengers."]
    assert misplaced_number(Claim(said), sources, ferries.weights) is is_misplaced


@pytest.mark.parametrize(("fragment", "is_misplaced"), [("Channel 16.", False), ("Channel 14.", True)])
def test_a_fragment_is_about_its_question(ferries: Search, fragment: str, is_misplaced: bool) -> None:
    sources = ["The coastguard is called on channel 16.", "Our own working channel is channel 14."]
    question = "Which channel reaches the coastguard?"
    assert misplaced_number(Claim(fragment), sources, ferries.weights, question=question) is is_misplaced
