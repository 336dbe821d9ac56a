"""The gate: each outcome on items made for it, the stated error rates by simulation, and what it refuses."""

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from mygpt.artifacts.report import Predictions
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.gate import Decision, GateConfig, concluded, decide, gate
from mygpt.evaluate.paired_difference import Resampling
from mygpt.evaluate.policy import Policy, parse_policy
from mygpt.evaluate.rule_evidence import BASELINE, CANDIDATE, evidence_on_task
from mygpt.evaluate.same_items import Measured, SameItems
from tests.evaluate.made_up_predictions import flipped, made, shares

N = 200
HALF = shares(N, 100)


def decided(
    run: Run, after: list[float], before: list[float], *rules: dict[str, Any], settings: dict[str, Any] | None = None, **more: Any
) -> Decision:
    policy = parse_policy({"rules": [{"task": "t", **rule} for rule in rules], **more})
    candidate, baseline = (made(run, name, "t", values, **(settings or {})) for name, values in (("tuned", after), ("base", before)))
    return decide(policy, [candidate], [baseline], num_resamples=2_000)


# -- each rule ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lost", "won", "rule", "outcome"),
    [
        (5, 35, {"better_by": 0}, "ship"),  # +0.15
        (5, 35, {"better_by": 0.05}, "ship"),
        (5, 35, {"better_by": 0.12}, "need more items"),  # +0.15 with limits near 0.09 and 0.21: neither shown nor ruled out
        (5, 35, {"better_by": 0.3}, "do not ship"),  # ruled out
        (35, 5, {"better_by": 0}, "do not ship"),
        (12, 16, {"better_by": 0}, "need more items"),  # +0.02: 0.05 takes 480 items
        (12, 16, {"better_by": 0, "detect": 0.2}, "do not ship"),  # enough items for 0.2, and nothing to see
        (2, 3, {"not_worse_by": 0.05}, "ship"),
        (12, 12, {"not_worse_by": 0.03}, "need more items"),
        (30, 2, {"not_worse_by": 0.05}, "do not ship"),  # -0.14
        (0, 60, {"at_least": 0.7}, "ship"),  # 0.80, Wilson from 0.739
        (0, 46, {"at_least": 0.7}, "need more items"),  # 0.73, from 0.665
        (0, 20, {"at_least": 0.7}, "do not ship"),  # 0.60
        (70, 0, {"at_most": 0.25}, "ship"),  # 0.15, Wilson to 0.206
        (0, 0, {"at_most": 0.25}, "do not ship"),
    ],
)
def test_outcomes(run: Run, lost: int, won: int, rule: dict[str, Any], outcome: str) -> None:
    made_of = decided(run, flipped(HALF, lost=lost, won=won), HALF, rule)
    assert made_of.outcome == outcome, made_of.findings[0].reason
    assert (made_of.more_items > 0) == (outcome == "need more items")


def test_how_many_more_by_hand(run: Run) -> None:
    """12 lost, 16 won of 200: sd^2 = (28 - 200 * 0.02^2) / 199. ((1.960 + 0.842) * 0.3746 / 0.05)^2 = 440.6, and for an exact
    test, which loses a step of 1 / n, 440.6 / 4 * (1 + sqrt(1 + 4 / (440.6 * 0.05)))^2 = 479.8: 480 items, 280 more."""
    made_of = decided(run, flipped(HALF, lost=12, won=16), HALF, {"better_by": 0})
    assert made_of.more_items == 280
    assert made_of.headline == "Need 280 more items to decide (t)."
    assert made_of.findings[0].reason.endswith("not shown; 200 items were measured and 480 would decide")


def test_limits_by_hand(run: Run) -> None:
    """0.73 with Wilson from 0.665: the reach of 0.0652 has to shrink to 0.03, (0.0652 / 0.03)^2 times as many items."""
    made_of = decided(run, shares(N, 146), HALF, {"at_least": 0.7})
    low = made_of.findings[0].evidence.interval.low
    assert low == pytest.approx(0.6646, abs=1e-3)
    assert made_of.more_items == int(np.ceil(N * ((0.73 - low) / 0.03) ** 2)) - N


def test_under_thirty_items_nothing_is_decided(run: Run) -> None:
    made_of = decided(run, shares(29, 29), shares(29, 8), {"better_by": 0, "detect": 0.5})
    assert made_of.outcome == "need more items" and made_of.more_items >= 1
    assert "interval unreliable" in made_of.findings[0].reason
    assert decided(run, shares(30, 30), shares(30, 8), {"better_by": 0, "detect": 0.5}).outcome == "ship"


def test_without_headroom_nothing_is_called_better(run: Run) -> None:
    after, before = shares(N, 120), shares(N, 50)
    assert (
        decided(run, after, before, {"better_by": 0}, settings={"chance": 0.25}).findings[0].reason.endswith("no headroom: plumbing only")
    )
    assert decided(run, after, before, {"better_by": 0}, settings={"chance": 0.25}, require_headroom=False).outcome == "ship"
    assert decided(run, after, before, {"better_by": 0}, settings={"chance": 0.10}).outcome == "ship"


