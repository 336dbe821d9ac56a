"""Log-probabilities of every token of given texts, with the likeliest tokens beside each: what a completions API shows as `echo`.

Plain batches, every position's logits: for a text as a whole, or options of a question, `infer/scoring` is cheaper.

Dims  B texts   T tokens   N positions   V vocabulary   K likeliest
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from mygpt.infer.prefixes import Tokens
from mygpt.infer.protocols import TokenScores
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.attention import grouped_attention
from mygpt.lm.logits import logits_at
from mygpt.lm.plain_text import inner_ids, text_ids

_LOGITS_AT_ONCE = 1_024  # positions: logits are large, (N, V) float32
_BATCH_TOKENS = 4_096
_HALF_A_CHARACTER = "\ufffd"


class TokenScorer:
    """Of the weights that an engine holds; what `serve` takes as its `TextModel`."""

    def __init__(self, engine: TorchEngine):
        self._engine = engine

    @property
    def _tokenizer(self) -> Any:
        return self._engine.loaded.tokenizer

    @property
    def vocabulary(self) -> int:
        """Token ids go up to this."""
        size: int = self._engine.loaded.module.get_input_embeddings().weight.shape[0]
        return size

    @property
    def stop_token_ids(self) -> frozenset[int]:
        return self._engine.stop_token_ids

    def encode(self, text: str, *, beginning: bool = False) -> tuple[Tokens, Tokens]:
        """(what stands before the text, the text itself). `beginning`: the beginning-of-text token, also where the tokenizer puts none."""
        inner = inner_ids(self._tokenizer, text)
        whole = text_ids(self._tokenizer, text)
        before = whole[: len(whole) - len(inner)] or (text_ids(self._tokenizer, "") if beginning else ())
        return before, inner

    def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """What each token adds to the text. Joined they are the text: of a character in several tokens, the last one has it."""
        found: list[str] = []
        start = done = 0  # tokens from `start` are spelled anew, since how one is spelled can depend on the one before it
        for end in range(1, len(token_ids) + 1):
            before, now = (self._spelled(token_ids[start:to]) for to in (done, end))
            if now.endswith(_HALF_A_CHARACTER) and end < len(token_ids):
                found.append("")
            else:
                found.append(now[len(before) :])
                start, done = done, end
        return found

    def _spelled(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    @torch.inference_mode()
    def score(self, texts: Sequence[Tokens], *, num_likeliest: int = 1) -> list[TokenScores]:
        """Every text has a token at least, and fits the model's window."""
        module = self._engine.loaded.module
        device = next(module.parameters()).device
        scores: dict[int, TokenScores] = {}
        for batch in _batches(texts):
            ids_BT = torch.zeros((len(batch), len(texts[batch[0]])), dtype=torch.long)
            for b, i in enumerate(batch):
                ids_BT[b, : len(texts[i])] = torch.tensor(texts[i])
            with grouped_attention(module):  # padding comes last: a causal model's real tokens do not see it
                hidden_BTD = module.get_decoder()(input_ids=ids_BT.to(device), use_cache=False).last_hidden_state
            for b, i in enumerate(batch):
                scores[i] = _of_one(module, texts[i], hidden_BTD[b, : len(texts[i])], num_likeliest)
        return [scores[i] for i in range(len(texts))]


def _of_one(module: Any, ids: Tokens, hidden_TD: torch.Tensor, num_likeliest: int) -> TokenScores:
    next_T = torch.tensor([*ids[1:], ids[0]], device=hidden_TD.device)  # nothing is asked of the last place
    logprobs: list[float] = []
    likeliest: list[tuple[tuple[int, float], ...]] = []
    for some_ND, next_N in zip(hidden_TD.split(_LOGITS_AT_ONCE), next_T.split(_LOGITS_AT_ONCE), strict=True):
        logprobs_NV = logits_at(module, some_ND).log_softmax(-1)
        logprobs += logprobs_NV.gather(-1, next_N[:, None])[:, 0].tolist()
        values_NK, ids_NK = logprobs_NV.topk(num_likeliest, dim=-1)
        likeliest += [tuple(zip(own, of, strict=True)) for own, of in zip(ids_NK.tolist(), values_NK.tolist(), strict=True)]
    return TokenScores(tuple(logprobs[:-1]), tuple(likeliest))


def _batches(texts: Sequence[Tokens]) -> Iterator[list[int]]:
    """Longest first, at most `_BATCH_TOKENS` with padding."""
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    while order:
        num_texts = max(1, _BATCH_TOKENS // max(1, len(texts[order[0]])))
        yield order[:num_texts]
        order = order[num_texts:]
