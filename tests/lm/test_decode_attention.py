"""The kernel in C against the formula in float64; what it is not for; and that nothing fails where there is no compiler."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mygpt.lm.decode_attention import decode_attention, suits
from mygpt.lm.processor import has_cpu_flag

compiled = pytest.mark.skipif(
    not has_cpu_flag("avx512f") or shutil.which("cc") is None, reason="no AVX-512, or no C compiler, on this machine"
)
in_bfloat16 = pytest.mark.skipif(not has_cpu_flag("avx512_bf16"), reason="no AVX-512 BF16 on this machine")
both_formats = pytest.mark.parametrize("dtype", [pytest.param(torch.bfloat16, marks=in_bfloat16), torch.float32])


def by_formula(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scale: float) -> torch.Tensor:
    G = q.shape[1] // k.shape[1]
    scores = q.double() @ k.double().repeat_interleave(G, 1).transpose(-1, -2) * scale
    weights = (scores if mask is None else scores + mask.double()).softmax(-1)
    return (weights @ v.double().repeat_interleave(G, 1)).transpose(1, 2)


@compiled
@both_formats
@given(
    B=st.integers(1, 5), H=st.integers(1, 4), G=st.integers(1, 8), Q=st.integers(1, 4), S=st.integers(1, 70),
    D=st.sampled_from([32, 64, 96, 128]), masked=st.booleans(), one_mask=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_against_the_formula(
    dtype: torch.dtype, B: int, H: int, G: int, Q: int, S: int, D: int, masked: bool, one_mask: bool, seed: int
) -> None:
    """Slices of larger buffers, as a cache gives them; bfloat16 has 8 bits, so that a mean of numbers near 1 is good to 0.01."""
    g = torch.Generator().manual_seed(seed)
    Q = Q if masked else 1
    q = torch.randn(B, Q, H * G, D, generator=g).to(dtype).transpose(1, 2)
    k, v = (torch.randn(B, H, S + 7, D, generator=g).to(dtype)[:, :, :S] for _ in range(2))
    mask = None
    if masked:
        hidden = torch.rand(1 if one_mask else B, 1, Q, S, generator=g) < 0.4
        hidden[..., S // 2] = False
        mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)
    if G * Q > 16:
        assert not suits(q, k, v, mask)
        return
    assert suits(q, k, v, mask)
    made = decode_attention(q, k, v, mask, 0.2)
    assert made.shape == (B, Q, H * G, D) and made.is_contiguous()
    most = 0.01 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(made.double(), by_formula(q, k, v, mask, 0.2), atol=most, rtol=most)


@compiled
@both_formats
def test_large_scores_and_hidden_keys_give_numbers(dtype: torch.dtype) -> None:
    """One key of weight 1 and keys that hold no number behind the mask's end: only what is seen counts."""
    q, k = torch.full((1, 1, 1, 32), 30.0, dtype=dtype), torch.zeros(1, 1, 20, 32, dtype=dtype)
    k[0, 0, 3] = 30.0
    v = torch.arange(20, dtype=dtype)[None, None, :, None].expand(1, 1, 20, 32).contiguous()
    assert decode_attention(q, k, v, None, 1.0).unique().tolist() == [3.0]
    mask = torch.zeros(1, 1, 1, 20, dtype=dtype)
    mask[..., 3] = torch.finfo(dtype).min
    assert decode_attention(q, k, v, mask, 1.0).unique().item() == pytest.approx((sum(range(20)) - 3) / 19, rel=0.01)


@compiled
@both_formats
@pytest.mark.parametrize("masked", [False, True])
def test_what_is_no_number_stays_none(masked: bool, dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 1, S, 32, generator=g).to(dtype) for S in (1, 40, 40))
    q[0, 0, 0, 3] = torch.nan
    made = decode_attention(q, k, v, torch.zeros(2, 1, 1, 40, dtype=dtype) if masked else None, 0.2)
    assert made.isnan().all(-1).flatten().tolist() == [True, False] and not made[1].isnan().any()


@compiled
@both_formats
def test_what_it_is_not_for(dtype: torch.dtype) -> None:
    q, k = torch.zeros(2, 4, 1, 64, dtype=dtype), torch.zeros(2, 2, 9, 64, dtype=dtype)
    assert suits(q, k, k, None)
    assert not suits(q.half(), k.half(), k.half(), None)
    assert not suits(q, k, k.double(), None)
    assert not suits(q, k, k, torch.zeros(2, 1, 1, 9, dtype=torch.bool))
    assert not suits(q, k, k, torch.zeros(2, 4, 1, 9, dtype=dtype))  # a mask per head
    assert not suits(q.expand(2, 4, 3, 64), k, k, None)  # causal, and not said
    assert not suits(q[..., :40], k[..., :40], k[..., :40], None)  # 40 is no multiple of 32
    assert not suits(q, k.transpose(2, 3).contiguous().transpose(2, 3), k, None)


@pytest.mark.parametrize("hindrance", ["no compiler", "a compiler that fails", "switched off"])
def test_without_a_compiler_torchs_kernels_do_it(hindrance: str, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    if hindrance == "a compiler that fails":
        (tmp_path / "bin" / "cc").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "bin" / "cc").chmod(0o755)
    off = {"MYGPT_NO_COMPILER": "1"} if hindrance == "switched off" else {}
    code = (
        "import torch\nfrom types import SimpleNamespace\nfrom mygpt.lm import attention, decode_attention as d\n"
        "for dtype in (torch.bfloat16, torch.float32):\n"
        "    q, k = torch.ones(2, 4, 1, 64, dtype=dtype), torch.ones(2, 2, 9, 64, dtype=dtype)\n"
        "    assert not d.suits(q, k, k, None)\n"
        "    made = attention._attention(SimpleNamespace(is_causal=True), q, k, k, None)[0]\n"
        "    assert made.shape == (2, 1, 4, 64) and bool((made == 1).all())\n"
    )
    path = {"PATH": str(tmp_path / "bin") if not off else os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **path, **off, "MYGPT_HOME": str(tmp_path)}, check=True)
    assert not list(tmp_path.rglob("*.so"))