def test_forgetting_in_bits_per_byte(run: Run) -> None:
    before = [1.0 + 0.05 * (i % 5) for i in range(40)]
    settings = {"primary": "bits_per_byte", "form": "rolling", "num_bytes": tuple(900 + i for i in range(40))}
    for loss, outcome in ((0.02, "ship"), (0.08, "do not ship"), (-0.3, "ship")):
        after = [b + loss + 0.01 * (-1) ** i for i, b in enumerate(before)]
        assert decided(run, after, before, {"forgets_at_most": 0.05}, settings=settings).outcome == outcome
    with pytest.raises(UsageError, match="`forgets_at_most` counts bits per byte, and on t more `acc` is better"):
        decided(run, HALF, HALF, {"forgets_at_most": 0.05})


def test_forgetting_from_a_report_of_up(run: Run) -> None:
    policy = parse_policy({"rules": [{"task": "t", "better_by": 0}, {"task": "general_text", "forgets_at_most": 0.05}]})
    candidate, baseline = made(run, "tuned", "t", shares(N, 150)), made(run, "base", "t", HALF)

    def outcome(low: float, middle: float, high: float, texts: int | None = 32) -> str:
        report = {"forgetting": {"bpb": {"estimate": middle, "low": low, "high": high}, "num_texts": texts}}
        return decide(policy, [candidate], [baseline], report=report, num_resamples=500).outcome

    assert outcome(0.01, 0.02, 0.03) == "ship"
    assert outcome(0.05, 0.06, 0.07) == "do not ship"
    assert outcome(0.01, 0.02, 0.03, texts=26) == "need more items"
    with pytest.raises(UsageError, match="does not say on how many texts"):
        outcome(0.01, 0.02, 0.03, texts=None)
    with pytest.raises(UsageError, match=r"The report gives \[nan, 0.01, 0.03\] as forgetting: no numbers"):
        outcome(0.01, math.nan, 0.03)
    with pytest.raises(UsageError, match="a rule on `general_text`, which was not measured"):
        decide(policy, [candidate], [baseline], num_resamples=500)


def test_the_worst_rule_decides(run: Run) -> None:
    good, bad, open_ = {"better_by": 0}, {"at_most": 0.1}, {"better_by": 0.12}
    after = flipped(HALF, lost=5, won=35)
    assert decided(run, after, HALF, good, open_).outcome == "need more items"
    stopped = decided(run, after, HALF, good, open_, bad)
    assert (stopped.outcome, stopped.headline) == ("do not ship", "Do not ship: 1 of 3 rules failed (t).")


def test_holm_over_the_rules(run: Run) -> None:
    """5 lost, 15 won: p = 0.0414. Alone it holds; beside another rule with a larger p its corrected p is 0.0828."""
    after = flipped(HALF, lost=5, won=15)
    rules = {"better_by": 0}, {"better_by": 0, "metric": "other"}
    settings = {"extra": {"other": tuple(HALF)}}
    alone = decided(run, after, HALF, rules[0], settings=settings).findings[0]
    assert (alone.outcome, alone.p_adjusted) == ("holds", pytest.approx(2 * 21_700 / 2**20))
    corrected = decided(run, after, HALF, *rules, settings=settings).findings[0]
    assert (corrected.outcome, corrected.p_adjusted) == ("undecided", pytest.approx(4 * 21_700 / 2**20))
    assert "once corrected for the number of rules" in corrected.reason
    assert decided(run, after, HALF, *rules, settings=settings, holm=False).findings[0].outcome == "holds"


# -- error rates ----------------------------------------------------------------------------------------------------------------


def passed(policy: Policy, after_SN: np.ndarray, before_SN: np.ndarray, metric: str, num_resamples: int = 500) -> float:
    """Share of the simulations in which the policy's only rule holds."""
    holds = 0
    for number, (after_N, before_N) in enumerate(zip(after_SN, before_SN, strict=True)):
        models = tuple(
            Measured(label, cast(Predictions, None), [{"item_id": str(i), metric: float(v)} for i, v in enumerate(values_N)])
            for label, values_N in ((CANDIDATE, after_N), (BASELINE, before_N))
        )
        task = SameItems("t", "1", "choice", metric, (metric,), {metric: True}, None, models)
        found = evidence_on_task(policy.rules[0], task, policy, Resampling(1 - policy.alpha, num_resamples, number), num_tests=1)
        holds += concluded(found, found.p_value, policy.alpha).outcome == "holds"
    return holds / len(after_SN)


def binomial_slack(rate: float, n: int) -> float:
    return 3 * float(np.sqrt(rate * (1 - rate) / n))


NUM_SIMULATIONS, NUM_ITEMS = 300, 60


def test_equal_models_are_seldom_called_better() -> None:
    """Stated: with chance alpha / 2 at most. Shares that flip to and fro, and real scores with equal means."""
    draw = np.random.default_rng(1)
    policy = parse_policy({"rules": [{"task": "t", "better_by": 0}], "require_headroom": False})
    size = (NUM_SIMULATIONS, NUM_ITEMS)
    limit = 0.025 + binomial_slack(0.025, NUM_SIMULATIONS)
    assert passed(policy, (draw.random(size) < 0.6), (draw.random(size) < 0.6), "acc") <= limit
    common = draw.normal(size=size)
    assert passed(policy, common + draw.normal(size=size), common + draw.normal(size=size), "f1") <= limit


