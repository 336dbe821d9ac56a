"""A reward on a file of prompts with better and worse answers, counted as RewardBench counts.

    {"prompt": "...", "chosen": "...", "rejected": "...", "subset": "chat"}                     version 1: a pair
    {"prompt": "...", "chosen": ["..."], "rejected": ["...", "...", "..."], "subset": "maths"}  version 2: best of four, or of any number
    {..., "chosen": ["...", "..."], "rejected": [...], "subset": "Ties", "id": "tied:7"}        version 2, beside a reference prompt `ref:7`

One JSON object a line; `prompt` may be a list of messages. The form of a row says which version it is of; subset names are the user's own,
and those of the published sets count with their published weights.

Source     Lambert et al. 2024, arXiv:2403.13787; Malik et al. 2025, arXiv:2506.01937; the formulas: `metrics/reward_bench`
We differ  intervals beside the shares
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import PositiveInt

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer
from mygpt.infer.rewards import IdentifiedReward, rewards_of
from mygpt.metrics.bootstrap import bootstrap_mean
from mygpt.metrics.reward_bench import TiesPrompt, best_of, section_scores, ties_score

_TIES = "ties"


class RewardBenchConfig(Config):
    rows_at_once: PositiveInt = 16
    num_resamples: PositiveInt = 2_000


@dataclass(frozen=True)
class BenchRow:
    id: str
    subset: str
    prompt: tuple[Message, ...]
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    is_pair: bool  # of version 1

    @property
    def is_ties(self) -> bool:
        return not self.is_pair and self.subset.lower() == _TIES


@recipe
def reward_bench(config: RewardBenchConfig, *, source: Path, reward: IdentifiedReward, run: Run) -> Predictions:
    """Score the rows of `source` (JSON lines) with `reward`; scores by subset and section are facts."""
    rows = list(read_rows(source))
    progress = run.progress(len(rows), "prompts")
    scored: list[dict[str, Any]] = []
    for start in range(0, len(rows), config.rows_at_once):
        some = rows[start : start + config.rows_at_once]
        asked = [Conversation(row.prompt, row.id) for row in some for _ in (*row.right, *row.wrong)]
        values = rewards_of(reward, asked, [Answer(text) for row in some for text in (*row.right, *row.wrong)])
        for row in some:
            own, values = values[: len(row.right) + len(row.wrong)], values[len(row.right) + len(row.wrong) :]
            scored.append(_scored(row, own))
        progress.advance(len(some))
    figures = scores(scored, num_resamples=config.num_resamples, seed=run.seed_for("bootstrap"))
    facts = {"set": source.name, "reward": reward.identity, **figures, "sentences": sentences(figures)}
    return publish(Predictions, run, lambda folder: write_predictions(folder, scored), facts=facts)


def _scored(row: BenchRow, rewards: Sequence[float]) -> dict[str, Any]:
    right, wrong = list(rewards[: len(row.right)]), list(rewards[len(row.right) :])
    score = None if row.is_ties else float(right[0] > wrong[0]) if row.is_pair else best_of(right, wrong)
    form = "pair" if row.is_pair else _TIES if row.is_ties else "best_of"
    return {"item_id": row.id, "subset": row.subset, "form": form, "right": right, "wrong": wrong, "score": score}


def scores(rows: Sequence[Mapping[str, Any]], *, num_resamples: int = 2_000, seed: int = 0) -> dict[str, Any]:
    """`version_1`: sections and their mean; `version_2`: domains and their unweighted mean. Each is there where its rows are."""
    found: dict[str, Any] = {}
    if pairs := _by_subset(rows, "pair"):
        accuracies = {name: fmean(own) for name, own in pairs.items()}
        sections = section_scores(accuracies, {name: len(own) for name, own in pairs.items()})
        subsets = {name: _interval(own, num_resamples, seed) for name, own in pairs.items()}
        found["version_1"] = {"score": fmean(sections.values()), "sections": sections, "subsets": subsets, "chance": 0.5}
    several, tied = _by_subset(rows, "best_of"), [row for row in rows if row["form"] == _TIES]
    if several or tied:
        domains: dict[str, Any] = {name: _interval(own, num_resamples, seed) for name, own in several.items()}
        for name in domains:
            own = [row for row in rows if row["form"] == "best_of" and row["subset"] == name]
            domains[name]["chance"] = fmean(len(row["right"]) / (len(row["right"]) + len(row["wrong"])) for row in own)
        if tied:
            domains["Ties"] = {**vars(ties_score([_ties_prompt(row) for row in tied])), "n": len(tied)}
        found["version_2"] = {"score": fmean(one["score"] for one in domains.values()), "domains": domains}
    return found


def _by_subset(rows: Sequence[Mapping[str, Any]], form: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["form"] == form:
            found.setdefault(row["subset"], []).append(row["score"])
    return found


def _interval(values: Sequence[float], num_resamples: int, seed: int) -> dict[str, Any]:
    interval = bootstrap_mean(values, num_resamples=num_resamples, seed=seed)
    return {"score": interval.estimate, "low": interval.low, "high": interval.high, "n": len(values)}


def _ties_prompt(row: Mapping[str, Any]) -> TiesPrompt:
    kind, _, group = row["item_id"].partition(":")
    if kind not in ("ref", "tied") or not group:
        raise UsageError(
            f"The row `{row['item_id']}` of the subset Ties does not say whether it is tied or a reference.",
            fix="Give ids such as `tied:7` and, with one right answer to the same kind of question, `ref:7`.",
        )
    return TiesPrompt(group, kind == "ref", tuple(row["right"]), tuple(row["wrong"]))


def sentences(figures: Mapping[str, Any]) -> list[str]:
    said = []
    if one := figures.get("version_1"):
        listed = ", ".join(f"{name} {score:.3f}" for name, score in one["sections"].items())
        said.append(f"Pairs: {one['score']:.3f} (a coin: 0.500). {listed}.")
    if two := figures.get("version_2"):
        listed = ", ".join(f"{name} {one['score']:.3f}{_chance(one)}" for name, one in two["domains"].items())
        said.append(f"Best of several: {two['score']:.3f}. {listed}.")
    return said


def _chance(domain: Mapping[str, Any]) -> str:
    return f" (chance {domain['chance']:.2f})" if "chance" in domain else ""


def read_rows(source: Path) -> Iterator[BenchRow]:
    """Raises UsageError with the line's number for what is no such row."""
    number = 0
    with source.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _row(line, number, source)
    if number == 0:
        raise UsageError(f"{source} is empty.", fix="Give one JSON object a line: prompt, chosen, rejected, subset.")


