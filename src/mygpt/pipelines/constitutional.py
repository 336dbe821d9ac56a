"""Constitutional AI from end to end: requests, critiques and revisions, training on them, a judge's preferences, learning from those, and
what it all changed.

    revise    the model's answers, criticised and revised             align/critique_and_revision
    train     the model learns the revised answers                    finetune/sft, then merged
    prefer    a judge compares two answers of the new model           align/ai_preferences
    align     the new model learns the judge's soft labels            align/dpo; or align/reward_model and align/ppo (`with_ppo`)
    measure   base, revised and aligned model on what none of the steps has seen: refusal, disinformation, general questions and text

Critic and judge are the model itself unless others are named. Every step is a recipe, so one that is unchanged is taken from the store.

Source: Bai et al. 2022, arXiv:2212.08073, figure 1.
We differ: unless `with_ppo` is set, direct preference optimisation learns from the soft labels in place of a preference model and PPO
(Rafailov et al. 2023, arXiv:2305.18290).
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mygpt.align.ai_preferences import AIPreferencesConfig, ai_preferences
from mygpt.align.critique_and_revision import CritiqueAndRevisionConfig, critique_and_revision
from mygpt.align.dpo import DPOConfig, dpo
from mygpt.align.model_reward import ModelReward
from mygpt.align.ppo import ppo
from mygpt.align.ppo_config import PPOConfig
from mygpt.align.reward_model import RewardModelConfig, reward_model
from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.report import Predictions, Report
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.evaluate import forgetting
from mygpt.evaluate.compare_models import CompareConfig, compare_models
from mygpt.evaluate.disinformation import DisinformationConfig, disinformation
from mygpt.evaluate.forgetting import Forgetting, GeneralCheckConfig, general_check
from mygpt.evaluate.refusal import RefusalConfig, refusal
from mygpt.finetune.merge import MergeConfig, merge
from mygpt.finetune.sft import SFTConfig, sft
from mygpt.infer.protocols import Completer, Scorer
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.memory import give_back_freed_memory

BASE, REVISED, ALIGNED = "base", "revised", "aligned"


class ConstitutionalConfig(Config):
    constitution: str = "harmless_and_helpful"  # of both phases
    revise: CritiqueAndRevisionConfig = CritiqueAndRevisionConfig()
    sft: SFTConfig = SFTConfig(drop_over_long=True)
    prefer: AIPreferencesConfig = AIPreferencesConfig(principles_per_pair=4)
    dpo: DPOConfig = DPOConfig(drop_unusable=True)
    with_ppo: bool = False  # a reward model learns the preferences, and PPO learns from it, instead of DPO
    reward_model: RewardModelConfig = RewardModelConfig(drop_unusable=True)
    ppo: PPOConfig = PPOConfig()
    refusal: RefusalConfig = RefusalConfig()
    disinformation: DisinformationConfig = DisinformationConfig()
    general: GeneralCheckConfig = GeneralCheckConfig()
    num_resamples: int = 10_000


@dataclass(frozen=True)
class Constitutional:
    """What one run made, or found made."""

    revisions: Dataset
    revised: Model
    preferences: Dataset
    aligned: Adapter | Model
    report: Report
    forgotten: Forgetting  # by the aligned model, against the base


def constitutional(
    config: ConstitutionalConfig,
    *,
    model: Model,
    critic: Completer | None = None,
    judge: Scorer | None = None,
    prompts: Dataset | None = None,
    helpful: Dataset | None = None,
    constitution_file: Path | None = None,
    run: Run,
) -> Constitutional:
    base = TorchEngine(model, run=run)
    held_to: dict[str, Any] = {"constitution_file": constitution_file, "prompts": prompts}
    with _named(run, "revise") as own:
        settings = config.revise.model_copy(update={"constitution": config.constitution})
        revisions = critique_and_revision(settings, completer=base, critic=critic or base, helpful=helpful, **held_to, run=own)
    with _named(run, "train") as own:
        tuned = sft(config.sft, model=model, dataset=revisions, run=own)
        revised = tuned if isinstance(tuned, Model) else merge(MergeConfig(), adapter=tuned, run=own)
        give_back_freed_memory()
    middle = TorchEngine(revised, run=run)
    with _named(run, "prefer") as own:
        asked = config.prefer.model_copy(update={"constitution": config.constitution})
        preferences = ai_preferences(asked, completer=middle, judge=judge or base, **held_to, run=own)
    with _named(run, "align") as own:
        if config.with_ppo:
            made = reward_model(config.reward_model, model=revised, dataset=preferences, run=own)
            reward = ModelReward(made) if isinstance(made, Model) else ModelReward(revised, adapter=made)
            aligned = ppo(config.ppo, model=revised, dataset=revisions, reward=reward, run=own)
        else:
            aligned = dpo(config.dpo, model=revised, dataset=preferences, run=own)
        give_back_freed_memory()
    last = TorchEngine(aligned, run=run) if isinstance(aligned, Model) else TorchEngine(revised, adapter=aligned, run=run)
    with _named(run, "measure") as own:
        report, forgotten = measured(config, {BASE: base, REVISED: middle, ALIGNED: last}, run=own)
    return Constitutional(revisions, revised, preferences, aligned, report, forgotten)


def measured(config: ConstitutionalConfig, engines: dict[str, TorchEngine], *, run: Run) -> tuple[Report, Forgetting]:
    """All on what no step has seen. The judge that gave the labels measures nothing: a model that pleases it need not be better."""
    labels: list[str] = []
    answers: list[Predictions] = []
    general: dict[str, Predictions] = {}
    for label, engine in engines.items():
        run.note(f"Measuring: {label}")
        labels += [label] * 2
        answers += [refusal(config.refusal, completer=engine, run=run), disinformation(config.disinformation, completer=engine, run=run)]
        general[label] = general_check(config.general, completer=engine, scorer=engine, run=run)
    settings = CompareConfig(labels=tuple(labels), num_resamples=config.num_resamples)
    report = compare_models(settings, predictions=tuple(answers), run=run)
    seed = run.seed_for("forgetting")
    lost = forgetting.compare(general[BASE], general[ALIGNED], num_resamples=config.num_resamples, seed=seed)
    return report, lost


@contextmanager
def _named(run: Run, step: str) -> Iterator[Run]:
    """A step of the run whose results carry its name."""
    own = copy.copy(run)
    own.name = f"{run.name}-{step}"
    with run.step(step):
        yield own
