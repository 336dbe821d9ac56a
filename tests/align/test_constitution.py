"""The included constitutions keep what they promise; a faulty file is refused with the place and what to do."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from mygpt.align.constitution import NO_CHANGE, Constitution, included, open_constitution, parse_constitution, read_constitution
from mygpt.align.requests import dialogue, helpful_prompts, red_team_prompts, requests
from mygpt.artifacts.dataset import Message
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.data.replay import load_prompts
from mygpt.evaluate.behaviour_set import load_items
from mygpt.evaluate.general_set import load_general
from tests.align import sites

SMALL: dict[str, Any] = {
    "id": "tone",
    "name": "Tone",
    "principles": [{"id": "calm", "critique": "Where is it angry?", "revision": "Make it calm.", "better": "stays calm"}],
    "examples": [
        {"principle": "calm", "request": "Hi", "answer": "Go away!", "critique": "It is rude.", "revision": "Hello."},
        {"principle": "calm", "request": "Hi", "answer": "Hello.", "critique": "No change needed. It is calm."},
    ],
    "comparisons": [{"principle": "calm", "request": "Hi", "a": "Hello.", "b": "What?!", "reason": "A is calm.", "better": "a"}],
}


@pytest.mark.parametrize("name", ["careful_office", "harmless_and_helpful"])
def test_included(name: str) -> None:
    one = open_constitution(name)
    assert name in included() and one.id == name
    assert 12 <= len(one.principles) <= 16
    assert sum(example.revision is None for example in one.examples) >= 2
    assert all(example.critique.lower().startswith(NO_CHANGE) for example in one.examples if example.revision is None)
    assert {"truthful", "calibrated", "known_only", "figures"} & {example.principle for example in one.examples}
    assert {comparison.better for comparison in one.comparisons} == {"a", "b"}


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "tone.yaml"
    file.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    one = open_constitution("harmless_and_helpful", file)
    assert isinstance(one, Constitution) and one == parse_constitution(SMALL)
    assert one.principle("calm").better == "stays calm" and one.told["id"] == "tone"
    changed = parse_constitution({**SMALL, "name": "Another tone"})
    assert changed.told["digest"] != one.told["digest"]


def broken(*place: Any, to: Any = None) -> dict[str, Any]:
    made = copy.deepcopy(SMALL)
    at: Any = made
    for part in place[:-1]:
        at = at[part]
    if to is None:
        del at[place[-1]]
    else:
        at[place[-1]] = to
    return made


CASES: list[tuple[Any, str, str]] = [
    ([1], "holds no settings", "Begin with"),
    (broken("principles"), "has no list of principles", "principles:"),
    (broken("examples", to=[]), "has no list of examples", "examples:"),
    (broken("principles", 0, to="be nice"), "principles 1 is 'be nice'", "shows the form"),
    (broken("principles", 0, "revision"), r"principles 1 \(calm\): Setting `revision`", "shows the form"),
    (broken("principles", 0, "beter", to="x"), "Unknown setting `beter`", "Did you mean `better`"),
    (broken("principles", 0, "id", to="Be calm"), "`id` cannot be 'Be calm'", "shows the form"),
    (broken("principles", to=SMALL["principles"] * 2), "`calm` 2 times", "id of its own"),
    (broken("examples", 0, "principle", to="clam"), "example 1 is about the principle `clam`", "Did you mean `calm`"),
    (broken("comparisons", 0, "better", to="c"), "comparisons 1: Setting `better` cannot be 'c'", "shows the form"),
    (broken("examples", 0, "revision"), "example 1 has no revision and finds fault", "No change needed"),
    (broken("examples", 1, "revision", to="Hi."), "example 2 says that no change is needed and has a revision", "No change needed"),
    (broken("examples", to=SMALL["examples"][:1] * 2), "2 examples and none that leaves the answer alone", "Show both"),
    (broken("examples", to=SMALL["examples"][1:] * 2), "2 examples and none that changes the answer", "Show both"),
    (broken("name"), "Setting `name`", "shows the form"),
]


@pytest.mark.parametrize(("read", "what", "fix"), CASES)
def test_faults_are_named(read: Any, what: str, fix: str) -> None:
    with pytest.raises(UsageError, match=what) as told:
        parse_constitution(read, called="tone.yaml")
    assert "tone.yaml" in told.value.what and fix in told.value.fix


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_constitution(tmp_path / "none.yaml")
    file = tmp_path / "bad.yaml"
    file.write_text("id: x\nname: [", encoding="utf-8")
    with pytest.raises(UsageError, match="is not YAML, line"):
        read_constitution(file)
    with pytest.raises(UsageError, match="no constitution `harmles_and_helpful`") as told:
        open_constitution("harmles_and_helpful")
    assert "Did you mean `harmless_and_helpful`" in told.value.fix and "--constitution-file" in told.value.fix


def test_our_requests_measure_nothing_else() -> None:
    """What is learnt from must not be what refusal, disinformation and forgetting are measured on, nor what replay rehearses."""
    ours = [prompt.question for prompt in (*red_team_prompts(), *helpful_prompts())]
    assert 40 <= len(red_team_prompts()) <= 60 and 40 <= len(helpful_prompts()) <= 60 and len(set(ours)) == len(ours)
    measured = {item["prompt"] for name in ("refusal", "disinformation") for item in load_items(name)}
    measured |= {item.question for item in load_general()[0]} | set(load_prompts())
    assert not {text.strip().lower() for text in ours} & {text.strip().lower() for text in measured}


def test_requests_of_a_dataset(run: Run) -> None:
    given = sites.prompts(sites.PromptsConfig(questions=("One?", "Two?", "One?")), run=run)
    assert [row.question for row in requests(given, [], None)] == ["One?", "Two?"]
    assert [row.question for row in requests(given, [], 1)] == ["One?"]
    assert requests(None, red_team_prompts(), 3) == red_team_prompts()[:3]
    with pytest.raises(UsageError, match="no requests"):
        requests(sites.prompts(sites.PromptsConfig(questions=()), run=run), [], None)


def test_a_longer_conversation_as_one_text() -> None:
    assert dialogue([Message("user", "Hi")]) == "Hi"
    turns = [Message("user", "Hi"), Message("assistant", "Hello."), Message("user", "Bye")]
    assert dialogue(turns) == "User: Hi\nAssistant: Hello.\nUser: Bye"
