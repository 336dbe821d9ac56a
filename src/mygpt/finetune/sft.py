"""Supervised fine-tuning: learn to answer as the examples do.

Source     LoRA: Hu et al. 2021, arXiv:2106.09685, section 4.1 (adapters on all linear layers: Dettmers et al. 2023, arXiv:2305.14314)
We differ  float32 masters behind bfloat16 weights; no dropout, not even where the architecture has some
Cost       one forward and one backward pass per token; the vocabulary product only where a label is
Dims       B examples   T tokens
"""

import json
import math
import tempfile
import time
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.digest import digest_value
from mygpt.core.errors import MygptError
from mygpt.core.outbound import silence_hub
from mygpt.core.run import Run
from mygpt.lm.chat import ChatRenderer
from mygpt.lm.load import load_lm, load_tokenizer
from mygpt.training.batches import Plan, batch_of, padding_share, plan_epoch, shape_ladder, size_in_rows, size_packed
from mygpt.training.checkpoint import Checkpoints
from mygpt.training.compile_layers import NUM_SHAPES, compile_layers
from mygpt.training.losses import chunk_labels_for, require_own_loss, summed_cross_entropy
from mygpt.training.optimizers import MasterAdamW
from mygpt.training.packing import keeps_apart, packed_batch, plan_packed_epoch
from mygpt.training.preflight import preflight, without_over_long
from mygpt.training.recompute import recompute_layers
from mygpt.training.schedules import warmup_cosine

Share = Annotated[float, Field(ge=0, le=1)]


