"""The gate: may this model ship? Each rule of a policy is held against the items; the answer is ship, do not ship, or need n more.

    a rule holds      its interval says so, and its p-value, corrected over the rules (Holm), is at most alpha
    a rule fails      the interval rules it out; or the items are enough for what was asked, and it does not show
    undecided         fewer than 30 independent items, or too few for the difference that must not be missed (about four times in five:
                      79 to 81 % in `benchmarks/statistics.py`)

One rule that fails: do not ship. Else one that is undecided: need n more items, the most that any rule asks for. Else: ship.

Error rates. Of two equal models `better_by` lets one pass with chance at most alpha / 2; `not_worse_by` lets a model pass that is worse by
just its margin with chance at most alpha. That needs no correction, since all rules must hold (Berger 1982, "Multiparameter hypothesis
testing and acceptance sampling"); Holm makes each single claim safe as well.

Source: Holm 1979; McNemar 1947; Schuirmann 1987; the outcome in three parts is ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mygpt.artifacts.recipe import publish, recipe, safe_name
from mygpt.artifacts.report import Predictions, Report, lineage_rows, write_report
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.paired_difference import Resampling
from mygpt.evaluate.policy import Policy, Rule, load_policy, nearest, refuse_overlap_alone
from mygpt.evaluate.rule_evidence import BASELINE, CANDIDATE, Evidence, evidence_in_report, evidence_on_task
from mygpt.evaluate.same_items import SameItems, join
from mygpt.evaluate.task_figures import as_numbers
from mygpt.metrics.bootstrap import FEWEST_ITEMS, interval_is_reliable
from mygpt.metrics.holm import holm
from mygpt.views.gate_page import render
from mygpt.views.numbers import decimal

SHIP, STOP, MORE = "ship", "do not ship", "need more items"
HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"


class GateConfig(Config):
    num_resamples: int = 10_000


@dataclass(frozen=True)
class Finding:
    """One rule, decided."""

    evidence: Evidence
    p_adjusted: float | None
    outcome: str  # "holds", "fails", "undecided"
    reason: str
    more_items: int = 0

    @property
    def task(self) -> str:
        return self.evidence.rule.task


@dataclass(frozen=True)
class Decision:
    outcome: str  # "ship", "do not ship", "need more items"
    more_items: int
    findings: tuple[Finding, ...]

    @property
    def headline(self) -> str:
        num_rules, failed = len(self.findings), [f.task for f in self.findings if f.outcome == FAILS]
        if self.outcome == SHIP:
            return f"Ship: {'the rule holds' if num_rules == 1 else f'all {num_rules} rules hold'}."
        if self.outcome == STOP:
            return f"Do not ship: {len(failed)} of {num_rules} rules failed ({', '.join(dict.fromkeys(failed))})."
        waiting = dict.fromkeys(f.task for f in self.findings if f.outcome == UNDECIDED)
        return f"Need {self.more_items} more items to decide ({', '.join(waiting)})."


@recipe
def gate(
    config: GateConfig,
    *,
    policy: Path,
    candidate: tuple[Predictions, ...],
    baseline: tuple[Predictions, ...] | None = None,
    report: Report | None = None,
    run: Run,
) -> Report:
    """Hold the policy's rules against the candidate's predictions. `report`, of `mygpt up`, may stand in for general text."""
    rules = load_policy(policy)
    decision = decide(
        rules,
        candidate,
        baseline or (),
        report=report.figures if report else None,
        num_resamples=config.num_resamples,
        seed=run.seed_for("bootstrap"),
    )
    inputs = [*((CANDIDATE, p) for p in candidate), *((BASELINE, p) for p in baseline or ()), *([("report", report)] if report else [])]
    figures = {
        "kind": "gate",
        "name": safe_name(run.name),
        "measured": max(artifact.manifest.created for _, artifact in inputs)[:10],
        "outcome": decision.outcome,
        "headline": decision.headline,
        "more_items": decision.more_items,
        "rules": [finding_figures(finding) for finding in decision.findings],
        "policy": rules.model_dump(mode="json", exclude_none=True),
        "lineage": lineage_rows((f"{role} {a.manifest.facts.get('task', '')}".strip(), a) for role, a in inputs),
    }
    facts = {"outcome": decision.outcome, "headline": decision.headline, "more_items": decision.more_items}
    return publish(Report, run, lambda folder: write_report(folder, figures, render(figures)), facts=facts)


def decide(
    policy: Policy,
    candidate: Sequence[Predictions],
    baseline: Sequence[Predictions] = (),
    *,
    report: Mapping[str, Any] | None = None,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Decision:
    """`report`: the figures of a report of `mygpt up`."""
    joined = join([*candidate, *baseline], [CANDIDATE] * len(candidate) + [BASELINE] * len(baseline))
    tasks = {task.task: task for task in joined}
    placed = [(rule, _task_of(rule, tasks, report)) for rule in policy.rules]
    refuse_overlap_alone(((rule, _shared_words(rule, task)) for rule, task in placed), called="the policy")
    resampling = Resampling(1 - policy.alpha, num_resamples, seed)
    num_tests = max(1, sum(rule.demand in ("better_by", "not_worse_by") for rule in policy.rules))
    found = [
        evidence_in_report(rule, report or {}) if task is None else evidence_on_task(rule, task, policy, resampling, num_tests=num_tests)
        for rule, task in placed
    ]
    tested = {str(number): e.p_value for number, e in enumerate(found) if e.p_value is not None}
    adjusted = holm(tested) if policy.holm else tested
    findings = tuple(concluded(e, adjusted.get(str(number)), policy.alpha) for number, e in enumerate(found))
    outcomes = {finding.outcome for finding in findings}
    more = max((f.more_items for f in findings if f.outcome == UNDECIDED), default=0)
    return Decision(STOP if FAILS in outcomes else MORE if UNDECIDED in outcomes else SHIP, more, findings)


def _shared_words(rule: Rule, task: SameItems | None) -> str | None:
    """The metric that the rule rests on where it counts shared words; None where it does not."""
    metric = rule.metric or (task.primary if task else None)
    return metric if task and metric and task.is_overlap(metric) else None


def concluded(evidence: Evidence, p_adjusted: float | None, alpha: float) -> Finding:
    """The rule decided: `p_adjusted` is None where the interval alone decides."""
    n, reliable = evidence.num_clusters, interval_is_reliable(evidence.num_clusters)
    enough = max(FEWEST_ITEMS, evidence.enough)
    significant = p_adjusted is None or p_adjusted <= alpha
    if evidence.ruled_out and reliable:
        return Finding(evidence, p_adjusted, FAILS, f"{evidence.shown}: {evidence.ruled_out}")
    if evidence.in_favour and significant and reliable:
        return Finding(evidence, p_adjusted, HOLDS, f"{evidence.shown}: {evidence.demanded}")
    correction = f" once corrected for the number of rules (p {decimal(p_adjusted, 3)})" if evidence.in_favour and not significant else ""
    if enough > n:
        why = f"not shown{correction}" if reliable else "interval unreliable"
        reason = f"{evidence.shown}: {why}; {n} items were measured and {enough} would decide"
        return Finding(evidence, p_adjusted, UNDECIDED, reason, enough - n)
    return Finding(evidence, p_adjusted, FAILS, f"{evidence.shown}: not shown{correction}, though {n} items are enough to see it")


def _task_of(rule: Rule, tasks: Mapping[str, SameItems], report: Mapping[str, Any] | None) -> SameItems | None:
    """None where the report stands in. A rule on what was not measured is an error: a slip of the pen must not let a model pass."""
    task = tasks.get(rule.task)
    if task is None:
        if rule.demand == "forgets_at_most" and (report or {}).get("forgetting"):
            return None
        raise UsageError(f"The policy has a rule on `{rule.task}`, which was not measured.", fix=nearest(rule.task, tasks))
    for label in (CANDIDATE,) if rule.demand in ("at_least", "at_most") else (CANDIDATE, BASELINE):
        if task.of(label) is None:
            raise UsageError(f"The policy has a rule on `{rule.task}`, which the {label} was not measured on.", fix=f"Measure the {label}.")
    return task


def finding_figures(finding: Finding) -> dict[str, Any]:
    evidence = asdict(finding.evidence)
    rule = finding.evidence.rule
    kept = {
        key: evidence[key] for key in ("metric", "demanded", "num_items", "num_clusters", "num_unscored", "enough", "p_value", "source")
    }
    return {
        "task": rule.task,
        "demand": rule.demand,
        "limit": rule.limit,
        **kept,
        "interval": as_numbers(finding.evidence.interval),
        "p_adjusted": finding.p_adjusted,
        "outcome": finding.outcome,
        "reason": finding.reason,
        "more_items": finding.more_items,
    }
