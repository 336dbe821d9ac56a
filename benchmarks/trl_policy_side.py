"""trl's own losses of GRPO and RLOO on fixed tensors, as JSON: what tests/align/trl_policy_losses.json keeps.

    python -m benchmarks.rivals trl
    ~/.cache/mygpt-rivals/trl-*/bin/python -P benchmarks/trl_policy_side.py > tests/align/trl_policy_losses.json

Only the trainers' `_compute_loss` is called, on a stand-in for the trainer: no model, no data. Nothing of mygpt is imported.
"""

import json
import sys
from collections import defaultdict
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import torch
from trl import GRPOTrainer, RLOOTrainer

LENGTHS = (5, 2, 7, 1, 4, 7)
FORMS: tuple[dict[str, Any], ...] = (
    {"loss_type": "grpo", "beta": 0.0, "low": 0.2, "high": 0.2},
    {"loss_type": "grpo", "beta": 0.1, "low": 0.2, "high": 0.28},
    {"loss_type": "dapo", "beta": 0.0, "low": 0.2, "high": 0.28},
    {"loss_type": "dapo", "beta": 0.04, "low": 0.1, "high": 0.3},
    {"loss_type": "dr_grpo", "beta": 0.0, "low": 0.2, "high": 0.2},
    {"loss_type": "rloo", "beta": 0.0, "low": 0.2, "high": 0.2},
    {"loss_type": "bnpo", "beta": 0.04, "low": 0.2, "high": 0.28},
    {"loss_type": "cispo", "beta": 0.0, "low": 0.2, "high": 1.1},  # a bound of the ratio itself
    {"loss_type": "grpo", "level": "sequence", "beta": 0.0, "low": 0.05, "high": 0.08},
    {"loss_type": "grpo", "level": "sequence", "beta": 0.1, "low": 0.05, "high": 0.08},
)


def main() -> None:
    torch.manual_seed(5)
    B, L = len(LENGTHS), max(LENGTHS)
    new, old, reference = (-3 * torch.rand(B, L, dtype=torch.float64) for _ in range(3))
    old, reference = new + 0.3 * (old - new), new + 0.4 * (reference - new)
    mask = (torch.arange(L) < torch.tensor(LENGTHS)[:, None]).long()
    advantages = torch.tensor([1.2, -0.7, 0.4, -1.1, 0.0, 0.9], dtype=torch.float64)
    found = []
    for form in FORMS:
        logps = new.clone().requires_grad_()
        loss = loss_of(form, logps, old, reference, mask, advantages)
        loss.backward()
        found.append({**form, "loss": float(loss), "gradient": logps.grad.tolist()})
    given = {"lengths": LENGTHS, "advantages": advantages.tolist()}
    given |= {"new": new.tolist(), "old": old.tolist(), "reference": reference.tolist()}
    about = {name: version(name) for name in ("trl", "torch", "transformers")}
    sys.stdout.write(json.dumps({"versions": about, "max_completion_length": 9, **given, "losses": found}) + "\n")


def loss_of(
    form: dict[str, Any], logps: torch.Tensor, old: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor, advantages: torch.Tensor
) -> torch.Tensor:
    class Accelerator(SimpleNamespace):
        num_processes = 1

        def gather(self, x: torch.Tensor) -> torch.Tensor:
            return x

        def reduce(self, x: torch.Tensor, reduction: str) -> torch.Tensor:
            return x

    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *a, **k: (logps, torch.zeros_like(logps), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level=form.get("level", "token"),
        beta=form["beta"],
        epsilon_low=form["low"],
        epsilon_high=form["high"],
        loss_type=form["loss_type"],
        use_vllm=False,
        max_completion_length=9,
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
        model=SimpleNamespace(training=True),
        accelerator=Accelerator(),
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
    )
    ids = torch.ones_like(mask)
    inputs = {"prompt_ids": ids, "prompt_mask": ids, "completion_ids": ids, "completion_mask": mask, "advantages": advantages}
    inputs |= {"old_per_token_logps": old, "ref_per_token_logps": reference, "old_logps": (old * mask).sum(1)}
    inputs |= {"num_items_in_batch": mask.sum()}
    trainer_class: Any = RLOOTrainer if form["loss_type"] == "rloo" else GRPOTrainer
    loss: torch.Tensor = trainer_class._compute_loss(trainer, None, inputs)
    return loss


if __name__ == "__main__":
    main()
