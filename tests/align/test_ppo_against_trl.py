"""The arithmetic of PPO against trl's own trainer on the same numbers: trl_ppo.json holds what `benchmarks/trl_ppo_oracle.py` printed.

Three epochs over one rollout of fixed tokens, models that are tables, plain gradient descent: what was logged and where the tables end.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mygpt.align.advantages import gae, whitened
from mygpt.align.kl import ESTIMATORS, penalised_rewards
from mygpt.align.policy_losses import approx_kl, clipped_surrogate, clipped_value_losses

FOUND: dict[str, Any] = json.loads((Path(__file__).parent / "trl_ppo.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", FOUND["cases"])
def test_one_rollout(case: str) -> None:
    given, settings, theirs = FOUND["inputs"], FOUND["settings"][case], FOUND["cases"][case]
    policy, value = (torch.tensor(given[name], requires_grad=True) for name in ("policy", "value"))
    reference, reward, rows_BT = torch.tensor(given["reference"]), torch.tensor(given["reward"]), torch.tensor(given["rows"])
    before_BL, sampled_BL = rows_BT[:, given["query"] - 1 : -1], rows_BT[:, given["query"] :]
    everywhere_BL = torch.ones_like(sampled_BL, dtype=torch.bool)

    def logprobs_BL(table: torch.Tensor) -> torch.Tensor:
        logits_BLV = table[before_BL] / FOUND["temperature"]
        return logits_BLV.log_softmax(-1).gather(-1, sampled_BL[..., None])[..., 0]

    with torch.no_grad():
        old_BL, values_BL = logprobs_BL(policy), value[before_BL][..., 0]
        kl_BL = ESTIMATORS[settings["kl_estimator"]](old_BL, logprobs_BL(reference))
        scores_B = reward[rows_BT[:, -1], 0] - settings.get("missing_eos_penalty", 0.0) * (sampled_BL != given["eos"]).all(1)
        rewards_BL = penalised_rewards(scores_B, kl_BL, everywhere_BL, coefficient=0.2)
        if settings["whiten_rewards"]:
            rewards_BL = whitened(rewards_BL, everywhere_BL, shift_mean=False)
        advantages_BL = gae(rewards_BL, values_BL, everywhere_BL, gamma=settings.get("gamma", 1.0), lam=settings.get("lam", 0.95))
        returns_BL = advantages_BL + values_BL
        advantages_BL = whitened(advantages_BL, everywhere_BL)

    logged: dict[str, list[float]] = {}
    for _ in range(3):
        now_BL = logprobs_BL(policy)
        surrogate = clipped_surrogate(now_BL, old_BL, advantages_BL, clip_low=0.15, clip_high=0.15)
        of_value = clipped_value_losses(value[before_BL][..., 0], values_BL, returns_BL, clip=0.25)
        seen = {
            "loss/policy_avg": surrogate.losses,
            "loss/value_avg": of_value.losses,
            "policy/clipfrac_avg": surrogate.is_clipped.float(),
            "val/clipfrac_avg": of_value.is_clipped.float(),
            "policy/approxkl_avg": approx_kl(now_BL, old_BL),
            "val/ratio": surrogate.ratios,
        }
        for name, found in seen.items():
            logged.setdefault(name, []).append(found.mean().item())
        (surrogate.losses.mean() + 0.3 * of_value.losses.mean()).backward()
        with torch.no_grad():
            for table in (policy, value):
                assert table.grad is not None
                table -= FOUND["rate"] * table.grad
                table.grad = None
    for name, by_epoch in logged.items():
        assert sum(by_epoch) / 3 == pytest.approx(theirs["logged"][name], abs=1e-5), name
    assert kl_BL.sum(1).mean().item() == pytest.approx(theirs["logged"]["objective/kl"], abs=1e-5)
    assert scores_B.mean().item() == pytest.approx(theirs["logged"]["objective/scores"], abs=1e-5)
    assert theirs["logged"]["policy/clipfrac_avg"] > 0 < theirs["logged"]["val/clipfrac_avg"], "no bound was met"
    torch.testing.assert_close(policy, torch.tensor(theirs["after"]["policy"]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(value, torch.tensor(theirs["after"]["value"]), atol=1e-5, rtol=1e-5)
