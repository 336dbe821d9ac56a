"""Tiny bases of six shapes as artefacts; the tokenizer of each puts around a text what that of its shape does."""

from pathlib import Path
from typing import Any

import torch

from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.lm.checkpoint import facts_of

SPECIAL = ["<pad>", "<s>", "</s>", "<mask>", *(f"<extra_id_{n}>" for n in range(12))]
_AROUND = {"bert": "<s> $A </s>", "roberta": "<s> $A </s>", "bart": "<s> $A </s>", "t5": "$A </s>", "llama": "<s> $A", "gpt2": "$A"}
_PAIR = {
    "bert": "<s> $A </s> $B:1 </s>:1",
    "roberta": "<s> $A </s> </s> $B </s>",
    "bart": "<s> $A </s> </s> $B </s>",
    "t5": "$A </s> $B </s>",
    "llama": "<s> $A $B",
    "gpt2": "$A $B",
}
SHAPES = tuple(_AROUND)
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_BERT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_SETTINGS: dict[str, dict[str, Any]] = {
    "bert": {**_BERT, "max_position_embeddings": 128, "initializer_range": 0.2, **_IDS},
    "roberta": {**_BERT, "max_position_embeddings": 129, "type_vocab_size": 1, "initializer_range": 0.2, **_IDS},
    "t5": {
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 0,
        "initializer_factor": 0.5,
        **_IDS,
    },
    "bart": {
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "max_position_embeddings": 128,
        "init_std": 0.2,
        **_IDS,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": 2,
    },
    "llama": {**_BERT, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "initializer_range": 0.2, **_IDS},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "initializer_range": 0.2, **_IDS},
}
_CLASSES = {
    "masked_lm": "AutoModelForMaskedLM",
    "seq2seq_lm": "AutoModelForSeq2SeqLM",
    "lm": "AutoModelForCausalLM",
    "embedder": "AutoModel",
}
OWN_HEAD = {"bert": "masked_lm", "roberta": "masked_lm", "t5": "seq2seq_lm", "bart": "seq2seq_lm", "llama": "lm", "gpt2": "lm"}


def byte_tokenizer(shape: str) -> Any:
    """One token per byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*SPECIAL, *letters])}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    around = [(token, SPECIAL.index(token)) for token in ("<s>", "</s>")]
    backend.post_processor = processors.TemplateProcessing(single=_AROUND[shape], pair=_PAIR[shape], special_tokens=around)
    named = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"] if shape == "bert" else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **named,
        additional_special_tokens=SPECIAL[4:],
        model_input_names=inputs,
        clean_up_tokenization_spaces=False,
    )


def tiny_module(shape: str, head: str) -> Any:
    import transformers
    from transformers.models.auto import CONFIG_MAPPING

    torch.manual_seed(0)
    config = CONFIG_MAPPING[shape](vocab_size=len(SPECIAL) + 256, **_SETTINGS[shape])
    return getattr(transformers, _CLASSES[head]).from_config(config).float().eval()


class BaseConfig(Config):
    shape: str = "bert"
    head: str = ""  # default: the one that checkpoints of this shape have


@recipe
def base(config: BaseConfig, *, run: Run) -> Model:
    def write(folder: Path) -> dict[str, Any]:
        tiny_module(config.shape, config.head or OWN_HEAD[config.shape]).save_pretrained(folder)
        byte_tokenizer(config.shape).save_pretrained(folder)
        return facts_of(folder)

    return publish(Model, run, write, facts={"source": "test"}, provenance={"licence": "Apache-2.0"}, name=f"tiny-{config.shape}")
