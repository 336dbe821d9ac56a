"""The doctor on trainings that really go wrong (`tiny_policy`), on healthy ones, and on figures whose verdict is known by hand."""

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mygpt.align import faults
from mygpt.align.doctor import TITLES, Doctor, DoctorConfig, DoctorReportConfig, doctor, vitals_of
from mygpt.align.faults import CHECKS, RELATED, Fault
from mygpt.align.grpo import GRPOConfig
from mygpt.align.ppo_config import PPOConfig
from mygpt.align.vitals import Vitals, flat_share, reward_per_token
from mygpt.cli.recipe_call import _settings
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from tests.align import tiny_policy
from tests.align.tiny_policy import RewardOf, Settings, baited, longer, nothing, quality, rarities

HEALTHY = Settings()
PLANTED: dict[Fault, tuple[Settings, RewardOf, RewardOf | None]] = {
    "reward_hacking": (replace(HEALTHY, kl_coefficient=0.0), baited, quality),
    "kl_blow_up": (replace(HEALTHY, kl_coefficient=0.0, learning_rate=0.1), rarities, None),
    "negative_kl": (replace(HEALTHY, stale=True), quality, quality),
    "collapse": (replace(HEALTHY, kl_coefficient=0.0, entropy_coefficient=0.0, learning_rate=0.5), tiny_policy.noise_of(0, 1.0), None),
    "length_gaming": (HEALTHY, longer, None),
    "never_ends": (replace(HEALTHY, rollouts=60), longer, None),
    "dead_value": (replace(HEALTHY, value_rate=3.0), quality, quality),
    "dead_reward": (HEALTHY, nothing, None),
    "steps_too_large": (replace(HEALTHY, learning_rate=1.0, epochs=4), quality, quality),
    "too_timid": (replace(HEALTHY, learning_rate=1e-6), quality, quality),
}

WITH_IT: dict[Fault, set[Fault]] = {  # what such a training has beside the planted fault, as its figures say
    "reward_hacking": {"collapse"},  # the bait and nothing else is written
    "kl_blow_up": {"never_ends", "steps_too_large", "collapse"},  # the rare token, again and again
    "collapse": {"steps_too_large", "dead_value"},  # a rate of 0.5 on mere noise
    "length_gaming": {"never_ends"},
    "never_ends": {"length_gaming"},
}


def seen(rows: list[Vitals], **settings: Any) -> Doctor:
    watching = Doctor(DoctorConfig(**settings))
    for row in rows:
        watching.observe(row)
    return watching


# -- trainings ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_it_has_nothing_to_say_of_a_healthy_training(seed: int) -> None:
    rows = tiny_policy.train(HEALTHY, seed=seed)
    assert rows[-1].reward > rows[0].reward + 0.15  # it did learn
    assert [(f.fault, f.evidence) for f in seen(rows).findings] == []


@pytest.mark.parametrize("fault", PLANTED)
def test_it_names_what_was_planted(fault: Fault) -> None:
    settings, reward, held_out = PLANTED[fault]
    findings = seen(tiny_policy.train(settings, seed=11, reward=reward, held_out=held_out)).findings
    named = {finding.fault: finding for finding in findings}
    assert set(named) == {fault} | WITH_IT.get(fault, set())
    assert 1 <= named[fault].since <= named[fault].seen_at <= settings.rollouts
    assert re.search(r"\d", named[fault].evidence) and "`" in named[fault].advice  # figures, and a setting


def test_the_advice_names_settings_that_there_are() -> None:
    """In any of its strings, whether or not a training here ends in it."""
    known = {name.strip().partition("=")[0] for config in (PPOConfig, GRPOConfig) for name, _ in _settings(config)}
    tree = ast.parse(Path(faults.__file__).read_text(encoding="utf-8"))
    strings = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    named = {name for text in strings for name in re.findall(r"`([\w.]+)(?:=\w+)?`", text)}
    assert {"length_penalty", "missing_stop_penalty", "watch.doctor.answers_end", "kl.target", "passes"} <= named
    assert named - known == {"top_p", "top_k"}  # which no training here has


def test_a_wrong_temperature_is_a_negative_kl() -> None:
    """Sampled, and the reference scored, at 2; the policy scored at 1: before anything is learnt, minus the KL between the two."""
    rows = tiny_policy.train(replace(HEALTHY, temperature=2.0, learning_rate=1e-6, rollouts=8), seed=0)
    [finding] = seen(rows).findings
    assert finding.fault == "negative_kl" and finding.seen_at <= 5 and "temperature" in finding.advice


def test_the_kl_target_of_a_training_is_what_a_blow_up_is_measured_by() -> None:
    rows = tiny_policy.train(replace(HEALTHY, kl_coefficient=0.0), seed=0)
    assert "kl_blow_up" not in {f.fault for f in seen(rows).findings}
    [finding] = [f for f in seen(rows, kl_target=0.5).findings if f.fault == "kl_blow_up"]
    assert "3 times the target of 0.5" in finding.evidence


