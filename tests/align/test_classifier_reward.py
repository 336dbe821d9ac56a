"""A classifier's logit as the reward."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mygpt.align.classifier_reward import ClassifierReward
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer
from mygpt.infer.rewards import rewards_of
from mygpt.infer.torch_classifier import TorchClassifier
from mygpt.lm.heads import open_head
from tests.finetune import shapes

LABELS = ("nothate", "hate")
PROMPT = Conversation((Message("user", "Say something."),))


class FixedConfig(Config):
    logits: tuple[float, float] = (3.1718, -2.6093)
    weight: float = 0.0


@recipe
def fixed(config: FixedConfig, *, run: Run) -> Model:
    """A classifier whose head reads nothing (weight 0), so that its bias is what it says."""

    def write(folder: Path) -> None:
        base = shapes.base(shapes.BaseConfig(shape="bert"), run=run)
        opened = open_head(base, "classifier", labels=LABELS, seed=1, dtype=torch.float32)
        head: Any = opened.module.classifier
        with torch.no_grad():
            head.weight.mul_(config.weight)
            head.bias.copy_(torch.tensor(config.logits))
        opened.module.save_pretrained(folder)
        opened.tokenizer.save_pretrained(folder)

    return publish(Model, run, write, facts={"head": "classifier", "labels": list(LABELS)}, name="fixed")


def classifier(run: Run, **settings: Any) -> TorchClassifier:
    made = fixed(FixedConfig(**settings), run=run)
    return TorchClassifier(made, opened=open_head(made, "classifier", dtype=torch.float32))


def test_the_logit_of_what_is_wanted(run: Run) -> None:
    """Course figures: logits 3.1718 and -2.6093, reward 3.1718, probability 0.9969."""
    one = classifier(run)
    reward = ClassifierReward(one, label="nothate")
    assert reward(PROMPT, Answer("A kind word.")) == pytest.approx(3.1718, abs=1e-4)
    assert float(one.probabilities(["A kind word."])[0, 0]) == pytest.approx(0.9969, abs=5e-5)
    assert ClassifierReward(one, label="hate")(PROMPT, Answer("A kind word.")) == pytest.approx(-2.6093, abs=1e-4)
    assert ClassifierReward(one, label="hate", minus=True)(PROMPT, Answer("A kind word.")) == pytest.approx(2.6093, abs=1e-4)


def test_many_at_once_and_the_answer_alone(run: Run) -> None:
    one = classifier(run, weight=1.0)
    reward, pair = ClassifierReward(one, label="hate"), ClassifierReward(one, label="hate", with_prompt=True)
    texts = ["snow fell", "heat", ""]
    found = rewards_of(reward, [PROMPT] * 3, [Answer(text) for text in texts])
    assert found == pytest.approx([float(value) for value in one.logits(texts)[:, 1]], abs=1e-6)
    assert len({round(value, 4) for value in found}) == 3
    other = Conversation((Message("user", "Another question?"),))
    assert reward(other, Answer("heat")) == pytest.approx(found[1], abs=1e-5)
    assert pair(other, Answer("heat")) != pytest.approx(pair(PROMPT, Answer("heat")), abs=1e-5)
    raw = Conversation((Message("text", "Say something."),))
    assert pair(raw, Answer("heat")) == pytest.approx(pair(PROMPT, Answer("heat")), abs=1e-5)


def test_a_label_that_is_not_there(run: Run) -> None:
    one = classifier(run)
    with pytest.raises(UsageError, match="no label `kind`") as error:
        ClassifierReward(one, label="kind")
    assert error.value.fix == "It has: nothate, hate."
    identities = [ClassifierReward(one, label="hate", minus=minus).identity for minus in (False, True)]
    assert identities[0] != identities[1] and identities[0]["classifier"] == one.identity
