"""A language model of a few hundred numbers, taught by PPO in earnest: what goes wrong by wrong settings goes wrong here.

Two prompts, twelve tokens (0 ends an answer), the next token's logits from prompt and last token: small enough for thirty rollouts in a
fraction of a second. The loss is PPO's (clipped ratio, value head by prompt, last token and place, KL in the reward, entropy bonus),
written out anew; through the recipes themselves faults are planted in `test_planted_faults`.

Dims  N answers   T tokens of an answer   V vocabulary
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from mygpt.align.vitals import Vitals, flat_share, reward_per_token

PROMPTS, VOCABULARY, STOP, LONGEST = 2, 12, 0, 12
GOOD = (1, 2, 3)  # tokens that a good answer has
BAIT, RARE = 11, 10  # one that only the reward that is trained on likes, and one that the reference hardly ever writes
RewardOf = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (tokens_NT, mask_NT) -> (N,)


@dataclass(frozen=True)
class Settings:
    learning_rate: float = 0.03
    value_rate: float = 0.1
    kl_coefficient: float = 0.05
    entropy_coefficient: float = 0.005
    clip: float = 0.2
    epochs: int = 2
    samples: int = 96  # of each prompt
    temperature: float = 1.0  # sampled with, and the reference scored
    scored_at: float = 1.0  # the policy
    stale: bool = False  # an engine that never gets the new weights
    rollouts: int = 40


def quality(tokens_NT: torch.Tensor, mask_NT: torch.Tensor) -> torch.Tensor:
    """The share of good tokens: what a longer answer is not better by."""
    good_NT = torch.isin(tokens_NT, torch.tensor(GOOD)) & mask_NT
    return good_NT.sum(1) / mask_NT.sum(1).clamp(min=1)


def baited(tokens_NT: torch.Tensor, mask_NT: torch.Tensor) -> torch.Tensor:
    """A proxy of `quality` that pays for the bait too, and more."""
    return quality(tokens_NT, mask_NT) + 3.0 * ((tokens_NT == BAIT) & mask_NT).sum(1) / mask_NT.sum(1).clamp(min=1)


def rarities(tokens_NT: torch.Tensor, mask_NT: torch.Tensor) -> torch.Tensor:
    """The more of what the reference hardly ever writes, the better, and the answer may be long."""
    return 0.2 * ((tokens_NT == RARE) & mask_NT).sum(1)


def longer(tokens_NT: torch.Tensor, mask_NT: torch.Tensor) -> torch.Tensor:
    return 0.3 * quality(tokens_NT, mask_NT) + 0.1 * mask_NT.sum(1)


def nothing(tokens_NT: torch.Tensor, mask_NT: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(tokens_NT))


def noise_of(seed: int, scale: float) -> RewardOf:
    """Chance, whatever the answer."""
    draw = torch.Generator().manual_seed(seed)
    return lambda tokens_NT, mask_NT: scale * torch.randn(len(tokens_NT), generator=draw)


class TinyPolicy:
    def __init__(self, seed: int):
        draw = torch.Generator().manual_seed(seed)
        logits = torch.randn(PROMPTS, VOCABULARY, VOCABULARY, generator=draw)
        logits[..., STOP] += 1.5  # about one token in four
        logits[:, STOP, STOP] = -9.0  # the last token "stop" stands for "nothing yet": an answer has a token
        logits[..., BAIT], logits[..., RARE] = -0.5, -1.5
        self.reference = logits
        self.logits = torch.nn.Parameter(logits.clone())
        self.values = torch.nn.Parameter(torch.randn(PROMPTS, VOCABULARY, LONGEST, generator=draw) * 0.3)
        self.draw = draw

    def sample(self, prompt_N: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens, those before them, and which are of the answer (the stop token too)."""
        last_N, alive_N = torch.zeros_like(prompt_N), torch.ones_like(prompt_N, dtype=torch.bool)
        tokens, before, mask = [], [], []
        reached = logits.detach().softmax(-1).cumsum(-1)
        for _ in range(LONGEST):
            drawn_N = torch.rand(len(prompt_N), 1, generator=self.draw)
            token_N = (reached[prompt_N, last_N] < drawn_N).sum(-1).clamp(max=VOCABULARY - 1)
            tokens.append(token_N), before.append(last_N), mask.append(alive_N)
            alive_N = alive_N & (token_N != STOP)
            last_N = token_N
        return torch.stack(tokens, 1), torch.stack(before, 1), torch.stack(mask, 1)


