"""Token classification: learn to mark entities. The label of a word stands at its first token, the other tokens have none.

Source     Devlin et al. 2018, arXiv:1810.04805, section 5.3 (first sub-token); tags: Tjong Kim Sang and De Meulder 2003
We differ  use keeps to sequences that are valid BIO; no dropout
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from pydantic import PositiveInt

from mygpt.artifacts.dataset import Dataset, TaggedWords
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import recipe
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.infer.torch_tagger import TorchTagger
from mygpt.lm.heads import Opened
from mygpt.lm.inputs import encode_words, padded
from mygpt.metrics.span_f1 import span_f1, span_f1_by_label, spans_of_tags
from mygpt.training.activations import ForwardPass, own_pass, rows_of
from mygpt.training.distributed import on_ranks
from mygpt.training.fit import compared, foreseen, nothing_to_learn, require_rows_memory
from mygpt.training.forecast import Forecast
from mygpt.training.label_losses import NO_LABEL, summed_token_loss
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


class TaggerConfig(TuningConfig):
    step_tokens: PositiveInt = 1024  # padded tokens per update


@recipe
@on_ranks
def tagger(config: TaggerConfig, *, model: Model, dataset: Dataset, run: Run) -> Adapter | Model:
    """Learn the split `train` of `dataset` (schema `tagged`) and measure on `test`: an Adapter on `model`, or a new Model."""
    rows, held_out = dataset.tagged("train"), dataset.tagged("test")
    bare = blueprint_for("tagger", model, config, labels=dataset.labels)
    encoded = [encode_words(bare.tokenizer, row.words) for row in rows]
    examples = [example for example, _ in encoded]
    labels = [token_labels(row, firsts, len(example), dataset.labels) for row, (example, firsts) in zip(rows, encoded, strict=True)]
    if dropped := sum(first is None for _, firsts in encoded for first in firsts):
        run.warn(f"The tokenizer drops {dropped} words whole (white space, control characters): their tags are not learnt.")
    if silent := sum(all(label == NO_LABEL for label in row) for row in labels):
        raise Refused(f"{silent} of {len(rows)} texts have no word that the tokenizer keeps.", fix="Leave them out.")
    lengths = [len(example) for example in examples]
    fix = "Give a sentence or a paragraph a row, or set `max_example_tokens` higher (up to the model's window)."
    require_examples(lengths, allowed=example_tokens(bare, config), what="texts", fix=fix)
    known = Examples(names_of(rows), num_tokens=lengths, num_trained=[sum(label != NO_LABEL for label in row) for row in labels])
    forecast = _forecast(config, model, dataset, known, order=run.random, home=run.home)
    run.note(f"Training needs {forecast.told()}.")

    opened = opened_for("tagger", model, config, labels=dataset.labels, run=run)
    module = with_method(opened, config, run=run)
    padding_id = opened.tokenizer.pad_token_id
    plan = plan_epochs(lengths, config, step_tokens=config.step_tokens, order=run.random)
    with tuning_steps(plan, known, module=module, config=config, run=run) as steps:
        for step in steps:
            for numbers in step.micro_batches:
                inputs = padded([examples[i] for i in numbers], module, padding_id=padding_id)
                loss = summed_token_loss(module, inputs, [labels[i] for i in numbers]) / step.num_trained
                loss.backward()
                step.add(loss, computed_tokens=inputs["input_ids"].numel())
            step.update(learning_rate=rate_at(step, config), max_grad_norm=config.max_grad_norm)

    scores = held_out_scores(module, opened, held_out)
    facts = {**learnt(module, opened, config, steps), **compared(forecast, steps, home=run.home)}
    facts |= {"labels": list(dataset.labels), "held_out": scores}
    told = f"F1 of whole entities {scores['span_f1']:.2f} on {scores['rows']} texts" if scores else ""
    made = publish_tuned(module, opened, config, facts=facts, told=told, run=run)
    steps.checkpoints.clear()
    return made


def tagger_forecast(config: TaggerConfig, *, model: Model, dataset: Dataset, home: Path) -> dict[str, Any]:
    """What `tagger` would do and need, said by `--dry-run`. No weight is loaded."""
    rows = dataset.tagged("train")
    if not rows:
        return nothing_to_learn()
    bare = blueprint_for("tagger", model, config, labels=dataset.labels)
    encoded = [encode_words(bare.tokenizer, row.words) for row in rows]
    lengths, num_trained = [len(example) for example, _ in encoded], [sum(f is not None for f in firsts) for _, firsts in encoded]
    known = Examples((), num_tokens=lengths, num_trained=num_trained)
    forecast, allowed = _forecast(config, model, dataset, known, order=Random, home=home), example_tokens(bare, config)
    return foreseen(forecast, examples=len(rows), longer_than_allowed=sum(length > allowed for length in lengths))


def _forecast(
    config: TaggerConfig, model: Model, dataset: Dataset, known: Examples, *, order: Callable[[str], Random], home: Path
) -> Forecast:
    def logits_of(micro: Sequence[int]) -> int:
        return sum(known.num_trained[i] for i in micro) * len(dataset.labels)

    forward = ForwardPass(own_pass, rows_of(known.num_tokens), logits_of)
    more: dict[str, Any] = {"labels": dataset.labels, "step_tokens": config.step_tokens, "order": order, "home": home}
    return require_rows_memory("tagger", config, model, known, forward, **more)


def token_labels(row: TaggedWords, firsts: Sequence[int | None], num_tokens: int, labels: Sequence[str]) -> list[int]:
    """The number of each word's tag at its first token, NO_LABEL elsewhere."""
    found = [NO_LABEL] * num_tokens
    for tag, first in zip(row.tags, firsts, strict=True):
        if first is not None:
            found[first] = labels.index(tag)
    return found


def held_out_scores(module: Any, opened: Opened, rows: Sequence[TaggedWords]) -> dict[str, Any] | None:
    """F1 of whole entities, over all and by kind; None where there is no entity to find."""
    right = [spans_of_tags(row.tags) for row in rows]
    if not any(right):
        return None
    tuned = Opened(module, opened.tokenizer, opened.model, None, opened.head)
    named = TorchTagger(opened.model, opened=tuned).entities([row.words for row in rows])
    total = span_f1(named, right)
    by_kind = {kind: round(score.f1, 4) for kind, score in span_f1_by_label(named, right).items()}
    return {"rows": len(rows), "span_f1": total.f1, "precision": total.precision, "recall": total.recall, "span_f1_by_kind": by_kind}
