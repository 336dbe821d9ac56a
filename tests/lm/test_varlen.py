"""Attention over a packed row on a GPU. Here a stand-in in plain torch takes the place of the kernel: everything around it is tested."""

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mygpt.lm import attention, varlen
from mygpt.lm.varlen import PackedRow, varlen_suits
from mygpt.training.compile_layers import compile_layers
from mygpt.training.losses import summed_cross_entropy
from mygpt.training.packing import isolation_fault, packed_batch
from mygpt.training.recompute import recompute_layers
from tests.training import tiny

CPU = torch.device("cpu")
LENGTHS = [24, 5, 17, 9, 2, 12]
calls: list[int] = []  # examples of every row that the stand-in was given


def by_example(
    query_ThD: torch.Tensor,
    key_THD: torch.Tensor,
    value_THD: torch.Tensor,
    bounds_N: torch.Tensor,
    key_bounds_N: torch.Tensor,
    longest: int,
    longest_keys: int,
    *,
    scale: float,
    window_size: tuple[int, int],
) -> torch.Tensor:
    """What torch.nn.attention.varlen.varlen_attn says that it does, example by example: queries stand at the end of their keys."""
    made = []
    for (start, end), (first, last) in zip(*map(itertools.pairwise, (bounds_N.tolist(), key_bounds_N.tolist())), strict=True):
        assert 0 < end - start <= longest and end - start <= last - first <= longest_keys
        behind = torch.arange(last - first - (end - start), last - first)[:, None] - torch.arange(last - first)
        seen = (behind >= 0) & ((behind <= window_size[0]) | (window_size[0] < 0))
        spans = ((query_ThD, start, end), (key_THD, first, last), (value_THD, first, last))
        parts = [one[begin:stop].transpose(0, 1)[None] for one, begin, stop in spans]
        made.append(F.scaled_dot_product_attention(*parts, attn_mask=seen, scale=scale, enable_gqa=True)[0].transpose(0, 1))
    calls.append(len(bounds_N) - 1)
    return torch.cat(made)


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(attention, "_is_on_cpu", lambda module: False)
    monkeypatch.setattr(attention, "varlen_suits", lambda module, positions_BT: True)
    monkeypatch.setattr(varlen, "_kernel", lambda: by_example)
    calls.clear()
    yield


def packed_gradient(module: Any, lengths: list[int], *, shapes: list[int] | None = None, seed: int = 0) -> torch.Tensor:
    batch = packed_batch(tiny.examples(lengths, seed=seed), padding_id=0, device=CPU, shapes=shapes or [])
    module.zero_grad()
    summed_cross_entropy(module, batch.ids_BT, batch.trained_BT, positions_BT=batch.positions_BT).backward()
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def plain_gradient(module: Any, lengths: list[int], *, seed: int = 0) -> torch.Tensor:
    """By the model's own forward pass and loss, an example at a time."""
    module.zero_grad()
    for example in tiny.examples(lengths, seed=seed):
        ids_BT, trained_BT = torch.tensor([example.token_ids]), torch.tensor([example.trained])
        labels_BT = ids_BT.masked_fill(~trained_BT, -100)
        (module(input_ids=ids_BT, labels=labels_BT, use_cache=False).loss * trained_BT[:, 1:].sum()).backward()
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", ["llama", "qwen3", "mistral", "granite", "gpt2", "phi"])  # mistral sees a window of 8
def test_a_packed_row_has_the_gradient_of_its_examples(name: str, as_on_a_gpu: None) -> None:
    module = tiny.family(name)
    plain = plain_gradient(module, LENGTHS)
    for shapes, num_examples in (([], 6), ([128], 7)):  # the padding is one more
        ours = packed_gradient(module, LENGTHS, shapes=shapes)
        assert (ours - plain).norm() <= 1e-5 * plain.norm()
        assert calls == [num_examples] * 2  # both layers
        calls.clear()


def test_layers_computed_again_see_the_same_examples(as_on_a_gpu: None) -> None:
    module = tiny.family("llama")
    plain = packed_gradient(module, LENGTHS)
    recompute_layers(module)
    calls.clear()
    again = packed_gradient(module, LENGTHS)
    assert (again - plain).norm() <= 1e-6 * plain.norm() and calls == [6] * 4


