"""Keys and values of a wave of prompts, in buffers with room to grow.

transformers' DynamicCache copies everything at each step (`torch.cat`); here a step writes its own slots only, and a buffer that is
full is replaced by one half as large again.

Dims  L layers   B trees   H key/value heads   S slots   D head size   Q new tokens
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from mygpt.lm.attention import Lanes
from mygpt.lm.decode_layers import OpenLane

_SLOTS = 16  # buffers are multiples of: so a GPU multiplies them at its full width


class SlotCache:
    """What a transformers decoder needs of its cache: `update` per layer, then one `advance` per forward pass.

    `num_slots`: how many to make room for at first.
    """

    is_compileable = False

    def __init__(self, *, num_slots: int):
        self.num_slots = num_slots
        self.length = 0
        self._keys_BHSD: dict[int, torch.Tensor] = {}
        self._values_BHSD: dict[int, torch.Tensor] = {}

    @classmethod
    def beginning_with(cls, prefix: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> "SlotCache":
        """Of one tree, whose first slots hold these keys and values, by layer."""
        made = cls(num_slots=prefix[0][0].shape[2])
        for layer, (key_1HND, value_1HND) in enumerate(prefix):
            made.update(key_1HND, value_1HND, layer)
        made.advance(made.num_slots)
        return made

    def update(
        self, key_BHQD: torch.Tensor, value_BHQD: torch.Tensor, layer: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        end = self.length + key_BHQD.shape[2]
        for kept, new_BHQD in ((self._keys_BHSD, key_BHQD), (self._values_BHSD, value_BHQD)):
            if layer not in kept:
                self.num_slots = max(end, self.num_slots)
                kept[layer] = self._room(new_BHQD, trees=len(new_BHQD))
            self._grow(kept, layer, end)
            kept[layer][:, :, self.length : end] = new_BHQD
        return self._keys_BHSD[layer][:, :, :end], self._values_BHSD[layer][:, :, :end]

    def open(self, num_tokens: int) -> OpenLane:
        """Every layer's buffers, with room for so many more tokens of each tree. Whoever writes them calls `advance` afterwards."""
        for kept in (self._keys_BHSD, self._values_BHSD):
            for layer in kept:
                self._grow(kept, layer, self.length + num_tokens)
        layers = range(len(self._keys_BHSD))
        return OpenLane(self.length, [self._keys_BHSD[i] for i in layers], [self._values_BHSD[i] for i in layers])

    @property
    def buffers(self) -> tuple[dict[int, torch.Tensor], dict[int, torch.Tensor]]:
        """Keys and values by layer, room included."""
        return dict(self._keys_BHSD), dict(self._values_BHSD)

    @property
    def num_trees(self) -> int:
        return len(next(iter(self._keys_BHSD.values())))

    def advance(self, num_tokens: int) -> None:
        self.length += num_tokens

    def keep(self, trees: torch.Tensor) -> None:
        """Drop the trees that are done."""
        for kept in (self._keys_BHSD, self._values_BHSD):
            for layer, old_BHSD in kept.items():
                kept[layer] = self._room(old_BHSD, trees=len(trees))
                kept[layer][:, :, : self.length] = old_BHSD[:, :, : self.length].index_select(0, trees)

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

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.length

    def _grow(self, kept: dict[int, torch.Tensor], layer: int, end: int) -> None:
        """A buffer that does not reach `end` is replaced by one half as large again."""
        if end > self.num_slots:
            self.num_slots = max(end, -(-self.num_slots * 3 // (2 * _SLOTS)) * _SLOTS)
        old_BHSD = kept[layer]
        if old_BHSD.shape[2] < end:
            kept[layer] = self._room(old_BHSD, trees=len(old_BHSD))
            kept[layer][:, :, : self.length] = old_BHSD[:, :, : self.length]

    def _room(self, like_BHSD: torch.Tensor, *, trees: int) -> torch.Tensor:
        _, H, _, D = like_BHSD.shape
        return like_BHSD.new_empty(trees, H, self.num_slots, D)


class LaneCache:
    """Several caches as the one of a forward pass, each holding the next `sizes` trees of the batch, as long as its own longest tree."""

    is_compileable = False

    def __init__(self, lanes: Sequence[SlotCache], sizes: Sequence[int]):
        self._lanes, self._sizes = lanes, list(sizes)

    def update(self, key_BHQD: torch.Tensor, value_BHQD: torch.Tensor, layer: int, *_: object, **__: object) -> tuple[Lanes, Lanes]:
        new = zip(self._lanes, key_BHQD.split(self._sizes), value_BHQD.split(self._sizes), strict=True)
        keys, values = zip(*(lane.update(key, value, layer) for lane, key, value in new), strict=True)
        return Lanes(keys), Lanes(values)

    def advance(self, num_tokens: int) -> None:
        for lane in self._lanes:
            lane.advance(num_tokens)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return max(lane.length for lane in self._lanes)


class Place(NamedTuple):
    """Where a tree is: its number in a cache, and the slots of it that are wanted."""

    cache: SlotCache
    tree: int
    slots: torch.Tensor


def regrouped(lanes: Sequence[Sequence[Place]], *, room: int) -> list[SlotCache]:
    """A cache for each lane, as long as its longest tree and with `room` for new tokens; the old ones are empty afterwards.

    The slots that a shorter tree lacks are zero; nobody may look there.
    """
    made = []
    for lane in lanes:
        made.append(SlotCache(num_slots=0))
        made[-1].length = max(len(place.slots) for place in lane)
        made[-1].num_slots = -(-(made[-1].length + room) // _SLOTS) * _SLOTS
    old = {id(place.cache): place.cache for lane in lanes for place in lane}.values()
    for name in ("_keys_BHSD", "_values_BHSD"):
        for layer in list(getattr(lanes[0][0].cache, name)):
            for cache, lane in zip(made, lanes, strict=True):
                _, H, _, D = getattr(lane[0].cache, name)[layer].shape
                own_BHSD = getattr(lane[0].cache, name)[layer].new_empty(len(lane), H, cache.num_slots, D)
                for b, place in enumerate(lane):
                    from_HSD, to_HSD = getattr(place.cache, name)[layer][place.tree], own_BHSD[b, :, : len(place.slots)]
                    torch.index_select(from_HSD, 1, place.slots, out=to_HSD)
                    own_BHSD[b, :, len(place.slots) : cache.length] = 0
                getattr(cache, name)[layer] = own_BHSD
            for cache in old:
                del getattr(cache, name)[layer]
    return made
