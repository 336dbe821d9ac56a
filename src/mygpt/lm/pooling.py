"""One vector for a text: the mean of its tokens' last hidden states, length 1; and the files that tell other programs so.

Source  Reimers and Gurevych 2019, arXiv:1908.10084, section 3 (MEAN pooling); the files are those of sentence-transformers
Dims    B texts   T tokens   D dimensions
"""

import json
from pathlib import Path

import torch

from mygpt.artifacts.model import Model
from mygpt.core.errors import UsageError

_MODULES = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))


def mean_pooled(hidden_BTD: torch.Tensor, real_BT: torch.Tensor) -> torch.Tensor:
    """(B, D) float32, each of length 1. `real_BT` is 1 for tokens and 0 for padding."""
    hidden_BTD, real_BT1 = hidden_BTD.float(), real_BT[:, :, None].float()
    return torch.nn.functional.normalize((hidden_BTD * real_BT1).sum(1) / real_BT1.sum(1), dim=-1)


def require_mean_pooling(model: Model) -> None:
    """A model that was trained with another pooling would give vectors that mean nothing here."""
    described = model.payload / "1_Pooling" / "config.json"
    pooling = json.loads(described.read_text(encoding="utf-8")) if described.exists() else {"pooling_mode_mean_tokens": True}
    if not pooling.get("pooling_mode_mean_tokens"):
        named = next((key for key, value in pooling.items() if key.startswith("pooling_mode") and value is True), "another pooling")
        raise UsageError(
            f"{model.id} was trained with {named}, and only mean pooling is read.", fix="Use `minilm`, or another mean-pooled model."
        )


def write_sentence_files(folder: Path, *, dimensions: int, max_tokens: int) -> None:
    """Beside a saved module, so that sentence-transformers and `TorchEmbedder` pool as it was trained."""
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"} for i, (path, name) in enumerate(_MODULES)
    ]
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": dimensions, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    for name, content in (
        ("modules.json", modules),
        ("sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False}),
        ("1_Pooling/config.json", pooling),
    ):
        (folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