def test_a_shape_is_compiled_once_whatever_examples_share_the_row(as_on_a_gpu: None) -> None:
    graphs: list[Any] = []

    def counting(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = tiny.family("llama")
    compile_layers(compiled, backend=counting)
    counts = []
    for number, lengths in enumerate([[20, 9, 14], [30, 30, 30], [5, 6, 7, 8, 9], [60], [2, 90, 3], [41, 20]]):
        packed_gradient(compiled, lengths, shapes=[64, 128], seed=number)
        counts.append(len(graphs))
    assert counts[0] > 0 and counts[1:] == [2 * counts[0]] * 5


def test_what_else_a_layer_asks_for_is_found_before_training(as_on_a_gpu: None) -> None:
    """Gemma 2 caps its scores, which the kernel does not."""
    first, second = (e.token_ids for e in tiny.examples([12, 9]))
    fault = isolation_fault(tiny.family("gemma2"), first, second)
    assert fault is not None and "softcap" in fault


def test_where_the_kernel_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    one_row, two_rows = torch.arange(8)[None], torch.arange(8).expand(2, 8)
    capability = SimpleNamespace(now=(9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability.now)
    half = {name: tiny.family(name).to(torch.bfloat16) for name in ("llama", "mistral", "gemma2", "bloom")}
    assert {name: varlen_suits(module, one_row) for name, module in half.items()} == {
        "llama": True,
        "mistral": True,
        "gemma2": False,
        "bloom": False,
    }
    assert not varlen_suits(tiny.family("llama"), one_row)  # float32
    assert not varlen_suits(half["llama"], two_rows)
    capability.now = (7, 5)
    assert not varlen_suits(half["llama"], one_row)


def test_bounds_by_hand() -> None:
    row = PackedRow.of(torch.tensor([[0, 1, 2, 0, 0, 1]]))
    assert row.bounds_N.tolist() == [0, 3, 4, 6] and row.bounds_N.dtype == torch.int32 and row.longest == 3


def test_a_shared_beginning_by_hand() -> None:
    """A beginning of 2 with ends of 1 and 3 tokens, behind it one of 1 with an end of 2."""
    row = PackedRow.forked([(2, (1, 3)), (1, (2,))], CPU)
    assert row.keys is not None and (row.longest, row.keys.longest) == (3, 5)
    assert row.bounds_N.tolist() == [0, 3, 6, 9] and row.keys.bounds_N.tolist() == [0, 3, 8, 11]
    assert row.keys.places_K.tolist() == [0, 1, 2, 0, 1, 3, 4, 5, 6, 7, 8]


def test_gradients_of_what_is_read_twice_are_added_up() -> None:
    values_THD = torch.arange(12.0).view(3, 2, 2).requires_grad_()
    places_K = torch.tensor([0, 0, 2, 0])
    made_KHD = varlen.gathered(values_THD, places_K)
    assert torch.equal(made_KHD, values_THD[places_K])
    made_KHD.backward(torch.arange(16.0).view(4, 2, 2))
    assert values_THD.grad is not None and values_THD.grad[:, 0, 0].tolist() == [0 + 4 + 12, 0, 8]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("window", [None, 8])
@pytest.mark.parametrize("is_forked", [False, True])
def test_the_kernel_is_the_stand_in(window: int | None, is_forked: bool) -> None:
    """bfloat16 against float32: attention's outputs and gradients are averages of values, so 2 % is rounding."""
    draw = torch.Generator().manual_seed(0)
    row = PackedRow.of(torch.tensor([[*range(24), *range(5), *range(35)]], device="cuda"))
    if is_forked:
        row = PackedRow.forked([(10, (14, 1, 9)), (3, (27,))], torch.device("cuda"))
    given = [torch.randn(1, heads, 64, 64, generator=draw) for heads in (8, 2, 2)]
    ahead = torch.randn(1, 64, 8, 64, generator=draw)
    found = []
    for device, dtype in (("cpu", torch.float32), ("cuda", torch.bfloat16)):
        tensors = [one.to(device, dtype, copy=True).requires_grad_() for one in given]
        if device == "cpu":
            parts = [one[0].transpose(0, 1) for one in tensors]
            bounds = (row.bounds_N.cpu(), row.bounds_N.cpu(), row.longest, row.longest)
            if row.keys is not None:
                parts[1:] = [one[row.keys.places_K.cpu()] for one in parts[1:]]
                bounds = (row.bounds_N.cpu(), row.keys.bounds_N.cpu(), row.longest, row.keys.longest)
            own = (window - 1 if window else -1, 0)
            mixed = by_example(*parts, *bounds, scale=64**-0.5, window_size=own)[None]
        else:
            mixed, _ = varlen._attention(None, *tensors, None, scaling=64**-0.5, sliding_window=window, packed_row=row)
        mixed.backward(ahead.to(device, dtype))
        found.append([mixed, *(one.grad for one in tensors)])
    for reference, ours in zip(*found, strict=True):
        assert (ours.cpu().float() - reference).norm() <= 0.02 * reference.norm()
