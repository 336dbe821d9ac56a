"""A Model (and an Adapter on it) in memory: a transformers module and its tokenizer, in the number format this machine is fastest in."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch

from mygpt.artifacts.model import Adapter, Model
from mygpt.core.errors import Refused, UsageError
from mygpt.core.outbound import silence_hub
from mygpt.lm.adapters import methods
from mygpt.lm.fused_layer import fuse
from mygpt.lm.memory import keep_freed_memory, move_into_huge_pages
from mygpt.lm.processor import has_cpu_flag
from mygpt.lm.quantized import keep_differentiable, nf4_settings


@dataclass(frozen=True)
class Loaded:
    module: Any  # transformers.PreTrainedModel, or peft.PeftModel around one; in eval mode
    tokenizer: Any  # transformers.PreTrainedTokenizerFast
    model: Model
    adapter: Adapter | None = None

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.module.parameters()).device
        return device


def preferred_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def preferred_dtype(device: torch.device | None = None) -> torch.dtype:
    """bfloat16 where the device multiplies it in hardware, else float32."""
    device = device or preferred_device()
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if _cpu_multiplies_bf16() else torch.float32


def load_tokenizer(model: Model) -> Any:
    """The model's own tokenizer, with a padding token."""
    silence_hub()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model.payload, local_files_only=True, trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_lm(
    model: Model,
    *,
    adapter: Adapter | None = None,
    adapters: Mapping[str, Adapter] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    weights: Literal["full", "nf4"] | None = None,
) -> Loaded:
    """Ready to generate (eval mode), with one adapter at work, or with several by name to choose from (`lm/adapter_rows`).

    `weights` of the base: None holds them as the adapters were trained on them, in four bits where that was QLoRA.

    Raises UsageError for a model without a language-model head or an adapter of another model.
    """
    silence_hub()
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # ours is the run's event stream

    _require_lm(model)
    named = {"default": adapter} if adapter is not None else dict(adapters or {})
    for one in named.values():
        if one.manifest.facts.get("base") != model.digest:
            raise UsageError(
                f"{one.id} was trained on {str(one.manifest.facts.get('base'))[:12]}, not on {model.id}.",
                fix="Load it on its own base model.",
            )
        if (head := one.manifest.facts.get("head", "lm")) != "lm":
            raise UsageError(f"{one.id} makes a `{head}` of its base, and this needs a language model.", fix="Open it with `open_head`.")
    device = device or preferred_device()
    dtype = dtype or preferred_dtype(device)
    quantized: dict[str, Any] = {}
    if (weights or _weights_of_tuning(named.values())) == "nf4":
        quantized = {"quantization_config": nf4_settings(dtype), "device_map": {"": device}}
    if device.type == "cpu":
        keep_freed_memory()
    with _own_code_refused(model):
        module: Any = AutoModelForCausalLM.from_pretrained(
            model.payload, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True, **quantized
        )
    if quantized:
        keep_differentiable(module)
    if device.type == "cpu":
        if not quantized:
            move_into_huge_pages(module)
        fuse(module)
    if named:
        module = methods.load(module, {name: one.payload for name, one in named.items()})
    module = (module if quantized else module.to(device)).eval()
    tokenizer = load_tokenizer(model)
    _require_template_of_tuning(model, tokenizer)
    for one in named.values():
        _require_template_of_tuning(one, tokenizer)
    return Loaded(module, tokenizer, model, adapter)


def blueprint(model: Model, dtype: torch.dtype) -> Any:
    """The module without its weights, on the meta device: shapes and number formats, from config.json alone."""
    silence_hub()
    from transformers import AutoConfig, AutoModelForCausalLM

    _require_lm(model)
    with _own_code_refused(model), torch.device("meta"):
        config = AutoConfig.from_pretrained(model.payload, local_files_only=True, trust_remote_code=False)
        module = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False).eval()
    return fuse(module) if preferred_device().type == "cpu" else module


def _require_lm(model: Model) -> None:
    if model.head != "lm":
        raise UsageError(
            f"{model.id} has the head `{model.head}`, and this needs a language model.", fix="Name another model with `--model`."
        )


@contextmanager
def _own_code_refused(model: Model) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error) and "does not recognize" not in str(error):
            raise
        raise Refused(
            f"{model.id} needs its own code to run ({model.manifest.facts.get('architecture')}), and a model's code is never run.",
            fix="Choose a model that transformers knows, or a newer transformers.",
        ) from error


def _weights_of_tuning(adapters: Iterable[Adapter]) -> str:
    """How the base was held while these were trained on it."""
    found = {str(one.manifest.facts.get("weights", "full")) for one in adapters} or {"full"}
    if len(found) > 1:
        raise UsageError("Some of the adapters were trained on full weights, some on four bits.", fix="Load them in engines of their own.")
    return found.pop()


def _require_template_of_tuning(tuned: Model | Adapter, tokenizer: Any) -> None:
    """Raises Refused where answers would be asked for in another chat template than was tuned with: scores fall, and nothing says why."""
    from mygpt.lm.chat import ChatRenderer

    recorded = tuned.manifest.facts.get("template")
    if not recorded:
        return
    here = ChatRenderer(tokenizer).template_digest if tokenizer.chat_template else ""
    if recorded != here:
        raise Refused(
            f"{tuned.id} was tuned with the chat template {recorded[:12]}, and the one at hand is {here[:12] or 'none'}.",
            fix="Use the tokenizer that it was tuned with: its chat_template.jinja belongs to the weights. Or tune again.",
        )


def _cpu_multiplies_bf16() -> bool:
    """AVX512-BF16, AMX or the Arm equivalent: without them torch emulates bfloat16, slower than float32."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(supported and supported()) and has_cpu_flag("avx512_bf16", "amx_bf16", "bf16")
