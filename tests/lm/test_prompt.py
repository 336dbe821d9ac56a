"""Prompt tuning: what its vectors begin as, which words they are near to, and how tight those words lie."""

import pytest
import torch

from mygpt.lm.adapters.prompt import Prompt, facts, nearest_words, tightness
from mygpt.lm.adapters.real_words import ids_of
from tests.lm import tuned

# Four words in a plane: right, up, left, and one between right and up
WORDS_VD = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [3.0, 3.0]])


def test_nearest_words_by_hand() -> None:
    """(5, 0): the first word at cosine 1, then the last at cos 45 degrees, 0.7071; (0, 1): the second, then the last."""
    found = nearest_words(torch.tensor([[5.0, 0.0], [0.0, 1.0]]), WORDS_VD, num_neighbours=2)
    assert [[word for word, _ in row] for row in found] == [[0, 3], [1, 3]]
    assert [cosine for row in found for _, cosine in row] == pytest.approx([1.0, 0.70711, 1.0, 0.70711], abs=1e-5)


def test_tightness_by_hand() -> None:
    """Three neighbours of (1, 0.1) are words 0, 3 and 1: cosines 0.7071, 0, 0.7071, on average 0.4714."""
    assert tightness(torch.tensor([[1.0, 0.1]]), WORDS_VD, num_neighbours=3).tolist() == pytest.approx([0.4714], abs=1e-4)


def test_a_vector_inside_a_cluster_is_tighter_than_random_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(20, 64, generator=generator)
    words_VD = (centres[:, None] + 0.3 * torch.randn(20, 12, 64, generator=generator)).reshape(-1, 64)
    inside, random = tightness(centres, words_VD), tightness(torch.randn(20, 64, generator=generator), words_VD)
    assert float(inside.mean()) > 0.85 and float(inside.mean()) > float(random.mean()) + 0.2


def test_begins_as_real_words() -> None:
    ids = tuned.TOKENIZER("Be brief.", add_special_tokens=False)["input_ids"]
    assert ids_of("Be brief.", tuned.TOKENIZER, num_tokens=12) == (ids * 2)[:12]
    module = tuned.attached(Prompt(num_tokens=12, text="Be brief."))
    words_VD = module.get_input_embeddings().weight
    assert torch.equal(module.prompt_encoder["default"].embedding.weight, words_VD[(ids * 2)[:12]])


def test_without_a_text_words_are_drawn() -> None:
    torch.manual_seed(3)
    first = ids_of("", tuned.TOKENIZER, num_tokens=8)
    torch.manual_seed(3)
    assert ids_of(" ", tuned.TOKENIZER, num_tokens=8) == first
    assert len(set(first)) > 3 and not set(first) & set(tuned.TOKENIZER.all_special_ids)
    assert first != ids_of("", tuned.TOKENIZER, num_tokens=8)


def test_the_manifest_tells_what_was_learnt() -> None:
    """Before training every vector is nearest to the word that it began as, at cosine 1."""
    told = facts(tuned.attached(Prompt(num_tokens=3, text="abc")), tuned.TOKENIZER)
    assert [row[0] for row in told["nearest_words"]] == [["a", 1.0], ["b", 1.0], ["c", 1.0]]
    assert all(len(row) == 5 and row[1][1] < 1 for row in told["nearest_words"])
    assert set(told["tightness"]) == {"learnt", "random"} and all(-1 < value < 1 for value in told["tightness"].values())
