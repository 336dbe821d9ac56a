"""Constitutional AI, second phase, and RLAIF: a model judges which of two answers keeps a principle better. A Dataset of preferences.

Each prompt is answered twice or more, sampled. Every two different answers are compared under a principle drawn from the seed, in both
orders:

    reading = P(letter of the answer) / (P("A") + P("B"))         the judge's log-probabilities after the whole question
    probability = mean of the readings over both orders and all drawn principles

The likelier answer is `chosen`; the probability stands in the row's facts, for losses that learn from soft labels. Near-ties stay: they
say that there is little to choose. With `reasoning` the judge writes its reasons first. Judges that have argued are too sure of themselves,
so each of their readings is held between 1 - `reasoned_limit` and `reasoned_limit`.

How far the judge prefers a place is measured: the mean probability of the answer shown first (0.5: not at all), and in how many readings
both orders name the same answer.

Source: Bai et al. 2022, arXiv:2212.08073, section 4 (principles at random, normalised log-probabilities as soft labels, 40 to 60 % after
reasoning). Lee et al. 2023, arXiv:2309.00267, section 2.1 (preamble, examples, ending; both orders averaged; reasons written first).
We differ: several principles may judge one pair; limits hold for each reading, before the mean of both orders.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveInt

from mygpt.align.constitution import Constitution, Principle, open_constitution
from mygpt.align.requests import dialogue, red_team_prompts, requests
from mygpt.artifacts.dataset import Conversation, Dataset, Message, Preference, preference_facts, write_preferences
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.digest import digest_value
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.infer.cached_completer import CachedCompleter
from mygpt.infer.cached_scorer import CachedScorer
from mygpt.infer.judge import weighed
from mygpt.infer.protocols import Completer, Sampling, Scorer
from mygpt.metrics.t_interval import t_interval
from mygpt.metrics.wilson import wilson

_PREAMBLE = (
    "Two replies to one request are compared by one rule. The better reply keeps the rule better. "
    "Which of them stands first, and which is longer, does not matter."
)
_LETTERS = (" A", " B")
_NEAR_TIE = 0.05  # of an even chance


class AIPreferencesConfig(Config):
    constitution: str = "harmless_and_helpful"  # one that is included; a file of your own is the input `constitution_file`
    prompts: NonNegativeInt = 0  # at most so many; 0: all
    answers: Annotated[int, Field(ge=2)] = 2  # to each prompt; all pairs of different ones are compared
    temperature: Annotated[float, Field(gt=0)] = 1.0
    max_answer_tokens: PositiveInt = 128
    principles_per_pair: PositiveInt = 1
    examples: NonNegativeInt = 2  # worked comparisons of the constitution that the judge sees first, at most
    reasoning: bool = False  # let the judge write its reasons before it decides
    max_reasoning_tokens: PositiveInt = 80
    reasoned_limit: Annotated[float, Field(gt=0.5, le=1)] = 0.6  # no reading after reasoning is surer
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.1  # of the prompts, whose pairs are the split `test`


@dataclass(frozen=True)
class Compared:
    """Two answers to one prompt under one principle. Both readings are about the first answer; None: the judge gave no number."""

    prompt: Conversation
    answers: tuple[str, str]
    principle: Principle
    forward: float | None = None  # the first answer shown first
    backward: float | None = None  # the second shown first
    mass: float = 0.0  # probability of both letters together, the smaller of the two orders; near 0: the judge wanted to say something else
    reasons: tuple[str, str] = ("", "")

    @property
    def preference(self) -> float | None:
        return None if self.forward is None or self.backward is None else (self.forward + self.backward) / 2


@recipe
def ai_preferences(
    config: AIPreferencesConfig,
    *,
    completer: Completer,
    judge: Scorer,
    reasoner: Completer | None = None,
    prompts: Dataset | None = None,
    constitution_file: Path | None = None,
    run: Run,
) -> Dataset:
    """Splits `train` and `test`. `reasoner` writes the reasons, by default the judge itself.

    Without `prompts` our own red-team requests are answered.
    """
    constitution = open_constitution(config.constitution, constitution_file)
    thinker = reasoner_of(config, judge, reasoner)
    kept = run.home / "cache"
    asked = requests(prompts, red_team_prompts(), config.prompts or None)
    pairs, skipped = answer_pairs(config, asked, CachedCompleter(completer, kept / "answers.sqlite"), run)
    draw = run.random("ai_preferences/principles")
    number = min(config.principles_per_pair, len(constitution.principles))
    questions = [Compared(prompt, pair, p) for prompt, pair in pairs for p in draw.sample(constitution.principles, number)]

    thinking = CachedCompleter(thinker, kept / "answers.sqlite") if thinker else None
    readings = compare(config, questions, constitution, CachedScorer(judge, kept / "scores.sqlite"), thinking, run)
    by_pair = [readings[i : i + number] for i in range(0, len(readings), number)]
    annotator = f"judge {digest_value(judge.identity)[:8]}"
    found = [(of_pair[0].prompt, preference_of(of_pair, annotator)) for of_pair in by_pair]
    skipped["unreadable verdict"] = sum(row is None for _, row in found)
    held_out = set(run.random("ai_preferences/test").sample(range(len(asked)), round(config.test_share * len(asked))))
    in_test = {prompt.messages for i, prompt in enumerate(asked) if i in held_out}
    splits = {
        name: [row for prompt, row in found if row is not None and (prompt.messages in in_test) == is_test]
        for name, is_test in (("train", False), ("test", True))
    }
    if not splits["train"]:
        told = ", ".join(f"{count} {reason}" for reason, count in skipped.items() if count) or "no prompts"
        raise UsageError(f"No two answers could be compared: {told}.", fix="Raise `temperature` or `answers`, or name other prompts.")
    measured = figures([one for one in readings if one.preference is not None], [row for rows in splits.values() for row in rows])
    facts = {**preference_facts(splits), "not_compared": dict(skipped), **measured, "constitution": constitution.told}
    for sentence in facts["sentences"]:
        run.note(sentence)
    return publish(Dataset, run, lambda folder: write_preferences(folder, splits), facts=facts)


def reasoner_of(config: AIPreferencesConfig, judge: Scorer, reasoner: Completer | None) -> Completer | None:
    if not config.reasoning:
        return None
    thinker: Any = reasoner or (judge if hasattr(judge, "complete") else None)
    if thinker is None:
        raise UsageError("The judge gives log-probabilities only, so it cannot write reasons.", fix="Name who does: `--reasoner MODEL`.")
    found: Completer = thinker
    return found


def answer_pairs(
    config: AIPreferencesConfig, asked: Sequence[Conversation], completer: Completer, run: Run
) -> tuple[list[tuple[Conversation, tuple[str, str]]], Counter[str]]:
    """All pairs of different answers, and how many there are not."""
    seed = run.seed_for("ai_preferences/answers") % 2**31
    sampling = Sampling(max_tokens=config.max_answer_tokens, temperature=config.temperature, seed=seed)
    answers = completer.complete([prompt for prompt in asked for _ in range(config.answers)], sampling)
    pairs, skipped = [], Counter[str]()
    for i, prompt in enumerate(asked):
        texts = [answer.text.strip() for answer in answers[i * config.answers : (i + 1) * config.answers]]
        for one, other in combinations(texts, 2):
            if not one or not other:
                skipped["with an empty answer"] += 1
            elif one == other:
                skipped["of identical answers"] += 1
            else:
                pairs.append((prompt, (one, other)))
    return pairs, skipped


def compare(
    config: AIPreferencesConfig,
    questions: Sequence[Compared],
    constitution: Constitution,
    judge: Scorer,
    thinker: Completer | None,
    run: Run,
) -> list[Compared]:
    """Every question with its readings, in order."""
    examples = constitution.comparisons[: config.examples]
    shown = "\n\n".join([_PREAMBLE, *(_worked(one, constitution, reasoned=thinker is not None) for one in examples)])
    texts = [_asked(shown, q, order, reasoned=thinker is not None) for q in questions for order in ((0, 1), (1, 0))]
    reasons = [""] * len(texts)
    if thinker is not None:
        greedy = Sampling(max_tokens=config.max_reasoning_tokens, stop=("\n",))
        said = thinker.complete([Conversation((Message("text", text),)) for text in texts], greedy)
        reasons = [answer.text.strip() for answer in said]
        texts = [f"{text} {reason}\nBetter reply:" for text, reason in zip(texts, reasons, strict=True)]
    progress = run.progress(len(texts), "readings")
    verdicts = weighed(judge, texts, _LETTERS) if texts else []
    progress.advance(len(texts))
    limit = config.reasoned_limit if thinker is not None else 1.0
    made = []
    for i, q in enumerate(questions):
        there, back = verdicts[2 * i], verdicts[2 * i + 1]
        forward, backward = (_within(said.probabilities[k], limit) if said.probabilities else None for said, k in ((there, 0), (back, 1)))
        mass = min(there.mass or 0.0, back.mass or 0.0)
        made.append(Compared(q.prompt, q.answers, q.principle, forward, backward, mass, (reasons[2 * i], reasons[2 * i + 1])))
    return made


def preference_of(readings: Sequence[Compared], annotator: str) -> Preference | None:
    """The mean over the principles that could be read; None where none could. The first answer is chosen on an exact tie."""
    read = [(one, one.preference) for one in readings if one.preference is not None]
    if not read:
        return None
    first = fmean(value for _, value in read)
    (one, other), swapped = read[0][0].answers, first < 0.5
    told = [
        {
            "principle": reading.principle.id,
            "probability": round(1 - value if swapped else value, 6),
            "orders": [round(1 - p if swapped else p, 6) for p in (reading.forward, reading.backward) if p is not None],
            **({"reasons": list(reading.reasons)} if any(reading.reasons) else {}),
        }
        for reading, value in read
    ]
    prompt = read[0][0].prompt
    chosen, rejected = (other, one) if swapped else (one, other)
    facts = {
        "probability": f"{max(first, 1 - first):.6f}",
        "principles": ",".join(reading.principle.id for reading, _ in read),
        "readings": json.dumps(told, ensure_ascii=False),
    }
    identity = digest_value([[[m.role, m.content] for m in prompt.messages], chosen, rejected])[:16]
    return Preference(prompt.messages, chosen, rejected, identity, annotator=annotator, facts=facts)


def figures(readings: Sequence[Compared], rows: Sequence[Preference]) -> dict[str, Any]:
    """Whether the judge can be trusted: its liking for a place, its agreement with itself, and how much it had to say."""
    places = [(one.forward + 1 - one.backward) / 2 for one in readings if one.forward is not None and one.backward is not None]
    same = sum((one.forward - 0.5) * (one.backward - 0.5) > 0 for one in readings if one.forward is not None and one.backward is not None)
    probabilities = [float(row.facts["probability"]) for row in rows]
    near = sum(p - 0.5 < _NEAR_TIE for p in probabilities)
    first = t_interval(places) if len(places) > 1 else None
    consistent = wilson(same, len(places))
    between = f" ({first.low:.2f} to {first.high:.2f})" if first else ""
    return {
        "first_place": {"estimate": fmean(places), "low": first.low if first else None, "high": first.high if first else None},
        "consistent": {"estimate": consistent.estimate, "low": consistent.low, "high": consistent.high},
        "near_ties": near,
        "mean_probability": fmean(probabilities),
        "mean_mass": fmean(one.mass for one in readings),
        "sentences": [
            f"The judge gives the answer shown first a probability of {fmean(places):.2f}{between}; 0.50 would be no liking for a place.",
            f"Both orders name the same answer in {same} of {len(places)} readings "
            f"({consistent.low:.0%} to {consistent.high:.0%}); {near} of {len(rows)} pairs are near-ties.",
        ],
    }


# -- what the judge reads -----------------------------------------------------------------------------------------------------


def _asked(shown: str, question: Compared, order: tuple[int, int], *, reasoned: bool) -> str:
    first, second = (question.answers[i] for i in order)
    return f"{shown}\n\n{_pair(dialogue(question.prompt.messages), first, second, question.principle)}{_ending(reasoned)}"


def _worked(one: Any, constitution: Constitution, *, reasoned: bool) -> str:
    pair = _pair(one.request, one.a, one.b, constitution.principle(one.principle))
    reasons = f"Reasons: {one.reason}\n" if reasoned else ""
    return f"{pair}{reasons}Better reply: {one.better.upper()}"


def _pair(request: str, first: str, second: str, principle: Principle) -> str:
    return f"Request: {request}\nReply A: {first}\nReply B: {second}\nRule: The better reply is the one that {principle.better}.\n"


def _ending(reasoned: bool) -> str:
    return "Reasons:" if reasoned else "Better reply:"


def _within(probability: float, limit: float) -> float:
    assert not math.isnan(probability)
    return min(max(probability, 1 - limit), limit)
