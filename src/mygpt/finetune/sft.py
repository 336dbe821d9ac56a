"""Supervised fine-tuning: learn to answer as the examples do.

What is trained is the setting `method` (`lm/adapters/methods`): LoRA by default.

Source     Ouyang et al. 2022, arXiv:2203.02155, section 3.5
We differ  float32 masters behind bfloat16 weights; no dropout, not even where the architecture has some
Cost       one forward and one backward pass per token; the vocabulary product only where a label is
Dims       B examples   T tokens
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from mygpt.artifacts.dataset import Conversation, Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.outbound import silence_hub
from mygpt.core.run import Run
from mygpt.lm.adapters import full, methods
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.adapters.methods import Method
from mygpt.lm.chat import ChatRenderer, Rendered
from mygpt.lm.load import blueprint, load_lm, load_tokenizer, preferred_device, preferred_dtype
from mygpt.lm.memory import give_back_freed_memory
from mygpt.training.batches import Batch, Plan, batch_of, plan_epoch, shape_ladder
from mygpt.training.compile_layers import NUM_SHAPES, compile_layers
from mygpt.training.distributed import on_ranks
from mygpt.training.flops import flops_of
from mygpt.training.forecast import Forecast, forecast_training, require_fit
from mygpt.training.ledger import Ledger
from mygpt.training.losses import chunk_labels_for, require_own_loss, summed_cross_entropy
from mygpt.training.machine import PeakMemory, matmul_flops_per_second, memory_limit_bytes, remember_share, resident_bytes
from mygpt.training.optimizers import MasterAdamW
from mygpt.training.packing import keeps_apart, packed_batch, plan_packed_epoch
from mygpt.training.preflight import preflight, without_over_long
from mygpt.training.recompute import recompute_layers
from mygpt.training.schedules import warmup_cosine
from mygpt.training.steps import Advice, Examples, checkpoints_of, training_steps

Share = Annotated[float, Field(ge=0, le=1)]


class SFTConfig(Config):
    method: Method = LoRA()
    learning_rate: PositiveFloat | None = None  # at its peak; None: the method's own
    epochs: PositiveInt = 3
    step_tokens: PositiveInt = 1024  # padded tokens per update
    pack_tokens: NonNegativeInt = 2048  # of a row that several examples share, a forward pass each; 0: one example a row
    micro_batch_tokens: PositiveInt = 2048  # padded tokens per forward pass where a row is one example
    max_example_tokens: PositiveInt = 1024
    drop_over_long: bool = False  # leave longer examples out and say how many, instead of refusing
    ce_chunk_tokens: PositiveInt | None = None  # trained tokens whose logits stand in memory together; None: what 400 MB hold
    compile_layers: bool = False  # a minute or more before the first steps, then a third faster: for long runs
    recompute: bool = False  # layers are computed again for their gradients: less memory, a third more time
    warmup_share: Share = 0.1
    final_share: Share = 0.1  # of the peak learning rate, at the end
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat = 1.0
    checkpoint_seconds: NonNegativeFloat = 30.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 where the machine multiplies it fast


@recipe
@on_ranks
def sft(config: SFTConfig, *, model: Model, dataset: Dataset, replay: Dataset | None = None, run: Run) -> Adapter | Model:
    """Learn the split `train` of `dataset`: an Adapter on `model`, or a new Model when its own weights are trained.

    `replay` is learnt beside it, so that the model keeps what it could do.
    """
    tokenizer = load_tokenizer(model)
    renderer = ChatRenderer(tokenizer)
    rows = train_rows(dataset, replay)
    examples = [renderer.render(conversation) for conversation in rows]
    dtype = preferred_dtype() if config.precision == "auto" else getattr(torch, config.precision)
    module = blueprint(model, dtype)
    window = getattr(module.config.get_text_config(), "max_position_embeddings", None)
    context_tokens = window and window - methods.num_virtual_tokens(config.method)
    makes_a_model = methods.makes_a_model(config.method)
    if config.drop_over_long:
        kept = without_over_long(examples, max_example_tokens=config.max_example_tokens, context_tokens=context_tokens, run=run)
        rows, examples = [rows[i] for i in kept], [examples[i] for i in kept]
    preflight(
        examples,
        renderer=renderer,
        max_example_tokens=config.max_example_tokens,
        serving_template=serving_template(model, tokenizer, new_model=makes_a_model),
        context_tokens=context_tokens,
        run=run,
    )
    known = Examples(
        names=[f"{number} ({row.id})" if row.id else str(number) for number, row in enumerate(rows)],
        num_tokens=[len(e.token_ids) for e in examples],
        num_trained=[sum(e.trained[1:]) for e in examples],
    )
    plan = plan_of(config, known.num_tokens, run.random, packed=config.pack_tokens > 0)
    forecast = require_memory(config, model, module, tokenizer, known, plan, home=run.home)
    run.note(f"Training needs {forecast.told()}.")

    loaded = load_lm(model, dtype=dtype, weights=methods.base_weights(config.method))
    torch.manual_seed(run.seed_for("sft"))
    module = methods.attach(loaded.module, config.method, tokenizer=tokenizer).eval()  # gradients flow all the same; no dropout
    trainable = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    learning_rate = config.learning_rate or config.method.learning_rate
    if config.learning_rate is None:
        run.note(f"Learning rate {learning_rate:g}, the usual one of `method={config.method.name}`.")
    optimizer = MasterAdamW(
        trainable,
        learning_rate=learning_rate,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.999),
        rate_factors=methods.rate_factors(module, config.method),
        paged=loaded.device.type == "cuda" and methods.base_weights(config.method) == "nf4",
    )
    padding_id = tokenizer.pad_token_id or 0
    shortest = batch_of([min(examples, key=lambda e: len(e.token_ids))], padding_id=padding_id, device=loaded.device)
    require_own_loss(module, shortest.ids_BT, shortest.trained_BT)
    layout = layout_of(module, config, examples, run=run)
    if layout.form is batch_of:
        plan = plan_of(config, known.num_tokens, run.random, packed=False)

    checkpoints = checkpoints_of(run, every_seconds=config.checkpoint_seconds)
    limit = matmul_flops_per_second(loaded.device, dtype, run.home) * run.ranks.count
    ledger = Ledger(flops_of(module), limit, PeakMemory(loaded.device), run.usd_per_hour)
    with training_steps(
        plan, examples=known, optimizer=optimizer, checkpoints=checkpoints, ledger=ledger, run=run, advice=advice(config)
    ) as steps:
        for step in steps:
            for micro_batch in step.micro_batches:
                batch = layout.form([examples[i] for i in micro_batch], padding_id=padding_id, device=loaded.device, shapes=layout.shapes)
                nats = summed_cross_entropy(
                    module, batch.ids_BT, batch.trained_BT, positions_BT=batch.positions_BT, chunk_labels=layout.chunk_labels
                )
                loss = nats / step.num_trained
                loss.backward()
                step.add(loss, computed_tokens=batch.ids_BT.numel())
            factor = warmup_cosine(
                step.number - 1, num_steps=step.num_steps, warmup_share=config.warmup_share, final_share=config.final_share
            )
            step.update(learning_rate=learning_rate * factor, max_grad_norm=config.max_grad_norm)

    facts: dict[str, Any] = {
        "base": model.digest,
        **methods.facts(module, config.method, tokenizer=tokenizer),
        "trainable": sum(p.numel() for _, p in trainable),
        "curve": steps.curve,
        "packed": layout.form is packed_batch,
        "over_long_dropped": len(train_rows(dataset, replay)) - len(rows),
        "tokens": ledger.real_tokens,
        "tokens_per_second": ledger.figures()["real_tokens_per_second"],
        "template": renderer.template_digest,
        "precision": str(dtype).removeprefix("torch."),
        "ledger": ledger.figures(),
        "forecast": forecast.facts(),
    }
    remember_share(forecast.kind, ledger.figures()["share_of_limit"], run.home)
    origin = {"source": f"trained from {model.id}", "licence": model.manifest.provenance.get("licence")}
    if makes_a_model:
        facts = {**model.manifest.facts, "source": "tuned", **facts}
        tuned: Adapter | Model = publish(Model, run, lambda folder: full.save(module, tokenizer, folder), facts=facts, provenance=origin)
    else:
        save = partial(methods.save, module, config.method, base=model)
        tuned = publish(Adapter, run, lambda folder: save(folder=folder), facts=facts, provenance=origin)
    checkpoints.clear()
    return tuned


def sft_forecast(config: SFTConfig, *, model: Model, dataset: Dataset, replay: Dataset | None = None, home: Path) -> dict[str, Any]:
    """What `sft` would do and need, said by `--dry-run`. No weight is loaded."""
    tokenizer = load_tokenizer(model)
    renderer = ChatRenderer(tokenizer)
    examples = [renderer.render(conversation) for conversation in train_rows(dataset, replay)]
    if not examples:
        return {"needs": "nothing: the training set is empty, which is refused", "examples": 0}
    num_tokens = [len(e.token_ids) for e in examples]
    dtype = preferred_dtype() if config.precision == "auto" else getattr(torch, config.precision)
    plan = plan_of(config, num_tokens, Random, packed=config.pack_tokens > 0)
    known = Examples(names=(), num_tokens=num_tokens, num_trained=[sum(e.trained[1:]) for e in examples])
    forecast = require_memory(config, model, blueprint(model, dtype), tokenizer, known, plan, home=home)
    too_long = sum(n > config.max_example_tokens for n in num_tokens)
    counted = {"examples": len(examples), "longer_than_allowed": too_long, "steps": len(plan), "tokens": config.epochs * sum(num_tokens)}
    return {"needs": forecast.told(), **counted, **forecast.facts()}


def train_rows(dataset: Dataset, replay: Dataset | None) -> list[Conversation]:
    rows = dataset.split("train")
    return rows + (replay.split("train") if replay and rows else [])


def plan_of(config: SFTConfig, num_tokens: Sequence[int], order: Callable[[str], Random], *, packed: bool) -> Plan:
    """All epochs; `order` gives a source of chance by name."""
    plan: Plan = []
    for epoch in range(config.epochs):
        own = order(f"order/{epoch}")
        if packed:
            plan += plan_packed_epoch(num_tokens, step_tokens=config.step_tokens, pack_tokens=config.pack_tokens, order=own)
        else:
            plan += plan_epoch(num_tokens, step_tokens=config.step_tokens, micro_batch_tokens=config.micro_batch_tokens, order=own)
    return plan


class Layout(NamedTuple):
    """How a micro-batch becomes tensors."""

    form: Callable[..., Batch]  # packed_batch or batch_of
    shapes: list[int]  # lengths that rows are padded to; none: as long as they are
    chunk_labels: int


def layout_of(module: Any, config: SFTConfig, examples: Sequence[Rendered], *, run: Run) -> Layout:
    """What `module` takes, found by comparing numbers; its layers are prepared as the settings ask."""
    if config.recompute:
        recompute_layers(module)
    packed = config.pack_tokens > 0 and keeps_apart(module, examples, run=run)
    compiled = config.compile_layers and packed
    if compiled:
        run.note("Layers are compiled at the first rows of each length: the first steps take longer, a minute or more.")
        compile_layers(module)
    elif config.compile_layers:
        run.warn("Layers are not compiled: rows of one example each come in too many shapes.")
    on_gpu = next(module.parameters()).device.type == "cuda"
    few = shape_ladder(min(config.pack_tokens, config.step_tokens))[-NUM_SHAPES:] if packed else []
    shapes = few if compiled or on_gpu else []  # what is compiled is compiled for each length
    return Layout(packed_batch if packed else batch_of, shapes, config.ce_chunk_tokens or chunk_labels_for(module))


def require_memory(
    config: SFTConfig, model: Model, module: Any, tokenizer: Any, examples: Examples, plan: Plan, *, home: Path
) -> Forecast:
    """What training will need. Raises Refused when this machine does not have it, with what to change. `module` is a blueprint."""
    device, dtype = preferred_device(), next(module.parameters()).dtype
    give_back_freed_memory()  # of earlier work of this process: it does not count
    limit_bytes, process_bytes = memory_limit_bytes(device), resident_bytes(device)

    def with_settings(changed: SFTConfig, module: Any) -> Forecast:
        with torch.device("meta"):
            attached = methods.attach(module, changed.method, tokenizer=tokenizer)
        return forecast_training(
            recompute_layers(attached) if changed.recompute else attached,
            four_bits=methods.base_weights(changed.method) == "nf4",
            packed=changed.pack_tokens > 0,
            plan=plan if changed is config else plan_of(changed, examples.num_tokens, Random, packed=changed.pack_tokens > 0),
            num_tokens=examples.num_tokens,
            num_trained=examples.num_trained,
            device=device,
            home=home,
            process_bytes=process_bytes,
        )

    forecast = with_settings(config, module)
    if forecast.bytes > limit_bytes:
        size = "pack_tokens" if config.pack_tokens else "micro_batch_tokens"
        most = min(getattr(config, size), config.step_tokens)
        smaller: list[dict[str, Any]] = [{size: most >> n} for n in range(1, 12) if most >> n >= 64]
        tried = [*([{"method": LoRA()}] if isinstance(config.method, Full) else []), *smaller]
        tried += [*([] if config.recompute else [{"recompute": True}])]
        changes = ((_said(change), with_settings(config.model_copy(update=change), blueprint(model, dtype))) for change in tried)
        require_fit(forecast, limit_bytes=limit_bytes, changes=changes)
    return forecast


def _said(change: Mapping[str, Any]) -> str:
    """As it is written on the command line."""
    values = {key: value.name if isinstance(value, LoRA) else str(value).lower() for key, value in change.items()}
    return " ".join(f"`--set {key}={value}`" for key, value in values.items())


def advice(config: SFTConfig) -> Advice:
    slower = f"{(config.learning_rate or config.method.learning_rate) / 5:g}"
    size = "pack_tokens" if config.pack_tokens else "micro_batch_tokens"
    smaller = [f"`{size}` to {max(1, min(getattr(config, size), config.step_tokens) // 2)}"]
    smaller += [*([] if config.recompute else ["`recompute` to true"]), *(["`method` to lora"] if isinstance(config.method, Full) else [])]
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
