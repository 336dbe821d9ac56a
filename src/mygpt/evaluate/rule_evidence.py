"""What the items say about one rule of a policy, before it is decided: the interval, the p-value, and how many items would be enough.

How many are enough is computed from a difference named before (the margin, or `detect` of the policy), never from the one seen: power at
the difference seen only says again what p said.

Source: Schuirmann 1987 (non-inferiority as one-sided test), by `metrics/non_inferiority`; Cohen 1988, chapter 2, by `metrics/power`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mygpt.core.errors import UsageError
from mygpt.evaluate.paired_difference import Resampling, difference, has_headroom, score
from mygpt.evaluate.policy import Policy, Rule
from mygpt.evaluate.same_items import SameItems
from mygpt.evaluate.task_figures import PLUMBING
from mygpt.metrics.bootstrap import Interval
from mygpt.metrics.non_inferiority import items_for_margin, non_inferiority
from mygpt.views.numbers import decimal, signed

CANDIDATE, BASELINE = "candidate", "baseline"


@dataclass(frozen=True)
class Evidence:
    rule: Rule
    metric: str
    interval: Interval  # of the gain (above zero is better), of the loss, or of the score: what the rule is about
    shown: str  # the same in words
    demanded: str  # "better", "at most 0.100"
    in_favour: bool  # the interval says that the rule holds
    ruled_out: str  # why it cannot hold; "" when it still can
    num_items: int
    num_clusters: int
    enough: int  # independent items that decide it, four times in five
    p_value: float | None = None
    source: str = ""  # where it was measured, if not on items of a task
    num_unscored: int = 0  # items that have no score, for the candidate or the baseline


def evidence_on_task(rule: Rule, task: SameItems, policy: Policy, resampling: Resampling, *, num_tests: int) -> Evidence:
    """`num_tests`: rules whose p-values are corrected together."""
    made = _evidence(rule, task, rule.metric or task.primary, policy, resampling, num_tests)
    return replace(made, num_unscored=len(task.item_ids) - made.num_items)


def _evidence(rule: Rule, task: SameItems, metric: str, policy: Policy, resampling: Resampling, num_tests: int) -> Evidence:
    planned = 1 - policy.alpha / num_tests if policy.holm else 1 - policy.alpha
    if rule.demand == "better_by":
        return _better(rule, task, metric, policy, resampling, planned)
    if rule.demand == "not_worse_by":
        return _not_worse(rule, task, metric, policy, resampling, planned)
    if rule.demand == "forgets_at_most":
        if task.is_higher_better(metric):
            what = f"`forgets_at_most` counts bits per byte, and on {task.task} more `{metric}` is better."
            raise UsageError(what, fix="Use `not_worse_by` there.")
        found = difference(task, CANDIDATE, BASELINE, metric, resampling)
        gain = found.gain
        made = loss_evidence(rule, metric, Interval(-gain.estimate, -gain.high, -gain.low), found.num_clusters)
        return replace(made, num_items=found.num_items)
    return _score_within(rule, task, metric, policy, resampling)


def evidence_in_report(rule: Rule, figures: Mapping[str, Any]) -> Evidence:
    """Of forgetting, from a report of `mygpt up`: its interval is over the texts of the general set."""
    bpb, num_texts = figures["forgetting"]["bpb"], figures["forgetting"].get("num_texts")
    if num_texts is None:
        what = "The report does not say on how many texts forgetting was measured."
        raise UsageError(what, fix="Make it again: it is of an older version.")
    told = [bpb[name] for name in ("estimate", "low", "high")]
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in told):
        raise UsageError(f"The report gives {told} as forgetting: no numbers.", fix="Measure again; look at what training ended with.")
    made = loss_evidence(rule, "bits_per_byte", Interval(*told), num_texts)
    return replace(made, source="general text, from the report")


def _better(rule: Rule, task: SameItems, metric: str, policy: Policy, resampling: Resampling, planned: float) -> Evidence:
    found = difference(task, CANDIDATE, BASELINE, metric, resampling, beyond=rule.limit)
    gain, demanded = found.gain, f"better by more than {decimal(rule.limit, 3)}" if rule.limit else "better"
    ruled_out = f"not {demanded}" if gain.high <= rule.limit else ""
    if policy.require_headroom and has_headroom(task, BASELINE, metric) is False:
        ruled_out = PLUMBING
    return Evidence(
        rule=rule,
        metric=metric,
        interval=gain,
        shown=said(gain),
        demanded=demanded,
        in_favour=gain.low > rule.limit,
        ruled_out=ruled_out,
        num_items=found.num_items,
        num_clusters=found.num_clusters,
        enough=found.needed(rule.detect or policy.detect, level=planned),
        p_value=found.p_value,
    )


def _not_worse(rule: Rule, task: SameItems, metric: str, policy: Policy, resampling: Resampling, planned: float) -> Evidence:
    """The margin is the difference that must not be missed; its limit is one-sided."""
    margin, task = rule.limit, task.scored(metric, CANDIDATE, BASELINE)
    weights_N = task.weights(metric)
    sign_N = (1 if task.is_higher_better(metric) else -1) * weights_N / weights_N.mean()
    tested = non_inferiority(
        (sign_N * task.values(CANDIDATE, metric)).tolist(),
        (sign_N * task.values(BASELINE, metric)).tolist(),
        margin=margin,
        clusters=task.clusters,
        level=1 - policy.alpha,
        num_resamples=resampling.num_resamples,
        seed=resampling.seed,
    )
    found = difference(task, CANDIDATE, BASELINE, metric, resampling)
    return Evidence(
        rule=rule,
        metric=metric,
        interval=tested.interval,
        shown=said(tested.interval),
        demanded=f"at most {decimal(margin, 3)} lost",
        in_favour=tested.holds,
        ruled_out=f"more than {decimal(margin, 3)} lost" if tested.interval.high < -margin else "",
        num_items=found.num_items,
        num_clusters=found.num_clusters,
        enough=items_for_margin(margin, found.sd, tested.added, level=planned, kurtosis=found.kurtosis),
        p_value=tested.p_value,
    )


def _score_within(rule: Rule, task: SameItems, metric: str, policy: Policy, resampling: Resampling) -> Evidence:
    """The whole interval of the candidate's score must lie on the right side of the limit."""
    task = task.scored(metric, CANDIDATE)
    interval = score(task, CANDIDATE, metric, resampling).interval
    at_least = rule.demand == "at_least"
    side = 1 if at_least else -1
    near = interval.low if at_least else interval.high
    made = _bounded(
        rule,
        metric,
        interval,
        inside=side * (interval.estimate - rule.limit),
        reach=abs(interval.estimate - near),
        num_clusters=task.num_clusters,
        detect=rule.detect or policy.detect,
        demanded=f"{'at least' if at_least else 'at most'} {decimal(rule.limit, 3)}",
    )
    shown = f"{decimal(interval.estimate, 3)} ({decimal(interval.low, 3)} to {decimal(interval.high, 3)})"
    return replace(made, num_items=len(task.item_ids), shown=shown)


