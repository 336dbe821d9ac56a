"""Agreement: the tables of the papers, and by hand."""

import random

import pytest

from mygpt.metrics.agreement import cohen_kappa, fleiss_kappa, interval, krippendorff_alpha, nominal, ordinal, weighted_kappa

_ = None
KRIPPENDORFF_2011 = [  # section C: four observers, twelve units
    [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
    [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
]


def _pairs(table: list[list[int]]) -> tuple[list[int], list[int]]:
    cells = [(i, j) for i, row in enumerate(table) for j, times in enumerate(row) for _ in range(times)]
    return [i for i, _ in cells], [j for _, j in cells]


def test_cohen_1968() -> None:
    """Its table of 200 decisions, unweighted: shares .44 .07 .09 / .05 .20 .05 / .01 .03 .06, so p_o = .70, p_e = .41 and kappa = .492."""
    assert cohen_kappa(*_pairs([[88, 14, 18], [10, 40, 10], [2, 6, 12]])) == pytest.approx(0.492, abs=0.0005)


def test_cohen_by_hand() -> None:
    """35 of 50 agree; chance 1/2 * 3/5 + 1/2 * 2/5 = 1/2: (.7 - .5) / .5."""
    assert cohen_kappa(*_pairs([[20, 5], [10, 15]])) == pytest.approx(0.4)
    assert cohen_kappa(["a", "b"], ["b", "a"]) == pytest.approx(-1.0)
    assert cohen_kappa(["a", "b"], ["a", "b"]) == 1.0


def test_weighted_by_hand() -> None:
    """One pair two steps apart. Linear: observed 2/4, expected 1. Quadratic: observed 4/4, expected 13/8."""
    first, second = [1, 2, 3, 3], [1, 2, 3, 1]
    assert weighted_kappa(first, second, [1, 2, 3], power=1) == pytest.approx(0.5)
    assert weighted_kappa(first, second, [1, 2, 3]) == pytest.approx(1 - 8 / 13)
    two = _pairs([[20, 5], [10, 15]])
    assert weighted_kappa(*two, [0, 1]) == weighted_kappa(*two, [0, 1], power=1) == pytest.approx(0.4)  # two classes: no steps


def test_fleiss_worked_example() -> None:
    """Ten items, fourteen raters, five classes: mean P = .378, P_e = .213, kappa = .210 (Wikipedia's page on the method)."""
    table = [
        *([0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1]),
        *([7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]),
    ]
    assert fleiss_kappa(table) == pytest.approx(0.210, abs=0.0005)


@pytest.mark.parametrize(("distance", "alpha"), [(nominal, 0.743), (ordinal, 0.815), (interval, 0.849)])
def test_krippendorff_2011(distance: object, alpha: float) -> None:
    assert krippendorff_alpha(KRIPPENDORFF_2011, distance=distance) == pytest.approx(alpha, abs=0.0005)  # type: ignore[arg-type]


def test_alpha_of_two_raters_is_scotts_pi_for_few_items() -> None:
    """alpha = pi + (1 - pi) / (2 N), pi with the pooled shares (Scott 1955)."""
    rng = random.Random(4)
    first = [rng.choice("abc") for _ in range(40)]
    second = [label if rng.random() < 0.6 else rng.choice("abc") for label in first]
    pooled = [*first, *second]
    agree = sum(a == b for a, b in zip(first, second, strict=True)) / 40
    chance = sum((pooled.count(label) / 80) ** 2 for label in "abc")
    pi = (agree - chance) / (1 - chance)
    assert krippendorff_alpha([first, second]) == pytest.approx(pi + (1 - pi) / 80)


def test_names_order_and_spacing_matter_where_they_should() -> None:
    """Ordinal looks only at ranks, interval at the numbers, nominal at neither."""
    stretched = [[None if r is None else r**3 for r in row] for row in KRIPPENDORFF_2011]
    assert krippendorff_alpha(stretched, distance=ordinal) == pytest.approx(krippendorff_alpha(KRIPPENDORFF_2011, distance=ordinal))
    assert krippendorff_alpha(stretched, distance=interval) != pytest.approx(
        krippendorff_alpha(KRIPPENDORFF_2011, distance=interval), abs=0.01
    )
    renamed = [[None if r is None else {1: 4, 4: 1}.get(r, r) for r in row] for row in KRIPPENDORFF_2011]
    assert krippendorff_alpha(renamed) == pytest.approx(krippendorff_alpha(KRIPPENDORFF_2011))


def test_strangers_agree_by_chance_only() -> None:
    rng = random.Random(9)
    raters = [[rng.choice("ab") for _ in range(4_000)] for _ in range(3)]
    counts = [[column.count("a"), column.count("b")] for column in zip(*raters, strict=True)]
    for found in (cohen_kappa(raters[0], raters[1]), fleiss_kappa(counts), krippendorff_alpha(raters)):
        assert found == pytest.approx(0, abs=0.05)


def test_one_class_for_everything_leaves_agreement_undefined() -> None:
    assert cohen_kappa(["a"] * 5, ["a"] * 5) is fleiss_kappa([[3, 0], [3, 0]]) is krippendorff_alpha([["a", "a"], ["a", "a"]]) is None


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="1 and 2"):
        cohen_kappa(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="0 and 0"):
        weighted_kappa([], [], [1, 2])
    with pytest.raises(ValueError, match="4 is not among the 3 categories"):
        weighted_kappa([1, 4], [1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="2 to 3"):
        fleiss_kappa([[1, 1], [2, 1]])
    with pytest.raises(ValueError, match=r"1 rows of \[2\]"):
        krippendorff_alpha([[1, 2]])
    with pytest.raises(ValueError, match="0 of 2 have them"):
        krippendorff_alpha([[1, None], [None, 2]])
    with pytest.raises(ValueError, match="rater 1 of 2 gave item 0 the rating nan"):
        krippendorff_alpha([[1.0, 2.0], [float("nan"), 2.0]])
