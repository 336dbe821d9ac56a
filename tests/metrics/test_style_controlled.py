"""Style control: length alone by hand, scikit-learn's logistic regression, and how often its intervals are right."""

import math

import numpy as np
import pytest

from mygpt.metrics.bradley_terry import Comparison, bradley_terry, bradley_terry_intervals
from mygpt.metrics.style_controlled import Style, style_controlled, style_controlled_win_rate, style_of

LONG, SHORT = Style(299, 0, 0, 0), Style(100, 0, 0, 0)  # 199 / 400 apart, one way or the other


def test_style_of_an_answer() -> None:
    text = (
        "# Pumps\n\nTwo **things** matter:\n\n1. pressure\n2. __flow__\n  - and *heat*\n\n## Then\n```\n# no heading\n- no item\n```\nDone."
    )
    assert style_of(text) == Style(characters=len(text), headings=2, list_items=3, bold=2)
    assert style_of("") == Style(0, 0, 0, 0)
    assert style_of("#hash, 2.5 bar, a - b, * no bold *\n```\n**open code") == Style(50, 0, 0, 0)


def by_length(won_long: int, lost_long: int, won_short: int, lost_short: int) -> tuple[list[Comparison], list[tuple[Style, Style]]]:
    """Games of a against b: in the first two groups a's answer is the longer one, in the others b's."""
    groups = [(won_long, 1.0, (LONG, SHORT)), (lost_long, 0.0, (LONG, SHORT))]
    groups += [(won_short, 1.0, (SHORT, LONG)), (lost_short, 0.0, (SHORT, LONG))]
    played = [(Comparison("a", "b", outcome), styles) for count, outcome, styles in groups for _ in range(count)]
    return [c for c, _ in played], [s for _, s in played]


def test_where_length_alone_wins_strengths_are_equal() -> None:
    """The longer answer wins four of five, whoever wrote it; a writes it in 150 of 200. Raw: 130 of 200. At equal style: even, and ln 4."""
    comparisons, styles = by_length(120, 30, 10, 40)
    raw = bradley_terry(comparisons)
    assert raw["a"] - raw["b"] == pytest.approx(math.log(130 / 70), abs=0.001)
    found = style_controlled(comparisons, styles)
    assert found.strengths["a"].estimate == pytest.approx(0.0, abs=0.001) and found.strengths["b"].estimate == pytest.approx(0.0, abs=0.001)
    assert list(found.effects) == ["characters"]  # nothing else ever differs
    assert found.effects["characters"].estimate == pytest.approx(math.log(4), abs=0.002)  # x is +1 or -1
    assert found.strengths["a"].low < 0 < found.strengths["a"].high and found.effects["characters"].low > 0.9
    assert bradley_terry_intervals(comparisons)["a"].low > 0  # without control a is the better one, for certain


def test_strength_and_length_by_hand() -> None:
    """a wins .9 where its answer is longer, .5 where it is shorter: logits ln 9 and 0, so ln 9 / 2 = ln 3 each for strength and length."""
    comparisons, styles = by_length(180, 20, 100, 100)
    found = style_controlled(comparisons, styles)
    assert found.strengths["a"].estimate - found.strengths["b"].estimate == pytest.approx(math.log(3), abs=0.002)
    assert found.effects["characters"].estimate == pytest.approx(math.log(3), abs=0.002)
    rate = style_controlled_win_rate([c.outcome for c in comparisons], styles)
    assert rate.win_rate.estimate == pytest.approx(0.75, abs=0.001)  # raw: 280 of 400
    assert rate.effects["characters"].estimate == pytest.approx(math.log(3), abs=0.002)


def drawn(
    seed: int, num: int, strengths: dict[str, float], effects: tuple[float, float]
) -> tuple[list[Comparison], list[tuple[Style, Style]]]:
    """Games whose outcomes follow the model: effects of length and of list items, before scaling."""
    rng = np.random.default_rng(seed)
    comparisons, styles = [], []
    for _ in range(num):
        one, other = rng.choice(list(strengths), 2, replace=False).tolist()
        pair = tuple(
            Style(*map(int, (rng.integers(20, 900), rng.integers(0, 3), rng.integers(0, 9), rng.integers(0, 5)))) for _ in range(2)
        )
        apart = [(x - y) / (x + y + 1) for x, y in ((pair[0].characters, pair[1].characters), (pair[0].list_items, pair[1].list_items))]
        z = strengths[one] - strengths[other] + sum(b * d for b, d in zip(effects, apart, strict=True))
        u = rng.random()
        outcome = 0.5 if u > 0.9 else float(u / 0.9 < 1 / (1 + math.exp(-z)))
        comparisons.append(Comparison(one, other, outcome, weight=float(rng.uniform(0.5, 2))))
        styles.append((pair[0], pair[1]))
    return comparisons, styles


