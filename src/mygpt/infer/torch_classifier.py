"""Labels for texts, by a sequence classifier of transformers: `TorchClassifier(model).classify(["Where is my parcel?"])`.

Dims  N texts   B texts of a batch   L labels
"""

from collections.abc import Sequence

import numpy as np
import torch

from mygpt.artifacts.model import Adapter, Model
from mygpt.core.errors import UsageError
from mygpt.infer.protocols import Identity
from mygpt.lm.attention import grouped_attention
from mygpt.lm.heads import Opened, open_head
from mygpt.lm.inputs import encode, length_batches, padded, window_tokens


class TorchClassifier:
    def __init__(
        self,
        model: Model,
        *,
        adapter: Adapter | None = None,
        opened: Opened | None = None,
        cut_tokens: int | None = None,
        batch_tokens: int = 4_096,
    ):
        """`adapter` makes `model` a classifier (`mygpt finetune classifier`). Texts lose what is beyond `cut_tokens`; without it, a text
        longer than the model's window is an error."""
        if opened is None:
            if model.head != "classifier" and adapter is None:
                raise UsageError(
                    f"{model.id} has the head `{model.head}`, not `classifier`.", fix="Train one (`mygpt finetune classifier`)."
                )
            opened = open_head(model, "classifier", adapter=adapter)
        self._opened = opened
        self._identity = {"model": model.digest, "adapter": adapter.digest if adapter else None, "cut_tokens": cut_tokens}
        self._cut_tokens, self._batch_tokens = cut_tokens, batch_tokens

    @property
    def identity(self) -> Identity:
        return {"classifier": "torch", **self._identity, "labels": list(self.labels)}

    @property
    def labels(self) -> tuple[str, ...]:
        return self._opened.labels

    def classify(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[str]:
        """The likeliest label of each text (with its second text)."""
        return [self.labels[i] for i in self.probabilities(texts, pairs).argmax(axis=1)]

    def probabilities(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """(N, L) float32, in the order of `labels`; each row sums to 1."""
        probabilities_NL: np.ndarray = torch.from_numpy(self.logits(texts, pairs)).softmax(-1).numpy()
        return probabilities_NL

    @torch.inference_mode()
    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """(N, L) float32, in the order of `labels`, as the head gives them."""
        module, tokenizer = self._opened.module, self._opened.tokenizer
        second = [""] * len(texts) if pairs is None else pairs
        examples = [encode(tokenizer, text, pair, max_tokens=self._cut_tokens) for text, pair in zip(texts, second, strict=True)]
        window = window_tokens(module)
        if window and (longest := max(map(len, examples), default=0)) > window:
            raise UsageError(f"A text of {longest} tokens does not fit the classifier's window of {window}.", fix="Set `cut_tokens`.")
        found_NL = np.zeros((len(texts), len(self.labels)), dtype=np.float32)
        for rows in length_batches([len(e) for e in examples], self._batch_tokens):
            with grouped_attention(module):
                logits_BL = module(**padded([examples[i] for i in rows], module, padding_id=tokenizer.pad_token_id)).logits
            found_NL[rows] = logits_BL.float().cpu().numpy()
        return found_NL
