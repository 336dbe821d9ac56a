"""LoRA: to a frozen matrix W a product of two thin ones is added, W + s B A, and only these move. Begins as the base: B is zero.

    s = alpha / rank                   LoRA
    s = alpha / sqrt(rank)             `rank_stabilised`: large ranks learn as fast as small ones
    m (W + s B A) / |W + s B A|        `weight_decomposed` (DoRA): the length m of every output's row is learnt apart from its direction
    `weights=nf4`                      QLoRA: the frozen base in four bits (`lm/quantized`)

Source     LoRA: Hu et al. 2021, arXiv:2106.09685, section 4.1; on all linear layers, and QLoRA: Dettmers et al. 2023, arXiv:2305.14314,
           sections 3 and 4; rsLoRA: Kalajdzievski 2023, arXiv:2312.03732, theorem 3.2; DoRA: Liu et al. 2024, arXiv:2402.09353, equation 5
We differ  no dropout; the new weights have the module's number format, beside float32 masters in the optimiser (docs/decisions/003)
Cost       rank x (inputs + outputs) of every matrix that is adapted: about 3 % of a 135M model at rank 16
"""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import PositiveFloat, PositiveInt

from mygpt.core.config import Config
from mygpt.core.errors import Refused, UsageError
from mygpt.lm.adapters.imported_peft import imported_peft
from mygpt.lm.adapters.peft_model import is_within, task_type, wrapped
from mygpt.lm.layers import attention_names, layers, linear_names, mlp_names

Weights = Literal["full", "nf4"]


class LoRA(Config):
    """Low-rank updates beside frozen matrices; rsLoRA, DoRA and QLoRA are settings of it."""

    name: Literal["lora"] = "lora"
    learning_rate: PositiveFloat = 5e-4
    rank: PositiveInt = 16
    alpha: PositiveInt = 32  # updates are scaled by alpha / rank
    targets: Literal["all-linear", "attention-only", "mlp-only"] | tuple[str, ...] = "all-linear"  # or ends of names: [q_proj, v_proj]
    rank_stabilised: bool = False  # scaled by alpha / sqrt(rank) (rsLoRA)
    weight_decomposed: bool = False  # DoRA
    weights: Weights = "full"  # of the base, while it is trained and served; nf4: four bits (QLoRA)


def attach(module: Any, method: LoRA, *, whole: Sequence[str] = ()) -> Any:
    settings = imported_peft().LoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=0.0,
        target_modules=_targets(module, method.targets, whole),
        use_rslora=method.rank_stabilised,
        use_dora=method.weight_decomposed,
        task_type=task_type(module) or None,
    )
    return wrapped(module, settings, whole)


def _targets(module: Any, targets: str | tuple[str, ...], whole: Sequence[str]) -> list[str]:
    """Names of linear layers, none in `whole`. Raises UsageError where there are none such, Refused where one is not called."""
    words = module.get_output_embeddings()
    body = [name for name in linear_names(module) if not is_within(name, whole) and module.get_submodule(name) is not words]
    if isinstance(targets, tuple):
        found = [name for name in body if any(name == target or name.endswith(f".{target}") for target in targets)]
        if getattr(module, "_is_stateful", False) and any(name.endswith(".dt_proj") for name in found):
            raise Refused(
                f"A {type(module).__name__} reads the matrix of `dt_proj` without calling it: an adapter beside it would learn nothing.",
                fix="Leave it out of `method.targets`.",
            )
        unknown = [target for target in targets if not any(name == target or name.endswith(f".{target}") for name in body)]
    else:
        names_of = {"attention-only": attention_names, "mlp-only": mlp_names}.get(targets)
        found = [f"{name}.{part}" for name, layer in layers(module) for part in names_of(layer)] if names_of else body
        unknown = []
    if unknown or not found:
        ends = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in body))
        raise UsageError(f"The model has no linear layer for `targets` {', '.join(unknown) or targets}.", fix=f"It has: {ends}.")
    return found
