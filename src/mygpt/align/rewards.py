"""A reward of one's own, as a recipe takes it: `NamedReward("shorter", function)`. What a reward is: `infer/rewards`."""

from dataclasses import dataclass

from mygpt.artifacts.dataset import Conversation
from mygpt.infer.protocols import Answer, Identity
from mygpt.infer.rewards import Reward


@dataclass(frozen=True)
class NamedReward:
    """The name stands in the manifest for the function: what was made with one of another name is made anew, with the same it is not."""

    name: str
    function: Reward

    @property
    def identity(self) -> Identity:
        return {"reward": "function", "name": self.name}

    def __call__(self, prompt: Conversation, answer: Answer) -> float:
        return self.function(prompt, answer)
