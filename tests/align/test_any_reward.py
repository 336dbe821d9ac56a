"""Every method without a critic learns from every kind of reward: a number, a program in the sandbox, a schema, a reward model."""

import importlib
from typing import Any

import pytest

from mygpt.align.grpo import GRPOConfig, grpo
from mygpt.align.model_reward import ModelReward
from mygpt.align.policy import Policy
from mygpt.align.reinforce import ReinforceConfig, reinforce
from mygpt.align.rloo import RLOOConfig, rloo
from mygpt.align.rollouts import Rollout, Sampler, rollout
from mygpt.artifacts.dataset import Conversation, Dataset, Message, conversation_facts, write_conversations
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer
from tests.align.rewarded import TINY, weights_of
from tests.align.test_model_reward import ScoredConfig, scored
from tests.finetune import toys

METHODS: list[tuple[Any, Any]] = [(grpo, GRPOConfig), (rloo, RLOOConfig), (reinforce, ReinforceConfig)]
FACTS = {"function": "double", "tests": "assert double(2) == 4", "json_schema": '{"type": "object", "required": ["city"]}'}
SAID: dict[str, tuple[tuple[str, str], float]] = {  # a right and a wrong answer, and what they are worth in the mean
    "numeric": (("It is 4.", "It is 5."), (1 + 0) / 2),
    "program": (("def double(x): return 2 * x", "def double(x): return x"), (1.0 - 0.3) / 2),  # CodeRL: a test fails
    "json_schema": (('{"city": "Ulm"}', "Ulm"), (1 + 0) / 2),
}


class AskedConfig(Config):
    count: int = 2


@recipe
def asked(config: AskedConfig, *, run: Run) -> Dataset:
    said = [(Message("user", f"Two times two, number {n}?"), Message("assistant", "4")) for n in range(config.count)]
    splits = {"train": [Conversation(messages, str(n), facts=FACTS) for n, messages in enumerate(said)]}
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=conversation_facts(splits), name="asked")


def says(policy: Policy, texts: tuple[str, ...]) -> Sampler:
    """In the place of the engine, which would have to be lucky: these answers to every prompt."""
    tokenizer = policy.loaded.tokenizer

    def sample(prompts: Any, seed: int) -> list[Rollout]:
        ids = [(*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id) for text in texts]
        answers = [Answer(text, token_ids=own, logprobs=(-1.0,) * len(own)) for text, own in zip(texts, ids, strict=True)]
        return [rollout(policy.renderer.prompt(p), p, answer, is_finished=True) for p in prompts for answer in answers]

    return sample


def learnt(method: Any, config: Any, texts: tuple[str, str], monkeypatch: pytest.MonkeyPatch, run: Run, **more: Any) -> Any:
    """Two updates, each from both answers to both prompts."""
    module = importlib.import_module(method.__module__)
    monkeypatch.setattr(module, "sampler_of", lambda policy, sampler, config, *, run: says(policy, texts))
    made = method(config, model=toys.base(toys.BaseConfig(), run=run), dataset=asked(AskedConfig(), run=run), run=run, **more)
    vitals = made.manifest.facts["vitals"]
    assert len(made.manifest.facts["curve"]) == len(vitals) == 2 and all(row["grad_norm"] > 0 for row in vitals)
    assert any(value.abs().max() > 0 for name, value in weights_of(made).items() if "lora_B" in name)
    return made


TWO: dict[str, Any] = {**TINY, "samples": 2, "max_answer_tokens": 40}


@pytest.mark.parametrize("kind", SAID)
@pytest.mark.parametrize(("method", "config"), METHODS, ids=lambda one: getattr(one, "__name__", ""))
def test_verifiers(method: Any, config: Any, kind: str, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    texts, worth = SAID[kind]
    facts = learnt(method, config(**TWO, reward={"name": kind}), texts, monkeypatch, run).manifest.facts
    assert [row["reward"] for row in facts["vitals"]] == pytest.approx([worth, worth])


@pytest.mark.parametrize(("method", "config"), METHODS, ids=lambda one: getattr(one, "__name__", ""))
def test_a_reward_model(method: Any, config: Any, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    reward = ModelReward(scored(ScoredConfig(), model=toys.base(toys.BaseConfig(), run=run), run=run))
    texts = SAID["numeric"][0]
    made = learnt(method, config(**TWO), texts, monkeypatch, run, reward=reward)
    prompts = asked(AskedConfig(), run=run).split("train")
    worth = [reward(prompt, Answer(text)) for prompt in prompts for text in texts]
    assert len(set(worth)) > 1 and made.manifest.facts["reward"] == reward.identity
    assert [row["reward"] for row in made.manifest.facts["vitals"]] == pytest.approx([sum(worth) / 4] * 2, abs=2e-2)  # bfloat16
