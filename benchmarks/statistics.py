"""How often the stated intervals hold the truth, and how often a gate built on them errs: 10,000 simulated evaluations each.

    python -m benchmarks.statistics --json --keep

Scores are made up as models get them: right or wrong; token F1 with a pile at 0 and some at 1; differences of two models whose answers are
alike on half or on nine tenths of the items; three sampled answers a question. Bootstraps draw 1,000 times here (10,000 by default in use,
which covers a little better). All columns of one table share their draws, as any two calls with one seed do; for the first simulations of
each scenario the public function is called as well and must give the same limits.

shares       the true share of each simulated task is drawn within 0.05 of the one named. At one exact share and size the coverage of any
             interval jumps up and down, since counts are whole numbers (Brown, Cai and DasGupta 2001, "Interval estimation for a binomial
             proportion"); `exact_shares` gives those figures too, by enumeration
coverage     the lowest of the stated intervals at 60 items or more, as the gate's figures are the worst there. Rows under `compared` are
             what the pages advise against: Student's interval on 0/1 scores or many zeros, plain percentiles, answers drawn one by one
gate         the parts: "better" = lower limit of the paired 95 % interval above 0, when nothing differs: 2.5 % is due. "Not inferior" =
             `holds` at a true loss of the margin: 5 % at most. Power: how often a true difference is found at the size `items_needed` or
             `items_for_margin` gives for 80 %, mean over 25 first samples of 100 items from which the size is found
gate_rules   the whole: a rule through `evidence_on_task` and `concluded`, interval and corrected p-value together, on made-up items
             of a candidate and a baseline; 2,000 simulations. `held`: of equal models, of one worse by the margin, and of one as much
             better (or no worse) as the rule must not miss, at the size the gate itself calls enough
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from scipy import stats

from benchmarks.record import arguments, finish
from mygpt.evaluate.gate import HOLDS, concluded
from mygpt.evaluate.paired_difference import Resampling
from mygpt.evaluate.policy import Policy, parse_policy
from mygpt.evaluate.rule_evidence import BASELINE, CANDIDATE, evidence_on_task
from mygpt.evaluate.same_items import Measured, SameItems
from mygpt.metrics.bootstrap import bootstrap_mean, limits, resampled_sums
from mygpt.metrics.holm import holm
from mygpt.metrics.mcnemar import mcnemar_exact
from mygpt.metrics.non_inferiority import items_for_margin, non_inferiority
from mygpt.metrics.power import items_needed, kurtosis_of
from mygpt.metrics.student_t import t_quantile
from mygpt.metrics.wilson import wilson

SIZES = (30, 60, 200)
SHARES = (0.1, 0.3, 0.5, 0.8)
SIMULATIONS, RESAMPLES, SEED = 10_000, 1_000, 20_261_121
GATE_SIMULATIONS = 2_000
FIRST_SAMPLES = 25
BAND = 0.05
_CHECKED = 5  # simulations of each scenario that the public function repeats
_AT_ONCE = 1_000  # simulations, for memory

Figures = dict[str, Any]
Limits = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Drawn:
    """Scores of n items (rows) in S simulations (columns), and the true mean of each."""

    scores_NS: np.ndarray
    truth_S: np.ndarray | float


Draw = Callable[[np.random.Generator, int, int], Drawn]


# -- scores as models get them --------------------------------------------------------------------------------------------


def share(about: float) -> Draw:
    def draw(rng: np.random.Generator, n: int, simulations: int) -> Drawn:
        truth_S = rng.uniform(about - BAND, about + BAND, simulations)
        return Drawn((rng.random((n, simulations)) < truth_S).astype(float), truth_S)

    return draw


def token_f1(zeros: float, ones: float) -> Draw:
    """The rest Beta(2, 4), mean 1/3."""

    def draw(rng: np.random.Generator, n: int, simulations: int) -> Drawn:
        u_NS = rng.random((n, simulations))
        between_NS = rng.beta(2, 4, (n, simulations))
        return Drawn(np.where(u_NS < zeros, 0.0, np.where(u_NS < zeros + ones, 1.0, between_NS)), ones + (1 - zeros - ones) / 3)

    return draw


def flips(lost: float, won: float) -> Draw:
    def draw(rng: np.random.Generator, n: int, simulations: int) -> Drawn:
        u_NS = rng.random((n, simulations))
        return Drawn((u_NS < won).astype(float) - (u_NS > 1 - lost), won - lost)

    return draw


def f1_differences(alike: float, gain: float = 0.0) -> Draw:
    """Answers alike on a share of the items; elsewhere two scores of Beta(2, 3), sd .2 each, the second moved by `gain`."""

    def draw(rng: np.random.Generator, n: int, simulations: int) -> Drawn:
        moved_NS = rng.beta(2, 3, (n, simulations)) - rng.beta(2, 3, (n, simulations)) + gain
        return Drawn(np.where(rng.random((n, simulations)) < alike, 0.0, moved_NS), (1 - alike) * gain)

    return draw


def three_answers(rng: np.random.Generator, n: int, simulations: int) -> np.ndarray:
    """(n, 3, S): most questions are nearly always right or nearly always wrong; the true mean is 1/2."""
    ease_NS = rng.beta(0.5, 0.5, (n, simulations))
    return (rng.random((n, 3, simulations)) < ease_NS[:, None]).astype(float)


STATED: dict[str, tuple[str, Draw]] = {
    **{f"share {p}: wilson": ("wilson", share(p)) for p in SHARES},
    "token F1, 20 % zeros and 20 % ones: t": ("t", token_f1(0.2, 0.2)),
    **{f"share {p}: bootstrap_mean": ("bootstrap", share(p)) for p in SHARES},
    "token F1, 20 % zeros and 20 % ones": ("bootstrap", token_f1(0.2, 0.2)),
    "token F1, 40 % zeros": ("bootstrap", token_f1(0.4, 0.1)),
    "token F1, 70 % zeros": ("bootstrap", token_f1(0.7, 0.05)),
    "paired 0/1, 2 % lost and 8 % won": ("bootstrap", flips(0.02, 0.08)),
    "paired 0/1, 5 % lost and 5 % won": ("bootstrap", flips(0.05, 0.05)),
    "paired 0/1, 10 % lost and 10 % won": ("bootstrap", flips(0.10, 0.10)),
    "paired 0/1, 5 % lost and 15 % won": ("bootstrap", flips(0.05, 0.15)),
    "paired 0/1, 15 % lost and 25 % won": ("bootstrap", flips(0.15, 0.25)),
    "paired F1, half alike": ("bootstrap", f1_differences(0.5)),
    "paired F1, nine tenths alike": ("bootstrap", f1_differences(0.9)),
}
COMPARED: dict[str, tuple[str, Draw]] = {
    **{f"share {p}: t": ("t", share(p)) for p in SHARES},
    "token F1, 70 % zeros: t": ("t", token_f1(0.7, 0.05)),
    "token F1, 70 % zeros: plain percentile": ("percentile", token_f1(0.7, 0.05)),
    "paired F1, nine tenths alike: plain percentile": ("percentile", f1_differences(0.9)),
}


# -- intervals of many simulations at once --------------------------------------------------------------------------------


def wilson_limits(scores_NS: np.ndarray) -> Limits:
    n = len(scores_NS)
    of_count = [wilson(k, n) for k in range(n + 1)]
    right_S = scores_NS.sum(axis=0).astype(int)
    return np.array([i.low for i in of_count])[right_S], np.array([i.high for i in of_count])[right_S]


def t_limits(scores_NS: np.ndarray) -> Limits:
    """`t_interval`, column by column."""
    n = len(scores_NS)
    mean_S = scores_NS.mean(axis=0)
    reach_S = t_quantile(0.975, n - 1) * scores_NS.std(axis=0, ddof=1) / n**0.5
    return mean_S - reach_S, mean_S + reach_S


def bootstrap_limits(scores_NS: np.ndarray, level: float = 0.95) -> Limits:
    """`bootstrap_mean`, column by column."""
    n = len(scores_NS)
    total_S = scores_NS.sum(axis=0)
    return limits(resampled_sums(scores_NS, RESAMPLES, 0) / n, total_S / n, (total_S - scores_NS) / (n - 1), level)


def percentile_limits(scores_NS: np.ndarray) -> Limits:
    low_S, high_S = np.quantile(resampled_sums(scores_NS, RESAMPLES, 0) / len(scores_NS), [0.025, 0.975], axis=0)
    return low_S, high_S


def burdened_limits(scores_NS: np.ndarray) -> Limits:
    """`non_inferiority`, column by column: without and with two items more, 95 % on each side."""
    seen_S = np.abs(scores_NS).max(axis=0)
    seen_S[seen_S == 0] = 1.0
    added_S = seen_S ** (1 - (scores_NS == 0).mean(axis=0) / 2)
    low_S, high_S = bootstrap_limits(scores_NS, 0.90)
    wider_low_S, wider_high_S = bootstrap_limits(np.concatenate([scores_NS, [added_S, -added_S]]), 0.90)
    return np.minimum(low_S, wider_low_S), np.maximum(high_S, wider_high_S)


METHODS: dict[str, Callable[[np.ndarray], Limits]] = {
    "wilson": wilson_limits,
    "t": t_limits,
    "bootstrap": bootstrap_limits,
    "percentile": percentile_limits,
    "not inferior": burdened_limits,
}
PUBLIC: dict[str, Callable[[list[float]], Any]] = {
    "bootstrap": lambda scores: bootstrap_mean(scores, num_resamples=RESAMPLES),
    "not inferior": lambda scores: non_inferiority(scores, [0.0] * len(scores), margin=1.0, num_resamples=RESAMPLES).interval,
}


def all_limits(method: str, scores_NS: np.ndarray) -> Limits:
    """In parts; and the work was done: the public function agrees on the first simulations."""
    parts = [METHODS[method](scores_NS[:, s : s + _AT_ONCE]) for s in range(0, scores_NS.shape[1], _AT_ONCE)]
    low_S, high_S = (np.concatenate(side) for side in zip(*parts, strict=True))
    if method in PUBLIC:
        for s in range(_CHECKED):
            interval = PUBLIC[method](scores_NS[:, s].tolist())
            assert np.allclose([interval.low, interval.high], [low_S[s], high_S[s]], atol=1e-9), (method, interval, low_S[s], high_S[s])
    return low_S, high_S


def outcome(found: Limits, truth_S: np.ndarray | float) -> dict[str, float]:
    low_S, high_S = found
    too_high, too_low = float((low_S > truth_S + 1e-9).mean()), float((high_S < truth_S - 1e-9).mean())
    return {"coverage": round(1 - too_high - too_low, 4), "too_high": round(too_high, 4), "too_low": round(too_low, 4)}


# -- tables ---------------------------------------------------------------------------------------------------------------


def coverage_table(scenarios: dict[str, tuple[str, Draw]]) -> Figures:
    table: Figures = {}
    for name, (method, draw) in scenarios.items():
        table[name] = {}
        for n in SIZES:
            drawn = draw(seeded(name.split(":")[0], n), n, SIMULATIONS)
            table[name][str(n)] = outcome(all_limits(method, drawn.scores_NS), drawn.truth_S)
    return table


def several_answers() -> tuple[Figures, Figures]:
    """Three answers a question: by question as stated, and (in a fifth of the simulations) one by one."""
    together: Figures = {}
    one_by_one: Figures = {}
    for n in SIZES:
        scores_N3S = three_answers(seeded("three answers", n), n, SIMULATIONS)
        by_question_NS = scores_N3S.mean(axis=1)
        low_S, high_S = all_limits("bootstrap", by_question_NS)
        names = [f"{i:04d}" for i in range(n) for _ in range(3)]
        for s in range(_CHECKED):
            interval = bootstrap_mean(scores_N3S[:, :, s].ravel().tolist(), clusters=names, num_resamples=RESAMPLES)
            assert np.allclose([interval.low, interval.high], [low_S[s], high_S[s]], atol=1e-9)
        together[str(n)] = outcome((low_S, high_S), 0.5)
        alone_NS = scores_N3S[:, :, : SIMULATIONS // 5].reshape(3 * n, -1)
        one_by_one[str(n)] = outcome(all_limits("bootstrap", alone_NS), 0.5)
    return together, one_by_one


def exact_shares() -> Figures:
    """Wilson's coverage at exactly these shares, summed over all counts."""
    table: Figures = {}
    for p in SHARES:
        table[f"share {p}"] = {}
        for n in SIZES:
            held = [k for k in range(n + 1) if wilson(k, n).low <= p <= wilson(k, n).high]
            table[f"share {p}"][str(n)] = round(float(stats.binom.pmf(held, n, p).sum()), 4)
    return table


