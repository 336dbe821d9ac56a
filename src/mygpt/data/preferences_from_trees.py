"""Search trees as pairs to learn from: at one state, a step that led to success is preferred to its siblings that failed.

What a tree search throws away is a comparison at the same state: the path so far is the prompt, the steps tried from there are the answers.
A file of trees, one object a row:

    {"id": "t1", "prompt": "Book a table.", "nodes": [
      {"id": "a", "parent": null, "text": "call search()"},
      {"id": "o", "parent": "a", "role": "tool", "text": "3 places"},
      {"id": "b", "parent": "o", "text": "call book(1)", "succeeded": true},
      {"id": "c", "parent": null, "text": "I cannot.", "succeeded": false}]}

A node stands after its parent; `prompt` is a text or a list of messages; `role` is `assistant` (the default) or what answered a step,
`tool` or `user`. `succeeded` says it of an end: true, false, or not at all where the search stopped before it knew. A node has
succeeded when one of its descendants has, failed when all have failed, and is left out of comparisons when nothing is known.

Source: Qin et al. 2023, "ToolLLM", arXiv:2307.16789 (DFSDT makes the trees and keeps the path); the siblings as pairs: Chen et al. 2024,
        arXiv:2406.07115
We differ: a branch that was never finished is not a failure.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field

from mygpt.artifacts.dataset import Dataset, Message, Preference, Role, preference_facts, write_preferences
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.rows import Row, read_rows
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.data.row_splits import opening, train_and_test

Outcome = Literal["succeeded", "failed", "unknown"]


class PreferencesFromTreesConfig(Config):
    pairs_per_state: Annotated[int, Field(ge=1)] = 2  # drawn, where more siblings failed
    held_out_share: Annotated[float, Field(ge=0, lt=1)] = 0.0  # of the trees' first questions


@dataclass(frozen=True)
class Node:
    id: str
    parent: str | None
    role: Role
    text: str
    outcome: Outcome


@recipe
def preferences_from_trees(config: PreferencesFromTreesConfig, *, source: Path, run: Run) -> Dataset:
    """Split `train`, and `test` where a share is held out."""
    rows, num_trees, num_solved = [], 0, 0
    for row in read_rows(source):
        tree, prompt, nodes = read_tree(row)
        num_trees += 1
        num_solved += any(node.outcome == "succeeded" for node in nodes.values())
        by_state: dict[tuple[Message, ...], list[Preference]] = defaultdict(list)
        for pair in sibling_pairs(tree, prompt, nodes):
            by_state[pair.prompt].append(pair)
        for state, found in by_state.items():
            few = len(found) <= config.pairs_per_state
            rows += found if few else run.random(f"{tree}/{len(state)}").sample(found, config.pairs_per_state)
    if not rows:
        what = f"None of the {num_trees} trees has a step that succeeded beside one that failed ({num_solved} succeeded at all)."
        raise UsageError(what, fix="Let the search try more than one step at a state (its width).")
    splits = train_and_test(rows, None, share=config.held_out_share, text_of=opening, order=run.random("held out"), run=run)
    splits = {name: part for name, part in splits.items() if part}
    facts = {**preference_facts(splits), "trees": num_trees, "trees_that_succeeded": num_solved}
    return publish(Dataset, run, lambda folder: write_preferences(folder, splits), facts=facts)


def sibling_pairs(tree: str, prompt: tuple[Message, ...], nodes: Mapping[str, Node]) -> Iterator[Preference]:
    """In the order of the nodes: each step that succeeded over each of its siblings that failed."""
    children: dict[str | None, list[Node]] = defaultdict(list)
    for node in nodes.values():
        if node.role == "assistant":
            children[node.parent].append(node)
    for parent, tried in children.items():
        path: list[Message] = []
        at = parent
        while at is not None:
            path.append(Message(nodes[at].role, nodes[at].text))
            at = nodes[at].parent
        for better in (node for node in tried if node.outcome == "succeeded"):
            for worse in (node for node in tried if node.outcome == "failed"):
                if better.text.strip() != worse.text.strip():
                    facts = {"tree": tree, "chosen": better.id, "rejected": worse.id, "depth": str(len(path))}
                    state = (*prompt, *reversed(path))
                    yield Preference(state, better.text, worse.text, f"{tree}/{better.id}/{worse.id}", facts=facts)


def read_tree(row: Row) -> tuple[str, tuple[Message, ...], dict[str, Node]]:
    """Id, prompt, and nodes by id in the file's order. Raises UsageError for what is no tree."""
    given = row.get("prompt")
    prompt = _messages(row, given) if isinstance(given, list) else (Message("user", row.text("prompt")),)
    listed = row.get("nodes")
    fix = "The form stands in docs/data/preferences_from_trees.md."
    if not isinstance(listed, list) or not listed or not all(isinstance(node, Mapping) for node in listed):
        raise UsageError(f"{row.place}: the field `nodes` is no list of nodes.", fix=fix)
    own: dict[str, tuple[str | None, Role, str, bool | None]] = {}
    for node in listed:
        name, parent, role = str(node.get("id", "")), node.get("parent"), node.get("role", "assistant")
        if not name or name in own or (parent is not None and str(parent) not in own):
            what = "has no id of its own" if not name or name in own else f"comes before its parent `{parent}`, or has none"
            raise UsageError(f"{row.place}: the node `{name}` {what}.", fix=fix)
        if role not in ("assistant", "tool", "user") or not isinstance(node.get("text"), str) or not node["text"].strip():
            raise UsageError(f"{row.place}: the node `{name}` has the role {role!r} and the text {str(node.get('text'))[:60]!r}.", fix=fix)
        if node.get("succeeded") not in (None, True, False):
            raise UsageError(f"{row.place}: `succeeded` of the node `{name}` is {node['succeeded']!r}.", fix="true, false, or not at all.")
        own[name] = (None if parent is None else str(parent), role, node["text"].strip(), node.get("succeeded"))
    below: dict[str, set[Outcome]] = defaultdict(set)
    outcomes: dict[str, Outcome] = {}
    for name, (parent, _, _, succeeded) in reversed(own.items()):
        if "succeeded" in below[name] and succeeded is False:
            raise UsageError(f"{row.place}: the node `{name}` is said to have failed, and one below it succeeded.", fix=fix)
        outcomes[name] = _outcome(succeeded, below[name])
        if parent is not None:
            below[parent].add(outcomes[name])
    nodes = {name: Node(name, parent, role, text, outcomes[name]) for name, (parent, role, text, _) in own.items()}
    return str(row.values.get("id") or row.number), prompt, nodes


def _outcome(own: bool | None, below: set[Outcome]) -> Outcome:
    if own or "succeeded" in below:
        return "succeeded"
    return "failed" if own is False or below == {"failed"} else "unknown"


def _messages(row: Row, listed: list[Any]) -> tuple[Message, ...]:
    roles = ("system", "user", "assistant", "tool")
    if not listed or not all(isinstance(m, dict) and m.get("role") in roles and isinstance(m.get("content"), str) for m in listed):
        raise UsageError(f"{row.place}: the field `prompt` is no list of messages.", fix='Write [{"role": "user", "content": "..."}, ...].')
    return tuple(Message(cast(Role, m["role"]), m["content"]) for m in listed)
