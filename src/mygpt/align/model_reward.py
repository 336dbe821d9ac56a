"""A reward model as a reward: `ModelReward(model, adapter=adapter)(prompt, answer)`, normalised as it was after training.

It reads text: prompt and answer are written in the reward model's own chat template, in its own tokens, whatever the policy's are, and
the reward is read at the stop token behind the answer. So a reward model of another tokenizer will do as a reward. It will not as the
beginning of a value function, which reads the policy's own states: there both must have one tokenizer (`require_same_tokens`).

An answer that was cut by a limit has no stop token of its own. It is read as if it ended there, since a reward model has seen nothing else;
`unfinished` gives all such answers one reward instead (OpenAI's -1: Ziegler et al. 2019).

Source     reward at the last token: Ouyang et al. 2022, arXiv:2203.02155, section 3.5; unfinished answers: Huang et al. 2024,
           arXiv:2403.17031
We differ  normalised by facts that stand beside the weights, since the head has no bias that could hold them
Dims       N answers   B answers of a batch   T tokens, padded   D hidden
"""

from collections.abc import Sequence
from typing import Any

import torch

from mygpt.align.answers import rendered_answer, up_to_stop
from mygpt.artifacts.dataset import Conversation
from mygpt.artifacts.model import Adapter, Model
from mygpt.core.errors import Refused, UsageError
from mygpt.infer.protocols import Answer, Identity
from mygpt.lm.chat import ChatRenderer
from mygpt.lm.heads import Opened, open_head
from mygpt.lm.inputs import length_batches, window_tokens
from mygpt.lm.reward_head import rewards_at, score_layer
from mygpt.training.losses import hidden_states


class ModelReward:
    def __init__(
        self,
        model: Model,
        *,
        adapter: Adapter | None = None,
        opened: Opened | None = None,
        normalised: bool = True,
        unfinished: float | None = None,
        dtype: torch.dtype | None = None,
        batch_tokens: int = 4_096,
    ):
        """`adapter` makes `model` a reward model (`mygpt align reward_model`). `unfinished`: the reward of answers cut by a limit."""
        made = adapter or model
        if made.manifest.facts.get("head", "lm") != "reward":
            fix = "Train one (`mygpt align reward_model`), or use a classifier's label (`ClassifierReward`, `MODEL@LABEL`)."
            raise UsageError(f"{made.id} is no reward model.", fix=fix)
        self._opened = opened or open_head(model, "reward", adapter=adapter, dtype=dtype)
        self._renderer = ChatRenderer(self._opened.tokenizer)
        self._made, self._unfinished, self._batch_tokens = made, unfinished, batch_tokens
        known = made.manifest.facts.get("normalised") or {} if normalised else {}
        self._mean, self._std = float(known.get("mean", 0.0)), float(known.get("std", 1.0))
        digests: Identity = {"model": model.digest, "adapter": adapter.digest if adapter else None}
        self._identity: Identity = {"reward": "model", **digests, "mean": self._mean, "std": self._std, "unfinished": unfinished}

    @property
    def identity(self) -> Identity:
        return dict(self._identity)

    @property
    def logits_a_unit(self) -> float:
        """A difference of rewards times this, through a sigmoid, is the probability that was learnt."""
        return self._std

    @property
    def opened(self) -> Opened:
        return self._opened

    @property
    def score_layer(self) -> tuple[torch.Tensor, float]:
        """Weight (D) and bias, float32, that make a normalised reward of a hidden state: where a value function may begin."""
        layer = score_layer(self._opened.module)
        bias = 0.0 if layer.bias is None else float(layer.bias[0])
        return layer.weight[0].detach().float() / self._std, (bias - self._mean) / self._std

    @property
    def padding_id(self) -> int:
        return int(self._opened.tokenizer.pad_token_id)

    def __call__(self, prompt: Conversation, answer: Answer) -> float:
        return self.each([prompt], [answer])[0]

    def each(self, prompts: Sequence[Conversation], answers: Sequence[Answer]) -> list[float]:
        values = self._of_ids([self.example(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)])
        if self._unfinished is None:
            return values
        cut = [answer.finish_reason == "length" for answer in answers]
        return [self._unfinished if is_cut else value for is_cut, value in zip(cut, values, strict=True)]

    def example(self, prompt: Conversation, answer: Answer) -> tuple[int, ...]:
        """Token ids of what is read, up to the stop token."""
        if prompt.raw_text is not None:
            raise UsageError(
                "This prompt is raw text, and a reward model reads conversations.",
                fix="Ask in conversations, or reward the text alone with a classifier (`ClassifierReward`).",
            )
        return up_to_stop(rendered_answer(self._renderer, prompt.prompt, answer.text)).token_ids

    @property
    def id(self) -> str:
        """Of what was trained, for messages."""
        return self._made.id

    @torch.inference_mode()
    def _of_ids(self, token_ids: Sequence[Sequence[int]]) -> list[float]:
        module, lengths = self._opened.module, [len(ids) for ids in token_ids]
        window = window_tokens(module)
        if window and max(lengths, default=0) > window:
            raise UsageError(
                f"A conversation of {max(lengths)} tokens does not fit the window of {window} of {self._made.id}.",
                fix="Let answers be shorter (`max_tokens`), or train a reward model on a base with a longer window.",
            )
        found = torch.zeros(len(lengths))
        for rows in length_batches(lengths, self._batch_tokens):
            ids_BT = torch.full((len(rows), lengths[rows[0]]), self.padding_id)
            for b, i in enumerate(rows):
                ids_BT[b, : lengths[i]] = torch.tensor(token_ids[i])
            last_B = torch.tensor([lengths[i] - 1 for i in rows])
            hidden_BTD = hidden_states(module, ids_BT.to(self._opened.device))
            found[rows] = rewards_at(module, hidden_BTD[torch.arange(len(rows)), last_B]).cpu()
        return [(value - self._mean) / self._std for value in found.tolist()]


def require_same_tokens(one: Any, other: Any, *, owners: tuple[str, str]) -> None:
    """Raises Refused, with both tokenizers, where one id means two things."""
    words, others = one.get_vocab(), other.get_vocab()
    if words == others:
        return
    spelled = {i: word for word, i in others.items()}
    i, here = next(((i, word) for word, i in sorted(words.items(), key=lambda item: item[1]) if spelled.get(i) != word), (len(words), None))
    told = f"token {i} is {here!r} in the one and {spelled.get(i)!r} in the other"
    first, second = (f"{owner} ({type(t).__name__}, {len(t.get_vocab()):,} tokens)" for owner, t in zip(owners, (one, other), strict=True))
    raise Refused(
        f"{first} and {second} do not have the same tokenizer: {told}.",
        fix="Set `value_from_reward=false` (a reward alone reads text, in its own tokens), or take a reward model of the policy's base.",
    )
