"""Supervised fine-tuning: learn to answer as the examples do.

Source     LoRA: Hu et al. 2021, arXiv:2106.09685, section 4.1 (adapters on all linear layers: Dettmers et al. 2023, arXiv:2305.14314)
We differ  float32 masters behind bfloat16 weights; no dropout
Cost       one forward and one backward pass per token; the vocabulary product only where a label is
Dims       B examples   T tokens
"""

import math
import time
from pathlib import Path
from typing import Any, Literal

import torch

from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.errors import MygptError
from mygpt.core.outbound import silence_hub
from mygpt.core.run import Run
from mygpt.lm.chat import ChatRenderer
from mygpt.lm.load import load_lm
from mygpt.training.batches import Plan, batch_of, plan_epoch
from mygpt.training.checkpoint import Checkpoints
from mygpt.training.losses import summed_cross_entropy
from mygpt.training.optimizers import MasterAdamW
from mygpt.training.preflight import preflight
from mygpt.training.schedules import warmup_cosine


class SFTConfig(Config):
    """`rank` 0 trains every weight; any other rank trains LoRA adapters on all linear layers."""

    rank: int = 16
    alpha: int = 32  # updates are scaled by alpha / rank
    learning_rate: float = 5e-4
    epochs: int = 3
    step_tokens: int = 1024  # padded tokens per update
    micro_batch_tokens: int = 2048  # padded tokens per forward pass: what memory allows
    max_example_tokens: int = 1024
    warmup_share: float = 0.1
    final_share: float = 0.1  # of the peak learning rate, at the end
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    checkpoint_seconds: float = 30.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 where the machine multiplies it fast


@recipe
def sft(config: SFTConfig, *, model: Model, dataset: Dataset, run: Run) -> Adapter | Model:
    """Learn the split `train` of `dataset`: an Adapter on `model`, or a new Model when every weight is trained."""
    torch.manual_seed(run.seed_for("sft"))
    loaded = load_lm(model, dtype=None if config.precision == "auto" else getattr(torch, config.precision))
    renderer = ChatRenderer(loaded.tokenizer)
    examples = [renderer.render(conversation) for conversation in dataset.split("train")]
    preflight(
        examples, renderer=renderer, max_example_tokens=config.max_example_tokens, serving_template=renderer.template_digest, run=run
    )

    module = with_lora(loaded.module, config) if config.rank else loaded.module.requires_grad_(True)
    module.train()
    trainable = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    optimizer = MasterAdamW(trainable, learning_rate=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.999))
    padding_id = loaded.tokenizer.pad_token_id or 0
    device = next(module.parameters()).device

    plan: Plan = []
    for epoch in range(config.epochs):
        lengths = [len(e.token_ids) for e in examples]
        order = run.random(f"order/{epoch}")
        plan += plan_epoch(lengths, step_tokens=config.step_tokens, micro_batch_tokens=config.micro_batch_tokens, order=order)

    checkpoints = Checkpoints(run.home, run.making.request, every_seconds=config.checkpoint_seconds)
    first_step, curve, seconds = 0, [], 0.0
    if (saved := checkpoints.latest()) is not None:
        first_step, tensors, log = saved
        optimizer.restore(tensors)
        curve, seconds = log["curve"], log["seconds"]
        run.note(f"Going on from step {first_step} of {len(plan)}.")

    tokens_of = [[sum(len(examples[i].token_ids) for i in micro) for micro in step] for step in plan]
    tokens_done = sum(map(sum, tokens_of[:first_step]))
    progress = run.progress(sum(map(sum, tokens_of)), "tokens")
    progress.resume_at(tokens_done)
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
        grad_norm = optimizer.update(learning_rate=config.learning_rate * factor, max_grad_norm=config.max_grad_norm)

        seconds += time.perf_counter() - started
        tokens_done += sum(tokens_of[step])
        curve.append([step + 1, round(step_loss, 4)])
        run.count(tokens=sum(tokens_of[step]))
        run.log(training_step=step + 1, loss=step_loss, grad_norm=grad_norm, learning_rate=config.learning_rate * factor)
        progress.advance(sum(tokens_of[step]), loss=round(step_loss, 3))
        if not math.isfinite(step_loss):
            checkpoints.clear()
            raise diverged(step + 1, step_loss, config)
        if checkpoints.due() and step + 1 < len(plan):
            checkpoints.save(step + 1, optimizer.state(), {"curve": curve, "seconds": seconds})

    facts: dict[str, Any] = {
        "base": model.digest,
        "method": "lora" if config.rank else "full",
        "trainable": sum(p.numel() for _, p in trainable),
        "curve": curve,
        "tokens": tokens_done,
        "tokens_per_second": round(tokens_done / max(seconds, 1e-9), 1),
        "template": renderer.template_digest,
        "precision": str(loaded.module.dtype).removeprefix("torch."),
    }
    if config.rank:
        tuned: Adapter | Model = publish(Adapter, run, lambda folder: save_adapter(module, folder), facts=facts)
    else:
        facts = {**model.manifest.facts, **facts}
        tuned = publish(Model, run, lambda folder: save_model(module, loaded.tokenizer, folder), facts=facts)
    checkpoints.clear()
    return tuned


def with_lora(module: Any, config: SFTConfig) -> Any:
    """`module` frozen, with trainable low-rank updates on all linear layers except the head, in the module's precision."""
    silence_hub()
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=config.rank, lora_alpha=config.alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(module, settings, autocast_adapter_dtype=False)


def save_adapter(module: Any, folder: Path) -> None:
    module.save_pretrained(folder, safe_serialization=True)
    (folder / "README.md").unlink(missing_ok=True)  # peft's template of a card


def save_model(module: Any, tokenizer: Any, folder: Path) -> None:
    module.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def diverged(step: int, loss: float, config: SFTConfig) -> MygptError:
    return MygptError(
        f"The loss became {loss} at step {step} with learning rate {config.learning_rate}.",
        fix=f"Use a smaller one, for example `--set sft.learning_rate={config.learning_rate / 5:g}`.",
    )
