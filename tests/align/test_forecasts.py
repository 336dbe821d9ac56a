"""What alignment will need, foreseen from config.json and the rows: of pairs, single answers, rewards, and of rollouts at most."""

import importlib
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

from mygpt.align import dpo, grpo, kto, orpo, pair_tuning, policy, ppo, reinforce, reward_model, rloo, rollout_memory, simpo
from mygpt.align.policy import policy_blueprint
from mygpt.align.rollout_memory import Amount, sampling_bytes, slot_bytes
from mygpt.cli.main import main
from mygpt.core.errors import Refused, UsageError
from mygpt.core.run import Run
from mygpt.infer import batch
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.lora import LoRA
from mygpt.training import fit, tuning
from tests.align import pair_sites, sites
from tests.align.rewarded import TINY, made_by
from tests.finetune import toys
from tests.training.kept import kept_bytes

WORDS = 259  # bytes and three special tokens
LAYER = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48  # of toys.base, its norms aside
WEIGHTS = 2 * (LAYER + 2 * 32) + 32 + WORDS * 32
ADAPTER = 2 * 2 * (2 * 64 + 2 * 48 + 3 * 80)  # rank 2: each matrix's two sides

PAIRS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "dpo": (dpo.dpo, dpo.DPOConfig, {"step_pairs": 2}),
    "orpo": (orpo.orpo, orpo.ORPOConfig, {"step_pairs": 2}),
    "simpo": (simpo.simpo, simpo.SimPOConfig, {"step_pairs": 2}),
    "kto": (kto.kto, kto.KTOConfig, {"step_answers": 4}),
    "reward_model": (reward_model.reward_model, reward_model.RewardModelConfig, {"step_tokens": 128}),
}
LOSSES: dict[str, tuple[Any, str]] = dict.fromkeys(("dpo", "orpo", "simpo"), (pair_tuning, "answer_logprobs"))
LOSSES |= {"kto": (kto, "answer_logprobs"), "reward_model": (reward_model, "row_rewards")}
GROUPS: dict[str, tuple[Any, Any]] = {
    "grpo": (grpo.grpo, grpo.GRPOConfig),
    "rloo": (rloo.rloo, rloo.RLOOConfig),
    "reinforce": (reinforce.reinforce, reinforce.ReinforceConfig),
}
FORECASTS: dict[str, Callable[..., dict[str, Any]]] = {
    "dpo": dpo.dpo_forecast,
    "orpo": orpo.orpo_forecast,
    "simpo": simpo.simpo_forecast,
    "kto": kto.kto_forecast,
    "reward_model": reward_model.reward_model_forecast,
    "grpo": grpo.grpo_forecast,
    "rloo": rloo.rloo_forecast,
    "reinforce": reinforce.reinforce_forecast,
    "ppo": ppo.ppo_forecast,
}


def weighed(monkeypatch: pytest.MonkeyPatch, place: Any, name: str) -> list[int]:
    """What autograd keeps at each call of this function with gradients, from now on."""
    real, found = getattr(place, name), list[int]()

    def weigh(module: Any, *rest: Any, **more: Any) -> Any:
        if not torch.is_grad_enabled() or isinstance(next(module.parameters()), FakeTensor):
            return real(module, *rest, **more)
        made: list[Any] = []
        found.append(kept_bytes(module, lambda: made.append(real(module, *rest, **more))))
        return made[0]

    monkeypatch.setattr(place, name, weigh)
    return found


def compared(name: str, run: Run, **changes: Any) -> Any:
    recipe, config, settings = PAIRS[name]
    chosen = config(**{**pair_sites.FAST, "method": LoRA(rank=2), **settings, **changes})
    dataset = pair_sites.compared(pair_sites.ComparedConfig(), run=run)
    return recipe(chosen, model=toys.base(toys.BaseConfig(), run=run), dataset=dataset, run=run)


