"""Entities in texts, by a token classifier of transformers: `TorchTagger(model).entities([["Ada", "slept", "in", "Ghent"]])`.

The tag of a word is read at its first token. Of all sequences of tags that are BIO (no `I-X` without an X before it) the one with the
highest sum of log-probabilities is taken.

Source  Viterbi 1967; a decoding that keeps to valid tags: Strubell et al. 2017, arXiv:1702.02098, section 4.2
Dims    W words of a text   B texts of a batch   T tokens   L labels
"""

from collections.abc import Sequence

import numpy as np
import torch

from mygpt.artifacts.model import Adapter, Model
from mygpt.core.errors import UsageError
from mygpt.infer.protocols import Identity
from mygpt.lm.attention import grouped_attention
from mygpt.lm.heads import Opened, open_head
from mygpt.lm.inputs import encode_words, length_batches, padded, window_tokens
from mygpt.metrics.span_f1 import EntitySpan, spans_of_tags


class TorchTagger:
    def __init__(self, model: Model, *, adapter: Adapter | None = None, opened: Opened | None = None, batch_tokens: int = 4_096):
        """`adapter` makes `model` a tagger (`mygpt finetune tagger`)."""
        if opened is None:
            if model.head != "tagger" and adapter is None:
                raise UsageError(f"{model.id} has the head `{model.head}`, not `tagger`.", fix="Train one (`mygpt finetune tagger`).")
            opened = open_head(model, "tagger", adapter=adapter)
        self._opened = opened
        self._identity = {"model": model.digest, "adapter": adapter.digest if adapter else None}
        self._batch_tokens = batch_tokens

    @property
    def identity(self) -> Identity:
        return {"tagger": "torch", **self._identity, "labels": list(self._opened.labels)}

    def entities(self, texts: Sequence[Sequence[str]]) -> list[list[EntitySpan]]:
        """Of texts given as words: (kind, first word, word after the last)."""
        return [spans_of_tags(tags) for tags in self.tag(texts)]

    @torch.inference_mode()
    def tag(self, texts: Sequence[Sequence[str]]) -> list[list[str]]:
        """One tag a word; a word that the tokenizer drops has the tag `O`."""
        module, tokenizer, labels = self._opened.module, self._opened.tokenizer, self._opened.labels
        encoded = [encode_words(tokenizer, words) for words in texts]
        lengths = [len(example) for example, _ in encoded]
        window = window_tokens(module)
        if window and max(lengths, default=0) > window:
            what = f"A text of {max(lengths)} tokens does not fit the tagger's window of {window}."
            raise UsageError(what, fix="Give a sentence or a paragraph at a time.")
        found: list[list[str]] = [["O"] * len(words) for words in texts]
        for rows in length_batches(lengths, self._batch_tokens):
            if not (rows := [i for i in rows if lengths[i]]):
                continue  # texts without a token
            with grouped_attention(module):
                logits_BTL = module(**padded([encoded[i][0] for i in rows], module, padding_id=tokenizer.pad_token_id)).logits
            for i, scores_TL in zip(rows, logits_BTL.float().log_softmax(-1).cpu().numpy(), strict=True):
                places = {word: place for word, place in enumerate(encoded[i][1]) if place is not None}
                for word, tag in zip(places, likeliest_tags(scores_TL[list(places.values())], labels), strict=True):
                    found[i][word] = tag
        return found


def likeliest_tags(scores_WL: np.ndarray, labels: Sequence[str]) -> list[str]:
    """The valid BIO sequence with the highest sum of scores."""
    if not len(scores_WL):
        return []
    may_follow_LL = np.array([[follows(after, before) for after in labels] for before in labels])
    penalty_LL = np.where(may_follow_LL, 0.0, -np.inf)
    best_L = np.where([follows(label, "O") for label in labels], scores_WL[0], -np.inf)
    came_from: list[np.ndarray] = []
    for scores_L in scores_WL[1:]:
        through_LL = best_L[:, None] + penalty_LL
        came_from.append(through_LL.argmax(axis=0))
        best_L = through_LL.max(axis=0) + scores_L
    path = [int(best_L.argmax())]
    for before_L in reversed(came_from):
        path.append(int(before_L[path[-1]]))
    return [labels[i] for i in reversed(path)]


def follows(tag: str, before: str) -> bool:
    """Whether `tag` may stand after `before`: an `I-X` only after `B-X` or `I-X`."""
    return not tag.startswith("I-") or before[2:] == tag[2:]
