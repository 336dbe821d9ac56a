"""Models of a few thousand random weights with the shapes of real architectures, a byte for a token, and their own greedy answers."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast
from transformers.models.auto import CONFIG_MAPPING

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.load import Loaded

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WINDOW = 8
_SIZES = {
    "vocab_size": 259,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 400,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = {"num_key_value_heads": 2}
_WINDOWED = {**_GROUPED, "head_dim": 8, "sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
SETTINGS: dict[str, dict[str, Any]] = {
    "llama": _GROUPED,
    "qwen2": _GROUPED,
    "gpt2": {"n_inner": 48},
    "phi": {},
    "granite": {**_GROUPED, "logits_scaling": 4.0, "attention_multiplier": 0.2, "residual_multiplier": 0.5, "embedding_multiplier": 3.0},
    "cohere": {**_GROUPED, "logit_scale": 0.25},
    "gemma2": {**_WINDOWED, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 1.5},
    "gemma3_text": {**_WINDOWED, "query_pre_attn_scalar": 8, "final_logit_softcapping": 1.5},
    "mistral": {**_GROUPED, "sliding_window": WINDOW},
    "gpt_oss": {**_WINDOWED, "num_local_experts": 2, "num_experts_per_tok": 1},
}


def tiny_module(architecture: str, **settings: Any) -> Any:
    """In float32, with weights large enough that attention is not the same everywhere."""
    given = {**_SIZES, **SETTINGS.get(architecture, {}), **settings}
    config = CONFIG_MAPPING[architecture](**given)
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
    module.generation_config = GenerationConfig(eos_token_id=2, pad_token_id=0)
    return module


def byte_tokenizer() -> Any:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>", *letters])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>", unk_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def engine_of(module: Any, **settings: Any) -> TorchEngine:
    model: Any = SimpleNamespace(digest="0" * 64)  # only its identity needs one
    return TorchEngine(model, loaded=Loaded(module, byte_tokenizer(), model), **settings)


def ask(text: str) -> Conversation:
    return Conversation((Message("user", text),))


def own_greedy(module: Any, prompt: Sequence[int], *, max_tokens: int, stops: Sequence[int]) -> list[int]:
    """What transformers itself generates, alone and unpadded."""
    ids_1T = torch.tensor([list(prompt)])
    config = GenerationConfig(do_sample=False, max_new_tokens=max_tokens, eos_token_id=list(stops), pad_token_id=0)
    made_1T = module.generate(input_ids=ids_1T, attention_mask=torch.ones_like(ids_1T), generation_config=config)
    ids: list[int] = made_1T[0, len(prompt) :].tolist()
    return ids
