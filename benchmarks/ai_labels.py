"""A judge's labels against what people prefer, and against what is right: AI preferences, direct feedback, and what needs no judge.

    python -m benchmarks.ai_labels --json --keep                          (about 7 minutes on one core)
    python -m benchmarks.ai_labels --judge http://127.0.0.1:8000/v1       (a stronger judge; it has to echo log-probabilities)

harmless    people's pairs of answers to red-team dialogues (hh-rlhf), under two principles of `harmless_and_helpful` drawn for each pair
gsm8k       a right solution and a wrong one of the same problem, as four models wrote them, under one principle: the right result
foreign     a right solution and one of another problem, under the same principle: who cannot tell these apart is no judge of anything

One pair a prompt, drawn of those that `benchmarks.reward_models` holds out. The share of pairs on which a label names the preferred
answer, with Wilson's interval:

ai_preferences     the mean of both orders. `one_order`: asked once, the mean over which answer is shown first; `mended`: what asking both
                   orders adds, paired. `turned`: the pairs whose verdict turns with the order; `soft`: whether the probability is worth
                   anything (log loss against a coin's ln 2, calibration error)
direct_feedback    the answer with the higher grade from 1 to 10
likelihood         the answer that the judge itself would rather write: the higher log-probability, whole and by token
length             always the longer answer, always the shorter; those of equal length are in neither
"""

import math
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from benchmarks.record import arguments, finish, limits
from benchmarks.reward_models import SETS, SplitConfig, one_a_prompt, split_pairs
from mygpt.align.ai_preferences import AIPreferencesConfig, Compared, compare
from mygpt.align.constitution import Constitution, Example, Principle, WorkedComparison, open_constitution
from mygpt.align.direct_feedback import constitutional_feedback
from mygpt.artifacts.dataset import Conversation, Preference
from mygpt.cli.options import progress_view
from mygpt.core.home import model_cache
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer, Scorer
from mygpt.infer.remote_scorer import RemoteScorer
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.sources import obtain
from mygpt.metrics.bootstrap import bootstrap_mean, paired_bootstrap
from mygpt.metrics.calibration import equal_width_bins, expected_calibration_error
from mygpt.metrics.wilson import wilson

SOLUTIONS = Constitution(
    id="solutions",
    name="Solutions of word problems",
    principles=(
        Principle(
            id="right",
            critique="Say which step of the solution is wrong.",
            revision="Rewrite the solution so that every step is right.",
            better="comes to the right result by right steps",
        ),
    ),
    examples=(
        Example(
            principle="right",
            request="Three bags hold 4 apples each. How many apples are there?",
            answer="3 * 4 = 12, so there are 12 apples.",
            critique="No change needed. Three times four is twelve.",
        ),
        Example(
            principle="right",
            request="Tom had 9 pens and gave away 2. How many are left?",
            answer="9 + 2 = 11, so 11 pens are left.",
            critique="What is given away is taken off, not added.",
            revision="9 - 2 = 7, so 7 pens are left.",
        ),
    ),
    comparisons=(
        WorkedComparison(
            principle="right",
            request="Tom had 9 pens and gave away 2. How many are left?",
            a="9 + 2 = 11, so 11 pens are left.",
            b="9 - 2 = 7, so 7 pens are left.",
            reason="What is given away is taken off. Reply A adds it.",
            better="b",
        ),
        WorkedComparison(
            principle="right",
            request="Three bags hold 4 apples each. How many apples are there?",
            a="3 * 4 = 12, so there are 12 apples.",
            b="3 + 4 = 7, so there are 7 apples.",
            reason="Three bags of four are three times four. Reply B adds them.",
            better="a",
        ),
    ),
)


@dataclass(frozen=True)
class Asked:
    """Which pairs, and by which principles."""

    source: str  # in `SETS`
    longest_characters: int
    pairs: int
    constitution: Constitution
    principles: int  # drawn for each pair; the first is direct feedback's too


