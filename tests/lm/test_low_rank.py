"""Updates written into their matrices for a while: the same logits, and everything as before afterwards."""

from typing import Any

import pytest
import torch
from peft.tuners.lora.layer import Linear

from mygpt.lm.adapters.bottleneck import Bottleneck
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.low_rank import written_in
from mygpt.training.losses import hidden_states
from tests.lm import tuned
from tests.lm.tuned import IDS_BT

PLAIN: tuple[Any, ...] = (
    LoRA(rank=4, alpha=8),
    LoRA(rank=4, alpha=8, rank_stabilised=True, targets="attention-only"),
    LoRA(rank=4, alpha=8, targets="mlp-only"),
)


def num_updates(module: Any) -> int:
    return sum(type(part) is Linear for part in module.modules())


@pytest.mark.parametrize("method", PLAIN, ids=lambda m: f"{m.targets}")
def test_the_same_function_and_then_the_same_bits(method: Any) -> None:
    module = tuned.disturbed(method)
    state = {name: p.clone() for name, p in module.state_dict().items()}
    names = [name for name, _ in module.named_parameters()]
    before, updates = hidden_states(module, IDS_BT), num_updates(module)
    with written_in(module):
        assert num_updates(module) == 0 < updates
        torch.testing.assert_close(hidden_states(module, IDS_BT), before, atol=1e-5, rtol=1e-5)
    assert num_updates(module) == updates and [name for name, _ in module.named_parameters()] == names
    assert all(torch.equal(p, state[name]) for name, p in module.state_dict().items())
    after = hidden_states(module, IDS_BT)
    assert torch.equal(after, before) and after.requires_grad


def test_a_failure_inside_leaves_everything_as_it_was() -> None:
    module = tuned.disturbed(PLAIN[0])
    before, updates = hidden_states(module, IDS_BT), num_updates(module)
    with pytest.raises(KeyboardInterrupt), written_in(module):
        raise KeyboardInterrupt
    assert num_updates(module) == updates and torch.equal(hidden_states(module, IDS_BT), before)


@pytest.mark.parametrize("method", [LoRA(rank=4, weight_decomposed=True), Bottleneck(size=4)], ids=lambda m: m.name)
def test_what_is_no_plain_update_stays(method: Any) -> None:
    module = tuned.disturbed(method)
    before, updates = hidden_states(module, IDS_BT), num_updates(module)
    with written_in(module):
        assert num_updates(module) == updates and torch.equal(hidden_states(module, IDS_BT), before)
