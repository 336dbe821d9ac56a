"""IA3: keys, values and the inner activations of the feed-forward part are multiplied, number by number, with learnt vectors.

Begins as the base: every vector is 1. The fewest weights of all methods: one a channel.

Source     Liu et al. 2022, arXiv:2205.05638, section 3.3 ((IA)^3)
We differ  where one matrix makes queries, keys and values together (GPT-2, BLOOM), its whole output is scaled, as peft does
"""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import PositiveFloat

from mygpt.core.config import Config
from mygpt.lm.adapters.imported_peft import imported_peft
from mygpt.lm.adapters.peft_model import task_type, wrapped
from mygpt.lm.layers import attention_names, layers, output_names

_KEYS_AND_VALUES = ("k_proj", "v_proj", "key", "value", "k", "v", "k_lin", "v_lin")
_TOGETHER = ("c_attn", "query_key_value", "qkv_proj", "Wqkv", "in_proj")


class IA3(Config):
    """Learnt factors on keys, values and the feed-forward part's inner activations."""

    name: Literal["ia3"] = "ia3"
    learning_rate: PositiveFloat = 1e-2


def attach(module: Any, method: IA3, *, whole: Sequence[str] = ()) -> Any:
    keys_and_values, inner = [], []
    for name, layer in layers(module):
        own = [part for part in attention_names(layer) if part.rpartition(".")[2] in (*_KEYS_AND_VALUES, *_TOGETHER)]
        keys_and_values += [f"{name}.{part}" for part in own]
        inner.append(f"{name}.{output_names(module, layer)[1]}")
    scaled = [*keys_and_values, *inner]
    settings = imported_peft().IA3Config(target_modules=scaled, feedforward_modules=inner, task_type=task_type(module) or None)
    return wrapped(module, settings, whole)
