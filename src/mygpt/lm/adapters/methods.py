"""What is trained, whatever the objective: one of these methods, put into a transformers module, saved, loaded and merged alike.

module = attach(module, method, tokenizer=tokenizer)       exactly the trained parameters require a gradient
for all of them  parameter.requires_grad                   what the optimiser is given, with `rate_factors(module, method)`
makes_a_model(method)                                      full and freeze: the result is a Model, else an Adapter
save(module, method, base=model, folder=folder)            an Adapter's payload: peft's where peft has the method
load(module, {"default": adapter.payload})                 on a freshly loaded base; several by name where the method allows it
merge(module)                                              a plain transformers model with the same logits, where the method allows it
"""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mygpt.artifacts.model import Model
from mygpt.core.errors import Refused, UsageError
from mygpt.core.outbound import silence_hub
from mygpt.lm.adapters import bottleneck, freeze, full, ia3, lora, p_tuning, peft_model, prefix, prompt
from mygpt.lm.adapters.bottleneck import Bottleneck
from mygpt.lm.adapters.freeze import Freeze
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.ia3 import IA3
from mygpt.lm.adapters.imported_peft import imported_peft
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.adapters.p_tuning import PTuning
from mygpt.lm.adapters.prefix import Prefix
from mygpt.lm.adapters.prompt import Prompt
from mygpt.lm.quantized import is_quantized
from mygpt.lm.virtual_tokens import has_virtual_tokens, install

Method = Annotated[LoRA | Full | Freeze | Prefix | Prompt | PTuning | IA3 | Bottleneck, Field(discriminator="name")]
_MERGED_BY_PEFT = ("LORA", "IA3")


def attach(module: Any, method: Method, *, tokenizer: Any, new: Sequence[str] = ()) -> Any:
    """`module`, or a wrapper around it, with exactly the trained parameters requiring a gradient. Drawn numbers come from torch's state.

    Modules that are `new`, and those that know labels, are trained and saved whole beside every method. Raises Refused where the
    architecture cannot take the method.
    """
    silence_hub()
    whole = sorted({*new, *peft_model.label_modules(module)})
    match method:
        case Full():
            return full.attach(module)
        case Freeze():
            return freeze.attach(module, method, whole=whole)
        case LoRA():
            return lora.attach(module, method, whole=whole)
        case IA3():
            return ia3.attach(module, method, whole=whole)
        case Bottleneck():
            return bottleneck.attach(module, method, whole=whole)
        case Prefix():
            return _with_virtual_tokens(prefix.attach(module, method, tokenizer=tokenizer, whole=whole))
        case Prompt():
            return _with_virtual_tokens(prompt.attach(module, method, tokenizer=tokenizer, whole=whole))
        case PTuning():
            return _with_virtual_tokens(p_tuning.attach(module, method, tokenizer=tokenizer, whole=whole))


def makes_a_model(method: Method) -> bool:
    return isinstance(method, (Full, Freeze))


def base_weights(method: Method) -> Literal["full", "nf4"]:
    """How the base has to be loaded."""
    return method.weights if isinstance(method, LoRA) else "full"


def num_virtual_tokens(method: Method) -> int:
    """Places of the model's window that the method takes."""
    return method.num_tokens if isinstance(method, (Prefix, Prompt, PTuning)) else 0


def rate_factors(module: Any, method: Method) -> dict[str, float]:
    """Share of the learning rate by name of a trained parameter; names that are missing have all of it."""
    return freeze.rate_factors(module, method) if isinstance(method, Freeze) and method.layer_decay < 1 else {}


def save(module: Any, method: Method, *, base: Model, folder: Path) -> None:
    if isinstance(method, Bottleneck):
        bottleneck.save(module, method, base=base, folder=folder)
    else:
        peft_model.save(module, base=base, folder=folder)


def facts(module: Any, method: Method, *, tokenizer: Any) -> dict[str, Any]:
    """What the manifest says about what was learnt, beside the method's name."""
    found: dict[str, Any] = {"method": method.name}
    if isinstance(method, LoRA) and method.weights != "full":
        found["weights"] = method.weights
    if isinstance(method, (Prompt, PTuning)):
        found |= prompt.facts(module, tokenizer)
    return found


