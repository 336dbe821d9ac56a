"""Sequence classification: learn to give a text, or a pair of texts, one of the dataset's labels.

Source     Devlin et al. 2018, arXiv:1810.04805, section 4.1 (a linear layer on the first token); decoders: Radford et al. 2018, "Improving
           language understanding by generative pre-training", section 3.2 (on the last token)
We differ  where each architecture reads is what its class in transformers says, so that the result opens there; no dropout
Dims       B rows of a micro-batch   L labels
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import PositiveInt

from mygpt.artifacts.dataset import Dataset, LabelledText
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import recipe
from mygpt.core.run import Run
from mygpt.infer.torch_classifier import TorchClassifier
from mygpt.lm.attention import grouped_attention
from mygpt.lm.heads import Opened
from mygpt.lm.inputs import encode, padded
from mygpt.metrics.macro_f1 import classification
from mygpt.metrics.wilson import wilson
from mygpt.training.activations import ForwardPass, rows_of, some_inputs
from mygpt.training.distributed import on_ranks
from mygpt.training.fit import compared, foreseen, nothing_to_learn, require_rows_memory
from mygpt.training.forecast import Forecast
from mygpt.training.losses import without_head
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


class ClassifierConfig(TuningConfig):
    step_tokens: PositiveInt = 1024  # padded tokens per update
    cut_long: bool = False  # texts longer than `max_example_tokens`: lose their end, instead of being refused


@recipe
@on_ranks
def classifier(config: ClassifierConfig, *, model: Model, dataset: Dataset, run: Run) -> Adapter | Model:
    """Learn the split `train` of `dataset` (schema `class`) and measure on `test`: an Adapter on `model`, or a new Model."""
    rows, held_out = dataset.labelled("train"), dataset.labelled("test")
    bare = blueprint_for("classifier", model, config, labels=dataset.labels)
    allowed = example_tokens(bare, config)
    examples = [encode(bare.tokenizer, row.text, row.pair) for row in rows]
    if config.cut_long and (num_cut := sum(len(e) > allowed for e in examples)):
        run.warn(f"{num_cut} of {len(examples)} texts are longer than {allowed} tokens and lose their end, here and in use.")
        examples = [encode(bare.tokenizer, row.text, row.pair, max_tokens=allowed) for row in rows]
    lengths = [len(e) for e in examples]
    fix = "Set `max_example_tokens` higher (up to the model's window), or `cut_long=true`."
    require_examples(lengths, allowed=allowed, what="texts", fix=fix)
    known = Examples(names_of(rows), num_tokens=lengths, num_trained=[1] * len(rows))
    forecast = _forecast(config, model, dataset, known, order=run.random, home=run.home)
    run.note(f"Training needs {forecast.told()}.")

    opened = opened_for("classifier", model, config, labels=dataset.labels, run=run)
    module = with_method(opened, config, run=run)
    padding_id, device = opened.tokenizer.pad_token_id, opened.device
    right_N = torch.tensor([dataset.labels.index(row.label) for row in rows], device=device)
    plan = plan_epochs(lengths, config, step_tokens=config.step_tokens, order=run.random)
    with tuning_steps(plan, known, module=module, config=config, run=run) as steps:
        for step in steps:
            for numbers in step.micro_batches:
                inputs = padded([examples[i] for i in numbers], module, padding_id=padding_id)
                loss = summed_label_loss(module, inputs, right_N[numbers]) / step.num_trained
                loss.backward()
                step.add(loss, computed_tokens=inputs["input_ids"].numel())
            step.update(learning_rate=rate_at(step, config), max_grad_norm=config.max_grad_norm)

    cut = allowed if config.cut_long else None
    scores = held_out_scores(module, opened, held_out, cut_tokens=cut)
    facts = {**learnt(module, opened, config, steps), **compared(forecast, steps, home=run.home)}
    facts |= {"labels": list(dataset.labels), "cut_tokens": cut, "held_out": scores}
    made = publish_tuned(module, opened, config, facts=facts, told=told(scores), run=run)
    steps.checkpoints.clear()
    return made


def classifier_forecast(config: ClassifierConfig, *, model: Model, dataset: Dataset, home: Path) -> dict[str, Any]:
    """What `classifier` would do and need, said by `--dry-run`. No weight is loaded."""
    rows = dataset.labelled("train")
    if not rows:
        return nothing_to_learn()
    bare = blueprint_for("classifier", model, config, labels=dataset.labels)
    allowed = example_tokens(bare, config)
    whole = [len(encode(bare.tokenizer, row.text, row.pair)) for row in rows]
    lengths = [min(length, allowed) for length in whole] if config.cut_long else whole
    known = Examples((), num_tokens=lengths, num_trained=[1] * len(rows))
    forecast = _forecast(config, model, dataset, known, order=Random, home=home)
    return foreseen(forecast, examples=len(rows), longer_than_allowed=sum(length > allowed for length in whole))


def _forecast(
    config: ClassifierConfig, model: Model, dataset: Dataset, known: Examples, *, order: Callable[[str], Random], home: Path
) -> Forecast:
    forward = ForwardPass(label_pass, rows_of(known.num_tokens), logits_of=lambda _: 0)
    more: dict[str, Any] = {"labels": dataset.labels, "step_tokens": config.step_tokens, "order": order, "home": home}
    return require_rows_memory("classifier", config, model, known, forward, **more)


def label_pass(module: Any, rows: int, tokens: int) -> Any:
    """What a micro-batch computes; of an encoder-decoder without its head, which looks for the last token."""
    inputs = some_inputs(module, rows, tokens)
    if not module.config.is_encoder_decoder:
        return summed_label_loss(module, inputs, torch.zeros_like(inputs["input_ids"][:, 0]))
    with grouped_attention(module):
        return without_head(module)(**inputs, decoder_input_ids=inputs["input_ids"], use_cache=False)


def told(scores: Mapping[str, Any] | None) -> str:
    if scores is None:
        return ""
    low, high = scores["accuracy_interval"]
    return (
        f"accuracy {scores['accuracy']:.2f} (95 % interval {low:.2f} to {high:.2f}), macro F1 {scores['macro_f1']:.2f} on {scores['rows']} "
        f"texts; naming the most frequent label always: {scores['most_frequent']:.2f}"
    )


def summed_label_loss(module: Any, inputs: dict[str, torch.Tensor], right_B: torch.Tensor) -> torch.Tensor:
    """A scalar in nats: the sum over rows of -log p(right label)."""
    with grouped_attention(module):
        logits_BL = module(**inputs).logits
    return F.cross_entropy(logits_BL.float(), right_B, reduction="sum")


def held_out_scores(module: Any, opened: Opened, rows: Sequence[LabelledText], *, cut_tokens: int | None) -> dict[str, Any] | None:
    """Accuracy with its interval, macro F1, and what always naming the most frequent label would reach; None without rows."""
    if not rows:
        return None
    tuned = Opened(module, opened.tokenizer, opened.model, None, opened.head)
    named = TorchClassifier(opened.model, opened=tuned, cut_tokens=cut_tokens).classify([r.text for r in rows], [r.pair for r in rows])
    right = [row.label for row in rows]
    scores = classification(named, right)
    accuracy = wilson(sum(a == b for a, b in zip(named, right, strict=True)), len(rows))
    return {
        "rows": len(rows),
        "accuracy": scores.accuracy,
        "accuracy_interval": [accuracy.low, accuracy.high],
        "macro_f1": scores.macro_f1,
        "most_frequent": max(Counter(right).values()) / len(rows),
    }
