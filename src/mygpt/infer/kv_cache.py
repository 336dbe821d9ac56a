"""Keys and values of a wave of prompts, in buffers allocated once.

transformers' DynamicCache copies everything at each step (`torch.cat`); here a step writes its own slots only.

Dims  L layers   B trees   H key/value heads   S slots   D head size   Q new tokens
"""

import torch


class SlotCache:
    """What a transformers decoder needs of `past_key_values`: `update` per layer, then one `advance` per forward pass."""

    is_compileable = False

    def __init__(self, *, num_slots: int):
        self.num_slots = num_slots
        self.length = 0
        self._keys_BHSD: dict[int, torch.Tensor] = {}
        self._values_BHSD: dict[int, torch.Tensor] = {}

    def update(self, key_BHQD: torch.Tensor, value_BHQD: torch.Tensor, layer: int, *_: object) -> tuple[torch.Tensor, torch.Tensor]:
        B, H, Q, D = key_BHQD.shape
        if layer not in self._keys_BHSD:
            self._keys_BHSD[layer] = key_BHQD.new_empty(B, H, self.num_slots, D)
            self._values_BHSD[layer] = value_BHQD.new_empty(B, H, self.num_slots, value_BHQD.shape[-1])
        end = self.length + Q
        self._keys_BHSD[layer][:, :, self.length : end] = key_BHQD
        self._values_BHSD[layer][:, :, self.length : end] = value_BHQD
        return self._keys_BHSD[layer][:, :, :end], self._values_BHSD[layer][:, :, :end]

    def advance(self, num_tokens: int) -> None:
        self.length += num_tokens

    def keep(self, trees: torch.Tensor) -> None:
        """Drop the trees that are done."""
        for layer in self._keys_BHSD:
            self._keys_BHSD[layer] = self._keys_BHSD[layer].index_select(0, trees)
            self._values_BHSD[layer] = self._values_BHSD[layer].index_select(0, trees)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.length
