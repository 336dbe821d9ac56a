"""Keys and values of a wave of prompts, in buffers with room to grow.

transformers' DynamicCache copies everything at each step (`torch.cat`); here a step writes its own slots only, and a buffer that is
full is replaced by one half as large again.

Dims  L layers   B trees   H key/value heads   S slots   D head size   Q new tokens
"""

from collections.abc import Sequence

import torch


class SlotCache:
    """What a transformers decoder needs of `past_key_values`: `update` per layer, then one `advance` per forward pass.

    `num_slots`: how many to make room for at first.
    """

    is_compileable = False

    def __init__(self, *, num_slots: int):
        self.num_slots = num_slots
        self.length = 0
        self._keys_BHSD: dict[int, torch.Tensor] = {}
        self._values_BHSD: dict[int, torch.Tensor] = {}

    def update(self, key_BHQD: torch.Tensor, value_BHQD: torch.Tensor, layer: int, *_: object) -> tuple[torch.Tensor, torch.Tensor]:
        end = self.length + key_BHQD.shape[2]
        if end > self.num_slots:
            self.num_slots = max(end, self.num_slots * 3 // 2)
        for kept, new_BHQD in ((self._keys_BHSD, key_BHQD), (self._values_BHSD, value_BHQD)):
            if layer not in kept:
                kept[layer] = self._room(new_BHQD, trees=len(new_BHQD))
            elif kept[layer].shape[2] < end:
                old_BHSD = kept[layer]
                kept[layer] = self._room(old_BHSD, trees=len(old_BHSD))
                kept[layer][:, :, : self.length] = old_BHSD[:, :, : self.length]
            kept[layer][:, :, self.length : end] = new_BHQD
        return self._keys_BHSD[layer][:, :, :end], self._values_BHSD[layer][:, :, :end]

    def advance(self, num_tokens: int) -> None:
        self.length += num_tokens

    def keep(self, trees: torch.Tensor) -> None:
        """Drop the trees that are done."""
        for kept in (self._keys_BHSD, self._values_BHSD):
            for layer, old_BHSD in kept.items():
                kept[layer] = self._room(old_BHSD, trees=len(trees))
                kept[layer][:, :, : self.length] = old_BHSD[:, :, : self.length].index_select(0, trees)

    def pack(self, kept: Sequence[tuple[int, torch.Tensor]]) -> None:
        """Keep these trees, and of each only these slots, moved together to the front."""
        self.length = self.num_slots = max(len(slots) for _, slots in kept)
        for buffers in (self._keys_BHSD, self._values_BHSD):
            for layer, old_BHSD in buffers.items():
                _, H, _, D = old_BHSD.shape
                packed_BHSD = old_BHSD.new_zeros(len(kept), H, self.num_slots, D)
                for b, (tree, slots) in enumerate(kept):
                    torch.index_select(old_BHSD[tree], 1, slots, out=packed_BHSD[b, :, : len(slots)])
                buffers[layer] = packed_BHSD

    def repeated(self, num_trees: int, *, num_slots: int) -> "SlotCache":
        """The one tree of this cache, `num_trees` times, with room to grow."""
        made = SlotCache(num_slots=num_slots)
        made.length = self.length
        for name in ("_keys_BHSD", "_values_BHSD"):
            for layer, kept_1HSD in getattr(self, name).items():
                _, H, _, D = kept_1HSD.shape
                room_BHSD = kept_1HSD.new_empty(num_trees, H, num_slots, D)
                room_BHSD[:, :, : self.length] = kept_1HSD[:, :, : self.length]
                getattr(made, name)[layer] = room_BHSD
        return made

    @classmethod
    def joined(cls, caches: "Sequence[SlotCache]", *, num_slots: int) -> "SlotCache":
        """The trees of several caches in one, as long as the longest. The slots that shorter ones lack are zero; nobody may look there."""
        made = cls(num_slots=num_slots)
        made.length = max(c.length for c in caches)
        for name in ("_keys_BHSD", "_values_BHSD"):
            for layer in list(getattr(caches[0], name)):
                parts = [getattr(c, name).pop(layer) for c in caches]
                _, H, _, D = parts[0].shape
                joined_BHSD = parts[0].new_zeros(sum(map(len, parts)), H, num_slots, D)
                first = 0
                for cache, part_BHSD in zip(caches, parts, strict=True):
                    joined_BHSD[first : first + len(part_BHSD), :, : cache.length] = part_BHSD[:, :, : cache.length]
                    first += len(part_BHSD)
                getattr(made, name)[layer] = joined_BHSD
        return made

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.length

    def _room(self, like_BHSD: torch.Tensor, *, trees: int) -> torch.Tensor:
        _, H, _, D = like_BHSD.shape
        return like_BHSD.new_empty(trees, H, self.num_slots, D)
