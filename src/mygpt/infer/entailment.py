"""Who says whether a text follows from another: a classifier made for it, or a language model asked.

    ClassifierEntailer   any sequence classifier of transformers whose labels name entailment and contradiction (MNLI models); without a
                         label for neutral (two classes), what is left is neutral
    ScorerEntailer       a Scorer: the log-probabilities of " yes", " maybe" and " no" after the question, shared out among the three

Source     the pair as one input of two segments: Devlin et al. 2018, arXiv:1810.04805, section 4.1; entailment as a question with three
           answers: Wei et al. 2021, arXiv:2109.01652, appendix G
We differ  the three answers are single words and are scored, not written
Dims       B pairs   L labels
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

from mygpt.artifacts.model import Model
from mygpt.core.errors import MygptError, UsageError
from mygpt.core.outbound import silence_hub
from mygpt.infer.protocols import Identity, Scorer
from mygpt.metrics.entailment import Nli

_QUESTION = """Premise: {premise}
Hypothesis: {hypothesis}
Question: If the premise is true, is the hypothesis true as well? Answer yes, maybe or no.
Answer:"""
_ANSWERS = (" yes", " maybe", " no")
_AT_ONCE = 16


class Entailer(Protocol):
    @property
    def identity(self) -> Identity: ...

    def entail(self, premises: Sequence[str], hypotheses: Sequence[str]) -> list[Nli]:
        """One for each pair, in order."""


class ClassifierEntailer:
    def __init__(self, model: Model):
        silence_hub()
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
        from transformers.utils import logging

        from mygpt.lm.load import preferred_device

        logging.disable_progress_bar()
        self._digest = model.digest
        self._tokenizer: Any = AutoTokenizer.from_pretrained(model.payload, local_files_only=True, trust_remote_code=False)
        self._device = preferred_device()
        module: Any = AutoModelForSequenceClassification.from_pretrained(
            model.payload, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
        self._module = module.eval().to(self._device)
        self._places = nli_places(module.config.id2label, where=model.id)
        self._max_tokens = getattr(module.config, "max_position_embeddings", None) or self._tokenizer.model_max_length

    @property
    def identity(self) -> Identity:
        return {"entailer": "classifier", "model": self._digest, "labels": self._places}

    def entail(self, premises: Sequence[str], hypotheses: Sequence[str]) -> list[Nli]:
        import torch

        pairs = list(zip(premises, hypotheses, strict=True))
        found: list[Nli] = []
        for start in range(0, len(pairs), _AT_ONCE):
            part = pairs[start : start + _AT_ONCE]
            given = self._tokenizer([p for p, _ in part], [h for _, h in part], padding=True, return_tensors="pt")
            if given["input_ids"].shape[1] > self._max_tokens:
                raise UsageError(
                    f"A pair of {given['input_ids'].shape[1]} tokens does not fit the classifier's window of {self._max_tokens}.",
                    fix="Give shorter texts: a sentence against a sentence.",
                )
            with torch.inference_mode():
                probabilities_BL = self._module(**given.to(self._device)).logits.float().softmax(-1).tolist()
            found += [self._read(row) for row in probabilities_BL]
        return found

    def _read(self, probabilities_L: list[float]) -> Nli:
        entailment, contradiction = (sum(probabilities_L[i] for i in self._places[name]) for name in ("entailment", "contradiction"))
        return Nli(entailment, max(0.0, 1 - entailment - contradiction), contradiction)


def nli_places(id2label: dict[int, str], *, where: str) -> dict[str, list[int]]:
    """Which outputs mean what, by the names that the model's makers gave them."""
    named = {int(place): label.lower() for place, label in id2label.items()}
    negative = ("not_entail", "not entail", "non-entail", "non_entail")
    places = {
        "entailment": [i for i, label in named.items() if "entail" in label and not any(n in label for n in negative)],
        "contradiction": [i for i, label in named.items() if "contradict" in label],
    }
    if not places["entailment"]:
        listed = ", ".join(f"{label}" for label in id2label.values())
        fix = "Name a model trained on MNLI or the like, whose config.json names its labels."
        raise UsageError(f"{where} classifies texts as {listed}: none of these is entailment.", fix=fix)
    return places


class ScorerEntailer:
    def __init__(self, scorer: Scorer):
        self._scorer = scorer

    @property
    def identity(self) -> Identity:
        return {"entailer": "log-probabilities", "scorer": self._scorer.identity, "question": _QUESTION, "answers": list(_ANSWERS)}

    def entail(self, premises: Sequence[str], hypotheses: Sequence[str]) -> list[Nli]:
        asked = [_filled(premise, hypothesis) for premise, hypothesis in zip(premises, hypotheses, strict=True)]
        scores = self._scorer.score([text for text in asked for _ in _ANSWERS], [answer for _ in asked for answer in _ANSWERS])
        return [_shared_out([s.logprob for s in scores[i : i + len(_ANSWERS)]]) for i in range(0, len(scores), len(_ANSWERS))]


def _filled(premise: str, hypothesis: str) -> str:
    before, between, after = _QUESTION.replace("{hypothesis}", "{premise}").split("{premise}")
    return f"{before}{premise}{between}{hypothesis}{after}"


def _shared_out(logprobs: Sequence[float]) -> Nli:
    highest = max(logprobs)
    if any(math.isnan(value) for value in logprobs) or not math.isfinite(highest):
        raise MygptError(
            f"The model gives {list(logprobs)} as log-probabilities of yes, maybe and no.",
            fix="Its weights or activations overflow: score it in float32.",
        )
    weights = [math.exp(value - highest) for value in logprobs]
    yes, maybe, no = (weight / sum(weights) for weight in weights)
    return Nli(yes, maybe, no)
