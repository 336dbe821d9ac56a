"""The whole next-token distribution at every position of a text: what a KL divergence between two models needs.

A Scorer gives sums, and a sum says how likely this text is; two models may agree on that and differ on everything else they would say.
A text's distributions are large, T x V float32 (250 tokens of a 49,152-token vocabulary: 49 MB), so they come one text at a time.

Dims  T predicted tokens   V vocabulary   D hidden
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mygpt.core.errors import UsageError
from mygpt.infer.protocols import Identity
from mygpt.lm.attention import grouped_attention
from mygpt.lm.load import Loaded
from mygpt.lm.logits import logits_at
from mygpt.lm.virtual_tokens import num_virtual_tokens


@dataclass(frozen=True)
class TorchDistributions:
    """A model in memory as a tool with an identity."""

    loaded: Loaded

    @property
    def identity(self) -> Identity:
        adapter = self.loaded.adapter.digest if self.loaded.adapter else None
        dtype = str(self.loaded.module.dtype).removeprefix("torch.")
        return {"engine": "torch", "model": self.loaded.model.digest, "adapter": adapter, "dtype": dtype}

    def token_distributions(self, texts: Sequence[str]) -> Iterator[np.ndarray]:
        return token_distributions(self.loaded, texts)


def token_distributions(loaded: Loaded, texts: Sequence[str]) -> Iterator[np.ndarray]:
    """(T, V) float32 natural log-probabilities of each text: row t is what the model expects before it reads token t. As for a Scorer, the
    text stands after the beginning-of-text token, so that its first token is predicted too."""
    tokenizer, module = loaded.tokenizer, loaded.module.eval()
    beginning = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    window = getattr(module.config.get_text_config(), "max_position_embeddings", None) or tokenizer.model_max_length
    window -= num_virtual_tokens(module)
    for text in texts:
        ids = [beginning, *tokenizer.encode(text, add_special_tokens=False)]
        if len(ids) > window:
            fix = "Give it in shorter pieces."
            raise UsageError(f"A text of {len(ids)} tokens does not fit the model's window of {window}.", fix=fix)
        with torch.inference_mode(), grouped_attention(module):
            ids_1T = torch.tensor([ids], device=loaded.device)
            hidden_TD = module.get_decoder()(input_ids=ids_1T, use_cache=False).last_hidden_state[0, :-1]
            logprobs_TV: np.ndarray = logits_at(module, hidden_TD).log_softmax(-1).cpu().numpy()
        yield logprobs_TV
