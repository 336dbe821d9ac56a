"""Cross-entropy whose gradient takes the place of the logits. Here a stand-in in plain torch does what the kernel says that it does."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mygpt.lm.logits import only_matrix
from mygpt.training import head_kernels
from mygpt.training.gpu_kernels import cross_entropy_in_place, gpu_kernels, scaled
from mygpt.training.head_kernels import in_kernels, summed_in_kernels
from mygpt.training.losses import summed_cross_entropy
from tests.training import tiny

ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def stand_in(kernels: Any, logits_NV: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
    logits = logits_NV.detach().float()
    nats = F.cross_entropy(logits, labels_N, reduction="sum")
    logits_NV.copy_(logits.softmax(-1) - F.one_hot(labels_N, logits.shape[1]))
    return nats


def drawn(num_labels: int = 30, hidden: int = 16, vocabulary: int = 50, **where: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(num_labels)
    hidden_ND, weight_VD = (torch.randn(count, hidden, generator=draw).to(**where) for count in (num_labels, vocabulary))
    labels_N = torch.randint(vocabulary, (num_labels,), generator=draw).to(weight_VD.device)
    return hidden_ND.requires_grad_(), weight_VD.requires_grad_(), labels_N


@pytest.mark.parametrize("chunk_labels", [None, 2, 5, 100])  # a quarter of what stands together
@pytest.mark.parametrize("trained_head", [True, False])
def test_equals_torchs_cross_entropy(chunk_labels: int | None, trained_head: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_kernels, "cross_entropy_in_place", stand_in)
    monkeypatch.setattr(head_kernels, "scaled", lambda kernels, numbers, factor: numbers.mul_(factor))
    hidden_ND, weight_VD, labels_N = drawn()
    weight_VD.requires_grad_(trained_head)
    wanted = [hidden_ND, *([weight_VD] if trained_head else [])]
    nats = F.cross_entropy(hidden_ND @ weight_VD.T, labels_N, reduction="sum")
    reference = torch.autograd.grad(nats * 3.5, wanted)
    ours = summed_in_kernels(hidden_ND, weight_VD, labels_N, chunk_labels=chunk_labels)
    assert float(ours.detach()) == pytest.approx(float(nats.detach()), rel=1e-6)
    for found, expected in zip(torch.autograd.grad(ours * 3.5, wanted), reference, strict=True):
        assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_where_the_head_is_only_a_matrix() -> None:
    """Gemma 2 caps its logits, Granite scales them."""
    found = {name: only_matrix(tiny.family(name)) is not None for name in ("llama", "qwen3", "gemma2", "granite")}
    assert found == {"llama": True, "qwen3": True, "gemma2": False, "granite": False}
    hooked = tiny.family("llama")
    hooked.get_output_embeddings().register_forward_hook(lambda *given: None)
    assert only_matrix(hooked) is None


def test_a_cpu_has_none() -> None:
    assert gpu_kernels(torch.device("cpu")) is None
    assert in_kernels(tiny.family("llama"), torch.zeros(2, 32, dtype=torch.bfloat16)) is None


@ON_A_GPU
@pytest.mark.parametrize("vocabulary", [50, 4_099, 128_256])
def test_the_kernel_is_the_stand_in(vocabulary: int) -> None:
    """Both round the gradient of bfloat16 logits to bfloat16 once: equal, but where float32 sums end on either side of a rounding."""
    kernels = gpu_kernels(torch.device("cuda"))
    assert kernels is not None
    draw = torch.Generator("cuda").manual_seed(0)
    ours = (torch.randn(37, vocabulary, generator=draw, device="cuda") * 4).bfloat16()
    labels_N = torch.randint(vocabulary, (37,), generator=draw, device="cuda")
    theirs = ours.clone()
    nats, expected = cross_entropy_in_place(kernels, ours, labels_N), stand_in(None, theirs, labels_N)
    assert float(nats) == pytest.approx(float(expected), rel=1e-6)
    assert (ours.float() - theirs.float()).norm() <= 1e-3 * theirs.float().norm()


@ON_A_GPU
def test_scaled_on_the_device() -> None:
    kernels = gpu_kernels(torch.device("cuda"))
    assert kernels is not None
    numbers, factor = torch.randn(37, 101, device="cuda").bfloat16(), torch.tensor(1 / 60, device="cuda")
    expected = (numbers.float() * factor).bfloat16()
    assert torch.equal(scaled(kernels, numbers, factor), expected)


@ON_A_GPU
def test_a_model_has_the_same_loss_and_gradient_with_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 the kernels' gradient is as near to that of float32 as torch's own is."""
    from mygpt.training import losses

    module = tiny.family("llama").to("cuda", torch.bfloat16)
    exact = copy.deepcopy(module).float()
    ids_BT = torch.arange(3, 64, device="cuda")[None]

    def learnt(module: Any) -> tuple[float, torch.Tensor]:
        module.zero_grad()
        nats = summed_cross_entropy(module, ids_BT, torch.ones_like(ids_BT, dtype=torch.bool), chunk_labels=8)
        (nats / 60).backward()
        return float(nats.detach()), torch.cat([p.grad.float().flatten() for p in module.parameters() if p.grad is not None])

    assert in_kernels(module, torch.zeros(1, 32, device="cuda", dtype=torch.bfloat16)) is not None
    ours, our_gradient = learnt(module)
    monkeypatch.setattr(losses, "in_kernels", lambda module, hidden_ND: None)
    theirs, their_gradient = learnt(module)
    _, gradient = learnt(exact)
    assert ours == pytest.approx(theirs, rel=1e-5)
    apart, theirs_apart = (float((one - gradient).norm() / gradient.norm()) for one in (our_gradient, their_gradient))
    assert apart < 1.1 * theirs_apart < 0.1
