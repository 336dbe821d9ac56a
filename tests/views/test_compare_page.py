"""The pages of a comparison and of a gate: well-formed, nothing fetched, nothing from data taken for markup, links that lead somewhere."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mygpt.core.run import Run
from mygpt.evaluate.compare_models import CompareConfig, compare_models
from mygpt.evaluate.gate import GateConfig, gate
from mygpt.views.compare_page import MOST_ITEMS_SHOWN, render
from mygpt.views.comparison_plots import dumbbell, heat, reliability_diagram
from mygpt.views.gate_page import render as render_gate
from mygpt.views.page import cell, quote
from mygpt.views.plots import Scale
from tests.evaluate.made_up_predictions import made, plausible, shares
from tests.views.test_report_page import ATTACK, Page


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    run = Run(tmp_path_factory.mktemp("home"), name="test")
    yield compare_models(CompareConfig(num_resamples=300), predictions=tuple(plausible(run)), run=run).figures
    run.close()


def ids(page: Page) -> list[str | None]:
    return [value for name, value in page.attributes if name == "id"]


def test_nothing_is_fetched_and_every_link_leads_to_items(figures: dict[str, Any]) -> None:
    html = render(figures)
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    targets = [value for name, value in page.attributes if name == "href"]
    assert targets and all(target and target.startswith("#") and target[1:] in ids(page) for target in targets)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "srcset", "action")]
    assert "url(" not in html and "@import" not in html
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes
    assert len(ids(page)) == len(figures["tasks"])


def test_the_figures_are_on_the_page(figures: dict[str, Any]) -> None:
    text = " ".join(Page(render(figures)).text.split())
    for task in figures["tasks"]:
        for model in task["models"]:
            assert model["predictions"] in text
            for item in (*model["best"], *model["worst"]):
                assert item["item_id"] in text and item["question"][:80] in text
    assert "Interval unreliable: under 30 independent items" in text and "No headroom: plumbing only" in text
    assert "calibration error" in text and figures["headline"] in text


def test_text_from_data_is_shown_as_written(run: Run, tmp_path: Path) -> None:
    pair = [made(run, model, ATTACK, shares(40, right), question=ATTACK + "{i}") for model, right in (("base", 10), (ATTACK, 30))]
    report = compare_models(CompareConfig(num_resamples=100), predictions=tuple(pair), run=run)
    page = Page(report.page.read_text())
    assert "script" not in page.tags and "img" not in page.tags and page.text.count(ATTACK) >= 10
    policy = tmp_path / "policy.yaml"
    policy.write_text(json.dumps({"rules": [{"task": ATTACK, "better_by": 0}]}))
    decided = gate(GateConfig(num_resamples=100), policy=policy, candidate=(pair[1],), baseline=(pair[0],), run=run)
    page = Page(decided.page.read_text())
    assert "script" not in page.tags and "img" not in page.tags and page.text.count(ATTACK) >= 2


def test_many_items_are_cut_on_the_page_and_said(figures: dict[str, Any]) -> None:
    task = figures["tasks"][0]
    many = {
        **figures,
        "tasks": [{**task, "item_scores": [[f"item {i};", *task["item_scores"][0][1:]] for i in range(MOST_ITEMS_SHOWN + 7)]}],
    }
    text = Page(render(many)).text
    assert "and 7 more: see report.json" in text and f"item {MOST_ITEMS_SHOWN - 1};" in text and f"item {MOST_ITEMS_SHOWN};" not in text


def test_limits_that_are_not_known(figures: dict[str, Any]) -> None:
    """An interval over one cluster has none."""
    task = figures["tasks"][0]
    models = [{**m, "score": {**m["score"], "low": None, "high": None}} for m in task["models"]]
    for model in models:
        if model["difference"]:
            model["difference"] = {**model["difference"], "low": None, "high": None}
    assert "unknown" in Page(render({**figures, "tasks": [{**task, "models": models}]})).text


@pytest.mark.parametrize(("outcome", "tone"), [("ship", "good"), ("do not ship", "bad"), ("need more items", "fair")])
def test_tone_of_a_gate(outcome: str, tone: str) -> None:
    rule = {
        "task": "t", "demand": "not_worse_by", "limit": 0.05, "metric": "acc", "demanded": "at most 0.050 lost",
        "num_items": 40, "num_clusters": 20, "num_unscored": 3, "enough": 40, "p_value": 0.0001, "p_adjusted": 0.02, "source": "",
        "interval": {"estimate": 0.0, "low": None, "high": None},
        "outcome": "holds", "reason": "because", "more_items": 0,
    }  # fmt: skip
    shown = {"name": "x", "measured": "2026-11-21", "outcome": outcome, "headline": "So.", "rules": [rule], "policy": {}, "lineage": []}
    page = Page(render_gate(shown))
    assert ("class", f"verdict {tone}") in page.attributes
    text = " ".join(page.text.split())
    assert "40 items from 20 clusters, 3 without a score" in text and "p < 0.001, corrected 0.020" in text


# -- plots by hand ----------------------------------------------------------------------------------------------------------------


def test_dumbbell() -> None:
    """On a scale from 0 to 2, 0.5 lies at 25 % and 1.5 at 75 %."""
    drawn = str(dumbbell(0.5, 1.5, 1.0, 1.75, Scale(0.0, 2.0), css="m1", title='<"t">'))
    assert '<circle class="before" cx="25.0%"' in drawn and '<circle class="after" cx="75.0%"' in drawn
    assert '<line class="way" x1="25.0%" x2="75.0%"' in drawn and 'class="whisker" x1="50.0%" x2="87.5%"' in drawn
    assert "&lt;&#34;t&#34;&gt;" in drawn
    assert "whisker" not in str(dumbbell(0.5, 1.5, None, None, Scale(0.0, 2.0), css="m1", title="t"))


def test_reliability_diagram() -> None:
    """Confidence 0.25 is 50 of 200 from the left; right 0.75 is 50 from the top; a quarter of the items has half of the radius beyond 3."""
    drawn = str(
        reliability_diagram(
            [{"count": 1, "confidence": 0.25, "right": 0.75}, {"count": 3, "confidence": 1.0, "right": 1.0}], css="m0", title="t"
        )
    )
    assert '<circle class="bin" cx="50.0" cy="50.0" r="10.5"/>' in drawn and 'cx="200.0" cy="0.0"' in drawn


def test_heat() -> None:
    assert heat(0.1) == "--tint: var(--good); --heat: 21%" and heat(-0.5) == "--tint: var(--bad); --heat: 42%" and heat(None) == ""


def test_markdown_of_data_stays_text() -> None:
    assert cell("a|b\n<b>[x](y)`") == "a\\|b \\<b\\>\\[x\\](y)\\`"
    assert quote("one\n# two") == "> one\n> # two" and quote("") == "> (empty)"
