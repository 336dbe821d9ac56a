"""A decode step whose tensors stay where they are, so that a GPU can record it once and replay it.

At 135M parameters a step on a GPU is a few hundred small kernels: starting them one by one from Python takes longer than running them. Here
ids, positions, mask and the cache's buffers have fixed shapes and addresses; new keys go to the slots that `at_Q` names, and attention
runs over the whole buffers, unused slots masked.

Source    CUDA graphs as PyTorch's notes on them describe (warm-up on a side stream, then capture)
Dims      B trees   Q new tokens of a tree   S slots of the cache, with its room   D hidden
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mygpt.infer.kv_cache import SlotCache
from mygpt.infer.tree_attention import Mask
from mygpt.lm.attention import grouped_attention
from mygpt.lm.virtual_tokens import cache_argument


class DecodeStep:
    """One shape of a batch. Built anew when rows leave or come in, or when the cache grows: `fits` says whether it still holds."""

    def __init__(self, module: Any, decoder: Any, cache: SlotCache, fed_3BQ: torch.Tensor):
        self._module, self._decoder = module, decoder
        self._cache = _FixedSlots(cache, num_queries=fed_3BQ.shape[2], device=fed_3BQ.device)
        self._ids_BQ, self._positions_BQ = torch.zeros_like(fed_3BQ[0]), torch.zeros_like(fed_3BQ[1])
        self._masks: dict[str, torch.Tensor] = {}
        self._hidden_BQD: torch.Tensor | None = None

    def fits(self, cache: SlotCache, fed_3BQ: torch.Tensor) -> bool:
        return self._cache.holds(cache) and self._ids_BQ.shape == fed_3BQ.shape[1:] and cache.length + fed_3BQ.shape[2] <= cache.num_slots

    def __call__(self, fed_3BQ: torch.Tensor, mask: Mask) -> torch.Tensor:
        """Hidden states (B, Q, D), valid until the next call. `mask` covers the slots up to and with the new ones."""
        self._ids_BQ.copy_(fed_3BQ[0])
        self._positions_BQ.copy_(fed_3BQ[1])
        self._cache.advance()
        for name, one in mask.items() if isinstance(mask, dict) else [("", mask)]:
            if name not in self._masks:
                self._masks[name] = one.new_full((*one.shape[:3], self._cache.num_slots), torch.finfo(one.dtype).min)
            self._masks[name][..., : one.shape[-1]].copy_(one)
        self._hidden_BQD = self._run()
        return self._hidden_BQD

    def _run(self) -> torch.Tensor:
        mask = self._masks.get("", self._masks)
        with grouped_attention(self._module):
            output: Any = self._decoder(
                input_ids=self._ids_BQ,
                position_ids=self._positions_BQ,
                attention_mask=mask,
                use_cache=True,
                **{cache_argument(self._decoder): self._cache},
            )
        hidden_BQD: torch.Tensor = output.last_hidden_state
        return hidden_BQD


class GraphedStep(DecodeStep):
    """Recorded at its first call, replayed afterwards. An architecture that cannot be recorded goes on step by step."""

    _graph: Any = None
    _cannot = False

    def _run(self) -> torch.Tensor:
        if self._graph is None and not self._cannot:
            self._record()
        if self._graph is None:
            return super()._run()
        self._graph.replay()
        assert self._hidden_BQD is not None
        return self._hidden_BQD

    def _record(self) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):  # kernels choose their algorithms; the same keys are written to the same slots
                super()._run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with _captured(graph, side):
                self._hidden_BQD = super()._run()
        except RuntimeError:  # the layers ask the GPU for a value (rotary scaling by length does): nothing can be recorded then
            self._cannot = True
            torch.cuda.synchronize()
            return
        self._graph = graph


@contextmanager
def _captured(graph: Any, stream: Any) -> Iterator[None]:
    """As torch.cuda.graph, which gives all free memory back first: a training that samples would ask for it again in every step."""
    collects = gc.isenabled()
    gc.disable()  # nothing on the GPU may be freed meanwhile
    torch.cuda.synchronize()
    try:
        with torch.cuda.stream(stream):
            graph.capture_begin()
            try:
                yield
            finally:
                graph.capture_end()
    finally:
        if collects:
            gc.enable()


class _FixedSlots:
    """A SlotCache for a decoder, written at `at_Q` and read whole."""

    is_compileable = False

    def __init__(self, cache: SlotCache, *, num_queries: int, device: torch.device):
        self._cache = cache
        self._buffers = cache.buffers
        self.num_slots = cache.num_slots
        self.at_Q = torch.arange(num_queries, device=device)
        self._first = self.at_Q.clone()
        for layer in self._buffers[0]:
            for buffers in self._buffers:
                buffers[layer][:, :, cache.length :] = 0  # attention gives them weight 0, and 0 times what lies there may be no number

    def holds(self, cache: SlotCache) -> bool:
        """Whether these are still the buffers of `cache`."""
        return all(one[layer] is other[layer] for one, other in zip(self._buffers, cache.buffers, strict=True) for layer in one)

    def advance(self) -> None:
        self.at_Q.copy_(self._first + self._cache.length)
        self._cache.advance(len(self._first))

    def update(
        self, key_BHQD: torch.Tensor, value_BHQD: torch.Tensor, layer: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self._buffers
        keys[layer].index_copy_(2, self.at_Q, key_BHQD)
        values[layer].index_copy_(2, self.at_Q, value_BHQD)
        return keys[layer], values[layer]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._cache.length
