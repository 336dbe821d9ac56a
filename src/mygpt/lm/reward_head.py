"""The head `reward`: one number for an answer, read from a decoder's hidden state at the answer's stop token.

    reward_class(config)            the class of transformers that has it, or one made for an architecture that has none
    draw(module)                    the score layer anew: N(0, 1 / sqrt(D + 1)), without a bias
    keep_padding_apart(tokenizer)   the padding token is none that ends an answer
    rewards_at(module, hidden_ND)   (N) float32
    score_layer(module)             the linear layer that makes them

transformers finds the place to read by looking for the last token that is not padding. Where padding and stop token are one (SmolLM2, and
every model without a padding token of its own) that is the token before, or whatever stands last in the answer: another special token then
pads, and is saved as such. Here the place is always given.

Source     the head and its initialisation: Stiennon et al. 2020, arXiv:2009.01325, appendix B.1; Huang et al. 2024, arXiv:2403.17031 (the
           N+ details), where padding is not the stop token either
We differ  the product is made in float32 whatever the weights are: in bfloat16 rewards near 3 differ by 1/64 or not at all
Dims       N answers   D hidden
"""

import math
from typing import Any

import torch
import torch.nn.functional as F

LABELS = ("reward",)


def reward_class(config: Any) -> Any:
    """Raises KeyError for a configuration of which transformers knows no language model."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from transformers.modeling_layers import GenericForSequenceClassification

    if type(config) in AutoModelForSequenceClassification._model_mapping:
        return AutoModelForSequenceClassification
    lm: Any = AutoModelForCausalLM._model_mapping[type(config)]
    family = next(one for one in lm.__mro__ if one.__name__.endswith("PreTrainedModel"))
    name = f"{family.__name__.removesuffix('PreTrainedModel')}ForSequenceClassification"
    return type(name, (GenericForSequenceClassification, family), {"base_model_prefix": family.base_model_prefix, "__module__": __name__})


@torch.no_grad()
def draw(module: Any) -> None:
    """From torch's state."""
    weight_1D = module.score.weight
    drawn_1D = torch.randn(weight_1D.shape, dtype=torch.float32) / math.sqrt(weight_1D.shape[1] + 1)
    weight_1D.copy_(drawn_1D.to(weight_1D.dtype))


def keep_padding_apart(tokenizer: Any) -> bool:
    """Whether padding is no token that ends an answer. Where it was, another special token takes its place, if there is one."""
    from mygpt.lm.chat import ChatRenderer

    ends = set(ChatRenderer(tokenizer).stop_token_ids) if tokenizer.chat_template else {tokenizer.eos_token_id}
    if tokenizer.pad_token_id not in ends:
        return True
    named = [tokenizer.unk_token_id, *sorted(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)]
    taken = {*ends, tokenizer.bos_token_id}
    free = next((i for i in named if i is not None and i not in taken), None)
    if free is None:
        return False
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(free)
    return True


def rewards_at(module: Any, hidden_ND: torch.Tensor) -> torch.Tensor:
    """(N) float32, with gradients where there are some."""
    score = score_layer(module)
    rewards_N1 = F.linear(hidden_ND.float(), score.weight.float(), None if score.bias is None else score.bias.float())
    return rewards_N1[:, 0]


def score_layer(module: Any) -> Any:
    """The linear layer at work. `module` may be wrapped by peft, which trains it whole beside the original."""
    score = (module.get_base_model() if hasattr(module, "get_base_model") else module).score
    if (trained := getattr(score, "modules_to_save", None)) is not None:
        score = trained[score.active_adapters[0]] if score.active_adapters and not score.disable_adapters else score.original_module
    return score
