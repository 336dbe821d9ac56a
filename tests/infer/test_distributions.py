"""Distributions are those of the model's own forward pass, and the KL of two tiny models is torch's."""

from typing import Any

import numpy as np
import pytest
import torch

from mygpt.core.errors import UsageError
from mygpt.infer.distributions import token_distributions
from mygpt.lm.load import Loaded
from mygpt.metrics.continual import kl_divergence
from tests.infer.tiny_models import byte_tokenizer, engine_of, tiny_module

TEXTS = ["The kiln wakes at six.", "a", "Größe, and so on."]


def tiny(architecture: str, **settings: Any) -> Loaded:
    model: Any = None
    return Loaded(tiny_module(architecture, **settings), byte_tokenizer(), model)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_they_are_the_models_own(architecture: str) -> None:
    loaded = tiny(architecture)
    for text, found_TV in zip(TEXTS, token_distributions(loaded, TEXTS), strict=True):
        ids = [1, *loaded.tokenizer.encode(text)]
        with torch.inference_mode():
            expected_TV = loaded.module(input_ids=torch.tensor([ids])).logits[0, :-1].float().log_softmax(-1)
        assert found_TV.shape == (len(text.encode()), 259) and found_TV.dtype == np.float32
        np.testing.assert_allclose(found_TV, expected_TV.numpy(), atol=1e-4)


def test_their_sum_along_the_text_is_the_scorers() -> None:
    loaded = tiny("llama")
    scores = engine_of(loaded.module).score([""] * len(TEXTS), TEXTS)
    for text, score, found_TV in zip(TEXTS, scores, token_distributions(loaded, TEXTS), strict=True):
        ids = loaded.tokenizer.encode(text)
        assert found_TV[np.arange(len(ids)), ids].sum() == pytest.approx(score.logprob, abs=1e-3)


def test_kl_of_two_models_is_torchs() -> None:
    base, tuned = tiny("llama"), tiny("llama")
    with torch.no_grad():
        tuned.module.get_output_embeddings().weight += 0.05 * torch.randn(259, 32, generator=torch.Generator().manual_seed(1))
    pairs = zip(token_distributions(base, TEXTS), token_distributions(tuned, TEXTS), strict=True)
    for p_TV, q_TV in pairs:
        expected = torch.nn.functional.kl_div(torch.tensor(q_TV), torch.tensor(p_TV), log_target=True, reduction="sum")
        assert kl_divergence(p_TV, q_TV).sum() == pytest.approx(float(expected), rel=1e-3) and expected > 0


def test_a_text_longer_than_the_window_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="A text of 401 tokens does not fit the model's window of 400"):
        next(token_distributions(tiny("llama"), ["a" * 400]))
