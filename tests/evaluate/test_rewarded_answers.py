"""Answers to held-out prompts and their rewards, as a task whose version knows prompts and reward."""

import pytest

from mygpt.align.rewards import NamedReward
from mygpt.artifacts.dataset import Conversation, Dataset, Message, conversation_facts, write_conversations
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.errors import MygptError, UsageError
from mygpt.core.run import Run
from mygpt.evaluate.compare_models import CompareConfig, compare_models
from mygpt.evaluate.rewarded_answers import RewardedAnswersConfig, rewarded_answers
from mygpt.infer.scripted import ScriptedCompleter


class AskedConfig(Config):
    prompts: int = 6


@recipe
def asked(config: AskedConfig, *, run: Run) -> Dataset:
    splits = {"test": [Conversation((Message("user", f"Say {n}."),), f"p{n}") for n in range(config.prompts)]}
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=conversation_facts(splits), name="asked")


class Letters(NamedReward):
    def each(self, prompts, answers):  # type: ignore[no-untyped-def]
        return [self(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]


LENGTH = Letters("length", lambda prompt, answer: float(len(answer.text)))


def echo(times: int) -> ScriptedCompleter:
    return ScriptedCompleter(lambda conversation: conversation.question * times, name=f"echo {times}")


def test_rows_and_facts(run: Run) -> None:
    made = rewarded_answers(RewardedAnswersConfig(), dataset=asked(AskedConfig(), run=run), completer=echo(1), reward=LENGTH, run=run)
    assert [(row["item_id"], row["answer"], row["reward"]) for row in made.rows][:2] == [("p0", "Say 0.", 6.0), ("p1", "Say 1.", 6.0)]
    facts = made.manifest.facts
    assert (facts["primary"], facts["higher_is_better"]["reward"], len(made.rows)) == ("reward", True, 6)
    assert made.manifest.tools["reward"] == LENGTH.identity


def test_two_models_are_compared_and_two_rewards_are_not(run: Run) -> None:
    dataset = asked(AskedConfig(prompts=40), run=run)
    config = RewardedAnswersConfig(max_prompts=30)
    one, other = (rewarded_answers(config, dataset=dataset, completer=echo(n), reward=LENGTH, run=run) for n in (1, 2))
    report = compare_models(CompareConfig(labels=("once", "twice")), predictions=(one, other), run=run)
    (task,) = report.figures["tasks"]
    assert task["task"] == "rewarded_answers" and "twice" in report.figures["headline"]
    stranger = rewarded_answers(config, dataset=dataset, completer=echo(2), reward=Letters("half", lambda p, a: len(a.text) / 2), run=run)
    with pytest.raises(UsageError, match="version"):
        compare_models(CompareConfig(labels=("once", "twice")), predictions=(one, stranger), run=run)


def test_a_reward_that_is_no_number_is_named_and_nothing_is_kept(run: Run) -> None:
    """A reward of one answer at a time will do, too."""
    dataset = asked(AskedConfig(), run=run)
    plain = NamedReward("length", lambda prompt, answer: float(len(answer.text)))
    made = rewarded_answers(RewardedAnswersConfig(), dataset=dataset, completer=echo(1), reward=plain, run=run)
    assert [row["reward"] for row in made.rows] == [6.0] * 6
    broken = Letters("broken", lambda prompt, answer: float("nan") if "3" in answer.text else 0.0)
    with pytest.raises(MygptError, match=r'The reward of an answer is nan\. Asked: "Say 3\."\. Answered: "Say 3\."'):
        rewarded_answers(RewardedAnswersConfig(), dataset=dataset, completer=echo(1), reward=broken, run=run)
    assert len(list((run.home / "artifacts" / "predictions").iterdir())) == 1


def test_a_split_that_is_not_there(run: Run) -> None:
    with pytest.raises(UsageError, match="no rows in the split `train`"):
        rewarded_answers(
            RewardedAnswersConfig(split="train"), dataset=asked(AskedConfig(), run=run), completer=echo(1), reward=LENGTH, run=run
        )
