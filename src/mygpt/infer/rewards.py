"""A reward is any callable (prompt, answer) -> float: a model, a rule, a verifier, the user's own function.

    rewards_of(reward, prompts, answers)   in order, each a number; what raises or gives none is named

A reward may have `each(prompts, answers) -> list of floats`, where many at once are cheaper, and an `identity`, which goes into the
manifest of what was trained with it or measured by it.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from mygpt.artifacts.dataset import Conversation
from mygpt.core.errors import MygptError
from mygpt.infer.protocols import Answer, Identity

Reward = Callable[[Conversation, Answer], float]


class IdentifiedReward(Protocol):
    @property
    def identity(self) -> Identity: ...

    def __call__(self, prompt: Conversation, answer: Answer) -> float: ...


def rewards_of(reward: Reward, prompts: Sequence[Conversation], answers: Sequence[Answer]) -> list[float]:
    """One for each pair. Raises MygptError, with the prompt and the answer, where a reward fails or is not a finite number."""
    each: Any = getattr(reward, "each", None)
    if each is None:
        found = [_one(reward, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    else:
        found = _many(reward, each, prompts, answers)
    for prompt, answer, value in zip(prompts, answers, found, strict=True):
        if not math.isfinite(value):
            raise MygptError(f"The reward of an answer is {value}. {_shown(reward, prompt, answer)}", fix=_FIX)
    return found


_FIX = "A reward has to give a finite number for whatever a model may write, an empty answer too."


def _many(reward: Reward, each: Callable[..., Any], prompts: Sequence[Conversation], answers: Sequence[Answer]) -> list[float]:
    try:
        found = [float(value) for value in each(prompts, answers)]
    except MygptError:
        raise
    except Exception as error:
        what = f"The reward failed on {len(prompts)} answers: {_said(error)}. {_culprit(reward, each, prompts, answers)}"
        raise MygptError(what, fix=_FIX) from error
    if len(found) != len(answers):
        what = f"`each` of the reward gave {len(found)} values for {len(answers)} answers. {_culprit(reward, each, prompts, answers)}"
        raise MygptError(what, fix="It has to give one number for each answer, in their order.")
    return found


def _culprit(reward: Reward, each: Callable[..., Any], prompts: Sequence[Conversation], answers: Sequence[Answer]) -> str:
    """The first answer that gets no single number when it is given alone; each is asked about again until then."""
    for prompt, answer in zip(prompts, answers, strict=True):
        try:
            [value] = each([prompt], [answer])
            float(value)
        except Exception:  # whatever it raises: the whole of them failed already, and its reason is told
            return _shown(reward, prompt, answer)
    return f"Each of them alone gets its number. The first: {_shown(reward, prompts[0], answers[0])}" if prompts else ""


def _one(reward: Reward, prompt: Conversation, answer: Answer) -> float:
    try:
        return float(reward(prompt, answer))
    except MygptError:
        raise
    except Exception as error:
        raise MygptError(f"The reward failed: {_said(error)}. {_shown(reward, prompt, answer)}", fix=_FIX) from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().rstrip(".")


def _shown(reward: Reward, prompt: Conversation, answer: Answer) -> str:
    """With which of several rewards it was, where that has an identity: one that is trained on, one that is watched, one of an ensemble."""
    identity: Any = getattr(reward, "identity", {})
    by = ", ".join(f"{key} {value}" for key, value in identity.items())
    asked, text = (" ".join(part.split()) for part in (prompt.question, answer.text))
    return f'Asked: "{asked[:120]}". Answered: "{text[:120]}".' + (f" By: {by[:200]}." if by else "")
