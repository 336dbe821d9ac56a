"""Answers of an encoder-decoder (T5, BART): `Seq2SeqCompleter(model).complete(conversations, Sampling(max_tokens=64))`.

The encoder reads the user's message (`lm/plain_text.prompt_text`), the decoder writes greedily, through transformers' own `generate`.

Dims  B texts of a batch   A tokens written
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch

from mygpt.artifacts.dataset import Conversation
from mygpt.artifacts.model import Adapter, Model
from mygpt.core.digest import digest_value
from mygpt.core.errors import UsageError
from mygpt.infer.protocols import Answer, Identity, Sampling
from mygpt.infer.streamed_text import cut_at_stop
from mygpt.lm.heads import Opened, open_head
from mygpt.lm.inputs import Encoded, encode, length_batches, padded, window_tokens
from mygpt.lm.plain_text import prompt_text
from mygpt.lm.virtual_tokens import generation_with_prefix


class Seq2SeqCompleter:
    def __init__(self, model: Model, *, adapter: Adapter | None = None, opened: Opened | None = None, batch_tokens: int = 4_096):
        self._opened = opened or open_head(model, "seq2seq_lm", adapter=adapter)
        self._identity = {"model": model.digest, "adapter": adapter.digest if adapter else None}
        self._batch_tokens = batch_tokens

    @property
    def identity(self) -> Identity:
        return {"engine": "torch-seq2seq", **self._identity, "dtype": str(self._opened.module.dtype).removeprefix("torch.")}

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        """Greedy answers. Raises UsageError for settings that ask for anything else, and for texts beyond the window."""
        only = Sampling(max_tokens=sampling.max_tokens, seed=sampling.seed, stop=sampling.stop)
        if sampling != only:
            raise UsageError(f"An encoder-decoder answers greedily here, and this asks for {sampling}.", fix="Set `temperature` to 0.")
        examples = [encode(self._opened.tokenizer, prompt_text(conversation)) for conversation in conversations]
        window = window_tokens(self._opened.module)
        if window and (longest := max(map(len, examples), default=0)) > window:
            raise UsageError(f"A text of {longest} tokens does not fit the model's window of {window}.", fix="Give shorter texts.")
        answers: dict[int, Answer] = {}
        for rows in length_batches([len(e) for e in examples], self._batch_tokens):
            written = self._generated([examples[i] for i in rows], sampling)
            answers |= {i: self._answer(ids, examples[i], sampling) for i, ids in zip(rows, written, strict=True)}
        return [answers[i] for i in range(len(examples))]

    @torch.inference_mode()
    def _generated(self, examples: Sequence[Encoded], sampling: Sampling) -> list[list[int]]:
        from transformers import GenerationConfig

        module, tokenizer = self._opened.module, self._opened.tokenizer
        inner = module.get_base_model() if hasattr(module, "get_base_model") else module  # peft's wrapper asks the model inside
        own: Any = inner.generation_config
        greedy = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=sampling.max_tokens,
            decoder_start_token_id=own.decoder_start_token_id or module.config.decoder_start_token_id,
            forced_bos_token_id=own.forced_bos_token_id,  # a language, where the model writes several
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        inputs = padded(examples, module, padding_id=tokenizer.pad_token_id)
        inner.generation_config = greedy  # else what its makers set (beams, a forced end) would fill what is not set here
        try:
            with generation_with_prefix(module) as writer:
                ids: list[list[int]] = writer.generate(**inputs)[:, 1:].tolist()  # the first token begins every answer
        finally:
            inner.generation_config = own
        return ids

    def _answer(self, ids: list[int], example: Encoded, sampling: Sampling) -> Answer:
        tokenizer = self._opened.tokenizer
        end = ids.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in ids else None
        text = cut_at_stop(tokenizer.decode(ids[:end], skip_special_tokens=True).strip(), sampling.stop)
        digest = digest_value(list(example.token_ids))
        reason: Literal["length", "stop"] = "length" if end is None else "stop"
        return Answer(text, reason, tuple(ids[:end]), prompt_tokens=len(example), prompt_sha256=digest)
