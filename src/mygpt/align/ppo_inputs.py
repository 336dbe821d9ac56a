"""What PPO begins with: prompts that leave room for answers, texts to learn beside, a value head, and the plan of all updates.

Rows are numbered through the whole training: the answers of rollout n from n * answers on, behind all of them the other texts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mygpt.align.model_reward import ModelReward, require_same_tokens
from mygpt.align.policy import Policy
from mygpt.align.ppo_config import PPOConfig
from mygpt.align.rollouts import Rollout
from mygpt.artifacts.dataset import Conversation, Dataset
from mygpt.core.errors import Refused, UsageError
from mygpt.core.run import Run
from mygpt.lm.chat import Rendered
from mygpt.lm.plain_text import text_ids
from mygpt.training.batches import Plan
from mygpt.training.steps import Examples


def prompts_of(dataset: Dataset, policy: Policy, config: PPOConfig) -> list[Conversation]:
    """The split `train`, without the answers that it may have. Raises Refused for none, and where one leaves no room for an answer."""
    prompts = [Conversation(row.prompt, row.id, row.sources, row.facts) for row in dataset.split("train")]
    if not prompts:
        raise Refused(f"{dataset.id} has no prompts in the split `train`.", fix="Name a dataset of conversations or texts.")
    allowed = min(config.max_example_tokens, policy.context_tokens or config.max_example_tokens) - config.max_answer_tokens
    lengths = [len(policy.renderer.prompt(prompt)) for prompt in prompts]
    if too_long := sum(length > allowed for length in lengths):
        raise Refused(
            f"{too_long} of {len(prompts)} prompts have more than {allowed} tokens (longest: {max(lengths)}), which leaves no room for "
            f"answers of {config.max_answer_tokens}.",
            fix="Set `max_answer_tokens` lower, `max_example_tokens` higher (up to the model's window), or leave those prompts out.",
        )
    return prompts


def texts_of(dataset: Dataset | None, policy: Policy, config: PPOConfig) -> list[Rendered]:
    """Conversations as they are tuned on; raw texts cut into windows, of which every token but the first is a label."""
    if dataset is None:
        return []
    allowed = min(config.max_example_tokens, policy.context_tokens or config.max_example_tokens)
    found: list[Rendered] = []
    for number, row in enumerate(dataset.split("train")):
        if row.raw_text is None:
            found.append(policy.renderer.render(row))
            if (length := len(found[-1].token_ids)) > allowed:
                what = f"Row {number} of {dataset.id} has {length} tokens, and {allowed} are allowed."
                raise Refused(what, fix="Leave it out, or set `max_example_tokens` higher (up to the model's window).")
            continue
        ids = text_ids(policy.loaded.tokenizer, row.raw_text)
        windows = [ids[start : start + allowed] for start in range(0, len(ids), allowed)]
        found += [Rendered(window, (False,) + (True,) * (len(window) - 1), ()) for window in windows if len(window) > 1]
    if not found:
        raise Refused(f"{dataset.id} has no text in the split `train`.", fix="Leave out `--ptx`, or name a dataset with texts.")
    return found


def value_head_of(policy: Policy, reward: Any | None) -> torch.nn.Linear:
    """Float32: zero, or the `score_layer` of `reward`, (weight (D), bias), which stands on a trunk like the policy's.

    Raises Refused for a reward that has none, or one of another size, or that reads other tokens.
    """
    size = int(policy.module.get_output_embeddings().weight.shape[1])
    head = torch.nn.Linear(size, 1, device=policy.device)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    if reward is None:
        return head
    layer = getattr(reward, "score_layer", None)
    if layer is None or len(layer[0]) != size:
        has = "has no score layer" if layer is None else f"has a score layer of {len(layer[0])} inputs"
        raise Refused(
            f"This reward {has}, and the policy's hidden states have {size} dimensions.",
            fix="Set `value_from_reward=false`, or give a reward model that was trained from the policy's own base.",
        )
    if isinstance(reward, ModelReward):
        owners = (reward.id, policy.loaded.model.id)
        require_same_tokens(reward.opened.tokenizer, policy.loaded.tokenizer, owners=owners)
    with torch.no_grad():
        head.weight[0].copy_(layer[0])
        head.bias.fill_(float(layer[1]))
    return head


# -- the plan ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """All updates, and what is known of their rows: of answers only once they are made."""

    plan: Plan
    first_text: int  # rows from here on are texts
    examples: dict[int, Rendered]  # texts, and the answers of the rollout that is learnt from
    names: list[str]
    num_tokens: list[int]
    trained: list[int]

    @property
    def known(self) -> Examples:
        """These very lists, which change as rollouts are made."""
        return Examples(self.names, self.num_tokens, self.trained)

    def tell(self, made: Mapping[int, Rollout]) -> None:
        """The answers of a rollout take the place of those before."""
        for i in [i for i in self.examples if i < self.first_text]:
            del self.examples[i]
        for i, one in made.items():
            self.examples[i] = one.example
            self.names[i] = f"answer to {one.prompt.id or repr(one.prompt.messages[-1].content[:40])}"
            self.num_tokens[i], self.trained[i] = len(one.example.token_ids), one.num_tokens

    def parted(self, rows: Sequence[int]) -> tuple[dict[int, int], dict[int, int]]:
        """Answers and texts, each with its length."""
        length = {i: self.num_tokens[i] for i in rows}
        return {i: n for i, n in length.items() if i < self.first_text}, {i: n for i, n in length.items() if i >= self.first_text}

    def num_trained(self, rows: Iterable[int]) -> int:
        return sum(self.trained[i] for i in rows)


def require_whole_groups(config: PPOConfig) -> None:
    """Raises UsageError for settings that no rollout can follow."""
    if config.answers % config.samples or config.minibatches > config.answers:
        raise UsageError(
            f"{config.answers} answers cannot be {config.samples} to each prompt, in {config.minibatches} minibatches.",
            fix="Set `answers` to a multiple of `samples`, and `minibatches` to no more than `answers`.",
        )


def planned(texts: Sequence[Rendered], config: PPOConfig, *, run: Run) -> Work:
    """In every epoch the answers of a rollout are shuffled anew. Of `texts` the next `ptx_rows` belong to each update, in a new order each
    time round."""
    require_whole_groups(config)
    first_text, text_rows = config.rollouts * config.answers, min(config.ptx_rows, len(texts))
    waiting: list[int] = []
    plan: Plan = []
    for number in range(config.rollouts):
        for epoch in range(config.epochs):
            answers = list(range(number * config.answers, (number + 1) * config.answers))
            run.random(f"minibatches/{number}/{epoch}").shuffle(answers)
            for part in range(config.minibatches):
                if len(waiting) < text_rows:
                    turn = list(range(first_text, first_text + len(texts)))
                    run.random(f"texts/{len(plan)}").shuffle(turn)
                    waiting += sorted(turn, key=waiting.__contains__)  # none twice in one update
                others, waiting = waiting[:text_rows], waiting[text_rows:]
                plan.append([[*answers[part :: config.minibatches], *others]])
    return Work(
        plan,
        first_text,
        dict(enumerate(texts, start=first_text)),
        names=[""] * first_text + [f"text {i}" for i in range(len(texts))],
        num_tokens=[0] * first_text + [len(text.token_ids) for text in texts],
        trained=[0] * first_text + [sum(text.trained[1:]) for text in texts],
    )
