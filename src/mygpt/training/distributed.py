"""Plain data parallel: several processes, each with the whole model, share the micro-batches of every step and add up their gradients.

    torchrun --nproc-per-node 2 -m mygpt finetune sft --model smollm2-135m --dataset handbook

The loss is divided by the trained tokens of the whole step over all ranks, so the sum of the gradients is that of one process.
Rank 0 alone writes: events, checkpoints, artefacts; the others wait for it and end with 0.

Source     synchronous data parallelism: Chen et al. 2016, arXiv:1604.00981
We differ  gradients are summed in float32 whatever their own format, and not averaged; after the backward pass, not during it
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from typing import Any, TypeVar

import torch

from mygpt.core.errors import MygptError
from mygpt.core.outbound import is_this_machine, require_online
from mygpt.core.run import Alone
from mygpt.training.out_of_memory import advice_beside_steps, out_of_memory_told

_BUCKET_WEIGHTS = 8_000_000  # summed in one message
_WAIT = timedelta(hours=2)  # for the slowest rank: rank 0 may have a model to fetch

R = TypeVar("R", bound=Callable[..., Any])


def on_ranks(function: R) -> R:
    """Marks a recipe whose training has steps: it shares them among ranks and can be resumed. It stands below `@recipe`.

    The command line starts no other on several ranks, and takes `--resume` for no other. Wherever in it memory runs out, it is answered
    with what to change.
    """

    @wraps(function)
    def told(config: Any, **given: Any) -> Any:
        with out_of_memory_told(lambda: advice_beside_steps(config)):
            return function(config, **given)

    told.on_ranks = True  # type: ignore[attr-defined]
    return told  # type: ignore[return-value]


def share_of(step: list[list[int]], *, rank: int, count: int) -> list[list[int]]:
    """The micro-batches of this rank: dealt in turn. Where there are fewer than ranks, the largest are halved first."""
    dealt = [list(micro) for micro in step]
    while 0 < len(dealt) < count:
        largest = max(range(len(dealt)), key=lambda m: len(dealt[m]))
        rows = dealt[largest]
        if len(rows) == 1:
            break  # some ranks have nothing to do in this step
        dealt[largest : largest + 1] = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    return dealt[rank::count]


class Ranks:
    """The processes that torchrun started. Each call is made by all of them, in the same order."""

    def __init__(self, rank: int, count: int):
        self.rank = rank
        self.count = count

    def wait(self) -> None:
        """Until all are here."""
        self.sum(torch.zeros(1))

    def sum(self, tensor: torch.Tensor) -> None:
        """In place, over all ranks; the same bits on each."""
        with self._others():
            torch.distributed.all_reduce(tensor)

    def gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """The tensor of every rank; all of one shape, on the CPU."""
        found = [torch.empty_like(tensor) for _ in range(self.count)]
        with self._others():
            torch.distributed.all_gather(found, tensor)
        return found

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """A parameter without a gradient here counts as zero: another rank may have one."""
        for bucket in _buckets(list(parameters)):
            flat = torch.cat([torch.zeros(p.numel(), device=p.device) if p.grad is None else p.grad.float().flatten() for p in bucket])
            self.sum(flat)
            for p, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                p.grad = part.view_as(p).to(p.dtype)

    @contextmanager
    def _others(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # of gloo and nccl alike
            what = f"Rank {self.rank} of {self.count} has lost another rank: {str(error).splitlines()[0]}"
            raise MygptError(what, fix="The first error above says why. The same command goes on from the last checkpoint.") from error


@contextmanager
def joined_ranks() -> Iterator[Ranks | Alone]:
    """The ranks that torchrun started this process among, or `Alone`. One GPU for each rank of this machine, where it has any."""
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if count == 1:
        yield Alone()
        return
    address = os.environ.get("MASTER_ADDR", "127.0.0.1")
    if not is_this_machine(address):
        require_online(f"Training with ranks at {address}")
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    ranks = Ranks(rank, count)
    with ranks._others():
        torch.distributed.init_process_group(backend, rank=rank, world_size=count, timeout=_WAIT)
    yield ranks
    torch.distributed.destroy_process_group()  # not after an error: it would wait for ranks that are gone


def _buckets(parameters: list[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    bucket: list[torch.nn.Parameter] = []
    for p in parameters:
        bucket.append(p)
        if sum(q.numel() for q in bucket) >= _BUCKET_WEIGHTS:
            yield bucket
            bucket = []
    if bucket:
        yield bucket
