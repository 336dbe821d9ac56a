"""A model as judge: which of two answers is better, and how good one answer is.

    Judge.compare(prompts, a, b) -> comparisons     every pair in both orders
    Judge.grade(prompts, answers) -> grades         the expectation over the scale, 1 to 5 unless the wording has another

`ModelJudge` asks a Scorer for the log-probability of each allowed verdict after the judge's prompt, and nothing else can be said:

    preference = mean over both orders of P(letter of a) / (P("A") + P("B"))        grade = sum(s * P(s)) / sum(P(s))

A wording may allow a third letter for a tie: it counts half for each.

A Completer (a model elsewhere) writes its verdict freely, which is read strictly: the letter or the digit and nothing beside it. What
cannot be read is a reading without value; it is never a tie, and whoever counts must count it. A server that echoes log-probabilities is a
Scorer too (`infer/remote_scorer`), and constrained as one.

Source: both orders, since judges prefer a place: Zheng et al. 2023, arXiv:2306.05685, sections 3.3 and 3.4. Expectation over the scale:
        Liu et al. 2023, "G-Eval", arXiv:2303.16634, equation 1.
We differ: Zheng et al. call a pair on which the orders disagree a tie; here it is a preference between, and `winner` is the tie. Liu et al.
estimate the probabilities from samples; here they are the model's own, over the whole scale. No reasoning is asked for first.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.core.errors import UsageError
from mygpt.infer.protocols import Answer, Completer, Identity, Sampling, Score, Scorer

Winner = Literal["a", "b", "tie"]

_COMPARE = """Two answers to one request are compared. The better one is {criteria}. Its length and its place do not matter.

[Request]
{prompt}
[End of request]

[Answer A]
{first}
[End of answer A]

[Answer B]
{second}
[End of answer B]

Which answer is better? Reply with the letter alone, A or B.
Better answer:"""

_GRADE = """An answer to a request is graded from 1 (useless) to {highest} (excellent). A good answer is {criteria}.

[Request]
{prompt}
[End of request]

[Answer]
{answer}
[End of answer]

Reply with the grade alone, a number from 1 to {highest}.
Grade:"""


@dataclass(frozen=True)
class Wording:
    """What the judge is asked. `letters` and `digits` are the continuations that are scored, white space included: a prompt that ends in
    a line break wants them without the leading space. For a model with a chat template, write the template's turns into the texts.

    A third letter is the verdict that both are equal; the text must offer it. `digits` is the whole scale, from the worst;
    `{highest}` is its last.
    """

    compare: str = _COMPARE
    grade: str = _GRADE
    criteria: str = "correct, complete, and does what was asked"
    letters: tuple[str, ...] = (" A", " B")
    digits: tuple[str, ...] = (" 1", " 2", " 3", " 4", " 5")

    def __post_init__(self) -> None:
        for name, text, wanted in (("compare", self.compare, ("prompt", "first", "second")), ("grade", self.grade, ("prompt", "answer"))):
            missing = [f"{{{place}}}" for place in wanted if f"{{{place}}}" not in text]
            if missing:
                fix = f"It needs {', '.join(f'{{{place}}}' for place in wanted)}."
                raise UsageError(f"The judge's wording `{name}` has no {', '.join(missing)}.", fix=fix)
        for name, verdicts in (("letters", self.letters), ("digits", self.digits)):
            if len({verdict.strip() for verdict in verdicts} - {""}) != len(verdicts) or len(verdicts) < 2:
                fix = "Give each its own, two at least."
                raise UsageError(f"The judge's `{name}` {list(verdicts)} are not distinct verdicts.", fix=fix)
        if len(self.letters) > 3:
            raise UsageError(f"The judge has {len(self.letters)} letters {list(self.letters)}.", fix="First, second and, if wanted, a tie.")

    def fill(self, text: str, **places: str) -> str:
        """One pass: braces inside a prompt or an answer stay what they are."""
        places = {"criteria": self.criteria, "highest": self.digits[-1].strip(), **places}
        return re.sub(r"\{(\w+)\}", lambda found: places.get(found[1], found[0]), text)


@dataclass(frozen=True)
class Reading:
    """One verdict. `value` is P(a is better) or a grade; None: it could not be read."""

    value: float | None
    mass: float | None = None  # probability of all allowed verdicts together; near 0, the model wanted to say something else
    output: str = ""  # what a Completer wrote


@dataclass(frozen=True)
class Comparison:
    """Of answers a and b to one prompt. Both readings are about a."""

    forward: Reading  # a was shown first
    backward: Reading  # b was shown first

    @property
    def preference(self) -> float | None:
        """P(a is better), mean over both orders; None where either could not be read: one order alone has its place's advantage."""
        if self.forward.value is None or self.backward.value is None:
            return None
        return (self.forward.value + self.backward.value) / 2

    @property
    def consistent(self) -> bool | None:
        """Whether both orders name the same answer."""
        if self.forward.value is None or self.backward.value is None:
            return None
        return _side(self.forward.value) == _side(self.backward.value)

    @property
    def winner(self) -> Winner | None:
        """The answer that both orders name; a tie where they disagree, or both say so."""
        if self.forward.value is None or self.backward.value is None:
            return None
        both = {_side(self.forward.value), _side(self.backward.value)}
        return "a" if both == {1} else "b" if both == {-1} else "tie"


