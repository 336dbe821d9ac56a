"""What a training on answers of its own will need, at most: every answer as long as it may be, to the longest prompts.

Two moments are compared beside those of any training: the update, and sampling before it. Sampling holds keys and values of all answers
under way (buffers grow by half, `infer/kv_cache`), a second copy of the weights that LoRA's updates are written into, and the logits of one
token each. How long it takes nobody knows before answers are there. What a reward's own model or the watch over the training needs is not
counted.

Source  ours; the arithmetic: `training/forecast`
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from mygpt.align.answer_rows import shared_pass
from mygpt.align.policy import copy_bytes, policy_blueprint
from mygpt.align.scored_rollouts import RolloutConfig, prompts_of
from mygpt.align.shared_prompts import TREE_TOKENS, alike, takes_trees
from mygpt.artifacts.dataset import Conversation, Dataset
from mygpt.artifacts.model import Model
from mygpt.core.run import Run
from mygpt.infer.torch_engine import MAX_ROWS, TREE_ROWS
from mygpt.lm.load import preferred_device
from mygpt.lm.low_rank import written_in_bytes
from mygpt.lm.virtual_tokens import keys_and_values, takes_cache
from mygpt.training.activations import ForwardPass, decoder_pass, rows_of
from mygpt.training.batches import cut_by_tokens
from mygpt.training.fit import Work, foreseen, require_memory
from mygpt.training.forecast import Forecast
from mygpt.training.losses import chunk_labels_for
from mygpt.training.steps import Examples
from mygpt.training.tuning import TuningConfig

C = TypeVar("C", bound=TuningConfig)
G = TypeVar("G", bound=RolloutConfig)
_SHARED_FROM = 32  # tokens of a prompt: below, each answer has its own (`infer/prefixes`)
_ROOM = 1.5  # of a buffer for keys and values, over what it holds
_BYTES_A_LOGIT = 12  # float32, its log-softmax, the draw


@dataclass(frozen=True)
class Amount:
    """How much is sampled, and how it is learnt from."""

    prompts: int  # of a rollout
    samples: int  # answers to each
    answer_tokens: int  # of an answer, at most
    rollouts: int
    updates: int  # of a rollout
    parts: int  # of a rollout's answers that are learnt from in turn, an update each
    in_trees: bool  # answers to a prompt share a row, where the model takes it


def require_rollout_memory(
    config: C,
    model: Model,
    prompt_tokens: Sequence[int],
    amount_of: Callable[[C], Amount],
    *,
    beside: Sequence[tuple[int, int]] = (),
    reference: Model | None,
    others: Sequence[dict[str, Any]] = (),
    samples_here: bool = True,
    home: Path,
) -> Forecast:
    """`amount_of(config)`: an Amount. `beside`: tokens and labels of other texts that an update learns. `samples_here`: not on a server."""

    def work_of(config: C) -> Work:
        amount = amount_of(config)
        module = policy_blueprint(model, config).module
        turns = -(-amount.prompts // len(prompt_tokens))
        prompts = sorted(list(prompt_tokens) * turns, reverse=True)[: amount.prompts]
        shares = amount.in_trees and amount.samples > 1 and takes_trees(module)
        trees = [tree for prompt in prompts for tree in _trees(prompt, amount, shares=shares)] + list(beside)
        sizes = [tokens for tokens, _ in trees]
        in_order = sorted(range(len(trees)), key=lambda i: sizes[i])
        parts = [cut_by_tokens(in_order[part :: amount.parts], sizes, config.micro_batch_tokens) for part in range(amount.parts)]
        most_labels = chunk_labels_for(module, device=preferred_device())
        forward = ForwardPass(shared_pass if shares else decoder_pass, rows_of(sizes), most_labels=most_labels)
        sampling = sampling_bytes(module, prompts, amount) if samples_here else 0
        return Work(
            module,
            parts * (amount.updates // amount.parts * amount.rollouts),
            Examples((), sizes, [labels for _, labels in trees]),
            forward,
            copy_bytes(model, config, reference),
            sampling,
        )

    return require_memory(config, work_of, others=others, home=home)


def prompts_within_memory(
    config: G, model: Model, dataset: Dataset, *, reference: Model | None, samples_here: bool = True, run: Run
) -> tuple[list[Conversation], Forecast]:
    """The prompts of a method without a critic, and what learning from answers to them needs: said aloud, before a weight is loaded."""
    bare = policy_blueprint(model, config)
    prompts = prompts_of(dataset, bare, config)
    tokens = [len(bare.renderer.prompt(prompt)) for prompt in prompts]
    forecast = _of_groups(config, model, tokens, reference=reference, samples_here=samples_here, home=run.home)
    run.note(f"Training needs at most {forecast.told()}.")
    return prompts, forecast


def rollouts_forecast(config: RolloutConfig, *, model: Model, dataset: Dataset, reference: Model | None, home: Path) -> dict[str, Any]:
    """What such a method would do and need, said by `--dry-run`. No weight is loaded."""
    bare = policy_blueprint(model, config)
    tokens = [len(bare.renderer.prompt(prompt)) for prompt in prompts_of(dataset, bare, config)]
    return foreseen(_of_groups(config, model, tokens, reference=reference, home=home), examples=len(tokens))


def _of_groups(
    config: G, model: Model, prompt_tokens: Sequence[int], *, reference: Model | None, samples_here: bool = True, home: Path
) -> Forecast:
    def amount_of(config: G) -> Amount:
        return Amount(
            config.prompts_per_rollout,
            config.samples,
            config.max_answer_tokens,
            rollouts=-(-config.epochs * len(prompt_tokens) // config.prompts_per_rollout),
            updates=config.updates,
            parts=config.updates_per_pass,
            in_trees=True,
        )

    fewer = config.prompts_per_rollout // 2
    others = [{"prompts_per_rollout": fewer}] if fewer >= config.updates_per_pass else []
    more: dict[str, Any] = {"reference": reference, "samples_here": samples_here, "home": home}
    return require_rollout_memory(config, model, prompt_tokens, amount_of, others=others, **more)


def _trees(prompt: int, amount: Amount, *, shares: bool) -> list[tuple[int, int]]:
    """(tokens, labels) of the rows that the answers to a prompt are learnt in."""
    answers = dict.fromkeys(range(amount.samples), amount.answer_tokens)
    groups = alike(answers, most_tokens=TREE_TOKENS - prompt) if shares else [[i] for i in answers]
    return [(prompt + len(group) * amount.answer_tokens, len(group) * amount.answer_tokens) for group in groups]


def sampling_bytes(module: Any, prompts: Sequence[int], amount: Amount) -> int:
    """Beside the weights, of a policy on the meta device that answers `prompts`, given by their tokens."""
    slots = rows = 0
    for prompt in prompts:  # as the engine seats them: alike ones in one tree
        for first in range(0, amount.samples, TREE_ROWS):
            own = min(TREE_ROWS, amount.samples - first, MAX_ROWS - rows)
            copies = min(own, 1) if prompt > _SHARED_FROM else own
            slots += copies * prompt + own * amount.answer_tokens
            rows += own
    vocabulary = module.get_output_embeddings().weight.shape[0]
    logits = rows * vocabulary * _BYTES_A_LOGIT
    return round(_ROOM * slots * slot_bytes(module)) + logits + written_in_bytes(module)


def slot_bytes(module: Any) -> int:
    """Of a token's keys and values in all layers; a state that does not grow counts nothing."""
    if not takes_cache(module.get_decoder()):
        return 0
    with torch.no_grad(), torch.device("meta"):
        made = keys_and_values(module, module.get_input_embeddings()(torch.zeros((1, 1), dtype=torch.long)))
    return sum(one.numel() * one.element_size() for both in made for one in both)
