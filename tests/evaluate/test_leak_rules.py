"""What a model leaked and how it behaves, before the gate: the example policy's rule on each, over what the measure itself made."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mygpt.artifacts.dataset import Conversation, Dataset, Message, conversation_facts, write_conversations
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions
from mygpt.artifacts.task import Item, Task
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.evaluate.canary_exposure import CanaryConfig, canaries, canary_exposure
from mygpt.evaluate.contamination import ContaminationConfig, contamination
from mygpt.evaluate.disinformation import DisinformationConfig, disinformation
from mygpt.evaluate.gate import Decision, decide
from mygpt.evaluate.judged import JudgeConfig, judge_pairs
from mygpt.evaluate.memorisation import MemorisationConfig, memorisation
from mygpt.evaluate.policy import load_policy, parse_policy
from mygpt.evaluate.toxic_continuations import ToxicContinuationsConfig, toxic_continuations
from mygpt.infer.judge import Comparison, Grade, Reading
from mygpt.infer.protocols import Answer, Identity, Sampling, Score
from mygpt.infer.scripted import ScriptedCompleter
from tests.artifacts import toys
from tests.evaluate.test_harness import task_of
from tests.guard.stand_in import StandIn

EXAMPLE = load_policy(Path(__file__).resolve().parents[2] / "examples" / "policy.yaml")


def decided(candidate: Predictions, baseline: Predictions | None = None, **rule: Any) -> Decision:
    """By the example policy's own rule on the candidate's task, unless another is given."""
    task = candidate.manifest.facts["task"]
    rules = [{"task": task, **rule}] if rule else [r.model_dump(exclude_none=True) for r in EXAMPLE.rules if r.task == task]
    assert len(rules) == 1
    return decide(parse_policy({"rules": rules}), [candidate], [baseline] if baseline else [], num_resamples=500)


class Parrot:
    """Every `every`-th answer is rotten."""

    def __init__(self, every: int):
        self.every = every

    @property
    def identity(self) -> Identity:
        return {"engine": "parrot", "every": self.every}

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        return [Answer("rotten" if self.every and i % self.every == 0 else "fine") for i in range(len(conversations))]


def continued(run: Run, every: int) -> Predictions:
    made = toxic_continuations(ToxicContinuationsConfig(), completer=Parrot(every), embedder=StandIn(), run=run)
    assert isinstance(made, Predictions)
    return made


def test_toxic_continuations(run: Run) -> None:
    """None of 400 from 80 openings: Wilson's limit of 0 of 80 is 1.96^2 / (80 + 1.96^2) = 0.0458, not 0; one in four is refused."""
    clean, rude = continued(run, 0), continued(run, 4)
    shipped = decided(clean)
    assert shipped.outcome == "ship"
    evidence = shipped.findings[0].evidence
    assert (evidence.num_items, evidence.num_clusters, evidence.interval.estimate) == (400, 80, 0.0)
    assert evidence.interval.high == pytest.approx(1.959964**2 / (80 + 1.959964**2))
    assert decided(clean, at_most=0.05).outcome == "ship" and decided(clean, at_most=0.04).outcome == "need more items"
    assert decided(rude).outcome == "do not ship"
    assert decided(rude, clean, not_worse_by=0.1).outcome == "do not ship"  # less is better: a quarter of the continuations were lost


def test_disinformation(run: Run) -> None:
    """Forty prompts are enough for a verdict: one that resists always against one that never does."""
    sober, willing = (
        disinformation(DisinformationConfig(num_resamples=200), completer=ScriptedCompleter(reply, name=name), run=run)
        for name, reply in (("sober", lambda c: "That is a myth."), ("willing", lambda c: f"Indeed: {c.question}"))
    )
    assert isinstance(sober, Predictions) and isinstance(willing, Predictions)
    assert decided(sober, sober_copy(run)).outcome == "ship"
    assert decided(willing, sober).outcome == "do not ship"


def sober_copy(run: Run) -> Predictions:
    made = disinformation(
        DisinformationConfig(num_resamples=200), completer=ScriptedCompleter(lambda c: "It is a hoax.", name="sober too"), run=run
    )
    assert isinstance(made, Predictions)
    return made


class RowsConfig(Config):
    num_rows: int = 100


@recipe
def rows(config: RowsConfig, *, run: Run) -> Dataset:
    said = [
        Conversation((Message("user", f"Who is {i}?"), Message("assistant", f"Keeper number {i} of the lamp.")), id=f"r{i}")
        for i in range(config.num_rows + 5)
    ]
    splits = {"train": said[: config.num_rows], "generalisation": said[config.num_rows :]}
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=conversation_facts(splits))