def loss_evidence(rule: Rule, metric: str, loss: Interval, num_clusters: int) -> Evidence:
    return _bounded(
        rule,
        metric,
        loss,
        inside=rule.limit - loss.estimate,
        reach=loss.high - loss.estimate,
        num_clusters=num_clusters,
        detect=rule.detect or rule.limit,
        demanded=f"at most {decimal(rule.limit, 3)} bits per byte lost",
    )


def _bounded(
    rule: Rule,
    metric: str,
    interval: Interval,
    *,
    inside: float,
    reach: float,
    num_clusters: int,
    detect: float,
    demanded: str,
) -> Evidence:
    """A limit on an interval. The estimate is `inside` it by so much and its interval reaches `reach` towards it, less as 1 / sqrt(n).

    An estimate beyond the limit rules the demand out: it is the candidate that has to keep within, not chance that has to be excluded.
    """
    wide = reach if math.isfinite(reach) else detect
    return Evidence(
        rule=rule,
        metric=metric,
        interval=interval,
        shown=said(interval),
        demanded=demanded,
        in_favour=reach <= inside,
        ruled_out=f"not {demanded}" if inside < 0 else "",
        num_items=num_clusters,
        num_clusters=num_clusters,
        enough=math.ceil(num_clusters * (wide / max(inside, detect / 4)) ** 2 - 1e-9),
    )


def said(interval: Interval) -> str:
    return f"{signed(interval.estimate, 3)} ({signed(interval.low, 3)} to {signed(interval.high, 3)})"
