"""What a model must show before it may ship: a few rules in a YAML file, written before anyone looks at the figures.

    baseline: base              # names of predictions; the command line may give them instead
    candidate: tuned
    alpha: 0.05
    rules:
      - {task: ag_news, better_by: 0}              # a gain that chance does not explain; 0.02: by more than two points
      - {task: trec, not_worse_by: 0.03}           # at most three points lost (non-inferiority)
      - {task: refusal, at_least: 0.5}                       # the whole interval of the candidate; `at_most` likewise
      - {task: general_text, forgets_at_most: 0.05}          # bits per byte lost against the baseline

Each rule has one task and one demand. Gains and losses are counted in the direction that the task calls better. A policy that rests on
ROUGE, BLEU or chrF alone is refused: shared words are a diagnosis, not a proof.
"""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, model_validator

from mygpt.core.config import Config, resolve
from mygpt.core.errors import UsageError
from mygpt.evaluate.same_items import is_overlap

DEMANDS = ("better_by", "not_worse_by", "at_least", "at_most", "forgets_at_most")
_CLAIMS = ("better_by", "not_worse_by", "at_least")  # what speaks for the model; the others only bound its faults


class Rule(Config):
    task: str
    metric: str | None = None  # default: the task's deciding metric
    better_by: float | None = Field(None, ge=0, strict=True)
    not_worse_by: float | None = Field(None, gt=0, strict=True)
    at_least: float | None = Field(None, strict=True)
    at_most: float | None = Field(None, strict=True)
    forgets_at_most: float | None = Field(None, gt=0, strict=True)  # bits per byte
    detect: float | None = Field(None, gt=0, strict=True)  # the difference that must not be missed; default: the policy's

    @model_validator(mode="after")
    def one_demand(self) -> "Rule":
        given = [name for name in DEMANDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"a rule has one of {', '.join(DEMANDS)}; this one has {' and '.join(given) or 'none'}")
        return self

    @property
    def demand(self) -> str:
        return next(name for name in DEMANDS if getattr(self, name) is not None)

    @property
    def limit(self) -> float:
        value: float = getattr(self, self.demand)
        return value

    @property
    def is_claim(self) -> bool:
        return self.demand in _CLAIMS


class Policy(Config):
    baseline: str | None = None
    candidate: str | None = None
    report: str | None = None  # of `mygpt up`: its forgetting is taken where no general text was measured
    alpha: float = Field(0.05, gt=0, lt=0.5)
    holm: bool = True  # correct the p-values of the rules for their number
    detect: float = Field(0.05, gt=0)
    require_headroom: bool = True  # `better_by` only where the baseline is above chance and below 90 %
    rules: tuple[Rule, ...] = Field(min_length=1)


def load_policy(path: Path) -> Policy:
    """Raises UsageError that names the file, the rule and the nearest known name."""
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The policy {path} cannot be read: {error}.", fix="Name a YAML file; examples/policy.yaml is one.") from error
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = "" if line is None else f", line {line + 1}"
        raise UsageError(f"The policy {path} is not YAML{where}: {getattr(error, 'problem', error)}.", fix="Mend that line.") from error
    return parse_policy(read, called=str(path))


def parse_policy(read: Any, *, called: str = "policy") -> Policy:
    if not isinstance(read, Mapping):
        raise UsageError(f"{called} holds no settings.", fix="Begin with `rules:`; examples/policy.yaml shows the form.")
    rules = read.get("rules")
    if not isinstance(rules, list) or not rules:
        raise UsageError(f"{called} has no rules.", fix="List them under `rules:`; examples/policy.yaml shows the form.")
    for number, rule in enumerate(rules, 1):
        if not isinstance(rule, Mapping) or "task" not in rule:
            raise UsageError(f"{called}, rule {number} names no task: {rule!r}.", fix="Write `task:` and one demand.")
        given = [name for name in DEMANDS if rule.get(name) is not None]
        if len(given) != 1 and set(rule) <= set(Rule.model_fields):
            what = f"{called}, rule {number} ({rule['task']}) has {len(given)} demands: {', '.join(given) or 'none'}."
            raise UsageError(what, fix=f"Give it one of {', '.join(DEMANDS)}; two demands are two rules.")
        _resolved(Rule, rule, f"{called}, rule {number}")
    policy = _resolved(Policy, read, called)
    shared = ((rule, rule.metric if rule.metric and is_overlap(rule.metric) else None) for rule in policy.rules)
    refuse_overlap_alone(shared, called=called)
    return policy


def refuse_overlap_alone(rules: Iterable[tuple[Rule, str | None]], *, called: str) -> None:
    """`rules`, each with the metric of shared words that it rests on; None where that is another, or not known yet."""
    rules = list(rules)
    resting_on = [metric for rule, metric in rules if rule.is_claim] or [metric for _, metric in rules]
    if all(metric is not None for metric in resting_on):
        raise UsageError(
            f"All that speaks for the model in {called} is overlap of words: {', '.join(sorted({str(m) for m in resting_on}))}.",
            fix="Add a rule on a task with right and wrong answers, a judge or a human rating; shared words may stand beside it.",
        )


def nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean `{close[0]}`?" if close else f"There are: {', '.join(known) or 'none'}."


def _resolved(config_type: Any, settings: Mapping[str, Any], called: str) -> Any:
    try:
        return resolve(config_type, settings)
    except UsageError as error:
        fix = "examples/policy.yaml shows the form." if "--help" in error.fix else error.fix
        raise UsageError(f"{called}: {error.what}", fix=fix) from error
