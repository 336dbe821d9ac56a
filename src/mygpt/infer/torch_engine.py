"""Batched generation and scoring with a transformers model: Completer, StreamingCompleter and Scorer in one.

Prompts that begin alike share their prefix (`infer/prefixes`); rows that finish make room for new ones (`infer/batch`); options of one
question are scored on one computation of the question (`infer/scoring`).

Dims  R rows whose next token is chosen
"""

import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from mygpt.artifacts.dataset import Conversation
from mygpt.artifacts.model import Adapter, Model
from mygpt.core.digest import digest_value
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.infer.batch import Batch, Planted, Row
from mygpt.infer.prefixes import Tokens, share_prefixes, share_stems
from mygpt.infer.protocols import Answer, Identity, Sampling, Score
from mygpt.infer.sampling import choose, generators
from mygpt.infer.scoring import Text, score_texts
from mygpt.infer.streamed_text import cut_at_stop, settled
from mygpt.infer.tree_attention import tree_decoder
from mygpt.lm.adapter_rows import BASE
from mygpt.lm.chat import ChatRenderer
from mygpt.lm.load import Loaded, load_lm, preferred_dtype
from mygpt.lm.logits import next_logits_at
from mygpt.lm.memory import give_back_freed_memory
from mygpt.lm.plain_text import TextRenderer, inner_ids, text_ids
from mygpt.lm.virtual_tokens import num_virtual_tokens

MAX_ROWS = 64  # that answer together
TREE_ROWS = 16
_MANY_ROWS = 32  # of one call: its caches are worth giving back