# -- pairs -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAIRS)
def test_activations_are_those_that_the_real_loss_keeps(name: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every micro-batch of a real training is weighed. Beside what was foreseen, a loss keeps only what it makes of its logits. Rows of one
    answer each, as long as the longest, stand for a packed row (of rewards), which keeps less."""
    found = weighed(monkeypatch, *LOSSES[name])
    facts = compared(name, run).manifest.facts
    foreseen, ledger = facts["forecast"], facts["ledger"]
    assert len(found) >= foreseen["steps"] > 1
    least = 0.7 if name == "reward_model" else 0.95
    assert least * foreseen["activation_bytes"] <= max(found) <= 1.05 * foreseen["activation_bytes"] + foreseen["logits_bytes"]
    assert foreseen["trained_weights"] == facts["trainable"] == ADAPTER + 32 * (name == "reward_model")
    assert (foreseen["flops"], foreseen["steps"], foreseen["tokens"]) == (ledger["flops"], ledger["steps"], ledger["real_tokens"])


@pytest.mark.parametrize("name", ["dpo", "kto", "orpo", "simpo"])
def test_a_reference_of_its_own_counts(name: str, run: Run) -> None:
    """Where all weights move, beside an adapter never; odds and margins need none."""
    every, beside = (compared(name, run, method=method).manifest.facts["forecast"] for method in (Full(), LoRA(rank=2)))
    assert (every["weights_bytes"], every["gradient_bytes"], every["optimizer_bytes"]) == (4 * WEIGHTS, 4 * WEIGHTS, 12 * WEIGHTS)
    assert every["copy_bytes"] == (4 * WEIGHTS if name in ("dpo", "kto") else 0) and beside["copy_bytes"] == 0
    assert beside["weights_bytes"] == 4 * (WEIGHTS + ADAPTER) and beside["optimizer_bytes"] == 12 * ADAPTER
    held = 4 * WEIGHTS + every["copy_bytes"] + 16 * WEIGHTS
    assert every["bytes"] == every["process_bytes"] + held + sum(every[f"{part}_bytes"] for part in ("activation", "logits", "holes"))


@pytest.mark.parametrize("name", PAIRS)
def test_what_does_not_fit_is_refused_before_weights_are_loaded(name: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between what half the micro-batch needs and what all of it needs."""
    monkeypatch.setattr(fit, "resident_bytes", lambda device: 0)
    _, config, settings = PAIRS[name]
    changes = {"step_answers": 8} if name == "kto" else {"step_tokens": 512} if name == "reward_model" else {"step_pairs": 4}
    model, dataset = toys.base(toys.BaseConfig(), run=run), pair_sites.compared(pair_sites.ComparedConfig(), run=run)

    def needs(tokens: int) -> int:
        chosen = config(**{**pair_sites.FAST, **settings, **changes, "method": LoRA(rank=2), "micro_batch_tokens": tokens})
        return int(FORECASTS[name](chosen, model=model, dataset=dataset, home=run.home)["bytes"])

    all_of_it, half = needs(512), needs(256)
    assert all_of_it > 1.2 * half
    monkeypatch.setattr(fit, "memory_limit_bytes", lambda device: (all_of_it + half) // 2)
    monkeypatch.setattr(policy, "load_lm", None)
    monkeypatch.setattr(tuning, "open_head", None)
    with pytest.raises(Refused, match=r"Training needs about .* and this machine has ") as refused:
        compared(name, run, **changes, micro_batch_tokens=512)
    assert refused.value.fix.startswith("Try `--set micro_batch_tokens=256` (")


# -- rollouts ----------------------------------------------------------------------------------------------------------------


def test_sampling_by_hand(run: Run) -> None:
    """Two layers, keys and values of 2 heads of 8, float32: 256 bytes a token. Two prompts of 40 and 20 tokens, three answers of 6 each:
    the longer prompt is kept once, the shorter one thrice."""
    config = tuning.TuningConfig(method=LoRA(rank=2), precision="float32")
    module = policy_blueprint(toys.base(toys.BaseConfig(), run=run), config).module
    amount = Amount(prompts=2, samples=3, answer_tokens=6, rollouts=1, updates=1, parts=1, in_trees=True)
    assert slot_bytes(module) == 2 * 2 * 2 * 8 * 4
    slots = (40 + 3 * 6) + 3 * (20 + 6)
    assert sampling_bytes(module, [40, 20], amount) == 1.5 * slots * 256 + 6 * WORDS * 12 + 4 * 2 * LAYER


@pytest.mark.parametrize("name", GROUPS)
def test_answers_need_no_more_than_was_foreseen(name: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and values that the engine holds at its steps, and what is kept for each update, against what was said before."""
    recipe, config = GROUPS[name]
    found, cached = weighed(monkeypatch, importlib.import_module(recipe.__module__), "answer_logprobs"), list[int]()
    step = batch.Batch.step

    def watched(self: Any) -> None:
        step(self)
        tensors = [one for lane in self._lanes for part in lane.cache.buffers for one in part.values()]
        cached.append(sum(one.numel() * one.element_size() for one in tensors))

    monkeypatch.setattr(batch.Batch, "step", watched)
    facts = made_by(recipe, config(**TINY), run).manifest.facts
    foreseen = facts["forecast"]
    logits, copy = 6 * WORDS * 12, 4 * 2 * LAYER
    assert 0.5 * (foreseen["sampling_bytes"] - logits - copy) < max(cached) <= foreseen["sampling_bytes"] - logits - copy
    assert 0.6 * foreseen["activation_bytes"] < max(found) <= foreseen["activation_bytes"] + foreseen["logits_bytes"]
    assert foreseen["steps"] == len(facts["curve"]) and foreseen["trained_weights"] == ADAPTER and foreseen["seconds"] is None
    assert facts["ledger"]["flops"] < foreseen["flops"]


def test_an_answer_a_row_where_there_is_a_critic(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = weighed(monkeypatch, ppo, "passed")
    settings = {**TINY, "answers": 6, "rollouts": 2, "epochs": 1, "minibatches": 2}
    del settings["prompts_per_rollout"]
    facts = made_by(ppo.ppo, ppo.PPOConfig(**settings), run).manifest.facts
    foreseen = facts["forecast"]
    assert 0.8 * foreseen["activation_bytes"] < max(found) <= 1.05 * foreseen["activation_bytes"] + foreseen["logits_bytes"]
    assert foreseen["steps"] == 4 and foreseen["sampling_bytes"] > 4 * 2 * LAYER


def test_settings_that_no_rollout_can_follow_are_refused_all_the_same(run: Run) -> None:
    with pytest.raises(UsageError, match="2 answers cannot be 4 to each prompt"):
        made_by(ppo.ppo, ppo.PPOConfig(method=LoRA(rank=2), answers=2, samples=4), run)


def test_a_rollout_that_does_not_fit_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sampling needs the most, fewer prompts at once are the way out."""
    monkeypatch.setattr(fit, "resident_bytes", lambda device: 0)
    model, dataset = toys.base(toys.BaseConfig(), run=run), sites.prompts(sites.PromptsConfig(), run=run)
    settings = {**TINY, "prompts_per_rollout": 4, "samples": 8, "max_answer_tokens": 40, "micro_batch_tokens": 64}
    monkeypatch.setattr(rollout_memory, "_ROOM", 200.0)  # as of a model with keys and values a hundred times as wide
    configs = [grpo.GRPOConfig(**{**settings, "prompts_per_rollout": n}) for n in (4, 2)]
    four, two = (grpo.grpo_forecast(config, model=model, dataset=dataset, home=run.home)["bytes"] for config in configs)
    assert four > 1.5 * two
    monkeypatch.setattr(fit, "memory_limit_bytes", lambda device: two)
    monkeypatch.setattr(policy, "load_lm", None)
    with pytest.raises(Refused, match="a time that the answers decide") as refused:
        made_by(grpo.grpo, grpo.GRPOConfig(**settings), run)
    assert refused.value.fix.startswith("Try `--set prompts_per_rollout=2` (")


# -- the command line --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORECASTS)
def test_dry_run_foresees_without_weights(name: str, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = name in (*GROUPS, "ppo")
    dataset = sites.prompts(sites.PromptsConfig(), run=run) if asked else pair_sites.compared(pair_sites.ComparedConfig(), run=run)
    model = toys.base(toys.BaseConfig(), run=run)
    monkeypatch.setattr(policy, "load_lm", None)
    monkeypatch.setattr(tuning, "open_head", None)
    named = ["--model", model.id, "--dataset", dataset.id, "--home", str(run.home)]
    length = ["--set", "max_answer_tokens=8"] if asked else []
    reward = ["--reward", "numeric"] if name == "ppo" else []
    with pytest.raises(SystemExit) as ended:
        main(["align", name, *named, *reward, "--dry-run", "--set", "precision=float32", *length])
    assert ended.value.code == 0
    foreseen = json.loads(capsys.readouterr().out)["forecast"]
    assert foreseen["weights_bytes"] > 4 * foreseen["trained_weights"] > 0 and foreseen["examples"] >= 4
    assert foreseen["needs"].startswith("about ") and foreseen["needs"].endswith("decide") == asked
