"""The policy and what it is held to: the base behind an adapter, a copy, or an ancestor; never a stranger."""

from typing import Any

import pytest
import torch

from mygpt.align.policy import open_policy
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.finetune.sft import SFTConfig, sft
from mygpt.lm.adapters.bottleneck import Bottleneck
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.adapters.prompt import Prompt
from mygpt.training.losses import hidden_states
from mygpt.training.tuning import TuningConfig
from tests.finetune import toys

CONFIG = {"precision": "float32"}


def ids(policy: Any) -> torch.Tensor:
    return torch.tensor([policy.renderer.prompt(Conversation((Message("user", "Where are the logs?"),)))])


@pytest.mark.parametrize("method", [LoRA(rank=2), Full(), Bottleneck(size=4), Prompt(num_tokens=3)], ids=lambda m: m.name)
def test_the_reference_stays_where_the_policy_began(method: Any, run: Run) -> None:
    model = toys.base(toys.BaseConfig(), run=run)
    policy = open_policy(model, TuningConfig(method=method, **CONFIG), run=run)
    assert (policy.copy is not None) == (method.name == "full")
    with policy.reference() as frozen:
        before = hidden_states(frozen, ids(policy))
    with torch.no_grad():
        for parameter in policy.module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    moved = hidden_states(policy.module, ids(policy))
    with policy.reference() as frozen:
        after = hidden_states(frozen, ids(policy))
    assert torch.equal(before, after) and not after.requires_grad
    assert not torch.allclose(moved, after) and moved.requires_grad


def test_an_ancestor_may_be_the_reference_and_a_stranger_may_not(run: Run) -> None:
    base = toys.base(toys.BaseConfig(), run=run)
    tuned = sft(SFTConfig(method=Full(), epochs=1, **CONFIG), model=base, dataset=toys.pairs(toys.PairsConfig(), run=run), run=run)
    policy = open_policy(tuned, TuningConfig(method=LoRA(rank=2), **CONFIG), reference=base, run=run)
    with policy.reference() as frozen, torch.no_grad():
        assert frozen is policy.copy
        assert not torch.allclose(hidden_states(frozen, ids(policy)), hidden_states(policy.module, ids(policy)))
    stranger = toys.base(toys.BaseConfig(architecture="gpt2"), run=run)
    with pytest.raises(Refused) as refused:
        open_policy(tuned, TuningConfig(**CONFIG), reference=stranger, run=run)
    assert stranger.id in refused.value.what and base.id in refused.value.what and "mygpt.finetune.sft:sft" in refused.value.what


def test_a_policy_without_a_chat_template_is_refused(run: Run) -> None:
    model = toys.base(toys.BaseConfig(chat_template=""), run=run)
    with pytest.raises(Refused, match=r"The model in .*tiny.* has no chat template"):
        open_policy(model, TuningConfig(**CONFIG), run=run)
