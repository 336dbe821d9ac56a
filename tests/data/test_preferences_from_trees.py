"""Search trees as pairs: one tree by hand, what is unknown, what is no tree."""

import json
from pathlib import Path
from typing import Any

import pytest

from mygpt.artifacts.dataset import Dataset, Message
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.data.preferences_from_trees import PreferencesFromTreesConfig, preferences_from_trees


def node(name: str, parent: str | None, text: str, succeeded: bool | None = None, role: str = "assistant") -> dict[str, Any]:
    known = {} if succeeded is None else {"succeeded": succeeded}
    return {"id": name, "parent": parent, "text": text, "role": role, **known}


# Two first steps fail, the third finds a table after one wrong call; a fourth was never finished.
TREE = {
    "id": "t1",
    "prompt": "Book a table.",
    "nodes": [
        node("a", None, "I cannot.", False),
        node("b", None, "search(bar)"),
        node("b1", "b", "nothing", role="tool"),
        node("b2", "b1", "give_up()", False),
        node("c", None, "search(diner)"),
        node("c1", "c", "3 places", role="tool"),
        node("c2", "c1", "book(9)", False),
        node("c3", "c1", "book(1)"),
        node("c4", "c3", "booked", role="tool"),
        node("c5", "c4", "You have a table.", True),
        node("d", None, "search(cafe)"),
    ],
}


def read(run: Run, folder: Path, *trees: dict[str, Any], **settings: Any) -> Dataset:
    (folder / "trees.jsonl").write_text("".join(json.dumps(tree) + "\n" for tree in trees))
    return preferences_from_trees(PreferencesFromTreesConfig(**settings), source=folder / "trees.jsonl", run=run)


def test_by_hand(run: Run, tmp_path: Path) -> None:
    found = read(run, tmp_path, TREE, pairs_per_state=9)
    rows = {row.id: row for row in found.preferences("train")}
    assert list(rows) == ["t1/c/a", "t1/c/b", "t1/c3/c2"]  # d is unknown: neither better nor worse than anything
    assert [(row.chosen, row.rejected) for row in rows.values()] == [
        ("search(diner)", "I cannot."), ("search(diner)", "search(bar)"), ("book(1)", "book(9)"),
    ]  # fmt: skip
    assert rows["t1/c/a"].prompt == (Message("user", "Book a table."),)
    deep = rows["t1/c3/c2"]
    assert deep.prompt == (Message("user", "Book a table."), Message("assistant", "search(diner)"), Message("tool", "3 places"))
    assert dict(deep.facts) == {"tree": "t1", "chosen": "c3", "rejected": "c2", "depth": "2"}
    assert (found.manifest.facts["trees"], found.manifest.facts["trees_that_succeeded"]) == (1, 1)


def test_capped_at_each_state_and_apart_by_question(run: Run, tmp_path: Path) -> None:
    trees = [{**TREE, "id": f"t{n}", "prompt": f"Book table {n}."} for n in range(10)]
    found = read(run, tmp_path, *trees, pairs_per_state=1, held_out_share=0.2)
    assert found.manifest.facts["rows"] == {"train": 16, "test": 4}
    asked = [{row.prompt[0].content for row in found.preferences(split)} for split in ("train", "test")]
    assert not asked[0] & asked[1]
    again = read(run, tmp_path, *trees, pairs_per_state=1, held_out_share=0.2)
    assert again.digest == found.digest


def test_messages_as_the_prompt(run: Run, tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Tools: book."}, {"role": "user", "content": "Book a table."}]
    (row, *_) = read(run, tmp_path, {**TREE, "prompt": messages}).preferences("train")
    assert row.prompt == (Message("system", "Tools: book."), Message("user", "Book a table."))


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([], "`nodes` is no list of nodes"),
        ([node("a", None, "x"), node("a", None, "y")], "the node `a` has no id of its own"),
        ([node("a", "b", "x"), node("b", None, "y")], "the node `a` comes before its parent `b`, or has none"),
        ([node("a", None, " ")], "the node `a` has the role 'assistant' and the text ' '"),
        ([node("a", None, "x", role="system")], "has the role 'system'"),
        ([{**node("a", None, "x"), "succeeded": "yes"}], "`succeeded` of the node `a` is 'yes'"),
        ([node("a", None, "x", False), node("b", "a", "y", True)], "the node `a` is said to have failed, and one below it succeeded"),
        ([node("a", None, "x", True), node("b", None, "y")], "None of the 1 trees has a step that succeeded beside one that failed"),
    ],
)
def test_refused(run: Run, tmp_path: Path, nodes: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read(run, tmp_path, {"prompt": "p", "nodes": nodes})
