"""Sentence embeddings with a BERT-like transformers model: mean of the last hidden states over the real tokens, length 1.

Source    Reimers and Gurevych 2019, arXiv:1908.10084, section 3 (MEAN pooling)
We differ batches are sorted by length and sized by tokens, so that padding costs little; bfloat16 where the machine multiplies it in
          hardware (pooling stays float32): cosines move by about 0.001
Dims      B texts of a batch   T tokens   D dimensions
"""

import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from mygpt.artifacts.model import Model
from mygpt.core.errors import UsageError
from mygpt.core.outbound import silence_hub
from mygpt.infer.protocols import Identity
from mygpt.lm.load import preferred_device, preferred_dtype
from mygpt.lm.memory import keep_freed_memory


class TorchEmbedder:
    def __init__(self, model: Model, *, max_tokens: int = 256, batch_tokens: int = 4_096, dtype: torch.dtype | None = None):
        if model.head != "embedder":
            raise UsageError(f"{model.id} has the head `{model.head}`, not `embedder`.", fix="Name an embedding model, such as `minilm`.")
        _require_mean_pooling(model)
        silence_hub()
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        self._digest = model.digest
        self._tokenizer: Any = AutoTokenizer.from_pretrained(model.payload, local_files_only=True)
        logging.disable_progress_bar()
        self._device = preferred_device()
        if self._device.type == "cpu":
            keep_freed_memory()
        self._dtype = dtype or preferred_dtype(self._device)
        self._module: Any = AutoModel.from_pretrained(model.payload, local_files_only=True, dtype=self._dtype).eval().to(self._device)
        self._max_tokens = min(max_tokens, self._module.config.max_position_embeddings)
        self._batch_tokens = batch_tokens
        self._lock = threading.Lock()  # a fast tokenizer keeps its truncation settings inside itself

    @property
    def identity(self) -> Identity:
        dtype = str(self._dtype).removeprefix("torch.")
        return {"engine": "torch", "model": self._digest, "pooling": "mean", "max_tokens": self._max_tokens, "dtype": dtype}

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
        for rows in _batches([len(ids) for ids in encoded], self._batch_tokens):
            batch = self._tokenizer.pad({"input_ids": [encoded[i] for i in rows]}, return_tensors="pt").to(self._device)
            hidden_BTD = self._module(**batch).last_hidden_state.float()
            real_BT1 = batch["attention_mask"][:, :, None].to(hidden_BTD.dtype)
            mean_BD = (hidden_BTD * real_BT1).sum(1) / real_BT1.sum(1)
            vectors_ND[rows] = torch.nn.functional.normalize(mean_BD, dim=-1).cpu().numpy()
        return vectors_ND


def _require_mean_pooling(model: Model) -> None:
    """A model that was trained with another pooling would give vectors that mean nothing here."""
    described = model.payload / "1_Pooling" / "config.json"
    pooling = json.loads(described.read_text(encoding="utf-8")) if described.exists() else {"pooling_mode_mean_tokens": True}
    if not pooling.get("pooling_mode_mean_tokens"):
        named = next((key for key, value in pooling.items() if key.startswith("pooling_mode") and value is True), "another pooling")
        raise UsageError(
            f"{model.id} was trained with {named}, and only mean pooling is read.", fix="Use `minilm`, or another mean-pooled model."
        )


def _batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Rows of similar length together; rows x longest stays within the budget (one row always goes)."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
