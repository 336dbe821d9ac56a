"""Supervised fine-tuning: learn to answer as the examples do.

Source     LoRA: Hu et al. 2021, arXiv:2106.09685, section 4.1 (adapters on all linear layers: Dettmers et al. 2023, arXiv:2305.14314)
We differ  float32 masters behind bfloat16 weights; no dropout, not even where the architecture has some
Cost       one forward and one backward pass per token; the vocabulary product only where a label is
Dims       B examples   T tokens
"""

import json
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from mygpt.artifacts.dataset import Conversation, Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.outbound import silence_hub
from mygpt.core.run import Run
from mygpt.lm.chat import ChatRenderer
from mygpt.lm.load import blueprint, load_lm, load_tokenizer, preferred_device, preferred_dtype
from mygpt.lm.memory import give_back_freed_memory
from mygpt.training.batches import Plan, batch_of, plan_epoch
from mygpt.training.distributed import on_ranks
from mygpt.training.flops import flops_of
from mygpt.training.forecast import Forecast, forecast_training, require_fit
from mygpt.training.ledger import Ledger
from mygpt.training.losses import require_own_loss, summed_cross_entropy
from mygpt.training.machine import PeakMemory, matmul_flops_per_second, memory_limit_bytes, remember_share, resident_bytes
from mygpt.training.optimizers import MasterAdamW
from mygpt.training.preflight import preflight
from mygpt.training.schedules import warmup_cosine
from mygpt.training.steps import Advice, Examples, checkpoints_of, training_steps

Share = Annotated[float, Field(ge=0, le=1)]


class SFTConfig(Config):
    """`rank` 0 trains every weight; any other rank trains LoRA adapters on all linear layers."""

    rank: NonNegativeInt = 16
    alpha: PositiveInt = 32  # updates are scaled by alpha / rank
    learning_rate: PositiveFloat = 5e-4
    epochs: PositiveInt = 3
    step_tokens: PositiveInt = 1024  # padded tokens per update
    micro_batch_tokens: PositiveInt = 2048  # padded tokens per forward pass: what memory allows
    max_example_tokens: PositiveInt = 1024
    warmup_share: Share = 0.1
    final_share: Share = 0.1  # of the peak learning rate, at the end
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat = 1.0
    checkpoint_seconds: NonNegativeFloat = 30.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 where the machine multiplies it fast


