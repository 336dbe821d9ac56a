"""The card on scripted models that are known to be helpful, honest or harmless, or not."""

from collections.abc import Sequence

import pytest

from mygpt.artifacts.dataset import Conversation
from mygpt.artifacts.report import Report
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.behaviour_set import load_items
from mygpt.evaluate.hhh import AXES, HHHConfig, hhh
from mygpt.evaluate.sycophancy import NEUTRAL
from mygpt.infer.judge import Comparison, Reading
from mygpt.infer.protocols import Identity
from mygpt.infer.scripted import ScriptedCompleter
from tests.guard.stand_in import StandIn

REFUSALS = {item["prompt"]: item for item in load_items("refusal")}
FACTS = {item["question"]: item for item in load_items("sycophancy")}
TEXTS = load_items("invention")
CLAIMS = {item["prompt"]: item for item in load_items("disinformation")}
NO = "I'm sorry, but I can't help with that."
CONFIG = HHHConfig(num_resamples=500, samples=1, labels=("before", "after"))


def model(
    name: str, *, refuses_harm: bool = True, refuses_all: bool = False, firm: bool = True, invents: bool = False
) -> ScriptedCompleter:
    def reply(conversation: Conversation) -> str:
        first, last = conversation.messages[0].content, conversation.question
        if first in REFUSALS:
            return NO if refuses_all or (REFUSALS[first]["should_refuse"] and refuses_harm) else "Sure. You begin with the first step."
        if first in CLAIMS:
            return "That is a myth." if not invents else f"It is well known and proven by many people that {CLAIMS[first]['claim']}."
        for text in TEXTS:
            if text["text"] in first:
                return text["answers"][0] if text["present"] in first else ("John Smith." if invents else "The text does not say.")
        for question, item in FACTS.items():
            if first.endswith(question):
                pressed = len(conversation.messages) > 1 and last != NEUTRAL and not firm
                return f"It is {item['claim'] if pressed else item['answers'][0]}."
        return "and so the day went on."

    return ScriptedCompleter(reply, name=name)


def verdicts(report: Report, label: str = "after") -> dict[str, str]:
    return {axis["axis"]: axis["verdicts"][label] for axis in report.figures["axes"]}


def said(report: Report, measure: str) -> dict[str, object]:
    return next(m for axis in report.figures["axes"] for m in axis["measures"] if m["measure"].startswith(measure))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (model("a"), model("b"), ("no difference shown",) * 3),
        (model("careless", refuses_harm=False), model("careful"), ("no difference shown", "no difference shown", "better")),
        (model("careful"), model("prude", refuses_all=True), ("worse", "no difference shown", "no difference shown")),
        (model("honest"), model("pleaser", firm=False, invents=True), ("no difference shown", "worse", "no difference shown")),
    ],
)
def test_verdicts_of_known_models(before: ScriptedCompleter, after: ScriptedCompleter, expected: tuple[str, ...], run: Run) -> None:
    report = hhh(CONFIG, completer=(before, after), run=run)
    assert tuple(verdicts(report)[axis] for axis in AXES) == expected
    [sentence] = report.manifest.facts["sentences"]
    assert sentence == f"after against before: helpful {expected[0]}, honest {expected[1]}, harmless {expected[2]}."


def test_figures_by_hand(run: Run) -> None:
    """40 harmful prompts, none refused before and all after: 0 and 1; the gain is 1. Of 42 facts, all given up under push-back."""
    report = hhh(CONFIG, completer=(model("a", refuses_harm=False, firm=False), model("b")), run=run)
    refuses = said(report, "refuses what is harmful")["models"]
    assert [m["score"]["estimate"] for m in refuses] == [0.0, 1.0] and [m["items"] for m in refuses] == [40, 40]
    assert refuses[1]["difference"]["gain"]["estimate"] == 1.0 and refuses[1]["verdict"] == "better"
    yields = said(report, "gives way")
    assert [m["score"]["estimate"] for m in yields["models"]] == [1.0, 0.0] and not yields["higher_is_better"]
    assert yields["models"][1]["difference"]["gain"]["estimate"] == 1.0  # less of it is better
    assert len(report.figures["lineage"]) == 8  # four measures of two models


def test_toxicity_is_measured_with_an_embedder_and_said_to_be_missing_without(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    run.listeners.append(lambda event: warnings.append(event["text"]) if event["event"] == "warning" else None)
    without = hhh(CONFIG, completer=(model("a"), model("b")), run=run)
    assert any("minilm" in text for text in warnings)
    assert len(without.figures["axes"][2]["measures"]) == 1
    report = hhh(CONFIG, completer=(model("a"), model("b")), embedder=StandIn(), run=run)
    toxic = said(report, "toxic continuations")["models"]
    assert toxic[0]["items"] == 80 and toxic[1]["verdict"] == "no difference shown"


class LikesSure:
    @property
    def identity(self) -> Identity:
        return {"judge": "scripted"}

    def compare(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> list[Comparison]:
        def one(x: str, y: str) -> float:
            return 0.5 if x == y else float(x.startswith("Sure"))

        return [Comparison(Reading(one(x, y), 1.0, ""), Reading(one(x, y), 1.0, "")) for x, y in zip(a, b, strict=True)]

    def grade(self, prompts: Sequence[str], answers: Sequence[str]) -> list[object]:
        raise AssertionError("nothing is graded")


def test_a_judge_adds_a_win_rate_over_the_first_model(run: Run) -> None:
    report = hhh(CONFIG, completer=(model("prude", refuses_all=True), model("helpful")), judge=LikesSure(), run=run)
    row = said(report, "preferred over before")
    assert row["models"][0]["score"] is None and row["models"][1]["score"]["estimate"] == 1.0
    assert row["models"][1]["items"] == 40 and row["models"][1]["verdict"] == "better"


def test_the_page_shows_every_axis_and_escapes_names(run: Run) -> None:
    config = CONFIG.model_copy(update={"labels": ("<b>x</b>", "after")})
    page = hhh(config, completer=(model("a"), model("b", refuses_all=True)), run=run).page.read_text(encoding="utf-8")
    assert all(f"<h2>{axis.capitalize()}</h2>" in page for axis in AXES)
    assert "<b>x</b>" not in page and "&lt;b&gt;x&lt;/b&gt;" in page and "://" not in page and "<script" not in page


def test_one_completer_alone_is_shown_without_verdicts(run: Run) -> None:
    report = hhh(CONFIG.model_copy(update={"labels": ("alone",)}), completer=(model("a"),), run=run)
    assert report.manifest.facts["sentences"] == ["alone alone: give a second completer to compare."]


def test_names_that_do_not_fit_are_refused(run: Run) -> None:
    with pytest.raises(UsageError, match="are called"):
        hhh(CONFIG.model_copy(update={"labels": ("one",)}), completer=(model("a"), model("b")), run=run)
