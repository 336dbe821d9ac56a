"""Span corruption: go on teaching an encoder-decoder the language of your texts. Spans are dropped, a sentinel stands for each; the decoder
writes each sentinel and what it stands for.

    read     Thank you <0> me to your party <1> week
    written  <0> for inviting <1> last <2>

Source     Raffel et al. 2019, arXiv:1910.10683, section 3.1.4 and figure 2; 15 % of the tokens in spans of 3 on average: section 3.3.4; how
           spans are drawn: their `random_spans_noise_mask`
We differ  texts are cut into windows and never joined; a last sentinel closes what is written, as in the figure; spans depend on seed,
           epoch and window alone, so that a resumed run meets the same; no dropout
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, islice, pairwise
from pathlib import Path
from random import Random
from typing import Any

import torch
from pydantic import PositiveFloat, PositiveInt

from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import recipe
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.lm.chat import Rendered
from mygpt.lm.heads import Opened
from mygpt.lm.inputs import Encoded, length_batches, padded
from mygpt.training.distributed import on_ranks
from mygpt.training.example_file import ExampleFile, examples_on_disk
from mygpt.training.fit import compared, foreseen, nothing_to_learn, require_answers_memory
from mygpt.training.label_losses import require_own_answer_loss, summed_answer_loss
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

_MEASURED_TOGETHER = 256  # held-out windows in memory at a time
Span = tuple[int, int]  # first token, token after the last


class SpanCorruptionConfig(TuningConfig):
    step_tokens: PositiveInt = 4096  # padded tokens read and written per update
    noise_share: Share = 0.15  # of the tokens: dropped
    mean_span: PositiveFloat = 3.0  # tokens


@recipe
@on_ranks
def span_corruption(config: SpanCorruptionConfig, *, model: Model, dataset: Dataset, run: Run) -> Adapter | Model:
    """Learn the split `train` of `dataset` (schema `text`) and measure on `test`: a new Model, or an Adapter on `model`."""
    bare = blueprint_for("seq2seq_lm", model, config)
    sentinels = sentinel_ids(bare)
    allowed = example_tokens(bare, config) - 1  # the end token
    named = named_windows(dataset, "train", bare.tokenizer, allowed)
    with examples_on_disk(named, rendered_by="plain text", run=run) as examples:
        return learnt_from(examples, config, model=model, dataset=dataset, bare=bare, sentinels=sentinels, allowed=allowed, run=run)


def learnt_from(
    examples: ExampleFile,
    config: SpanCorruptionConfig,
    *,
    model: Model,
    dataset: Dataset,
    bare: Opened,
    sentinels: Sequence[int],
    allowed: int,
    run: Run,
) -> Adapter | Model:
    """The training itself. Windows are read where a batch is made of them."""
    end_id, padding_id = bare.tokenizer.eos_token_id, bare.tokenizer.pad_token_id

    def corrupted(window: Rendered, number: int, stream: str) -> tuple[Encoded, list[int]]:
        spans = draw_spans(len(window.token_ids), config, draw=run.random(f"spans/{stream}/{number}"))
        read, written = corrupt(window.token_ids, spans, sentinels)
        return Encoded((*read, end_id), (0,) * (len(read) + 1)), [*written, end_id]

    def learnt_window(number: int) -> tuple[Encoded, list[int]]:
        """`number` counts on from epoch to epoch: other spans in each."""
        return corrupted(examples[number % len(examples)], number, "train")

    def held_out() -> Iterator[tuple[Encoded, list[int]]]:
        named = named_windows(dataset, "test", bare.tokenizer, allowed)
        return (corrupted(window, number, "held out") for number, (_, window) in enumerate(named))

    found = {*examples.num_tokens, *(len(w.token_ids) for _, w in named_windows(dataset, "test", bare.tokenizer, allowed))}
    num_spans = max((spans_of(length, config)[1] for length in found), default=0)
    if num_spans >= len(sentinels):
        what = f"A window of {allowed} tokens has {num_spans} spans, and the tokenizer {len(sentinels)} sentinels."
        raise Refused(what, fix="Set `max_example_tokens` lower, or `mean_span` higher.")
    sizes = [corrupted_tokens(length, config) for length in examples.num_tokens]
    lengths = [sum(size) for size in sizes]
    require_examples(lengths, allowed=max(lengths, default=0), what="windows", fix="")
    forecast = require_answers_memory(config, model, sizes, step_tokens=config.step_tokens, order=run.random, home=run.home)
    run.note(f"Training needs {forecast.told()}.")

    opened = opened_for("seq2seq_lm", model, config, run=run)
    before = held_out_loss(opened.module, held_out(), padding_id=padding_id)
    module = with_method(opened, config, run=run)
    plan = numbered_on(plan_epochs(lengths, config, step_tokens=config.step_tokens, order=run.random), len(examples))
    example, answer = learnt_window(min(range(len(examples)), key=sizes.__getitem__))
    require_own_answer_loss(module, padded([example], module, padding_id=padding_id), [answer])
    num_written = [written for _, written in sizes]
    names, num_tokens, num_trained = (Repeated(once, config.epochs) for once in (examples.names, lengths, num_written))
    known = Examples(names, num_tokens=num_tokens, num_trained=num_trained)
    with tuning_steps(plan, known, module=module, config=config, run=run) as steps:
        for step in steps:
            made_anew = {i: learnt_window(i) for i in step.rows}
            for numbers in step.micro_batches:
                inputs = padded([made_anew[i][0] for i in numbers], module, padding_id=padding_id)
                answers = [made_anew[i][1] for i in numbers]
                loss = summed_answer_loss(module, inputs, answers) / step.num_trained
                loss.backward()
                step.add(loss, computed_tokens=inputs["input_ids"].numel() + len(answers) * max(map(len, answers)))
            step.update(learning_rate=rate_at(step, config), max_grad_norm=config.max_grad_norm)

    after = held_out_loss(module, held_out(), padding_id=padding_id)
    facts = {**learnt(module, opened, config, steps), **compared(forecast, steps, home=run.home)}
    facts |= {"windows": len(examples), "held_out": after, "held_out_before": before}
    told = f"{before['loss']:.3f} nats a written token before, {after['loss']:.3f} after" if before and after else ""
    made = publish_tuned(module, opened, config, facts=facts, told=told, run=run)
    steps.checkpoints.clear()
    return made


def span_corruption_forecast(config: SpanCorruptionConfig, *, model: Model, dataset: Dataset, home: Path) -> dict[str, Any]:
    """What `span_corruption` would do and need, said by `--dry-run`. No weight is loaded."""
    bare = blueprint_for("seq2seq_lm", model, config)
    named = named_windows(dataset, "train", bare.tokenizer, example_tokens(bare, config) - 1)
    sizes = [corrupted_tokens(len(window.token_ids), config) for _, window in named]
    if not sizes:
        return nothing_to_learn()
    forecast = require_answers_memory(config, model, sizes, step_tokens=config.step_tokens, order=Random, home=home)
    return foreseen(forecast, examples=len(sizes))


def sentinel_ids(opened: Opened) -> list[int]:
    """`<extra_id_0>`, `<extra_id_1>`, ... of the tokenizer. Raises Refused where there are none."""
    vocabulary, found = opened.tokenizer.get_vocab(), list[int]()
    while (token := f"<extra_id_{len(found)}>") in vocabulary:
        found.append(vocabulary[token])
    if not found:
        raise Refused(f"The tokenizer of {opened.model.id} has no sentinels (<extra_id_0>, ...).", fix="Choose a model of T5's kind.")
    return found


def named_windows(dataset: Dataset, split: str, tokenizer: Any, num_tokens: int) -> Iterator[tuple[str, Rendered]]:
    """Each window with the text that it is of, and which of its windows."""
    for name, text in dataset.stream_texts(split):
        for number, piece in enumerate(windows(tokenizer, text, num_tokens), start=1):
            yield f"{name}, window {number}", Rendered(piece, (True,) * len(piece), ())


def windows(tokenizer: Any, text: str, num_tokens: int) -> list[tuple[int, ...]]:
    """Consecutive pieces of a text, without what stands around it. A piece of one token cannot be corrupted and is left out."""
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    pieces = [tuple(ids[start : start + num_tokens]) for start in range(0, len(ids), num_tokens)]
    return [piece for piece in pieces if len(piece) > 1]


def spans_of(length: int, config: SpanCorruptionConfig) -> tuple[int, int]:
    """(tokens that are dropped of so many, in how many spans)."""
    num_noise = min(max(round(length * config.noise_share), 1), length - 1)
    return num_noise, min(max(round(num_noise / config.mean_span), 1), length - num_noise)


def corrupted_tokens(length: int, config: SpanCorruptionConfig) -> tuple[int, int]:
    """(read, written) of a window of so many tokens, with the end tokens: the same in every epoch."""
    num_noise, num_spans = spans_of(length, config)
    return length - num_noise + num_spans + 1, num_noise + num_spans + 2  # a sentinel closes what is written


def draw_spans(length: int, config: SpanCorruptionConfig, *, draw: Random) -> list[Span]:
    """Spans to drop from `length` tokens: their number is fixed by the length, where they stand is drawn. The first token always stays."""
    num_noise, num_spans = spans_of(length, config)
    dropped, kept = _parts(num_noise, num_spans, draw), _parts(length - num_noise, num_spans, draw)
    ends = list(accumulate(k + d for k, d in zip(kept, dropped, strict=True)))
    return [(end - size, end) for end, size in zip(ends, dropped, strict=True)]


def _parts(total: int, num_parts: int, draw: Random) -> list[int]:
    """`total` in so many parts of at least 1, all ways of cutting alike likely."""
    cuts = [0, *sorted(draw.sample(range(1, total), num_parts - 1)), total]
    return [after - before for before, after in pairwise(cuts)]


def corrupt(ids: Sequence[int], spans: Sequence[Span], sentinels: Sequence[int]) -> tuple[list[int], list[int]]:
    """(what the encoder reads, what the decoder writes), both without the end token."""
    read: list[int] = []
    written: list[int] = []
    done = 0
    for sentinel, (start, end) in zip(sentinels, spans, strict=False):
        read += [*ids[done:start], sentinel]
        written += [sentinel, *ids[start:end]]
        done = end
    return [*read, *ids[done:]], [*written, sentinels[len(spans)]]


@torch.no_grad()
def held_out_loss(module: Any, corrupted: Iterator[tuple[Encoded, list[int]]], *, padding_id: int) -> dict[str, Any] | None:
    """Nats per written token, on spans that stay the same. Some in memory at a time."""
    loss, num_windows, num_written = 0.0, 0, 0
    while together := list(islice(corrupted, _MEASURED_TOGETHER)):
        num_windows, num_written = num_windows + len(together), num_written + sum(len(written) for _, written in together)
        for rows in length_batches([len(read) + len(written) for read, written in together], 4_096):
            inputs = padded([together[i][0] for i in rows], module, padding_id=padding_id)
            loss += float(summed_answer_loss(module, inputs, [together[i][1] for i in rows]))
    return {"windows": num_windows, "tokens": num_written, "loss": loss / num_written} if num_windows else None
