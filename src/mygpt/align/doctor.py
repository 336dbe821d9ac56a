"""The RLHF doctor: reads the vitals of a training as they come, names what goes wrong, and says what to change.

    doctor = Doctor(config.doctor, memory=memory)       `memory` is that of `training_steps`: what it saw is kept and resumed with it
    doctor.observe(vitals, run=run)                     after a rollout was learnt from: logs them, says each fault once until it clears
    if doctor.stop: break                               before the next rollout: what was learnt so far is kept and published

`doctor` the recipe reads the events of a run, finished or not, and makes a page. The checks and their limits: `faults`.

Source  the need: TRL #351, #615, #204, #1098, #1857 ask for a diagnosis of negative KL, explosion and collapse; the checks: `faults`
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import PositiveFloat

from mygpt.align.faults import CHECKS, HIDES, RELATED, START, Fault, History, Severity
from mygpt.align.vitals import Vitals
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Report, write_report
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run

KEPT = 100  # rollouts that are looked at: of longer trainings the beginning and these
CLEARS_AFTER = 5  # rollouts without a sign: then it may be said again


class DoctorConfig(Config):
    stops: tuple[Fault, ...] = ()  # faults that end the training; what was learnt until then is kept
    kl_target: PositiveFloat | None = None  # nats a sequence; None: that of the training, where it has one
    answers_end: bool = True  # false: answers are continuations, which need not end by themselves


@dataclass(frozen=True)
class Finding:
    fault: Fault
    severity: Severity
    since: int  # rollout
    seen_at: int  # rollout
    evidence: str
    advice: str

    @property
    def told(self) -> str:
        return f"{self.title} since rollout {self.since}: {self.evidence}"

    @property
    def title(self) -> str:
        return TITLES[self.fault]


TITLES: Mapping[Fault, str] = {
    "reward_hacking": "Reward hacking",
    "kl_blow_up": "KL blow-up",
    "negative_kl": "Negative KL",
    "collapse": "Collapse",
    "length_gaming": "Length gaming",
    "never_ends": "Answers that never end",
    "dead_value": "Dead value function",
    "dead_reward": "Dead reward",
    "steps_too_large": "Too large steps",
    "too_timid": "Too timid",
}


class Doctor:
    def __init__(self, config: DoctorConfig, *, kl_target: float | None = None, memory: dict[str, Any] | None = None):
        """`kl_target` is that of the training. All that is remembered stands in `memory["doctor"]`, as JSON."""
        self._config = config
        self._kl_target = config.kl_target or kl_target
        self._memory = {} if memory is None else memory

    @property
    def _state(self) -> dict[str, Any]:
        """Looked up each time: resuming fills `memory` with another."""
        state: dict[str, Any] = self._memory.setdefault("doctor", {"start": [], "recent": [], "open": {}, "findings": []})
        return state

    @property
    def findings(self) -> list[Finding]:
        """All so far, those that cleared too."""
        return [Finding(**found) for found in self._state["findings"]]

    @property
    def stop(self) -> Finding | None:
        """The fault on which the training is to end, as long as it shows."""
        last = [found for found in reversed(self.findings) if found.fault in self._config.stops and self.shows(found.fault)]
        return next((found for found in last if found.severity != "notice"), None)

    def shows(self, fault: Fault) -> bool:
        return fault in self._state["open"]

    def observe(self, vitals: Vitals, *, run: Run | None = None) -> list[Finding]:
        """What is new. With a `run` the vitals are logged, and what is new is a warning there."""
        state = self._state
        row = vitals.logged()
        if len(state["start"]) < START:
            state["start"].append(row)
        state["recent"] = [*state["recent"], row][-KEPT:]
        history = History([Vitals(**r) for r in state["start"]], [Vitals(**r) for r in state["recent"]])
        signs = {fault: sign for fault, check in CHECKS.items() if (sign := check(history, self._kl_target)) is not None}
        hidden = {other for fault in signs for other in HIDES.get(fault, ())} | (set() if self._config.answers_end else {"never_ends"})
        signs = {fault: sign for fault, sign in signs.items() if fault not in hidden}
        new = [Finding(fault, seen_at=vitals.rollout, **asdict(sign)) for fault, sign in signs.items() if fault not in state["open"]]
        quiet = {fault: 0 if fault in signs else rollouts + 1 for fault, rollouts in state["open"].items()}
        state["open"] = {fault: rollouts for fault, rollouts in quiet.items() if rollouts < CLEARS_AFTER} | {f.fault: 0 for f in new}
        state["findings"] += [asdict(finding) for finding in new]
        if run is not None:
            run.log(**row)
            for finding in new:
                run.warn(f"{finding.told} {finding.advice}")
        return new


class DoctorReportConfig(Config):
    kl_target: PositiveFloat | None = None
    answers_end: bool = True
    step: str = ""  # of the run, where several trained a policy


@recipe
def doctor(config: DoctorReportConfig, *, events: tuple[Path, ...], run: Run) -> Report:
    """Read `runs/ID/events.jsonl` (or the folder `runs/ID`) of a training, and say what went wrong. A training that was killed and went
    on has several; give them in order."""
    from mygpt.views.doctor_page import render

    rows = vitals_of(events, step=config.step)
    watching = Doctor(DoctorConfig(kl_target=config.kl_target, answers_end=config.answers_end))
    for vitals in rows:
        watching.observe(vitals)
    findings = [{**asdict(f), "title": f.title, "shows": watching.shows(f.fault), "related": RELATED[f.fault]} for f in watching.findings]
    sentences = [f"{f.told} {f.advice}" for f in watching.findings] or [f"No fault in {len(rows)} rollouts."]
    figures = {"kind": "doctor", "name": run.name, "sentences": sentences, "findings": findings, "vitals": [v.logged() for v in rows]}
    facts = {"rollouts": len(rows), "faults": [f.fault for f in watching.findings], "sentences": sentences}
    return publish(Report, run, lambda folder: write_report(folder, figures, render(figures)), facts=facts)


def vitals_of(events: Sequence[Path], *, step: str = "") -> list[Vitals]:
    """In order. What was done again after a kill counts as it was done last."""
    by_step: dict[str, dict[int, Vitals]] = {}
    for record in _records(events):
        vitals = Vitals.read(record) if record.get("event") == "log" else None
        if vitals is not None:
            rows = by_step.setdefault(str(record.get("step", "")), {})
            for later in [rollout for rollout in rows if rollout >= vitals.rollout]:
                del rows[later]
            rows[vitals.rollout] = vitals
    if not by_step or (step and step not in by_step):
        what = f"No step `{step}` of this run" if step and by_step else "No step of this run"
        raise UsageError(f"{what} logged the vitals of a policy.", fix="Give the events of `mygpt align ppo`, `grpo` or their kin.")
    if not step and len(by_step) > 1:
        raise UsageError(f"{len(by_step)} steps of this run trained a policy: {', '.join(by_step)}.", fix="Say which: `--set step=NAME`.")
    return list(by_step[step or next(iter(by_step))].values())


def _records(events: Iterable[Path]) -> Iterable[dict[str, Any]]:
    for path in events:
        file = path / "events.jsonl" if path.is_dir() else path
        if not file.is_file():
            raise UsageError(f"There is no {file}.", fix="Runs are kept in `HOME/runs/`; give the folder of one.")
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:  # the last line of a process that was killed
                continue
            if isinstance(record, dict):
                yield record
