"""The two sets of `benchmarks/reward_models.py`: how their files are read, split and held against words."""

import gzip
import json
from pathlib import Path

from benchmarks.reward_models import SplitConfig, baselines, gsm8k, harmless, split_pairs, turns, word_weights
from mygpt.artifacts.dataset import Message, Preference
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


def test_words_that_decide_have_weight() -> None:
    rows = [Preference((Message("user", "Q"),), f"sorry {n % 3}", f"sure {n % 3}") for n in range(20)]
    weights = word_weights(rows)
    assert weights["sorry"] > 0.3 and weights["sorry"] == -weights["sure"]
