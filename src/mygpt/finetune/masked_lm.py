"""Masked language modelling: go on teaching an encoder the language of your texts, by hiding tokens and asking for them.

    15 % of the tokens of a text are asked for. Of those 80 % are replaced by the mask token, 10 % by a random one, 10 % stay.

Source     Devlin et al. 2018, arXiv:1810.04805, section 3.1 (task 1); masks drawn anew each epoch: Liu et al. 2019, arXiv:1907.11692,
           section 4.1
We differ  texts are cut into windows and never joined, so that no window has two texts in it; a random token is never a special one; the
           masks of a window depend on seed, epoch and window alone, so that a resumed run meets the same; no dropout
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from pydantic import PositiveInt

from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import recipe
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.lm.inputs import Encoded, encode_windows, length_batches, padded
from mygpt.training.activations import ForwardPass, masked_pass, rows_of
from mygpt.training.distributed import on_ranks
from mygpt.training.fit import compared, foreseen, nothing_to_learn, require_rows_memory
from mygpt.training.forecast import Forecast
from mygpt.training.label_losses import NO_LABEL, require_own_masked_loss, summed_masked_loss
from mygpt.training.steps import Examples
from mygpt.training.tuning import (
    Share,
    TuningConfig,
    blueprint_for,
    example_tokens,
    learnt,
    numbered_on,
    opened_for,
    plan_epochs,
    publish_tuned,
    rate_at,
    require_examples,
    tuning_steps,
    with_method,
)

MASKED, REPLACED = 0.8, 0.1  # of the tokens asked for


class MaskedLMConfig(TuningConfig):
    step_tokens: PositiveInt = 4096  # padded tokens per update
    asked_share: Share = 0.15


@recipe
@on_ranks
def masked_lm(config: MaskedLMConfig, *, model: Model, dataset: Dataset, run: Run) -> Adapter | Model:
    """Learn the split `train` of `dataset` (schema `text`) and measure on `test`: a new Model, or an Adapter on `model`."""
    bare = blueprint_for("masked_lm", model, config)
    tokenizer, allowed = bare.tokenizer, example_tokens(bare, config)
    if tokenizer.mask_token_id is None:
        raise Refused(
            f"The tokenizer of {model.id} has no mask token.", fix="Choose a model that was trained with masks, such as BERT or RoBERTa."
        )
    special = frozenset(tokenizer.all_special_ids)
    ordinary = [token for token in range(len(tokenizer)) if token not in special]
    train, held_out = (windows(tokenizer, dataset.texts(split), allowed) for split in ("train", "test"))
    lengths = [len(window) for window in train]
    require_examples(lengths, allowed=allowed, what="windows", fix="")
    num_asked = [asked_tokens(window, special, config.asked_share) for window in train]
    forecast = _forecast(config, model, Examples((), lengths, num_asked), order=run.random, home=run.home)
    run.note(f"Training needs {forecast.told()}.")

    def asked(windows: Sequence[Encoded], number: int, stream: str) -> tuple[Encoded, list[int]]:
        window, draw = windows[number % len(windows)], run.random(f"masks/{stream}/{number}")
        return mask(window, mask_id=tokenizer.mask_token_id, special=special, ordinary=ordinary, share=config.asked_share, draw=draw)

    opened = opened_for("masked_lm", model, config, run=run)
    fixed = [asked(held_out, number, "held out") for number in range(len(held_out))]
    before = held_out_scores(opened.module, fixed, padding_id=tokenizer.pad_token_id)
    module = with_method(opened, config, run=run)
    plan = numbered_on(plan_epochs(lengths, config, step_tokens=config.step_tokens, order=run.random), len(train))
    example, labels = min((asked(train, i, "train") for i in range(len(train))), key=lambda pair: len(pair[0]))
    require_own_masked_loss(module, padded([example], module, padding_id=tokenizer.pad_token_id), [labels])
    names = [f"window {i}" for i in range(len(train))]
    known = Examples(names * config.epochs, num_tokens=lengths * config.epochs, num_trained=num_asked * config.epochs)
    with tuning_steps(plan, known, module=module, config=config, run=run) as steps:
        for step in steps:
            made_anew = {i: asked(train, i, "train") for i in step.rows}  # `i` counts on from epoch to epoch
            for numbers in step.micro_batches:
                inputs = padded([made_anew[i][0] for i in numbers], module, padding_id=tokenizer.pad_token_id)
                loss = summed_masked_loss(module, inputs, [made_anew[i][1] for i in numbers]) / step.num_trained
                loss.backward()
                step.add(loss, computed_tokens=inputs["input_ids"].numel())
            step.update(learning_rate=rate_at(step, config), max_grad_norm=config.max_grad_norm)

    after = held_out_scores(module, fixed, padding_id=tokenizer.pad_token_id)
    facts = {**learnt(module, opened, config, steps), **compared(forecast, steps, home=run.home)}
    facts |= {"windows": len(train), "held_out": after, "held_out_before": before}
    told = f"{before['loss']:.3f} nats a masked token before, {after['loss']:.3f} after" if before and after else ""
    made = publish_tuned(module, opened, config, facts=facts, told=told, run=run)
    steps.checkpoints.clear()
    return made


def masked_lm_forecast(config: MaskedLMConfig, *, model: Model, dataset: Dataset, home: Path) -> dict[str, Any]:
    """What `masked_lm` would do and need, said by `--dry-run`. No weight is loaded."""
    bare = blueprint_for("masked_lm", model, config)
    train = windows(bare.tokenizer, dataset.texts("train"), example_tokens(bare, config))
    if not train:
        return nothing_to_learn()
    special = frozenset(bare.tokenizer.all_special_ids)
    known = Examples((), [len(window) for window in train], [asked_tokens(window, special, config.asked_share) for window in train])
    return foreseen(_forecast(config, model, known, order=Random, home=home), examples=len(train))


def _forecast(config: MaskedLMConfig, model: Model, known: Examples, *, order: Callable[[str], Random], home: Path) -> Forecast:
    forward = ForwardPass(masked_pass, rows_of(known.num_tokens))
    return require_rows_memory("masked_lm", config, model, known, forward, step_tokens=config.step_tokens, order=order, home=home)


def windows(tokenizer: Any, texts: Sequence[str], num_tokens: int) -> list[Encoded]:
    """Without those in which there is nothing to hide."""
    special = frozenset(tokenizer.all_special_ids)
    return [w for text in texts for w in encode_windows(tokenizer, text, max_tokens=num_tokens) if set(w.token_ids) - special]


def asked_tokens(window: Encoded, special: frozenset[int], share: float) -> int:
    """How many tokens of a window are asked for: the same in every epoch, and at least one."""
    return max(1, round(share * sum(token not in special for token in window.token_ids)))


def mask(
    window: Encoded, *, mask_id: int, special: frozenset[int], ordinary: Sequence[int], share: float, draw: Random
) -> tuple[Encoded, list[int]]:
    """(the window as it is read, the right token where one is asked for and NO_LABEL elsewhere)."""
    places = [place for place, token in enumerate(window.token_ids) if token not in special]
    ids, labels = list(window.token_ids), [NO_LABEL] * len(window)
    for place in sorted(draw.sample(places, asked_tokens(window, special, share))):
        labels[place] = ids[place]
        lot = draw.random()
        if lot < MASKED:
            ids[place] = mask_id
        elif lot < MASKED + REPLACED:
            ids[place] = draw.choice(ordinary)
    return Encoded(tuple(ids), window.segments), labels


@torch.no_grad()
def held_out_scores(module: Any, asked: Sequence[tuple[Encoded, list[int]]], *, padding_id: int) -> dict[str, Any] | None:
    """Nats per asked token, and the share of them that the likeliest token is right for, on masks that stay the same."""
    if not asked:
        return None
    loss, num_right, num_labels = 0.0, 0, 0
    for rows in length_batches([len(window) for window, _ in asked], 4_096):
        logits_BTV = module(**padded([asked[i][0] for i in rows], module, padding_id=padding_id)).logits.float()
        for logits_TV, i in zip(logits_BTV, rows, strict=True):
            right = {place: label for place, label in enumerate(asked[i][1]) if label != NO_LABEL}
            log_p_NV = logits_TV[list(right)].log_softmax(-1)
            right_N = torch.tensor(list(right.values()), device=log_p_NV.device)
            loss -= float(log_p_NV.gather(1, right_N[:, None]).sum())
            num_right += int((log_p_NV.argmax(-1) == right_N).sum())
            num_labels += len(right)
    return {"windows": len(asked), "tokens": num_labels, "loss": loss / num_labels, "accuracy": num_right / num_labels}