def load(module: Any, payloads: Mapping[str, Path]) -> Any:
    """`module` with the adapters saved in these folders, the first of them at work. Raises UsageError where they cannot be together."""
    silence_hub()
    settings = {name: json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")) for name, folder in payloads.items()}
    kinds = {name: _kind(one) for name, one in settings.items()}
    if len(payloads) > 1:
        _require_together(module, kinds)
    if "bottleneck" in kinds.values():
        for name, folder in payloads.items():
            bottleneck.load(module, folder, name=name)
        return module.requires_grad_(False)
    PeftModel = imported_peft().PeftModel
    (first, folder), *others = payloads.items()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in `peft_model.wrapped`
        as_trained: dict[str, Any] = {"is_trainable": False, "autocast_adapter_dtype": False}  # peft would serve them in float32
        loaded = PeftModel.from_pretrained(module, str(folder), adapter_name=first, **as_trained)
        for name, folder in others:
            loaded.load_adapter(str(folder), adapter_name=name, **as_trained)
    return _with_virtual_tokens(loaded.requires_grad_(False))


@contextmanager
def switched_off(module: Any) -> Iterator[None]:
    """For the time of the block `module` is its base: what an adapter learns is compared with where it began, without a second copy.

    Raises UsageError for a module that carries no adapter.
    """
    if (carried := bottleneck.adapters_of(module)) is not None:
        active, carried.active = carried.active, ""
        try:
            yield
        finally:
            carried.active = active
    elif hasattr(module, "disable_adapter"):
        with module.disable_adapter():
            yield
    else:
        raise UsageError("This model carries no adapter, so there is none to switch off.", fix="Load its base as a model of its own.")


def merge(module: Any) -> Any:
    """The base with what its adapter does written into its own matrices. Raises Refused where that cannot be done."""
    settings = getattr(module, "peft_config", None)
    together = "Use base and adapter together, as they are; or train with `method=lora` or `method=ia3`, which can be merged."
    if bottleneck.adapters_of(module) is not None:
        raise Refused("Bottleneck adapters are networks of their own: no matrix of the base does the same.", fix=together)
    if settings is None:
        raise UsageError("This model carries no adapter, so there is nothing to merge.", fix="Load it with its adapter.")
    kinds = {str(one.peft_type.value) for one in settings.values()}
    if not kinds <= set(_MERGED_BY_PEFT):
        raise Refused("Virtual tokens are no weights of the base: there is no matrix to write them into.", fix=together)
    if len(settings) > 1:
        raise UsageError(f"{len(settings)} adapters are loaded, and one can be merged.", fix="Load the one that is meant.")
    if is_quantized(module.get_base_model()):
        raise Refused(
            "The base is held in four bits: merged weights would be rounded to them, and the answers would change.",
            fix="Use base and adapter together, as they are; or train the adapter on the full weights (`method.weights=full`).",
        )
    return module.merge_and_unload(safe_merge=True)


def _with_virtual_tokens(module: Any) -> Any:
    if has_virtual_tokens(module):
        install(module)
    return module


def _kind(settings: Mapping[str, Any]) -> str:
    """ "bottleneck", "dora" or peft's own word in small letters."""
    if settings.get("use_dora"):
        return "dora"
    return str(settings.get("method") or settings.get("peft_type") or "lora").lower()


def _require_together(module: Any, kinds: Mapping[str, str]) -> None:
    """Of several adapters on one base, each must be a kind that can be chosen row by row."""
    families = set(kinds.values())
    if len(families) > 1:
        listed = ", ".join(f"`{name}` ({kind})" for name, kind in kinds.items())
        raise UsageError(f"Adapters of different methods cannot share one base: {listed}.", fix="Load each method in an engine of its own.")
    alone = {"dora": "DoRA scales whole columns of the base", "ia3": "IA3 scales what the base computes"}
    (family,) = families
    if family in alone:
        raise UsageError(
            f"{alone[family]}, and peft computes that for one adapter at a time, not row by row.",
            fix="Load one, or train them as LoRA.",
        )
    if peft_model.label_modules(module):
        raise UsageError("Each adapter of a classifier brings a head of its own, and a base carries one.", fix="Load them one by one.")