class TorchEngine:
    def __init__(
        self,
        model: Model,
        *,
        adapter: Adapter | None = None,
        adapters: Mapping[str, Adapter] | None = None,
        loaded: Loaded | None = None,
        run: Run | None = None,
        max_rows: int = MAX_ROWS,
        max_batch_tokens: int = 32_768,
        score_tokens: int = 8_192,
    ):
        """The weights are read at first use, unless `loaded` holds them already.

        `adapter` is every row's; `adapters` are chosen row by row in `complete_each`, where a row without a name is the base model's.
        """
        if adapter is not None and adapters:
            raise UsageError("One adapter for all rows and several to choose from were given.", fix="Give `adapter` or `adapters`.")
        self._model, self._adapter, self._adapters, self._run = model, adapter, dict(adapters or {}), run
        self._max_rows, self._max_batch_tokens, self._score_tokens = max_rows, max_batch_tokens, score_tokens
        if loaded is not None:
            self._loaded = loaded

    @cached_property
    def _loaded(self) -> Loaded:
        return load_lm(self._model, adapter=self._adapter, adapters=self._adapters)

    @cached_property
    def _module(self) -> Any:
        return self._loaded.module.eval()

    @cached_property
    def _device(self) -> torch.device:
        device: torch.device = next(self._module.parameters()).device
        return device

    @cached_property
    def renderer(self) -> ChatRenderer | TextRenderer:
        tokenizer = self._loaded.tokenizer
        return ChatRenderer(tokenizer) if tokenizer.chat_template else TextRenderer(tokenizer)

    @property
    def loaded(self) -> Loaded:
        return self._loaded

    @cached_property
    def stop_token_ids(self) -> frozenset[int]:
        """The end of a turn in the chat template, and what the model's makers let `generate` stop at."""
        ends = getattr(getattr(self._module, "generation_config", None), "eos_token_id", None)
        return frozenset(self.renderer.stop_token_ids) | frozenset([ends] if isinstance(ends, int) else ends or ())

    @cached_property
    def context_tokens(self) -> int:
        """The model's window: as many tokens as it has positions for, without those of an adapter's virtual tokens."""
        text = self._module.config.get_text_config()
        places = int(getattr(text, "max_position_embeddings", None) or self._loaded.tokenizer.model_max_length)
        return places - num_virtual_tokens(self._module)

    @property
    def identity(self) -> Identity:
        dtype = self._loaded.module.dtype if "_loaded" in self.__dict__ else preferred_dtype()
        named = {"adapters": {name: a.digest for name, a in sorted(self._adapters.items())}} if self._adapters else {}
        adapter = self._adapter.digest if self._adapter else None
        return {"engine": "torch", "model": self._model.digest, "adapter": adapter, **named, "dtype": str(dtype).removeprefix("torch.")}

    def count_tokens(self, conversation: Conversation) -> int:
        return len(self.renderer.prompt(conversation))

    # -- Completer --------------------------------------------------------------------------------------------------------

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        return self.complete_each(conversations, [sampling] * len(conversations))

    def complete_each(
        self, conversations: Sequence[Conversation], samplings: Sequence[Sampling], adapters: Sequence[str | None] = ()
    ) -> list[Answer]:
        """Every conversation by its own settings, and through its own adapter (a name given to `adapters`, None for the base model)."""
        rows = self._rows(conversations, samplings, adapters)
        answers: list[Answer | None] = [None] * len(rows)
        progress = self._run.progress(len(rows), "answers") if self._run else None
        for row in self._generate(rows):
            if row.finish_reason:
                answers[row.index] = self._answer(row, conversations[row.index])
                if progress:
                    progress.advance()
        if len(rows) >= _MANY_ROWS:
            give_back_freed_memory()
        return [a for a in answers if a is not None]

    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[str | Answer]:
        shown = 0
        for row in self._generate(self._rows([conversation], [sampling], ())):
            text = cut_at_stop(self._text(row), sampling.stop)
            text = settled(text, () if row.finish_reason else sampling.stop)
            if len(text) > shown:
                yield text[shown:]
                shown = len(text)
            if row.finish_reason:
                yield self._answer(row, conversation)

    # -- Scorer -----------------------------------------------------------------------------------------------------------

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        scores = dict(self.as_scored(prompts, continuations))
        return [scores[place] for place in range(len(prompts))]

    def as_scored(self, prompts: Sequence[str], continuations: Sequence[str]) -> Iterator[tuple[int, Score]]:
        texts = [self.scored_ids(*pair) for pair in zip(prompts, continuations, strict=True)]
        progress = self._run.progress(len(texts), "texts") if self._run else None
        for i, logprob, is_greedy in score_texts(self._module, texts, max_tokens=self._score_tokens):
            yield i, Score(logprob, len(texts[i].ids) - texts[i].start, len(continuations[i].encode()), is_greedy)
            if self._run:
                self._run.count(tokens=len(texts[i].ids))
            if progress:
                progress.advance()
        if len(texts) >= _MANY_ROWS:
            give_back_freed_memory()

    def scored_ids(self, prompt: str, continuation: str) -> Text:
        """Prompt and continuation, encoded apart, and where the continuation begins: not at 0, its first token is predicted too."""
        before = text_ids(self._loaded.tokenizer, prompt)
        ids = before + inner_ids(self._loaded.tokenizer, continuation)
        if len(ids) > self.context_tokens:
            raise UsageError(
                f"A text of {len(ids)} tokens does not fit the model's window of {self.context_tokens}.", fix="Score it in shorter pieces."
            )
        return Text(ids, len(before))

    # -- inside -----------------------------------------------------------------------------------------------------------

    @cached_property
    def _decoder(self) -> Any:
        return tree_decoder(self._module)

    def _rows(
        self, conversations: Sequence[Conversation], samplings: Sequence[Sampling], adapters: Sequence[str | None]
    ) -> list[Row]:
        prompts = self._prompts(conversations, samplings)
        names = [self._adapter_name(name) for name in adapters] if adapters else [self._adapter_name(None)] * len(prompts)
        given = zip(prompts, samplings, generators(samplings, prompts), names, strict=True)
        return [
            Row(i, prompt, sampling, generator, min(sampling.max_tokens, self.context_tokens - len(prompt)), name)
            for i, (prompt, sampling, generator, name) in enumerate(given)
        ]

    def _adapter_name(self, name: str | None) -> str:
        if name is None:
            return BASE if self._adapters else ""
        if name not in self._adapters:
            known = ", ".join(sorted(self._adapters)) or "none"
            fix = "Give it to `TorchEngine(adapters=...)`."
            raise UsageError(f"There is no adapter `{name}` in this engine (it has {known}).", fix=fix)
        return name

    def _prompts(self, conversations: Sequence[Conversation], samplings: Sequence[Sampling]) -> list[Tokens]:
        """Raises UsageError where nothing is left for an answer; says so where less is left than was asked for."""
        fewest = min((sampling.max_tokens for sampling in samplings), default=1)
        if fewest < 1:
            raise UsageError(f"An answer of at most {fewest} tokens was asked for.", fix="Set `max_tokens` to 1 or more.")
        prompts = [self.renderer.prompt(c) for c in conversations]
        longest = max(map(len, prompts), default=0)
        if longest >= self.context_tokens:
            raise UsageError(
                f"The conversation has {longest} tokens and the model's window {self.context_tokens}, so nothing is left for an answer.",
                fix="Shorten it, or start a new conversation.",
            )
        room = [self.context_tokens - len(p) for p in prompts]
        capped = [(r, s.max_tokens) for r, s in zip(room, samplings, strict=True) if r < s.max_tokens]
        if capped:
            most, least = max(asked for _, asked in capped), min(r for r, _ in capped)
            said = (
                f"{len(capped)} of {len(prompts)} answers may have fewer than the {most} tokens that were asked for (at least {least}): "
                f"prompt and answer together have to fit the model's window of {self.context_tokens}."
            )
            if self._run:
                self._run.warn(said)
            else:
                warnings.warn(said, stacklevel=2)
        return prompts

    @torch.inference_mode()
    def _generate(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Yield a row each time it gains a token; the last time with its finish reason."""
        waiting = deque(self._planted(rows))
        batch = Batch(self._module, self._decoder, self._device)
        while waiting or batch.rows:
            if entering := self._next(waiting, batch):
                batch.admit(entering)
            going = batch.rows
            self._choose(batch.hidden_RD, going)
            if self._run:
                self._run.count(tokens=len(going))
            for row in going:
                if row.ids[-1] in self.stop_token_ids or self._wrote_stop(row):
                    row.finish_reason = "stop"
                elif len(row.ids) >= row.limit:
                    row.finish_reason = "length"
                yield row
            batch.drop_finished()
            if batch.rows:
                batch.step()

    def _wrote_stop(self, row: Row) -> bool:
        return bool(row.sampling.stop) and cut_at_stop(text := self._text(row), row.sampling.stop) != text

    def _choose(self, hidden_RD: torch.Tensor | None, rows: Sequence[Row]) -> None:
        assert hidden_RD is not None
        ids_R, logprobs_R = choose(
            next_logits_at(self._module, hidden_RD),
            [row.sampling for row in rows],
            [row.generator for row in rows],
            prompts=[row.prompt for row in rows],
            answers=[row.ids for row in rows],
            stops=sorted(self.stop_token_ids),
        )
        for row, token, logprob in zip(rows, ids_R.tolist(), logprobs_R.tolist(), strict=True):
            row.ids.append(token)
            row.logprobs.append(logprob)

    def _planted(self, rows: Sequence[Row]) -> list[Planted]:
        """Trees of rows that begin alike (and use one adapter), the widest and longest first: alike ones run together."""
        planted = []
        for adapter in dict.fromkeys(row.adapter for row in rows):
            own = [row for row in rows if row.adapter == adapter]
            trees = share_prefixes([row.prompt for row in own], max_rows=min(TREE_ROWS, self._max_rows))
            planted += [Planted(stem, tree, tuple(own[i] for i in tree.rows)) for stem, tree in share_stems(trees)]
        return sorted(planted, key=lambda p: (-len(p.rows), -p.num_tokens))

    def _next(self, waiting: deque[Planted], batch: Batch) -> list[Planted]:
        """Who comes in now: as many as fit, once a quarter of the batch is free (moving the cache together costs), or nobody.

        Every tree is padded to the widest and the longest: at most half of the rows are padding, and the slots of all stay within
        `max_batch_tokens`. A tree beyond the limits is alone.
        """
        rows, trees = len(batch.rows), batch.num_trees
        if rows > 0.75 * self._max_rows:
            return []
        entering: list[Planted] = []
        widest, longest = batch.num_widest, batch.num_slots
        while waiting:
            p = waiting[0]
            rows, trees = rows + len(p.rows), trees + 1
            widest, longest = max(widest, len(p.rows)), max(longest, p.num_tokens)
            fits = trees * widest <= min(self._max_rows, 2 * rows) and trees * longest <= self._max_batch_tokens
            if trees > 1 and not fits:
                break
            entering.append(waiting.popleft())
        return entering

    def _text(self, row: Row) -> str:
        ids = row.ids[:-1] if row.ids and row.ids[-1] in self.stop_token_ids else row.ids
        return str(self._loaded.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _answer(self, row: Row, asked: Conversation) -> Answer:
        text = settled(cut_at_stop(self._text(row), row.sampling.stop), ())
        text = text.strip() if asked.raw_text is None else text
        reason = "stop" if row.finish_reason == "stop" else "length"
        prompt = {"prompt_tokens": len(row.prompt), "prompt_sha256": digest_value(list(row.prompt))}
        return Answer(text, reason, tuple(row.ids), tuple(row.logprobs), **prompt)  # type: ignore[arg-type]
