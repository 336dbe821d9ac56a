"""What the objectives share: settings, the method of tuning, the plan of the epochs, the steps, and how the result is kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish
from mygpt.core.config import Config
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.lm.adapters import full, methods
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.methods import Method
from mygpt.lm.heads import Opened, head_blueprint, open_head
from mygpt.lm.inputs import window_tokens
from mygpt.lm.load import Loaded, preferred_dtype
from mygpt.training.batches import Plan, plan_epoch
from mygpt.training.flops import flops_of
from mygpt.training.gpu_adamw import GpuAdamW
from mygpt.training.ledger import Ledger
from mygpt.training.machine import PeakMemory, matmul_flops_per_second
from mygpt.training.optimizers import MasterAdamW
from mygpt.training.recompute import recompute_layers
from mygpt.training.schedules import warmup_cosine
from mygpt.training.steps import Advice, Examples, Optimizer, Step, Steps, checkpoints_of, training_steps

Share = Annotated[float, Field(ge=0, le=1)]


class TuningConfig(Config):
    """`method` says what is trained: with `full` and `freeze` the result is a Model, else an Adapter."""

    method: Method = Full()
    learning_rate: PositiveFloat | None = None  # at its peak; None: the method's own
    epochs: PositiveInt = 3
    micro_batch_tokens: PositiveInt = 2048  # padded tokens per forward pass: what memory allows
    max_example_tokens: PositiveInt = 256
    warmup_share: Share = 0.1
    final_share: Share = 0.1  # of the peak learning rate, at the end
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat = 1.0
    checkpoint_seconds: NonNegativeFloat = 30.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 where the machine multiplies it fast
    recompute: bool = False  # layers are computed again for their gradients: less memory, a third more time


def dtype_of(config: TuningConfig) -> torch.dtype:
    dtype: torch.dtype = preferred_dtype() if config.precision == "auto" else getattr(torch, config.precision)
    return dtype


def blueprint_for(head: str, model: Model, config: TuningConfig, *, labels: Sequence[str] = ()) -> Opened:
    """What `opened_for` will open, before any of its weights is loaded."""
    if methods.base_weights(config.method) == "nf4":
        raise Refused(
            f"A base in four bits is loaded as a language model, and this opens {model.id} with the head `{head}`.",
            fix="Leave out `method.weights`: the base is then held whole.",
        )
    return head_blueprint(model, head, labels=labels, dtype=dtype_of(config))


def opened_for(head: str, model: Model, config: TuningConfig, *, labels: Sequence[str] = (), run: Run) -> Opened:
    return open_head(model, head, labels=labels, seed=run.seed_for("head"), run=run, dtype=dtype_of(config))


def with_method(opened: Opened, config: TuningConfig, *, run: Run) -> Any:
    """The module with exactly what is trained requiring gradients, in eval mode: no dropout."""
    torch.manual_seed(run.seed_for("adapter"))
    return attached(opened, config)


def attached(opened: Opened, config: TuningConfig) -> Any:
    """As `with_method`, from torch's state as it is."""
    if opened.head == "masked_lm" and opened.new and not methods.makes_a_model(config.method):
        raise Refused(
            f"{opened.model.id} has no masked-language head, and a new one shares its matrix with the embeddings.",
            fix="Train every weight (`--set method=full`), or choose a base with that head.",
        )
    module = methods.attach(opened.module, config.method, tokenizer=opened.tokenizer, new=opened.new).eval()
    return recompute_layers(module) if config.recompute else module


def module_for(head: str, model: Model, config: TuningConfig, *, labels: Sequence[str] = ()) -> Any:
    """What will be trained, before any weight is loaded: on the meta device, the method attached."""
    opened = blueprint_for(head, model, config, labels=labels)
    with torch.device("meta"):
        return attached(opened, config)


def example_tokens(opened: Opened, config: TuningConfig) -> int:
    """How many tokens an example may have: what the settings allow and the model can read beside virtual tokens."""
    window = window_tokens(opened.module)
    return min(config.max_example_tokens, window - methods.num_virtual_tokens(config.method) if window else config.max_example_tokens)


