"""PPO learns what is rewarded, splits and resumes to the same weights, works with every method; and what it refuses."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mygpt.align.experience import gathered
from mygpt.align.kl import AdaptiveKL, FixedKL
from mygpt.align.policy import open_policy
from mygpt.align.ppo import PPOConfig, ppo, rate_of, token_losses
from mygpt.align.ppo_inputs import planned, texts_of, value_head_of
from mygpt.align.ppo_vitals import Seen
from mygpt.align.remote_rollouts import sampler_of
from mygpt.align.rewards import NamedReward
from mygpt.artifacts.dataset import Conversation
from mygpt.artifacts.model import Adapter, Model
from mygpt.core.errors import MygptError, Refused, UsageError
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer
from mygpt.lm.adapters.bottleneck import Bottleneck
from mygpt.lm.adapters.freeze import Freeze
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.ia3 import IA3
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.load import load_lm
from mygpt.training.batches import batch_of
from tests.align import sites
from tests.finetune import toys
from tests.finetune.conftest import Killed, killed_at
from tests.finetune.test_sft_methods import VIRTUAL, label
from tests.training.conftest import one_thread

__all__ = ["killed_at", "one_thread"]

FAST: dict[str, Any] = {
    "method": LoRA(rank=2),
    "precision": "float32",
    "learning_rate": 1e-2,
    "checkpoint_seconds": 0,
    "answers": 8,
    "max_answer_tokens": 6,
    "max_example_tokens": 200,
    "rollouts": 2,
    "epochs": 2,
}


def early_letters(prompt: Conversation, answer: Answer) -> float:
    """Share of the tokens whose id is below 120: about half at first."""
    return sum(token < 120 for token in answer.token_ids) / len(answer.token_ids)


REWARD = NamedReward("early letters", early_letters)


def tuned(run: Run, reward: Any = REWARD, ptx: Any = None, architecture: str = "llama", **changes: Any) -> Any:
    model = toys.base(toys.BaseConfig(architecture=architecture), run=run)
    dataset = sites.prompts(sites.PromptsConfig(), run=run)
    return ppo(PPOConfig(**{**FAST, **changes}), model=model, dataset=dataset, reward=reward, ptx=ptx, run=run)


def test_learns_what_is_rewarded(run: Run) -> None:
    """From half to four fifths of the tokens, and the row of vitals is whole."""
    made = tuned(run, rollouts=12, answers=16, epochs=4, learning_rate=3e-2, kl=FixedKL(coefficient=0.01))
    vitals = made.manifest.facts["vitals"]
    assert [row["rollout"] for row in vitals] == list(range(1, 13))
    first, last = (sum(row["reward"] for row in part) / 3 for part in (vitals[:3], vitals[-3:]))
    assert first < 0.6 and last > first + 0.1
    assert vitals[0]["kl"] == pytest.approx(0, abs=1e-3) and vitals[-1]["kl"] > 1
    assert all(0 <= row[name] <= 1 for row in vitals for name in ("clip_share", "finished_share", "duplicate_share"))
    assert all(row["entropy"] > 0 for row in vitals) and vitals[-1]["ratio_max"] > 1
    assert "Reward 0." in made.manifest.facts["sentences"][0]
    assert made.manifest.tools == {"reward": {"reward": "function", "name": "early letters"}}


def test_the_value_function_foresees_what_the_prompt_decides(run: Run) -> None:
    """A reward of 3 for answers to one of the four prompts."""
    reward = NamedReward("ticket", lambda prompt, answer: 3.0 * ("ticket" in prompt.question))
    settings: dict[str, Any] = {"value_weight": 1.0, "value_clip": None, "lam": 1.0}
    vitals = tuned(run, reward=reward, rollouts=6, answers=16, max_answer_tokens=3, epochs=6, **settings).manifest.facts["vitals"]
    assert vitals[0]["value_explained"] == pytest.approx(0.0, abs=1e-6) and max(row["value_explained"] for row in vitals[-3:]) > 0.5


METHODS = (LoRA(rank=2, weight_decomposed=True), Full(), Freeze(num_layers=1), IA3(), Bottleneck(size=4), *VIRTUAL)


@pytest.mark.parametrize("method", METHODS, ids=label)
def test_every_method_trains(method: Any, run: Run) -> None:
    made = tuned(run, method=method)
    assert isinstance(made, Model if method.name in ("full", "freeze") else Adapter)
    vitals = made.manifest.facts["vitals"]
    if method not in VIRTUAL:  # whose first tokens are something from the beginning
        assert vitals[0]["kl"] == pytest.approx(0, abs=1e-3), "the reference is not where the policy began"
    assert abs(vitals[1]["kl"] - vitals[0]["kl"]) > 1e-4, "nothing moved"
    assert vitals[0]["grad_norm"] > 0
    load_lm(made) if isinstance(made, Model) else load_lm(made.base, adapter=made)


def weights(made: Any) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(made.payload / "adapter_model.safetensors")


def test_any_split_into_micro_batches_gives_the_same_weights(run: Run) -> None:
    """Over one rollout: a second one would be sampled by weights that differ by rounding."""
    settings = {"rollouts": 1, "entropy_weight": 0.05, "kl_loss": 0.1, "epochs": 3, "learning_rate": 1e-3}
    one, many = (weights(tuned(run, micro_batch_tokens=tokens, **settings)) for tokens in (5000, 1))
    assert all(torch.allclose(one[name], many[name], atol=1e-5) for name in one)
    other = weights(tuned(run, minibatches=2, **settings))
    assert not all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)


@pytest.mark.parametrize("step", [5, 8])
def test_killed_in_an_epoch_and_resumed_is_uninterrupted(step: int, run: Run, killed_at: Callable[[int], Run]) -> None:
    settings: dict[str, Any] = {"rollouts": 3, "kl": AdaptiveKL(target=0.5, horizon=50), "scale_rewards": True, "minibatches": 2}
    whole = tuned(run, **settings)
    other = killed_at(step)
    with pytest.raises(Killed):
        tuned(other, **settings)
    kept = [p.name for p in (run.home / "checkpoints").glob("*/step-*")]
    assert kept == ["step-4"], "checkpoints stand between rollouts"
    again = tuned(killed_at(-1), **settings)
    assert again.manifest.content == whole.manifest.content and again.manifest.facts["vitals"] == whole.manifest.facts["vitals"]


def test_killed_in_a_rollout_and_resumed_is_uninterrupted(run: Run, killed_at: Callable[[int], Run]) -> None:
    whole = tuned(run, rollouts=3)
    calls: list[str] = []

    def kills(prompt: Conversation, answer: Answer) -> float:
        calls.append(answer.text)
        if len(calls) == 12:
            raise Killed
        return early_letters(prompt, answer)

    with pytest.raises(Killed):
        tuned(killed_at(-1), reward=NamedReward("early letters", kills), rollouts=3)
    assert [p.name for p in (run.home / "checkpoints").glob("*/step-*")] == ["step-2"]
    again = tuned(killed_at(-1), rollouts=3)
    assert again.manifest.content == whole.manifest.content and again.manifest.facts["vitals"] == whole.manifest.facts["vitals"]


def test_the_price_of_kl_follows_it(run: Run) -> None:
    """Each rollout's coefficient is made of the one before, by that one's KL."""
    control = AdaptiveKL(coefficient=0.1, target=0.2, horizon=40)
    vitals = tuned(run, rollouts=4, kl=control).manifest.facts["vitals"]
    for before, after in itertools.pairwise(vitals):
        error = min(max(before["kl"] / 0.2 - 1, -0.2), 0.2)
        assert after["kl_coefficient"] == pytest.approx(before["kl_coefficient"] * (1 + error * 8 / 40))
    assert vitals[0]["kl_coefficient"] == 0.1 != vitals[1]["kl_coefficient"]


@pytest.mark.parametrize("entropy_weight", [0.3, -0.3])
def test_losses_by_hand(entropy_weight: float, run: Run) -> None:
    """A policy that has moved since its rollout, against the formulas on transformers' own forward pass."""
    weights = {"entropy_weight": entropy_weight, "kl_loss": 0.2, "value_weight": 0.7}
    config = PPOConfig(**{**FAST, **weights, "temperature": 0.8, "dual_clip": 3.0})
    policy = open_policy(toys.base(toys.BaseConfig(), run=run), config, run=run)
    head = value_head_of(policy, None)
    prompts = sites.prompts(sites.PromptsConfig(), run=run).split("train")
    memory: dict[str, Any] = {"coefficient": 0.05, "rewards": [0, 0.0, 0.0]}
    sample = sampler_of(policy, None, config, run=run)
    experience = gathered(policy, head, sample, prompts, REWARD, number=0, memory=memory, config=config, run=run)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in [*(p for p in policy.module.parameters() if p.requires_grad), *head.parameters()]:
            parameter.add_(0.2 * torch.randn_like(parameter))
    rows = [5, 2, 7]
    batch = batch_of([experience.made[i].example for i in rows], padding_id=0, device=torch.device("cpu"))
    seen = Seen()
    found_N = token_losses(policy.module, head, batch, experience, rows, seen=seen, config=config)
    expected, clipped, kls, ratios = [], 0, [], []
    for i in rows:
        one = experience.made[i]
        with torch.no_grad():
            out = policy.module(input_ids=torch.tensor([one.example.token_ids]), output_hidden_states=True)
        start = len(one.example.token_ids) - one.num_tokens
        for t in range(one.num_tokens):
            logp_V = (out.logits[0, start + t - 1] / 0.8).log_softmax(-1)
            now, old = float(logp_V[one.answer.token_ids[t]]), float(experience.logprobs[i][t])
            advantage, target = float(experience.advantages[i][t]), float(experience.returns[i][t])
            value, old_value = float(head(out.hidden_states[-1][0, start + t - 1]).detach()), float(experience.values[i][t])
            ratio = float(torch.tensor(now - old).exp())
            kept = min(max(ratio, 0.8), 1.2)
            surrogate = max(-advantage * ratio, -advantage * kept)
            surrogate = min(surrogate, -3 * advantage) if advantage < 0 else surrogate
            near = min(max(value, old_value - 0.2), old_value + 0.2)
            of_value = 0.5 * max((value - target) ** 2, (near - target) ** 2)
            entropy = float(-(logp_V.exp() * logp_V).sum())
            off = 0.5 * (now - float(experience.reference_logprobs[i][t])) ** 2
            expected.append(surrogate + 0.7 * of_value - entropy_weight * entropy + 0.2 * off)
            clipped += surrogate != -advantage * ratio
            kls.append(0.5 * (now - old) ** 2)
            ratios.append(ratio)
    assert found_N.tolist() == pytest.approx(expected, abs=1e-3)
    seen.updated(1.0)
    assert seen.num_clipped == clipped > 0 and seen.num_tokens == len(expected)
    assert seen.approx_kl == pytest.approx(sum(kls) / len(kls), rel=1e-3) and seen.ratio_max == pytest.approx(max(ratios), rel=1e-3)


