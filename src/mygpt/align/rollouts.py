"""Answers that the policy samples while it is trained, as token ids: what was sampled is what is learnt from, nothing is encoded anew.

    rollouts(policy, prompts, samples=4, sampling=Sampling(...))     4 answers to each prompt, those of one prompt next to one another

The engine works on the policy's own weights, as they stand: nothing is sent between two steps. LoRA's updates are written into the matrices
while it samples (`lm/low_rank`), which rounds them once more: what is learnt from are log-probabilities of the training's forward pass.
Prompts are read once, whatever the number of samples (`infer/prefixes`).

Source     rollouts on an engine of their own: Hu et al. 2024, arXiv:2405.11143 (OpenRLHF)
We differ  one set of weights: engine and training share the module
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from mygpt.align.policy import Policy
from mygpt.artifacts.dataset import Conversation
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer, Sampling
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.chat import Rendered
from mygpt.lm.low_rank import written_in
from mygpt.training.recompute import computed_once

_WIDE_GAP = 0.3  # nats a token; kernels that round otherwise, in bfloat16, stay below a tenth


@dataclass(frozen=True)
class Rollout:
    prompt: Conversation
    answer: Answer
    example: Rendered  # prompt and answer; trained: the answer's tokens, its stop token too where it wrote one
    is_finished: bool  # ended by itself, not by the limit

    @property
    def num_tokens(self) -> int:
        """Of the answer."""
        return len(self.answer.token_ids)


Sampler = Callable[[Sequence[Conversation], int], list[Rollout]]  # (prompts, seed) -> the answers to each, next to one another


def rollouts(policy: Policy, prompts: Sequence[Conversation], *, samples: int, sampling: Sampling, seed: int, run: Run) -> list[Rollout]:
    """`samples` answers to each of `prompts`. Every answer has a seed of its own, made from `seed` and its place."""
    if sampling.temperature <= 0:
        raise UsageError("Rollouts at temperature 0 are all alike, so nothing is explored.", fix="Set `temperature` to 1, for example.")
    engine = TorchEngine(policy.loaded.model, loaded=replace(policy.loaded, module=policy.module), run=run)
    asked = [prompt for prompt in prompts for _ in range(samples)]
    seeded = [replace(sampling, seed=(seed + i) % 2**31) for i in range(len(asked))]
    with written_in(policy.module), computed_once(policy.module):
        answers = engine.complete_each(asked, seeded)
    stops = engine.stop_token_ids
    return [rollout(engine.renderer.prompt(p), p, a, is_finished=a.token_ids[-1] in stops) for p, a in zip(asked, answers, strict=True)]


def rollout(prompt_ids: Sequence[int], prompt: Conversation, answer: Answer, *, is_finished: bool) -> Rollout:
    ids = (*prompt_ids, *answer.token_ids)
    trained = tuple(i >= len(prompt_ids) for i in range(len(ids)))
    return Rollout(prompt, answer, Rendered(ids, trained, ()), is_finished)


def sampler_gap(made: Mapping[int, Rollout], logprobs: Mapping[int, torch.Tensor], *, temperature: float) -> float | None:
    """Nats a token between what the sampler said of its tokens and `logprobs` of the training's own forward pass; None where it said
    nothing."""
    if temperature != 1:  # samplers tell log-probabilities of temperature 1
        return None
    told = {i: one.answer.logprobs for i, one in made.items() if one.answer.logprobs and i in logprobs}
    gaps = [(logprobs[i].float().cpu() - torch.tensor(own)).abs() for i, own in told.items()]
    return float(torch.cat(gaps).mean()) if gaps else None


def tell_sampler_gap(made: Mapping[int, Rollout], logprobs: Mapping[int, torch.Tensor], *, temperature: float, run: Run) -> None:
    """Logged; where it is wide, a warning: weights that were sent to a server may not have arrived."""
    gap = sampler_gap(made, logprobs, temperature=temperature)
    if gap is None:
        return
    run.log(sampler_gap=gap)
    if gap > _WIDE_GAP:
        run.warn(f"The sampler gives its tokens log-probabilities {gap:.2f} nats from the policy's own: were other weights at work?")
