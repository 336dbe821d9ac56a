"""All comparisons of one prompt's answers together: each distinct answer is read once, however often it was compared.

    groups_of(pairs, margins=...)       a group a prompt, in the order in which prompts come
    row_rewards(module, groups, ...)    (N) the rewards of all their answers, in one forward pass where the architecture takes it

What a pair's margin or the difference of its scores (`verdicts`) is worth is a setting: how far the two rewards should lie apart.

Source  Ouyang et al. 2022, arXiv:2203.02155, section 3.5 (all K (K - 1) / 2 comparisons of a prompt as one element of a batch); margins:
        Touvron et al. 2023, arXiv:2307.09288, section 3.2.2 and table 27; of scores: as trl's column `margin`
Dims    N answers   P pairs   T tokens   D hidden
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from mygpt.align.answers import Pair, up_to_stop
from mygpt.align.verdicts import is_tie, probability_of, score_margin_of
from mygpt.artifacts.dataset import Message, Preference
from mygpt.lm.chat import Rendered
from mygpt.lm.reward_head import rewards_at
from mygpt.training.batches import batch_of
from mygpt.training.losses import hidden_states
from mygpt.training.packing import packed_batch

LLAMA_2_MARGINS = {  # unsure, slightly better, better, significantly better
    "llama_2_small": (0.0, 1 / 3, 2 / 3, 1.0),
    "llama_2_large": (0.0, 1.0, 2.0, 3.0),
}


@dataclass(frozen=True)
class Verdict:
    """On two answers of a group, by their places in it."""

    chosen: int
    rejected: int
    margin: float = 0.0  # what the rewards should lie apart at least
    probability: float = 1.0  # that the chosen one is the better
    is_tie: bool = False


@dataclass(frozen=True)
class Group:
    prompt: tuple[Message, ...]
    answers: tuple[str, ...]  # distinct
    examples: tuple[Rendered, ...]  # prompt and answer up to its stop token, as many
    verdicts: tuple[Verdict, ...]
    name: str  # for messages

    @property
    def num_tokens(self) -> int:
        return sum(len(example.token_ids) for example in self.examples)

    @property
    def padded_tokens(self) -> int:
        """Of rows of one answer each."""
        return len(self.examples) * max(len(example.token_ids) for example in self.examples)


def groups_of(pairs: Sequence[Pair], *, margins: Sequence[float] = (), margin_per_score: float = 0.0) -> list[Group]:
    """How far rewards should lie apart is `margin_of` of each pair."""
    by_prompt: dict[tuple[Message, ...], list[Pair]] = {}
    for pair in pairs:
        by_prompt.setdefault(pair.row.prompt, []).append(pair)
    wanted = partial(margin_of, margins=margins, margin_per_score=margin_per_score)
    return [_group(prompt, own, wanted, number) for number, (prompt, own) in enumerate(by_prompt.items())]


def _group(prompt: tuple[Message, ...], pairs: Sequence[Pair], wanted: Callable[[Preference], float], number: int) -> Group:
    examples: dict[str, Rendered] = {}
    for pair in pairs:
        examples.setdefault(pair.row.chosen, up_to_stop(pair.chosen))
        examples.setdefault(pair.row.rejected, up_to_stop(pair.rejected))
    place = {answer: i for i, answer in enumerate(examples)}
    verdicts = tuple(_verdict(pair.row, place, wanted) for pair in pairs)
    first = pairs[0].row.id
    return Group(prompt, tuple(examples), tuple(examples.values()), verdicts, f"prompt {number}{f' ({first})' if first else ''}")


def _verdict(row: Preference, place: dict[str, int], wanted: Callable[[Preference], float]) -> Verdict:
    both = place[row.chosen], place[row.rejected]
    if is_tie(row):
        return Verdict(*both, is_tie=True)
    return Verdict(*both, margin=wanted(row), probability=probability_of(row))


def margin_of(row: Preference, *, margins: Sequence[float], margin_per_score: float) -> float:
    """`margins[m]` for a pair of margin m, beyond its end its last number; and so much for each point that the better answer scores."""
    of_places = margins[min(max(row.margin or 0, 0), len(margins) - 1)] if margins else 0.0
    of_scores = margin_per_score * (score_margin_of(row) or 0.0) if margin_per_score else 0.0
    return of_places + of_scores


def row_rewards(module: Any, groups: Sequence[Group], *, packed: bool, padding_id: int) -> tuple[torch.Tensor, int]:
    """(N) float32 of all answers of `groups`, one group after another; and how many tokens were computed for them.

    `packed`: all in one row, none of which sees another (`training/packing`); else a padded row each, group by group.
    """
    device = next(module.parameters()).device
    if packed:
        examples = [example for group in groups for example in group.examples]
        batch = packed_batch(examples, padding_id=padding_id, device=device)
        hidden_TD = hidden_states(module, batch.ids_BT, batch.positions_BT)[0]
        ends_N = torch.tensor([len(e.token_ids) for e in examples], device=device).cumsum(0) - 1
        return rewards_at(module, hidden_TD[ends_N]), batch.ids_BT.numel()
    found, computed = [], 0
    for group in groups:
        batch = batch_of(group.examples, padding_id=padding_id, device=device)
        hidden_NTD = hidden_states(module, batch.ids_BT)
        ends_N = torch.tensor([len(e.token_ids) - 1 for e in group.examples], device=device)
        found.append(rewards_at(module, hidden_NTD[torch.arange(len(ends_N), device=device), ends_N]))
        computed += batch.ids_BT.numel()
    return torch.cat(found), computed
