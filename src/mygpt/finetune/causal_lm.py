"""Causal language modelling on plain texts: go on teaching a decoder the language of your texts, every token of them.

A text is read behind the token that begins texts, and closed by the token that ends them. What is longer than a window is cut; a later
window begins with the last token of the one before, which is read and not asked for again: each token is learnt once an epoch.

    text of 7 tokens, windows of 4    <s> a b c | c d e f | f g </s>

Source     Gururangan et al. 2020, arXiv:2004.10964, section 3 (continued pretraining on texts of the domain); of the loss: Radford et al.
           2018, Improving language understanding by generative pre-training, equation 1
We differ  texts share rows without seeing each other (`training/packing`) and are not run together; a later window sees one token of what
           stands before it; no dropout
Dims       B examples   T tokens
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt

from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import recipe
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.finetune.rows import RowsConfig, advice, context_tokens_of, forecast_of, layout_of, plan_of
from mygpt.lm.adapters import methods
from mygpt.lm.chat import Rendered
from mygpt.lm.inputs import length_batches
from mygpt.lm.load import load_lm, load_tokenizer
from mygpt.lm.plain_text import inner_ids, text_ids
from mygpt.metrics.bits_per_byte import bits_per_byte
from mygpt.training.batches import Ahead, Batch, batch_of
from mygpt.training.distributed import on_ranks
from mygpt.training.example_file import ExampleFile, examples_on_disk
from mygpt.training.fit import compared, foreseen, nothing_to_learn
from mygpt.training.losses import chunk_labels_for, require_own_loss, summed_cross_entropy
from mygpt.training.preflight import show_example
from mygpt.training.steps import Examples
from mygpt.training.tuning import dtype_of, learnt, published, rate_at, require_examples, tuning_steps

_MEASURED_TOGETHER = 256  # held-out windows in memory at a time
_MEASURED_TOKENS = 4_096  # of one forward pass


class CausalLMConfig(RowsConfig):
    epochs: PositiveInt = 1
    step_tokens: PositiveInt = 4096  # padded tokens per update
    max_example_tokens: Annotated[int, Field(ge=2)] = 1024  # of a window


@recipe
@on_ranks
def causal_lm(config: CausalLMConfig, *, model: Model, dataset: Dataset, run: Run) -> Adapter | Model:
    """Learn the split `train` of `dataset` (schema `text`) and measure on `test`: a new Model, or an Adapter on `model`."""
    tokenizer = load_tokenizer(model)
    allowed = window_tokens(config, model)
    named = named_windows(dataset, "train", tokenizer, allowed, closed=True)
    with examples_on_disk(named, rendered_by="plain text", run=run) as examples:
        return learnt_from(examples, config, model=model, dataset=dataset, tokenizer=tokenizer, allowed=allowed, run=run)


def learnt_from(
    examples: ExampleFile, config: CausalLMConfig, *, model: Model, dataset: Dataset, tokenizer: Any, allowed: int, run: Run
) -> Adapter | Model:
    """The training itself. Windows are read where a batch is made of them."""
    require_examples(examples.num_tokens, allowed=allowed, what="windows", fix="")
    show_example(examples, lambda ids: str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)), run=run)
    num_tokens, shortest = examples.num_tokens, examples.shortest(2)
    known = Examples(examples.names, num_tokens=num_tokens, num_trained=examples.num_trained)
    plan = plan_of(config, num_tokens, run.random, packed=config.pack_tokens > 0)
    forecast = forecast_of(config, model, tokenizer, known, run.random, home=run.home)
    run.note(f"Training needs {forecast.told()}.")

    loaded = load_lm(model, dtype=dtype_of(config), weights=methods.base_weights(config.method))
    padding_id, device = tokenizer.pad_token_id or 0, loaded.device
    smallest = batch_of(shortest[:1], padding_id=padding_id, device=device)
    before = held_out_scores(loaded.module, dataset, tokenizer, allowed, padding_id=padding_id)
    torch.manual_seed(run.seed_for("causal_lm"))
    module = methods.attach(loaded.module, config.method, tokenizer=tokenizer).eval()  # gradients flow all the same; no dropout
    require_own_loss(module, smallest.ids_BT, smallest.trained_BT)
    layout = layout_of(module, config, shortest, row_tokens=[sum(num_tokens[i] for i in row) for step in plan for row in step], run=run)
    if not layout.is_packed:
        plan = plan_of(config, num_tokens, run.random, packed=False)

    def batch_for(rows: Sequence[int]) -> Batch:
        return layout.form([examples[i] for i in rows], padding_id=padding_id, device=device, shapes=layout.shapes)

    with tuning_steps(plan, known, module=module, config=config, advice=advice(config, named_in_up=""), run=run) as steps:
        batches = Ahead(batch_for, steps.micro_batches())
        for step in steps:
            for micro_batch in step.micro_batches:
                batch = batches.take(micro_batch)
                nats = summed_cross_entropy(
                    module,
                    batch.ids_BT,
                    batch.trained_BT,
                    positions_BT=batch.positions_BT,
                    packed_row=batch.packed_row,
                    before_labels_N=batch.before_labels_N,
                    chunk_labels=layout.chunk_labels,
                )
                loss = nats / step.num_trained
                loss.backward()
                step.add(loss, computed_tokens=batch.ids_BT.numel())
                batches.prepare()
            step.update(learning_rate=rate_at(step, config), max_grad_norm=config.max_grad_norm)

    after = held_out_scores(module, dataset, tokenizer, allowed, padding_id=padding_id)
    told = "No held-out texts: what was learnt was not measured."
    if before and after:
        told = f"Held out: {before['bits_per_byte']:.3f} bits per byte before, {after['bits_per_byte']:.3f} after."
    facts = {
        **learnt(module, loaded, config, steps),
        "packed": layout.is_packed,
        "windows": len(examples),
        "held_out": after,
        "held_out_before": before,
        "sentences": [told],
        **compared(forecast, steps, home=run.home),
    }
    run.note(told)
    made = published(module, loaded, config, facts=facts, inherited=model.manifest.facts, run=run)
    steps.checkpoints.clear()
    return made


def causal_lm_forecast(config: CausalLMConfig, *, model: Model, dataset: Dataset, home: Path) -> dict[str, Any]:
    """What `causal_lm` would do and need, said by `--dry-run`. No weight is loaded."""
    tokenizer = load_tokenizer(model)
    windows = named_windows(dataset, "train", tokenizer, window_tokens(config, model), closed=True)
    num_tokens = [len(window.token_ids) for _, window in windows]
    if not num_tokens:
        return nothing_to_learn()
    known = Examples(names=(), num_tokens=num_tokens, num_trained=[n - 1 for n in num_tokens])
    return foreseen(forecast_of(config, model, tokenizer, known, Random, home=home), examples=len(num_tokens))


def window_tokens(config: CausalLMConfig, model: Model) -> int:
    """What the settings allow, and the model can read beside virtual tokens."""
    return min(config.max_example_tokens, context_tokens_of(model, config) or config.max_example_tokens)


# -- windows -----------------------------------------------------------------------------------------------------------------


def named_windows(dataset: Dataset, split: str, tokenizer: Any, allowed: int, *, closed: bool) -> Iterator[tuple[str, Rendered]]:
    """Each window with the text that it is of, and which of its windows. All but its first token are labels.

    `closed`: with the end token after each text. Empty texts are passed over.
    """
    end = tokenizer.eos_token_id
    if closed and end is None:
        raise Refused("The tokenizer has no token that ends a text.", fix="Name one as `eos_token` in its tokenizer_config.json.")
    beginning = text_ids(tokenizer, "")
    for name, text in dataset.stream_texts(split):
        inside = inner_ids(tokenizer, text.encode("utf-8", "replace").decode())  # half a surrogate pair is no text
        if not inside:
            continue
        ids = (*beginning, *inside, *([end] if closed else []))
        for number, window in enumerate(windows(ids, allowed), start=1):
            yield f"{name}, window {number}", Rendered(window, (False,) + (True,) * (len(window) - 1), ())


def windows(ids: Sequence[int], num_tokens: int) -> Iterator[tuple[int, ...]]:
    """Each but the first begins with the last token of the one before: every token but the very first is once behind another."""
    return (tuple(ids[start : start + num_tokens]) for start in range(0, len(ids) - 1, num_tokens - 1))


@torch.no_grad()
def held_out_scores(module: Any, dataset: Dataset, tokenizer: Any, allowed: int, *, padding_id: int) -> dict[str, Any] | None:
    """Bits per byte of the texts of the split `test`, in windows; the end token has no bytes and is not asked for. None without texts."""
    nats, num_labels = 0.0, 0
    device, chunk_labels = next(module.parameters()).device, chunk_labels_for(module)
    texts = (window for _, window in named_windows(dataset, "test", tokenizer, allowed, closed=False))
    while together := list(islice(texts, _MEASURED_TOGETHER)):
        for rows in length_batches([len(window.token_ids) for window in together], _MEASURED_TOKENS):
            batch = batch_of([together[i] for i in rows], padding_id=padding_id, device=device)
            nats += float(summed_cross_entropy(module, batch.ids_BT, batch.trained_BT, chunk_labels=chunk_labels))
            num_labels += int(batch.trained_BT.sum())
    if not num_labels:
        return None
    num_bytes = sum(len(text.encode("utf-8", "replace")) for _, text in dataset.stream_texts("test"))
    return {"bytes": num_bytes, "tokens": num_labels, "bits_per_byte": bits_per_byte([-nats], [num_bytes])}