class SFTConfig(Config):
    """`rank` 0 trains every weight; any other rank trains LoRA adapters on all linear layers."""

    rank: NonNegativeInt = 16
    alpha: PositiveInt = 32  # updates are scaled by alpha / rank
    learning_rate: PositiveFloat = 5e-4
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
def sft(config: SFTConfig, *, model: Model, dataset: Dataset, replay: Dataset | None = None, run: Run) -> Adapter | Model:
    """Learn the split `train` of `dataset`: an Adapter on `model`, or a new Model when every weight is trained.

    `replay` is learnt beside it, so that the model keeps what it could do.
    """
    torch.manual_seed(run.seed_for("sft"))
    loaded = load_lm(model, dtype=None if config.precision == "auto" else getattr(torch, config.precision))
    renderer = ChatRenderer(loaded.tokenizer)
    rows = dataset.split("train") + (replay.split("train") if replay and dataset.split("train") else [])
    examples = [renderer.render(conversation) for conversation in rows]
    context_tokens = getattr(loaded.module.config.get_text_config(), "max_position_embeddings", None)
    num_rows = len(examples)
    if config.drop_over_long:
        examples = without_over_long(examples, max_example_tokens=config.max_example_tokens, context_tokens=context_tokens, run=run)
    preflight(
        examples,
        renderer=renderer,
        max_example_tokens=config.max_example_tokens,
        serving_template=serving_template(model, loaded.tokenizer, new_model=config.rank == 0),
        context_tokens=context_tokens,
        run=run,
    )

    module = with_lora(loaded.module, config) if config.rank else loaded.module.requires_grad_(True)
    module.eval()  # gradients flow all the same; no dropout
    trainable = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    optimizer = MasterAdamW(trainable, learning_rate=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.999))
    padding_id = loaded.tokenizer.pad_token_id or 0
    device = next(module.parameters()).device

    lengths = [len(e.token_ids) for e in examples]
    shortest = batch_of([examples[lengths.index(min(lengths))]], padding_id=padding_id, device=device)
    require_own_loss(module, shortest.ids_BT, shortest.trained_BT)
    if config.recompute:
        recompute_layers(module)
    packed = config.pack_tokens > 0 and keeps_apart(module, examples, run=run)
    compiled = config.compile_layers and packed
    if compiled:
        run.note("Layers are compiled at the first rows of each length: the first steps take longer, a minute or more.")
        compile_layers(module)
    elif config.compile_layers:
        run.warn("Layers are not compiled: rows of one example each come in too many shapes.")
    few = shape_ladder(min(config.pack_tokens, config.step_tokens))[-NUM_SHAPES:]
    shapes = few if compiled or (packed and device.type == "cuda") else []  # what is compiled is compiled for each length
    chunk_labels = config.ce_chunk_tokens or chunk_labels_for(module)
    plan: Plan = []
    for epoch in range(config.epochs):
        order = run.random(f"order/{epoch}")
        if packed:
            plan += plan_packed_epoch(lengths, step_tokens=config.step_tokens, pack_tokens=config.pack_tokens, order=order)
        else:
            plan += plan_epoch(lengths, step_tokens=config.step_tokens, micro_batch_tokens=config.micro_batch_tokens, order=order)

    checkpoints = Checkpoints(run.home, run.making.request, every_seconds=config.checkpoint_seconds)
    work = digest_value([plan, [name for name, _ in trainable], str(loaded.module.dtype)])  # what a checkpoint must fit
    first_step, curve, seconds = 0, [], 0.0
    if (saved := checkpoints.latest(run=run)) is not None and saved[2].get("work") == work:
        first_step, tensors, log = saved
        optimizer.restore(tensors)
        curve, seconds = log["curve"], log["seconds"]
        run.making.started -= seconds  # what was spent before the kill is part of the cost
        run.note(f"Going on from step {first_step} of {len(plan)}.")
    elif saved is not None:
        run.warn("A checkpoint of this training was written by another version or machine: training begins anew.")

    tokens_of = [sum(lengths[i] for micro in step for i in micro) for step in plan]
    tokens_done = sum(tokens_of[:first_step])
    progress = run.progress(sum(tokens_of), "tokens")
    progress.resume_at(tokens_done)
    run.count(tokens=tokens_done)
    for step in range(first_step, len(plan)):
        started = time.perf_counter()
        num_trained = sum(sum(examples[i].trained[1:]) for micro in plan[step] for i in micro)
        step_loss = 0.0
        for micro in plan[step]:
            form = packed_batch if packed else batch_of
            batch = form([examples[i] for i in micro], padding_id=padding_id, device=device, shapes=shapes)
            nats = summed_cross_entropy(module, batch.ids_BT, batch.trained_BT, positions_BT=batch.positions_BT, chunk_labels=chunk_labels)
            loss = nats / num_trained
            loss.backward()
            step_loss += float(loss.detach())
        factor = warmup_cosine(step, num_steps=len(plan), warmup_share=config.warmup_share, final_share=config.final_share)
        grad_norm = optimizer.update(learning_rate=config.learning_rate * factor, max_grad_norm=config.max_grad_norm)

        seconds += time.perf_counter() - started
        tokens_done += tokens_of[step]
        curve.append([step + 1, round(step_loss, 4)])
        run.count(tokens=tokens_of[step])
        run.log(training_step=step + 1, loss=step_loss, grad_norm=grad_norm, learning_rate=config.learning_rate * factor)
        progress.advance(tokens_of[step], loss=round(step_loss, 3))
        if not (math.isfinite(step_loss) and math.isfinite(grad_norm)):
            checkpoints.clear()
            raise diverged(step + 1, step_loss, grad_norm, config)
        if checkpoints.due() and step + 1 < len(plan):
            checkpoints.save(step + 1, optimizer.state(), {"curve": curve, "seconds": seconds, "work": work})

    facts: dict[str, Any] = {
        "base": model.digest,
        "method": "lora" if config.rank else "full",
        "trainable": sum(p.numel() for _, p in trainable),
        "curve": curve,
        "packed": packed,
        "padding": round(padding_share(plan, lengths, size=size_packed if packed else size_in_rows, shapes=shapes), 4),
        "over_long_dropped": num_rows - len(examples),
        "tokens": tokens_done,
        "tokens_per_second": round(tokens_done / max(seconds, 1e-9), 1),
        "template": renderer.template_digest,
        "precision": str(loaded.module.dtype).removeprefix("torch."),
    }
    origin = {"source": f"trained from {model.id}", "licence": model.manifest.provenance.get("licence")}
    if config.rank:
        tuned: Adapter | Model = publish(Adapter, run, lambda folder: save_adapter(module, model, folder), facts=facts, provenance=origin)
    else:
        facts = {**model.manifest.facts, "source": "tuned", **facts}
        tuned = publish(Model, run, lambda folder: save_model(module, loaded.tokenizer, folder), facts=facts, provenance=origin)
    checkpoints.clear()
    return tuned


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


def diverged(step: int, loss: float, grad_norm: float, config: SFTConfig) -> MygptError:
    smaller = f"{config.learning_rate / 5:g}"
    return MygptError(
        f"The loss became {loss:.4g} and its gradient {grad_norm:.4g} at step {step} with learning rate {config.learning_rate:g}.",
        fix=f"Use a smaller `learning_rate`, for example {smaller} (with `mygpt up`: `--set sft.learning_rate={smaller}`).",
    )
