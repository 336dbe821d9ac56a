"""Contrastive embedder: texts that belong together come to lie together, apart from the other texts of their step.

    loss = - 1/B  sum over anchors b of  log( exp(a_b . c_right / t) / sum over candidates c of exp(a_b . c / t) )

Candidates are the positives of all pairs of the step and their negatives, each text once; for an anchor, texts that the training set knows
as its own other positives are left out. Vectors are means over tokens, of length 1.

On several ranks each embeds a share of the step's texts; all vectors are gathered, every rank has the loss over all of them, and takes its
own texts' part of the gradient.

Source     InfoNCE: van den Oord et al. 2018, arXiv:1807.03748, equation 4; in-batch negatives: Karpukhin et al. 2020, arXiv:2004.04906,
           section 3.2; gradients of large steps in small parts: Gao et al. 2021, arXiv:2101.06983, section 3 (GradCache)
We differ  one forward pass where a step fits into one micro-batch; no dropout, so the two passes of a larger one are the same function
Dims       B anchors of a step   C candidates   N texts of a step   D dimensions
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt

from mygpt.artifacts.dataset import Dataset, TextPair
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import recipe
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.infer.torch_embedder import TorchEmbedder
from mygpt.lm.attention import grouped_attention
from mygpt.lm.heads import Opened
from mygpt.lm.inputs import Encoded, encode, length_batches, padded
from mygpt.lm.pooling import mean_pooled, require_mean_pooling, write_sentence_files
from mygpt.metrics.ranking import ndcg_at_k
from mygpt.training.activations import ForwardPass, some_inputs
from mygpt.training.batches import Plan
from mygpt.training.distributed import on_ranks, share_of
from mygpt.training.fit import Work, compared, foreseen, nothing_to_learn, require_memory
from mygpt.training.forecast import Forecast
from mygpt.training.steps import Examples
from mygpt.training.tuning import (
    TuningConfig,
    blueprint_for,
    example_tokens,
    learnt,
    module_for,
    names_of,
    opened_for,
    publish_tuned,
    rate_at,
    require_examples,
    tuning_steps,
    with_method,
)


class EmbedderConfig(TuningConfig):
    step_pairs: PositiveInt = 64  # per update: an anchor is told apart from the texts of all others
    temperature: PositiveFloat = 0.05


@recipe
@on_ranks
def embedder(config: EmbedderConfig, *, model: Model, dataset: Dataset, run: Run) -> Adapter | Model:
    """Learn the split `train` of `dataset` (schema `pairs`) and measure search on `test`: a new Model, or an Adapter on `model`."""
    require_mean_pooling(model)
    rows, held_out = dataset.pairs("train"), dataset.pairs("test")
    bare = blueprint_for("embedder", model, config)
    allowed = example_tokens(bare, config)
    examples = {text: encode(bare.tokenizer, text, max_tokens=allowed) for row in rows for text in texts_of(row)}
    if num_cut := texts_cut(bare, examples, allowed):
        run.warn(f"{num_cut} of {len(examples)} texts are longer than {allowed} tokens and lose their end, here and in use.")
    lengths = [sum(len(examples[text]) for text in texts_of(row)) for row in rows]
    require_examples(lengths, allowed=max(lengths, default=0), what="pairs", fix="")
    if len({text for row in rows for text in texts_of(row)[1:]}) < 2:
        raise Refused(f"{dataset.id} has one text to be found, so there is nothing to tell apart.", fix="Give more pairs.")
    positives: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        positives[row.anchor].add(row.positive)
    known = Examples(names_of(rows), num_tokens=lengths, num_trained=[1] * len(rows))
    forecast = _forecast(config, model, rows, examples, order=run.random, home=run.home)
    run.note(f"Training needs {forecast.told()}.")

    opened = opened_for("embedder", model, config, run=run)
    before = held_out_scores(opened, held_out, max_tokens=allowed)
    module = with_method(opened, config, run=run)
    padding_id = opened.tokenizer.pad_token_id
    plan = plan_pairs(len(rows), config, order=run.random)
    with tuning_steps(plan, known, module=module, config=config, run=run) as steps:
        for step in steps:
            part = Contrast.of([rows[i] for i in step.rows], positives)
            encoded = [examples[text] for text in part.texts]
            micro_batches = list(length_batches([len(e) for e in encoded], config.micro_batch_tokens))

            def vectors(numbers: Sequence[int], encoded: list[Encoded] = encoded) -> torch.Tensor:
                return embedded(module, padded([encoded[i] for i in numbers], module, padding_id=padding_id))

            def loss_of(vectors_ND: torch.Tensor, part: Contrast = part) -> torch.Tensor:
                return info_nce(vectors_ND[part.anchors], vectors_ND[part.candidates], part.right, part.left_out, config.temperature)

            own = share_of(micro_batches, rank=run.ranks.rank, count=run.ranks.count)
            all_ND = torch.zeros((len(encoded), module.config.hidden_size), device=opened.device)
            loss = backward_in_parts(own, vectors, loss_of, all_ND=all_ND, ranks=run.ranks)
            computed = sum(len(numbers) * max(len(encoded[i]) for i in numbers) for numbers in own)
            if run.ranks.rank == 0:  # a text that pairs of the step share is computed once, and counts for each
                computed += sum(lengths[i] for i in step.rows) - sum(map(len, encoded))
            for _ in step.micro_batches:  # one: every rank has the loss of the whole step, and each that was dealt pairs adds its share
                step.add(loss / min(run.ranks.count, len(step.rows)), computed_tokens=computed)
            step.update(learning_rate=rate_at(step, config), max_grad_norm=config.max_grad_norm)

    after = held_out_scores(Opened(module, opened.tokenizer, model, None, "embedder"), held_out, max_tokens=allowed)
    dimensions = module.config.hidden_size
    scores = {"held_out": after, "held_out_before": before}
    facts = {**learnt(module, opened, config, steps), **compared(forecast, steps, home=run.home)}
    facts |= {"dimensions": dimensions, "context_tokens": allowed, **scores}
    told = (
        f"nDCG@10 {before['ndcg_at_10']:.3f} before, {after['ndcg_at_10']:.3f} after, {after['queries']} queries"
        if before and after
        else ""
    )

    def write_beside(folder: Path) -> None:
        write_sentence_files(folder, dimensions=dimensions, max_tokens=allowed)

    made = publish_tuned(module, opened, config, facts=facts, told=told, write_beside=write_beside, run=run)
    steps.checkpoints.clear()
    return made


def embedder_forecast(config: EmbedderConfig, *, model: Model, dataset: Dataset, home: Path) -> dict[str, Any]:
    """What `embedder` would do and need, said by `--dry-run`. No weight is loaded."""
    rows, bare = dataset.pairs("train"), blueprint_for("embedder", model, config)
    if not rows:
        return nothing_to_learn()
    allowed = example_tokens(bare, config)
    examples = {text: encode(bare.tokenizer, text, max_tokens=allowed) for row in rows for text in texts_of(row)}
    forecast, num_cut = _forecast(config, model, rows, examples, order=Random, home=home), texts_cut(bare, examples, allowed)
    return {**foreseen(forecast, examples=len(rows), longer_than_allowed=num_cut), "texts": len(examples)}


def texts_cut(opened: Opened, examples: Mapping[str, Encoded], allowed: int) -> int:
    """How many texts lose their end."""
    full = (text for text, example in examples.items() if len(example) == allowed)
    return sum(len(encode(opened.tokenizer, text)) > allowed for text in full)


def _forecast(
    config: EmbedderConfig,
    model: Model,
    rows: Sequence[TextPair],
    examples: Mapping[str, Encoded],
    *,
    order: Callable[[str], Random],
    home: Path,
) -> Forecast:
    def work_of(config: EmbedderConfig) -> Work:
        def shape_of(step: Sequence[int]) -> tuple[int, ...]:
            """Of the largest micro-batch of a step's texts: one is in memory at a time."""
            lengths = [len(examples[text]) for text in dict.fromkeys(text for i in step for text in texts_of(rows[i]))]
            shapes = [(len(micro), lengths[micro[0]]) for micro in length_batches(lengths, config.micro_batch_tokens)]
            return max(shapes, key=lambda shape: shape[0] * shape[1])

        def logits_of(step: Sequence[int]) -> int:
            """Each anchor's with each candidate."""
            return len(step) * len({text for i in step for text in texts_of(rows[i])[1:]})

        forward = ForwardPass(text_pass, shape_of, logits_of)
        return Work(module_for("embedder", model, config), plan_pairs(len(rows), config, order=order), known, forward)

    known = Examples((), [sum(len(examples[text]) for text in texts_of(row)) for row in rows], [1] * len(rows))
    return require_memory(config, work_of, home=home)


