"""P-tuning: what its network makes at first, and that only what it made is kept."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mygpt.lm.adapters.p_tuning import PTuning
from mygpt.lm.adapters.real_words import ids_of
from tests.lm import tuned


@pytest.mark.parametrize(("num_tokens", "exact"), [(5, True), (40, False)])
def test_the_network_begins_by_making_real_words(num_tokens: int, exact: bool) -> None:
    """5 vectors are met by 16 inner numbers and a bias; 40 cannot be, and the nearest is taken."""
    module = tuned.attached(PTuning(num_tokens=num_tokens, hidden_size=16))
    words_ND = module.get_input_embeddings().weight[ids_of(PTuning().text, tuned.TOKENIZER, num_tokens=num_tokens)]
    made_ND = module.get_prompt(1)[0]
    missed = float((made_ND - words_ND).norm() / words_ND.norm())
    assert missed < 1e-3 if exact else 0.1 < missed < 0.95


def test_the_network_is_left_behind(tmp_path: Path) -> None:
    method = PTuning(num_tokens=5, hidden_size=16)
    module = tuned.disturbed(method)
    folder = tuned.saved(module, method, tmp_path / "adapter")
    kept = load_file(folder / "adapter_model.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in kept.items()} == {"prompt_embeddings": (5, 32)}
    assert torch.equal(kept["prompt_embeddings"], module.get_prompt(1)[0].detach())
