"""Batched generation and scoring with a transformers model: Completer, StreamingCompleter and Scorer in one.

Prompts that begin alike share their prefix (`infer/prefixes`), finished rows leave the batch, finished trees leave the cache.

Dims  B trees   Q new tokens of a tree   R rows whose next token is chosen   V vocabulary   T tokens   D hidden
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from mygpt.artifacts.dataset import Conversation
from mygpt.artifacts.model import Adapter, Model
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.infer.kv_cache import SlotCache
from mygpt.infer.prefixes import Tokens, Tree, share_prefixes, waves
from mygpt.infer.protocols import Answer, Identity, Sampling, Score
from mygpt.infer.sampling import choose, generators
from mygpt.infer.streamed_text import cut_at_stop, settled
from mygpt.infer.tree_attention import PADDING, TreeSlots, tree_decoder
from mygpt.lm.attention import grouped_attention
from mygpt.lm.chat import ChatRenderer
from mygpt.lm.load import Loaded, load_lm, preferred_dtype
from mygpt.lm.logits import logits_at

_TREE_ROWS = 16
_PREFILL_TOKENS = 4096  # padded, computed at once: more does not stay in the cache of the processor
_FIRST_TOKENS = 64  # of every answer: room made for them at the start
_LOGITS_AT_ONCE = 1024  # positions: a text's logits are large, (T, V) float32


@dataclass
class _Row:
    """One answer under way."""

    index: int  # in the caller's list
    segment: int
    position: int  # of the next token to feed
    limit: int  # tokens that the answer may have
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str = ""


class TorchEngine:
    def __init__(
        self,
        model: Model,
        *,
        adapter: Adapter | None = None,
        loaded: Loaded | None = None,
        run: Run | None = None,
        max_rows: int = 64,
        max_wave_tokens: int = 32_768,
        score_tokens: int = 8_192,
    ):
        """The weights are read at first use, unless `loaded` holds them already."""
        self._model, self._adapter, self._run = model, adapter, run
        self._max_rows, self._max_wave_tokens, self._score_tokens = max_rows, max_wave_tokens, score_tokens
        if loaded is not None:
            self._loaded = loaded

    @cached_property
    def _loaded(self) -> Loaded:
        return load_lm(self._model, adapter=self._adapter)

    @cached_property
    def _module(self) -> Any:
        return self._loaded.module.eval()

    @cached_property
    def _device(self) -> torch.device:
        device: torch.device = next(self._module.parameters()).device
        return device

    @cached_property
    def renderer(self) -> ChatRenderer:
        return ChatRenderer(self._loaded.tokenizer)

    @cached_property
    def _stops(self) -> frozenset[int]:
        """The end of a turn in the chat template, and what the model's makers let `generate` stop at."""
        ends = getattr(getattr(self._module, "generation_config", None), "eos_token_id", None)
        return frozenset(self.renderer.stop_token_ids) | frozenset([ends] if isinstance(ends, int) else ends or ())

    @cached_property
    def context_tokens(self) -> int:
        """The model's window: as many tokens as it has positions for."""
        text = self._module.config.get_text_config()
        return int(getattr(text, "max_position_embeddings", None) or self._loaded.tokenizer.model_max_length)

    @property
    def identity(self) -> Identity:
        dtype = self._loaded.module.dtype if "_loaded" in self.__dict__ else preferred_dtype()
        adapter = self._adapter.digest if self._adapter else None
        return {"engine": "torch", "model": self._model.digest, "adapter": adapter, "dtype": str(dtype).removeprefix("torch.")}

    def count_tokens(self, conversation: Conversation) -> int:
        return len(self.renderer.prompt(conversation))

    # -- Completer --------------------------------------------------------------------------------------------------------

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        prompts = self._prompts(conversations, sampling)
        answers: list[Answer | None] = [None] * len(prompts)
        progress = self._run.progress(len(prompts), "answers") if self._run else None
        row_generators = generators(sampling, prompts)
        trees = share_prefixes(prompts, max_rows=min(_TREE_ROWS, self._max_rows))
        for wave in waves(trees, max_rows=self._max_rows, max_tokens=self._max_wave_tokens):
            for row in self._generate(wave, sampling, row_generators):
                if row.finish_reason:
                    answers[row.index] = self._answer(row, prompts[row.index], sampling)
                    if progress:
                        progress.advance()
        return [a for a in answers if a is not None]

    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[str | Answer]:
        prompts = self._prompts([conversation], sampling)
        shown = 0
        for row in self._generate([Tree((), (0,), (prompts[0],))], sampling, generators(sampling, prompts)):
            text = cut_at_stop(self._text(row), sampling.stop)
            text = settled(text, () if row.finish_reason else sampling.stop)
            if len(text) > shown:
                yield text[shown:]
                shown = len(text)
            if row.finish_reason:
                yield self._answer(row, prompts[0], sampling)

    # -- Scorer -----------------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        texts = [self._scored_ids(*pair) for pair in zip(prompts, continuations, strict=True)]
        scores: list[Score | None] = [None] * len(texts)
        progress = self._run.progress(len(texts), "texts") if self._run else None
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i][0]))
        while order:
            longest = len(texts[order[0]][0])
            num_rows = max(1, self._score_tokens // longest)
            batch, order = order[:num_rows], order[num_rows:]
            ids_BT = torch.zeros((len(batch), longest), dtype=torch.long)
            for b, i in enumerate(batch):
                ids_BT[b, : len(texts[i][0])] = torch.tensor(texts[i][0])
            ids_BT = ids_BT.to(self._device)
            with grouped_attention(self._module):  # padding comes last: a causal model's real tokens do not see it
                hidden_BTD = self._module.get_decoder()(input_ids=ids_BT, use_cache=False).last_hidden_state
            for b, i in enumerate(batch):
                ids, start = texts[i]
                logprob = self._summed_logprob(hidden_BTD[b, start - 1 : len(ids) - 1], ids_BT[b, start : len(ids)])
                scores[i] = Score(logprob, len(ids) - start, len(continuations[i].encode()))
                if self._run:
                    self._run.count(tokens=len(ids))
                if progress:
                    progress.advance()
        return [s for s in scores if s is not None]

    def _scored_ids(self, prompt: str, continuation: str) -> tuple[list[int], int]:
        """Prompt and continuation, encoded apart, and where the continuation begins: not at 0, its first token is predicted too."""
        tokenizer = self._loaded.tokenizer
        beginning = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        # Some tokenizers put the beginning-of-text token before every text (Llama, Gemma): their models expect it.
        always = tokenizer.encode("")[:1] == [beginning]
        before = ([beginning] if always or not prompt else []) + tokenizer.encode(prompt, add_special_tokens=False)
        ids = before + tokenizer.encode(continuation, add_special_tokens=False)
        if len(ids) > self.context_tokens:
            raise UsageError(
                f"A text of {len(ids)} tokens does not fit the model's window of {self.context_tokens}.", fix="Score it in shorter pieces."
            )
        return ids, len(before)

    def _summed_logprob(self, hidden_TD: torch.Tensor, targets_T: torch.Tensor) -> float:
        total = 0.0
        for hidden, targets in zip(hidden_TD.split(_LOGITS_AT_ONCE), targets_T.split(_LOGITS_AT_ONCE), strict=True):
            logits_TV = logits_at(self._module, hidden)
            total += float((logits_TV.gather(-1, targets[:, None])[:, 0] - logits_TV.logsumexp(-1)).sum())
        return total

    # -- inside -----------------------------------------------------------------------------------------------------------

    @cached_property
    def _decoder(self) -> Any:
        return tree_decoder(self._module)

    def _prompts(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Tokens]:
        """Raises UsageError where nothing is left for an answer; says so where less is left than was asked for."""
        if sampling.max_tokens < 1:
            raise UsageError(f"An answer of at most {sampling.max_tokens} tokens was asked for.", fix="Set `max_tokens` to 1 or more.")
        prompts = [self.renderer.prompt(c) for c in conversations]
        longest = max(map(len, prompts), default=0)
        room = self.context_tokens - longest
        if room < 1:
            raise UsageError(
                f"The conversation has {longest} tokens and the model's window {self.context_tokens}, so nothing is left for an answer.",
                fix="Shorten it, or start a new conversation.",
            )
        if self._run and room < sampling.max_tokens:
            capped = sum(len(p) + sampling.max_tokens > self.context_tokens for p in prompts)
            self._run.warn(
                f"{capped} of {len(prompts)} answers may have fewer than the {sampling.max_tokens} tokens that were asked for (at least "
                f"{room}): prompt and answer together have to fit the model's window of {self.context_tokens}."
            )
        return prompts

    @torch.inference_mode()
    def _generate(self, wave: Sequence[Tree], sampling: Sampling, row_generators: list[torch.Generator]) -> Iterator[_Row]:
        """Yield a row each time it gains a token; the last time with its finish reason."""
        active, fed_3BQ, last = self._laid_out(wave, sampling)
        rows = [row for going in active for row in going]
        room = max(map(len, active)) * min(_FIRST_TOKENS, max(row.limit for row in rows))
        cache, slots, hidden_RD = self._prefilled(fed_3BQ, last, num_slots=fed_3BQ.shape[2] + room)

        while True:
            ids_R, logprobs_R = choose(logits_at(self._module, hidden_RD), sampling, [row_generators[row.index] for row in rows])
            for row, token, logprob in zip(rows, ids_R.tolist(), logprobs_R.tolist(), strict=True):
                row.ids.append(token)
                row.logprobs.append(logprob)
                if token in self._stops or (sampling.stop and cut_at_stop(text := self._text(row), sampling.stop) != text):
                    row.finish_reason = "stop"
                elif len(row.ids) >= row.limit:
                    row.finish_reason = "length"
                yield row
            if self._run:
                self._run.count(tokens=len(rows))
            active = [[row for row in going if not row.finish_reason] for going in active]
            alive = [b for b, going in enumerate(active) if going]
            if not alive:
                return
            if len(alive) <= 0.7 * len(active):
                keep = torch.tensor(alive, device=self._device)
                cache.keep(keep)
                slots.keep(keep)
                active = [active[b] for b in alive]

            # one step: the newest token of every row still going; trees with fewer rows are padded
            rows = [row for going in active for row in going]
            fed_3BQ = _padding(len(active), max(map(len, active)))
            for b, going in enumerate(active):
                if going:
                    fed_3BQ[:, b, : len(going)] = torch.tensor([[r.ids[-1], r.position, r.segment] for r in going]).T
            for row in rows:
                row.position += 1
            is_row_BQ = (fed_3BQ[2] != PADDING).to(self._device)
            hidden_RD = self._forward(fed_3BQ, cache, slots)[is_row_BQ]

    def _laid_out(self, wave: Sequence[Tree], sampling: Sampling) -> tuple[list[list[_Row]], torch.Tensor, list[tuple[int, int]]]:
        """The rows of each tree; what is fed first: prefix, then every suffix; and where (tree, query) each row's prompt ends."""
        active: list[list[_Row]] = []
        last: list[tuple[int, int]] = []
        fed_3BQ = _padding(len(wave), max(t.num_tokens for t in wave))
        for b, tree in enumerate(wave):
            shared = len(tree.prefix)
            ids, positions, segments = list(tree.prefix), list(range(shared)), [0] * shared
            active.append([])
            for k, (index, suffix) in enumerate(zip(tree.rows, tree.suffixes, strict=True), start=1):
                end = shared + len(suffix)
                ids += suffix
                positions += range(shared, end)
                segments += [k] * len(suffix)
                active[b].append(_Row(index, k, end, min(sampling.max_tokens, self.context_tokens - end)))
                last.append((b, len(ids) - 1))
            fed_3BQ[:, b, : len(ids)] = torch.tensor([ids, positions, segments])
        return active, fed_3BQ, last

    def _prefilled(
        self, fed_3BQ: torch.Tensor, last: list[tuple[int, int]], *, num_slots: int
    ) -> tuple[SlotCache, TreeSlots, torch.Tensor]:
        """Feed the prompts a few trees at a time, so that what is computed at once stays small; then go on with all of them."""
        caches, slots, hidden = [], [], []
        longest_B = (fed_3BQ[2] != PADDING).sum(-1).tolist()
        first = 0
        while first < len(longest_B):
            end = first + 1
            while end < len(longest_B) and max(longest_B[first : end + 1]) * (end + 1 - first) <= _PREFILL_TOKENS:
                end += 1
            longest = max(longest_B[first:end])
            alone = (first, end) == (0, len(longest_B))
            cache, part = SlotCache(num_slots=num_slots if alone else longest), TreeSlots(self._module.config)
            hidden_BQD = self._forward(fed_3BQ[:, first:end, :longest], cache, part)
            ends = [(b - first, q) for b, q in last if first <= b < end]
            trees_R, queries_R = (torch.tensor(x, device=self._device) for x in zip(*ends, strict=True))
            hidden.append(hidden_BQD[trees_R, queries_R])
            caches.append(cache)
            slots.append(part)
            first = end
        if len(caches) == 1:
            return caches[0], slots[0], hidden[0]
        return SlotCache.joined(caches, num_slots=num_slots), TreeSlots.joined(self._module.config, slots), torch.cat(hidden)

    def _forward(self, fed_3BQ: torch.Tensor, cache: SlotCache, slots: TreeSlots) -> torch.Tensor:
        ids_BQ, positions_BQ, segments_BQ = fed_3BQ.to(self._device)
        slots.add(segments_BQ, positions_BQ)
        mask = slots.mask(ids_BQ.shape[1], self._module.dtype)
        with grouped_attention(self._module):
            output: Any = self._decoder(
                input_ids=ids_BQ, position_ids=positions_BQ, attention_mask=mask, past_key_values=cache, use_cache=True
            )
        cache.advance(ids_BQ.shape[1])
        hidden_BQD: torch.Tensor = output.last_hidden_state
        return hidden_BQD

    def _text(self, row: _Row) -> str:
        ids = row.ids[:-1] if row.ids and row.ids[-1] in self._stops else row.ids
        return str(self._loaded.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _answer(self, row: _Row, prompt: Tokens, sampling: Sampling) -> Answer:
        text = settled(cut_at_stop(self._text(row), sampling.stop), ())
        return Answer(text.strip(), "stop" if row.finish_reason == "stop" else "length", tuple(row.ids), tuple(row.logprobs), len(prompt))


def _padding(num_trees: int, num_queries: int) -> torch.Tensor:
    """(3, B, Q): ids, positions, segments."""
    fed_3BQ = torch.zeros(3, num_trees, num_queries, dtype=torch.long)
    fed_3BQ[2] = PADDING
    return fed_3BQ
