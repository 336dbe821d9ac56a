"""Answers to held-out prompts, scored by a reward: is a policy better than its start, in the eyes of a judge that it never learnt from?

As a task  one item for each prompt; metrics `reward` (decides), `tokens` (of the answer) and `finished` (1: it ended by itself). Two models
           are compared on the same prompts and the same reward only: both are part of the task's version.

A reward that the policy was trained on rises in any case (Gao et al. 2022, arXiv:2210.10760): give one that it has not seen.

Source  Stiennon et al. 2020, arXiv:2009.01325, section 4.1 (a policy judged on held-out prompts)
"""

from pydantic import NonNegativeFloat, PositiveInt

from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.core.config import Config
from mygpt.core.digest import digest_value
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.core.spread import spread
from mygpt.infer.protocols import Completer, Sampling
from mygpt.infer.rewards import IdentifiedReward, rewards_of

TASK = "rewarded_answers"


class RewardedAnswersConfig(Config):
    split: str = "test"
    max_prompts: PositiveInt = 100  # at even distances
    max_tokens: PositiveInt = 64
    temperature: NonNegativeFloat = 0.0


@recipe
def rewarded_answers(
    config: RewardedAnswersConfig, *, dataset: Dataset, completer: Completer, reward: IdentifiedReward, run: Run
) -> Predictions:
    """The completer's answers to prompts of `dataset` (schema `sft`), each with its reward."""
    asked = dataset.split(config.split)
    if not asked:
        raise UsageError(f"{dataset.id} has no rows in the split `{config.split}`.", fix=f"It has: {', '.join(dataset.splits) or 'none'}.")
    prompts = spread(asked, min(config.max_prompts, len(asked)))
    sampling = Sampling(max_tokens=config.max_tokens, temperature=config.temperature, seed=run.seed_for("answers"))
    answers = completer.complete(prompts, sampling)
    rewards = rewards_of(reward, prompts, answers)
    rows = [
        {
            "item_id": prompt.id or str(number),
            "cluster": prompt.id or str(number),
            "question": prompt.question,
            "answer": answer.text,
            "reward": value,
            "tokens": float(len(answer.token_ids)),
            "finished": float(answer.finish_reason == "stop"),
            "finish_reason": answer.finish_reason,
        }
        for number, (prompt, answer, value) in enumerate(zip(prompts, answers, rewards, strict=True))
    ]
    content = [[[m.role, m.content] for m in prompt.prompt] for prompt in prompts]
    facts = {
        "task": TASK,
        "version": digest_value([content, config.model_dump(), reward.identity])[:8],
        "form": "generate",
        "task_content": digest_value(content),
        "primary": "reward",
        "metrics": ["reward", "tokens", "finished"],
        "higher_is_better": {"reward": True, "tokens": False, "finished": True},
        "chance": None,
        "model": completer.identity,
    }
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows), facts=facts)
