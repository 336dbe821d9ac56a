"""Supervised fine-tuning: learn to answer as the examples do.

What is trained is the setting `method` (`lm/adapters/methods`): LoRA by default.

Source     Ouyang et al. 2022, arXiv:2203.02155, section 3.5
We differ  float32 masters behind bfloat16 weights; no dropout, not even where the architecture has some
Cost       one forward and one backward pass per token; the vocabulary product only where a label is
Dims       B examples   T tokens
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from pydantic import PositiveInt

from mygpt.artifacts.dataset import Conversation, Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import recipe
from mygpt.core.errors import Refused
from mygpt.core.outbound import silence_hub
from mygpt.core.run import Run
from mygpt.finetune.rows import RowsConfig, advice, context_tokens_of, forecast_of, layout_of, plan_of
from mygpt.lm.adapters import methods
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.adapters.methods import Method
from mygpt.lm.chat import ChatRenderer
from mygpt.lm.load import load_lm, load_tokenizer
from mygpt.training.batches import Ahead, Batch, batch_of
from mygpt.training.distributed import on_ranks
from mygpt.training.example_file import ExampleFile, examples_on_disk
from mygpt.training.fit import compared, foreseen, nothing_to_learn
from mygpt.training.losses import require_own_loss, summed_cross_entropy
from mygpt.training.preflight import preflight, without_over_long
from mygpt.training.steps import Examples
from mygpt.training.tuning import dtype_of, learnt, published, rate_at, tuning_steps


class SFTConfig(RowsConfig):
    method: Method = LoRA()
    max_example_tokens: PositiveInt = 1024
    drop_over_long: bool = False  # leave longer examples out and say how many, instead of refusing


@recipe
@on_ranks
def sft(config: SFTConfig, *, model: Model, dataset: Dataset, replay: Dataset | None = None, run: Run) -> Adapter | Model:
    """Learn the split `train` of `dataset`: an Adapter on `model`, or a new Model when its own weights are trained.

    `replay` is learnt beside it, so that the model keeps what it could do.
    """
    tokenizer = load_tokenizer(model)
    renderer = ChatRenderer(tokenizer)
    rendered = ((row.id, renderer.render(row)) for row in train_rows(dataset, replay))
    with examples_on_disk(rendered, rendered_by=renderer.template_digest, run=run) as examples:
        return learnt_from(examples, config, model=model, tokenizer=tokenizer, renderer=renderer, run=run)


def learnt_from(
    every: ExampleFile, config: SFTConfig, *, model: Model, tokenizer: Any, renderer: ChatRenderer, run: Run
) -> Adapter | Model:
    """The training itself. Examples are read where a batch is made of them."""
    examples, context_tokens = every, context_tokens_of(model, config)
    if config.drop_over_long:
        kept = without_over_long(every.num_tokens, max_example_tokens=config.max_example_tokens, context_tokens=context_tokens, run=run)
        examples = every.chosen(kept)
    preflight(
        examples,
        renderer=renderer,
        max_example_tokens=config.max_example_tokens,
        serving_template=serving_template(model, tokenizer, new_model=methods.makes_a_model(config.method)),
        context_tokens=context_tokens,
        run=run,
    )
    num_tokens, shortest = examples.num_tokens, examples.shortest(2)
    known = Examples(examples.names, num_tokens=num_tokens, num_trained=examples.num_trained)
    plan = plan_of(config, num_tokens, run.random, packed=config.pack_tokens > 0)
    forecast = forecast_of(config, model, tokenizer, known, run.random, home=run.home)
    run.note(f"Training needs {forecast.told()}.")

    loaded = load_lm(model, dtype=dtype_of(config), weights=methods.base_weights(config.method))
    torch.manual_seed(run.seed_for("sft"))
    module = methods.attach(loaded.module, config.method, tokenizer=tokenizer).eval()  # gradients flow all the same; no dropout
    padding_id, device = tokenizer.pad_token_id or 0, loaded.device
    smallest = batch_of(shortest[:1], padding_id=padding_id, device=device)
    require_own_loss(module, smallest.ids_BT, smallest.trained_BT)
    layout = layout_of(module, config, shortest, row_tokens=[sum(num_tokens[i] for i in row) for step in plan for row in step], run=run)
    if not layout.is_packed:
        plan = plan_of(config, num_tokens, run.random, packed=False)

    def batch_for(rows: Sequence[int]) -> Batch:
        return layout.form([examples[i] for i in rows], padding_id=padding_id, device=device, shapes=layout.shapes)

    hints = advice(config, named_in_up="sft.learning_rate")
    with tuning_steps(plan, known, module=module, config=config, advice=hints, run=run) as steps:
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

    facts = {
        **learnt(module, loaded, config, steps),
        "packed": layout.is_packed,
        "over_long_dropped": len(every) - len(examples),
        "template": renderer.template_digest,
        **compared(forecast, steps, home=run.home),
    }
    tuned = published(module, loaded, config, facts=facts, inherited=model.manifest.facts, run=run)
    steps.checkpoints.clear()
    return tuned


def sft_forecast(config: SFTConfig, *, model: Model, dataset: Dataset, replay: Dataset | None = None, home: Path) -> dict[str, Any]:
    """What `sft` would do and need, said by `--dry-run`. No weight is loaded."""
    tokenizer = load_tokenizer(model)
    renderer = ChatRenderer(tokenizer)
    rendered = map(renderer.render, train_rows(dataset, replay))
    counted = [(len(example.token_ids), sum(example.trained[1:])) for example in rendered]
    if not counted:
        return nothing_to_learn()
    num_tokens, num_trained = map(list, zip(*counted, strict=True))
    known = Examples(names=(), num_tokens=num_tokens, num_trained=num_trained)
    forecast = forecast_of(config, model, tokenizer, known, Random, home=home)
    return foreseen(forecast, examples=len(num_tokens), longer_than_allowed=sum(n > config.max_example_tokens for n in num_tokens))


def train_rows(dataset: Dataset, replay: Dataset | None) -> Iterator[Conversation]:
    """A part in memory at a time. Where `dataset` has no row, `replay` does not make up for it."""
    for given in (dataset, replay):
        if given is not None and given.schema == "text":
            raise Refused(
                f"{given.id} holds raw text (schema `text`): no token of it is an answer to learn.",
                fix="Learn it with `mygpt finetune causal_lm`, or give a dataset of the schema `sft`.",
            )
    is_empty = True
    for row in dataset.stream("train"):
        is_empty = False
        yield row
    if replay is not None and not is_empty:
        yield from replay.stream("train")


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
