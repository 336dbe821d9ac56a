"""Compiled layers: the same gradient, and nothing is compiled again once each length of row was met."""

from typing import Any

import pytest
import torch

from mygpt.core.errors import Refused
from mygpt.training.batches import shape_ladder
from mygpt.training.compile_layers import compile_layers
from mygpt.training.losses import summed_cross_entropy
from mygpt.training.packing import packed_batch
from mygpt.training.recompute import recompute_layers
from tests.training import tiny

CPU = torch.device("cpu")


def gradient(module: Any, lengths: list[int], shapes: list[int], *, seed: int = 0) -> torch.Tensor:
    batch = packed_batch(tiny.examples(lengths, seed=seed), padding_id=0, device=CPU, shapes=shapes)
    module.zero_grad()
    summed_cross_entropy(module, batch.ids_BT, batch.trained_BT, positions_BT=batch.positions_BT).backward()
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def test_a_shape_is_compiled_once_whatever_examples_share_the_row() -> None:
    graphs: list[Any] = []

    def counting(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    plain, compiled = tiny.llama(num_hidden_layers=1), tiny.llama(num_hidden_layers=1)
    compile_layers(compiled, backend=counting)
    counts = []
    for number, lengths in enumerate([[20, 9, 14], [30, 30, 30], [5, 6, 7, 8, 9], [60], [2, 90, 3], [41, 20]]):  # 64 and 128, in turns
        ours, theirs = (gradient(module, lengths, [64, 128], seed=number) for module in (compiled, plain))
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
        counts.append(len(graphs))
    assert counts[0] > 0 and counts == [counts[0]] + [2 * counts[0]] * 5  # at the first row of each of two lengths


def test_any_length_is_compiled_once() -> None:
    graphs: list[Any] = []

    def counting(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    plain, compiled = tiny.llama(num_hidden_layers=1), tiny.llama(num_hidden_layers=1)
    compile_layers(compiled, any_length=True, backend=counting)
    counts = []
    for number, lengths in enumerate([[20, 9, 14], [30, 30, 30], [30, 31], [2, 90, 3]]):
        ours, theirs = (gradient(module, lengths, [], seed=number) for module in (compiled, plain))
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
        counts.append(len(graphs))
    assert counts[0] > 0 and counts == [counts[0]] * 4


def test_layers_that_are_computed_again_are_compiled_inside() -> None:
    graphs: list[Any] = []

    def counting(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    plain, compiled = tiny.llama(), recompute_layers(tiny.llama())
    compile_layers(compiled, backend=counting)
    counts = []
    for number, lengths in enumerate([[20, 9, 14], [30, 30], [5, 6, 7, 8]]):
        ours, theirs = (gradient(module, lengths, [64], seed=number) for module in (compiled, plain))
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
        counts.append(len(graphs))
    assert counts[0] > 0 and counts == [counts[0]] * 3


def test_several_trainings_of_one_process_are_compiled() -> None:
    """torch gives up after eight compilations of a piece of code, which two trainings with adapters pass."""
    graphs: list[Any] = []

    def counting(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    module = tiny.llama()
    compile_layers(module, backend=counting)
    counts = []
    for length in range(16, 28):
        gradient(module, [length], [length])
        counts.append(len(graphs))
    assert counts[0] > 0 and counts == [counts[0] * number for number in range(1, 13)]


def test_the_ladder_by_hand() -> None:
    assert shape_ladder(2048) == [128, 192, 256, 384, 512, 704, 1024, 1472, 2048]
    assert shape_ladder(1000) == [128, 192, 256, 384, 512, 704, 1000]
    assert shape_ladder(100) == [100]


def test_a_model_without_known_layers_is_refused() -> None:
    with pytest.raises(Refused, match="Linear has no layers that can be compiled") as refused:
        compile_layers(torch.nn.Linear(2, 2))
    assert "`compile_layers`" in refused.value.fix


@pytest.mark.slow  # the compiler takes a minute
def test_the_real_compiler_gives_the_same_gradient() -> None:
    plain, compiled = tiny.family("llama"), tiny.family("llama")
    compile_layers(compiled)
    ours, theirs = (gradient(module, [20, 9, 14], [64]) for module in (compiled, plain))
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