def test_a_model_worse_by_the_margin_seldom_passes() -> None:
    """Stated: with chance alpha at most."""
    draw = np.random.default_rng(2)
    policy = parse_policy({"rules": [{"task": "t", "not_worse_by": 0.1}]})
    size = (NUM_SIMULATIONS // 2, NUM_ITEMS)
    before = draw.random(size) < 0.7
    after = np.where(before, draw.random(size) < 6 / 7, False)  # 0.7 * 6/7 = 0.6
    assert passed(policy, after, before, "acc", num_resamples=300) <= 0.05 + binomial_slack(0.05, NUM_SIMULATIONS // 2)


def test_a_clear_gain_is_found_as_often_as_planned() -> None:
    """0.3 more right at sd near 0.7 takes 43 items for four in five (Cohen); there are 60."""
    draw = np.random.default_rng(3)
    policy = parse_policy({"rules": [{"task": "t", "better_by": 0}]})
    size = (100, NUM_ITEMS)
    assert passed(policy, draw.random(size) < 0.7, draw.random(size) < 0.4, "acc") >= 0.8


# -- what is refused ------------------------------------------------------------------------------------------------------------


def test_a_rule_on_what_was_not_measured(run: Run) -> None:
    policy = parse_policy({"rules": [{"task": "ag_new", "better_by": 0}]})
    measured = made(run, "tuned", "ag_news", HALF)
    with pytest.raises(UsageError, match="`ag_new`, which was not measured") as error:
        decide(policy, [measured])
    assert error.value.fix == "Did you mean `ag_news`?"
    policy = parse_policy({"rules": [{"task": "ag_news", "better_by": 0}]})
    with pytest.raises(UsageError, match="which the baseline was not measured on"):
        decide(policy, [measured])
    assert decide(parse_policy({"rules": [{"task": "ag_news", "at_least": 0.4}]}), [measured]).outcome == "ship"


def test_items_without_a_score_are_told(run: Run) -> None:
    values: list[Any] = flipped(HALF, lost=5, won=35)
    values[150] = values[160] = None
    found = decided(run, values, HALF, {"better_by": 0}).findings[0].evidence
    assert (found.num_items, found.num_unscored) == (198, 2)


def test_a_gate_on_overlap_of_words_alone(run: Run) -> None:
    """The policy names no metric; that the task is decided by ROUGE shows only here."""
    with pytest.raises(UsageError, match="All that speaks for the model in the policy is overlap of words: rouge_l"):
        decided(run, [0.5, 0.6] * 20, [0.4, 0.5] * 20, {"better_by": 0}, settings={"primary": "rouge_l"})


def test_a_gate_on_token_f1_of_summaries_alone(run: Run) -> None:
    """F1 against a free text is shared words too; of short answers it decides."""
    after, before = [0.5, 0.6] * 20, [0.4, 0.5] * 20
    for rule in ({"better_by": 0}, {"metric": "f1", "better_by": 0}):
        with pytest.raises(UsageError, match="All that speaks for the model in the policy is overlap of words: f1"):
            decided(run, after, before, rule, settings={"primary": "f1", "answer": "summary"})
        assert decided(run, after, before, rule, settings={"primary": "f1", "answer": "text"}).outcome == "ship"
    beside = {"primary": "exact_match", "answer": "summary", "extra": {"f1": tuple(before)}}
    assert decided(run, after, before, {"better_by": 0}, {"metric": "f1", "not_worse_by": 0.1}, settings=beside).outcome == "ship"


def test_mixed_versions(run: Run) -> None:
    policy = parse_policy({"rules": [{"task": "t", "better_by": 0}]})
    with pytest.raises(UsageError, match=r"different versions: 2 \(candidate\), 1 \(baseline\)"):
        decide(policy, [made(run, "tuned", "t", HALF, version="2")], [made(run, "base", "t", HALF)])


# -- the artefact ---------------------------------------------------------------------------------------------------------------


def test_the_decision_is_kept_with_its_lineage(run: Run, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("rules:\n  - {task: t, better_by: 0}\n  - {task: t, not_worse_by: 0.02}\n")
    candidate, baseline = made(run, "tuned", "t", flipped(HALF, lost=5, won=35)), made(run, "base", "t", HALF)
    made_of = gate(GateConfig(num_resamples=500), policy=policy, candidate=(candidate,), baseline=(baseline,), run=run)
    assert made_of.figures["outcome"] == made_of.manifest.facts["outcome"] == "ship"
    assert [r["outcome"] for r in made_of.figures["rules"]] == ["holds", "holds"]
    assert made_of.manifest.inputs["policy"][0].path == str(policy)
    assert {candidate.digest, baseline.digest} == set(made_of.manifest.parents)
    page = made_of.page.read_text()
    assert "Ship: all 2 rules hold." in page and candidate.id in page and "<script" not in page
