"""Any reward on compared answers, as one page: accuracy beside what needs no model, calibration, length bias.

Source  `reward_quality`
"""

from collections.abc import Sequence

from mygpt.align.reward_quality import ScoredPair, quality, sentences
from mygpt.align.verdicts import is_tie, probability_of
from mygpt.artifacts.dataset import Conversation, Dataset, Preference
from mygpt.artifacts.recipe import publish, recipe, safe_name
from mygpt.artifacts.report import Report, lineage_rows, write_report
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer
from mygpt.infer.rewards import IdentifiedReward, rewards_of
from mygpt.views.reward_page import render


class RewardReportConfig(Config):
    split: str = "test"


@recipe
def reward_report(config: RewardReportConfig, *, dataset: Dataset, reward: IdentifiedReward, run: Run) -> Report:
    """`reward` on one split of `dataset` (schema `preference`)."""
    rows = dataset.preferences(config.split)
    if not rows:
        raise UsageError(
            f"{dataset.id} has no pairs in the split `{config.split}`.", fix=f"Set `split`; it has: {', '.join(dataset.splits) or 'none'}."
        )
    pairs = scored_rows(rows, reward)
    shown = quality(pairs, seed=run.seed_for("quality"))
    figures = {
        "kind": "reward_report",
        "name": safe_name(run.name),
        "measured": dataset.manifest.created[:10],
        "split": config.split,
        "reward": reward.identity,
        **shown,
        "sentences": [text[0].upper() + text[1:] for text in sentences(shown)],
        "lineage": lineage_rows([("pairs", dataset)]),
    }
    facts = {"held_out": shown, "sentences": figures["sentences"]}
    return publish(Report, run, lambda folder: write_report(folder, figures, render(figures)), facts=facts)


def scored_rows(rows: Sequence[Preference], reward: IdentifiedReward) -> list[ScoredPair]:
    """Each distinct answer to a prompt is asked for once. A normalised reward is taken back to what its differences were learnt as."""
    keys = list(dict.fromkeys((row.prompt, text) for row in rows for text in (row.chosen, row.rejected)))
    values = dict(zip(keys, rewards_of(reward, [Conversation(p) for p, _ in keys], [Answer(text) for _, text in keys]), strict=True))
    places = {prompt: str(i) for i, prompt in enumerate(dict.fromkeys(row.prompt for row in rows))}
    scale = float(getattr(reward, "logits_a_unit", 1.0))
    return [
        ScoredPair.of(
            (row.chosen, scale * values[row.prompt, row.chosen]),
            (row.rejected, scale * values[row.prompt, row.rejected]),
            probability=probability_of(row),
            is_tie=is_tie(row),
            prompt=places[row.prompt],
        )
        for row in rows
    ]
