"""What words are worth: weights by hand, the mean of them, and no gain by length."""

import math

import pytest

from mygpt.align.word_reward import WordReward, difference, word_weights
from mygpt.artifacts.dataset import Conversation, Dataset, Message, Preference, preference_facts, write_preferences
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer

ASKED = (Message("user", "Q"),)
REWARD = WordReward({"sorry": 1.0, "sure": -2.0, "na\u00efve": 0.5}, "by hand", 2)


def test_words_that_decide_have_weight() -> None:
    rows = [Preference(ASKED, f"sorry {n % 3}", f"sure {n % 3}") for n in range(20)]
    weights = word_weights(rows)
    assert weights["sorry"] > 0.3 and weights["sorry"] == -weights["sure"]
    # at the optimum l2 w = n sigmoid(-2 w), of n pairs whose difference is w - (-w)
    assert 3.0 * weights["sorry"] == pytest.approx(20 / (1 + math.exp(2 * weights["sorry"])), abs=1e-6)
    assert set(weights) == {"sorry", "sure"}  # the numbers are in both


def test_words_of_two_pairs_have_none() -> None:
    assert word_weights([Preference(ASKED, "yes", "no")] * 2) == {} and word_weights([]) == {}


def test_only_what_one_answer_has_counts() -> None:
    assert difference(Preference(ASKED, "I can't, I CAN'T", "I can 2")) == {"can't": 1.0, "can": -1.0, "2": -1.0}


def test_a_mean_of_different_known_words() -> None:
    prompt = Conversation(ASKED)
    given = [REWARD(prompt, Answer(text)) for text in ("sorry", "Sorry, sorry unknown", "sorry, sure", "Na\u00efve", "", "unknown")]
    assert given == [1.0, 1.0, -0.5, 0.5, 0.0, 0.0]


def test_pairs_that_it_has_right() -> None:
    assert REWARD.hits([Preference(ASKED, "sorry", "sure"), Preference(ASKED, "sure", "sorry"), Preference(ASKED, "a", "b")]) == [
        True,
        False,
        False,
    ]


class PairsConfig(Config):
    count: int


@recipe
def some_pairs(config: PairsConfig, *, run: Run) -> Dataset:
    splits = {"train": [Preference(ASKED, "sorry", "sure", id=str(n)) for n in range(config.count)]}
    return publish(Dataset, run, lambda folder: write_preferences(folder, splits), facts=preference_facts(splits), name="some")


def test_its_identity_is_what_decides_it(run: Run) -> None:
    four, eight = (some_pairs(PairsConfig(count=count), run=run) for count in (4, 8))
    assert WordReward.fitted(four).identity == WordReward.fitted(four).identity
    made = [WordReward.fitted(eight), WordReward.fitted(eight, max_pairs=4), WordReward.fitted(four)]
    assert len({str(one.identity) for one in made}) == 3 and made[1].weights == made[2].weights != made[0].weights
