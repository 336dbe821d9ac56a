"""Prefix tuning: keys and values of a few virtual tokens, of every layer, stand before the text and are all that moves.

They begin as the keys and values that the model itself makes of a real text, so that training starts from the model with that text before
it. From random ones, at the rates of other methods, the model is destroyed before it learns.

Source     Li and Liang 2021, arXiv:2101.00190, sections 4.2 and 7.4 (real words at the start)
We differ  no network that makes them during training (section 4.3): it steadied training from random ones
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from pydantic import PositiveFloat, PositiveInt

from mygpt.core.config import Config
from mygpt.core.errors import Refused
from mygpt.lm.adapters.imported_peft import imported_peft
from mygpt.lm.adapters.peft_model import task_type, wrapped
from mygpt.lm.adapters.real_words import INSTRUCTION, ids_of
from mygpt.lm.attention import attention_set
from mygpt.lm.virtual_tokens import Prefix as KeysAndValues
from mygpt.lm.virtual_tokens import keys_and_values, takes_cache


class Prefix(Config):
    """Learnt keys and values before every text, in every layer."""

    name: Literal["prefix"] = "prefix"
    learning_rate: PositiveFloat = 3e-3
    num_tokens: PositiveInt = 20
    text: str = INSTRUCTION  # whose keys and values they begin as; empty: of common words, drawn


def attach(module: Any, method: Prefix, *, tokenizer: Any, whole: Sequence[str] = ()) -> Any:
    task = task_type(module)
    if reason := _why_not(module, task):
        raise Refused(
            f"Prefix tuning puts keys and values before the text, and {type(module).__name__} {reason}.",
            fix="Use `method=lora`, `method=ia3` or `method=bottleneck`; of a running state `method=full`, or LoRA on `[in_proj]`.",
        )
    ids_1N = torch.tensor([ids_of(method.text, tokenizer, num_tokens=method.num_tokens)], device=module.device)
    with torch.no_grad():
        begin = _of_text(module, ids_1N, task)
    layers, (_, H, _, D) = len(begin), begin[0][0].shape
    settings = imported_peft().PrefixTuningConfig(
        task_type=task, num_virtual_tokens=method.num_tokens, num_layers=layers, num_attention_heads=H, token_dim=H * D
    )
    made = wrapped(module, settings, whole)
    both_L2HND = torch.stack([torch.stack([keys[0], values[0]]) for keys, values in begin])
    with torch.no_grad():
        made.prompt_encoder["default"].embedding.weight.copy_(both_L2HND.permute(3, 0, 1, 2, 4).reshape(method.num_tokens, -1))
    return made


def _of_text(module: Any, ids_1N: torch.Tensor, task: str) -> KeysAndValues:
    """An encoder-decoder's are those of its decoder, reading the text while the encoder reads it too."""
    if task == "SEQ_2_SEQ_LM":
        without_values = attention_set(module, "eager") if ids_1N.is_meta else nullcontext()  # others look into their mask
        with without_values:
            output = module(input_ids=ids_1N, decoder_input_ids=ids_1N, use_cache=True)
        cache = getattr(output, "past_key_values", None) or output.cache
        return [(layer.keys, layer.values) for layer in cache.self_attention_cache.layers]
    return keys_and_values(module, module.get_input_embeddings()(ids_1N))


def _why_not(module: Any, task: str) -> str:
    if task not in ("CAUSAL_LM", "SEQ_2_SEQ_LM"):
        return "is no language model: nothing hands its layers a cache that could begin with them"
    if getattr(module, "_is_stateful", False):
        return "keeps a running state in place of keys and values"
    if task != "SEQ_2_SEQ_LM" and not takes_cache(module.get_decoder()):
        return "takes no cache"
    return ""