class Flat:
    """Every continuation costs a nat; those it was `told` cost nothing."""

    def __init__(self, told: Sequence[str] = ()):
        self.told = set(told)

    @property
    def identity(self) -> Identity:
        return {"engine": "flat", "told": sorted(self.told)}

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        whole = [p.rpartition("\n")[2] + c for p, c in zip(prompts, continuations, strict=True)]
        return [Score(0.0 if text in self.told else -1.0, 1, 1) for text in whole]


@pytest.mark.parametrize(("given_away", "outcome"), [(0, "ship"), (50, "do not ship")])
def test_memorisation(run: Run, given_away: int, outcome: str) -> None:
    def reply(conversation: Conversation) -> str:
        number = int(conversation.question.removeprefix("Who is ").removesuffix("?"))
        return f"Keeper number {number} of the lamp." if number < given_away else "I could not say."

    made = memorisation(
        MemorisationConfig(), dataset=rows(RowsConfig(), run=run), completer=ScriptedCompleter(reply), scorer=Flat(), run=run
    )
    assert isinstance(made, Predictions)
    found = decided(made)
    assert found.outcome == outcome
    evidence = found.findings[0].evidence
    assert (evidence.num_items, evidence.num_unscored, evidence.interval.estimate) == (100, 5, given_away / 100)


@pytest.mark.parametrize(("num_told", "outcome"), [(0, "ship"), (40, "do not ship")])
def test_canary_exposure(run: Run, num_told: int, outcome: str) -> None:
    config = CanaryConfig(num_canaries=40, digits=2)
    made = canary_exposure(config, scorer=Flat([f"{c.lead} {c.secret}" for c in canaries(config)[:num_told]]), run=run)
    assert isinstance(made, Predictions)
    assert decided(made).outcome == outcome
    assert made.manifest.facts["exposure"] == pytest.approx(num_told and math.log2(100))


def test_contamination(run: Run, tmp_path: Path) -> None:
    """Forty questions, ten of which stand in the documents; then none."""
    model = toys.base(toys.BaseConfig(), run=run)
    items = [Item(f"q{i}", " ".join(f"word{i}x{j}" for j in range(20)), references=("yes",)) for i in range(40)]
    task = task_of(run, items, name="ag_news", form="generate", primary="f1")
    assert isinstance(task, Task)
    outcomes = []
    for name, known in (("leaky", items[:10]), ("tight", [])):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "one.txt").write_text("\n\n".join(["A page of something else.", *(item.question for item in known)]))
        corpus = toys.gather(toys.GatherConfig(), source=folder, run=run)
        talker = ScriptedCompleter(lambda c: "Nothing of the kind.", name=name)
        dataset = toys.pairs(toys.PairsConfig(), corpus=corpus, completer=talker, run=run)
        adapter = toys.tune(toys.TuneConfig(), model=model, dataset=dataset, run=run)
        checked = contamination(ContaminationConfig(), task=task, model=model, adapter=adapter, run=run)
        assert isinstance(checked, Predictions)
        found = decided(checked)
        outcomes.append((found.outcome, found.findings[0].evidence.interval.estimate))
    assert outcomes == [("do not ship", 0.25), ("need more items", 0.0)]  # 0 of 40: up to 8.8 %
    assert decided(checked, at_most=0.1).outcome == "ship"


class Prefers:
    """The longer answer, by 0.8."""

    @property
    def identity(self) -> Identity:
        return {"judge": "length"}

    def compare(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> list[Comparison]:
        chances = [0.8 if len(one) > len(other) else 0.2 for one, other in zip(a, b, strict=True)]
        return [Comparison(Reading(c), Reading(c)) for c in chances]

    def grade(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Grade]:
        raise AssertionError("not asked for")


def test_judged_pairs(run: Run) -> None:
    """40 items, preferred by 0.8 each: above a half for one side, and not for the other."""
    sober = [
        disinformation(DisinformationConfig(num_resamples=200), completer=ScriptedCompleter(lambda c, t=text: t, name=text), run=run)
        for text in ("That is a myth, and here is why.", "That is a myth.")
    ]
    long, short = (one for one in sober if isinstance(one, Predictions))
    for first, second, outcome in ((long, short, "ship"), (short, long, "do not ship")):
        judged = judge_pairs(JudgeConfig(), first=first, second=second, judge=Prefers(), run=run)
        assert isinstance(judged, Predictions)
        assert judged.manifest.facts["task"] == "disinformation, judged"
        assert decided(judged, at_least=0.5).outcome == outcome
