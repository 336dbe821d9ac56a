"""What every method of peft has in common: the task that its wrapper is told, its weights' number format, and how it is saved."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mygpt.artifacts.model import Model
from mygpt.core.errors import Refused
from mygpt.lm.adapters.imported_peft import imported_peft

_ONE_FOR_A_TOKEN = ("TOKEN_CLS", "")


def task_type(module: Any) -> str:
    """peft's word for what the head of a transformers model is for; "" where peft has none (masked words, bare encoders)."""
    name = type(module).__name__
    if name.endswith("ForSequenceClassification"):
        return "SEQ_CLS"
    if name.endswith("ForTokenClassification"):
        return "TOKEN_CLS"
    if getattr(module.config, "is_encoder_decoder", False):
        return "SEQ_2_SEQ_LM" if name.endswith("ForConditionalGeneration") else ""
    return "CAUSAL_LM" if name.endswith(("ForCausalLM", "LMHeadModel")) else ""


def label_modules(module: Any) -> list[str]:
    """Modules that know the labels, of a classifier: its children beside the body. No adapter can stand in for them."""
    if task_type(module) not in ("SEQ_CLS", "TOKEN_CLS"):
        return []
    others = (module.base_model_prefix, "bottleneck_adapters")
    return [name for name, part in module.named_children() if name not in others and any(True for _ in part.parameters())]


def is_within(name: str, outer: Sequence[str]) -> bool:
    """Whether a module or parameter is one of `outer`, or a part of one."""
    return any(name == one or name.startswith(f"{one}.") for one in outer)


def wrapped(module: Any, settings: Any, whole: Sequence[str]) -> Any:
    """`module` frozen inside a peft model, whose new weights have the module's own number format (docs/decisions/003).

    The modules named in `whole` are trained and saved as they are. Raises Refused with peft's reason where it does not take them.
    """
    dtype, name = module.dtype, type(module).__name__
    settings.modules_to_save = list(whole) or None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft asks transformers by an old name, and says that GPT-2's matrices are transposed
            made = imported_peft().get_peft_model(module, settings, autocast_adapter_dtype=False)
    except ValueError as error:
        raise Refused(
            f"peft does not put {settings.peft_type.value} into a {name}: {error}",
            fix="Use `method=full`, or LoRA on other layers (`method.targets`; with Mamba's kind `[in_proj]`).",
        ) from error
    for parameter in made.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    return made


def require_virtual_tokens(module: Any, *, method: str) -> None:
    """Raises Refused where vectors put before the text have no place, or would spoil what is read at the other end."""
    task = task_type(module)
    name = type(module).__name__
    if task in _ONE_FOR_A_TOKEN:
        raise Refused(
            f"{method} puts virtual tokens before the text, and a {name} answers once for each token: theirs would be in the way.",
            fix="Use `method=lora`, `method=ia3` or `method=bottleneck`.",
        )
    if task == "SEQ_CLS" and not _is_encoder(module):
        raise Refused(
            f"A {name} reads its answer at the last real token, which it cannot find once virtual tokens stand before the text.",
            fix="Use `method=lora`, `method=ia3` or `method=bottleneck`.",
        )
    if getattr(module, "_is_stateful", False):
        raise Refused(
            f"{method} puts virtual tokens before the text as keys and values, and a {name} keeps a running state in their place.",
            fix="Use `method=full`, or LoRA (with Mamba's kind on `method.targets=[in_proj]`).",
        )


def save(module: Any, *, base: Model, folder: Path) -> None:
    """As peft does, but equal bytes for equal adapters: peft lists the layers in an order that changes from process to process, and
    names the base by its path on this machine."""
    module.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)  # "auto" may ask the hub
    (folder / "README.md").unlink(missing_ok=True)  # peft's template of a card
    file = folder / "adapter_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    for key in ("target_modules", "feedforward_modules"):
        if isinstance(settings.get(key), list):
            settings[key] = sorted(settings[key])
    settings["base_model_name_or_path"] = base.manifest.provenance.get("repository") or base.id
    file.write_text(json.dumps(settings, indent=1, sort_keys=True), encoding="utf-8")


def _is_encoder(module: Any) -> bool:
    """Whether every token sees every other."""
    return not getattr(module.config, "is_encoder_decoder", False) and not hasattr(module, "score")
