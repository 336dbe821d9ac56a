"""Batched generation and scoring with a transformers model: Completer, StreamingCompleter and Scorer in one.

Prompts that begin alike share their prefix (`infer/prefixes`), finished rows leave the batch, finished trees leave the cache.

Dims  B trees   Q new tokens of a tree   S slots of the cache   R rows whose next token is chosen   V vocabulary   T tokens
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
from mygpt.lm.attention import grouped_attention
from mygpt.infer.kv_cache import SlotCache
from mygpt.infer.prefixes import Tokens, Tree, share_prefixes, waves
from mygpt.infer.protocols import Answer, Identity, Sampling, Score
from mygpt.infer.sampling import choose, generators
from mygpt.lm.chat import ChatRenderer
from mygpt.lm.load import Loaded, load_lm, preferred_dtype
from mygpt.lm.logits import logits_at

_PADDING = -1  # segment of slots that nobody sees


@dataclass
class _Row:
    """One answer under way."""

    index: int  # in the caller's list
    segment: int
    position: int  # of the next token to feed
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
        max_wave_tokens: int = 16_384,
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
        return frozenset(self.renderer.stop_token_ids)

    @cached_property
    def context_tokens(self) -> int:
        config = self._module.config
        window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
        return int(min(config.max_position_embeddings, window or config.max_position_embeddings))

    @property
    def identity(self) -> Identity:
        dtype = self._loaded.module.dtype if "_loaded" in self.__dict__ else preferred_dtype()
        adapter = self._adapter.digest if self._adapter else None
        return {"engine": "torch", "model": self._model.digest, "adapter": adapter, "dtype": str(dtype).removeprefix("torch.")}

    def count_tokens(self, conversation: Conversation) -> int:
        return len(self.renderer.prompt(conversation))

    # -- Completer --------------------------------------------------------------------------------------------------------

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        prompts = [self._prompt(c, sampling) for c in conversations]
        answers: list[Answer | None] = [None] * len(prompts)
        progress = self._run.progress(len(prompts), "answers") if self._run else None
        row_generators = generators(sampling, len(prompts))
        for wave in waves(share_prefixes(prompts), max_rows=self._max_rows, max_tokens=self._max_wave_tokens):
            for row in self._generate(wave, sampling, row_generators):
                if row.finish_reason:
                    answers[row.index] = self._answer(row, prompts[row.index], sampling)
                    if progress:
                        progress.advance()
        return [a for a in answers if a is not None]

    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[str | Answer]:
        prompt = self._prompt(conversation, sampling)
        shown = ""
        for row in self._generate([Tree((), (0,), (prompt,))], sampling, generators(sampling, 1)):
            text = self._text(row, sampling)
            if not row.finish_reason and sampling.stop:  # hold back what may become a stop string
                text = text[: len(text) - max(len(s) for s in sampling.stop)] if len(text) > max(len(s) for s in sampling.stop) else ""
            if len(text) > len(shown) and not text.endswith("\ufffd"):
                yield text[len(shown) :]
                shown = text
            if row.finish_reason:
                yield self._answer(row, prompt, sampling)

    # -- Scorer -----------------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        tokenizer = self._loaded.tokenizer
        beginning = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        pairs: list[tuple[list[int], int]] = []
        for prompt, continuation in zip(prompts, continuations, strict=True):
            before = tokenizer.encode(prompt, add_special_tokens=False) if prompt else [beginning]
            whole = before + tokenizer.encode(continuation, add_special_tokens=False)
            if len(whole) > self.context_tokens:
                raise UsageError(
                    f"A text of {len(whole)} tokens does not fit the model's window of {self.context_tokens}.", fix="Score it in shorter pieces."
                )
            pairs.append((whole, len(before)))
        scores: list[Score | None] = [None] * len(pairs)
        progress = self._run.progress(len(pairs), "texts") if self._run else None
        order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i][0]))
        while order:
            longest = len(pairs[order[0]][0])
            batch, order = order[: max(1, self._score_tokens // longest)], order[max(1, self._score_tokens // longest) :]
            ids_BT = torch.full((len(batch), longest), beginning, device=self._device)
            for b, i in enumerate(batch):
                ids_BT[b, : len(pairs[i][0])] = torch.tensor(pairs[i][0], device=self._device)
            hidden_BTD = self._module.get_decoder()(input_ids=ids_BT, use_cache=False).last_hidden_state  # pads come last: causal
            for b, i in enumerate(batch):
                whole, start = pairs[i]
                logits_TV = logits_at(self._module, hidden_BTD[b, start - 1 : len(whole) - 1])
                targets_T = ids_BT[b, start : len(whole)]
                logprob = float((logits_TV.gather(-1, targets_T[:, None])[:, 0] - logits_TV.logsumexp(-1)).sum())
                scores[i] = Score(logprob, len(whole) - start, len(continuations[i].encode()))
                if progress:
                    progress.advance()
        return [s for s in scores if s is not None]

    # -- inside -----------------------------------------------------------------------------------------------------------

    def _prompt(self, conversation: Conversation, sampling: Sampling) -> Tokens:
        prompt = tuple(self.renderer.prompt(conversation))
        if len(prompt) >= self.context_tokens:
            raise UsageError(
                f"The conversation has {len(prompt)} tokens and the model's window {self.context_tokens}, so nothing is left for an answer.",
                fix="Shorten it, or start a new conversation.",
            )
        return prompt

    @torch.inference_mode()
    def _generate(self, wave: Sequence[Tree], sampling: Sampling, row_generators: list[torch.Generator]) -> Iterator[_Row]:
        """Yield a row each time it gains a token; the last time with its finish reason."""
        trees = list(wave)
        longest = max(t.num_tokens for t in trees)
        most_rows = max(len(t.rows) for t in trees)
        limits = {
            i: min(sampling.max_tokens, self.context_tokens - len(t.prefix) - len(suffix))
            for t in trees
            for i, suffix in zip(t.rows, t.suffixes, strict=True)
        }
        num_slots = longest + most_rows * max(limits.values())
        cache = SlotCache(num_slots=num_slots)
        segments_BS = torch.full((len(trees), num_slots), _PADDING, device=self._device)

        # prefill: prefix, then every suffix, in one sequence per tree
        ids_BQ = torch.zeros((len(trees), longest), dtype=torch.long, device=self._device)
        positions_BQ = torch.zeros_like(ids_BQ)
        active: list[list[_Row]] = []
        last: list[tuple[int, int]] = []  # (tree, slot) of each row's last prompt token
        for b, tree in enumerate(trees):
            flat, segments, positions = list(tree.prefix), [0] * len(tree.prefix), list(range(len(tree.prefix)))
            active.append([])
            for k, (index, suffix) in enumerate(zip(tree.rows, tree.suffixes, strict=True), start=1):
                flat += suffix
                segments += [k] * len(suffix)
                end = len(tree.prefix) + len(suffix)
                positions += range(len(tree.prefix), end)
                active[b].append(_Row(index, k, end))
                last.append((b, len(flat) - 1))
            ids_BQ[b, : len(flat)] = torch.tensor(flat, device=self._device)
            segments_BS[b, : len(flat)] = torch.tensor(segments, device=self._device)
            positions_BQ[b, : len(flat)] = torch.tensor(positions, device=self._device)
        causal_QQ = torch.ones(longest, longest, dtype=torch.bool, device=self._device).tril()
        mask_BQQ = _visible(segments_BS[:, :longest], segments_BS[:, :longest]) & causal_QQ
        mask_BQQ |= torch.eye(longest, dtype=torch.bool, device=self._device)  # padding sees itself, so that softmax has a term
        hidden_BQD = self._forward(ids_BQ, positions_BQ, mask_BQQ, cache)
        trees_R, slots_R = (torch.tensor(x, device=self._device) for x in zip(*last, strict=True))
        hidden_RD = hidden_BQD[trees_R, slots_R]
        rows = [row for going in active for row in going]

        while True:
            ids_R, logprobs_R = choose(logits_at(self._module, hidden_RD), sampling, [row_generators[row.index] for row in rows])
            for row, token, logprob in zip(rows, ids_R.tolist(), logprobs_R.tolist(), strict=True):
                row.ids.append(token)
                row.logprobs.append(logprob)
                if token in self._stops or (sampling.stop and any(s in self._text(row, sampling, cut=False) for s in sampling.stop)):
                    row.finish_reason = "stop"
                elif len(row.ids) >= limits[row.index]:
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
                segments_BS = segments_BS[keep]
                active = [active[b] for b in alive]

            # one step: the newest token of every row still going; trees with fewer rows are padded
            most = max(len(going) for going in active)
            fed = torch.full((3, len(active), most), _PADDING, dtype=torch.long)  # ids, positions, segments
            for b, going in enumerate(active):
                if going:
                    fed[:, b, : len(going)] = torch.tensor([[r.ids[-1] for r in going], [r.position for r in going], [r.segment for r in going]])
                for row in going:
                    row.position += 1
            fed = fed.to(self._device)
            segments_BS[:, cache.length : cache.length + most] = fed[2]
            mask_BQS = _visible(fed[2], segments_BS[:, : cache.length + most])
            mask_BQS[:, :, cache.length :] |= torch.eye(most, dtype=torch.bool, device=self._device)
            hidden_BQD = self._forward(fed[0].clamp(min=0), fed[1].clamp(min=0), mask_BQS, cache)
            hidden_RD = hidden_BQD[fed[2] > 0]
            rows = [row for going in active for row in going]

    def _forward(self, ids_BQ: torch.Tensor, positions_BQ: torch.Tensor, mask_BQS: torch.Tensor, cache: SlotCache) -> torch.Tensor:
        dtype = self._module.dtype
        added_B1QS = torch.zeros(mask_BQS.shape, dtype=dtype, device=self._device).masked_fill_(~mask_BQS, torch.finfo(dtype).min)[:, None]
        with grouped_attention(self._module):
            output: Any = self._module.get_decoder()(
                input_ids=ids_BQ, position_ids=positions_BQ, attention_mask=added_B1QS, past_key_values=cache, use_cache=True
            )
        cache.advance(ids_BQ.shape[1])
        hidden_BQD: torch.Tensor = output.last_hidden_state
        return hidden_BQD

    def _text(self, row: _Row, sampling: Sampling, *, cut: bool = True) -> str:
        ids = row.ids[:-1] if row.ids and row.ids[-1] in self._stops else row.ids
        text: str = self._loaded.tokenizer.decode(ids, skip_special_tokens=True)
        if cut:
            for stop in sampling.stop:
                text = text.split(stop, 1)[0]
        return text

    def _answer(self, row: _Row, prompt: Tokens, sampling: Sampling) -> Answer:
        reason = "stop" if row.finish_reason == "stop" else "length"
        return Answer(self._text(row, sampling).strip(), reason, tuple(row.ids), tuple(row.logprobs), len(prompt))  # type: ignore[arg-type]


def _visible(query_BQ: torch.Tensor, slot_BS: torch.Tensor) -> torch.Tensor:
    """(B, Q, S): a token sees the prefix (segment 0) and its own segment."""
    query_BQ1, slot_B1S = query_BQ[:, :, None], slot_BS[:, None, :]
    return (query_BQ1 != _PADDING) & ((slot_B1S == 0) | (slot_B1S == query_BQ1))
