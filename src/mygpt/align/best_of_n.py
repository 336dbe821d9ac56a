"""Best of n: several answers are sampled and the one that a reward values most is given. No weight moves.

    BestOfN(completer, reward, n=8)        a Completer, wherever one is taken
    best_of_n                              the recipe: what that gains over one answer, prompt by prompt
    kl_bound(8)                            how far from the completer's own distribution that can be, in nats

Source     Stiennon et al. 2020, arXiv:2009.01325, appendix G; the bound: the same, made precise by Beirami et al. 2024, arXiv:2401.01879
We differ  of equals the first
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt

from mygpt.align.reward_choice import NumericChoice, RewardChoice, opened_reward
from mygpt.artifacts.dataset import Conversation, Dataset
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.core.config import Config
from mygpt.core.digest import digest_value
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.core.spread import spread
from mygpt.infer.protocols import Answer, Completer, Identity, Sampling
from mygpt.infer.rewards import IdentifiedReward, rewards_of
from mygpt.metrics.bootstrap import interval_is_reliable, paired_bootstrap

_AT_ONCE = 256  # answers between two looks at the progress


class BestOfN:
    def __init__(self, completer: Completer, reward: IdentifiedReward, *, n: int):
        if n < 1:
            raise UsageError(f"The best of {n} answers was asked for.", fix="Set `n` to 1 or more.")
        self._completer, self._reward, self._n = completer, reward, n

    @property
    def identity(self) -> Identity:
        return {"best_of": self._n, "reward": self._reward.identity, "completer": self._completer.identity}

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        answers = samples_of(self._completer, conversations, sampling, n=self._n)
        rewards = rewards_of(self._reward, [c for c in conversations for _ in range(self._n)], [a for own in answers for a in own])
        best = []
        for place, own in enumerate(answers):
            worth = rewards[place * self._n : (place + 1) * self._n]
            best.append(own[worth.index(max(worth))])
        return best


def samples_of(completer: Completer, conversations: Sequence[Conversation], sampling: Sampling, *, n: int) -> list[list[Answer]]:
    """`n` answers to each. A conversation that is given several times in one call is drawn several times (`infer/protocols`)."""
    if n > 1 and sampling.temperature <= 0:
        raise UsageError(f"{n} answers at temperature 0 are all alike.", fix="Set `temperature` above 0, for example to 1.")
    answers = completer.complete([c for c in conversations for _ in range(n)], sampling)
    return [answers[start : start + n] for start in range(0, len(answers), n)]


def kl_bound(n: int) -> float:
    """In nats, of best-of-n to what it samples from: reached where no two answers are worth the same, else less."""
    return math.log(n) - (n - 1) / n


# -- what it gains -----------------------------------------------------------------------------------------------------------


class BestOfNConfig(Config):
    split: str = "test"
    n: Annotated[int, Field(ge=2)] = 8  # answers to each prompt
    max_prompts: PositiveInt = 100  # at even distances
    max_tokens: PositiveInt = 64  # of an answer
    temperature: PositiveFloat = 1.0
    reward: RewardChoice = NumericChoice()


@recipe
def best_of_n(
    config: BestOfNConfig, *, completer: Completer, dataset: Dataset, reward: IdentifiedReward | None = None, run: Run
) -> Predictions:
    """Of `n` answers to each prompt the first and the best, with their rewards: what choosing gains over one draw.

    `reward`, a model or from Python, takes the place of the setting.
    """
    asked = dataset.split(config.split)
    if not asked:
        raise UsageError(f"{dataset.id} has no rows in the split `{config.split}`.", fix=f"It has: {', '.join(dataset.splits) or 'none'}.")
    prompts = spread(asked, min(config.max_prompts, len(asked)))
    sampling = Sampling(max_tokens=config.max_tokens, temperature=config.temperature, seed=run.seed_for("answers") % 2**31)
    rows: list[dict[str, Any]] = []
    progress = run.progress(len(prompts), "prompts")
    size = max(1, _AT_ONCE // config.n)
    with opened_reward(config.reward, prompts) if reward is None else nullcontext(reward) as judge:
        for start in range(0, len(prompts), size):
            part = prompts[start : start + size]
            answers = samples_of(completer, part, sampling, n=config.n)
            rewards = rewards_of(judge, [row for row in part for _ in range(config.n)], [a for own in answers for a in own])
            for place, (row, own) in enumerate(zip(part, answers, strict=True)):
                rows.append(chosen(row, start + place, own, rewards[place * config.n : (place + 1) * config.n]))
            progress.advance(len(part))
        task = {"task": "best_of_n", "primary": "reward", "metrics": ["reward", "first_reward", "gain", "tokens"]}
        content = [[[m.role, m.content] for m in prompt.prompt] for prompt in prompts]
        facts = {
            **task,
            "version": digest_value([content, config.model_dump(mode="json"), judge.identity])[:8],
            "form": "generate",
            "task_content": digest_value(content),
            "higher_is_better": {"reward": True, "first_reward": True, "gain": True, "tokens": False},
            "chance": None,
            "model": BestOfN(completer, judge, n=config.n).identity,
            **gained(rows, n=config.n),
        }
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows), facts=facts)


def chosen(prompt: Conversation, number: int, answers: Sequence[Answer], rewards: Sequence[float]) -> dict[str, Any]:
    best = rewards.index(max(rewards))
    return {
        "item_id": prompt.id or str(number),
        "cluster": prompt.id or str(number),
        "question": prompt.question,
        "answer": answers[best].text,
        "reward": rewards[best],
        "first_answer": answers[0].text,
        "first_reward": rewards[0],
        "gain": rewards[best] - rewards[0],
        "tokens": float(len(answers[best].token_ids)),
    }


def gained(rows: Sequence[Mapping[str, Any]], *, n: int) -> dict[str, Any]:
    """Facts: the mean gain of the best over the first, paired by prompt."""
    best, first = ([row[name] for row in rows] for name in ("reward", "first_reward"))
    gain = paired_bootstrap(best, first)
    low, high = gain.low + 0.0, gain.high + 0.0  # no -0
    reliable = "" if interval_is_reliable(len(rows)) else "; interval unreliable: few prompts"
    means = f"{sum(best) / len(best):.3g} in the mean over {len(rows)} prompts, the first {sum(first) / len(first):.3g}"
    interval = f"95 % interval {low:+.3g} to {high:+.3g}{reliable}"
    sentence = f"The best of {n} answers is worth {means}: {gain.estimate:+.3g} ({interval}), at most {kl_bound(n):.2f} nats away."
    return {"gain": gain.estimate, "gain_interval": [low, high], "kl_bound": kl_bound(n), "sentences": [sentence]}