@recipe
@on_ranks
def sft(config: SFTConfig, *, model: Model, dataset: Dataset, replay: Dataset | None = None, run: Run) -> Adapter | Model:
    """Learn the split `train` of `dataset`: an Adapter on `model`, or a new Model when every weight is trained.

    `replay` is learnt beside it, so that the model keeps what it could do.
    """
    tokenizer = load_tokenizer(model)
    renderer = ChatRenderer(tokenizer)
    rows = train_rows(dataset, replay)
    examples = [renderer.render(conversation) for conversation in rows]
    dtype = preferred_dtype() if config.precision == "auto" else getattr(torch, config.precision)
    module = blueprint(model, dtype)
    preflight(
        examples,
        renderer=renderer,
        max_example_tokens=config.max_example_tokens,
        serving_template=serving_template(model, tokenizer, new_model=config.rank == 0),
        context_tokens=getattr(module.config.get_text_config(), "max_position_embeddings", None),
        run=run,
    )
    known = Examples(
        names=[f"{number} ({row.id})" if row.id else str(number) for number, row in enumerate(rows)],
        num_tokens=[len(e.token_ids) for e in examples],
        num_trained=[sum(e.trained[1:]) for e in examples],
    )
    plan = plan_of(config, known.num_tokens, run.random)
    forecast = require_memory(config, model, module, known, plan, home=run.home)
    run.note(f"Training needs {forecast.told()}.")

    loaded = load_lm(model, dtype=dtype)
    torch.manual_seed(run.seed_for("sft"))
    module = with_method(loaded.module, config).eval()  # gradients flow all the same; no dropout
    trainable = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    optimizer = MasterAdamW(trainable, learning_rate=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.999))
    padding_id = tokenizer.pad_token_id or 0
    shortest = batch_of([min(examples, key=lambda e: len(e.token_ids))], padding_id=padding_id, device=loaded.device)
    require_own_loss(module, shortest.ids_BT, shortest.trained_BT)

    checkpoints = checkpoints_of(run, every_seconds=config.checkpoint_seconds)
    limit = matmul_flops_per_second(loaded.device, dtype, run.home) * run.ranks.count
    ledger = Ledger(flops_of(module), limit, PeakMemory(loaded.device), run.usd_per_hour)
    with training_steps(
        plan, examples=known, optimizer=optimizer, checkpoints=checkpoints, ledger=ledger, run=run, advice=advice(config)
    ) as steps:
        for step in steps:
            for micro_batch in step.micro_batches:
                batch = batch_of([examples[i] for i in micro_batch], padding_id=padding_id, device=loaded.device)
                loss = summed_cross_entropy(module, batch.ids_BT, batch.trained_BT) / step.num_trained
                loss.backward()
                step.add(loss, computed_tokens=batch.ids_BT.numel())
            factor = warmup_cosine(
                step.number - 1, num_steps=step.num_steps, warmup_share=config.warmup_share, final_share=config.final_share
            )
            step.update(learning_rate=config.learning_rate * factor, max_grad_norm=config.max_grad_norm)

    facts: dict[str, Any] = {
        "base": model.digest,
        "method": "lora" if config.rank else "full",
        "trainable": sum(p.numel() for _, p in trainable),
        "curve": steps.curve,
        "tokens": ledger.real_tokens,
        "tokens_per_second": ledger.figures()["real_tokens_per_second"],
        "template": renderer.template_digest,
        "precision": str(dtype).removeprefix("torch."),
        "ledger": ledger.figures(),
        "forecast": forecast.facts(),
    }
    remember_share(forecast.kind, ledger.figures()["share_of_limit"], run.home)
    origin = {"source": f"trained from {model.id}", "licence": model.manifest.provenance.get("licence")}
    if config.rank:
        tuned: Adapter | Model = publish(Adapter, run, lambda folder: save_adapter(module, model, folder), facts=facts, provenance=origin)
    else:
        facts = {**model.manifest.facts, "source": "tuned", **facts}
        tuned = publish(Model, run, lambda folder: save_model(module, tokenizer, folder), facts=facts, provenance=origin)
    checkpoints.clear()
    return tuned


def sft_forecast(config: SFTConfig, *, model: Model, dataset: Dataset, replay: Dataset | None = None, home: Path) -> dict[str, Any]:
    """What `sft` would do and need, said by `--dry-run`. No weight is loaded."""
    renderer = ChatRenderer(load_tokenizer(model))
    examples = [renderer.render(conversation) for conversation in train_rows(dataset, replay)]
    if not examples:
        return {"needs": "nothing: the training set is empty, which is refused", "examples": 0}
    num_tokens = [len(e.token_ids) for e in examples]
    dtype = preferred_dtype() if config.precision == "auto" else getattr(torch, config.precision)
    plan = plan_of(config, num_tokens, Random)
    known = Examples(names=(), num_tokens=num_tokens, num_trained=[sum(e.trained[1:]) for e in examples])
    forecast = require_memory(config, model, blueprint(model, dtype), known, plan, home=home)
    too_long = sum(n > config.max_example_tokens for n in num_tokens)
    counted = {"examples": len(examples), "longer_than_allowed": too_long, "steps": len(plan), "tokens": config.epochs * sum(num_tokens)}
    return {"needs": forecast.told(), **counted, **forecast.facts()}


def train_rows(dataset: Dataset, replay: Dataset | None) -> list[Conversation]:
    rows = dataset.split("train")
    return rows + (replay.split("train") if replay and rows else [])


