"""Updates that belong together: rollouts whose lengths nobody knows beforehand, and checkpoints only between them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mygpt.artifacts.recipe import Making
from mygpt.core.errors import Stopped
from mygpt.core.run import Run
from mygpt.training.flops import Flops
from mygpt.training.ledger import Ledger
from mygpt.training.machine import PeakMemory
from mygpt.training.optimizers import MasterAdamW
from mygpt.training.steps import Advice, Examples, Step, checkpoints_of, training_steps
from tests.training.test_steps import raise_killed, terminate

PHASES, UPDATES = 3, 2
PLAN = [[[4 * phase + i for i in range(4)]] for phase in range(PHASES) for _ in range(UPDATES)]


def go(
    home: Path, *, at: Callable[[Step], None] | None = None, said: list[str] | None = None, skipped: frozenset[int] = frozenset()
) -> dict[str, Any]:
    """A layer that learns twice from each draw of four rows; a coefficient is carried along, and the lengths come with the draw."""
    events = [] if said is None else said
    run = Run(home, name="toy", listeners=(lambda event: events.append(str(event)),)).within(
        Making("mygpt.toy:toy", {}, {}, {}, 0, "request")
    )
    torch.manual_seed(7)
    layer = torch.nn.Linear(8, 1)
    optimizer = MasterAdamW(layer.named_parameters(), learning_rate=0.1, weight_decay=0.0, betas=(0.9, 0.99))
    memory: dict[str, Any] = {"coefficient": 1.0, "drawn": []}
    lengths, labels = [0] * 12, [0] * 12
    ledger = Ledger(Flops(2.0, 4.0, 0.0), 1e9, PeakMemory(torch.device("cpu")), None)
    known = Examples([f"answer {i}" for i in range(12)], lengths, labels)
    with training_steps(
        PLAN,
        examples=known,
        optimizer=optimizer,
        checkpoints=checkpoints_of(run, every_seconds=0.0),
        ledger=ledger,
        run=run,
        advice=Advice("", ""),
        memory=memory,
        phase=UPDATES,
    ) as steps:
        for step in steps:
            if step.number % UPDATES == 1:  # the rollout
                drawn_RD = torch.randn(4, 8)
                for i in step.rows:
                    lengths[i], labels[i] = 10 + i, 5
                memory["coefficient"] *= 1.5
                memory["drawn"].append(float(drawn_RD.sum()))
            if step.number in skipped:
                step.skip()
                continue
            step.cut([step.rows[:1], step.rows[1:]])
            for rows in step.micro_batches:
                if at:
                    at(step)
                loss = memory["coefficient"] * (layer(drawn_RD[[i % 4 for i in rows]]) ** 2).sum() / step.num_trained
                loss.backward()
                step.add(loss, computed_tokens=len(rows))
            step.update(learning_rate=0.1, max_grad_norm=1.0)
    counted = {k: v for k, v in ledger.state().items() if k != "seconds"}
    run.close()
    return {"weights": {k: v.tolist() for k, v in optimizer.state().items()}, "memory": memory, "counted": counted, "curve": steps.curve}


@pytest.mark.parametrize("update", [3, 4, 5])
def test_killed_inside_a_phase_and_resumed_is_uninterrupted(update: int, tmp_path: Path) -> None:
    whole = go(tmp_path / "whole")
    assert whole["memory"]["coefficient"] == 1.5**3 and len(whole["memory"]["drawn"]) == 3
    assert whole["counted"]["real_tokens"] == 2 * sum(10 + i for i in range(12))

    def kill(step: Step) -> None:
        if step.number == update:
            raise_killed(step)

    with pytest.raises(BaseException):  # noqa: B017 - as a kill, it is no Exception
        go(tmp_path / "home", at=kill)
    kept = [p.name for p in (tmp_path / "home" / "checkpoints").glob("*/*")]
    assert kept == [f"step-{(update - 1) // UPDATES * UPDATES}"]
    assert json.dumps(go(tmp_path / "home")) == json.dumps(whole)


def test_told_to_stop_inside_a_phase(tmp_path: Path) -> None:
    """The state between two updates of a phase is never written: the phase is made again."""
    whole = go(tmp_path / "whole")
    with pytest.raises(Stopped, match="rollout is made again"):
        go(tmp_path / "home", at=lambda step: terminate() if step.number == 4 else None)
    assert [p.name for p in (tmp_path / "home" / "checkpoints").glob("*/*")] == ["step-2"]
    assert json.dumps(go(tmp_path / "home")) == json.dumps(whole)


def test_progress_counts_updates(tmp_path: Path) -> None:
    said: list[str] = []
    go(tmp_path, said=said)
    assert any("'updates'" in one or '"updates"' in one for one in said)


def test_updates_left_out_are_not_counted_and_resume_all_the_same(tmp_path: Path) -> None:
    """The last of a phase, so that the checkpoint after it is of an update that was not made."""
    skipped = frozenset({2, 4})
    whole, every = go(tmp_path / "whole", skipped=skipped), go(tmp_path / "every")
    assert [step for step, _ in whole["curve"]] == [1, 3, 5, 6]
    assert whole["counted"]["real_tokens"] == sum((1 if i < 8 else 2) * (10 + i) for i in range(12))
    assert whole["weights"] != every["weights"] and whole["memory"]["coefficient"] == every["memory"]["coefficient"]
    with pytest.raises(BaseException):  # noqa: B017 - as a kill, it is no Exception
        go(tmp_path / "home", at=lambda step: raise_killed(step) if step.number == 5 else None, skipped=skipped)
    assert [p.name for p in (tmp_path / "home" / "checkpoints").glob("*/*")] == ["step-4"]
    assert json.dumps(go(tmp_path / "home", skipped=skipped)) == json.dumps(whole)
