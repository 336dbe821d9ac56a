"""Preference pairs of other people's files: dialogues by hand, every way a row can be unusable, the split, and all of hh-rlhf's file."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mygpt.artifacts.dataset import Dataset, Message, Preference
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.data.preference_pairs import PreferencePairsConfig, preference_pairs

Write = Callable[..., Path]
BEGUN = "\n\nHuman: Is it open?\n\nAssistant: On which day?\n\nHuman: Today.\n\nAssistant:"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(*rows: dict[str, Any], name: str = "pairs.jsonl") -> Path:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return tmp_path / name

    return write


def read(run: Run, *files: Path, held_out: Path | None = None, **settings: Any) -> Dataset:
    config = PreferencePairsConfig(**{"held_out_share": 0, **settings})
    return preference_pairs(config, sources=files, held_out=held_out, run=run)


def test_transcripts_by_hand(run: Run, write: Write) -> None:
    found = read(run, write({"chosen": f"{BEGUN} Yes, until 8.\n\nBe quick.", "rejected": f"{BEGUN} No idea."}, name="hh.jsonl.gz"))
    (row,) = found.preferences("train")
    assert row.prompt == (Message("user", "Is it open?"), Message("assistant", "On which day?"), Message("user", "Today."))
    assert (row.chosen, row.rejected) == ("Yes, until 8.\n\nBe quick.", "No idea.")
    assert (row.id, row.margin, row.annotator, dict(row.facts)) == ("hh.jsonl.gz/1", None, "", {"source": "hh.jsonl.gz", "row": "1"})
    facts = found.manifest.facts
    assert (facts["schema"], facts["rows"], facts["dropped"]) == ("preference", {"train": 1, "test": 0}, {})


ASKED = [{"role": "user", "content": "Is it open?"}]
YES, NO = [{"role": "assistant", "content": "Yes."}], [{"role": "assistant", "content": "No."}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Is it open?", "chosen": "Yes.", "rejected": "No."},
        {"prompt": "Is it open?", "chosen": ASKED + YES, "rejected": ASKED + NO},  # UltraFeedback, binarized
        {"prompt": ASKED, "chosen": YES, "rejected": NO},
        {"prompt": ASKED, "chosen": ASKED + YES, "rejected": ASKED + NO},
        {"chosen": ASKED + YES, "rejected": ASKED + NO},  # trl's implicit prompt
        {"prompt": "\n\nHuman: Is it open?\n\nAssistant:", "chosen": " Yes.", "rejected": " No."},
        {"prompt": "Is it open?", "chosen": YES, "rejected": NO},
    ],
)
def test_every_form_is_the_same_pair(run: Run, write: Write, row: dict[str, Any]) -> None:
    (found,) = read(run, write(row)).preferences("train")
    assert (found.prompt, found.chosen, found.rejected) == ((Message("user", "Is it open?"),), "Yes.", "No.")


def test_a_system_message_and_tools_stay(run: Run, write: Write) -> None:
    asked = [{"role": "system", "content": "Be brief."}, *ASKED]
    called = [*asked, {"role": "assistant", "content": "look()"}, {"role": "tool", "content": "9 to 8"}]
    found = read(run, write({"chosen": asked + YES, "rejected": asked + NO}, {"chosen": called + YES, "rejected": called + NO}))
    assert [[m.role for m in row.prompt] for row in found.preferences("train")] == [
        ["system", "user"],
        ["system", "user", "assistant", "tool"],
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": "Yes.", "rejected": "No."}, "not a dialogue"),
        ({"chosen": f"{BEGUN} Yes.", "rejected": "\n\nHuman: Is it open?\n\nAssistant: No."}, "the dialogues part before the last answer"),
        ({"chosen": f"{BEGUN} Yes.", "rejected": f"{BEGUN.replace('day', 'Day')} No."}, "the dialogues part before the last answer"),
        ({"chosen": f"{BEGUN} Yes.\n\nHuman: Thanks.", "rejected": f"{BEGUN} Yes.\n\nHuman: Well."}, "does not end with an answer"),
        ({"chosen": f"\n\nAssistant: Hello.{BEGUN} Yes.", "rejected": f"\n\nAssistant: Hello.{BEGUN} No."}, "turns do not alternate"),
        ({"chosen": "\n\nAssistant: Yes.", "rejected": "\n\nAssistant: No."}, "turns do not alternate"),
        ({"chosen": f"{BEGUN.replace(' Today.', '')} Yes.", "rejected": f"{BEGUN.replace(' Today.', '')} No."}, "with an empty turn"),
        ({"chosen": BEGUN, "rejected": f"{BEGUN} No."}, "with an empty answer"),
        ({"chosen": f"{BEGUN} No.", "rejected": f"{BEGUN} No. "}, "of identical answers"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": 4.0, "score_rejected": 4}, "of equal scores"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": "1", "score_rejected": 4}, "the rejected answer scores higher"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": -0.5}, "the rejected answer scores higher"),
        ({"prompt": "p", "chosen": "good", "rejected": "bad"}, "a pair that was there before"),
    ],
)
def test_rows_that_teach_nothing_are_kept_with_a_reason(run: Run, write: Write, row: dict[str, Any], reason: str) -> None:
    found = read(run, write({"prompt": "p", "chosen": "good", "rejected": "bad"}, row))
    assert len(found.preferences("train")) == 1 and found.manifest.facts["dropped"] == {reason: 1}
    (dropped,) = found.dropped
    assert dropped.reason == reason and dropped.row.id == "pairs.jsonl/2" and dropped.row.facts["row"] == "2" and dropped.detail


def test_scores_and_annotators(run: Run, write: Write) -> None:
    rows = [
        {"q": "p", "chosen": "a", "rejected": "b", "s": 8.5, "t": 7, "who": "Ann"},
        {"q": "p", "chosen": "a", "rejected": "b", "s": 2, "t": 1, "who": "Bo"},  # another person's: not the same pair again
        {"q": "p", "chosen": "a", "rejected": "c", "margin": 0.25},
    ]
    found = read(run, write(*rows), prompt="q", chosen_score="s", rejected_score="t", annotator="who")
    first, second, third = found.preferences("train")
    assert (first.annotator, second.annotator, third.annotator) == ("Ann", "Bo", "")
    assert {k: first.facts[k] for k in ("score_chosen", "score_rejected", "score_margin")} == {
        "score_chosen": "8.5", "score_rejected": "7", "score_margin": "1.5",
    }  # fmt: skip
    assert third.facts["score_margin"] == "0.25" and "score_chosen" not in third.facts
    assert (first.margin, second.margin, third.margin) == (None, None, None)


def test_a_grade_of_the_preference_is_the_margin(run: Run, write: Write) -> None:
    """1 to 3, as text too; a difference of scores is no grade."""
    rows = [{"prompt": "p", "chosen": "a", "rejected": str(n), "strength": value} for n, value in enumerate((3, "2", 1.5))]
    found = read(run, write(*rows), margin="strength").preferences("train")
    assert [(row.margin, row.facts["score_margin"]) for row in found] == [(3, "3"), (2, "2"), (None, "1.5")]


def dialogue(n: int, turns: int) -> str:
    return "".join(f"\n\nHuman: question {n} {t}\n\nAssistant: reply {n} {t}" for t in range(turns)) + f"\n\nHuman: last {n}\n\nAssistant:"


def test_a_dialogue_is_on_one_side(run: Run, write: Write) -> None:
    """40 dialogues, each cut after 1, 2 and 3 turns: a fifth of the dialogues is held out, with all that begins as they do."""
    rows = [{"chosen": f"{dialogue(n, t)} yes", "rejected": f"{dialogue(n, t)} no"} for n in range(40) for t in (1, 2, 3)]
    found = read(run, write(*rows), held_out_share=0.2)
    train, test = ({row.prompt[0].content for row in found.preferences(split)} for split in ("train", "test"))
    assert (len(train), len(test)) == (32, 8) and not train & test
    assert found.manifest.facts["rows"] == {"train": 96, "test": 24}


def test_several_files_and_a_held_out_one(run: Run, write: Write) -> None:
    one = write({"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "r", "chosen": "a", "rejected": "b"}, name="one.jsonl")
    two = write({"prompt": "q", "chosen": "a", "rejected": "b"}, name="two.jsonl")
    test = write({"prompt": "r", "chosen": "x", "rejected": "y"}, {"prompt": "r", "chosen": "x", "rejected": "x"}, name="test.jsonl")
    found = read(run, one, two, held_out=test)
    assert [row.id for row in found.preferences("train")] == ["one.jsonl/1", "two.jsonl/1"]  # one.jsonl/2 has a prompt of the test
    assert [row.id for row in found.preferences("test")] == ["test.jsonl/1"]
    assert found.manifest.facts["dropped"] == {"of identical answers": 1}
    assert [i.name for i in found.manifest.inputs["sources"]] == ["one.jsonl", "two.jsonl"]


def test_refused(run: Run, write: Write) -> None:
    with pytest.raises(UsageError, match=r"pairs.jsonl, row 1: the field `rejected` is missing"):
        read(run, write({"prompt": "p", "chosen": "a"}))
    with pytest.raises(UsageError, match="the field `chosen` is a int, not a text or a list of messages"):
        read(run, write({"prompt": "p", "chosen": 3, "rejected": "b"}))
    with pytest.raises(UsageError, match="which is no message"):
        read(run, write({"chosen": [{"from": "human", "value": "x"}], "rejected": []}))
    with pytest.raises(UsageError, match="the field `score_chosen` is 'high', not a number"):
        read(run, write({"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": "high"}))
    with pytest.raises(UsageError, match=r"None of the 1 rows is a pair to learn from \(1 of identical answers\)"):
        read(run, write({"prompt": "p", "chosen": "a", "rejected": "a"}))


def test_all_of_hh_rlhf(run: Run, shared_data: Path) -> None:
    """2,312 rows: 5 part before the last answer, 4 repeat a speaker, 4 have an empty answer."""
    found = read(run, shared_data / "hh_rlhf_harmless.jsonl.gz", held_out_share=0.2)
    assert found.manifest.facts["dropped"] == {
        "the dialogues part before the last answer": 5, "turns do not alternate": 4, "with an empty answer": 4,
    }  # fmt: skip
    rows: dict[str, list[Preference]] = {split: found.preferences(split) for split in ("train", "test")}
    assert sum(map(len, rows.values())) == 2_312 - 13 == 2_299 and len(found.dropped) == 13
    assert 0.17 < len(rows["test"]) / 2_299 < 0.23
    assert not {r.prompt[0].content.strip() for r in rows["train"]} & {r.prompt[0].content.strip() for r in rows["test"]}
    assert all(r.chosen != r.rejected and r.chosen and r.rejected and r.prompt[-1].role == "user" for part in rows.values() for r in part)
    with gzip.open(shared_data / "hh_rlhf_harmless.jsonl.gz", "rt", encoding="utf-8") as lines:
        raw = [json.loads(line) for line in lines]
    for row in [*rows["train"][:50], *rows["test"][:50]]:  # back to the file's own text by the row's number
        chosen = raw[int(row.facts["row"]) - 1]["chosen"]
        assert chosen.endswith(row.chosen) or chosen.strip().endswith(row.chosen)
        assert all(m.content in chosen for m in row.prompt)
