"""The two sets of `benchmarks/reward_models.py`: how their files are read, split and held against words."""

import gzip
import json
from pathlib import Path

import pytest

from benchmarks.reward_models import (
    SplitConfig,
    baselines,
    gsm8k,
    harmless,
    of_members,
    one_a_prompt,
    split_pairs,
    told_apart,
    turns,
)
from mygpt.artifacts.dataset import Conversation, Message, Preference
from mygpt.core.run import Run


def dialogue(*said: str) -> str:
    return "".join(f"\n\n{('Human', 'Assistant')[n % 2]}: {text}" for n, text in enumerate(said))


def test_dialogues() -> None:
    assert turns(dialogue("Hi", "Hello.\n\nWhat is it?")) == [Message("user", "Hi"), Message("assistant", "Hello.\n\nWhat is it?")]
    assert turns("\n\nHuman: a\n\nHuman: b\n\nAssistant: c") == [Message("user", "a\n\nb"), Message("assistant", "c")]


def test_pairs_that_differ_in_their_last_turn(tmp_path: Path) -> None:
    file = tmp_path / "hh_rlhf_harmless.jsonl.gz"
    rows = [
        {"chosen": dialogue("a", "b", "c", "good"), "rejected": dialogue("a", "b", "c", "bad")},
        {"chosen": dialogue("a", "b", "c", "good"), "rejected": dialogue("a", "other", "c", "bad")},
    ]
    with gzip.open(file, "wt", encoding="utf-8") as opened:
        opened.write("\n".join(map(json.dumps, rows)))
    (row,) = harmless(file)
    assert [m.content for m in row.prompt] == ["a", "b", "c"] and (row.chosen, row.rejected) == ("good", "bad")


def graded(*solutions: tuple[bool, str]) -> dict[str, object]:
    names = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    return {name: {"is_correct": right, "solution": text} for name, (right, text) in zip(names, solutions, strict=True)}


def test_every_right_solution_against_every_wrong_one(tmp_path: Path, run: Run) -> None:
    """Two right and two wrong: four pairs; of equal solutions one. No problem is on both sides of the split."""
    file = tmp_path / "gsm8k_model_solutions.jsonl"
    lines = [{"question": f"Q{n}", **graded((True, "1+1=<<1+1=2>>2"), (True, "it is 2"), (False, "3"), (False, "4"))} for n in range(40)]
    lines.append({"question": "same", **graded((True, "2"), (True, "2"), (False, "3"), (True, "2"))})
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    pairs = gsm8k(file)
    assert len(pairs) == 40 * 4 + 1 and pairs[0].chosen == "1+1=2"
    dataset = split_pairs(SplitConfig(longest_characters=100), source=file, run=run)
    train, test = ({row.prompt for row in dataset.preferences(name)} for name in ("train", "test"))
    assert len(train) + len(test) == 41 and not train & test and len(train) > 2 * len(test) > 0
    assert baselines(dataset)["bag_of_words"][0] == 1.0  # 3 and 4 are always wrong here
    few = split_pairs(SplitConfig(longest_characters=100, most_prompts=5), source=file, run=run)
    assert len({row.prompt for row in few.preferences("train")}) == 5


def test_one_pair_of_each_prompt() -> None:
    rows = [Preference((Message("user", f"Q{n % 2}"),), f"good {n}", "bad") for n in range(6)]
    drawn = one_a_prompt(rows)
    assert [row.prompt[0].content for row in drawn] == ["Q0", "Q1"] and drawn == one_a_prompt(rows)


def test_three_members_as_one() -> None:
    """Of the first pair the members say 2 > 0, 1 < 3 and 0 < 1.5, their mean 1 < 1.5; of the second all say 5 > 4."""
    by_member = [[2.0, 0.0, 5.0, 4.0], [1.0, 3.0, 5.0, 4.0], [0.0, 1.5, 5.0, 4.0]]
    prompts = [Conversation((Message("user", text),)) for text in ("one", "one", "two", "two")]
    found = of_members(by_member, prompts, ["a", "b", "a", "b"])
    assert found["members"] == [1.0, 0.5, 0.5] and found["one_alone"]["estimate"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["mean"]["estimate"] == found["lower_bound"]["estimate"] == 0.5  # 1 - 0.816 < 1.5 - 1.225
    assert found["mean"]["over_one_alone"]["estimate"] == pytest.approx(0.5 - 2 / 3, abs=1e-4)
    assert found["mean_has_wrong"] == 1 and found["disagreement_finds_wrong"]["estimate"] == 1.0


def test_a_wide_spread_lowers_an_answer() -> None:
    """Rewards 0, 3 and 6 (mean 3, deviation 2.449) against 2, 2 and 2: the mean takes the first, the lower bound the second."""
    prompts = [Conversation((Message("user", "one"),))] * 2
    found = of_members([[0.0, 2.0], [3.0, 2.0], [6.0, 2.0]], prompts, ["a", "b"])
    assert (found["mean"]["estimate"], found["lower_bound"]["estimate"]) == (1.0, 0.0)
    assert found["mean_has_wrong"] == 0 and found["disagreement_finds_wrong"] is None


def test_doubt() -> None:
    """Differences (1, 1), (-1, 3), (-2, 1): the last is wrong. Deviations 0, 2, 1.5: one of two right ones is below; sizes 1, 1, 0.5."""
    by_member = [[1.0, 0.0, 0.0, 1.0, 0.0, 2.0], [1.0, 0.0, 3.0, 0.0, 1.0, 0.0]]
    found = told_apart(by_member)
    assert found["mean_has_wrong"] == 1
    assert found["disagreement_finds_wrong"]["estimate"] == 0.5 and found["small_difference_finds_wrong"]["estimate"] == 1.0