def texts_of(row: TextPair) -> tuple[str, ...]:
    return (row.anchor, row.positive, *row.negatives)


def plan_pairs(num_rows: int, config: EmbedderConfig, *, order: Callable[[str], Random]) -> Plan:
    """Every pair once an epoch, in random order, in steps of equal size (to one): a small last step would have few to tell apart from."""
    num_steps = max(1, round(num_rows / config.step_pairs))
    plan: Plan = []
    for epoch in range(config.epochs):
        shuffled = list(range(num_rows))
        order(f"order/{epoch}").shuffle(shuffled)
        bounds = [num_rows * s // num_steps for s in range(num_steps + 1)]
        plan += [[shuffled[start:end]] for start, end in pairwise(bounds)]
    return plan


@dataclass(frozen=True)
class Contrast:
    """The texts of one step, each once, and who is told apart from whom."""

    texts: list[str]
    anchors: list[int]  # (B) places in `texts`
    candidates: list[int]  # (C) places in `texts`
    right: list[int]  # (B) the place in `candidates` of each anchor's positive
    left_out: list[tuple[int, int]]  # (anchor, candidate): another positive of that anchor

    @staticmethod
    def of(rows: Sequence[TextPair], positives: Mapping[str, set[str]]) -> "Contrast":
        found = list(dict.fromkeys([*(row.positive for row in rows), *(text for row in rows for text in row.negatives)]))
        texts = list(dict.fromkeys([*(row.anchor for row in rows), *found]))
        place, column = {text: i for i, text in enumerate(texts)}, {text: c for c, text in enumerate(found)}
        others = [
            (b, column[text]) for b, row in enumerate(rows) for text in sorted(positives[row.anchor] - {row.positive}) if text in column
        ]
        return Contrast(texts, [place[r.anchor] for r in rows], [place[t] for t in found], [column[r.positive] for r in rows], others)


def embedded(module: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with grouped_attention(module):
        return mean_pooled(module(**inputs).last_hidden_state, inputs["attention_mask"])


def text_pass(module: Any, rows: int, tokens: int) -> torch.Tensor:
    return embedded(module, some_inputs(module, rows, tokens))


def info_nce(
    anchors_BD: torch.Tensor, candidates_CD: torch.Tensor, right_B: Sequence[int], left_out: Sequence[tuple[int, int]], temperature: float
) -> torch.Tensor:
    """A scalar in nats, the mean over anchors."""
    logits_BC = anchors_BD @ candidates_CD.T / temperature
    if left_out:
        hidden_BC = torch.zeros_like(logits_BC, dtype=torch.bool)
        hidden_BC[tuple(zip(*left_out, strict=True))] = True
        logits_BC = logits_BC.masked_fill(hidden_BC, -torch.inf)
    return F.cross_entropy(logits_BC, torch.tensor(right_B, device=logits_BC.device))


def backward_in_parts(
    micro_batches: Sequence[Sequence[int]],
    vectors: Callable[[Sequence[int]], torch.Tensor],
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    *,
    all_ND: torch.Tensor,
    ranks: Any,
) -> torch.Tensor:
    """The loss over all texts, its gradient added to the weights with one micro-batch in memory at a time. `micro_batches` are this rank's,
    `all_ND` is zeros for the vectors of all.

    First all vectors without a graph, then the loss's gradient by each vector, then for each micro-batch its vectors again: their product
    with that gradient has the gradient of the whole.
    """
    if ranks.count == 1 and len(micro_batches) == 1:
        back = torch.tensor(micro_batches[0]).argsort()  # from the order of the micro-batch to that of the texts
        loss = loss_of(vectors(micro_batches[0])[back])
        loss.backward()
        return loss
    with torch.no_grad():
        found = [(list(numbers), vectors(numbers)) for numbers in micro_batches]
    for places, vectors_ND in found:
        all_ND[places] = vectors_ND
    if ranks.count > 1:
        ranks.sum(all_ND)  # of each text one rank has the vector, the others zeros
    loss = loss_of(all_ND.requires_grad_(True))
    (gradient_ND,) = torch.autograd.grad(loss, all_ND)
    for numbers in micro_batches:
        (vectors(numbers) * gradient_ND[list(numbers)]).sum().backward()
    return loss


def held_out_scores(opened: Opened, rows: Sequence[TextPair], *, max_tokens: int) -> dict[str, Any] | None:
    """nDCG@10 of searching the held-out texts (positives and negatives) with the held-out anchors; None where there is one text or none."""
    documents = list(dict.fromkeys(text for row in rows for text in texts_of(row)[1:]))
    if len(documents) < 2:
        return None
    embed = TorchEmbedder(opened.model, opened=opened, max_tokens=max_tokens).embed
    relevant: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        relevant[row.anchor].add(row.positive)
    similarity_QC = embed(list(relevant)) @ embed(documents).T
    scores = [
        ndcg_at_k([documents[i] for i in (-similarity_C).argsort(kind="stable")], dict.fromkeys(texts, 1.0), 10)
        for similarity_C, texts in zip(similarity_QC, relevant.values(), strict=True)
    ]
    return {"queries": len(scores), "documents": len(documents), "ndcg_at_10": sum(scores) / len(scores)}
