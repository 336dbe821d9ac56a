"""Virtual tokens in front of whatever a decoder is given: padded rows, packed rows, masks of its own, and out of the way when asked."""

from typing import Any

import pytest
import torch

from mygpt.lm.adapter_rows import adapter_rows
from mygpt.lm.virtual_tokens import PrefixCache, has_virtual_tokens, num_virtual_tokens, prefix
from tests.infer.tiny_models import tiny_module
from tests.lm import tuned
from tests.lm.tuned import IDS_BT, VIRTUAL, label


@pytest.mark.parametrize("method", VIRTUAL, ids=label)
def test_the_decoder_alone_gives_what_peft_gives(method: Any) -> None:
    module = tuned.disturbed(method)
    hidden_BTD = module.get_decoder()(input_ids=IDS_BT, use_cache=False).last_hidden_state
    assert hidden_BTD.shape[:2] == IDS_BT.shape
    assert torch.allclose(module.get_output_embeddings()(hidden_BTD), tuned.logits(module), atol=1e-4)


@pytest.mark.parametrize("method", VIRTUAL, ids=label)
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mistral", "gemma2"])
def test_packed_is_unpacked(method: Any, architecture: str) -> None:
    """Two texts in one row under a block mask, positions counted anew: each sees the virtual tokens and nothing of the other."""
    module = tuned.disturbed(method, architecture)
    first, second = 9, 5
    together_1T = IDS_BT[:1]
    positions_1T = torch.tensor([[*range(first), *range(second)]])
    block_TT = torch.block_diag(torch.ones(first, first), torch.ones(second, second)).tril().bool()
    mask: Any = added(block_TT)
    if architecture in ("mistral", "gemma2"):  # layers that see the last 8 positions
        near = added(block_TT & (positions_1T[0][:, None] - positions_1T[0][None] < 8))
        mask = near if architecture == "mistral" else {"full_attention": mask, "sliding_attention": near}
    packed_TD = module.get_decoder()(input_ids=together_1T, attention_mask=mask, position_ids=positions_1T).last_hidden_state[0]
    alone = [module.get_decoder()(input_ids=part).last_hidden_state[0] for part in together_1T.split([first, second], 1)]
    assert torch.allclose(packed_TD, torch.cat(alone), atol=1e-4)


def added(visible_TT: torch.Tensor) -> torch.Tensor:
    return torch.zeros(visible_TT.shape).masked_fill(~visible_TT, torch.finfo(torch.float32).min)[None, None]


@pytest.mark.parametrize("method", VIRTUAL, ids=label)
def test_padding_changes_nothing(method: Any) -> None:
    module = tuned.disturbed(method)
    mask_BT = torch.ones_like(IDS_BT)
    mask_BT[1, 10:] = 0
    padded = module.get_decoder()(input_ids=IDS_BT, attention_mask=mask_BT).last_hidden_state
    alone = module.get_decoder()(input_ids=IDS_BT[1:2, :10]).last_hidden_state
    assert torch.allclose(padded[1, :10], alone[0], atol=1e-4)


@pytest.mark.parametrize("method", VIRTUAL, ids=label)
def test_without_the_adapter_the_base_answers(method: Any) -> None:
    module, base = tuned.disturbed(method), tiny_module("llama")
    with module.disable_adapter():
        assert torch.equal(tuned.logits(module), tuned.logits(base))
        assert torch.equal(module.get_decoder()(input_ids=IDS_BT).last_hidden_state, base.get_decoder()(input_ids=IDS_BT).last_hidden_state)
    assert not torch.allclose(tuned.logits(module), tuned.logits(base), atol=0.05)
    hidden_BTD = module.get_decoder()(input_ids=IDS_BT).last_hidden_state
    assert torch.allclose(module.get_output_embeddings()(hidden_BTD), tuned.logits(module), atol=1e-4)


def test_one_row_and_many_get_the_same_gradient() -> None:
    """Keys and values of a prompt are computed once for the batch; peft computes them for every row."""
    method = VIRTUAL[1]
    module = tuned.disturbed(method)
    wanted_D = torch.randn(32, generator=torch.Generator().manual_seed(0))
    (module.get_decoder()(input_ids=IDS_BT).last_hidden_state[:, -3:] @ wanted_D).sum().backward()
    ours = module.prompt_encoder["default"].embedding.weight.grad.clone()
    module.zero_grad()
    (module.base_model.base_model(inputs_embeds=_with_prompt(module)).last_hidden_state[:, -3:] @ wanted_D).sum().backward()
    theirs = module.prompt_encoder["default"].embedding.weight.grad
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def _with_prompt(module: Any) -> torch.Tensor:
    return torch.cat([module.get_prompt(len(IDS_BT)), module.get_input_embeddings()(IDS_BT)], 1)


def test_a_prefix_cache_stays_as_it_is() -> None:
    """By hand: one layer, one head, one virtual token; computing a layer again (activation checkpointing) finds the same."""
    cache = PrefixCache([(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, 4.0]]]]))])
    own = torch.tensor([[[[5.0, 6.0]]], [[[7.0, 8.0]]]])
    for _ in range(2):
        keys, values = cache.update(own, own, 0)
        assert keys.tolist() == [[[[1.0, 2.0], [5.0, 6.0]]], [[[1.0, 2.0], [7.0, 8.0]]]]
        assert values[0, 0].tolist() == [[3.0, 4.0], [5.0, 6.0]]
    assert cache.get_seq_length() == 1 and cache.get_mask_sizes(4) == (5, 0)


def test_rows_are_told_apart_by_their_caches() -> None:
    module = tuned.disturbed(VIRTUAL[1])
    rows = adapter_rows(module, ["default", "__base__", "default"])
    with pytest.raises(AssertionError, match="all rows would get one adapter's tokens"), rows:
        module.get_decoder()(input_ids=IDS_BT)
    module.get_decoder()(input_ids=IDS_BT)


def test_a_base_has_none() -> None:
    base = tiny_module("llama")
    assert prefix(base) is None and not has_virtual_tokens(base) and num_virtual_tokens(base) == 0
    module = tuned.attached(VIRTUAL[0])
    assert num_virtual_tokens(module) == 5
    assert prefix(module, "__base__") is None