FOREIGN = "foreign"
ASKED = {
    "harmless": Asked("harmless", 400, 150, open_constitution("harmless_and_helpful"), 2),
    "gsm8k": Asked("gsm8k", 700, 100, SOLUTIONS, 1),
    FOREIGN: Asked("gsm8k", 700, 60, SOLUTIONS, 1),
}
_QUICK = 6


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the folder of the two files")
    parser.add_argument("--judge", default="smollm2-135m-q4_1", help="a model here, or an address that echoes log-probabilities")
    parser.add_argument("--home", type=Path, default=model_cache().parent / "mygpt-benchmarks", help="where the pairs are kept")
    parser.add_argument("--quick", action="store_true", help="a few pairs: proves that it runs")
    options = parser.parse_args()
    with Run(options.home, name="ai_labels", listeners=(progress_view(),)) as run:
        at_address = options.judge.startswith(("http://", "https://"))
        judge: Scorer = RemoteScorer(options.judge, run=run) if at_address else TorchEngine(obtain(options.judge, run=run), run=run)
        judge.score(["The weights are read"], [" now."])  # outside what is timed
        figures = {}
        for name, setting in ASKED.items():
            split = SplitConfig(longest_characters=setting.longest_characters, most_prompts=1, most_asked=setting.pairs)
            pairs = one_a_prompt(split_pairs(split, source=options.data / SETS[setting.source][0], run=run).preferences("test"))
            if name == FOREIGN:
                pairs = against_the_next(pairs)
            with run.step(name):
                figures[name] = measured(pairs[: _QUICK if options.quick else None], setting, judge, run)
    finish("ai_labels", {"judge": judge.identity, **figures}, options)


def against_the_next(pairs: Sequence[Preference]) -> list[Preference]:
    """Each prompt's preferred answer against that of another."""
    return [replace(row, rejected=other.chosen) for row, other in zip(pairs, [*pairs[1:], pairs[0]], strict=True)]


def measured(pairs: Sequence[Preference], setting: Asked, judge: Scorer, run: Run) -> dict[str, Any]:
    draw = random.Random(0)
    drawn = [draw.sample(setting.constitution.principles, setting.principles) for _ in pairs]
    by_length = [len(row.chosen) - len(row.rejected) for row in pairs]
    started = time.perf_counter()
    compared = by_comparison(pairs, drawn, setting.constitution, judge, run)
    compared_seconds, started = time.perf_counter() - started, time.perf_counter()
    graded = by_grade(pairs, [own[0] for own in drawn], setting.constitution, judge)
    graded_seconds, started = time.perf_counter() - started, time.perf_counter()
    whole, by_token = by_likelihood(pairs, judge)
    likelihood_seconds = time.perf_counter() - started
    assert pstdev(one.forward or 0.0 for one in compared) > 0, "the judge gave every pair the same verdict"
    first = compared[:: setting.principles]
    labels = preferences_figures(first, by_length)
    grades = [grade for both in graded for grade in both]
    return {
        "pairs": len(pairs),
        "constitution": setting.constitution.id,
        "ai_preferences": {**labels, "seconds_a_pair": round(compared_seconds / len(compared), 3)},
        **({"principles": of_two_principles(first, compared[1 :: setting.principles])} if setting.principles > 1 else {}),
        "direct_feedback": {
            "right": right([chosen - rejected for chosen, rejected in graded]),
            "mean_reward": round(fmean(grades), 4),
            "spread_of_rewards": round(pstdev(grades), 4),  # of -1 to 1
            "seconds_a_pair": round(graded_seconds / len(pairs), 3),
        },
        "likelihood": {"whole": right(whole), "by_token": right(by_token), "seconds_a_pair": round(likelihood_seconds / len(pairs), 3)},
        "length": {"longer": right(by_length), "shorter": right([-value for value in by_length])},
    }


# -- what is asked -----------------------------------------------------------------------------------------------------------


def by_comparison(
    pairs: Sequence[Preference], drawn: Sequence[Sequence[Principle]], constitution: Constitution, judge: Scorer, run: Run
) -> list[Compared]:
    """Pair after pair, its principles in order. The preferred answer is the first of `answers`."""
    questions = [
        Compared(Conversation(row.prompt, row.id), (row.chosen, row.rejected), principle)
        for row, own in zip(pairs, drawn, strict=True)
        for principle in own
    ]
    return compare(AIPreferencesConfig(), questions, constitution, judge, None, run)


def by_grade(
    pairs: Sequence[Preference], principles: Sequence[Principle], constitution: Constitution, judge: Scorer
) -> list[tuple[float, float]]:
    """Rewards of the preferred answer and of the other."""
    by_principle: dict[str, list[int]] = defaultdict(list)
    for number, principle in enumerate(principles):
        by_principle[principle.id].append(number)
    found: dict[int, tuple[float, float]] = {}
    for name, numbers in by_principle.items():
        reward = constitutional_feedback(constitution, judge, [name])
        prompts = [Conversation(pairs[i].prompt) for i in numbers for _ in range(2)]
        values = reward.each(prompts, [Answer(text) for i in numbers for text in (pairs[i].chosen, pairs[i].rejected)])
        found |= dict(zip(numbers, zip(values[::2], values[1::2], strict=True), strict=True))
    return [found[i] for i in range(len(pairs))]