def test_updates_are_left_out_where_the_policy_moved_too_far(run: Run) -> None:
    """The first update never moves it before it is measured; the second finds it away."""
    free, held = (tuned(run, epochs=4, learning_rate=5e-2, **more) for more in ({}, {"stop_approx_kl": 1e-4}))
    assert [step for step, _ in free.manifest.facts["curve"]] == list(range(1, 9))
    assert [step for step, _ in held.manifest.facts["curve"]] == [1, 2, 5, 6]
    loose = tuned(run, epochs=4, learning_rate=5e-2, stop_approx_kl=1e6)
    assert loose.manifest.content == free.manifest.content


def test_other_texts_are_learnt_beside(run: Run) -> None:
    """With a reward that is always the same, and texts: their loss falls as it does not without them."""
    texts = toys.pairs(toys.PairsConfig(), run=run)
    same = NamedReward("same", lambda prompt, answer: 0.0)
    settings: dict[str, Any] = {"rollouts": 4, "learning_rate": 2e-2, "value_weight": 0.0}
    with_texts, without = (tuned(run, reward=same, ptx=ptx, **settings) for ptx in (texts, None))
    from mygpt.infer.torch_engine import TorchEngine

    found = []
    for made in (with_texts, without):
        engine = TorchEngine(made.base, loaded=load_lm(made.base, adapter=made, dtype=torch.float32))
        found.append(sum(s.logprob for s in engine.score(["Where are the logs?"], ["On the server."])))
    assert found[0] > found[1] + 5


