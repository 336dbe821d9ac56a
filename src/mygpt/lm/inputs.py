"""Plain text as the inputs of a transformers module: ids, segments, padding on the right. Training and use both encode here.

What the tokenizer puts around a text (`[CLS]`, `</s>`) is there; a special token's spelling inside a text stays text.

Dims  B texts   T tokens, padded
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch

from mygpt.lm.virtual_tokens import prompt_tokens


@dataclass(frozen=True)
class Encoded:
    token_ids: tuple[int, ...]
    segments: tuple[int, ...]  # 0, and 1 for the second text of a pair

    def __len__(self) -> int:
        return len(self.token_ids)


def encode(tokenizer: Any, text: str, pair: str = "", *, max_tokens: int | None = None) -> Encoded:
    """One text, or a pair as one input of two segments. Beyond `max_tokens` the longer text loses its end; what stands around it stays."""
    cut = {"truncation": "longest_first", "max_length": max_tokens} if max_tokens else {}
    readable = [part.encode("utf-8", "replace").decode() for part in (text, pair)]  # half a surrogate pair is no text
    given = tokenizer(
        readable[0],
        readable[1] or None,
        split_special_tokens=True,
        return_token_type_ids=True,
        return_attention_mask=False,
        verbose=False,
        **cut,
    )
    if not given["input_ids"]:  # an empty text of a tokenizer that puts nothing around it
        return Encoded((tokenizer.eos_token_id,), (0,))
    return Encoded(tuple(given["input_ids"]), tuple(given["token_type_ids"]))


def encode_windows(tokenizer: Any, text: str, *, max_tokens: int) -> list[Encoded]:
    """A whole text in consecutive pieces of at most `max_tokens`, each with what stands around a text. No token is left out or repeated."""
    readable = text.encode("utf-8", "replace").decode()
    given = tokenizer(
        readable,
        split_special_tokens=True,
        return_token_type_ids=True,
        truncation=True,
        max_length=max_tokens,
        stride=0,
        return_overflowing_tokens=True,
        verbose=False,
    )
    return [Encoded(tuple(ids), tuple(segments)) for ids, segments in zip(given["input_ids"], given["token_type_ids"], strict=True)]


def padded(examples: Sequence[Encoded], module: Any, *, padding_id: int) -> dict[str, torch.Tensor]:
    """What `module(**...)` takes: `input_ids` and `attention_mask` (B, T), and `token_type_ids` where it tells segments apart."""
    longest, device = max(map(len, examples)), next(module.parameters()).device
    inputs = {"input_ids": torch.full((len(examples), longest), padding_id), "attention_mask": torch.zeros((len(examples), longest)).long()}
    segments_BT = torch.zeros_like(inputs["input_ids"])
    for b, example in enumerate(examples):
        inputs["input_ids"][b, : len(example)] = torch.tensor(example.token_ids)
        inputs["attention_mask"][b, : len(example)] = 1
        segments_BT[b, : len(example)] = torch.tensor(example.segments)
    if (getattr(module.config, "type_vocab_size", None) or 0) > 1:
        inputs["token_type_ids"] = segments_BT
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def window_tokens(module: Any) -> int | None:
    """How many tokens the module can read, beside its virtual ones; None where positions are relative. RoBERTa's table begins after the
    padding id."""
    known = getattr(module.config, "max_position_embeddings", None)
    if not known or module.config.model_type in ("t5", "mt5", "umt5"):
        return None
    tables = (m for name, m in module.named_modules() if name.endswith("embeddings.position_embeddings"))
    first = next((table.padding_idx for table in tables if getattr(table, "padding_idx", None) is not None), -1)
    return int(known) - (first + 1) - prompt_tokens(module)


def encode_words(tokenizer: Any, words: Sequence[str]) -> tuple[Encoded, list[int | None]]:
    """Words joined by spaces, and the place of each word's first token; None for a word that the tokenizer drops whole.

    Found by character offsets, so that tokenizers need not know of words.
    """
    readable = [word.encode("utf-8", "replace").decode() for word in words]
    starts = list(accumulate((len(word) + 1 for word in readable), initial=0))
    given = tokenizer(
        " ".join(readable),
        split_special_tokens=True,
        return_token_type_ids=True,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    firsts: list[int | None] = [None] * len(words)
    for place, ((start, end), is_special) in enumerate(zip(given["offset_mapping"], given["special_tokens_mask"], strict=True)):
        word = bisect_right(starts, max(start, end - 1)) - 1  # of the token's last character: its first may be the space before the word
        if not is_special and end > start and word < len(words) and end > starts[word] and firsts[word] is None:
            firsts[word] = place
    return Encoded(tuple(given["input_ids"]), tuple(given["token_type_ids"])), firsts


def length_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Rows of similar length together, longest first; rows x longest stays within the budget (one row always goes)."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