def false_better(stated: Figures) -> Figures:
    """`too_high` of the scenarios in which nothing differs; and McNemar's test on 0/1 scores, over all counts of lost and won."""
    names = [name for name, (_, draw) in STATED.items() if name.startswith("paired") and draw(seeded(name, 2), 2, 1).truth_S == 0]
    table: Figures = {name: {n: row["too_high"] for n, row in stated[name].items()} for name in names}
    for each in (0.05, 0.10):
        table[f"mcnemar_exact, {100 * each:.0f} % lost and {100 * each:.0f} % won"] = {str(n): mcnemar_claims(n, each, each) for n in SIZES}
    return table


def mcnemar_claims(n: int, lost: float, won: float) -> float:
    """P(significant at 5 % and more won than lost), over all counts."""
    total = 0.0
    for changed, chance in enumerate(stats.binom.pmf(range(n + 1), n, lost + won)):
        claimed = [w for w in range(changed // 2 + 1, changed + 1) if mcnemar_exact(changed - w, w) < 0.05]
        total += float(chance * stats.binom.pmf(claimed, changed, won / (lost + won)).sum())
    return round(total, 4)


def false_non_inferior() -> Figures:
    scenarios: dict[str, tuple[float, Draw]] = {
        "0/1, 3 % lost and none won, margin 0.03": (0.03, flips(0.03, 0.0)),
        "0/1, 5 % lost and 2 % won, margin 0.03": (0.03, flips(0.05, 0.02)),
        "0/1, 10 % lost and 5 % won, margin 0.05": (0.05, flips(0.10, 0.05)),
        "F1, half alike, the others 0.1 lower, margin 0.05": (0.05, f1_differences(0.5, -0.1)),
        "F1, nine tenths alike, the others 0.3 lower, margin 0.03": (0.03, f1_differences(0.9, -0.3)),
    }
    table: Figures = {}
    for name, (margin, draw) in scenarios.items():
        table[name] = {}
        for n in SIZES:
            low_S, _ = all_limits("not inferior", draw(seeded(name, n), n, SIMULATIONS).scores_NS)
            table[name][str(n)] = round(float((low_S > -margin).mean()), 4)
    return table


def power() -> Figures:
    """Of "better" when there is a gain, and of "not inferior" when nothing differs."""
    flip, half, tenth, higher = flips(0.05, 0.05), f1_differences(0.5), f1_differences(0.9), f1_differences(0.5, 0.1)
    better = [items_needed(0.05, (0.045 - 0.05**2) ** 0.5, kurtosis=kurtosis_of(first_N)) for first_N in first_samples(higher)]
    scenarios: dict[str, tuple[str, float, list[int], Draw]] = {
        "better: F1, half alike, the others 0.1 higher": ("bootstrap", 0.05, better, higher),
        "not inferior: 0/1, 5 % lost and 5 % won, margin 0.05": ("not inferior", 0.05, enough(0.05, 0.10**0.5, flip), flip),
        "not inferior: F1, half alike, margin 0.05": ("not inferior", 0.05, enough(0.05, 0.2, half), half),
        "not inferior: F1, nine tenths alike, margin 0.03": ("not inferior", 0.03, enough(0.03, 0.008**0.5, tenth), tenth),
    }
    table: Figures = {}
    for name, (method, difference, sizes, draw) in scenarios.items():
        found = []
        for number, needed in enumerate(sizes):
            low_S, _ = all_limits(method, draw(seeded(f"{name} {number}", needed), needed, SIMULATIONS // len(sizes)).scores_NS)
            found.append(float((low_S > (0 if method == "bootstrap" else -difference)).mean()))
        table[name] = {"items_needed": int(np.median(sizes)), "stated": 0.8, "found": round(float(np.mean(found)), 4)}
    for lost, won in ((0.05, 0.15), (0.10, 0.20)):
        needed = items_needed(won - lost, (lost + won - (won - lost) ** 2) ** 0.5, step=1.0)
        name = f"mcnemar_exact: {100 * lost:.0f} % lost and {100 * won:.0f} % won"
        table[name] = {"items_needed": needed, "stated": 0.8, "found": mcnemar_claims(needed, lost, won)}
    return table


def enough(margin: float, sd: float, draw: Draw) -> list[int]:
    """As the gate finds it of each first sample: what is added, and how far a few items carry the rest, differ from sample to sample."""
    found = []
    for first_N in first_samples(draw):
        added = non_inferiority(first_N.tolist(), [0.0] * len(first_N), margin=margin, num_resamples=100).added
        found.append(items_for_margin(margin, sd, added, kurtosis=kurtosis_of(first_N)))
    return found


def first_samples(draw: Draw) -> list[np.ndarray]:
    """A hundred items each."""
    return list(draw(seeded("first", 100), 100, FIRST_SAMPLES).scores_NS.T)


# -- the gate itself ------------------------------------------------------------------------------------------------------


def right_or_wrong(lost: float, won: float) -> Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]:
    """(candidate, baseline) of n items: some lost, some won, the others alike, half of them right."""

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        u_N, alike_N = rng.random(n), (rng.random(n) < 0.5).astype(float)
        before_N = np.where(u_N < lost, 1.0, np.where(u_N < lost + won, 0.0, alike_N))
        return np.where(u_N < lost, 0.0, np.where(u_N < lost + won, 1.0, alike_N)), before_N

    return draw


def token_f1_pairs(gain: float) -> Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]:
    """(candidate, baseline) of n items: half alike, elsewhere two scores of Beta(2, 3), the candidate's moved by `gain`."""

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        before_N, other_N = rng.beta(2, 3, n), rng.beta(2, 3, n)
        return np.where(rng.random(n) < 0.5, before_N, other_N + gain), before_N

    return draw


def gate_rules() -> Figures:
    half = f1_differences(0.5)
    better_f1 = items_needed(
        0.05, 0.0425**0.5, kurtosis=float(np.median([kurtosis_of(n) for n in first_samples(f1_differences(0.5, 0.1))]))
    )
    scenarios: dict[str, tuple[dict[str, float], int, float, Any]] = {
        "equal models, 0/1, better_by": ({"better_by": 0}, 60, 0.025, right_or_wrong(0.1, 0.1)),
        "equal models, F1, better_by": ({"better_by": 0}, 60, 0.025, token_f1_pairs(0.0)),
        "worse by the margin, 0/1, not_worse_by": ({"not_worse_by": 0.05}, 200, 0.05, right_or_wrong(0.10, 0.05)),
        "worse by the margin, F1, not_worse_by": ({"not_worse_by": 0.05}, 60, 0.05, token_f1_pairs(-0.1)),
        "at the limit, 0/1, at_least": ({"at_least": 0.5}, 100, 0.025, right_or_wrong(0.1, 0.1)),
        "better, 0/1": ({"better_by": 0, "detect": 0.1}, items_needed(0.1, 0.19**0.5, step=1.0), 0.8, right_or_wrong(0.05, 0.15)),
        "better, F1": ({"better_by": 0, "detect": 0.05}, better_f1, 0.8, token_f1_pairs(0.1)),
        "no worse, 0/1": ({"not_worse_by": 0.05}, items_for_margin(0.05, 0.1**0.5, 1.0, kurtosis=10.0), 0.8, right_or_wrong(0.05, 0.05)),
        "no worse, F1": ({"not_worse_by": 0.05}, int(np.median(enough(0.05, 0.2, half))), 0.8, token_f1_pairs(0.0)),
    }
    table: Figures = {}
    for name, (rule, n, stated, draw) in scenarios.items():
        rng = seeded(name, n)
        held = sum(decided([rule], [draw(rng, n)], number)[0] for number in range(GATE_SIMULATIONS))
        table[name] = {"items": n, "stated": stated, "held": round(held / GATE_SIMULATIONS, 4)}
    rng = seeded("three rules", 60)
    draws = [right_or_wrong(0.1, 0.1), token_f1_pairs(0.0), right_or_wrong(0.15, 0.15)]
    any_held = sum(any(decided([{"better_by": 0}] * 3, [d(rng, 60) for d in draws], s)) for s in range(GATE_SIMULATIONS))
    table["equal models on three tasks, any better_by"] = {"items": 60, "stated": 0.05, "held": round(any_held / GATE_SIMULATIONS, 4)}
    return table


def decided(rules: list[dict[str, float]], pairs: list[tuple[np.ndarray, np.ndarray]], seed: int) -> list[bool]:
    """Whether each rule holds, p-values corrected over them as `gate.decide` does."""
    policy = parse_policy({"require_headroom": False, "rules": [{"task": f"t{i}", **rule} for i, rule in enumerate(rules)]})
    found = [evidence_of(policy, i, *pair, seed) for i, pair in enumerate(pairs)]
    adjusted = holm({str(i): e.p_value for i, e in enumerate(found) if e.p_value is not None})
    return [concluded(e, adjusted.get(str(i)), policy.alpha).outcome == HOLDS for i, e in enumerate(found)]


def evidence_of(policy: Policy, place: int, after_N: np.ndarray, before_N: np.ndarray, seed: int) -> Any:
    models = tuple(
        Measured(label, None, [{"item_id": str(i), "m": float(value)} for i, value in enumerate(values_N)])  # type: ignore[arg-type]
        for label, values_N in ((CANDIDATE, after_N), (BASELINE, before_N))
    )
    task = SameItems(f"t{place}", "1", "choice", "m", ("m",), {"m": True}, None, models)
    resampling = Resampling(1 - policy.alpha, RESAMPLES, seed)
    return evidence_on_task(policy.rules[place], task, policy, resampling, num_tests=len(policy.rules))


def against_scipy(simulations: int = 1_000, n: int = 60) -> Figures:
    """The same samples through `scipy.stats.bootstrap`; time of one interval as called, 200 items, 10,000 resamples, median of 9."""
    table: Figures = {"scipy": scipy.__version__, "items": n, "simulations": simulations}
    for name in ("token F1, 70 % zeros", "paired F1, nine tenths alike", "share 0.1: bootstrap_mean"):
        drawn = STATED[name][1](seeded(name.split(":")[0], n), n, SIMULATIONS)
        scores_NS = drawn.scores_NS[:, :simulations]
        truth_S = drawn.truth_S[:simulations] if isinstance(drawn.truth_S, np.ndarray) else drawn.truth_S
        row = table[name] = {"ours": outcome(all_limits("bootstrap", scores_NS), truth_S)["coverage"]}
        for method in ("percentile", "BCa"):
            rng = seeded(method, n)
            found = [scipy_interval(scores_N, method, RESAMPLES, rng) for scores_N in scores_NS.T]
            low_S, high_S = np.array(found).T
            row[f"scipy {method}"] = outcome((low_S, high_S), truth_S)["coverage"]
    scores_N, rng = seeded("time", 200).beta(2, 3, 200), seeded("time", 0)
    table["ms"] = {
        "ours": median_ms(lambda: bootstrap_mean(scores_N.tolist())),
        "scipy percentile": median_ms(lambda: scipy_interval(scores_N, "percentile", 10_000, rng)),
        "scipy BCa": median_ms(lambda: scipy_interval(scores_N, "BCa", 10_000, rng)),
    }
    return table


def scipy_interval(scores_N: np.ndarray, method: str, resamples: int, rng: np.random.Generator) -> tuple[float, float]:
    """Scores that are all alike have no BCa interval there (NaN, counted as a miss): ours is a point, a miss as well."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = stats.bootstrap((scores_N,), np.mean, vectorized=True, n_resamples=resamples, method=method, rng=rng).confidence_interval
    return (float(found.low), float(found.high)) if np.isfinite(found.low) else (float("inf"), float("inf"))


def median_ms(call: Callable[[], Any], runs: int = 9) -> float:
    taken = []
    for _ in range(runs):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return round(1000 * float(np.median(taken)), 1)


def large_rows(table: Figures) -> Figures:
    """The cells at 60 items or more, by name and size."""
    return {f"{name}, n = {n}": cell for name, row in table.items() for n, cell in row.items() if int(n) >= 60}


def seeded(name: str, n: int) -> np.random.Generator:
    return np.random.default_rng([SEED, n, *name.encode()])


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    started = time.perf_counter()
    stated, compared = coverage_table(STATED), coverage_table(COMPARED)
    stated["three answers a question"], compared["three answers a question, drawn one by one"] = several_answers()
    large = {place: row["coverage"] for place, row in large_rows(stated).items()}
    lowest, highest = min(large, key=lambda key: large[key]), max(large, key=lambda key: large[key])
    gate = {"false_better": false_better(stated), "false_non_inferior": false_non_inferior(), "power": power()}
    rules = gate_rules()
    exact = exact_shares()
    finish(
        "statistics",
        {
            "coverage": large[lowest],
            "coverage_lowest_at": lowest,
            "coverage_highest": large[highest],
            "coverage_highest_at": highest,
            "coverage_outside_94_to_97": {place: held for place, held in large.items() if not 0.94 <= held <= 0.97},
            "coverage_at_exact_shares": min(large_rows(exact).values()),
            "false_better": max(large_rows(gate["false_better"]).values()),
            "false_non_inferior": max(large_rows(gate["false_non_inferior"]).values()),
            "power": min(row["found"] for row in gate["power"].values()),
            "gate_power": min(row["held"] for row in rules.values() if row["stated"] == 0.8),
            "gate_false": max(round(row["held"] - row["stated"], 4) for row in rules.values() if row["stated"] < 0.8),
            "simulations": SIMULATIONS,
            "resamples": RESAMPLES,
            "simulation_error_95": round(1.96 * (0.95 * 0.05 / SIMULATIONS) ** 0.5, 4),
            "seed": SEED,
            "stated": stated,
            "compared": compared,
            "exact_shares": exact,
            "gate": gate,
            "gate_rules": rules,
            "against_scipy": against_scipy(),
            "seconds": round(time.perf_counter() - started),
        },
        options,
    )


if __name__ == "__main__":
    main()
