"""The whole of Constitutional AI on a base of a few thousand weights, with a scripted critic and a judge that likes short answers."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from mygpt.align.ai_preferences import AIPreferencesConfig
from mygpt.align.critique_and_revision import CritiqueAndRevisionConfig
from mygpt.align.dpo import DPOConfig
from mygpt.align.ppo_config import PPOConfig
from mygpt.align.reward_model import RewardModelConfig
from mygpt.artifacts.dataset import Conversation
from mygpt.artifacts.lineage import why
from mygpt.artifacts.model import Adapter
from mygpt.core.run import Run
from mygpt.evaluate.disinformation import DisinformationConfig
from mygpt.evaluate.forgetting import GeneralCheckConfig
from mygpt.evaluate.refusal import RefusalConfig
from mygpt.finetune.sft import SFTConfig
from mygpt.infer.protocols import Identity, Score
from mygpt.infer.scripted import ScriptedCompleter
from mygpt.pipelines.constitutional import ConstitutionalConfig, constitutional
from tests.finetune import toys

QUICK = ConstitutionalConfig(
    revise=CritiqueAndRevisionConfig(prompts=6, rounds=1, helpful_prompts=2, max_answer_tokens=6),
    sft=SFTConfig(epochs=1, max_example_tokens=200, drop_over_long=True),
    prefer=AIPreferencesConfig(prompts=6, max_answer_tokens=6, test_share=0),
    dpo=DPOConfig(step_pairs=4, drop_unusable=True),
    refusal=RefusalConfig(max_tokens=2),
    disinformation=DisinformationConfig(max_tokens=2),
    general=GeneralCheckConfig(max_tokens=1, piece_characters=120),
    num_resamples=200,
)


class LikesShort:
    @property
    def identity(self) -> Identity:
        return {"engine": "likes short"}

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        made = []
        for prompt, letter in zip(prompts, continuations, strict=True):
            first, second = prompt.rsplit("\nReply A: ", 1)[1].split("\nRule: ")[0].split("\nReply B: ")
            chance = 1 / (1 + math.exp(0.3 * (len(first) - len(second))))
            made.append(Score(math.log(chance if letter == " A" else 1 - chance), 1, 2))
        return made


def reply(conversation: Conversation) -> str:
    return "I would rather help you with something kind." if "Good answer:" in conversation.question else "It is no answer at all."


@pytest.mark.slow
def test_a_reward_model_and_ppo(run: Run) -> None:
    """With `with_ppo` what is aligned learnt from a reward model, and that from the preferences."""
    tiny = PPOConfig(rollouts=1, answers=4, epochs=1, max_answer_tokens=4, max_example_tokens=200)
    config = QUICK.model_copy(update={"with_ppo": True, "ppo": tiny, "reward_model": RewardModelConfig(step_tokens=512)})
    made = constitutional(config, model=toys.base(toys.BaseConfig(), run=run), critic=ScriptedCompleter(reply), judge=LikesShort(), run=run)
    assert isinstance(made.aligned, Adapter) and made.aligned.manifest.recipe == "mygpt.align.ppo:ppo"
    assert made.aligned.manifest.tools["reward"]["reward"] == "model"


@pytest.mark.slow
def test_from_requests_to_a_report(tmp_path: Path) -> None:
    events: list[dict] = []
    with Run(tmp_path / "home", name="tiny", listeners=(events.append,)) as run:
        model = toys.base(toys.BaseConfig(), run=run)
        made = constitutional(QUICK, model=model, critic=ScriptedCompleter(reply), judge=LikesShort(), run=run)
        again = constitutional(QUICK, model=model, critic=ScriptedCompleter(reply), judge=LikesShort(), run=run)
    assert made.revisions.manifest.facts["revisions"] == made.revisions.manifest.facts["requests"] > 0
    assert isinstance(made.aligned, Adapter) and made.aligned.base.digest == made.revised.digest
    assert again.aligned.digest == made.aligned.digest and again.report.digest == made.report.digest
    lineage = "\n".join(why(made.aligned.store, made.aligned.manifest).lines())
    assert all(one.digest[:8] in lineage for one in (made.revisions, made.preferences, model))
    tasks = {task["task"]: [one["label"] for one in task["models"]] for task in made.report.figures["tasks"]}
    assert tasks == {name: ["base", "revised", "aligned"] for name in ("refusal", "disinformation")}
    assert [e["step"] for e in events if e["event"] == "step_started"][:5] == ["revise", "train", "prefer", "align", "measure"]
    assert made.preferences.manifest.facts["first_place"]["estimate"] == 0.5
