"""P-tuning: vectors before the text as in prompt tuning, made by a small network that is trained with them and left behind afterwards.

Source     Liu et al. 2021, arXiv:2103.10385, section 3.2 (the prompt encoder)
We differ  all virtual tokens stand before the text, as in peft, not between its parts; three linear layers without an LSTM; the last one is
           fitted before training so that the network begins by making the vectors of real words
Dims       N virtual tokens   H of the network's width   D hidden
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import PositiveFloat, PositiveInt

from mygpt.core.config import Config
from mygpt.lm.adapters.imported_peft import imported_peft
from mygpt.lm.adapters.peft_model import require_virtual_tokens, task_type, wrapped
from mygpt.lm.adapters.real_words import INSTRUCTION, ids_of


class PTuning(Config):
    """Learnt vectors before every text, made by a small network."""

    name: Literal["p_tuning"] = "p_tuning"
    learning_rate: PositiveFloat = 1e-3
    num_tokens: PositiveInt = 20
    hidden_size: PositiveInt = 128  # of the network
    text: str = INSTRUCTION  # whose words they begin as; empty: common words, drawn


def attach(module: Any, method: PTuning, *, tokenizer: Any, whole: Sequence[str] = ()) -> Any:
    require_virtual_tokens(module, method="P-tuning")
    task = task_type(module)
    one: dict[str, Any] = {"num_transformer_submodules": 1} if task == "SEQ_2_SEQ_LM" else {}
    settings = imported_peft().PromptEncoderConfig(
        task_type=task, num_virtual_tokens=method.num_tokens, encoder_hidden_size=method.hidden_size, encoder_dropout=0.0, **one
    )
    made = wrapped(module, settings, whole)
    encoder = made.prompt_encoder["default"]
    ids = torch.tensor(ids_of(method.text, tokenizer, num_tokens=method.num_tokens), device=module.device)
    with torch.no_grad():
        words_ND = module.get_input_embeddings()(ids)
        fit_last_layer(encoder, words_ND)
    return made


def fit_last_layer(encoder: Any, words_ND: torch.Tensor) -> None:
    """Set the network's last linear layer so that its output for the N virtual tokens is closest to `words_ND`, in least squares."""
    inner_NH = encoder.mlp_head[:-1](encoder.embedding.weight).float()
    with_one_NH = torch.cat([inner_NH, torch.ones(len(inner_NH), 1, device=inner_NH.device)], 1)
    fitted_HD = torch.linalg.pinv(with_one_NH) @ words_ND.float()
    encoder.mlp_head[-1].weight.copy_(fitted_HD[:-1].T)
    encoder.mlp_head[-1].bias.copy_(fitted_HD[-1])
