"""Virtual tokens (prefix, prompt, p-tuning) as keys and values that every sequence finds in front of itself.

Whatever was learnt, a vector for each layer or one at the entrance, ends as keys and values of N tokens at positions 0 to N - 1 that see
only one another. They are computed once for a forward pass, not once for each row, and real tokens begin at position N. `install` lets
the decoder of a peft model do so by itself wherever it is called with ids and without a cache: losses, scores and peft's own forward pass
then agree, and no caller has to know. Generation lets its caches begin with `prefix`.

Source    prefix tuning: Li and Liang 2021, arXiv:2101.00190, section 4.2; prompt tuning: Lester et al. 2021, arXiv:2104.08691
We differ a prompt's keys and values are computed for one row and shared by the batch: the same numbers, fewer products
Dims      B rows   Q real tokens   N virtual tokens   H key/value heads   D head size   S = N + Q
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F

from mygpt.lm.adapter_rows import BASE

Prefix = list[tuple[torch.Tensor, torch.Tensor]]  # layer -> keys (1, H, N, D), values (1, H, N, D)


class PrefixCache:
    """A cache that is the prefix and stays so: every layer is given the prefix before its own keys and values, and nothing is kept.

    An empty one collects instead: `seen` are the keys and values of the forward pass that it was given to.
    """

    is_compileable = False

    def __init__(self, prefix: Prefix | None = None):
        self._prefix = prefix
        self._num_tokens = prefix[0][0].shape[2] if prefix else 0
        self.seen: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(
        self, key_BHQD: torch.Tensor, value_BHQD: torch.Tensor, layer: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self._prefix is None:
            self.seen[layer] = key_BHQD, value_BHQD
            return key_BHQD, value_BHQD
        first, second = (
            torch.cat([before_1HND.expand(len(own), -1, -1, -1).to(own.dtype), own], 2)
            for before_1HND, own in zip(self._prefix[layer], (key_BHQD, value_BHQD), strict=True)
        )
        return first, second

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._num_tokens

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self._num_tokens

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return self._num_tokens + query_length, 0


def install(module: Any) -> None:
    """Let the decoder of `module`, a peft language model with virtual tokens, put them in front of what it is given."""
    decoder = module.get_decoder()

    def before(_: Any, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        named = {**dict(zip(("input_ids",), args, strict=False)), **given}
        argument = cache_argument(decoder)
        has_cache = any(named.get(name) is not None for name in ("cache", "past_key_values"))
        is_off = module.__dict__.get("forward") == module.base_model.forward  # as peft's disable_adapter() leaves it
        if named.get("input_ids") is None or has_cache or is_off or len(args) > 1:
            return None  # peft's own forward pass, which has seen to it; or generation, whose cache begins with it
        found = prefix(module)
        assert found is not None
        num_tokens = found[0][0].shape[2]
        if named.get("attention_mask") is not None:
            named["attention_mask"] = _widened(named["attention_mask"], named.get("position_ids"), num_tokens, module)
        if named.get("position_ids") is not None:
            named["position_ids"] = named["position_ids"] + num_tokens
        return (), {**named, argument: PrefixCache(found)}

    decoder.register_forward_pre_hook(before, with_kwargs=True)


def has_virtual_tokens(module: Any) -> bool:
    """Of a language model whose decoder shows them to every sequence (those of an encoder are peft's own affair)."""
    settings = getattr(module, "peft_config", None) or {}
    return any(one.is_prompt_learning and one.task_type == "CAUSAL_LM" for one in settings.values())


def prompt_tokens(module: Any) -> int:
    """Virtual tokens of a peft model of any kind, whoever sees to them; 0 without."""
    settings = getattr(module, "peft_config", None) or {}
    return max((one.num_virtual_tokens for one in settings.values() if one.is_prompt_learning), default=0)


def num_virtual_tokens(module: Any) -> int:
    """Of the longest adapter; 0 without."""
    return max((one.num_virtual_tokens for one in module.peft_config.values()), default=0) if has_virtual_tokens(module) else 0


def prefix(module: Any, adapter: str = "") -> Prefix | None:
    """Keys and values of the virtual tokens of the named adapter ("": the active one), with their gradients; None without any."""
    if not has_virtual_tokens(module) or adapter == BASE:
        return None
    name = adapter or module.active_adapter
    settings = module.peft_config[name]
    encoder = module.prompt_encoder[name]
    numbers = torch.arange(settings.num_virtual_tokens, device=encoder.embedding.weight.device)
    learnt = encoder.embedding.weight if settings.inference_mode else encoder(numbers[None])[0]
    learnt = learnt.to(module.dtype)
    if str(settings.peft_type.value) == "PREFIX_TUNING":
        H, layers = settings.num_attention_heads, settings.num_layers
        both = learnt.view(len(numbers), layers, 2, H, -1).permute(1, 2, 3, 0, 4)
        return [(one[0][None], one[1][None]) for one in both]
    return keys_and_values(module, learnt[None])


@contextmanager
def generation_with_prefix(module: Any) -> Iterator[Any]:
    """What `generate` is to be called on, for an encoder-decoder: itself, or, where it has a learnt prefix, the model inside, whose decoder
    begins with it for the time of the block. peft hands the prefix over under a name that transformers gave up in 5.24, and it is lost."""
    settings = getattr(module, "peft_config", None) or {}
    if not any(str(one.peft_type.value) == "PREFIX_TUNING" for one in settings.values()):
        yield module
        return
    inner = module.get_base_model()
    as_ever = inner.prepare_inputs_for_generation

    def with_prefix(*args: Any, **given: Any) -> Any:
        inputs = as_ever(*args, **given)
        if given.get("is_first_iteration"):
            inputs[cache_argument(inner)] = module.get_prompt(len(inputs["decoder_input_ids"]))
        return inputs

    inner.prepare_inputs_for_generation = with_prefix
    try:
        yield inner
    finally:
        inner.prepare_inputs_for_generation = as_ever


def keys_and_values(module: Any, embeddings_1ND: torch.Tensor) -> Prefix:
    """What every layer of the decoder makes of these entrance vectors, when nothing stands before them."""
    from mygpt.lm.attention import grouped_attention

    cache, decoder = PrefixCache(), module.get_decoder()
    with grouped_attention(module):
        decoder(inputs_embeds=embeddings_1ND, use_cache=True, **{cache_argument(decoder): cache})
    return [cache.seen[layer] for layer in sorted(cache.seen)]


def cache_argument(decoder: Any) -> str:
    """What this decoder calls the cache it is given: transformers renames it from 5.24 on, architecture by architecture."""
    return "cache" if "cache" in inspect.signature(decoder.forward).parameters else "past_key_values"


def takes_cache(decoder: Any) -> bool:
    return not {"cache", "past_key_values"}.isdisjoint(inspect.signature(decoder.forward).parameters)


def _widened(mask: Any, position_ids: torch.Tensor | None, num_tokens: int, module: Any) -> Any:
    """`mask` with the virtual tokens in front: all see them, except past the end of a sliding window."""
    if isinstance(mask, dict):
        return {kind: _widened_one(one, position_ids, num_tokens, module, kind) for kind, one in mask.items()}
    if mask.dim() == 2:
        return F.pad(mask, (num_tokens, 0), value=1)
    return _widened_one(mask, position_ids, num_tokens, module, "")


def _widened_one(mask: torch.Tensor, position_ids: torch.Tensor | None, num_tokens: int, module: Any, kind: str) -> torch.Tensor:
    is_bool = mask.dtype == torch.bool
    wide_BHQS = F.pad(mask, (num_tokens, 0), value=1 if is_bool else 0)
    text = module.config.get_text_config()
    window, kinds = getattr(text, "sliding_window", None), set(getattr(text, "layer_types", None) or ())
    if kind == "full_attention" or not window or kinds == {"full_attention"}:
        return wide_BHQS
    if position_ids is None:
        position_ids = torch.arange(mask.shape[2], device=mask.device)[None]
    is_far_BQN = position_ids[..., None] + num_tokens - torch.arange(num_tokens, device=mask.device) >= window
    hidden = False if is_bool else torch.finfo(mask.dtype).min
    wide_BHQS[..., :num_tokens].masked_fill_(is_far_BQN[:, None], hidden)
    return wide_BHQS