def by_likelihood(pairs: Sequence[Preference], judge: Scorer) -> tuple[list[float], list[float]]:
    """How much likelier the preferred answer is, in nats: whole, and by token."""
    prompts = ["".join(f"{m.role.capitalize()}: {m.content}\n\n" for m in row.prompt) + "Assistant:" for row in pairs]
    answers = [f" {text}" for row in pairs for text in (row.chosen, row.rejected)]
    scores = judge.score([prompt for prompt in prompts for _ in range(2)], answers)
    both = list(zip(scores[::2], scores[1::2], strict=True))
    return [a.logprob - b.logprob for a, b in both], [a.logprob / a.num_tokens - b.logprob / b.num_tokens for a, b in both]


# -- what came out -----------------------------------------------------------------------------------------------------------


def right(gaps: Sequence[float]) -> dict[str, Any]:
    """Above 0 the preferred answer is named; at 0 none is, and the pair is counted apart."""
    decided = [gap for gap in gaps if gap != 0]
    if not decided:
        return {"ties": len(gaps)}
    return {**limits(wilson(sum(gap > 0 for gap in decided), len(decided))), "pairs": len(decided), "ties": len(gaps) - len(decided)}


def preferences_figures(compared: Sequence[Compared], by_length: Sequence[int]) -> dict[str, Any]:
    """Of the readings of each pair in both orders; `by_length`: characters of the preferred answer less those of the other."""
    orders = [(one.forward, one.backward) for one in compared]
    read = [(a, b, gap) for (a, b), gap in zip(orders, by_length, strict=True) if a is not None and b is not None]
    label = [(a + b) / 2 for a, b, _ in read]
    both, once = [hit(p) for p in label], [(hit(a) + hit(b)) / 2 for a, b, _ in read]
    agreed = [a - 0.5 for a, b, _ in read if (a - 0.5) * (b - 0.5) > 0]
    by_place = [value for a, b, _ in read for value in (hit(a), 1 - hit(b))]
    longer = [hit(gap / 1e6 + 0.5) for _, _, gap in read]
    length = longer if fmean(longer) >= 0.5 else [1 - value for value in longer]
    return {
        "unreadable": len(compared) - len(read),
        "right": right([p - 0.5 for p in label]),
        "over_length": {"rule": "longer" if length is longer else "shorter", **limits(paired_bootstrap(both, length))},
        "one_order": limits(bootstrap_mean(once)),
        "mended": limits(paired_bootstrap(both, once)),
        "where_orders_agree": right(agreed),
        "turned": limits(wilson(len(read) - len(agreed), len(read))),
        "names_first_shown": round(fmean(by_place), 4),
        "names_longer": right([(p - 0.5) * gap for p, (_, _, gap) in zip(label, read, strict=True)]),
        "soft": soft(label),
        "mean_mass": round(fmean(one.mass for one in compared), 4),
    }


def hit(probability: float) -> float:
    return 1.0 if probability > 0.5 else 0.5 if probability == 0.5 else 0.0


def soft(label: Sequence[float]) -> dict[str, float]:
    """Of the probability that each pair's preferred answer is the better one."""
    sure, is_right = [max(p, 1 - p) for p in label], [p > 0.5 for p in label]
    return {
        "log_loss": round(-fmean(math.log(max(p, 1e-12)) for p in label), 4),
        "coin": round(math.log(2), 4),
        "mean_confidence": round(fmean(sure), 4),
        "calibration_error": round(expected_calibration_error(equal_width_bins(sure, is_right, num_bins=20)), 4),
    }


def of_two_principles(first: Sequence[Compared], second: Sequence[Compared]) -> dict[str, Any]:
    """Whether the principle matters: the share of pairs on which two name the same answer, and how far their labels are apart."""
    both = [(a.preference, b.preference) for a, b in zip(first, second, strict=True)]
    read = [(a, b) for a, b in both if a is not None and b is not None]
    same = sum(hit(a) == hit(b) for a, b in read)
    told: Mapping[str, Any] = {"same_answer": limits(wilson(same, len(read))), "apart": round(fmean(abs(a - b) for a, b in read), 4)}
    return {**told, "right_together": right([(a + b) / 2 - 0.5 for a, b in read])}


if __name__ == "__main__":
    main()