@dataclass(frozen=True)
class Grade:
    reading: Reading
    probabilities: tuple[float, ...] = ()  # of each grade, summing to 1; a written grade has all of it; () where it could not be read

    @property
    def value(self) -> float | None:
        return self.reading.value


class Judge(Protocol):
    @property
    def identity(self) -> Identity: ...

    def compare(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> list[Comparison]:
        """One comparison per prompt, in order, each in both orders."""

    def grade(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Grade]:
        """One grade per prompt, in order."""


class ModelJudge:
    """Of a Scorer (log-probabilities of the verdicts) or a Completer (a written verdict): exactly one of them."""

    def __init__(
        self, *, scorer: Scorer | None = None, completer: Completer | None = None, wording: Wording | None = None, max_tokens: int = 8
    ):
        if (scorer is None) == (completer is None):
            raise UsageError("A judge needs a scorer or a completer, one of the two.", fix="A model on this machine is a scorer.")
        self._scorer, self._completer = scorer, completer
        self._wording = wording or Wording()
        self._sampling = Sampling(max_tokens=max_tokens)  # greedy; only a Completer's

    @property
    def identity(self) -> Identity:
        wording = asdict(self._wording)
        if self._scorer is not None:
            return {"judge": "log-probabilities", "scorer": self._scorer.identity, "wording": wording}
        assert self._completer is not None
        written = {"judge": "written verdicts", "completer": self._completer.identity, "max_tokens": self._sampling.max_tokens}
        return {**written, "wording": wording}

    def compare(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> list[Comparison]:
        wording = self._wording
        asked = []
        for prompt, one, other in zip(prompts, a, b, strict=True):
            asked += [wording.fill(wording.compare, prompt=prompt, first=f, second=s) for f, s in ((one, other), (other, one))]
        said = self._ask(asked, wording.letters)
        return [Comparison(_chance(forward, 0), _chance(backward, 1)) for forward, backward in zip(said[::2], said[1::2], strict=True)]

    def grade(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Grade]:
        wording = self._wording
        asked = [wording.fill(wording.grade, prompt=p, answer=a) for p, a in zip(prompts, answers, strict=True)]
        return [_grade(said) for said in self._ask(asked, wording.digits)]

    def _ask(self, asked: Sequence[str], verdicts: Sequence[str]) -> list["Said"]:
        if not asked:
            return []
        if self._scorer is not None:
            return weighed(self._scorer, asked, verdicts)
        assert self._completer is not None
        conversations = [Conversation((Message("user", text),), str(number)) for number, text in enumerate(asked)]
        answers = self._completer.complete(conversations, self._sampling)
        return [_written(answer, verdicts) for answer in answers]


@dataclass(frozen=True)
class Said:
    """One verdict, as chances of all that are allowed."""

    probabilities: tuple[float, ...]  # of each verdict, in order, summing to 1; () where it could not be read
    mass: float | None = None
    output: str = ""


def weighed(scorer: Scorer, asked: Sequence[str], verdicts: Sequence[str]) -> list[Said]:
    """After each text of `asked`, which of the verdicts comes next, by the scorer's log-probabilities."""
    scores = scorer.score([text for text in asked for _ in verdicts], [verdict for _ in asked for verdict in verdicts])
    return [_weighed(scores[i : i + len(verdicts)], verdicts) for i in range(0, len(scores), len(verdicts))]


def _weighed(scores: Sequence[Score], verdicts: Sequence[str]) -> Said:
    logprobs = [score.logprob for score in scores]
    highest = max(logprobs)
    if any(math.isnan(logprob) for logprob in logprobs) or not math.isfinite(highest):
        return Said(())
    weights = _alone([math.exp(logprob - highest) for logprob in logprobs], scores, verdicts)
    return Said(tuple(weight / sum(weights) for weight in weights), math.exp(highest) * sum(weights))


def _alone(weights: Sequence[float], scores: Sequence[Score], verdicts: Sequence[str]) -> list[float]:
    """Of each verdict without those that only begin with it: after the token " 1" may come the "0" of " 10"."""
    alone = list(weights)
    for i in sorted(range(len(verdicts)), key=lambda i: -len(verdicts[i])):  # the longest first
        for j, longer in enumerate(verdicts):
            if j != i and longer.startswith(verdicts[i]) and scores[j].num_tokens > scores[i].num_tokens:
                alone[i] = max(0.0, alone[i] - alone[j])
    return alone


def _written(answer: Answer, verdicts: Sequence[str]) -> Said:
    """The verdict alone; quotes, brackets, asterisks around it and a full stop behind are forgiven."""
    words = [verdict.strip() for verdict in verdicts]
    found = re.fullmatch(rf"[\s\"'*(\[]*({'|'.join(map(re.escape, words))})[\"'*)\]]*\.?[\s\"'*)\]]*", answer.text)
    return Said(tuple(float(word == found[1]) for word in words) if found else (), None, answer.text)


def _chance(said: Said, place: int) -> Reading:
    """Of the answer at this place; a verdict of a tie counts half."""
    tie = sum(said.probabilities[2:]) / 2
    return Reading(said.probabilities[place] + tie if said.probabilities else None, said.mass, said.output)


def _grade(said: Said) -> Grade:
    expectation = sum(grade * p for grade, p in enumerate(said.probabilities, start=1)) if said.probabilities else None
    return Grade(Reading(expectation, said.mass, said.output), said.probabilities)


def _side(preference: float) -> int:
    return (preference > 0.5) - (preference < 0.5)