def test_plan(run: Run) -> None:
    """Every answer once an epoch, in minibatches that are drawn anew; the next texts belong to each update."""
    policy = open_policy(toys.base(toys.BaseConfig(), run=run), PPOConfig(**FAST), run=run)
    config = PPOConfig(**{**FAST, "minibatches": 3, "ptx_rows": 4})
    texts = texts_of(toys.pairs(toys.PairsConfig(), run=run), policy, config)
    work = planned(texts, config, run=run)
    steps = [micro for step in work.plan for micro in step]
    assert len(steps) == 2 * 2 * 3
    for number in range(2):
        for epoch in range(2):
            own = steps[number * 6 + epoch * 3 : number * 6 + epoch * 3 + 3]
            assert sorted(i for step in own for i in step if i < 16) == list(range(number * 8, number * 8 + 8))
    assert {len([i for i in step if i >= 16]) for step in steps} == {4}
    counted = [sum(step.count(16 + i) for step in steps) for i in range(len(texts))]
    assert sum(counted) == 48 and max(counted) - min(counted) <= 1
    assert [i for i in steps[0] if i < 16] != [i for i in steps[3] if i < 16]


def test_rates_fall_linearly_by_rollout() -> None:
    config = PPOConfig(rollouts=4, learning_rate=1.0)
    assert [rate_of(n, config) for n in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert [rate_of(n, PPOConfig(rollouts=4, learning_rate=1.0, final_share=1.0)) for n in range(4)] == [1.0] * 4
    assert rate_of(0, PPOConfig(rollouts=4, learning_rate=1.0, warmup_share=0.5)) == 0.5


def test_the_usual_rate_is_a_fifth_of_the_methods(run: Run) -> None:
    said: list[str] = []
    run.listeners.append(lambda event: said.append(str(event)))
    tuned(run, learning_rate=None, rollouts=1, epochs=1)
    assert any("Learning rate 0.0001, a fifth" in one for one in said)


class WithScoreLayer(NamedReward):
    @property
    def score_layer(self) -> tuple[torch.Tensor, float]:
        return torch.arange(32.0), 2.0


def test_the_value_head_may_begin_as_the_rewards(run: Run) -> None:
    policy = open_policy(toys.base(toys.BaseConfig(), run=run), PPOConfig(**FAST), run=run)
    head = value_head_of(policy, WithScoreLayer("scores", early_letters))
    assert head.weight.tolist() == [list(range(32))] and head.bias.tolist() == [2.0]
    assert not value_head_of(policy, None).weight.any()
    with pytest.raises(Refused, match="has no score layer"):
        tuned(run, value_from_reward=True)


def test_bad_input(run: Run) -> None:
    with pytest.raises(MygptError, match="The reward of an answer is nan"):
        tuned(run, reward=NamedReward("nan", lambda prompt, answer: float("nan")))
    with pytest.raises(MygptError, match="The reward failed: ZeroDivisionError"):
        tuned(run, reward=NamedReward("fails", lambda prompt, answer: 1 / 0))
    with pytest.raises(Refused, match="4 of 4 prompts have more than 34 tokens"):
        tuned(run, max_example_tokens=40)
    with pytest.raises(UsageError, match="8 answers cannot be 3 to each prompt"):
        tuned(run, samples=3)
    empty = sites.prompts(sites.PromptsConfig(questions=()), run=run)
    with pytest.raises(Refused, match="has no prompts"):
        ppo(PPOConfig(**FAST), model=toys.base(toys.BaseConfig(), run=run), dataset=empty, reward=REWARD, run=run)
    assert not list((run.home / "artifacts").glob("adapter/*"))
