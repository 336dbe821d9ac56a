"""Full fine-tuning: every weight moves, and the result is a new Model.

Source     Howard and Ruder 2018, arXiv:1801.06146, section 3.3 (tuning a whole pretrained model)
Cost       gradients and two moments for every weight: 16 bytes a weight beside the model, and a whole Model on disk
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveFloat

from mygpt.core.config import Config


class Full(Config):
    """Every weight."""

    name: Literal["full"] = "full"
    learning_rate: PositiveFloat = 1e-4


def attach(module: Any) -> Any:
    return module.requires_grad_(True)


def save(module: Any, tokenizer: Any, folder: Path) -> None:
    """A Model's payload, as transformers writes it."""
    module.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
