"""A reward model as a reward: what is read, what is refused."""

from dataclasses import replace

import pytest
import torch

from mygpt.align.model_reward import ModelReward
from mygpt.align.policy import open_policy
from mygpt.align.ppo_config import PPOConfig
from mygpt.align.ppo_inputs import value_head_of
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.errors import Refused, UsageError
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer
from mygpt.lm.heads import open_head
from mygpt.training.losses import hidden_states
from tests.finetune import toys
from tests.training import tiny
from tests.training.conftest import one_thread

__all__ = ["one_thread"]

PROMPT = Conversation((Message("user", "When?"),), "one")


class ScoredConfig(Config):
    mean: float = 0.0
    std: float = 1.0


@recipe
def scored(config: ScoredConfig, *, model: Model, run: Run) -> Model:
    """The base with a head that is drawn, as it would be saved."""
    opened = open_head(model, "reward", seed=3, dtype=torch.float32)

    def write(folder: object) -> None:
        opened.module.save_pretrained(folder)
        opened.tokenizer.save_pretrained(folder)

    facts = {"head": "reward", "normalised": {"mean": config.mean, "std": config.std, "on": "test"}}
    return publish(Model, run, write, facts=facts, name="scored")


def reward(run: Run, *, mean: float = 0.0, std: float = 1.0, **more: object) -> ModelReward:
    base = toys.base(toys.BaseConfig(), run=run)
    return ModelReward(scored(ScoredConfig(mean=mean, std=std), model=base, run=run), dtype=torch.float32, **more)  # type: ignore[arg-type]


def test_normalised_by_what_was_recorded(run: Run) -> None:
    raw = reward(run)(PROMPT, Answer("At 8."))
    assert reward(run, mean=2.0, std=4.0)(PROMPT, Answer("At 8.")) == pytest.approx((raw - 2) / 4)
    assert reward(run, mean=2.0, std=4.0, normalised=False)(PROMPT, Answer("At 8.")) == pytest.approx(raw)
    assert reward(run, mean=2.0, std=4.0).logits_a_unit == 4


def test_read_at_the_stop_token_whatever_stands_beside(run: Run) -> None:
    """One of the model's own forward passes, row by row, without padding."""
    one = reward(run)
    answers = [Answer("At 8."), Answer("No idea at all, ask somebody else."), Answer("")]
    by_hand = []
    for answer in answers:
        ids = one.example(PROMPT, answer)
        assert one.opened.tokenizer.convert_ids_to_tokens(ids[-1]) == "<|im_end|>"
        with torch.no_grad():
            hidden_BTD = one.opened.module.model(input_ids=torch.tensor([ids])).last_hidden_state
            by_hand.append(float(one.opened.module.score(hidden_BTD[0, -1])[0]))
    assert one.each([PROMPT] * 3, answers) == pytest.approx(by_hand, abs=1e-5)
    assert max(by_hand) - min(by_hand) > 1e-2
    assert one(PROMPT, answers[1]) == pytest.approx(by_hand[1], abs=1e-5)


def test_an_earlier_answer_of_the_prompt_is_not_the_one_that_is_judged(run: Run) -> None:
    """A conversation of a data set brings its own answer: it is left out."""
    one = reward(run)
    with_answer = Conversation((*PROMPT.messages, Message("assistant", "Never.")))
    assert one(with_answer, Answer("At 8.")) == one(PROMPT, Answer("At 8."))


def test_the_score_layer_makes_the_normalised_reward(run: Run) -> None:
    """Of the last hidden state: where a value function may begin."""
    one = reward(run, mean=1.5, std=0.5)
    weight_D, bias = one.score_layer
    prompt, answer = Conversation((Message("user", "When?"),)), Answer("At 8.")
    with torch.no_grad():
        hidden_D = hidden_states(one.opened.module, torch.tensor([one.example(prompt, answer)]))[0, -1]
    assert float(hidden_D.float() @ weight_D) + bias == pytest.approx(one(prompt, answer), abs=1e-4)


def test_unfinished_answers(run: Run) -> None:
    one, fixed = reward(run), reward(run, unfinished=-1.0)
    cut, whole = Answer("At 8 or", finish_reason="length"), Answer("At 8 or")
    assert one(PROMPT, cut) == one(PROMPT, whole)
    assert fixed.each([PROMPT, PROMPT], [cut, whole]) == [-1.0, one(PROMPT, whole)]
    assert one.identity != fixed.identity


def test_a_value_function_begins_as_a_reward_of_the_same_tokens_only(run: Run) -> None:
    """Whatever the policy's tokens are, the reward reads text; a head that reads the policy's states it cannot give."""
    policy = open_policy(toys.base(toys.BaseConfig(), run=run), PPOConfig(precision="float32"), run=run)
    one = reward(run)
    head, (weight_D, bias) = value_head_of(policy, one), one.score_layer
    assert head.weight[0].tolist() == weight_D.tolist() and head.bias.tolist() == pytest.approx([bias])
    other = replace(policy, loaded=replace(policy.loaded, tokenizer=tiny.chat_tokenizer(spaces_before_words=True)))
    told = r"model/scored-.* \(.*259 tokens\) and model/tiny-.* \(.*99 tokens\) do not have the same tokenizer: token 3 is '!' .* and '▁'"
    with pytest.raises(Refused, match=told) as refused:
        value_head_of(other, one)
    assert "value_from_reward=false" in refused.value.fix


def test_what_is_no_reward_model_or_no_conversation(run: Run) -> None:
    base = toys.base(toys.BaseConfig(), run=run)
    with pytest.raises(UsageError, match=f"{base.id} is no reward model"):
        ModelReward(base)
    one = reward(run)
    with pytest.raises(UsageError, match="raw text"):
        one(Conversation((Message("text", "Once upon"),)), Answer(" a time"))
    with pytest.raises(UsageError, match="does not fit the window of 256"):
        one(PROMPT, Answer("x" * 300))


def test_an_adapter_of_another_base(run: Run) -> None:
    one = scored(ScoredConfig(), model=toys.base(toys.BaseConfig(), run=run), run=run)
    stranger = Adapter(one.manifest.model_copy(update={"kind": "adapter", "facts": {**one.manifest.facts, "base": "f" * 64}}), one.store)
    with pytest.raises(UsageError, match="was trained on ffffffffffff"):
        ModelReward(toys.base(toys.BaseConfig(), run=run), adapter=stranger)