# -- figures -----------------------------------------------------------------------------------------------------------------


def row(rollout: int, **figures: Any) -> Vitals:
    """Nothing wrong, and some scatter."""
    scatter = (rollout * 7 % 5 - 2) * 0.01
    usual = {"reward": 0.2 + 0.01 * rollout + scatter, "reward_std": 0.3, "kl": 1.0 + 0.1 * rollout + scatter, "entropy": 2.0}
    return Vitals(**{"rollout": rollout, **usual, "length": 20.0, "finished_share": 0.9, "duplicate_share": 0.1, **figures})


def test_nothing_is_said_of_one_odd_rollout() -> None:
    odd: Mapping[str, float] = {"kl": 500.0, "entropy": 0.0, "finished_share": 0.0, "reward_std": 0.0, "clip_share": 0.9, "ratio_max": 99.0}
    rows = [row(n, **(odd if n == 20 else {"clip_share": 0.1, "ratio_max": 2.0})) for n in range(1, 41)]
    assert seen(rows).findings == []


def test_a_fault_is_said_once_until_it_clears() -> None:
    bad = {*range(10, 20), *range(40, 50)}
    rows = [row(n, clip_share=0.6 if n in bad else 0.1) for n in range(1, 51)]
    findings = seen(rows).findings
    # four of the last five are beyond the limit at 13 and at 43
    assert [(f.fault, f.since, f.seen_at) for f in findings] == [("steps_too_large", 10, 13), ("steps_too_large", 40, 43)]


def test_hacking_needs_both_a_rise_and_a_fall() -> None:
    def rows(reward: float, held_out: float) -> list[Vitals]:
        return [
            row(n, reward=0.2 + reward * n + (n % 3) * 0.01, held_out_reward=0.5 + held_out * max(0, n - 15) + (n % 2) * 0.01)
            for n in range(1, 41)
        ]

    assert [f.fault for f in seen(rows(0.01, -0.01)).findings] == ["reward_hacking"]
    assert seen(rows(0.01, 0.01)).findings == []
    assert "reward_hacking" not in {f.fault for f in seen(rows(-0.01, -0.01)).findings}
    [finding] = seen(rows(0.01, -0.01)).findings
    assert abs(finding.since - 15) <= 2  # where the held-out reward was best


def test_an_ensemble_that_comes_to_disagree_is_a_sign_of_hacking() -> None:
    rows = [row(n, reward_disagreement=0.1 + 0.01 * n + (n % 2) * 0.01) for n in range(1, 41)]
    [finding] = seen(rows).findings
    assert finding.fault == "reward_hacking" and finding.severity == "warning" and "disagree" in finding.evidence


def test_longer_answers_that_are_better_are_no_gaming() -> None:
    def rows(held_out: float) -> list[Vitals]:
        return [row(n, length=20.0 + n, reward_per_token=0.01, held_out_reward=held_out * n + (n % 2) * 0.01) for n in range(1, 41)]

    [finding] = seen(rows(0.0)).findings
    assert finding.fault == "length_gaming" and "explains" in finding.evidence
    assert seen(rows(0.01)).findings == []


def test_the_price_of_a_token_is_found_without_the_slope_too() -> None:
    """Rollouts that follow one another are longer and better paid together: 0.01 a token."""
    lengths = [20.0 + n + 3 * (n * 7 % 5 - 2) for n in range(1, 41)]
    rows = [row(n, length=length, reward=0.01 * length) for n, length in enumerate(lengths, 1)]
    [finding] = seen(rows).findings
    assert finding.fault == "length_gaming" and "+0.01 within" in finding.evidence


def test_a_task_that_is_solved_is_told_from_a_collapse() -> None:
    def rows(reward: float) -> list[Vitals]:
        return [
            row(
                n,
                reward=reward * min(n, 20) + (n % 2) * 0.005,
                reward_std=max(0.3 - 0.015 * n, 0.0),
                flat_share=min(n / 20, 1.0),
                entropy=max(2.0 - 0.1 * n, 0.01),
                duplicate_share=min(n / 20, 0.9),
            )
            for n in range(1, 41)
        ]

    solved = seen(rows(0.04), stops=("dead_reward",))
    assert {f.fault: f.severity for f in solved.findings} == {"collapse": "warning", "dead_reward": "notice"}
    assert not solved.shows("collapse") and solved.stop is None
    assert {f.fault: f.severity for f in seen(rows(0.0)).findings} == {"collapse": "critical", "dead_reward": "critical"}


def test_continuations_need_not_end() -> None:
    rows = [row(n, finished_share=0.0) for n in range(1, 21)]
    assert [f.fault for f in seen(rows).findings] == ["never_ends"]
    assert seen(rows, answers_end=False).findings == []


def test_figures_that_are_no_numbers_are_passed_over() -> None:
    rows = [row(n, value_explained=float("-inf"), clip_share=float("nan"), reward_disagreement=float("nan")) for n in range(1, 31)]
    assert seen(rows).findings == []


