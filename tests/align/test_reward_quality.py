"""What is said of a reward, on pairs that were made up so that the answer is known."""

import math
import random

import pytest

from mygpt.align.reward_quality import ScoredPair, calibration, length_bias, quality, sentences


def pair(chosen: float, rejected: float, lengths: tuple[int, int] = (10, 10), prompt: str = "", is_tie: bool = False) -> ScoredPair:
    return ScoredPair(chosen, rejected, *lengths, prompt=prompt or f"{chosen}{rejected}{lengths}", is_tie=is_tie)


def test_accuracy_and_what_needs_no_model() -> None:
    """Three of four right: Wilson's interval of 3 of 4 is 0.3006 to 0.9544. Longer wins twice, once it is as long: 2.5 of 4."""
    pairs = [pair(1, 0, (9, 5)), pair(2, 1, (9, 4)), pair(3, 1, (5, 5)), pair(0, 1, (3, 8)), pair(5, 0, is_tie=True)]
    found = quality(pairs)
    assert (found["accuracy"], found["pairs"], found["ties"], found["prompts"]) == (0.75, 4, 1, 4)
    assert found["accuracy_interval"] == pytest.approx([0.300642, 0.954413], abs=1e-5)
    assert (found["longer_wins"], found["shorter_wins"], found["coin"]) == (0.625, 0.375, 0.5)
    nats = [math.log1p(math.exp(-gap)) for gap in (1, 1, 2, -1)]
    assert found["log_loss"] == pytest.approx(sum(nats) / 4)
    assert found["length"]["longer_is_worse"] == {"pairs": 1, "accuracy": 0.0, "interval": pytest.approx([0.0, 0.793450], abs=1e-5)}
    assert found["length"]["longer_is_better"]["accuracy"] == 1.0
    assert sentences(found)[-1] == "1 tie is in none of these figures."


def test_equal_rewards_are_not_right() -> None:
    assert quality([pair(1, 1), pair(2, 1)])["accuracy"] == 0.5


def test_pairs_of_one_prompt_rise_and_fall_together() -> None:
    """Forty pairs of two prompts, one all right, one all wrong: nearly nothing is known."""
    together = quality([pair(i, i - 1, prompt="a") for i in range(20)] + [pair(i, i + 1, prompt="b") for i in range(20)])
    apart = quality([pair(i, i - 1) for i in range(20)] + [pair(i, i + 1) for i in range(20)])
    assert together["accuracy"] == apart["accuracy"] == 0.5
    assert together["accuracy_interval"][1] - together["accuracy_interval"][0] > 2 * (
        apart["accuracy_interval"][1] - apart["accuracy_interval"][0]
    )


def test_calibrated_and_too_sure() -> None:
    """Gaps of ln 4 mean 80 %: right in 8 of 10 they are calibrated, in 5 of 10 they are 0.3 too sure."""
    gap = math.log(4)
    good, bad = calibration([gap] * 8 + [-gap] * 2), calibration([gap] * 5 + [-gap] * 5)
    assert good["expected_error"] == pytest.approx(0, abs=1e-9) and good["mean_confidence"] == pytest.approx(0.8)
    assert bad["expected_error"] == pytest.approx(0.3) and good["brier"] == pytest.approx(0.8 * 0.04 + 0.2 * 0.64)
    assert [b["count"] for b in good["bins"]] == [10]


def made(slope: float, seed: int = 0) -> list[ScoredPair]:
    """Rewards of quality (1 for the better one, and noise) and of length, `slope` for a character."""
    draw = random.Random(seed)
    found = []
    for number in range(300):
        lengths = draw.randint(20, 400), draw.randint(20, 400)
        rewards = [quality + draw.gauss(0, 0.5) + slope * length for quality, length in zip((1, 0), lengths, strict=True)]
        found.append(ScoredPair(*rewards, *lengths, prompt=str(number)))
    return found


def test_the_partial_effect_is_what_was_put_in() -> None:
    """0.01 a character is 1 for 100; told in standard deviations of the reward. Without it the interval holds 0."""
    gamed = length_bias(made(0.01))
    rewards = [r for p in made(0.01) for r in (p.chosen, p.rejected)]
    mean = sum(rewards) / len(rewards)
    std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / len(rewards))
    assert gamed["partial"]["slope"] == pytest.approx(1 / std, rel=0.05)
    assert gamed["partial"]["low"] > 0 and gamed["correlation"] > 0.8 and gamed["correlation_within_pairs"] > 0.7
    assert gamed["longer_is_worse"]["accuracy"] < 0.6 < gamed["longer_is_better"]["accuracy"]
    fair = length_bias(made(0.0))
    assert fair["partial"]["low"] < 0 < fair["partial"]["high"] and abs(fair["correlation"]) < 0.1
    assert any("it rewards length by itself" in text for text in sentences(quality(made(0.01))))
    assert any("it shows no length bias" in text for text in sentences(quality(made(0.0))))


def test_nothing_to_say() -> None:
    assert sentences(quality([pair(1, 0, is_tie=True)])) == ["None of the 1 pairs has a better side, so accuracy is not defined."]
    even = quality([pair(1, 0), pair(2, 0)])
    assert even["length"]["partial"] is None and even["length"]["correlation_within_pairs"] is None
    assert len(sentences(even)) == 2
