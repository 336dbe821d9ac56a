"""Rejection sampling: who is kept, who is not and why, and that sft learns what was kept."""

from collections import Counter
from typing import Any

import pytest

from mygpt.align.rejection_sampling import RejectionSamplingConfig, rejection_sampling, sorted_out
from mygpt.artifacts.dataset import Conversation, Dropped, Message
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.finetune.sft import SFTConfig, sft
from mygpt.infer.protocols import Answer
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.adapters.lora import LoRA
from tests.align.rewarded import LETTERS, dataset_of
from tests.align.test_best_of_n import Counting
from tests.finetune import toys

ROW = Conversation((Message("system", "Be brief."), Message("user", "How many?"), Message("assistant", "7")), "q", facts={"kind": "count"})
ANSWERS = [Answer("seven"), Answer("7"), Answer("7"), Answer("8"), Answer(" "), Answer("7 of", finish_reason="length"), Answer("vii")]
REWARDS = [0.5, 1.0, 1.0, 0.0, 1.0, 1.0, 0.9]


def test_kept_and_dropped() -> None:
    found = list(sorted_out(ROW, ANSWERS, REWARDS, RejectionSamplingConfig(keep=2, threshold=0.4)))
    kept = [one for one in found if isinstance(one, Conversation)]
    assert [(one.id, one.answer) for one in kept] == [("q-2", "7"), ("q-7", "vii")]
    assert kept[0].messages[:2] == ROW.messages[:2]
    assert kept[0].facts == {"kind": "count", "prompt": "q", "reward": "1"}
    reasons = {(one.row.id, one.reason) for one in found if isinstance(one, Dropped)}
    assert reasons == {
        ("q-1", "not among the best"),
        ("q-3", "duplicate"),
        ("q-4", "below the threshold"),
        ("q-5", "empty"),
        ("q-6", "cut off"),
    }


def numbers(run: Run, **settings: Any) -> Any:
    rows = [Conversation((Message("user", q), Message("assistant", a)), q) for q, a in (("1", "11"), ("2", "5"), ("3", "33"))]
    config = RejectionSamplingConfig(samples=3, **settings)
    return rejection_sampling(config, completer=Counting(), dataset=dataset_of(rows, run), run=run)


def test_by_a_verifier(run: Run) -> None:
    """The completer writes 1, 11, 111: two of three prompts get their right answer."""
    made = numbers(run, threshold=1.0)
    assert [(row.question, row.answer) for row in made.split("train")] == [("1", "11"), ("3", "33")]
    facts = made.manifest.facts
    assert facts["dropped"] == {"below the threshold": 7} and facts["prompts"] == 3 and facts["prompts_with_an_answer"] == 2
    assert facts["reward"] == {"reward": "numeric", "relative_tolerance": 0.0}
    assert Counter(one.reason for one in made.dropped) == {"below the threshold": 7}


def test_nothing_is_kept(run: Run) -> None:
    with pytest.raises(Refused, match="None of 9 answers is kept; the best reward is 1"):
        numbers(run, threshold=2.0)


def test_the_best_of_a_policy_are_learnt(run: Run) -> None:
    """From a model of random weights, by letters; what is kept goes into sft as it is."""
    model, prompts = toys.base(toys.BaseConfig(), run=run), toys.pairs(toys.PairsConfig(), run=run)
    config = RejectionSamplingConfig(samples=4, max_answer_tokens=200)
    made = rejection_sampling(config, completer=TorchEngine(model), dataset=prompts, reward=LETTERS, run=run)
    assert 1 <= len(made.split("train")) <= 6 and made.schema == "sft"
    best: dict[str, float] = {}
    for one in made.dropped:
        if one.reason == "not among the best":
            best[one.row.facts["prompt"]] = max(best.get(one.row.facts["prompt"], 0.0), float(one.row.facts["reward"]))
    assert all(float(row.facts["reward"]) >= best.get(row.facts["prompt"], 0.0) for row in made.split("train"))
    tuned = sft(SFTConfig(method=LoRA(rank=2), precision="float32", epochs=1, drop_over_long=True), model=model, dataset=made, run=run)
    assert tuned.manifest.facts["trainable"] > 0