def _row(line: str, number: int, source: Path) -> BenchRow:
    fix = 'A row is {"prompt": ..., "chosen": ..., "rejected": ..., "subset": ...}; several answers as lists.'
    try:
        given = json.loads(line)
    except ValueError as error:
        raise UsageError(f"Line {number} of {source} is not JSON: {error}.", fix=fix) from error
    answers = [given.get(key) if isinstance(given, dict) else None for key in ("chosen", "rejected")]
    is_pair = all(isinstance(one, str) for one in answers)
    listed = [(one,) if isinstance(one, str) else tuple(one) if isinstance(one, list) else () for one in answers]
    if not all(own and all(isinstance(text, str) for text in own) for own in listed):
        raise UsageError(f"Line {number} of {source} has no texts under `chosen` and `rejected`.", fix=fix)
    return BenchRow(
        id=str(given.get("id") or number),
        subset=str(given.get("subset") or "all"),
        prompt=_prompt(given.get("prompt"), number, source, fix),
        right=listed[0],
        wrong=listed[1],
        is_pair=is_pair,
    )


def _prompt(given: Any, number: int, source: Path, fix: str) -> tuple[Message, ...]:
    if isinstance(given, str) and given:
        return (Message("user", given),)
    if isinstance(given, list) and given and all(_is_message(one) for one in given):
        return tuple(Message(one["role"], one["content"]) for one in given)
    raise UsageError(f"Line {number} of {source} has neither a text nor messages under `prompt`.", fix=fix)


def _is_message(given: Any) -> bool:
    roles = ("system", "user", "assistant", "tool")
    return isinstance(given, dict) and given.get("role") in roles and isinstance(given.get("content"), str)
