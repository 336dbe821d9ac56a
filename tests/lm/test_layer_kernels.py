"""Each kernel against its formula in float64, forwards and backwards, in both number formats."""

import shutil

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mygpt.lm.layer_kernels import gated, residual_norm, rotated, suits, trained_attention

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")
DTYPES = [torch.float32, torch.bfloat16]
NEAR = {torch.float32: {"atol": 2e-5, "rtol": 2e-5}, torch.bfloat16: {"atol": 0.03, "rtol": 0.02}}  # 8 bits of a sum of some numbers near 1
Shapes = given(
    dtype=st.sampled_from(DTYPES), B=st.integers(1, 3), T=st.integers(1, 9), D=st.sampled_from([2, 6, 16, 34, 64]), seed=st.integers(0, 999)
)


def made(*shape: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype).requires_grad_()


def agree(ours: torch.Tensor, formula: torch.Tensor, *inputs: torch.Tensor) -> None:
    """Values and gradients; `formula` was computed in float64 from the same inputs."""
    dtype, up = ours.dtype, torch.randn(ours.shape, generator=torch.Generator().manual_seed(7)).to(ours.dtype)
    torch.testing.assert_close(ours.double(), formula, **NEAR[dtype])
    found = torch.autograd.grad(ours, inputs, up, retain_graph=True)
    wanted = torch.autograd.grad(formula, inputs, up.double())
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other.double(), **NEAR[dtype])


def test_norm_by_hand() -> None:
    """(1 + 2, 2 + 2) = (3, 4): mean square 12.5; times weights (1, 10)."""
    summed, normed = residual_norm(torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 2.0]]), torch.tensor([1.0, 10.0]), 0.0)
    assert summed.tolist() == [[3.0, 4.0]]
    assert normed.tolist()[0] == pytest.approx([3 / 12.5**0.5, 40 / 12.5**0.5])


def test_gate_and_rotation_by_hand() -> None:
    """silu(0) = 0, silu(ln 3) = ln 3 * 3/4; a quarter turn of (1, 0) is (0, 1)."""
    log3 = 1.0986123
    assert gated(torch.tensor([[0.0, log3]]), torch.tensor([[5.0, 2.0]])).tolist()[0] == pytest.approx([0.0, 1.5 * log3])
    quarter = (torch.tensor([[[0.0, 0.0]]]), torch.tensor([[[1.0, 1.0]]]))
    assert rotated(torch.tensor([[[1.0, 0.0]]]), *quarter).tolist() == [[[[0.0, 1.0]]]]


def test_attention_by_hand() -> None:
    """Scores 0 and ln 3 give weights 1/4 and 3/4; the first query of two sees one key."""
    q, k = torch.tensor([[[[1.0], [1.0]]]]).requires_grad_(), torch.tensor([[[[0.0], [1.0986123]]]])
    mixed = trained_attention(q, k, torch.tensor([[[[4.0], [8.0]]]]), None, 1.0)
    assert mixed.flatten().tolist() == pytest.approx([4.0, 7.0])


@Shapes
@settings(max_examples=40, deadline=None)
def test_norm(dtype: torch.dtype, B: int, T: int, D: int, seed: int) -> None:
    x, more, w = made(B, T, D, dtype=dtype, seed=seed), made(B, T, D, dtype=dtype, seed=seed + 1), made(D, dtype=dtype, seed=seed + 2)
    summed, normed = residual_norm(x, more, w, 1e-3)
    exact = x.double() + more.double()
    both = torch.cat([summed, normed], -1)
    read = exact if dtype is torch.float32 else exact + (summed.detach().double() - exact.detach())  # rounded before it is normed
    formula = torch.cat([exact, w.double() * read * torch.rsqrt(read.pow(2).mean(-1, keepdim=True) + 1e-3)], -1)
    agree(both, formula, x, more, w)
    alone, normed = residual_norm(x, None, w, 1e-3)
    agree(normed, w.double() * x.double() * torch.rsqrt(x.double().pow(2).mean(-1, keepdim=True) + 1e-3), x, w)
    assert torch.equal(alone, x)


