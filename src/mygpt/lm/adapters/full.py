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
    """A Model's payload, as transformers writes it; one that writes says there what ends its answers."""
    if module.can_generate():
        _name_stop_tokens(module, tokenizer)
    module.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def _name_stop_tokens(module: Any, tokenizer: Any) -> None:
    """Those that were trained, beside the base's own. Where the base names another end, programs that know nothing of chat templates
    (transformers, vLLM) would go on behind every answer. Tokenizer and config.json keep the base's: templates may be written with it."""
    from mygpt.lm.chat import ChatRenderer

    trained = ChatRenderer(tokenizer).stop_token_ids if tokenizer.chat_template else (tokenizer.eos_token_id,)
    found = module.generation_config.eos_token_id
    own = [found] if isinstance(found, int) else list(found or ())
    if missing := [i for i in trained if i is not None and i not in own]:
        ends = [*missing, *own]
        module.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]
