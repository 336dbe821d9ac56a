"""A classifier as a reward: the logit of the label that is wanted.

    ClassifierReward(TorchClassifier(model), label="not toxic")              the logit of a label
    ClassifierReward(TorchClassifier(model), label="toxic", minus=True)      less of it is better

A logit, not a probability: where the classifier is sure, probabilities no longer tell good from better, and logits still do. Logits of
3.1718 for what is wanted and -2.6093 for what is not are the reward 3.1718, at a probability of 0.9969.

Source  Ziegler et al. 2019, arXiv:1909.08593, section 3.1.1 (the log odds of a sentiment classifier as the reward); the logit of "not hate"
        as the reward of detoxification: von Werra et al. 2020, TRL
"""

from collections.abc import Sequence

from mygpt.artifacts.dataset import Conversation
from mygpt.core.errors import UsageError
from mygpt.infer.protocols import Answer, Identity
from mygpt.infer.torch_classifier import TorchClassifier


class ClassifierReward:
    def __init__(self, classifier: TorchClassifier, *, label: str, minus: bool = False, with_prompt: bool = False):
        """It reads the answer alone, or the question and the answer as a pair of texts; what it was trained on."""
        if label not in classifier.labels:
            raise UsageError(f"The classifier has no label `{label}`.", fix=f"It has: {', '.join(classifier.labels)}.")
        self._classifier, self._label, self._minus, self._with_prompt = classifier, label, minus, with_prompt

    @property
    def identity(self) -> Identity:
        settings = {"label": self._label, "minus": self._minus, "with_prompt": self._with_prompt}
        return {"reward": "classifier", "classifier": self._classifier.identity, **settings}

    def __call__(self, prompt: Conversation, answer: Answer) -> float:
        return self.each([prompt], [answer])[0]

    def each(self, prompts: Sequence[Conversation], answers: Sequence[Answer]) -> list[float]:
        texts = [answer.text for answer in answers]
        asked = [prompt.raw_text or prompt.question for prompt in prompts]
        logits_NL = self._classifier.logits(asked, texts) if self._with_prompt else self._classifier.logits(texts)
        wanted_N = logits_NL[:, self._classifier.labels.index(self._label)]
        return [float(value) for value in (-wanted_N if self._minus else wanted_N)]
