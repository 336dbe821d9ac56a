"""Around a training with rollouts: figures that are not its own, and the doctor.

    watch = Watch(config.watch, policy, prompts, reward, held_out=held_out_reward, kl_target=..., memory=memory, run=run)
    if watch.ends(number, steps): break     before each rollout; the doctor may end the training, and what was learnt is published
    vitals = watch.after(vitals, made)      completed, logged, seen by the doctor
    facts = watch.concluded(facts)          with the finding, where it ended so

    held-out reward     of the rollout's answers, by another reward that nothing is learnt from
    disagreement        where the reward is an ensemble (`reward_ensemble`)
    win rate            answers to fixed prompts, now against the start, in the eyes of the held-out reward, else of the reward itself

Source  over-optimisation shows in a reward that is not optimised: Gao et al. 2022, arXiv:2210.10760
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from statistics import fmean
from typing import Any

from pydantic import NonNegativeInt, PositiveInt

from mygpt.align.doctor import Doctor, DoctorConfig
from mygpt.align.policy import Policy
from mygpt.align.rollouts import Rollout
from mygpt.align.vitals import Vitals
from mygpt.artifacts.dataset import Conversation
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.core.spread import spread
from mygpt.infer.protocols import Sampling
from mygpt.infer.rewards import Reward, rewards_of
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.low_rank import written_in
from mygpt.training.recompute import computed_once
from mygpt.training.steps import Steps


class WatchConfig(Config):
    doctor: DoctorConfig = DoctorConfig()
    prompts: NonNegativeInt = 0  # fixed ones, for the win rate against the start; 0: it is not measured
    every: PositiveInt = 5  # rollouts between two measurements of it
    max_tokens: PositiveInt = 64  # of an answer to them


class Watch:
    def __init__(
        self,
        config: WatchConfig,
        policy: Policy,
        prompts: Sequence[Conversation],
        reward: Reward,
        *,
        held_out: Reward | None = None,
        kl_target: float | None = None,
        memory: dict[str, Any],
        run: Run,
    ):
        """`memory` is that of `training_steps`: the start's figures and what the doctor saw are kept and resumed with it."""
        self._config, self._policy, self._reward, self._held_out, self._memory, self._run = config, policy, reward, held_out, memory, run
        self._fixed = spread(prompts, min(config.prompts, len(prompts))) if config.prompts else []
        self._doctor = Doctor(config.doctor, kl_target=kl_target, memory=memory)
        self._stopped: dict[str, Any] | None = None
        self._told = ""

    def ends(self, number: int, steps: Steps) -> bool:
        """Before rollout `number`, from 0: whether a fault shows that is to end the training, said aloud."""
        if (finding := self._doctor.stop) is not None:
            of = len(steps.plan) // steps.phase
            self._stopped = {"rollout": number, "of": of, **asdict(finding)}
            self._told = f"Stopped by the doctor at rollout {number} of {of}. {finding.told} {finding.advice}"
            self._run.warn(f"{self._told} What was learnt until then is published; the same command finds it, another setting begins anew.")
            return True
        if number == 0 and self._fixed:
            self._memory["start_scores"] = self._scores()
        return False

    def concluded(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The facts of what was learnt, and where the doctor ended it, the finding too."""
        if self._stopped is None:
            return dict(facts)
        return {**facts, "stopped": self._stopped, "sentences": [self._told, *facts["sentences"]]}

    def after(self, vitals: Vitals, made: Sequence[Rollout]) -> Vitals:
        prompts, answers = [one.prompt for one in made], [one.answer for one in made]
        more: dict[str, Any] = {}
        if self._held_out is not None:
            more["held_out_reward"] = fmean(rewards_of(self._held_out, prompts, answers))
        if (disagreement := getattr(self._reward, "disagreement", None)) is not None:
            more["reward_disagreement"] = fmean(disagreement(prompts, answers))
        if self._fixed and vitals.rollout % self._config.every == 0:
            more["win_rate"] = win_rate(self._scores(), self._memory["start_scores"])
        vitals = replace(vitals, **more)
        self._doctor.observe(vitals, run=self._run)
        return vitals

    def _scores(self) -> list[float]:
        """Of the likeliest answers to the fixed prompts."""
        engine = TorchEngine(self._policy.loaded.model, loaded=replace(self._policy.loaded, module=self._policy.module), run=self._run)
        with written_in(self._policy.module), computed_once(self._policy.module):
            answers = engine.complete(self._fixed, Sampling(max_tokens=self._config.max_tokens))
        return rewards_of(self._held_out or self._reward, self._fixed, answers)


def win_rate(now: Sequence[float], start: Sequence[float]) -> float:
    """The share of prompts on which `now` is higher; a tie is half."""
    return fmean(0.5 if a == b else float(a > b) for a, b in zip(now, start, strict=True))
