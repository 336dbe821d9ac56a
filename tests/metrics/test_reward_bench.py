"""RewardBench's counting, by hand."""

import math

import pytest

from mygpt.metrics.reward_bench import SECTIONS, TiesPrompt, best_of, section_scores, ties_score


def test_sections_have_the_published_sizes() -> None:
    """Chat 358, Chat Hard 456, Safety 740; Reasoning is 984 for mathematics and as many for six languages."""
    assert {name: sum(own.values()) for name, own in SECTIONS.items()} == {"Chat": 358, "Chat Hard": 456, "Safety": 740, "Reasoning": 1968}


def test_a_section_is_the_mean_over_its_prompts() -> None:
    """Two chat subsets of 100 and 95 prompts: (0.9 * 100 + 0.5 * 95) / 195 = 0.705128, however many rows a file has of them."""
    accuracies = {"alpacaeval-easy": 0.9, "alpacaeval-hard": 0.5, "ours": 0.25}
    found = section_scores(accuracies, {"alpacaeval-easy": 2, "alpacaeval-hard": 7, "ours": 4})
    assert found == pytest.approx({"Chat": 0.705128, "ours": 0.25}, abs=1e-6)


def test_best_of_four() -> None:
    assert best_of([2.0], [1.0, 0.0, -1.0]) == 1
    assert best_of([2.0], [2.5, 0.0, -1.0]) == 0
    assert best_of([2.0], [2.0, 0.0, -1.0]) == 0.5
    assert best_of([1.0], [1.0, 1.0, 1.0]) == 0.25
    with pytest.raises(ValueError, match="1 and 0"):
        best_of([1.0], [])


def test_ties_by_hand() -> None:
    """Prompt a: right 5, 4.8; wrong 1: gap 3.8, spread 0.2; reference gap 1. Prompt b: right 3, 1; wrong 0.5: gap 0.5 below its spread 2;
    reference wrong by 1. Tied accuracy 1, reference 1/2, preferred 1/2, hard 1/2, margin (tanh(1 / 0.2 - 1) + tanh(-1 / 2 - 1)) / 2."""
    prompts = [
        TiesPrompt("a", False, (5.0, 4.8), (1.0, 0.0)),
        TiesPrompt("a", True, (2.0,), (1.0,)),
        TiesPrompt("b", False, (3.0, 1.0), (0.5,)),
        TiesPrompt("b", True, (1.0,), (2.0, 0.0)),
    ]
    found = ties_score(prompts)
    assert (found.tied_accuracy, found.reference_accuracy, found.preferred, found.preferred_hard) == (1.0, 0.5, 0.5, 0.5)
    margin = (math.tanh(4) + math.tanh(-1.5)) / 2
    assert found.margin == pytest.approx(margin)
    assert found.score == pytest.approx(0.3 + 0.15 + 0.1 + 0.1 + 0.01 * margin)


def test_ties_of_equal_rewards_and_without_references() -> None:
    perfect = [TiesPrompt("a", False, (1.0, 1.0), (0.0,)), TiesPrompt("a", True, (1.0,), (0.0,))]
    assert ties_score(perfect).score == pytest.approx(1.01)
    dead = [TiesPrompt("a", False, (0.0, 0.0), (0.0,)), TiesPrompt("a", True, (0.0,), (0.0,))]
    assert ties_score(dead).score == 0
    assert ties_score(perfect[:1]).score == pytest.approx(0.3)
