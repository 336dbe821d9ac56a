"""Where virtual tokens begin: at real words. From random vectors they hardly learn: the model has never seen anything like them.

Source     Lester et al. 2021, arXiv:2104.08691, section 3.2 (sampled from the 5,000 commonest tokens, or from text, against random)
"""

from collections.abc import Iterable
from typing import Any

import torch

_COMMON = 5_000  # ids of a byte-pair vocabulary go from common to rare
INSTRUCTION = "You are a helpful assistant. Read the question with care and answer it briefly and correctly."


def ids_of(text: str, tokenizer: Any, *, num_tokens: int) -> list[int]:
    """The tokens of `text`, again and again until there are enough; without a text, common tokens drawn by torch's random state."""
    special = set(tokenizer.all_special_ids)
    ids = [i for i in tokenizer(text, add_special_tokens=False)["input_ids"] if i not in special] if text.strip() else []
    if not ids:
        real = [i for i in range(min(len(tokenizer), _COMMON)) if i not in special]
        ids = [real[n] for n in torch.randint(len(real), (num_tokens,)).tolist()]
    return [ids[n % len(ids)] for n in range(num_tokens)]


def words(ids: Iterable[int], tokenizer: Any) -> list[str]:
    """Each token as text of its own."""
    return [str(tokenizer.decode([i], clean_up_tokenization_spaces=False)) for i in ids]
