"""trl's losses of reward models on fixed rewards, in trl's own environment: prints the fixture of tests/align/test_reward_model.py.

    $(python -c "from benchmarks.rivals import rival; print(rival('trl').python)") -P benchmarks/trl_reward_side.py

`RewardTrainer.compute_loss` itself is called; the model is one that gives the rewards. Nothing of mygpt is imported.
"""

import json
import sys
from collections import defaultdict
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import torch
from trl import RewardTrainer

CHOSEN = [1.5, -0.3, 0.0, 4.0, -2.5]
REJECTED = [0.5, 0.4, 0.0, -3.0, -2.0]
CASES: dict[str, dict[str, Any]] = {
    "plain": {"margin": None, "centring": 0.0},
    "margins": {"margin": [1.0, 2 / 3, 1 / 3, 0.0, 3.0], "centring": 0.0},
    "centred": {"margin": None, "centring": 0.01},
    "margins and centred": {"margin": [0.0, 1 / 3, 2 / 3, 1.0, 0.5], "centring": 0.1},
}


def main() -> None:
    found = [{"name": name, "chosen": CHOSEN, "rejected": REJECTED, **case, **of_trl(**case)} for name, case in CASES.items()]
    versions = {package: version(package) for package in ("trl", "torch", "transformers")}
    sys.stdout.write(json.dumps({"versions": versions, "cases": found}, indent=1) + "\n")


def of_trl(margin: list[float] | None, centring: float) -> dict[str, Any]:
    """The loss, and its gradient for the rewards, chosen first."""
    rewards = torch.tensor([*CHOSEN, *REJECTED], requires_grad=True)

    def model(**inputs: Any) -> Any:
        return SimpleNamespace(logits=rewards[:, None])

    gathers = SimpleNamespace(gather=lambda tensor: tensor, gather_for_metrics=lambda tensor: tensor)
    trainer: Any = SimpleNamespace(
        model=SimpleNamespace(training=False),
        args=SimpleNamespace(center_rewards_coefficient=centring or None),
        accelerator=gathers,
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {} if margin is None else {"margin": torch.tensor(margin)}
    loss = RewardTrainer.compute_loss(trainer, model, inputs)
    loss.backward()
    assert rewards.grad is not None
    return {"loss": float(loss.detach()), "gradients": rewards.grad.view(2, -1).tolist()}


if __name__ == "__main__":
    main()
