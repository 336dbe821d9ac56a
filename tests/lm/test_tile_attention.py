"""Attention on tiles against the formula in float64, under every kind of mask; what it is not for."""

import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mygpt.lm.processor import has_cpu_flag
from mygpt.lm.tile_attention import suits, tile_attention

pytestmark = pytest.mark.skipif(
    not has_cpu_flag("amx_bf16") or shutil.which("cc") is None, reason="no AMX, or no C compiler, on this machine"
)
LOWEST = torch.finfo(torch.bfloat16).min


def by_formula(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor, bias: torch.Tensor, scale: float) -> torch.Tensor:
    """A query that sees nothing gets zeros."""
    G = q.shape[1] // k.shape[1]
    scores = q.double() @ k.double().repeat_interleave(G, 1).transpose(-1, -2) * scale + bias.double()
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1).nan_to_num(0.0)
    return (weights @ v.double().repeat_interleave(G, 1)).transpose(1, 2)


@given(
    B=st.integers(1, 3), H=st.integers(1, 3), G=st.integers(1, 4), Q=st.integers(1, 70), more=st.integers(0, 80),
    D=st.sampled_from([32, 64, 96, 128]), kind=st.sampled_from(["causal", "added", "seen", "biased"]), one_mask=st.booleans(),
    threads=st.integers(1, 2), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=120, deadline=None)
def test_against_the_formula(
    B: int, H: int, G: int, Q: int, more: int, D: int, kind: str, one_mask: bool, threads: int, seed: int
) -> None:
    """Slices of larger buffers and transposed products. Weights are rounded to 8 bits, so a mean of numbers near 1 is good to 0.01."""
    g = torch.Generator().manual_seed(seed)
    S = Q + more
    q = torch.randn(B, Q, H * G, D, generator=g).bfloat16().transpose(1, 2)
    k = torch.randn(B, H, S + 7, D, generator=g).bfloat16()[:, :, :S]
    v = torch.randn(B, S, H, D, generator=g).bfloat16().transpose(1, 2)
    seen = torch.ones(Q, S, dtype=torch.bool).tril(S - Q)[None, None].repeat(1 if one_mask else B, 1, 1, 1)
    bias = torch.zeros(seen.shape)
    mask = None
    if kind != "causal":
        seen &= torch.rand(seen.shape, generator=g) < 0.7
        mask = seen
    if kind == "biased":
        bias = (torch.rand(seen.shape, generator=g) - 0.5).bfloat16().float()
    if kind in ("added", "biased"):
        seen[..., 0] = True  # rows of the lowest number everywhere have no meaning of their own
        mask = bias.bfloat16().masked_fill(~seen, LOWEST)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    assert suits(q, k, v, mask)
    made = tile_attention(q, k, v, mask, 0.2)
    torch.set_num_threads(before)
    assert made.shape == (B, Q, H * G, D) and made.is_contiguous()
    wanted = by_formula(q, k, v, seen, bias, 0.2)
    torch.testing.assert_close(made.double(), wanted, atol=0.02, rtol=0.02)
    assert float((made.double() - wanted).norm()) < 0.004 * float(wanted.norm()) + 1e-9


def test_large_scores() -> None:
    q, k = torch.full((1, 1, 20, 32), 30.0).bfloat16(), torch.zeros(1, 1, 20, 32).bfloat16()
    k[0, 0, 3] = 30.0
    v = torch.arange(20.0).bfloat16()[None, None, :, None].repeat(1, 1, 1, 32)
    made = tile_attention(q, k, v, None, 1.0)
    assert made[0, :, 0, 0].tolist() == pytest.approx([0.0, 0.5, 1.0, *[3.0] * 17])  # from the fourth query on the key of weight 1 is seen


def test_what_is_no_number_stays_none() -> None:
    """In a query: its own row. In a key: every row that sees it, and no other."""
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, 40, 32, generator=g).bfloat16() for _ in range(3))
    q[0, 0, 5, 3], k[0, 0, 20, 7] = torch.nan, torch.nan
    made = tile_attention(q, k, v, None, 0.2)[0, :, 0]
    assert made.isnan().all(-1).tolist() == [i == 5 or i >= 20 for i in range(40)]
    assert int(made.isnan().any(-1).sum()) == 21


def test_what_it_is_not_for() -> None:
    q, k = torch.zeros(2, 4, 20, 64).bfloat16(), torch.zeros(2, 2, 30, 64).bfloat16()
    assert suits(q, k, k, None)
    assert not suits(q.float(), k.float(), k.float(), None)
    assert not suits(q, k, k, torch.zeros(2, 1, 20, 30))  # float32
    assert not suits(q, k, k, torch.zeros(2, 4, 20, 30, dtype=torch.bool))  # a mask per head
    assert not suits(q, k[:, :, :10], k[:, :, :10], None)  # more queries than keys
    assert not suits(q[..., :40], k[..., :40], k[..., :40], None)  # 40 is no multiple of 32
    assert not suits(q, k.transpose(2, 3).contiguous().transpose(2, 3), k, None)
