"""Supervised fine-tuning: learn to answer as the examples do.

What is trained is the setting `method` (`lm/adapters/methods`): LoRA by default.

Source     Ouyang et al. 2022, arXiv:2203.02155, section 3.5
We differ  float32 masters behind bfloat16 weights; no dropout, not even where the architecture has some
Cost       one forward and one backward pass per token; the vocabulary product only where a label is
Dims       B examples   T tokens
"""

import math
import tempfile
import time
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.digest import digest_value
from mygpt.core.errors import MygptError
from mygpt.core.outbound import silence_hub
from mygpt.core.run import Run
from mygpt.lm.adapters import full, methods
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.adapters.methods import Method
from mygpt.lm.chat import ChatRenderer
from mygpt.lm.load import load_lm, load_tokenizer
from mygpt.training.batches import Plan, batch_of, plan_epoch
from mygpt.training.checkpoint import Checkpoints
from mygpt.training.losses import require_own_loss, summed_cross_entropy
from mygpt.training.optimizers import MasterAdamW
from mygpt.training.preflight import preflight
from mygpt.training.schedules import warmup_cosine

Share = Annotated[float, Field(ge=0, le=1)]


class SFTConfig(Config):
    method: Method = LoRA()
    learning_rate: PositiveFloat | None = None  # at its peak; None: the method's own
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
def sft(config: SFTConfig, *, model: Model, dataset: Dataset, replay: Dataset | None = None, run: Run) -> Adapter | Model:
    """Learn the split `train` of `dataset`: an Adapter on `model`, or a new Model when its own weights are trained.

    `replay` is learnt beside it, so that the model keeps what it could do.
    """
    torch.manual_seed(run.seed_for("sft"))
    dtype = None if config.precision == "auto" else getattr(torch, config.precision)
    loaded = load_lm(model, dtype=dtype, weights=methods.base_weights(config.method))
    makes_a_model = methods.makes_a_model(config.method)
    window = getattr(loaded.module.config.get_text_config(), "max_position_embeddings", None)
    renderer = ChatRenderer(loaded.tokenizer)
    rows = dataset.split("train") + (replay.split("train") if replay and dataset.split("train") else [])
    examples = [renderer.render(conversation) for conversation in rows]
    preflight(
        examples,
        renderer=renderer,
        max_example_tokens=config.max_example_tokens,
        serving_template=serving_template(model, loaded.tokenizer, new_model=makes_a_model),
        context_tokens=window and window - methods.num_virtual_tokens(config.method),
        run=run,
    )

    module = methods.attach(loaded.module, config.method, tokenizer=loaded.tokenizer)
    module.eval()  # gradients flow all the same; no dropout
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
    padding_id = loaded.tokenizer.pad_token_id or 0
    device = next(module.parameters()).device

    lengths = [len(e.token_ids) for e in examples]
    shortest = batch_of([examples[lengths.index(min(lengths))]], padding_id=padding_id, device=device)
    require_own_loss(module, shortest.ids_BT, shortest.trained_BT)
    plan: Plan = []
    for epoch in range(config.epochs):
        order = run.random(f"order/{epoch}")
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
            batch = batch_of([examples[i] for i in micro], padding_id=padding_id, device=device)
            loss = summed_cross_entropy(module, batch.ids_BT, batch.trained_BT) / num_trained
            loss.backward()
            step_loss += float(loss.detach())
        factor = warmup_cosine(step, num_steps=len(plan), warmup_share=config.warmup_share, final_share=config.final_share)
        grad_norm = optimizer.update(learning_rate=learning_rate * factor, max_grad_norm=config.max_grad_norm)

        seconds += time.perf_counter() - started
        tokens_done += tokens_of[step]
        curve.append([step + 1, round(step_loss, 4)])
        run.count(tokens=tokens_of[step])
        run.log(training_step=step + 1, loss=step_loss, grad_norm=grad_norm, learning_rate=learning_rate * factor)
        progress.advance(tokens_of[step], loss=round(step_loss, 3))
        if not (math.isfinite(step_loss) and math.isfinite(grad_norm)):
            checkpoints.clear()
            raise diverged(step + 1, step_loss, grad_norm, learning_rate)
        if checkpoints.due() and step + 1 < len(plan):
            checkpoints.save(step + 1, optimizer.state(), {"curve": curve, "seconds": seconds, "work": work})

    facts: dict[str, Any] = {
        "base": model.digest,
        **methods.facts(module, config.method, tokenizer=loaded.tokenizer),
        "trainable": sum(p.numel() for _, p in trainable),
        "curve": curve,
        "tokens": tokens_done,
        "tokens_per_second": round(tokens_done / max(seconds, 1e-9), 1),
        "template": renderer.template_digest,
        "precision": str(loaded.module.dtype).removeprefix("torch."),
    }
    origin = {"source": f"trained from {model.id}", "licence": model.manifest.provenance.get("licence")}
    if makes_a_model:
        facts = {**model.manifest.facts, "source": "tuned", **facts}
        tuned: Adapter | Model = publish(
            Model, run, lambda folder: full.save(module, loaded.tokenizer, folder), facts=facts, provenance=origin
        )
    else:
        save = partial(methods.save, module, config.method, base=model)
        tuned = publish(Adapter, run, lambda folder: save(folder=folder), facts=facts, provenance=origin)
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


def diverged(step: int, loss: float, grad_norm: float, learning_rate: float) -> MygptError:
    smaller = f"{learning_rate / 5:g}"
    return MygptError(
        f"The loss became {loss:.4g} and its gradient {grad_norm:.4g} at step {step} with learning rate {learning_rate:g}.",
        fix=f"Use a smaller `learning_rate`, for example {smaller} (with `mygpt up`: `--set sft.learning_rate={smaller}`).",
    )
