"""What a rollout is worth, token by token, against the plain sums over transformers' own forward pass; rewards as they are scored."""

from typing import Any

import pytest
import torch

from mygpt.align.experience import gathered, passed, prompts_of_rollout, scored
from mygpt.align.policy import open_policy
from mygpt.align.ppo_config import PPOConfig
from mygpt.align.ppo_inputs import value_head_of
from mygpt.align.remote_rollouts import sampler_of
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer
from mygpt.lm.adapters.lora import LoRA
from mygpt.training.batches import batch_of
from tests.finetune import toys

PROMPTS = [Conversation((Message("user", text),), text) for text in ("Who?", "When does it open?", "Why, and for how long?")]
FIXED = {"method": LoRA(rank=2), "precision": "float32", "answers": 6, "samples": 2, "max_answer_tokens": 40, "temperature": 3.0}
CONFIG = PPOConfig(**FIXED, gamma=0.9, lam=0.8)


def letters(prompt: Conversation, answer: Answer) -> float:
    return len(answer.text) / 3


def moved_policy(run: Run, config: PPOConfig = CONFIG) -> tuple[Any, torch.nn.Linear]:
    """Away from its reference, and a value head that is not zero."""
    policy = open_policy(toys.base(toys.BaseConfig(), run=run), config, run=run)
    head = value_head_of(policy, None)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in policy.module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
        head.weight.normal_(0, 0.1)
        head.bias.fill_(0.3)
    return policy, head


def engine(policy: Any, config: PPOConfig, run: Run) -> Any:
    return sampler_of(policy, None, config, run=run)


