"""Grouped attention: the numbers and gradients of torch's own, and every layer's mask, window and dropout kept."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mygpt.lm import attention
from mygpt.lm.attention import _attention, attention_on_gpu, grouped_attention
from mygpt.training.losses import summed_cross_entropy
from tests.infer.tiny_models import SETTINGS, tiny_module

LAYER = SimpleNamespace(is_causal=True, training=False)
LOWEST = torch.finfo(torch.float32).min


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, params=[True, False], ids=["tiles", "no tiles"])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways, whatever this processor is: the one for processors with AMX, and the one for those without."""
    monkeypatch.setattr("mygpt.lm.attention.has_tiles", lambda: request.param)


def inputs(heads: int, groups: int, queries: int, keys: int, size: int = 16) -> list[torch.Tensor]:
    """Query, key, value; leaves that gradients reach."""
    g = torch.Generator().manual_seed(heads * 1000 + queries * 10 + keys)
    shapes = [(2, heads, queries, size), (2, heads // groups, keys, size), (2, heads // groups, keys, size)]
    return [torch.randn(s, generator=g).requires_grad_() for s in shapes]


def random_mask(queries: int, keys: int, *, added: bool) -> torch.Tensor:
    visible = torch.rand(2, 1, queries, keys, generator=torch.Generator().manual_seed(1)) < 0.6
    visible[..., 0] = True
    return torch.zeros(visible.shape).masked_fill(~visible, LOWEST) if added else visible


def reference(tensors: list[torch.Tensor], **settings: Any) -> torch.Tensor:
    return F.scaled_dot_product_attention(*tensors, enable_gqa=True, **settings).transpose(1, 2)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(
    ("queries", "keys", "mask", "torchs"),
    [
        (7, 7, None, {"is_causal": True}),
        (1, 9, None, {}),
        (5, 11, "added", {}),
        (5, 11, "boolean", {}),
        (256, 256, None, {"is_causal": True}),
        (300, 300, None, {"is_causal": True}),
        (300, 310, "added", {}),
        (520, 520, None, {"is_causal": True}),
    ],
)
def test_numbers_and_gradients_are_those_of_torch(groups: int, queries: int, keys: int, mask: str | None, torchs: dict[str, Any]) -> None:
    ours, theirs = inputs(6, groups, queries, keys), inputs(6, groups, queries, keys)
    given = None if mask is None else random_mask(queries, keys, added=mask == "added")
    layer = SimpleNamespace(is_causal=True, num_key_value_groups=groups)
    mixed, _ = _attention(layer, *ours, given, scaling=0.3)
    expected = reference(theirs, attn_mask=given, scale=0.3, **torchs)
    torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=1e-5)
    with torch.no_grad():  # another way is taken where nothing is learnt
        torch.testing.assert_close(_attention(layer, *ours, given, scaling=0.3)[0], expected, atol=1e-5, rtol=1e-5)
    weights = torch.randn(mixed.shape, generator=torch.Generator().manual_seed(2))
    (mixed * weights).sum().backward()
    (expected * weights).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        assert one.grad is not None and one.grad.abs().max() > 0
        torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("queries", "keys", "mask", "torchs"),
    [(1, 9, "added", {}), (5, 11, "boolean", {}), (5, 11, "added", {}), (9, 9, None, {"is_causal": True})],
)
def test_what_a_gpu_is_given_has_the_numbers_and_gradients_of_torch(
    queries: int, keys: int, mask: str | None, torchs: dict[str, Any]
) -> None:
    ours, theirs = inputs(6, 3, queries, keys), inputs(6, 3, queries, keys)
    given = None if mask is None else random_mask(queries, keys, added=mask == "added")
    mixed, _ = attention_on_gpu(SimpleNamespace(is_causal=True, num_key_value_groups=3), *ours, given, scaling=0.3)
    expected = reference(theirs, attn_mask=given, scale=0.3, **torchs)
    torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=1e-5)
    (mixed**2).sum().backward()
    (expected**2).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("queries", [3, 40])
@pytest.mark.parametrize("learnt", [1, 2])
def test_gradients_reach_keys_and_values_where_queries_are_not_learnt(learnt: int, queries: int, dtype: torch.dtype) -> None:
    """Virtual tokens in front of a frozen model, LoRA on values alone: what has no backward pass is not for them."""
    ours, theirs = ([t.detach() for t in inputs(4, 2, queries, queries + 5, size=32)] for _ in range(2))
    ours = [t.to(dtype) for t in ours]
    ours[learnt].requires_grad_()
    theirs[learnt].requires_grad_()
    mask = random_mask(queries, queries + 5, added=False)
    layer = SimpleNamespace(is_causal=True, num_key_value_groups=2)
    _attention(layer, *ours, mask)[0].float().square().sum().backward()
    reference(theirs, attn_mask=mask).square().sum().backward()
    wanted, found = theirs[learnt].grad, ours[learnt].grad
    assert wanted is not None and found is not None
    most = 1e-4 if dtype == torch.float32 else 0.03
    assert (found.float() - wanted).norm() < most * wanted.norm()


