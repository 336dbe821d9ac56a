"""Masked language modelling: go on teaching an encoder the language of your texts, by hiding tokens and asking for them.

    15 % of the tokens of a text are asked for. Of those 80 % are replaced by the mask token, 10 % by a random one, 10 % stay.

Source     Devlin et al. 2018, arXiv:1810.04805, section 3.1 (task 1); masks drawn anew each epoch: Liu et al. 2019, arXiv:1907.11692,
           section 4.1
We differ  texts are cut into windows and never joined, so that no window has two texts in it; a random token is never a special one; the
           masks of a window depend on seed, epoch and window alone, so that a resumed run meets the same; no dropout
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
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
from mygpt.lm.chat import Rendered
from mygpt.lm.inputs import Encoded, encode_windows, length_batches, padded
from mygpt.training.activations import ForwardPass, masked_pass, rows_of
from mygpt.training.distributed import on_ranks
from mygpt.training.example_file import ExampleFile, examples_on_disk
from mygpt.training.fit import compared, foreseen, nothing_to_learn, require_rows_memory
from mygpt.training.forecast import Forecast
from mygpt.training.label_losses import NO_LABEL, require_own_masked_loss, summed_masked_loss
from mygpt.training.steps import Examples
from mygpt.training.tuning import (
    Repeated,
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
_MEASURED_TOGETHER = 256  # held-out windows in memory at a time


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
    named = named_windows(dataset, "train", tokenizer, allowed)
    with examples_on_disk(named, rendered_by="plain text", run=run) as examples:
        return learnt_from(examples, config, model=model, dataset=dataset, tokenizer=tokenizer, allowed=allowed, run=run)


def learnt_from(
    examples: ExampleFile, config: MaskedLMConfig, *, model: Model, dataset: Dataset, tokenizer: Any, allowed: int, run: Run
) -> Adapter | Model:
    """The training itself. Windows are read where a batch is made of them."""
    special = frozenset(tokenizer.all_special_ids)
    ordinary = [token for token in range(len(tokenizer)) if token not in special]
    lengths = examples.num_tokens
    require_examples(lengths, allowed=allowed, what="windows", fix="")
    num_asked = [asked_tokens(window_of(example), special, config.asked_share) for example in examples]
    forecast = _forecast(config, model, Examples((), lengths, num_asked), order=run.random, home=run.home)
    run.note(f"Training needs {forecast.told()}.")

    def asked(example: Rendered, number: int, stream: str) -> tuple[Encoded, list[int]]:
        draw = run.random(f"masks/{stream}/{number}")
        window = window_of(example)
        return mask(window, mask_id=tokenizer.mask_token_id, special=special, ordinary=ordinary, share=config.asked_share, draw=draw)

    def learnt_window(number: int) -> tuple[Encoded, list[int]]:
        """`number` counts on from epoch to epoch: other masks in each."""
        return asked(examples[number % len(examples)], number, "train")

    def held_out() -> Iterator[tuple[Encoded, list[int]]]:
        named = named_windows(dataset, "test", tokenizer, allowed)
        return (asked(window, number, "held out") for number, (_, window) in enumerate(named))

    opened = opened_for("masked_lm", model, config, run=run)
    before = held_out_scores(opened.module, held_out(), padding_id=tokenizer.pad_token_id)
    module = with_method(opened, config, run=run)
    plan = numbered_on(plan_epochs(lengths, config, step_tokens=config.step_tokens, order=run.random), len(examples))
    example, labels = learnt_window(min(range(len(examples)), key=lengths.__getitem__))
    require_own_masked_loss(module, padded([example], module, padding_id=tokenizer.pad_token_id), [labels])
    names, num_tokens, num_trained = (Repeated(once, config.epochs) for once in (examples.names, lengths, num_asked))
    known = Examples(names, num_tokens=num_tokens, num_trained=num_trained)
    with tuning_steps(plan, known, module=module, config=config, run=run) as steps:
        for step in steps:
            made_anew = {i: learnt_window(i) for i in step.rows}
            for numbers in step.micro_batches:
                inputs = padded([made_anew[i][0] for i in numbers], module, padding_id=tokenizer.pad_token_id)
                loss = summed_masked_loss(module, inputs, [made_anew[i][1] for i in numbers]) / step.num_trained
                loss.backward()
                step.add(loss, computed_tokens=inputs["input_ids"].numel())
            step.update(learning_rate=rate_at(step, config), max_grad_norm=config.max_grad_norm)

    after = held_out_scores(module, held_out(), padding_id=tokenizer.pad_token_id)
    facts = {**learnt(module, opened, config, steps), **compared(forecast, steps, home=run.home)}
    facts |= {"windows": len(examples), "held_out": after, "held_out_before": before}
    told = f"{before['loss']:.3f} nats a masked token before, {after['loss']:.3f} after" if before and after else ""
    made = publish_tuned(module, opened, config, facts=facts, told=told, run=run)
    steps.checkpoints.clear()
    return made


def masked_lm_forecast(config: MaskedLMConfig, *, model: Model, dataset: Dataset, home: Path) -> dict[str, Any]:
    """What `masked_lm` would do and need, said by `--dry-run`. No weight is loaded."""
    bare = blueprint_for("masked_lm", model, config)
    special = frozenset(bare.tokenizer.all_special_ids)
    named = named_windows(dataset, "train", bare.tokenizer, example_tokens(bare, config))
    counted = [(len(w.token_ids), asked_tokens(window_of(w), special, config.asked_share)) for _, w in named]
    if not counted:
        return nothing_to_learn()
    lengths, num_asked = map(list, zip(*counted, strict=True))
    return foreseen(_forecast(config, model, Examples((), lengths, num_asked), order=Random, home=home), examples=len(counted))


def _forecast(config: MaskedLMConfig, model: Model, known: Examples, *, order: Callable[[str], Random], home: Path) -> Forecast:
    forward = ForwardPass(masked_pass, rows_of(known.num_tokens))
    return require_rows_memory("masked_lm", config, model, known, forward, step_tokens=config.step_tokens, order=order, home=home)


def named_windows(dataset: Dataset, split: str, tokenizer: Any, num_tokens: int) -> Iterator[tuple[str, Rendered]]:
    """Each window with the text that it is of, and which of its windows. Without those in which there is nothing to hide."""
    special = frozenset(tokenizer.all_special_ids)
    for name, text in dataset.stream_texts(split):
        for number, window in enumerate(encode_windows(tokenizer, text, max_tokens=num_tokens), start=1):
            assert not any(window.segments), "a text alone is one segment"
            if set(window.token_ids) - special:
                yield f"{name}, window {number}", Rendered(window.token_ids, (True,) * len(window), ())


def window_of(example: Rendered) -> Encoded:
    return Encoded(example.token_ids, (0,) * len(example.token_ids))


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
def held_out_scores(module: Any, asked: Iterator[tuple[Encoded, list[int]]], *, padding_id: int) -> dict[str, Any] | None:
    """Nats per asked token, and the share of them that the likeliest token is right for, on masks that stay the same. Some in memory at a
    time."""
    loss, num_right, num_labels, num_windows = 0.0, 0, 0, 0
    while together := list(islice(asked, _MEASURED_TOGETHER)):
        num_windows += len(together)
        for rows in length_batches([len(window) for window, _ in together], 4_096):
            logits_BTV = module(**padded([together[i][0] for i in rows], module, padding_id=padding_id)).logits.float()
            for logits_TV, i in zip(logits_BTV, rows, strict=True):
                right = {place: label for place, label in enumerate(together[i][1]) if label != NO_LABEL}
                log_p_NV = logits_TV[list(right)].log_softmax(-1)
                right_N = torch.tensor(list(right.values()), device=log_p_NV.device)
                loss -= float(log_p_NV.gather(1, right_N[:, None]).sum())
                num_right += int((log_p_NV.argmax(-1) == right_N).sum())
                num_labels += len(right)
    if not num_labels:
        return None
    return {"windows": num_windows, "tokens": num_labels, "loss": loss / num_labels, "accuracy": num_right / num_labels}
