"""What the objectives share: settings, which weights are trained, the plan of the epochs, and how the result is kept."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish
from mygpt.core.config import Config
from mygpt.core.errors import Refused
from mygpt.core.outbound import silence_hub
from mygpt.core.run import Run
from mygpt.finetune.steps import Examples, Step, Steps
from mygpt.lm.adapters import full, peft_model
from mygpt.lm.heads import HEADS, Opened, open_head
from mygpt.lm.inputs import window_tokens
from mygpt.training.batches import Plan, plan_epoch
from mygpt.training.checkpoint import Checkpoints
from mygpt.training.optimizers import MasterAdamW
from mygpt.training.schedules import warmup_cosine

Share = Annotated[float, Field(ge=0, le=1)]


class TuningConfig(Config):
    """`rank` 0 trains every weight, and the result is a Model; any other rank trains LoRA adapters, and the result is an Adapter."""

    rank: NonNegativeInt = 0
    alpha: PositiveInt = 32  # updates are scaled by alpha / rank
    learning_rate: PositiveFloat | None = None  # default: 5e-4 for adapters, 5e-5 for every weight
    epochs: PositiveInt = 3
    micro_batch_tokens: PositiveInt = 2048  # padded tokens per forward pass: what memory allows
    max_example_tokens: PositiveInt = 256
    warmup_share: Share = 0.1
    final_share: Share = 0.1  # of the peak learning rate, at the end
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat = 1.0
    checkpoint_seconds: NonNegativeFloat = 30.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 where the machine multiplies it fast


def opened_for(head: str, model: Model, config: TuningConfig, *, labels: Sequence[str] = (), run: Run) -> Opened:
    dtype = None if config.precision == "auto" else getattr(torch, config.precision)
    seed = run.seed_for("head")
    return open_head(model, head, labels=labels, seed=seed, run=run, dtype=dtype)


def with_method(opened: Opened, config: TuningConfig, *, run: Run) -> tuple[Any, float]:
    """(the module with exactly what is trained requiring gradients, in eval mode: no dropout; the peak learning rate)."""
    learning_rate = config.learning_rate or (5e-4 if config.rank else 5e-5)
    if config.learning_rate is None:
        run.note(f"Learning rate {learning_rate:g}, the default for {'LoRA' if config.rank else 'every weight'}.")
    if not config.rank:
        return opened.module.requires_grad_(True).eval(), learning_rate
    if opened.head == "masked_lm" and opened.trained_whole:
        raise Refused(
            f"{opened.model.id} has no masked-language head, and a new one shares its matrix with the embeddings.",
            fix="Train every weight (`--set rank=0`), or choose a base with that head.",
        )
    silence_hub()
    torch.manual_seed(run.seed_for("adapter"))
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    head = opened.module.get_output_embeddings()
    linear = [
        name
        for name, part in opened.module.named_modules()
        if isinstance(part, (torch.nn.Linear, Conv1D)) and part is not head and not _is_within(name, opened.trained_whole)
    ]
    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=0.0,
        target_modules=linear,
        modules_to_save=list(opened.trained_whole) or None,
        task_type=HEADS[opened.head].peft_task,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft asks transformers by an old name, and says that GPT-2's matrices are transposed
        return get_peft_model(opened.module, settings, autocast_adapter_dtype=False).eval(), learning_rate


def _is_within(name: str, outer: Sequence[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in outer)


def plan_epochs(lengths: Sequence[int], config: TuningConfig, *, step_tokens: int, run: Run) -> Plan:
    """Steps of about `step_tokens` padded tokens; every example once an epoch."""
    budgets = {"step_tokens": step_tokens, "micro_batch_tokens": config.micro_batch_tokens}
    return [step for epoch in range(config.epochs) for step in plan_epoch(lengths, **budgets, order=run.random(f"order/{epoch}"))]


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


def tuning_steps(plan: Plan, examples: Examples, *, module: Any, config: TuningConfig, learning_rate: float, run: Run) -> Steps:
    trainable = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    optimizer = MasterAdamW(trainable, learning_rate=learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.999))
    checkpoints = Checkpoints(run.home, run.making.request, every_seconds=config.checkpoint_seconds)
    work = [[name for name, _ in trainable], str(module.dtype)]
    return Steps(plan, examples=examples, optimizer=optimizer, checkpoints=checkpoints, work=work, run=run)


def rate_at(step: Step, config: TuningConfig, learning_rate: float) -> float:
    """The rate of this step: `learning_rate` at its peak."""
    shares = {"warmup_share": config.warmup_share, "final_share": config.final_share}
    return learning_rate * warmup_cosine(step.number - 1, num_steps=step.num_steps, **shares)


def learnt(module: Any, steps: Steps) -> dict[str, Any]:
    """Facts of the training itself."""
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    speed = round(steps.tokens / max(steps.seconds, 1e-9), 1)
    return {"trainable": trainable, "curve": steps.curve, "tokens": steps.tokens, "tokens_per_second": speed}


def example_tokens(opened: Opened, config: TuningConfig) -> int:
    """How many tokens an example may have: what the settings allow and the model can read."""
    return min(config.max_example_tokens, window_tokens(opened.module) or config.max_example_tokens)


def require_examples(lengths: Sequence[int], *, allowed: int, what: str, fix: str) -> None:
    """Raises Refused for an empty set and for examples of which a part would be cut off."""
    if not lengths:
        raise Refused("The training set is empty.", fix="Give a dataset with rows in the split `train`.")
    if too_long := sum(length > allowed for length in lengths):
        raise Refused(f"{too_long} of {len(lengths)} {what} are longer than {allowed} tokens (longest: {max(lengths)}).", fix=fix)


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
    """`facts` says what was learnt, `told` how well, in words ("": not measured); the head, the base and the method are said here."""
    model = opened.model
    said = {
        "head": opened.head,
        "base": model.digest,
        "method": "lora" if config.rank else "full",
        "precision": str(opened.module.dtype).removeprefix("torch."),
        **facts,
        "sentences": [f"Held out: {told}." if told else "No held-out rows: how well it does was not measured."],
    }
    origin = {"source": f"trained from {model.id}", "licence": model.manifest.provenance.get("licence")}
    if config.rank:
        return publish(Adapter, run, lambda folder: peft_model.save(module, base=model, folder=folder), facts=said, provenance=origin)

    def write(folder: Path) -> None:
        opened.tokenizer("")  # else where its last text was cut would be saved with it
        full.save(module, opened.tokenizer, folder)
        if write_beside is not None:
            write_beside(folder)

    inherited = {k: v for k, v in model.manifest.facts.items() if k in ("context_tokens", "hidden_size", "dimensions")}
    kept = {**inherited, "parameters": sum(p.numel() for p in module.parameters()), "architecture": type(module).__name__}
    return publish(Model, run, write, facts={**kept, "source": "tuned", **said}, provenance=origin)
