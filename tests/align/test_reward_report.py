"""A rule as the reward of a data set's pairs: figures and page."""

import pytest

from mygpt.align.reward_report import RewardReportConfig, reward_report, scored_rows
from mygpt.artifacts.dataset import Conversation, Dataset, Message, Preference, preference_facts, write_preferences
from mygpt.artifacts.recipe import publish, recipe, recipe_function
from mygpt.artifacts.store import Store
from mygpt.catalog import where
from mygpt.cli.recipe_call import open_inputs, recipe_inputs
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer, Identity
from mygpt.infer.rewards import IdentifiedReward
from tests.align.sites import PreferencesConfig, preferences
from tests.align.test_classifier_reward import FixedConfig, fixed
from tests.align.test_model_reward import ScoredConfig, scored
from tests.finetune import toys
from tests.views.test_report_page import Page


class Length:
    """A reward that is nothing but length."""

    logits_a_unit = 0.5

    def __init__(self) -> None:
        self.asked = 0

    @property
    def identity(self) -> Identity:
        return {"reward": "<length>"}

    def __call__(self, prompt: Conversation, answer: Answer) -> float:
        self.asked += 1
        return len(answer.text) / 10


class PairsConfig(Config):
    pass


@recipe
def pairs(config: PairsConfig, *, run: Run) -> Dataset:
    prompt = (Message("user", "Q"),)
    rows = [
        Preference(prompt, "a" * 50, "b" * 30, "1"),
        Preference(prompt, "a" * 50, "c" * 60, "2"),
        Preference(prompt, "b" * 30, "c" * 60, "3", facts={"probability": "0.2"}),
        Preference((Message("user", "R"),), "d", "e" * 20, "4", facts={"tie": "yes"}),
        Preference((Message("user", "S"),), "f" * 40, "g" * 30, "5"),
    ]
    splits = {"test": rows}
    return publish(Dataset, run, lambda folder: write_preferences(folder, splits), facts=preference_facts(splits), name="pairs")


def test_figures_and_page(run: Run) -> None:
    """Longer is better in three of the four decided pairs: that is the accuracy of length, and it is never right where longer is worse."""
    reward = Length()
    made = reward_report(RewardReportConfig(), dataset=pairs(PairsConfig(), run=run), reward=reward, run=run)
    figures = made.figures
    assert reward.asked == 7  # each answer once
    assert figures["accuracy"] == figures["longer_wins"] == 0.75 and figures["ties"] == 1
    assert figures["length"]["correlation"] == pytest.approx(1) and figures["length"]["longer_is_worse"]["accuracy"] == 0
    assert made.manifest.facts["sentences"][0].startswith("Accuracy 0.750 (")
    page = made.page.read_text(encoding="utf-8")
    assert not {"script", "link", "img"} & set(Page(page).tags)
    assert page.count('class="bin"') == len(figures["calibration"]["bins"]) > 0
    assert "<length>" not in page and "Accuracy 0.750" in page


def test_rewards_are_taken_back_to_logits(run: Run) -> None:
    scored = scored_rows(pairs(PairsConfig(), run=run).preferences("test"), Length())
    assert (scored[0].chosen, scored[0].rejected) == (2.5, 1.5)
    assert (scored[2].chosen_length, scored[2].rejected_length) == (60, 30)  # four of five say that the other one is better
    assert [pair.prompt for pair in scored] == ["0", "0", "0", "1", "2"]


def test_as_a_user_names_rewards(run: Run) -> None:
    """A reward model by its name; of a classifier the label that is wanted, or one that is not."""
    scored(ScoredConfig(), model=toys.base(toys.BaseConfig(), run=run), run=run)
    fixed(FixedConfig(), run=run)
    inputs = recipe_inputs(recipe_function(where("reward_report").path))
    assert inputs["reward"].protocol == "Reward" and not inputs["reward"].optional

    def opened(reference: str) -> IdentifiedReward:
        found: IdentifiedReward = open_inputs(Store(run.home), run, inputs, {"reward": [reference]}, share_documents=False)["reward"]
        return found

    prompt = Conversation((Message("user", "Q"),))
    assert opened("scored").identity["reward"] == "model"
    assert opened("fixed@nothate")(prompt, Answer("a")) == pytest.approx(3.1718, rel=0.01)  # bfloat16, where the machine has it
    assert opened("fixed@-hate")(prompt, Answer("a")) == pytest.approx(2.6093, rel=0.01)
    with pytest.raises(UsageError, match="is no reward model") as error:
        opened("fixed")
    assert "MODEL@LABEL" in error.value.fix


def test_a_split_that_is_not_there(run: Run) -> None:
    with pytest.raises(UsageError, match="no pairs in the split `test`") as error:
        reward_report(RewardReportConfig(), dataset=preferences(PreferencesConfig(), run=run), reward=Length(), run=run)
    assert "train" in error.value.fix