def require_examples(lengths: Sequence[int], *, allowed: int, what: str, fix: str) -> None:
    """Raises Refused for an empty set and for examples of which a part would be cut off."""
    if not lengths:
        raise Refused("The training set is empty.", fix="Give a dataset with rows in the split `train`.")
    if too_long := sum(length > allowed for length in lengths):
        raise Refused(f"{too_long} of {len(lengths)} {what} are longer than {allowed} tokens (longest: {max(lengths)}).", fix=fix)


# -- plan and steps ----------------------------------------------------------------------------------------------------------


def plan_epochs(lengths: Sequence[int], config: TuningConfig, *, step_tokens: int, order: Callable[[str], Random]) -> Plan:
    """Steps of about `step_tokens` padded tokens; every example once an epoch. `order` gives a source of chance by name."""
    budgets = {"step_tokens": step_tokens, "micro_batch_tokens": config.micro_batch_tokens}
    return [step for epoch in range(config.epochs) for step in plan_epoch(lengths, **budgets, order=order(f"order/{epoch}"))]


def numbered_on(plan: Plan, num_examples: int) -> Plan:
    """The same plan, in which epoch `e` numbers its examples from `e * num_examples`: each is made anew whenever it is seen."""
    seen = [0] * num_examples
    numbered: Plan = []
    for step in plan:
        numbered.append([[i + num_examples * seen[i] for i in micro] for micro in step])
        for micro in step:
            for i in micro:
                seen[i] += 1
    return numbered


@dataclass(frozen=True)
class Repeated(Sequence[Any]):
    """The same again for every epoch, for numbers that count on; held once."""

    once: Sequence[Any]
    times: int

    def __len__(self) -> int:
        return len(self.once) * self.times

    def __getitem__(self, number: Any) -> Any:
        return self.once[number % len(self.once)]


def names_of(rows: Sequence[Any]) -> list[str]:
    """Of rows with an `id`, for messages: the place in the split, and the id where there is one."""
    return [f"{number} ({row.id})" if row.id else str(number) for number, row in enumerate(rows)]


def peak_rate(config: TuningConfig) -> float:
    return config.learning_rate or config.method.learning_rate


def rate_at(step: Step, config: TuningConfig) -> float:
    """The learning rate of this step."""
    shares = {"warmup_share": config.warmup_share, "final_share": config.final_share}
    return peak_rate(config) * warmup_cosine(step.number - 1, num_steps=step.num_steps, **shares)


@contextmanager
def tuning_steps(
    plan: Plan,
    examples: Examples,
    *,
    module: Any,
    config: TuningConfig,
    heads: Mapping[str, torch.nn.Module] | None = None,
    adam_eps: float = 1e-8,
    advice: Advice | None = None,
    memory: dict[str, Any] | None = None,
    phase: int = 1,
    around: Callable[[Optimizer], Optimizer] = lambda optimizer: optimizer,
    run: Run,
) -> Iterator[Steps]:
    """`training_steps` with AdamW over what `module` trains, and over `heads` that stand beside it (a value function), by name.

    `around`: an optimiser that does more at each update, made of this one.
    """
    if config.learning_rate is None:
        run.note(f"Learning rate {peak_rate(config):g}, the usual one of `method={config.method.name}`.")
    device = next(module.parameters()).device
    beside = [(f"{name}.{part}", p) for name, head in (heads or {}).items() for part, p in head.named_parameters()]
    trained = [*((name, p) for name, p in module.named_parameters() if p.requires_grad), *beside]
    settings: dict[str, Any] = {"learning_rate": peak_rate(config), "weight_decay": config.weight_decay, "betas": (0.9, 0.999)}
    settings |= {"eps": adam_eps, "rate_factors": methods.rate_factors(module, config.method)}
    paged = device.type == "cuda" and methods.base_weights(config.method) == "nf4"
    in_kernels = not paged and GpuAdamW.suits(p for _, p in trained)
    optimizer: Optimizer = GpuAdamW(trained, **settings) if in_kernels else MasterAdamW(trained, **settings, paged=paged)
    limit = matmul_flops_per_second(device, module.dtype, run.home) * run.ranks.count
    ledger = Ledger(flops_of(module), limit, PeakMemory(device), run.usd_per_hour)
    checkpoints = checkpoints_of(run, every_seconds=config.checkpoint_seconds)
    most = min(config.micro_batch_tokens, getattr(config, "step_tokens", config.micro_batch_tokens))  # of a forward pass
    advice = advice or advice_for(config, smaller=[f"`micro_batch_tokens` to {max(1, most // 2)}"])
    with training_steps(
        plan,
        examples=examples,
        optimizer=around(optimizer),
        checkpoints=checkpoints,
        ledger=ledger,
        run=run,
        advice=advice,
        memory=memory,
        phase=phase,
    ) as steps:
        yield steps


