"""Rows of both versions, read, scored by a rule, and counted."""

import json
from pathlib import Path
from typing import Any

import pytest

from mygpt.align.reward_bench import RewardBenchConfig, read_rows, reward_bench
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer, Identity


class Number:
    """The number that an answer is; 1 more where the prompt says so."""

    @property
    def identity(self) -> Identity:
        return {"reward": "number"}

    def __call__(self, prompt: Conversation, answer: Answer) -> float:
        return float(answer.text) + ("one more" in prompt.question)


ROWS: list[dict[str, Any]] = [
    {"prompt": "a", "chosen": "2", "rejected": "1", "subset": "alpacaeval-easy"},
    {"prompt": "b", "chosen": "0", "rejected": "1", "subset": "alpacaeval-hard"},
    {"prompt": [{"role": "user", "content": "c"}], "chosen": "5", "rejected": "1", "subset": "ours", "id": "mine"},
    {"prompt": "d", "chosen": ["3"], "rejected": ["0", "1", "2"], "subset": "Maths"},
    {"prompt": "e", "chosen": ["3"], "rejected": ["3", "1", "2"], "subset": "Maths"},
    {"prompt": "f", "chosen": ["5", "4.8"], "rejected": ["1", "0"], "subset": "Ties", "id": "tied:1"},
    {"prompt": "f", "chosen": ["2"], "rejected": ["1"], "subset": "Ties", "id": "ref:1"},
]


def written(folder: Path, rows: list[Any]) -> Path:
    file = folder / "bench.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return file


def test_both_versions(run: Run, tmp_path: Path) -> None:
    """Chat: (1 x 100 + 0 x 95) / 195 with the published weights; ours 1. Best of four: 1 and a half. Ties: all of it, 1 + 0.01 tanh(4)."""
    made = reward_bench(RewardBenchConfig(rows_at_once=2), source=written(tmp_path, ROWS), reward=Number(), run=run)
    facts = made.manifest.facts
    assert facts["version_1"]["sections"] == pytest.approx({"Chat": 100 / 195, "ours": 1.0})
    assert facts["version_1"]["score"] == pytest.approx((100 / 195 + 1) / 2)
    domains = facts["version_2"]["domains"]
    assert domains["Maths"]["score"] == 0.75 and domains["Maths"]["chance"] == 0.25
    assert domains["Ties"]["score"] == pytest.approx(1.009993, abs=1e-6) and domains["Ties"]["n"] == 2
    assert facts["version_2"]["score"] == pytest.approx((0.75 + domains["Ties"]["score"]) / 2)
    assert [row["right"] for row in made.rows][-2:] == [[5.0, 4.8], [2.0]] and made.rows[0]["form"] == "pair"
    assert facts["sentences"][0] == "Pairs: 0.756 (a coin: 0.500). Chat 0.513, ours 1.000."


def test_the_prompt_is_read(tmp_path: Path, run: Run) -> None:
    rows = [{"prompt": "one more", "chosen": "1", "rejected": "0"}]
    made = reward_bench(RewardBenchConfig(), source=written(tmp_path, rows), reward=Number(), run=run)
    assert made.rows[0]["right"] == [2.0] and list(made.manifest.facts["version_1"]["sections"]) == ["all"]
    (row,) = read_rows(written(tmp_path, rows))
    assert row.prompt == (Message("user", "one more"),) and row.id == "1"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("{", "Line 2 of .* is not JSON"),
        ({"prompt": "a", "chosen": "b"}, "no texts under `chosen` and `rejected`"),
        ({"prompt": "a", "chosen": [], "rejected": ["b"]}, "no texts under"),
        ({"chosen": "a", "rejected": "b"}, "neither a text nor messages"),
        ({"prompt": "a", "chosen": ["1", "2"], "rejected": ["0"], "subset": "Ties", "id": "7"}, "does not say whether it is tied"),
    ],
)
def test_rows_that_are_none(row: Any, told: str, tmp_path: Path, run: Run) -> None:
    with pytest.raises(UsageError, match=told):
        reward_bench(RewardBenchConfig(), source=written(tmp_path, [ROWS[0], row]), reward=Number(), run=run)


def test_an_empty_file(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(UsageError, match="is empty"):
        list(read_rows(empty))