def test_is_scikit_learns_logistic_regression() -> None:
    """One column per model and feature, no intercept, a tie as half a win and half a loss, C = 1 / l2."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    names, features = ["a", "b", "c", "d"], ["characters", "headings", "list_items", "bold"]
    comparisons, styles = drawn(5, 150, {"a": 1.0, "b": 0.3, "c": -0.3, "d": -1.0}, (2.0, -1.0))
    apart = np.array([[(getattr(x, f) - getattr(y, f)) / (getattr(x, f) + getattr(y, f) + 1) for f in features] for x, y in styles])
    models = np.array([[(name == c.first) - float(name == c.second) for name in names] for c in comparisons])
    x = np.hstack([models, apart / np.sqrt((apart**2).mean(axis=0))])
    outcome, weight = np.array([c.outcome for c in comparisons]), np.array([c.weight for c in comparisons])
    for l2 in (0.01, 0.5):
        theirs = linear_model.LogisticRegression(C=1 / l2, fit_intercept=False, solver="newton-cg", tol=1e-10, max_iter=1_000)
        twice = np.concatenate([np.ones(len(x)), np.zeros(len(x))])
        theirs.fit(np.vstack([x, x]), twice, sample_weight=np.concatenate([weight * outcome, weight * (1 - outcome)]))
        found = style_controlled(comparisons, styles, l2=l2, num_resamples=2)
        ours = [found.strengths[name].estimate for name in names] + [found.effects[name].estimate for name in features]
        assert ours == pytest.approx(theirs.coef_[0].tolist(), abs=1e-5)


def test_with_equal_styles_it_is_bradley_terry() -> None:
    comparisons, _ = drawn(7, 60, {"a": 1.0, "b": 0.0, "c": -0.5}, (0.0, 0.0))
    found = style_controlled(comparisons, [(LONG, LONG)] * 60, num_resamples=50)
    assert found.effects == {}
    assert {name: one.estimate for name, one in found.strengths.items()} == pytest.approx(bradley_terry(comparisons), abs=1e-6)
    assert list(found.strengths) == list(bradley_terry(comparisons))


def test_intervals_hold_the_truth() -> None:
    """Of 100 tournaments of 150 games, the interval of a's strength holds the true 0.5 in about 95 %."""
    rng = np.random.default_rng(11)
    held = 0
    for _ in range(100):
        longer = rng.random(150) < 0.8  # a writes the longer answer in four of five
        chance = 1 / (1 + np.exp(-(1.0 + np.where(longer, 1.2, -1.2))))
        comparisons = [Comparison("a", "b", float(won)) for won in rng.random(150) < chance]
        styles = [(LONG, SHORT) if more else (SHORT, LONG) for more in longer]
        found = style_controlled(comparisons, styles, num_resamples=150).strengths["a"]
        held += found.low <= 0.5 <= found.high
    assert 0.90 <= held / 100 <= 0.99


def test_what_cannot_be_told_apart_has_no_narrow_interval() -> None:
    """a's answer is longer every time and wins three of four: strength or length? Draws split it alike; the likelihood is flat."""
    comparisons, styles = by_length(150, 50, 0, 0)
    found = style_controlled(comparisons, styles)
    assert found.strengths["a"].low < -3 and found.strengths["a"].high > 3
    assert found.effects["characters"].low < -3 and found.effects["characters"].high > 3
    assert 2 * found.strengths["a"].estimate + found.effects["characters"].estimate == pytest.approx(math.log(3), abs=0.01)


def test_comparisons_of_one_prompt_are_drawn_together() -> None:
    comparisons, styles = drawn(3, 80, {"a": 0.6, "b": 0.0}, (1.0, 0.0))
    once = [Comparison(c.first, c.second, c.outcome, cluster=str(i)) for i, c in enumerate(comparisons)]
    width = {}
    for name, played, of in (("once", once, styles), ("copied", once * 5, styles * 5)):
        found = style_controlled(played, of, num_resamples=400).strengths["a"]
        width[name] = found.high - found.low
    assert width["copied"] == pytest.approx(width["once"], rel=0.1)


def test_a_perfect_record_stays_finite() -> None:
    comparisons, styles = by_length(10, 0, 0, 10)  # the longer one, always
    found = style_controlled(comparisons, styles, num_resamples=100)
    assert found.effects["characters"].low > 1 and math.isfinite(found.effects["characters"].high)
    assert found.strengths["a"].low < 0 < found.strengths["a"].high


def test_bad_input() -> None:
    game = Comparison("a", "b", 1.0)
    for comparisons, styles, words in (
        ([], [], "0 comparisons"),
        ([game], [], "1 comparisons, 0 styles"),
        ([Comparison("a", "b", 1.2)], [(LONG, SHORT)], r"comparison 0 of 1: 'a' and 'b', outcome 1\.2"),
        ([Comparison("a", "a", 1.0)], [(LONG, SHORT)], "'a' and 'a'"),
        ([game, Comparison("c", "d", 1.0)], [(LONG, SHORT)] * 2, "2 groups of models"),
    ):
        with pytest.raises(ValueError, match=words):
            style_controlled(comparisons, styles)
    with pytest.raises(ValueError, match="l2 0"):
        style_controlled([game], [(LONG, SHORT)], l2=0.0)
