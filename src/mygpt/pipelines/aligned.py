"""From preferences to a better model, on one machine: reward model, PPO, and a gate that has the last word.

    preferences     parted in two by prompt: one half teaches the reward model, the other a judge that PPO never meets
    reward model    on the first half                       judge         another, on the second half
    words           what they are worth, by the second half: a reward that is watched and not learnt from, so that the doctor sees hacking
    PPO             against the reward model, on the prompts of `train`
    measure         answers to held-out prompts, base against policy, by both; what was forgotten
    gate            better in the judge's eyes, and no more forgotten than allowed: else the policy is not to be served

Every step is a recipe: what was made is taken from the store, and a killed one goes on.

Source  the three steps: Ouyang et al. 2022, arXiv:2203.02155; a judge apart from the reward, since what is optimised rises in any case:
        Gao et al. 2022, arXiv:2210.10760
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt

from mygpt.align.model_reward import ModelReward
from mygpt.align.ppo import PPOConfig, forecast_of, ppo
from mygpt.align.reward_model import RewardModelConfig, reward_model, rows_forecast
from mygpt.align.reward_quality import share
from mygpt.align.watch import WatchConfig
from mygpt.align.word_reward import WordReward
from mygpt.artifacts.dataset import (
    Conversation,
    Dataset,
    Preference,
    conversation_facts,
    preference_facts,
    write_conversations,
    write_preferences,
)
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe, safe_name
from mygpt.artifacts.report import Predictions, Report
from mygpt.core.config import Config
from mygpt.core.digest import digest_value
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.core.spread import spread
from mygpt.evaluate.forgetting import GeneralCheckConfig, general_check
from mygpt.evaluate.gate import GateConfig, gate
from mygpt.evaluate.rewarded_answers import RewardedAnswersConfig, rewarded_answers
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.chat import ChatRenderer
from mygpt.lm.load import load_tokenizer
from mygpt.lm.memory import give_back_freed_memory
from mygpt.pipelines.aligned_report import AlignedReportConfig, aligned_report
from mygpt.training.fit import foreseen, nothing_to_learn

_FEWEST_PROMPTS = 30  # held out: fewer decide nothing
_LOOKED_AT = 500  # prompts, for the longest of them


class AlignedConfig(Config):
    """The defaults are for about a quarter of an hour on two cores with a 135M model."""

    max_pairs: PositiveInt = 400  # that reward model and judge learn from, each, and of those that measure them
    max_prompt_tokens: PositiveInt = 160  # longer prompts are left out, said aloud
    reward_model: RewardModelConfig = RewardModelConfig(max_example_tokens=320, drop_unusable=True)  # of the judge too
    max_word_pairs: PositiveInt = 2000  # that the worth of words is learnt from
    ppo: PPOConfig = PPOConfig(
        rollouts=30, answers=32, epochs=2, max_answer_tokens=48, max_example_tokens=256, watch=WatchConfig(prompts=16, max_tokens=48)
    )
    answers: RewardedAnswersConfig = RewardedAnswersConfig(max_tokens=48)
    general: GeneralCheckConfig = GeneralCheckConfig()
    num_resamples: PositiveInt = 10_000
    policy: Path | None = None  # of the gate; default: aligned_policy.yaml beside this file


@dataclass(frozen=True)
class Aligned:
    policy: Adapter | Model
    reward_model: Adapter | Model
    judge: Adapter | Model
    report: Report
    decision: Report


def aligned(config: AlignedConfig, *, model: Model, dataset: Dataset, run: Run) -> Aligned:
    """`dataset`: preferences, with prompts held out in `test`. Raises Refused where these are too few to decide."""
    prompts = preference_prompts(PromptsConfig(max_tokens=config.max_prompt_tokens), dataset=dataset, model=model, run=run)
    if (held_out := len(prompts.split("test"))) < _FEWEST_PROMPTS:
        raise Refused(
            f"{dataset.id} has {held_out} held-out prompts, and at least {_FEWEST_PROMPTS} are needed to decide anything.",
            fix="Split it by prompt when it is made (`mygpt data preference_pairs`), or collect more.",
        )
    with run.step("reward model"):
        halves = (HalfConfig(half=half, max_pairs=config.max_pairs) for half in ("first", "second"))
        teaches, judges = (preference_half(half, dataset=dataset, run=run) for half in halves)
        learnt = reward_model(config.reward_model, model=model, dataset=teaches, run=run)
    with run.step("judge"):
        judge = reward_model(config.reward_model, model=model, dataset=judges, run=run)
        give_back_freed_memory()
    with run.step("ppo"):
        watched: Any = words_reward(config, dataset, run)
        tuned = ppo(config.ppo, model=model, dataset=prompts, reward=reward_of(learnt), held_out_reward=watched, run=run)
        give_back_freed_memory()
    with run.step("measure"):
        before, after = (measured(config, engine, prompts, learnt, judge, run) for engine in engines(model, tuned, run))
    report = aligned_report(
        AlignedReportConfig(num_resamples=config.num_resamples),
        judged=(before[0], after[0]),
        rewarded=(before[1], after[1]),
        general=(before[2], after[2]),
        policy=tuned,
        reward_model=learnt,
        judge=judge,
        run=run,
    )
    with run.step("gate"):
        rules = config.policy or Path(__file__).with_name("aligned_policy.yaml")
        decision = gate(GateConfig(), policy=rules, candidate=(after[0],), baseline=(before[0],), report=report, run=run)
        run.note(f"Gate: {decision.manifest.facts['headline']}")
    return Aligned(tuned, learnt, judge, report, decision)


def measured(
    config: AlignedConfig, engine: TorchEngine, prompts: Dataset, learnt: Adapter | Model, judge: Adapter | Model, run: Run
) -> tuple[Predictions, Predictions, Predictions]:
    """Held-out answers by the judge and by the reward model, and what the model can do otherwise."""
    judged, rewarded = (
        rewarded_answers(config.answers, dataset=prompts, completer=engine, reward=reward_of(one), run=run) for one in (judge, learnt)
    )
    general = general_check(config.general, completer=engine, scorer=engine, run=run)
    give_back_freed_memory()
    return judged, rewarded, general


def words_reward(config: AlignedConfig, dataset: Dataset, run: Run) -> WordReward:
    """What words are worth by the pairs that the reward model did not learn from, with what that tells of held-out pairs."""
    others = preference_half(HalfConfig(half="second", max_pairs=config.max_word_pairs), dataset=dataset, run=run)
    reward = WordReward.fitted(others, max_pairs=config.max_word_pairs)
    asked = others.preferences("test")
    right = share(reward.hits(asked), [prompt_digest(row) for row in asked], run.seed_for("words"))
    told = f"Words alone are right on {right.estimate:.0%} ({right.low:.0%} to {right.high:.0%}) of {len(asked)} held-out pairs"
    if right.low > 0.5:
        run.note(f"{told}: the doctor watches that reward beside the one that is learnt from.")
    else:
        run.warn(f"{told}, which may be chance: the doctor watches that reward, and its word on reward hacking counts little.")
    return reward


def engines(model: Model, tuned: Adapter | Model, run: Run) -> Sequence[TorchEngine]:
    return (
        TorchEngine(model, run=run),
        TorchEngine(tuned, run=run) if isinstance(tuned, Model) else TorchEngine(model, adapter=tuned, run=run),
    )


def reward_of(made: Adapter | Model) -> ModelReward:
    return ModelReward(made) if isinstance(made, Model) else ModelReward(made.base, adapter=made)


# -- the preferences, parted ---------------------------------------------------------------------------------------------------


class HalfConfig(Config):
    half: Literal["first", "second"]
    max_pairs: PositiveInt = 400


@recipe
def preference_half(config: HalfConfig, *, dataset: Dataset, run: Run) -> Dataset:
    """Half of the prompts of `train`, by their digest, and `test`: of each split so many pairs, at even distances."""
    splits = {"train": half_of(dataset, config), "test": spread(dataset.preferences("test"), config.max_pairs)}
    facts = preference_facts(splits)
    return publish(Dataset, run, lambda folder: write_preferences(folder, splits), facts=facts, name=safe_name(f"{run.name}-{config.half}"))


def half_of(dataset: Dataset, config: HalfConfig) -> list[Preference]:
    """Raises Refused where it has none: reward model and judge both learn."""
    wanted, rows = 0 if config.half == "first" else 1, dataset.preferences("train")
    kept = [row for row in rows if int(prompt_digest(row)[:8], 16) % 2 == wanted]
    if not kept:
        what = f"Of the {len(rows)} pairs in the split `train` of {dataset.id} none falls to the {config.half} half of the prompts."
        raise Refused(f"{what} Reward model and judge each learn from one.", fix="Collect pairs of more prompts.")
    return spread(kept, config.max_pairs)


class PromptsConfig(Config):
    max_tokens: PositiveInt = 160


@recipe
def preference_prompts(config: PromptsConfig, *, dataset: Dataset, model: Model, run: Run) -> Dataset:
    """The prompts of the pairs, each once, but for long ones; one that is in `train` is not held out."""
    renderer = ChatRenderer(load_tokenizer(model))
    seen: set[str] = set()
    num_long = 0
    splits: dict[str, list[Conversation]] = {}
    for split in ("train", "test"):
        splits[split] = []
        for row in dataset.preferences(split):
            digest = prompt_digest(row)
            if digest in seen:
                continue
            seen.add(digest)
            prompt = Conversation(row.prompt, digest[:16])
            if len(renderer.prompt(prompt)) <= config.max_tokens:
                splits[split].append(prompt)
            else:
                num_long += 1
    if num_long:
        run.warn(f"{num_long} of {len(seen)} prompts have more than {config.max_tokens} tokens: they are left out.")
    facts = conversation_facts(splits)
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=facts, name=safe_name(f"{run.name}-prompts"))


def forecast(config: AlignedConfig, *, dataset: Dataset, model: Model | None) -> dict[str, Any]:
    """What it would do (`--dry-run`), and with the model at hand what its trainings need. Raises Refused where one does not fit."""
    prompts = {split: {prompt_digest(row) for row in dataset.preferences(split)} for split in ("train", "test")}
    asked = len(prompts["test"] - prompts["train"])
    return {
        "dataset": dataset.id,
        "pairs": len(dataset.preferences("train")),
        "pairs_learnt_at_most": 2 * config.max_pairs,
        "prompts": len(prompts["train"]),
        "held_out_prompts": min(asked, config.answers.max_prompts),
        "enough_to_decide": asked >= _FEWEST_PROMPTS,
        "rollouts": config.ppo.rollouts,
        "answers": config.ppo.rollouts * config.ppo.answers,
        "updates": config.ppo.rollouts * config.ppo.updates,
        "training": training_needs(config, dataset, model) if model else {},
    }


def training_needs(config: AlignedConfig, dataset: Dataset, model: Model) -> dict[str, dict[str, Any]]:
    """Memory and time of each training; of PPO memory at most, by some of its prompts."""
    halves = {"reward model": HalfConfig(half="first", max_pairs=config.max_pairs)}
    halves["judge"] = HalfConfig(half="second", max_pairs=config.max_pairs)
    home = dataset.store.home
    needs = {name: rows_forecast(config.reward_model, model, half_of(dataset, half), home=home) for name, half in halves.items()}
    renderer = ChatRenderer(load_tokenizer(model))
    prompts = {prompt_digest(row): Conversation(row.prompt) for row in dataset.preferences("train")}
    lengths = [len(renderer.prompt(prompt)) for prompt in spread([*prompts.values()], _LOOKED_AT)]
    kept = [length for length in lengths if length <= config.max_prompt_tokens]
    rollouts = foreseen(forecast_of(config.ppo, model, kept, home=home), examples=len(kept)) if kept else nothing_to_learn()
    return {**needs, "ppo": rollouts}


def prompt_digest(row: Preference) -> str:
    return digest_value([[message.role, message.content] for message in row.prompt])


def figures(result: Aligned, run: Run) -> dict[str, Any]:
    """The machine-readable summary (`mygpt aligned --json`)."""
    return {
        "name": run.name,
        "policy": result.policy.id,
        "reward_model": result.reward_model.id,
        "judge": result.judge.id,
        "report": str(result.report.page),
        "gate": {key: result.decision.manifest.facts[key] for key in ("outcome", "headline")},
        "seconds": {step: round(seconds, 2) for step, seconds in run.seconds_by_step.items()},
        **{key: value for key, value in result.report.figures.items() if key not in ("samples", "lineage", "vitals")},
    }
