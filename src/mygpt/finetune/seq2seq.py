"""Supervised tuning of an encoder-decoder: learn to answer what the encoder read as the examples do.

Source     Raffel et al. 2019, arXiv:1910.10683, section 2.4 (text to text); Lewis et al. 2019, arXiv:1910.13461, section 3.3
We differ  no dropout; what begins an answer and what ends it is what the architecture and its tokenizer say, and the end is always trained
"""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from pydantic import NonNegativeInt, PositiveInt

from mygpt.artifacts.dataset import Conversation, Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import recipe
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.core.spread import spread
from mygpt.infer.protocols import Sampling
from mygpt.infer.torch_seq2seq import Seq2SeqCompleter
from mygpt.lm.heads import Opened
from mygpt.lm.inputs import Encoded, encode, length_batches, padded
from mygpt.lm.plain_text import prompt_text
from mygpt.metrics.exact_match import exact_match
from mygpt.metrics.rouge import rouge_l
from mygpt.metrics.token_f1 import token_f1
from mygpt.training.distributed import on_ranks
from mygpt.training.fit import compared, foreseen, nothing_to_learn, require_answers_memory
from mygpt.training.label_losses import require_own_answer_loss, summed_answer_loss
from mygpt.training.steps import Examples
from mygpt.training.tuning import (
    TuningConfig,
    blueprint_for,
    example_tokens,
    learnt,
    names_of,
    opened_for,
    plan_epochs,
    publish_tuned,
    rate_at,
    require_examples,
    tuning_steps,
    with_method,
)


class Seq2SeqConfig(TuningConfig):
    step_tokens: PositiveInt = 1024  # padded tokens read and written per update
    max_answer_tokens: PositiveInt = 128
    held_out_answers: NonNegativeInt = 64  # so many are written and compared; the loss is over all held-out rows


@recipe
@on_ranks
def seq2seq(config: Seq2SeqConfig, *, model: Model, dataset: Dataset, run: Run) -> Adapter | Model:
    """Learn the split `train` of `dataset` (schema `sft`) and measure on `test`: a new Model, or an Adapter on `model`."""
    rows, held_out = dataset.split("train"), dataset.split("test")
    bare = blueprint_for("seq2seq_lm", model, config)
    read, written = encoded_pairs(bare, rows)
    fix = "Set `max_example_tokens` higher (up to the model's window), or shorten them."
    require_examples([len(e) for e in read], allowed=example_tokens(bare, config), what="prompts", fix=fix)
    fix = "Set `max_answer_tokens` higher: what would be cut off is the answer."
    require_examples([len(ids) for ids in written], allowed=config.max_answer_tokens, what="answers", fix=fix)
    if endless := sum(ids[-1] != bare.tokenizer.eos_token_id for ids in written):
        raise Refused(
            f"The tokenizer of {model.id} ends {endless} of {len(rows)} answers without its end token: the model would not learn to stop.",
            fix="Look at the post-processor in its tokenizer.json.",
        )

    sizes = [(len(example), len(ids)) for example, ids in zip(read, written, strict=True)]
    lengths = [sum(size) for size in sizes]
    forecast = require_answers_memory(config, model, sizes, step_tokens=config.step_tokens, order=run.random, home=run.home)
    run.note(f"Training needs {forecast.told()}.")

    opened = opened_for("seq2seq_lm", model, config, run=run)
    module = with_method(opened, config, run=run)
    padding_id = opened.tokenizer.pad_token_id
    plan = plan_epochs(lengths, config, step_tokens=config.step_tokens, order=run.random)
    shortest = min(range(len(rows)), key=lambda i: lengths[i])
    require_own_answer_loss(module, padded([read[shortest]], module, padding_id=padding_id), [written[shortest]])
    known = Examples(names_of(rows), num_tokens=lengths, num_trained=[len(ids) for ids in written])
    with tuning_steps(plan, known, module=module, config=config, run=run) as steps:
        for step in steps:
            for numbers in step.micro_batches:
                inputs = padded([read[i] for i in numbers], module, padding_id=padding_id)
                answers = [written[i] for i in numbers]
                loss = summed_answer_loss(module, inputs, answers) / step.num_trained
                loss.backward()
                step.add(loss, computed_tokens=inputs["input_ids"].numel() + len(answers) * max(map(len, answers)))
            step.update(learning_rate=rate_at(step, config), max_grad_norm=config.max_grad_norm)

    scores = held_out_scores(module, opened, held_out, config)
    facts = {**learnt(module, opened, config, steps), **compared(forecast, steps, home=run.home), "held_out": scores}
    told = f"{scores['loss']:.3f} nats a token of the right answers" if scores else ""
    if scores and "answers" in scores:
        told += f", token F1 {scores['token_f1']:.2f} and ROUGE-L {scores['rouge_l']:.2f} of {scores['answers']} answers"
    made = publish_tuned(module, opened, config, facts=facts, told=told, run=run)
    steps.checkpoints.clear()
    return made


