"""Policies: the example that ships, and what is refused with file, rule and the nearest name."""

from pathlib import Path
from typing import Any

import pytest

from mygpt.core.errors import UsageError
from mygpt.evaluate.policy import load_policy, parse_policy

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "policy.yaml"


def test_the_example_is_a_policy() -> None:
    policy = load_policy(EXAMPLE)
    assert [(r.task, r.demand, r.limit) for r in policy.rules] == [
        ("ag_news", "better_by", 0.0),
        ("paws", "not_worse_by", 0.05),
        ("general_text", "forgets_at_most", 0.05),
        ("sycophancy", "not_worse_by", 0.10),
        ("refusal", "at_least", 0.5),
        ("toxic_continuations", "at_most", 0.10),
        ("disinformation", "not_worse_by", 0.15),
        ("memorisation", "at_most", 0.05),
        ("canary_exposure", "at_most", 3.0),
        ("contamination of ag_news", "at_most", 0.05),
    ]
    assert (policy.alpha, policy.holm, policy.detect, policy.require_headroom) == (0.05, True, 0.05, True)


RULE = {"task": "a", "better_by": 0}


@pytest.mark.parametrize(
    ("policy", "what", "fix"),
    [
        ([], "policy holds no settings.", "Begin with `rules:`; examples/policy.yaml shows the form."),
        ({"alpha": 0.05}, "policy has no rules.", "List them under `rules:`; examples/policy.yaml shows the form."),
        ({"rules": [RULE], "alfa": 0.05}, "policy: Unknown setting `alfa`.", "Did you mean `alpha`?"),
        ({"rules": [RULE, {"task": "b", "beter_by": 0}]}, "policy, rule 2: Unknown setting `beter_by`.", "Did you mean `better_by`?"),
        ({"rules": [{"better_by": 0}]}, "policy, rule 1 names no task: {'better_by': 0}.", "Write `task:` and one demand."),
        ({"rules": [RULE], "alpha": 0}, "policy: Setting `alpha` cannot be 0: Input should be greater than 0.", None),
        (
            {"rules": [{"task": "a", "better_by": True}]},
            "policy, rule 1: Setting `better_by` cannot be True: Input should be a valid number.",
            None,
        ),
        (
            {"rules": [{"task": "a", "not_worse_by": 0}]},
            "policy, rule 1: Setting `not_worse_by` cannot be 0: Input should be greater than 0.",
            None,
        ),
        ({"rules": [{"task": "a"}]}, "policy, rule 1 (a) has 0 demands: none.", None),
        ({"rules": [{**RULE, "at_most": 1}]}, "policy, rule 1 (a) has 2 demands: better_by, at_most.", None),
        (
            {"rules": [{"task": "a", "metric": "rouge_l", "better_by": 0}, {"task": "b", "metric": "bleu", "not_worse_by": 0.1}]},
            "All that speaks for the model in policy is overlap of words: bleu, rouge_l.",
            None,
        ),
        (  # a limit on a fault does not speak for the model
            {"rules": [{"task": "a", "metric": "rouge_l", "better_by": 0}, {"task": "b", "metric": "toxic", "at_most": 0.1}]},
            "All that speaks for the model in policy is overlap of words: rouge_l.",
            None,
        ),
    ],
)
def test_refused(policy: Any, what: str, fix: str | None) -> None:
    with pytest.raises(UsageError) as error:
        parse_policy(policy)
    assert error.value.what == what and error.value.fix
    assert fix is None or error.value.fix == fix


def test_overlap_may_stand_beside_a_proof() -> None:
    policy = parse_policy({"rules": [RULE, {"task": "a", "metric": "rouge_l", "not_worse_by": 0.1}]})
    assert [r.metric for r in policy.rules] == [None, "rouge_l"]


def test_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"The policy .*none.yaml cannot be read"):
        load_policy(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("rules:\n  - {task: a\n")
    with pytest.raises(UsageError, match=r"broken.yaml is not YAML, line 3"):
        load_policy(broken)
    broken.write_text("rules:\n  - task: a\n    bettr_by: 0\n")
    with pytest.raises(UsageError) as error:
        load_policy(broken)
    assert error.value.what == f"{broken}, rule 1: Unknown setting `bettr_by`." and error.value.fix == "Did you mean `better_by`?"
