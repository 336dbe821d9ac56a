"""Log-probabilities of given texts, with everything that texts have in common computed once.

Options of one question share the question, questions share the examples before them: both are trees (`infer/prefixes`). Texts that share
nothing run as plain padded batches.

Dims  B texts or trees   T tokens   Q new tokens of a tree   N positions   V vocabulary   D hidden
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mygpt.infer.batch import forward, laid_out, padding, root
from mygpt.infer.kv_cache import SlotCache
from mygpt.infer.padded_parts import part_sizes, pass_tokens
from mygpt.infer.prefixes import Tokens, Tree, share_prefixes, share_stems
from mygpt.infer.tree_attention import TreeSlots, is_tree_decoder
from mygpt.lm.attention import grouped_attention
from mygpt.lm.logits import logits_at
from mygpt.lm.token_choice import log_sums

_LOGITS_AT_ONCE = 1_024  # positions: logits are large, (N, V) float32
_TREE_ROWS = 64


@dataclass(frozen=True)
class Text:
    ids: Tokens
    start: int  # of the scored part: at least 1


@torch.inference_mode()
def score_texts(module: Any, texts: Sequence[Text], *, max_tokens: int) -> Iterator[tuple[int, float, bool]]:
    """(number of the text, log p of its scored part, whether that part is the greedy one), as they are done.

    `max_tokens`, with padding, are computed at once.
    """
    alone = list(range(len(texts)))
    if is_tree_decoder(module):
        trees = share_prefixes([text.ids for text in texts], max_rows=_TREE_ROWS, max_suffix_tokens=1_024)
        rooted = list(zip(share_stems(trees, min_shared=32), trees, strict=True))
        shared = [(stem, tree) for (stem, tree), _ in rooted if stem or len(tree.rows) > 1]
        in_trees = {i for _, tree in shared for i in tree.rows}
        alone = [i for i in alone if i not in in_trees]
        yield from _score_trees(module, texts, shared, max_tokens)
    yield from _score_alone(module, texts, alone, max_tokens)


def _score_trees(
    module: Any, texts: Sequence[Text], trees: Sequence[tuple[Tokens, Tree]], max_tokens: int
) -> Iterator[tuple[int, float, bool]]:
    """Every tree after its stem; the stem's keys and values are computed once for all its trees."""
    device = next(module.parameters()).device
    decoder = module.get_decoder()
    by_stem: dict[Tokens, list[Tree]] = {}
    for stem, tree in trees:
        by_stem.setdefault(stem, []).append(tree)
    virtual = root(module)
    num_virtual = virtual[0].length if virtual else 0
    for stem, own in by_stem.items():
        num_before = num_virtual + len(stem)
        stem_cache, stem_slots = SlotCache(num_slots=len(stem)), TreeSlots(module.config)
        if virtual:
            stem_cache, stem_slots = virtual[0].repeated(1, num_slots=num_before), virtual[1].repeated(1)
        stem_hidden_TD = torch.empty(0, module.config.get_text_config().hidden_size, dtype=module.dtype, device=device)
        if stem:
            fed_3BQ = torch.tensor([list(stem), list(range(num_virtual, num_before)), [0] * len(stem)], device=device)[:, None]
            stem_hidden_TD = forward(module, decoder, fed_3BQ, [stem_cache], [stem_slots])[0]
        own.sort(key=lambda t: -t.num_tokens)
        lengths = [tree.num_tokens + num_before // 4 for tree in own]  # the mask of a batch is trees x tokens x (stem + tokens)
        for size in part_sizes(lengths, one_more=pass_tokens(device), most=max_tokens):
            batch, own = own[:size], own[size:]
            fed_3BQ = padding(len(batch), max(tree.num_tokens for tree in batch))
            for b, tree in enumerate(batch):
                ids, positions, segments = laid_out(tree, first=num_before)
                fed_3BQ[:, b, : len(ids)] = torch.tensor([ids, positions, segments])
            cache, slots = SlotCache(num_slots=fed_3BQ.shape[2]), TreeSlots(module.config)
            if num_before:
                cache = stem_cache.repeated(len(batch), num_slots=num_before + fed_3BQ.shape[2])
                slots = stem_slots.repeated(len(batch))
            hidden_BQD = forward(module, decoder, fed_3BQ.to(device), [cache], [slots])
            wanted: list[torch.Tensor] = []
            for b, tree in enumerate(batch):
                at = len(tree.prefix)
                for i, suffix in zip(tree.rows, tree.suffixes, strict=True):
                    parts = (stem_hidden_TD[: len(stem)], hidden_BQD[b, : len(tree.prefix)], hidden_BQD[b, at : at + len(suffix)])
                    wanted.append(_between(parts, texts[i].start - 1, len(texts[i].ids) - 1))
                    at += len(suffix)
            numbers = [i for tree in batch for i in tree.rows]
            yield from zip(numbers, *_sums(module, [texts[i] for i in numbers], wanted), strict=True)


def _between(parts: Sequence[torch.Tensor], start: int, end: int) -> torch.Tensor:
    """Positions `start` to `end` of what the parts are joined; the rest, mostly a long stem, is not copied."""
    found, first = [], 0
    for part_TD in parts:
        found.append(part_TD[max(0, start - first) : max(0, end - first)])
        first += len(part_TD)
    return torch.cat(found)


def _score_alone(module: Any, texts: Sequence[Text], numbers: Sequence[int], max_tokens: int) -> Iterator[tuple[int, float, bool]]:
    device = next(module.parameters()).device
    order = sorted(numbers, key=lambda i: -len(texts[i].ids))
    for size in part_sizes([len(texts[i].ids) for i in order], one_more=pass_tokens(device), most=max_tokens):
        batch, order = order[:size], order[size:]
        ids_BT = torch.zeros((size, len(texts[batch[0]].ids)), dtype=torch.long)
        for b, i in enumerate(batch):
            ids_BT[b, : len(texts[i].ids)] = torch.tensor(texts[i].ids)
        with grouped_attention(module):  # padding comes last: a causal model's real tokens do not see it
            hidden_BTD = module.get_decoder()(input_ids=ids_BT.to(device), use_cache=False).last_hidden_state
        own = [texts[i] for i in batch]
        wanted = [hidden_BTD[b, text.start - 1 : len(text.ids) - 1] for b, text in enumerate(own)]
        yield from zip(batch, *_sums(module, own, wanted), strict=True)


def _sums(module: Any, texts: Sequence[Text], hidden: Sequence[torch.Tensor]) -> tuple[list[float], list[bool]]:
    """Summed log-probabilities of every text's scored part, and whether each of its tokens is the likeliest (a tie counts as that).

    The vocabulary product runs over the positions of all of them together.
    """
    hidden_ND = torch.cat(list(hidden))
    targets_N = torch.tensor([token for text in texts for token in text.ids[text.start :]], device=hidden_ND.device)
    logprobs_N, greedy_N = [], []
    for some_ND, targets in zip(hidden_ND.split(_LOGITS_AT_ONCE), targets_N.split(_LOGITS_AT_ONCE), strict=True):
        logits_NV = logits_at(module, some_ND)
        own_N = logits_NV.gather(-1, targets[:, None])[:, 0]
        logprobs_N.append(own_N - log_sums(logits_NV))
        greedy_N.append(own_N >= logits_NV.amax(-1))
    lengths = [len(text.ids) - text.start for text in texts]
    joined_N = torch.cat(logprobs_N).double().cpu() if logprobs_N else torch.zeros(0, dtype=torch.double)
    chosen_N = torch.cat(greedy_N).cpu() if greedy_N else torch.zeros(0, dtype=torch.bool)
    return [float(part.sum()) for part in joined_N.split(lengths)], [bool(part.all()) for part in chosen_N.split(lengths)]
