"""What can go wrong when a policy learns from rewards, and how it shows in the vitals: one check for each fault.

A check looks at a stretch of rollouts, never at one. What is compared with a limit has to be beyond it in four of the last five; what rises
or falls has to do so by a test (Mann and Kendall's, at one in a thousand) and by more than the scatter from rollout to rollout. Rollouts
are drawn anew each time, so their figures err independently, as the test wants it; a small true drift passes the test, which is why the
size counts too.

Source     reward hacking: Gao, Schulman and Hilton 2022, arXiv:2210.10760 (the trained reward goes on rising where the true one falls);
           disagreement of an ensemble: Coste et al. 2023, arXiv:2310.02743; length: Singhal et al. 2023, arXiv:2310.03716; the scatter:
           von Neumann 1941, successive differences, by their median
We differ  limits are our own where no paper has one; each says its reason beside it
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from operator import lt
from statistics import fmean, median, stdev
from typing import Literal

from mygpt.align.vitals import Vitals
from mygpt.metrics.mann_kendall import Trend, mann_kendall
from mygpt.metrics.student_t import t_cdf

Fault = Literal[
    "reward_hacking",
    "kl_blow_up",
    "negative_kl",
    "collapse",
    "length_gaming",
    "never_ends",
    "dead_value",
    "dead_reward",
    "steps_too_large",
    "too_timid",
]
Severity = Literal["notice", "warning", "critical"]

ALPHA = 0.001  # asked after each of some hundred rollouts, mostly of the same ones again: about one false word in ten runs, at most
START, LAST = 5, 5  # rollouts that stand for the beginning and for now: their mean errs by 0.45 of one rollout's scatter
SUSTAINED = 4  # of the LAST: one odd rollout neither makes a fault nor hides one
FEWEST = 8  # values of a trend: the approximation of its test is good from there on
WINDOW = 20  # rollouts of a trend, or half of all where that is more
CLEAR_GAIN = 3.0  # standard errors between beginning and now
LEAST_DRIFT = 2.0  # scatters of one rollout that a trend has to cover: less is true, perhaps, and no matter

KL_OVER_TARGET = 3.0  # times: the adaptive controller moves by at most 20 % of its step, and passes its target by less than this
KL_NATS = 30.0  # a sequence: choosing the best of n answers moves log n - (n-1)/n nats (Stiennon 2020), so n would have to be 3e13
KL_NATS_A_TOKEN = 0.5  # twice what OpenAI's target of 6 nats over 24 tokens allows (Ziegler et al. 2019, arXiv:1909.08593)
BELOW_ZERO, FEWEST_BELOW_ZERO = 0.05, 3  # nats a sequence: rounding between engine and training moves less; rollouts that a test needs
ENTROPY_LEFT = 0.1  # of the beginning's: what is sampled is then known nine times in ten
ENTROPY_NATS = 0.02  # a token: nothing but the likeliest is sampled, 1 answer of 20 tokens in 3 has an unlikely one
DUPLICATES, MORE_DUPLICATES = 0.5, 0.3  # share of answers, and by how much it rose: small answer spaces have many from the start
DISAGREEMENT = 2.0  # times the beginning's: the answers are no longer those that the rewards agreed on
EXPLAINED_BY_LENGTH = 0.5  # of the reward's gain: the greater part. Singhal et al. measure 70-90 % of gains that are mere length
LENGTH_CHANGE = 0.2  # of the beginning's: shorter changes explain nothing that matters
ENDING = 0.5  # of answers that end by themselves: most do not
FEWER_ENDINGS = 0.3
DEAD_FOR, DEAD_ROLLOUTS = 9, 10  # of so many rollouts, value_explained <= 0: a critic needs some to begin, and is dead after that
ALIVE_P = 0.05  # a slight rise is enough to wait
FLAT = 0.9  # of prompts without a spread: nine tenths of what was computed teach nothing
CLIPPED = 0.3  # of tokens: PPO reports 0.05-0.2 where it works (Huang et al. 2022, "The 37 implementation details of PPO"). The share of
# whole answers (RLOO) has no limit: over 64 tokens the ratio leaves its bounds where each token's moved by a fortieth
RATIO = 10.0  # largest ratio, at which TRL's own trainer left a batch out (`ratio_threshold`)
APPROX_KL = 0.1  # nats a token: ten times the 0.01 at which OpenAI's Spinning Up stops its epochs (`target_kl`)
TIMID_AFTER, TIMID_KL, TIMID_P = 20, 0.05, 0.05  # rollouts; nats a sequence: less than the scatter of an estimate from some hundred answers

RELATED: Mapping[Fault, tuple[str, ...]] = {  # what to look at
    "reward_hacking": ("reward", "held_out_reward", "win_rate", "reward_disagreement"),
    "kl_blow_up": ("kl", "kl_coefficient"),
    "negative_kl": ("kl",),
    "collapse": ("entropy", "duplicate_share"),
    "length_gaming": ("length", "reward", "reward_per_token"),
    "never_ends": ("finished_share", "length"),
    "dead_value": ("value_explained",),
    "dead_reward": ("reward_std", "flat_share"),
    "steps_too_large": ("clip_share", "answer_clip_share", "ratio_max", "approx_kl"),
    "too_timid": ("reward", "kl", "approx_kl"),
}


@dataclass(frozen=True)
class Sign:
    """A fault as it shows now."""

    severity: Severity
    since: int  # rollout
    evidence: str
    advice: str


@dataclass(frozen=True)
class History:
    start: Sequence[Vitals]  # the first START rollouts
    recent: Sequence[Vitals]  # the last ones, those of the start too while there are few

    def series(self, name: str) -> list[tuple[int, float]]:
        """(rollout, value) where it was measured and is a number."""
        return [(v.rollout, value) for v in self.recent if (value := _number(v, name)) is not None]

    def first(self, name: str) -> list[float]:
        return [value for v in self.start if (value := _number(v, name)) is not None]

    def last(self, name: str) -> list[float]:
        return [value for _, value in self.series(name)[-LAST:]]

    def trend(self, name: str) -> Trend | None:
        """Over WINDOW values or the later half; None where they are too few."""
        values = [value for _, value in self.series(name)]
        values = values[-max(WINDOW, len(values) // 2) :]
        return mann_kendall(values) if len(values) >= FEWEST else None

    def scatter(self, name: str) -> float:
        """Standard deviation from rollout to rollout, whatever the trend: from the median of successive differences."""
        values = [value for _, value in self.series(name)]
        steps = [abs(b - a) for a, b in pairwise(values)]
        return 1.4826 * median(steps) / math.sqrt(2) if steps else 0.0

    def gained(self, name: str) -> float:
        """From the beginning to now, in standard errors."""
        first, last = self.first(name), self.last(name)
        if len(self.series(name)) < START + LAST or not first:
            return 0.0
        error = self.scatter(name) * math.sqrt(1 / len(first) + 1 / len(last))
        moved = _mean(last) - _mean(first)
        return moved / error if error else math.copysign(math.inf, moved) if moved else 0.0

    def drifts(self, name: str, *, up: bool) -> Trend | None:
        """The trend where it is one, in this direction and of a size that matters."""
        found = self.trend(name)
        if found is None or (found.rising_p if up else found.falling_p) >= ALPHA:
            return None
        return found if abs(found.change) >= LEAST_DRIFT * self.scatter(name) else None

    def since(self, name: str, holds: Callable[[float], bool]) -> int | None:
        """The rollout from which on it holds, up to now and with few exceptions; None where it does not hold now."""
        values = self.series(name)
        if len(values) < LAST or sum(holds(value) for _, value in values[-LAST:]) < SUSTAINED:
            return None
        held = [holds(value) for _, value in values]
        spans = (i for i in range(len(held)) if held[i] and sum(held[i:]) * LAST >= SUSTAINED * (len(held) - i))
        return values[next(spans)][0]


def reward_hacking(history: History, kl_target: float | None) -> Sign | None:
    if history.gained("reward") < CLEAR_GAIN:
        return None
    reward = f"The reward rose from {_start(history, 'reward')} to {_now(history, 'reward')}"
    for name, called in (("held_out_reward", "a reward that is not trained on"), ("win_rate", "the win rate against the start")):
        if fall := history.drifts(name, up=False):
            best_at, best = _peak(history.series(name), history.scatter(name))
            told = f"{reward}, while {called} fell from {best:.3g} at rollout {best_at} to {_now(history, name)} (p {_p(fall.falling_p)})."
            return Sign("critical", best_at, told, _HACKING)
    if (rise := history.drifts("reward_disagreement", up=True)) is not None:
        before, now = _mean(history.first("reward_disagreement") or [math.inf]), _mean(history.last("reward_disagreement"))
        if now >= DISAGREEMENT * before:
            told = f"{reward}, while the rewards of the ensemble came to disagree, by {before:.3g} at first and {now:.3g} now"
            since = history.since("reward_disagreement", lambda value: value > 1.5 * before)
            return Sign("warning", since or history.recent[-1].rollout, f"{told} (p {_p(rise.rising_p)}).", _HACKING)
    return None


_HACKING = (
    "Go back to the checkpoint of about that rollout, and hold the policy nearer to its reference: raise `kl.coefficient` (GRPO: "
    "`kl_coefficient`), or lower `kl.target`. Then look at the best-paid answers, and train the reward on pairs of such, with their "
    "fault in the rejected one."
)


def kl_blow_up(history: History, kl_target: float | None) -> Sign | None:
    if kl_target is not None:
        limit = KL_OVER_TARGET * kl_target
        since = history.since("kl", lambda value: value > limit)
        against = f"{KL_OVER_TARGET:g} times the target of {kl_target:g}"
    else:
        a_token = {v.rollout: v.kl / max(v.length, 1.0) for v in history.recent}
        far = [v.kl > KL_NATS and a_token[v.rollout] > KL_NATS_A_TOKEN for v in history.recent]
        since = history.since("kl", lambda value: value > KL_NATS) if sum(far[-LAST:]) >= SUSTAINED else None
        against = f"{KL_NATS:g} nats, further than any choice among answers of the reference could lead"
    if since is None or history.drifts("kl", up=False):  # it is coming back by itself
        return None
    told = f"The KL from the reference is {_now(history, 'kl')} nats a sequence ({_start(history, 'kl')} at first), beyond {against}."
    advice = (
        "Raise `kl.coefficient` (GRPO: `kl_coefficient`) or let it adapt (`kl=adaptive`, `kl.target`), lower `learning_rate`, and begin "
        "again from before that rollout. Where the reward itself has huge values, set `clip_rewards` or `scale_rewards`."
    )
    return Sign("critical", since, told, advice)


def negative_kl(history: History, kl_target: float | None) -> Sign | None:
    """The expectation under what is sampled cannot be below zero: if it is, something else was sampled than was scored."""
    values = history.series("kl")[-FEWEST:]
    numbers = [value for _, value in values]
    if len(numbers) < FEWEST_BELOW_ZERO or _mean(numbers) > -BELOW_ZERO:
        return None
    error = stdev(numbers) / math.sqrt(len(numbers))
    chance = t_cdf(_mean(numbers) / error, len(numbers) - 1) if error else 0.0
    if chance >= ALPHA:
        return None
    since = next((rollout for rollout, value in history.series("kl") if value < 0), values[0][0])
    told = (
        f"The KL from the reference is {_mean(numbers):.3g} nats a sequence over the last {len(numbers)} rollouts (p {_p(chance)}), and no "
        "KL is below zero: sampling and scoring differ, so the policy is paid for the difference."
    )
    advice = (
        "Score with the temperature that was sampled with, and sample without `top_p`, `top_k` and a minimum length. See that the "
        "engine has this step's weights, that both use one chat template, and that padding and the tokens after the stop are left out."
    )
    return Sign("critical", since, told, advice)


def collapse(history: History, kl_target: float | None) -> Sign | None:
    if _is_solved(history):
        return None
    before = _mean(history.first("entropy"))
    stiff = history.since("entropy", lambda value: value <= max(ENTROPY_LEFT * before, ENTROPY_NATS))
    at_first = _mean(history.first("duplicate_share"))
    alike = history.since("duplicate_share", lambda value: value >= max(DUPLICATES, at_first + MORE_DUPLICATES))
    if stiff is None and alike is None:
        return None
    told = [f"The entropy is {_now(history, 'entropy')} nats a token, {_start(history, 'entropy')} at first"]
    told += [f"{_percent(history, 'duplicate_share')} of a rollout's answers repeat an earlier one, {at_first:.0%} at first"]
    advice = (
        "Raise `kl.coefficient` (GRPO: `kl_coefficient`) or `entropy_weight`, lower `learning_rate` or the `epochs` (`passes`) over a "
        "rollout, and begin again from before it: what is no longer sampled cannot be learnt again. See that `temperature` is near 1."
    )
    since = min(found for found in (stiff, alike) if found is not None)
    said = f"{'; '.join(told)}: the policy says the same again and again"
    if history.gained("reward") >= CLEAR_GAIN:
        risen = f"{said}, at a reward of {_now(history, 'reward')} after {_start(history, 'reward')}."
        return Sign("warning", since, risen, f"Where a prompt has one right answer, this is how it should be. Else: {advice}")
    return Sign("critical", since, f"{said}.", advice)


def length_gaming(history: History, kl_target: float | None) -> Sign | None:
    before, now = _mean(history.first("length")), _mean(history.last("length"))
    gain = _mean(history.last("reward")) - _mean(history.first("reward"))
    if history.gained("reward") < CLEAR_GAIN or abs(history.gained("length")) < CLEAR_GAIN or abs(now - before) < LENGTH_CHANGE * before:
        return None
    if any(history.drifts(name, up=True) for name in ("held_out_reward", "win_rate")):  # the longer answers are better ones
        return None
    slope = _slope(history)
    share = None if slope is None else slope * (now - before) / gain
    if slope is None or share is None or share < EXPLAINED_BY_LENGTH:
        return None
    told = (
        f"Answers went from {before:.0f} to {now:.0f} tokens; a token more earns {slope:+.3g} within a rollout, which explains "
        f"{min(share, 1.0):.0%} of the reward's gain of {gain:.3g}."
    )
    advice = (
        f"Set `length_penalty` to about {slope:.2g} a token, or train the reward on pairs of like length; check with a win rate that "
        "controls for length."
    )
    grown = history.since("length", lambda value: abs(value - before) > LENGTH_CHANGE * before)
    return Sign("warning", grown or history.recent[-1].rollout, told, advice)


def never_ends(history: History, kl_target: float | None) -> Sign | None:
    since = history.since("finished_share", lambda value: value < ENDING)
    if since is None:
        return None
    before, now = _mean(history.first("finished_share")), _mean(history.last("finished_share"))
    told = f"{now:.0%} of the answers end by themselves, {before:.0%} at first; the others are cut off at {_now(history, 'length')} tokens."
    if before - now >= FEWER_ENDINGS:
        advice = "Set a penalty for answers without a stop (`missing_stop_penalty`), or a `length_penalty`; begin again from there."
        return Sign("critical", since, told, advice)
    advice = (
        "Give more `max_answer_tokens`, or tune the model first on answers that end (`mygpt finetune sft` trains the stop token). Where "
        "answers are not meant to end, as continuations are not, set `watch.doctor.answers_end=false`."
    )
    return Sign("warning", since, told, advice)


def dead_value(history: History, kl_target: float | None) -> Sign | None:
    values = history.series("value_explained")
    dead = [value <= 0 for _, value in values]
    trend = history.trend("value_explained")
    if len(values) <= DEAD_ROLLOUTS or sum(dead[-DEAD_ROLLOUTS:]) < DEAD_FOR or trend is None or trend.rising_p < ALIVE_P:
        return None  # a critic that begins far off and comes nearer is alive
    since = history.since("value_explained", lambda value: value <= 0)
    lowest = median([value for _, value in values[-DEAD_ROLLOUTS:]])
    told = f"The value function explains {lowest:.3g} of the returns' variance (median of {DEAD_ROLLOUTS} rollouts): no more than a mean."
    advice = (
        "Raise `value_weight` or `learning_rate` where it stays near 0; lower them where it is far below 0. Scale rewards to about 1 "
        "(`scale_rewards`), widen `value_clip`, or begin the head from the reward model (`value_from_reward`). GRPO needs no value head."
    )
    return Sign("warning", since or values[-DEAD_ROLLOUTS][0], told, advice)


def dead_reward(history: History, kl_target: float | None) -> Sign | None:
    flat = history.since("flat_share", lambda value: value >= FLAT)
    level = max(abs(_mean(history.last("reward"))), 1.0)
    same = history.since("reward_std", lambda value: value <= 1e-6 * level)
    if flat is None and same is None:
        return None
    share = f"{_percent(history, 'flat_share')} of the prompts have answers" if flat is not None else "All answers are ones"
    told = f"{share} that all earn the same (standard deviation {_now(history, 'reward_std')}): nothing is preferred, so nothing is learnt."
    since = min(found for found in (flat, same) if found is not None)
    if history.gained("reward") >= CLEAR_GAIN:
        told += f" The reward came from {_start(history, 'reward')} to {_now(history, 'reward')}."
        return Sign("notice", since, told, "If that is all there is to gain, stop here; else give harder prompts, or a finer reward.")
    advice = (
        "Give a reward with steps in between, easier prompts, more `samples` of each, a higher `temperature`, or a start that succeeds now "
        "and then (tune it first). See that the reward can read the answers at all."
    )
    return Sign("critical", since, told, advice)


def steps_too_large(history: History, kl_target: float | None) -> Sign | None:
    limits = {"clip_share": CLIPPED, "ratio_max": RATIO, "approx_kl": APPROX_KL}
    said = {"clip_share": "share of clipped tokens", "ratio_max": "largest ratio", "approx_kl": "KL of an update, a token"}
    began = {name: history.since(name, partial(lt, limit)) for name, limit in limits.items()}  # the limit is less than the value
    found = {name: since for name, since in began.items() if since is not None}
    if not found:
        return None
    told = "; ".join(f"{said[name]} {_now(history, name)} (limit {limits[name]:g})" for name in found)
    advice = "Lower `learning_rate` (a third, say), take fewer `epochs` (`passes`) over a rollout, or steps of more answers."
    return Sign("warning", min(found.values()), f"{told[0].upper()}{told[1:]}: updates leave the region in which they are right.", advice)


def too_timid(history: History, kl_target: float | None) -> Sign | None:
    reward = history.trend("reward")
    if history.recent[-1].rollout < TIMID_AFTER or reward is None or min(reward.rising_p, reward.falling_p) < TIMID_P:
        return None
    since = history.since("kl", lambda value: abs(value) < TIMID_KL)
    clipped = [*history.last("clip_share"), *history.last("answer_clip_share")]
    if since is None or abs(history.gained("reward")) >= CLEAR_GAIN or any(share > 0 for share in clipped):
        return None
    told = (
        f"After {history.recent[-1].rollout} rollouts the KL from the reference is {_now(history, 'kl')} nats a sequence and the reward is "
        f"{_now(history, 'reward')}, {_start(history, 'reward')} at first: nothing moves."
    )
    coefficient = history.last("kl_coefficient")
    held = f", or lower the KL's coefficient ({coefficient[-1]:g} now)" if coefficient and coefficient[-1] > 0 else ""
    return Sign("warning", since, told, f"Raise `learning_rate` (three times, say){held}. See that the reward differs between answers.")


CHECKS: Mapping[Fault, Callable[[History, float | None], Sign | None]] = {
    "reward_hacking": reward_hacking,
    "kl_blow_up": kl_blow_up,
    "negative_kl": negative_kl,
    "collapse": collapse,
    "length_gaming": length_gaming,
    "never_ends": never_ends,
    "dead_value": dead_value,
    "dead_reward": dead_reward,
    "steps_too_large": steps_too_large,
    "too_timid": too_timid,
}
HIDES: Mapping[Fault, tuple[Fault, ...]] = {"dead_reward": ("dead_value", "too_timid")}  # the first explains the others


def _is_solved(history: History) -> bool:
    """The reward rose until all answers earned the same: few answers are right, and a policy that gives them has not collapsed."""
    spread, before = history.last("reward_std"), history.first("reward_std")
    return history.gained("reward") >= CLEAR_GAIN and _mean(spread) <= 0.1 * _mean(before)


def _slope(history: History) -> float | None:
    """Reward a token: within rollouts, or from how rollouts that follow one another differ, where they go together."""
    within = [value for _, value in history.series("reward_per_token")]
    if within:
        return _mean(within)
    rewards, lengths = ([value for _, value in history.series(name)] for name in ("reward", "length"))
    by_reward, by_length = ([b - a for a, b in pairwise(values)] for values in (rewards, lengths))
    squares, together = sum(d * d for d in by_length), sum(d * e for d, e in zip(by_length, by_reward, strict=True))
    correlation = together / math.sqrt(squares * sum(e * e for e in by_reward)) if squares and any(by_reward) else 0.0
    dof = len(by_length) - 1
    if dof < FEWEST or abs(correlation) >= 1:
        return together / squares if squares and dof >= FEWEST else None
    chance = 2 * (1 - t_cdf(abs(correlation) * math.sqrt(dof / (1 - correlation**2)), dof))
    return together / squares if chance < ALPHA else None


def _number(vitals: Vitals, name: str) -> float | None:
    value = getattr(vitals, name)
    return None if value is None or not math.isfinite(value) else float(value)


def _mean(values: Sequence[float]) -> float:
    """Not a number where nothing was measured: it is then beyond no limit."""
    return fmean(values) if values else math.nan


def _peak(values: Sequence[tuple[int, float]], scatter: float) -> tuple[int, float]:
    """The last rollout about which the mean of three is the highest, or as good as that, and that mean."""
    means = [(values[i][0], _mean([v for _, v in values[max(0, i - 1) : i + 2]])) for i in range(len(values))]
    highest = max(mean for _, mean in means)
    return next((rollout, mean) for rollout, mean in reversed(means) if mean >= highest - scatter)


def _start(history: History, name: str) -> str:
    return f"{_mean(history.first(name)):.3g}"


def _now(history: History, name: str) -> str:
    return f"{_mean(history.last(name)):.3g}"


def _percent(history: History, name: str) -> str:
    return f"{_mean(history.last(name)):.0%}"


def _p(value: float) -> str:
    return "below 0.0001" if value < 0.0001 else f"{value:.4f}"