def test_the_slope_and_the_flat_share_by_hand() -> None:
    """Lengths 1 2 3, rewards 0 1 1: (-1*-2/3 + 0 + 1*1/3) / 2 = 1/2."""
    assert reward_per_token([0, 1, 1], [1, 2, 3]) == pytest.approx(0.5)
    assert reward_per_token([0, 1], [4, 4]) is None
    assert flat_share([1, 1, 0, 1], 2) == 0.5
    assert flat_share([1, 1, 0, 1], 1) is None


def test_every_fault_has_a_check_a_title_and_figures_to_look_at() -> None:
    assert set(CHECKS) == set(TITLES) == set(RELATED) == set(PLANTED)
    assert all(name in Vitals.__dataclass_fields__ for names in RELATED.values() for name in names)


# -- in a training -----------------------------------------------------------------------------------------------------------


def test_what_it_remembers_survives_as_json() -> None:
    rows = tiny_policy.train(replace(HEALTHY, kl_coefficient=0.0), seed=1, reward=baited)
    whole = seen(rows)
    memory: dict[str, Any] = {}
    for vitals in rows:
        memory = json.loads(json.dumps(memory))
        watching = Doctor(DoctorConfig(), memory=memory)
        watching.observe(vitals)
    assert watching.findings == whole.findings and whole.findings


def test_it_stops_where_it_is_told_to() -> None:
    rows = [row(n, clip_share=0.6) for n in range(1, 9)]
    assert seen(rows).stop is None
    watching = seen(rows, stops=("steps_too_large",))
    assert watching.stop is not None and watching.stop.fault == "steps_too_large"
    for n in range(9, 20):
        watching.observe(row(n, clip_share=0.1))
    assert watching.stop is None  # it cleared


def test_a_stop_that_is_no_fault_is_refused() -> None:
    from mygpt.core.config import resolve

    with pytest.raises(UsageError, match="stops"):
        resolve(DoctorConfig, {"stops": ["reward_hackin"]})


def test_warnings_and_figures_go_into_the_run_and_are_read_from_it(run: Run) -> None:
    watching = Doctor(DoctorConfig())
    with run.step("ppo"):
        for n in range(1, 9):
            watching.observe(row(n, clip_share=0.6), run=run)
    run.log(loss=1.0)  # of something else
    rows = vitals_of([run.folder])
    assert rows == [row(n, clip_share=0.6) for n in range(1, 9)]
    events = [json.loads(line) for line in (run.folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    [warning] = [event["text"] for event in events if event["event"] == "warning"]
    assert warning.startswith("Too large steps since rollout 1: Share of clipped tokens 0.6 (limit 0.3)")


# -- the report --------------------------------------------------------------------------------------------------------------


def write_events(path: Path, rows: list[Vitals], step: str = "ppo") -> Path:
    lines = [json.dumps({"time": 0, "event": "log", "step": step, **vitals.logged()}) for vitals in rows]
    path.write_text("\n".join([*lines, '{"time": 0, "event": "lo']), encoding="utf-8")  # killed while writing
    return path


def test_a_finished_training_is_read_and_shown(run: Run, tmp_path: Path) -> None:
    rows = tiny_policy.train(replace(HEALTHY, kl_coefficient=0.0), seed=1, reward=baited)
    first = write_events(tmp_path / "first.jsonl", rows[:20])
    again = write_events(tmp_path / "again.jsonl", rows[14:])  # went on from a checkpoint before the kill
    report = doctor(DoctorReportConfig(), events=(first, again), run=run)
    assert report.manifest.facts["rollouts"] == len(rows)
    assert report.manifest.facts["faults"] == [f.fault for f in seen(rows).findings]
    page = report.page.read_text(encoding="utf-8")
    assert "Reward hacking" in page and "Raise" in page.replace("raise", "Raise") and page.count('<div class="chart"') >= 12
    assert "://" not in page and "<script" not in page
    assert report.figures["vitals"][0]["reward"] == rows[0].reward


def test_a_healthy_training_says_so(run: Run, tmp_path: Path) -> None:
    report = doctor(DoctorReportConfig(), events=(write_events(tmp_path / "e.jsonl", [row(n) for n in range(1, 25)]),), run=run)
    assert report.manifest.facts["sentences"] == ["No fault in 24 rollouts."]


def test_runs_without_a_policy_and_with_two_are_told_apart(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"event": "log", "loss": 1}\n', encoding="utf-8")
    with pytest.raises(UsageError, match="logged the vitals"):
        vitals_of([empty])
    with pytest.raises(UsageError, match="There is no"):
        vitals_of([tmp_path / "nowhere"])
    ppo, grpo = (write_events(tmp_path / f"{step}.jsonl", [row(1), row(2)], step) for step in ("ppo", "grpo"))
    with pytest.raises(UsageError, match="ppo, grpo"):
        vitals_of([ppo, grpo])
    assert len(vitals_of([ppo, grpo], step="grpo")) == 2