def train(settings: Settings, *, seed: int, reward: RewardOf = quality, held_out: RewardOf | None = quality) -> list[Vitals]:
    policy = TinyPolicy(seed)
    optimizer = torch.optim.Adam(
        [{"params": [policy.logits], "lr": settings.learning_rate}, {"params": [policy.values], "lr": settings.value_rate}], eps=1e-5
    )
    prompt_N = torch.arange(PROMPTS).repeat_interleave(settings.samples)
    place_T = torch.arange(LONGEST)
    rows = []
    for rollout in range(1, settings.rollouts + 1):
        sampled_from = policy.reference if settings.stale else policy.logits
        tokens_NT, before_NT, mask_NT = policy.sample(prompt_N, sampled_from / settings.temperature)
        score_N = reward(tokens_NT, mask_NT)
        at, chosen = (prompt_N[:, None], before_NT), (prompt_N[:, None], before_NT, tokens_NT)
        with torch.no_grad():
            old_NT = (policy.logits / settings.scored_at).log_softmax(-1)[chosen]
            reference_NT = (policy.reference / settings.temperature).log_softmax(-1)[chosen]
            value_NT = policy.values[(*at, place_T)]
            kl_NT = (old_NT - reference_NT) * mask_NT
            paid_NT = -settings.kl_coefficient * kl_NT
            paid_NT[torch.arange(len(prompt_N)), mask_NT.sum(1) - 1] += score_N
            return_NT = paid_NT.flip(1).cumsum(1).flip(1)  # gamma and lambda 1
            advantage_NT = return_NT - value_NT
            known = advantage_NT[mask_NT]
            advantage_NT = (advantage_NT - known.mean()) / (known.std() + 1e-8)
            entropies_NT = _entropies(policy.logits)[at]
            explained = 1 - (return_NT - value_NT)[mask_NT].var() / return_NT[mask_NT].var()
        clipped, largest, moved = [], [], []
        for _ in range(settings.epochs):
            change_NT = (policy.logits / settings.scored_at).log_softmax(-1)[chosen] - old_NT
            ratio_NT = change_NT.exp()
            kept_NT = ratio_NT.clamp(1 - settings.clip, 1 + settings.clip)
            gain = torch.minimum(ratio_NT * advantage_NT, kept_NT * advantage_NT)[mask_NT].mean()
            value_loss = 0.5 * ((policy.values[(*at, place_T)] - return_NT)[mask_NT] ** 2).mean()
            entropy = _entropies(policy.logits)[at][mask_NT].mean()
            optimizer.zero_grad()
            (-gain + value_loss - settings.entropy_coefficient * entropy).backward()
            optimizer.step()
            with torch.no_grad():
                change_N = ((policy.logits / settings.scored_at).log_softmax(-1)[chosen] - old_NT)[mask_NT]
                clipped.append(float(((change_N.exp() - 1).abs() > settings.clip).float().mean()))
                largest.append(float(change_N.exp().max()))
                moved.append(float(0.5 * (change_N**2).mean()))
        lengths = mask_NT.sum(1).tolist()
        answers = [(p, *answer[:n]) for p, answer, n in zip(prompt_N.tolist(), tokens_NT.tolist(), lengths, strict=True)]
        rows.append(
            Vitals(
                rollout=rollout,
                reward=float(score_N.mean()),
                reward_std=float(score_N.std()),
                kl=float(kl_NT.sum(1).mean()),
                entropy=float(entropies_NT[mask_NT].mean()),
                length=float(mask_NT.sum(1).float().mean()),
                finished_share=float(((tokens_NT == STOP) & mask_NT).any(1).float().mean()),
                duplicate_share=1 - len(set(answers)) / len(answers),
                kl_coefficient=settings.kl_coefficient,
                clip_share=clipped[-1],
                ratio_max=largest[-1],
                approx_kl=moved[-1],
                value_explained=float(explained),
                held_out_reward=None if held_out is None else float(held_out(tokens_NT, mask_NT).mean()),
                reward_per_token=reward_per_token(score_N.tolist(), lengths),
                flat_share=flat_share(score_N.tolist(), 8),
            )
        )
    return rows


def _entropies(logits: torch.Tensor) -> torch.Tensor:
    """Of each prompt and last token."""
    logprobs = logits.log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)