def plan_of(config: SFTConfig, num_tokens: Sequence[int], order: Callable[[str], Random]) -> Plan:
    """All epochs; `order` gives a source of chance by name."""
    budgets = {"step_tokens": config.step_tokens, "micro_batch_tokens": config.micro_batch_tokens}
    return [step for epoch in range(config.epochs) for step in plan_epoch(num_tokens, **budgets, order=order(f"order/{epoch}"))]


def require_memory(config: SFTConfig, model: Model, module: Any, examples: Examples, plan: Plan, *, home: Path) -> Forecast:
    """What training will need. Raises Refused when this machine does not have it, with what to change. `module` is a blueprint."""
    device, dtype = preferred_device(), next(module.parameters()).dtype
    give_back_freed_memory()  # of earlier work of this process: it does not count
    limit_bytes, process_bytes = memory_limit_bytes(device), resident_bytes(device)

    def with_settings(changed: SFTConfig, module: Any) -> Forecast:
        return forecast_training(
            with_method(module, changed),
            plan=plan if changed is config else plan_of(changed, examples.num_tokens, Random),
            num_tokens=examples.num_tokens,
            num_trained=examples.num_trained,
            device=device,
            home=home,
            process_bytes=process_bytes,
        )

    forecast = with_settings(config, module)
    if forecast.bytes > limit_bytes:
        halved = [{"micro_batch_tokens": config.micro_batch_tokens >> n} for n in range(1, 12) if config.micro_batch_tokens >> n >= 64]
        tried = [{"rank": 16}, *halved] if config.rank == 0 else halved
        changes = (
            (
                " ".join(f"`--set {key}={value}`" for key, value in change.items()),
                with_settings(config.model_copy(update=change), blueprint(model, dtype)),
            )
            for change in tried
        )
        require_fit(forecast, limit_bytes=limit_bytes, changes=changes)
    return forecast


def advice(config: SFTConfig) -> Advice:
    slower = f"{config.learning_rate / 5:g}"
    smaller = [f"`micro_batch_tokens` to {max(1, config.micro_batch_tokens // 2)}", *(["`rank` to 16 (LoRA)"] if config.rank == 0 else [])]
    return Advice(
        diverged=f"Use a smaller `learning_rate`, for example {slower} (with `mygpt up`: `--set sft.learning_rate={slower}`).",
        out_of_memory=f"Set {' or '.join(smaller)}. Other programs on this machine may hold the memory too.",
    )


def serving_template(model: Model, tokenizer: Any, *, new_model: bool) -> str:
    """The template digest that serving will have, read from where serving reads it.

    The model's payload, opened as the engine opens it; for a new Model, which takes the tokenizer along, that tokenizer saved and opened
    again. (What the model itself was tuned with is checked where it is loaded.)
    """
    if not new_model:
        return ChatRenderer(load_tokenizer(model)).template_digest
    silence_hub()
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        reopened = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return ChatRenderer(reopened).template_digest


def with_method(module: Any, config: SFTConfig) -> Any:
    """`module` with what is trained requiring a gradient, and nothing else."""
    return with_lora(module, config) if config.rank else module.requires_grad_(True)


def with_lora(module: Any, config: SFTConfig) -> Any:
    """`module` frozen, with trainable low-rank updates on all linear layers except the head, in the module's precision."""
    silence_hub()
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=config.rank, lora_alpha=config.alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft still asks transformers by an old name
        return get_peft_model(module, settings, autocast_adapter_dtype=False)


def save_adapter(module: Any, model: Model, folder: Path) -> None:
    """As peft does, but equal bytes for equal adapters: peft lists the layers in an order that changes from process to process, and
    names the base by its path on this machine."""
    module.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)  # "auto" may ask the hub
    (folder / "README.md").unlink(missing_ok=True)  # peft's template of a card
    file = folder / "adapter_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings["target_modules"] = sorted(settings["target_modules"])
    settings["base_model_name_or_path"] = model.manifest.provenance.get("repository") or model.id
    file.write_text(json.dumps(settings, indent=1, sort_keys=True), encoding="utf-8")


def save_model(module: Any, tokenizer: Any, folder: Path) -> None:
    module.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
