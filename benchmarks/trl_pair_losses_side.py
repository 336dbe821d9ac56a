"""trl's own value of every loss of preferences that it has, on fixed log-probabilities. Runs in trl's environment; prints JSON.

The trainers' own `_compute_loss` (and `odds_ratio_loss`, `cpo_loss`) are called, with a stand-in for the trainer and for the model.
"""

import json
import sys
from collections import defaultdict
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import torch
from trl import DPOTrainer, KTOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

_PROMPT, _LENGTHS = 2, ((3, 5, 1, 4), (2, 6, 3, 1))  # tokens of the prompt; of chosen and of rejected answers
_DPO: dict[str, dict[str, float]] = {
    "sigmoid": {"beta": 0.1},
    "robust": {"beta": 0.1, "label_smoothing": 0.1},
    "hinge": {"beta": 0.05},
    "ipo": {"beta": 0.1},
    "exo_pair": {"beta": 0.1, "label_smoothing": 0.001},
    "nca_pair": {"beta": 0.01},
    "bco_pair": {"beta": 0.01},
    "sppo_hard": {"beta": 0.001},
    "apo_zero": {"beta": 0.1},
    "apo_down": {"beta": 0.1},
    "discopop": {"beta": 0.05, "tau": 0.05},
    "aot": {"beta": 0.01, "label_smoothing": 0.2},
    "aot_unpaired": {"beta": 0.01, "label_smoothing": 0.2},
    "sigmoid_norm": {"beta": 5.0},
}


def main() -> None:
    torch.manual_seed(5)
    lengths = [*_LENGTHS[0], *_LENGTHS[1]]
    longest = _PROMPT + max(lengths)
    mask = torch.tensor([[0] * _PROMPT + [1] * n + [0] * (longest - _PROMPT - n) for n in lengths])
    each = -3 * torch.rand(len(lengths), longest - 1) * mask[:, 1:]
    reference = each.sum(1) + torch.randn(len(lengths)) * 2
    given = {"logprobs": each.sum(1).tolist(), "reference": reference.tolist(), "tokens": lengths}
    inputs = {"input_ids": torch.ones_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask}
    inputs |= {"ref_chosen_logps": reference[:4], "ref_rejected_logps": reference[4:]}
    found = [{"loss": name, "settings": settings, "mean": dpo(name, settings, each, inputs)} for name, settings in _DPO.items()]
    first = [0, 4]  # of one pair, since trl's mean is over the tokens of a batch
    one = {key: value[first] for key, value in inputs.items() if not key.startswith("ref")}
    one |= {"ref_chosen_logps": reference[:1], "ref_rejected_logps": reference[4:5]}
    likelihood = dpo("sft", {"beta": 0.1}, each[first], one)

    good = [True, False, False, True, True, False, True, False]
    exchanged = each.sum(1).roll(1) + torch.linspace(0.5, 2.0, len(lengths))
    reference_exchanged = exchanged - torch.tensor([1.0, -0.5, 2.0, 0.25, 0.0, 1.5, -1.0, 0.75])
    settings = {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 0.75}
    batch = {key: inputs[key] for key in ("input_ids", "attention_mask", "completion_mask")}
    batch |= {"label": torch.tensor(good), "ref_logps": reference, "ref_KL_logps": reference_exchanged}
    value = KTOTrainer._compute_loss(trainer(**settings, kl=exchanged), model(each), batch, False)
    kto = {"settings": settings, "good": good, "moved": (exchanged - reference_exchanged).tolist(), "mean": float(value)}
    unmoved = trainer(**settings, kl=exchanged, loss_type="apo_zero_unpaired", calculate_KL=False)
    kto["apo_zero_unpaired"] = float(KTOTrainer._compute_loss(unmoved, model(each), batch, False))

    averages = [each[i].sum() / lengths[i] for i in range(8)]
    chosen, rejected = torch.stack(averages[:4]), torch.stack(averages[4:])
    odds = ORPOTrainer.odds_ratio_loss(trainer(beta=0.1), chosen, rejected)[0]
    plain = {"alpha": 0.0, "label_smoothing": 0.0}
    simpo = CPOTrainer.cpo_loss(trainer(beta=2.5, loss_type="simpo", simpo_gamma=1.375, **plain), chosen, rejected)[0]
    sums = each.sum(1)
    cpo = CPOTrainer.cpo_loss(trainer(beta=0.1, loss_type="sigmoid", **plain), sums[:4], sums[4:])[0]
    told = {"versions": {name: version(name) for name in ("trl", "torch", "transformers")}, "given": given, "pairs": found, "kto": kto}
    told["likelihood_of_first"] = likelihood
    told |= {"orpo": {"weight": 0.1, "each": (-odds).tolist()}, "simpo": simpo.tolist(), "cpo": cpo.tolist()}
    sys.stdout.write(json.dumps(told) + "\n")


def dpo(name: str, settings: dict[str, float], each: torch.Tensor, inputs: dict[str, Any]) -> float:
    made = trainer(beta=settings["beta"], label_smoothing=settings.get("label_smoothing", 0.0), loss_types=[name])
    made.args = SimpleNamespace(discopop_tau=settings.get("tau"))
    return float(DPOTrainer._compute_loss(made, model(each), dict(inputs), False))


def model(each: torch.Tensor) -> Any:
    """Its outputs are what is given; what is only logged is zero."""
    zeros = torch.zeros_like(each)
    outputs = SimpleNamespace(log_probs=each, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())

    class Given:
        training = True

        def __call__(self, **inputs: Any) -> Any:
            return outputs

    return Given()


def trainer(*, kl: torch.Tensor | None = None, **settings: Any) -> Any:
    """What `_compute_loss` reads of a trainer."""
    accelerator = SimpleNamespace(device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x)
    plain: dict[str, Any] = {"ld_alpha": None, "precompute_ref_logps": True, "f_divergence_type": "reverse_kl", "loss_weights": [1.0]}
    plain |= {"aux_loss_enabled": False, "use_weighting": False, "_metrics": {"train": defaultdict(list)}}
    plain |= {"_total_train_tokens": 0, "_tp_size": 1}
    plain |= {"calculate_KL": True, "loss_type": "kto", "_compute_kl_logps": lambda model, batch: kl}
    return SimpleNamespace(**{**plain, **settings}, accelerator=accelerator, model=SimpleNamespace(training=True))


if __name__ == "__main__":
    main()
