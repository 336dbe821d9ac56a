"""Who sees whom in a wave of trees (`infer/prefixes`), as the additive mask of a transformers decoder.

Every slot of the cache has a segment (0 the shared prefix, k > 0 the k-th row, -1 padding) and a position. A token sees the slots of
the prefix and of its own segment, up to its own position, and in layers with a sliding window the last `window` positions of these.
Padding sees padding: no row of the mask is empty, and no answer reads it.

Source    sliding windows as transformers counts them: a token and the `window - 1` before it
Dims      B trees   Q new tokens of a tree   S slots of the cache
"""

import copy
import inspect
from collections.abc import Sequence, Set
from typing import Any

import torch
import torch.nn.functional as F

from mygpt.core.errors import Refused

Mask = torch.Tensor | dict[str, torch.Tensor]

PADDING = -1
_LAYER_TYPES = {"full_attention", "sliding_attention", "global"}  # "global" is GPT-Neo's word; its "local" layers count slots


class TreeSlots:
    """Segments and positions of the cache's slots, filled in step with it. `config` is the transformers model's."""

    def __init__(self, config: Any):
        text = config.get_text_config()
        self._layer_types = set(getattr(text, "layer_types", None) or ())
        self._window: int | None = getattr(text, "sliding_window", None) or None
        self._segments_BS: torch.Tensor | None = None
        self._positions_BS: torch.Tensor | None = None

    def add(self, segments_BQ: torch.Tensor, positions_BQ: torch.Tensor) -> None:
        if self._segments_BS is None or self._positions_BS is None:
            self._segments_BS, self._positions_BS = segments_BQ, positions_BQ
        else:
            self._segments_BS = torch.cat([self._segments_BS, segments_BQ], 1)
            self._positions_BS = torch.cat([self._positions_BS, positions_BQ], 1)

    def keep(self, trees: torch.Tensor) -> None:
        """Drop the trees that are done."""
        assert self._segments_BS is not None and self._positions_BS is not None
        self._segments_BS, self._positions_BS = self._segments_BS[trees], self._positions_BS[trees]

    def living(self, segments: Sequence[Set[int]]) -> list[tuple[int, torch.Tensor]]:
        """Of each tree that still has rows: its number, and the slots of its prefix and of these segments."""
        assert self._segments_BS is not None
        found = []
        for b, alive in enumerate(segments):
            if alive:
                row_S = self._segments_BS[b]
                is_kept_S = torch.isin(row_S, torch.tensor([0, *sorted(alive)], device=row_S.device))
                found.append((b, is_kept_S.nonzero()[:, 0]))
        return found

    @classmethod
    def regrouped(cls, config: Any, places: "Sequence[tuple[TreeSlots, int, torch.Tensor]]") -> "TreeSlots":
        """Trees (slots, number of the tree, which of its slots) in one, as `kv_cache.regrouped`; what a shorter tree lacks is padding."""
        made = cls(config)
        longest = max(len(kept) for _, _, kept in places)
        segments, positions = [], []
        for slots, tree, kept in places:
            assert slots._segments_BS is not None and slots._positions_BS is not None
            missing = (0, longest - len(kept))
            segments.append(F.pad(slots._segments_BS[tree, kept], missing, value=PADDING))
            positions.append(F.pad(slots._positions_BS[tree, kept], missing))
        made._segments_BS, made._positions_BS = torch.stack(segments), torch.stack(positions)
        return made

    def repeated(self, num_trees: int) -> "TreeSlots":
        """The one tree of these slots, `num_trees` times."""
        assert self._segments_BS is not None and self._positions_BS is not None
        made = copy.copy(self)
        made._segments_BS = self._segments_BS.expand(num_trees, -1)
        made._positions_BS = self._positions_BS.expand(num_trees, -1)
        return made

    def mask(self, num_queries: int, dtype: torch.dtype) -> Mask:
        """(B, 1, Q, S) to add to the scores of the newest `num_queries` slots; one for each type of layer where there are several."""
        assert self._segments_BS is not None and self._positions_BS is not None
        segment_B1S, position_B1S = self._segments_BS[:, None], self._positions_BS[:, None]
        segment_BQ1, position_BQ1 = self._segments_BS[:, -num_queries:, None], self._positions_BS[:, -num_queries:, None]
        visible_BQS = ((segment_B1S == 0) | (segment_B1S == segment_BQ1)) & (position_B1S <= position_BQ1)
        if self._window is None or self._layer_types == {"full_attention"}:
            near_BQS = visible_BQS
        else:
            near_BQS = visible_BQS & (position_BQ1 - position_B1S < self._window)
        if "sliding_attention" in self._layer_types:
            return {"full_attention": _added(visible_BQS, dtype), "sliding_attention": _added(near_BQS, dtype)}
        return _added(near_BQS, dtype)


def joined_masks(masks: Sequence[Mask]) -> Mask:
    """The masks of several lanes as one: nobody looks beyond the end of the own lane."""
    if len(masks) == 1:
        return masks[0]
    if isinstance(masks[0], dict):
        return {name: _joined([mask[name] for mask in masks if isinstance(mask, dict)]) for name in masks[0]}
    return _joined([mask for mask in masks if isinstance(mask, torch.Tensor)])


def _joined(masks: Sequence[torch.Tensor]) -> torch.Tensor:
    longest = max(mask.shape[-1] for mask in masks)
    hidden = torch.finfo(masks[0].dtype).min
    return torch.cat([F.pad(mask, (0, longest - mask.shape[-1]), value=hidden) for mask in masks])


def tree_decoder(module: Any) -> Any:
    """The decoder of a transformers language model. Raises Refused when it cannot run several rows as one tree."""
    if reason := _why_not(module):
        raise Refused(
            f"Models of the architecture {module.config.get_text_config().model_type} cannot generate here: {reason}.",
            fix="Run it in another server and name the address (`http://host:port/v1#name`), or choose a model with ordinary attention.",
        )
    return module.get_decoder()


def is_tree_decoder(module: Any) -> bool:
    return not _why_not(module)


def _why_not(module: Any) -> str:
    """Why this model cannot run several rows as one tree; "" where it can."""
    config = module.config.get_text_config()
    layer_types = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None) or ()
    other = sorted(set(layer_types) - _LAYER_TYPES)
    if getattr(module, "_is_stateful", False):
        return "it keeps a running state in place of keys and values"
    if other:
        return f"it has layers of the type {', '.join(other)}"
    if "position_ids" not in inspect.signature(module.get_decoder().forward).parameters or getattr(config, "alibi", False):
        return "its positions cannot be given"
    return ""


def _added(visible_BQS: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    added_BQS = torch.zeros(visible_BQS.shape, dtype=dtype, device=visible_BQS.device)
    return added_BQS.masked_fill_(~visible_BQS, torch.finfo(dtype).min)[:, None]