def test_the_usual_scale_is_one_over_the_root_of_the_head_size() -> None:
    tensors = inputs(4, 2, 3, 3)
    torch.testing.assert_close(_attention(LAYER, *tensors, None)[0], reference(tensors, is_causal=True), atol=1e-5, rtol=1e-5)


def test_gradients_agree_with_finite_differences() -> None:
    """The mask is added in place: autograd would say so, or differ from this, if a value it needs were overwritten."""
    tensors = [t.detach().double().requires_grad_() for t in inputs(4, 2, 3, 5, size=4)]
    mask = random_mask(3, 5, added=False)
    assert torch.autograd.gradcheck(lambda *t: _attention(LAYER, *t, mask)[0], tensors)
    assert torch.autograd.gradcheck(lambda *t: _attention(LAYER, *t, torch.zeros(2, 1, 3, 5, dtype=torch.float64))[0], tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("queries", [4, 300])
def test_a_row_that_sees_nothing_gives_no_nan(dtype: torch.dtype, queries: int) -> None:
    tensors = [(t.detach() * 30).to(dtype) for t in inputs(4, 2, queries, queries)]
    mask = torch.full((2, 1, queries, queries), torch.finfo(dtype).min, dtype=dtype)
    layer = SimpleNamespace(is_causal=True, num_key_value_groups=2)
    assert torch.isfinite(_attention(layer, *tensors, mask)[0]).all()
    assert torch.isfinite(_attention(layer, *tensors, torch.zeros(2, 1, queries, queries, dtype=torch.bool))[0]).all()


def test_in_bfloat16_it_is_as_near_to_the_truth_as_transformers_eager() -> None:
    from transformers.models.llama.modeling_llama import eager_attention_forward

    tensors = [t.detach() for t in inputs(4, 2, 64, 64, size=64)]
    truth = reference(tensors, is_causal=True)
    rounded = [t.bfloat16() for t in tensors]
    mask = torch.full((64, 64), torch.finfo(torch.bfloat16).min, dtype=torch.bfloat16).triu(1)[None, None]
    layer = SimpleNamespace(is_causal=True, num_key_value_groups=2, training=False)
    eager, _ = eager_attention_forward(layer, *rounded, mask, scaling=0.125)
    ours, _ = _attention(layer, *rounded, None)
    assert (ours.float() - truth).square().mean() <= 1.3 * (eager.float() - truth).square().mean()


@pytest.mark.parametrize(
    ("settings", "mask_heads"),
    [({"dropout": 0.5}, 1), ({"is_causal": False}, 0), ({"position_bias": torch.randn(1, 4, 6, 6)}, 1), ({}, 4)],
)
def test_what_is_not_plain_goes_to_transformers(settings: dict[str, Any], mask_heads: int) -> None:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    tensors = inputs(4, 2, 6, 6)
    layer = SimpleNamespace(is_causal=True, num_key_value_groups=2)
    mask = torch.zeros(2, mask_heads, 6, 6) + torch.arange(6.0) if mask_heads else None
    torch.manual_seed(0)
    ours, _ = _attention(layer, *tensors, mask, **settings)
    torch.manual_seed(0)
    theirs, _ = sdpa_attention_forward(layer, *tensors, mask, **settings)
    assert torch.equal(ours, theirs)


def ids_of(lengths: int) -> torch.Tensor:
    return torch.randint(3, 259, (2, lengths), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("architecture", SETTINGS)
@pytest.mark.parametrize("length", [40, 270])
def test_a_model_answers_the_same_with_it(architecture: str, length: int) -> None:
    """Windows of 8 (Mistral, Gemma), soft-capping (Gemma 2) and sinks (gpt-oss) among them; on both sides of the kernel's length."""
    module = tiny_module(architecture)
    with torch.inference_mode():
        before = module(input_ids=ids_of(length)).logits
        with grouped_attention(module):
            within = module(input_ids=ids_of(length)).logits
    torch.testing.assert_close(within, before, atol=1e-4, rtol=1e-4)


def test_it_is_used_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(*args: Any, **settings: Any) -> Any:
        calls.append(1)
        return _attention(*args, **settings)

    monkeypatch.setattr(attention, "_attention", counted)
    for architecture, expected in [("llama", 2), ("mistral", 2), ("gpt2", 2), ("gpt_oss", 0)]:
        module = tiny_module(architecture)
        before = module.config._attn_implementation
        calls.clear()
        with torch.inference_mode(), grouped_attention(module):
            module(input_ids=ids_of(12))
        assert (architecture, len(calls), module.config._attn_implementation) == (architecture, expected, before)


def test_a_model_is_left_as_it_was_after_a_fault() -> None:
    module = tiny_module("llama")
    with pytest.raises(ValueError, match="on purpose"), grouped_attention(module):
        raise ValueError("on purpose")
    assert module.config._attn_implementation == "sdpa"
    with grouped_attention(module), grouped_attention(module):
        assert module.config._attn_implementation != "sdpa"
    assert module.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma3_text", "gpt2"])
def test_training_has_the_gradients_of_the_models_own_loss(architecture: str) -> None:
    """Two padded examples longer than the window; only what comes after token 10 is trained."""
    module = tiny_module(architecture, **({"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0} if architecture == "gpt2" else {}))
    module.train()
    ids = ids_of(30)
    trained = torch.zeros(ids.shape, dtype=torch.bool)
    trained[0, 10:] = trained[1, 10:20] = True
    ids[1, 20:] = 0
    labels = ids.masked_fill(~trained, -100)

    own = module(input_ids=ids).logits[:, :-1].flatten(0, 1)
    expected = F.cross_entropy(own, labels[:, 1:].flatten(), reduction="sum")
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in module.named_parameters()}
    module.zero_grad()

    loss = summed_cross_entropy(module, ids, trained)
    loss.backward()
    torch.testing.assert_close(loss, expected, atol=1e-3, rtol=1e-5)
    for name, parameter in module.named_parameters():
        scale = gradients[name].abs().max()
        torch.testing.assert_close(parameter.grad / scale, gradients[name] / scale, atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def test_dropout_of_attention_is_not_lost_in_training() -> None:
    """GPT-2 drops a tenth of the attention weights by default."""
    module = tiny_module("gpt2", attn_pdrop=0.5, embd_pdrop=0.0, resid_pdrop=0.0)
    module.train()
    losses = {float(summed_cross_entropy(module, ids_of(20), torch.ones(2, 20, dtype=torch.bool)).detach()) for _ in range(3)}
    assert len(losses) == 3


# -- packed rows -------------------------------------------------------------------------------------------------------------


def blocks(lengths: list[int], *, window: int = 1_000) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, 1, T, T) mask and (1, T) positions of a row of examples, each seeing its own last `window` tokens."""
    example = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    place = torch.arange(sum(lengths))
    apart = place[:, None] - place[None, :]
    mask = (example[:, None] == example[None, :]) & (apart >= 0) & (apart < window)
    return mask[None, None], torch.cat([torch.arange(n) for n in lengths])[None]


@pytest.mark.parametrize("window", [1_000, 4])
@pytest.mark.parametrize("trained", [True, False])
def test_a_packed_row_is_computed_example_by_example(window: int, trained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch does under the whole mask, without ever making the scores between examples."""
    q, k, v = (t[:1] for t in inputs(4, 2, 21, 21))
    mask, positions = blocks([5, 1, 9, 6], window=window)
    widths: list[int] = []
    real = attention._attention

    def seen(layer: Any, query: torch.Tensor, *more: Any, **named: Any) -> Any:
        widths.append(query.shape[2])
        return real(layer, query, *more, **named)

    monkeypatch.setattr(attention, "_attention", seen)
    with torch.set_grad_enabled(trained):
        ours = real(LAYER, q, k, v, mask, position_ids=positions)[0]
        theirs = reference([q, k, v], attn_mask=mask)
    assert widths == [5, 1, 9, 6]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_positions_that_the_mask_contradicts_do_not_split_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (t[:1].detach() for t in inputs(4, 2, 11, 11))
    everything = torch.ones(1, 1, 11, 11, dtype=torch.bool).tril()
    _, positions = blocks([5, 6])
    torch.testing.assert_close(
        _attention(LAYER, q, k, v, everything, position_ids=positions)[0], reference([q, k, v], attn_mask=everything), atol=1e-5, rtol=1e-5
    )
    assert attention._packed_lengths(everything, 11, 11, positions) == []
    assert attention._packed_lengths(blocks([5, 6])[0], 11, 11, positions) == [5, 6]
    assert attention._packed_lengths(blocks([5, 6])[0], 11, 11, positions + 1) == []  # does not say where the first begins
    assert attention._packed_lengths(None, 11, 11, positions) == []
