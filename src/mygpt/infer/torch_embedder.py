"""Sentence embeddings with a transformers model: mean of the last hidden states over the real tokens, length 1.

Source    Reimers and Gurevych 2019, arXiv:1908.10084, section 3 (MEAN pooling; in lm/pooling)
We differ batches are sorted by length and sized by tokens, so that padding costs little; bfloat16 where the machine multiplies it in
          hardware (pooling stays float32): cosines move by about 0.001
Dims      N texts   D dimensions
"""

import threading
from collections.abc import Sequence

import numpy as np
import torch

from mygpt.artifacts.model import Adapter, Model
from mygpt.core.errors import UsageError
from mygpt.infer.protocols import Identity
from mygpt.lm.heads import Opened, open_head
from mygpt.lm.inputs import Encoded, length_batches, padded, window_tokens
from mygpt.lm.pooling import mean_pooled, require_mean_pooling


class TorchEmbedder:
    def __init__(
        self,
        model: Model,
        *,
        adapter: Adapter | None = None,
        opened: Opened | None = None,
        max_tokens: int = 256,
        batch_tokens: int = 4_096,
        dtype: torch.dtype | None = None,
    ):
        """`adapter` makes `model` an embedder (`mygpt finetune embedder`); `opened` holds the weights already."""
        if opened is None:
            if model.head != "embedder" and adapter is None:
                raise UsageError(
                    f"{model.id} has the head `{model.head}`, not `embedder`.", fix="Name an embedding model, such as `minilm`."
                )
            require_mean_pooling(model)
            opened = open_head(model, "embedder", adapter=adapter, dtype=dtype)
        self._digest = model.digest
        self._adapter = adapter.digest if adapter else None
        self._tokenizer, self._module = opened.tokenizer, opened.module
        self._max_tokens = min(max_tokens, window_tokens(opened.module) or max_tokens)
        self._batch_tokens = batch_tokens
        self._lock = threading.Lock()  # a fast tokenizer keeps its truncation settings inside itself

    @property
    def identity(self) -> Identity:
        dtype = str(self._module.dtype).removeprefix("torch.")
        adapter = {"adapter": self._adapter} if self._adapter else {}
        return {"engine": "torch", "model": self._digest, **adapter, "pooling": "mean", "max_tokens": self._max_tokens, "dtype": dtype}

    @property
    def dimensions(self) -> int:
        return int(self._module.config.hidden_size)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> np.ndarray:
        vectors_ND = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        if not texts:
            return vectors_ND
        with self._lock:
            readable = [text.encode("utf-8", "replace").decode() for text in texts]  # half a surrogate pair is no text
            encoded: list[list[int]] = self._tokenizer(readable, truncation=True, max_length=self._max_tokens)["input_ids"]
        encoded = [ids or [self._tokenizer.eos_token_id] for ids in encoded]  # an empty text of a decoder
        for rows in length_batches([len(ids) for ids in encoded], self._batch_tokens):
            one_segment = [Encoded(tuple(encoded[i]), (0,) * len(encoded[i])) for i in rows]
            batch = padded(one_segment, self._module, padding_id=self._tokenizer.pad_token_id)
            vectors_ND[rows] = mean_pooled(self._module(**batch).last_hidden_state, batch["attention_mask"]).cpu().numpy()
        return vectors_ND