def advice_for(config: TuningConfig, *, smaller: Sequence[str], named_in_up: str = "") -> Advice:
    """`smaller`: what to set when memory runs out. `named_in_up`: what the rate is called in the settings of `mygpt up`."""
    slower = f"{peak_rate(config) / 5:g}"
    in_up = f" (with `mygpt up`: `--set {named_in_up}={slower}`)" if named_in_up else ""
    settings = [*smaller, *([] if config.recompute else ["`recompute` to true"])]
    settings += ["`method` to lora"] if isinstance(config.method, Full) else []
    return Advice(
        diverged=f"Use a smaller `learning_rate`, for example {slower}{in_up}.",
        out_of_memory=f"Set {' or '.join(settings)}. Other programs on this machine may hold the memory too.",
    )


# -- the result --------------------------------------------------------------------------------------------------------------


def learnt(module: Any, loaded: Loaded, config: TuningConfig, steps: Steps) -> dict[str, Any]:
    """Facts of the training itself."""
    figures = steps.ledger.figures()
    return {
        **methods.facts(module, config.method, tokenizer=loaded.tokenizer),
        "trainable": sum(p.numel() for p in module.parameters() if p.requires_grad),
        "curve": steps.curve,
        "tokens": steps.ledger.real_tokens,
        "tokens_per_second": figures["real_tokens_per_second"],
        "precision": str(module.dtype).removeprefix("torch."),
        "ledger": figures,
    }


def publish_tuned(
    module: Any,
    opened: Opened,
    config: TuningConfig,
    *,
    facts: Mapping[str, Any],
    told: str,
    write_beside: Callable[[Path], None] | None = None,
    run: Run,
) -> Adapter | Model:
    """`facts` says what was learnt, `told` how well, in words ("": not measured); head and base are said here."""
    sentences = [f"Held out: {told}." if told else "No held-out rows: how well it does was not measured."]
    said = {"head": opened.head, **facts, "sentences": sentences}
    kept = {k: v for k, v in opened.model.manifest.facts.items() if k in ("context_tokens", "hidden_size", "dimensions")}
    kept |= {"parameters": sum(p.numel() for p in module.parameters()), "architecture": type(module).__name__}
    beside = write_beside if methods.makes_a_model(config.method) else None
    return published(module, opened, config, facts=said, inherited=kept, write_beside=beside, run=run)


def published(
    module: Any,
    loaded: Loaded,
    config: TuningConfig,
    *,
    facts: Mapping[str, Any],
    inherited: Mapping[str, Any],
    write_beside: Callable[[Path], None] | None = None,
    run: Run,
) -> Adapter | Model:
    """What the method makes of `loaded`: an Adapter, or a Model that has the facts `inherited` from its base beside its own."""
    base = loaded.model
    said = {"base": base.digest, **facts}
    origin = {"source": f"trained from {base.id}", "licence": base.manifest.provenance.get("licence")}
    if not methods.makes_a_model(config.method):

        def write_adapter(folder: Path) -> None:
            methods.save(module, config.method, base=base, folder=folder)
            if write_beside is not None:
                write_beside(folder)

        return publish(Adapter, run, write_adapter, facts=said, provenance=origin)

    def write(folder: Path) -> None:
        loaded.tokenizer("")  # else where its last text was cut would be saved with it
        full.save(module, loaded.tokenizer, folder)
        if write_beside is not None:
            write_beside(folder)

    return publish(Model, run, write, facts={**inherited, "source": "tuned", **said}, provenance=origin)
