"""Rejection sampling: of several answers to each prompt the best become examples for supervised fine-tuning.

Source     Llama 2: Touvron et al. 2023, arXiv:2307.09288, section 3.2.3; RAFT: Dong et al. 2023, arXiv:2304.06767; with a verifier: Yuan et
           al. 2023, arXiv:2308.01825 (RFT)
We differ  every answer that is not kept stays in the Dataset with its reason; answers that the limit cut off are never kept
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace

from pydantic import PositiveFloat, PositiveInt

from mygpt.align.best_of_n import samples_of
from mygpt.align.reward_choice import NumericChoice, RewardChoice, opened_reward
from mygpt.artifacts.dataset import Conversation, Dataset, Dropped, Message, conversation_facts, write_conversations
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer, Completer, Sampling
from mygpt.infer.rewards import IdentifiedReward, rewards_of

_AT_ONCE = 256  # answers between two looks at the progress


class RejectionSamplingConfig(Config):
    samples: PositiveInt = 8  # answers to each prompt
    keep: PositiveInt = 1  # the best so many of them
    threshold: float | None = None  # an answer that is worth less is never kept
    temperature: PositiveFloat = 1.0
    max_answer_tokens: PositiveInt = 256
    reward: RewardChoice = NumericChoice()


@recipe
def rejection_sampling(
    config: RejectionSamplingConfig, *, completer: Completer, dataset: Dataset, reward: IdentifiedReward | None = None, run: Run
) -> Dataset:
    """The best of sampled answers to the prompts of the split `train`, as a Dataset that `mygpt finetune sft` learns.

    `reward`, a model or from Python, takes the place of the setting.
    """
    prompts = dataset.split("train")
    if not prompts:
        raise Refused(f"{dataset.id} has no prompts in the split `train`.", fix="Name a dataset of conversations.")
    sampling = Sampling(max_tokens=config.max_answer_tokens, temperature=config.temperature, seed=run.seed_for("samples") % 2**31)
    kept: list[Conversation] = []
    dropped: list[Dropped] = []
    progress = run.progress(len(prompts), "prompts")
    size = max(1, _AT_ONCE // config.samples)
    with opened_reward(config.reward, prompts) if reward is None else nullcontext(reward) as judge:
        for start in range(0, len(prompts), size):
            part = prompts[start : start + size]
            answers = samples_of(completer, part, sampling, n=config.samples)
            rewards = rewards_of(judge, [row for row in part for _ in range(config.samples)], [a for own in answers for a in own])
            for place, (row, own) in enumerate(zip(part, answers, strict=True)):
                for one in sorted_out(row, own, rewards[place * config.samples : (place + 1) * config.samples], config):
                    if isinstance(one, Dropped):
                        dropped.append(one)
                    else:
                        kept.append(one)
            progress.advance(len(part))
    if not kept:
        best = max(float(one.row.facts["reward"]) for one in dropped)
        raise Refused(
            f"None of {len(dropped)} answers is kept; the best reward is {best:g}.",
            fix="Set `threshold` lower, `samples` or `max_answer_tokens` higher, or sample from a better model.",
        )
    splits = {"train": kept}
    facts = {**conversation_facts(splits, dropped), "reward": judge.identity, "prompts": len(prompts)}
    facts["prompts_with_an_answer"] = len({row.facts["prompt"] for row in kept})
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits, dropped), facts=facts)


def sorted_out(
    row: Conversation, answers: Sequence[Answer], rewards: Sequence[float], config: RejectionSamplingConfig
) -> Iterator[Conversation | Dropped]:
    """Best first."""
    num_kept, seen = 0, set[str]()
    for k in sorted(range(len(answers)), key=lambda k: -rewards[k]):
        text = answers[k].text
        facts = {**row.facts, "prompt": row.id or row.question, "reward": f"{rewards[k]:g}"}
        made = replace(row, messages=(*row.prompt, Message("assistant", text)), id=f"{row.id}-{k + 1}" if row.id else "", facts=facts)
        fault = ""
        if answers[k].finish_reason != "stop":
            fault = "cut off"
        elif not text.strip():
            fault = "empty"
        elif config.threshold is not None and rewards[k] < config.threshold:
            fault = "below the threshold"
        elif text in seen:
            fault = "duplicate"
        elif num_kept == config.keep:
            fault = "not among the best"
        if fault:
            yield Dropped(fault, made)
        else:
            num_kept += 1
            seen.add(text)
            yield made