def seq2seq_forecast(config: Seq2SeqConfig, *, model: Model, dataset: Dataset, home: Path) -> dict[str, Any]:
    """What `seq2seq` would do and need, said by `--dry-run`. No weight is loaded."""
    bare = blueprint_for("seq2seq_lm", model, config)
    sizes = [(len(read), len(written)) for read, written in zip(*encoded_pairs(bare, dataset.split("train")), strict=True)]
    if not sizes:
        return nothing_to_learn()
    allowed = example_tokens(bare, config), config.max_answer_tokens
    too_long = sum(read > allowed[0] or written > allowed[1] for read, written in sizes)
    forecast = require_answers_memory(config, model, sizes, step_tokens=config.step_tokens, order=Random, home=home)
    return foreseen(forecast, examples=len(sizes), longer_than_allowed=too_long)


def encoded_pairs(opened: Opened, rows: Sequence[Conversation]) -> tuple[list[Encoded], list[tuple[int, ...]]]:
    """(what the encoder reads, what the decoder writes), both with what the tokenizer puts around a text."""
    silent = [row.id for row in rows if not row.answer.strip() or row.raw_text is not None]
    if silent:
        raise Refused(
            f"{len(silent)} of {len(rows)} rows have no answer (first: {silent[0]}).", fix="Each needs an assistant turn with text."
        )
    tokenizer = opened.tokenizer
    return [encode(tokenizer, prompt_text(row)) for row in rows], [encode(tokenizer, row.answer).token_ids for row in rows]


@torch.no_grad()
def held_out_scores(module: Any, opened: Opened, rows: Sequence[Conversation], config: Seq2SeqConfig) -> dict[str, Any] | None:
    """Nats per token of the right answers, and how close the answers written come to them; None without rows."""
    if not rows:
        return None
    read, written = encoded_pairs(opened, rows)
    loss = 0.0
    for batch in length_batches([len(e) + len(ids) for e, ids in zip(read, written, strict=True)], 4_096):
        inputs = padded([read[i] for i in batch], module, padding_id=opened.tokenizer.pad_token_id)
        loss += float(summed_answer_loss(module, inputs, [written[i] for i in batch]))
    scores: dict[str, Any] = {"rows": len(rows), "loss": loss / sum(map(len, written))}
    asked = spread(rows, config.held_out_answers)
    if asked:
        tuned = Opened(module, opened.tokenizer, opened.model, None, "seq2seq_lm")
        answers = Seq2SeqCompleter(opened.model, opened=tuned).complete(asked, Sampling(max_tokens=config.max_answer_tokens))
        texts = [(answer.text, row.answer) for answer, row in zip(answers, asked, strict=True)]
        scores["answers"] = len(texts)
        for name, metric in (("exact_match", exact_match), ("token_f1", token_f1), ("rouge_l", lambda a, b: rouge_l(a, b).f)):
            scores[name] = sum(metric(text, right) for text, right in texts) / len(texts)
    return scores
