"""All comparisons of one prompt's answers together: each distinct answer is read once, however often it was compared.

    groups_of(pairs, margins=...)         a group a prompt, in the order in which prompts come
    row_rewards(module, groups, ...)    (N) the rewards of all their answers, in one forward pass where the architecture takes it

What a pair says beside which answer is better stands in its row:
    margin (a column)         places between the two in a ranking, or the grade of a rating; what it is worth is a setting
    tie (a fact)              nobody prefers either
    probability (a fact)      that the chosen one is the better, as decimal text: many raters, or a judge's own

Source  Ouyang et al. 2022, arXiv:2203.02155, section 3.5 (all K (K - 1) / 2 comparisons of a prompt as one element of a batch); margins:
        Touvron et al. 2023, arXiv:2307.09288, section 3.2.2 and table 27
Dims    N answers   P pairs   T tokens   D hidden
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mygpt.align.answers import Pair, up_to_stop
from mygpt.artifacts.dataset import Message, Preference
from mygpt.core.errors import Refused
from mygpt.lm.chat import Rendered
from mygpt.lm.reward_head import rewards_at
from mygpt.training.batches import batch_of
from mygpt.training.losses import hidden_states
from mygpt.training.packing import packed_batch

LLAMA_2_MARGINS = {  # unsure, slightly better, better, significantly better
    "llama_2_small": (0.0, 1 / 3, 2 / 3, 1.0),
    "llama_2_large": (0.0, 1.0, 2.0, 3.0),
}
_NO = ("", "false", "no", "0")


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


def groups_of(pairs: Sequence[Pair], *, margins: Sequence[float] = ()) -> list[Group]:
    """`margins[m]`: how far rewards should lie apart for a pair of margin m; beyond its end, its last number; without it, 0."""
    by_prompt: dict[tuple[Message, ...], list[Pair]] = {}
    for pair in pairs:
        by_prompt.setdefault(pair.row.prompt, []).append(pair)
    return [_group(prompt, own, margins, number) for number, (prompt, own) in enumerate(by_prompt.items())]


def _group(prompt: tuple[Message, ...], pairs: Sequence[Pair], margins: Sequence[float], number: int) -> Group:
    examples: dict[str, Rendered] = {}
    for pair in pairs:
        examples.setdefault(pair.row.chosen, up_to_stop(pair.chosen))
        examples.setdefault(pair.row.rejected, up_to_stop(pair.rejected))
    place = {answer: i for i, answer in enumerate(examples)}
    verdicts = tuple(_verdict(pair.row, place, margins) for pair in pairs)
    first = pairs[0].row.id
    return Group(prompt, tuple(examples), tuple(examples.values()), verdicts, f"prompt {number}{f' ({first})' if first else ''}")


def _verdict(row: Preference, place: dict[str, int], margins: Sequence[float]) -> Verdict:
    both = place[row.chosen], place[row.rejected]
    if is_tie(row):
        return Verdict(*both, is_tie=True)
    margin = margins[min(max(row.margin or 0, 0), len(margins) - 1)] if margins else 0.0
    return Verdict(*both, margin=margin, probability=probability_of(row))


def is_tie(row: Preference) -> bool:
    return row.facts.get("tie", "").strip().lower() not in _NO


def probability_of(row: Preference) -> float:
    """That the chosen answer is the better one. Raises Refused for what is no probability."""
    told = row.facts.get("probability")
    if told is None:
        return 1.0
    try:
        found = float(told)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise Refused(
            f"The pair {row.id or repr(row.chosen[:40])} says that its chosen answer is the better with the probability `{told}`.",
            fix="Give the fact `probability` as a number from 0 to 1, for example 0.8, or leave it out.",
        )
    return found


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