@pytest.mark.parametrize(("estimator", "micro_batch_tokens"), [("k1", 1), ("k3", 2048)])
def test_against_the_plain_sums(estimator: str, micro_batch_tokens: int, run: Run) -> None:
    config = CONFIG.model_copy(update={"kl_estimator": estimator, "micro_batch_tokens": micro_batch_tokens, "missing_stop_penalty": 0.5})
    policy, head = moved_policy(run, config)
    memory: dict[str, Any] = {"coefficient": 0.3, "rewards": [0, 0.0, 0.0]}
    found = gathered(policy, head, engine(policy, config, run), PROMPTS, letters, number=2, memory=memory, config=config, run=run)
    assert list(found.made) == list(range(12, 18)), "numbered through the whole training"
    kls, entropies, raw = [], [], {}
    with torch.no_grad():
        for i, one in found.made.items():
            ids_1T = torch.tensor([one.example.token_ids])
            start = ids_1T.shape[1] - one.num_tokens
            own = policy.module(input_ids=ids_1T, output_hidden_states=True)
            own_LV = (own.logits[0, start - 1 : -1] / 3.0).log_softmax(-1)
            with policy.module.disable_adapter():
                reference_LV = (policy.module(input_ids=ids_1T).logits[0, start - 1 : -1] / 3.0).log_softmax(-1)
            sampled_L1 = ids_1T[0, start:, None]
            logprobs_L, reference_L = own_LV.gather(1, sampled_L1)[:, 0], reference_LV.gather(1, sampled_L1)[:, 0]
            values_L = head(own.hidden_states[-1][0, start - 1 : -1])[:, 0]
            torch.testing.assert_close(found.logprobs[i], logprobs_L, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(found.reference_logprobs[i], reference_L, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(found.values[i], values_L, atol=1e-4, rtol=1e-4)
            delta_L = logprobs_L - reference_L
            earned_L = -0.3 * (delta_L if estimator == "k1" else (-delta_L).exp() - 1 + delta_L)
            earned_L[-1] += letters(one.prompt, one.answer) - 0.5 * (not one.is_finished)
            advantage, following, values = 0.0, 0.0, values_L.tolist()
            raw[i] = [0.0] * len(values)
            for t in reversed(range(len(values))):
                advantage = float(earned_L[t]) + 0.9 * following - values[t] + 0.9 * 0.8 * advantage
                following, raw[i][t] = values[t], advantage
            torch.testing.assert_close(found.returns[i], torch.tensor(raw[i]) + values_L, atol=1e-3, rtol=1e-4)
            kls.append(float(delta_L.sum()))
            entropies += (-(own_LV.exp() * own_LV).sum(-1)).tolist()
    every = torch.tensor([value for row in raw.values() for value in row])
    for i, row in raw.items():
        torch.testing.assert_close(found.advantages[i], (torch.tensor(row) - every.mean()) / every.std(), atol=1e-3, rtol=1e-3)
    assert found.kl == pytest.approx(sum(kls) / 6, abs=1e-3) and found.entropy == pytest.approx(sum(entropies) / len(entropies), abs=1e-4)
    assert len({one.num_tokens for one in found.made.values()}) > 1, "answers of one length prove nothing about what stands behind them"


def test_whitened_rewards_keep_their_mean(run: Run) -> None:
    """gamma = 0: what a token earned is all that is learnt of it. Whitened, its standard deviation is 1, and its mean as before."""
    policy, head = moved_policy(run)
    returns = []
    for whiten in (False, True):
        config = CONFIG.model_copy(update={"gamma": 0.0, "lam": 0.0, "whiten_rewards": whiten})
        memory: dict[str, Any] = {"coefficient": 0.3, "rewards": [0, 0.0, 0.0]}
        found = gathered(policy, head, engine(policy, config, run), PROMPTS, letters, number=0, memory=memory, config=config, run=run)
        returns.append(torch.cat(list(found.returns.values())))
    plain, white = returns
    assert white.std().item() == pytest.approx(1.0, abs=1e-4) and white.mean().item() == pytest.approx(plain.mean().item(), abs=1e-4)
    assert abs(plain.std().item() - 1.0) > 0.1


def test_passed_has_gradients_for_policy_and_head(run: Run) -> None:
    policy, head = moved_policy(run)
    memory: dict[str, Any] = {"coefficient": 0.3, "rewards": [0, 0.0, 0.0]}
    made = gathered(policy, head, engine(policy, CONFIG, run), PROMPTS, letters, number=0, memory=memory, config=CONFIG, run=run).made
    batch = batch_of([one.example for one in made.values()], padding_id=0, device=torch.device("cpu"))
    now = passed(policy.module, head, batch, temperature=3.0, with_entropies=False)
    assert now.entropies_N is None and len(now.logprobs_N) == len(now.values_N) == sum(one.num_tokens for one in made.values())
    trained = [p for p in policy.module.parameters() if p.requires_grad]
    for part, others in ((now.logprobs_N, []), (now.values_N, list(head.parameters()))):
        gradients = torch.autograd.grad(part.sum(), [*trained, *others], retain_graph=True, allow_unused=True)
        assert all(g is not None and g.abs().sum() > 0 for g in gradients)


def test_scored() -> None:
    memory: dict[str, Any] = {"rewards": [0, 0.0, 0.0]}
    plain = scored([1.0, -3.0], [True, False], memory, PPOConfig())
    assert plain == [1.0, -3.0] and memory["rewards"] == [0, 0.0, 0.0]
    assert scored([1.0, -3.0], [True, False], memory, PPOConfig(missing_stop_penalty=0.5)) == [1.0, -3.5]
    assert scored([1.0, 9.0], [True, False], memory, PPOConfig(missing_stop_reward=-1.0)) == [1.0, -1.0]
    assert scored([20.0, -3.0], [True, True], memory, PPOConfig(clip_rewards=10.0)) == [10.0, -3.0]


def test_a_length_penalty_is_off_what_the_last_token_earns(run: Run) -> None:
    """gamma = lam = 0: the return of an answer's last token is what it earned."""
    policy, head = moved_policy(run)
    found = []
    for penalty in (0.0, 0.25):
        config = CONFIG.model_copy(update={"gamma": 0.0, "lam": 0.0, "length_penalty": penalty})
        memory: dict[str, Any] = {"coefficient": 0.3, "rewards": [0, 0.0, 0.0]}
        found.append(gathered(policy, head, engine(policy, config, run), PROMPTS, letters, number=0, memory=memory, config=config, run=run))
    plain, less = found
    assert plain.rewards == less.rewards  # as they were given
    for i, one in plain.made.items():
        off_L = (plain.returns[i] - less.returns[i]).tolist()
        assert off_L == pytest.approx([0.0] * (one.num_tokens - 1) + [0.25 * one.num_tokens], abs=1e-4)


def test_scale_is_of_all_rewards_so_far() -> None:
    """1, 3 have the standard deviation sqrt 2; with 5, 7 it is sqrt(20 / 3)."""
    memory: dict[str, Any] = {"rewards": [0, 0.0, 0.0]}
    config = PPOConfig(scale_rewards=True, clip_rewards=2.5)
    assert scored([1.0, 3.0], [True, True], memory, config) == pytest.approx([1 / 2**0.5, 3 / 2**0.5])
    assert scored([5.0, 7.0], [True, True], memory, config) == pytest.approx([5 / (20 / 3) ** 0.5, 2.5])
    assert memory["rewards"] == [4, 4.0, 20.0]
    assert scored([2.0], [True], {"rewards": [0, 0.0, 0.0]}, config) == [2.0]


def test_every_prompt_comes_once_before_any_comes_again(run: Run) -> None:
    config = PPOConfig(answers=4, samples=2)
    asked = [p.id for number in range(6) for p in prompts_of_rollout(PROMPTS, number, config, run=run)]
    turns = [asked[i : i + 3] for i in range(0, 12, 3)]
    assert all(sorted(turn) == sorted(p.id for p in PROMPTS) for turn in turns) and len({tuple(turn) for turn in turns}) > 1
