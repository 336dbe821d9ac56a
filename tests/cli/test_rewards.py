"""Rewards as they are named on the command line, and made again from what a manifest recorded."""

import json
from pathlib import Path

import pytest

from mygpt.align.classifier_reward import ClassifierReward
from mygpt.align.direct_feedback import DirectFeedback
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.store import Store
from mygpt.cli.rewards import open_reward
from mygpt.core.config import Config
from mygpt.core.errors import Refused, UsageError
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer
from mygpt.lm.heads import open_head
from mygpt.pipelines.tools import rebuild_tool
from tests.align.test_model_reward import ScoredConfig, scored
from tests.finetune import toys

PROMPT, ANSWER = Conversation((Message("user", "When?"),)), Answer("At 8.")


class LabelsConfig(Config):
    labels: tuple[str, ...] = ("polite", "rude")


@recipe
def labelled(config: LabelsConfig, *, model: Model, run: Run) -> Model:
    def write(folder: Path) -> None:
        opened = open_head(model, "classifier", labels=config.labels, seed=1)
        opened.module.save_pretrained(folder)
        opened.tokenizer.save_pretrained(folder)

    return publish(Model, run, write, facts={"head": "classifier", "labels": list(config.labels)}, name="labelled")


def opened(run: Run, reference: str, *, share: bool = False, num_passages: int = 0) -> object:
    base = toys.base(toys.BaseConfig(), run=run)
    scored(ScoredConfig(mean=1.0, std=2.0), model=base, run=run)
    labelled(LabelsConfig(), model=base, run=run)
    return open_reward(Store(run.home), run, reference, num_passages=num_passages, share_documents=share)


def test_each_form(run: Run) -> None:
    assert opened(run, "scored").identity["mean"] == 1.0  # type: ignore[attr-defined]
    polite, not_rude = opened(run, "labelled@polite"), opened(run, "labelled@-rude")
    assert isinstance(polite, ClassifierReward) and isinstance(not_rude, ClassifierReward)
    assert (polite.identity["minus"], not_rude.identity["minus"]) == (False, True)
    judge = opened(run, "judge:tiny@careful_office")
    assert isinstance(judge, DirectFeedback) and len(judge.identity["judges"]) == 12


def test_made_again_from_the_record(run: Run) -> None:
    rebuild = rebuild_tool(Store(run.home), run, num_passages=0, share_documents=False)
    for reference in ("scored", "labelled@-rude"):
        one = opened(run, reference)
        again = rebuild("reward", one.identity)  # type: ignore[attr-defined]
        assert again.identity == one.identity and again(PROMPT, ANSWER) == one(PROMPT, ANSWER)  # type: ignore[attr-defined, operator]


def test_a_judge_is_made_again_from_the_record_as_json_keeps_it(run: Run) -> None:
    """Twelve principles, one model: it is opened once, and grades as before."""
    one = opened(run, "judge:tiny@careful_office")
    recorded = json.loads(json.dumps(one.identity))  # type: ignore[attr-defined]
    again = rebuild_tool(Store(run.home), run, num_passages=0, share_documents=False)("reward", recorded)
    assert json.loads(json.dumps(again.identity)) == recorded and again(PROMPT, ANSWER) == one(PROMPT, ANSWER)  # type: ignore[operator]
    assert len({id(judge._scorer) for judge in again._judges}) == 1


def test_what_is_no_reward(run: Run) -> None:
    with pytest.raises(UsageError, match="no reward model"):
        opened(run, "tiny")
    with pytest.raises(UsageError, match="no label `kind`"):
        opened(run, "labelled@kind")
    with pytest.raises(UsageError, match="no constitution"):
        opened(run, "judge:tiny@carefull_office")
    with pytest.raises(Refused, match=r"192\.0\.2\.1"):
        opened(run, "judge:http://192.0.2.1/v1#m@careful_office", num_passages=3)