@Shapes
@settings(max_examples=40, deadline=None)
def test_gate(dtype: torch.dtype, B: int, T: int, D: int, seed: int) -> None:
    gate, up = made(B, T, D, dtype=dtype, seed=seed), made(B, T, D, dtype=dtype, seed=seed + 1)
    agree(gated(gate, up), F.silu(gate.double()) * up.double(), gate, up)


@Shapes
@settings(max_examples=40, deadline=None)
def test_rotation(dtype: torch.dtype, B: int, T: int, D: int, seed: int) -> None:
    """Two heads, cut out of a wider tensor as a joint projection gives them; angles for all sequences or for each."""
    wide = made(B, T, 2 * D + 4, dtype=dtype, seed=seed)
    angles = made(1 if seed % 2 else B, T, D // 2, dtype=torch.float32, seed=seed + 1).detach()
    cosines, sines = (torch.cat([one, one], -1).to(dtype) for one in (angles.cos(), angles.sin()))
    x = wide.double()[..., : 2 * D].unflatten(2, (2, D))
    turned = torch.cat([-x[..., D // 2 :], x[..., : D // 2]], -1)
    agree(rotated(wide[..., : 2 * D], cosines, sines), x * cosines.double()[:, :, None] + turned * sines.double()[:, :, None], wide)


@given(
    dtype=st.sampled_from(DTYPES), B=st.integers(1, 3), H=st.integers(1, 2), G=st.integers(1, 3), T=st.integers(1, 9),
    more=st.integers(0, 5), mask=st.sampled_from(["causal", "each", "one for all"]), seed=st.integers(0, 999),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_attention(dtype: torch.dtype, B: int, H: int, G: int, T: int, more: int, mask: str, seed: int) -> None:
    q = made(B, H * G, T, 16, dtype=dtype, seed=seed)
    k, v = (made(B, H, T + more, 16, dtype=dtype, seed=seed + i) for i in (1, 2))
    seen = torch.ones(T, T + more, dtype=torch.bool).tril(more)[None, None]
    if mask != "causal":
        seen = torch.rand(B if mask == "each" else 1, 1, T, T + more, generator=torch.Generator().manual_seed(seed)) < 0.5
        seen[..., 0] = True
    scores = (q.double() @ k.double().repeat_interleave(G, 1).transpose(2, 3) * 0.3).masked_fill(~seen, -torch.inf)
    formula = (scores.softmax(-1) @ v.double().repeat_interleave(G, 1)).transpose(1, 2)
    agree(trained_attention(q, k, v, None if mask == "causal" else seen, 0.3), formula, q, k, v)


def test_a_query_that_sees_nothing_gives_zeros_and_large_numbers_stay_numbers() -> None:
    q, k = torch.full((1, 1, 2, 4), 300.0).requires_grad_(), torch.full((1, 1, 2, 4), 300.0)
    seen = torch.tensor([[[[False, False], [True, True]]]])
    mixed = trained_attention(q, k, torch.ones(1, 1, 2, 4), seen, 1.0)
    assert mixed[0, 0].eq(0).all() and mixed[0, 1].eq(1).all()
    mixed.sum().backward()
    assert q.grad is not None and bool(q.grad.isfinite().all())
    far = torch.tensor([[-1e4, 1e4, float("nan")]])
    assert gated(far, torch.ones(1, 3))[0, :2].tolist() == pytest.approx([0.0, 1e4]) and gated(far, torch.ones(1, 3))[0, 2].isnan()
    assert gated(far.bfloat16(), torch.ones(1, 3).bfloat16())[0, 2].isnan()  # a number that is none is not rounded into one


def test_what_they_are_not_for() -> None:
    assert suits(torch.ones(2), torch.ones(3, 4))
    assert not suits(torch.ones(2), torch.ones(2).bfloat16())
    assert not suits(torch.ones(2).half()) and not suits(torch.ones(20_000)) and not suits(torch.ones(2, device="meta"))
