"""Models of a few thousand weights, of several architectures, and random examples for them."""

import random
from collections.abc import Callable
from typing import Any

import torch

from mygpt.lm.chat import Rendered

VOCABULARY = 64


def _sizes(**more: Any) -> dict[str, Any]:
    common = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return {**common, **ids, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, **more}


def llama(**more: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**_sizes(tie_word_embeddings=True, initializer_range=0.3), **more})).eval()


def gemma2() -> Any:
    """Caps its logits, in attention too, and every second layer sees a window of 8."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    caps = {"final_logit_softcapping": 1.5, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8}
    torch.manual_seed(0)
    return Gemma2ForCausalLM(Gemma2Config(**_sizes(sliding_window=8, initializer_range=0.3, **caps))).eval()


def granite() -> Any:
    """Divides its logits."""
    from transformers import GraniteConfig, GraniteForCausalLM

    scales = {"logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 0.2}
    torch.manual_seed(0)
    return GraniteForCausalLM(GraniteConfig(**_sizes(initializer_range=0.3, **scales))).eval()


def cohere() -> Any:
    """Multiplies its logits."""
    from transformers import CohereConfig, CohereForCausalLM

    sizes = _sizes(initializer_range=0.3, logit_scale=0.25)
    del sizes["head_dim"]
    torch.manual_seed(0)
    return CohereForCausalLM(CohereConfig(**sizes)).eval()


def mistral() -> Any:
    """Every layer sees a window of 8 tokens."""
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    return MistralForCausalLM(MistralConfig(**_sizes(sliding_window=8, initializer_range=0.3))).eval()


def gpt2(**more: Any) -> Any:
    """Learnt positions, and dropout of 0.1 when in training mode."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "bos_token_id": 1, "eos_token_id": 2}
    return GPT2LMHeadModel(GPT2Config(**{**sizes, **more}, initializer_range=0.3)).eval()


def mamba(**more: Any) -> Any:
    """A running state in place of attention: its configuration knows no heads."""
    from transformers import MambaConfig, MambaForCausalLM

    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, **ids}
    torch.manual_seed(0)
    return MambaForCausalLM(MambaConfig(**{**sizes, **more})).eval()


_GROUPED = {"num_key_value_heads": 2}
_WINDOWED = {**_GROUPED, "head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
DECODERS: dict[str, dict[str, Any]] = {
    "llama": _GROUPED,
    "qwen2": _GROUPED,
    "qwen3": {**_GROUPED, "head_dim": 8},
    "gemma2": {**_WINDOWED, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 1.5},
    "granite": {**_GROUPED, "logits_scaling": 4.0, "attention_multiplier": 0.2, "residual_multiplier": 0.5, "embedding_multiplier": 3.0},
    "cohere": {**_GROUPED, "logit_scale": 0.25},
    "cohere2": {**_WINDOWED, "logit_scale": 0.25},
    "gpt2": {"n_inner": 48},
    "bloom": {},
    "phi": {},
    "phi3": _GROUPED,
    "mistral": {**_GROUPED, "sliding_window": 8},  # in every layer
    "mamba": {"state_size": 4},
}
ENCODERS: dict[str, dict[str, Any]] = {"bert": {}, "roberta": {}}
ENCODER_DECODERS: dict[str, dict[str, Any]] = {
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0},
    "bart": {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    | {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "decoder_start_token_id": 2},
}


def family(name: str) -> Any:
    """In eval mode, with weights large enough that attention is not the same everywhere and heads are far from even."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM
    from transformers.models.auto import CONFIG_MAPPING

    ids = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "max_position_embeddings": 130}
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    kinds = {**dict.fromkeys(ENCODERS, AutoModelForMaskedLM), **dict.fromkeys(ENCODER_DECODERS, AutoModelForSeq2SeqLM)}
    more = {**DECODERS, **ENCODERS, **ENCODER_DECODERS}[name]
    if name == "mamba":  # it has none, and neither does a real configuration
        del sizes["num_attention_heads"]
    config = CONFIG_MAPPING[name](**ids, **({} if name in ENCODER_DECODERS else sizes), **more)
    torch.manual_seed(0)
    module = kinds.get(name, AutoModelForCausalLM).from_config(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
            elif name == "bart":
                parameter.add_(torch.randn(parameter.shape) * 0.1)
        if hasattr(module, "final_logits_bias"):
            module.final_logits_bias.normal_()
    return module


ARCHITECTURES: dict[str, Callable[[], Any]] = {f.__name__: f for f in (llama, gemma2, granite, cohere, mistral, gpt2)}


def examples(lengths: list[int], *, seed: int = 0, share_trained: float = 0.4) -> list[Rendered]:
    """Random ids; the last token of each is trained, so that there is always a label."""
    draw = random.Random(seed)
    made = []
    for length in lengths:
        ids = [draw.randrange(3, VOCABULARY) for _ in range(length)]
        trained = [draw.random() < share_trained for _ in range(length - 1)] + [True]
        made.append(Rendered(tuple(ids), tuple(trained), ()))
    return made


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def chat_tokenizer(*, template: str = CHATML, spaces_before_words: bool = False) -> Any:
    """One token per byte; or per letter, in Llama 2's manner: a space is written before each word, and dropped at the front."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    if spaces_before_words:
        letters = ["▁", "\n", *(chr(code) for code in range(33, 127))]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*_SPECIAL, *letters])}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.Metaspace() if spaces_before_words else pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.Metaspace() if spaces_before_words else decoders.ByteLevel()
    roles = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **roles)
    tokenizer.chat_template = template
    return tokenizer
