"""Where marks and ticks stand, by hand."""

import re

import pytest

from mygpt.views.plots import Scale, interval_mark, line_chart, running_mean, scale_over


def test_scale_has_round_ends_and_ticks() -> None:
    scale = scale_over([0.23, 0.55])
    assert (scale.low, scale.high) == (0.0, pytest.approx(0.6))
    assert scale.ticks() == [0.0, 0.2, 0.4, 0.6]
    assert scale.percent(0.15) == 25.0
    assert (scale.percent(-1), scale.percent(2)) == (0.0, 100.0)  # what lies outside stays at the edge
    assert scale_over([-0.03, 0.012]).ticks() == [-0.03, -0.02, -0.01, 0.0, 0.01, 0.02]
    assert scale_over([0.0, 0.0]).high > 0  # no width would divide by zero


def test_interval_mark_places_line_and_dot() -> None:
    mark = interval_mark(0.5, 0.25, 1.0, Scale(0.0, 1.0), title="<tuned>")
    assert re.search(r'class="whisker" x1="25.0%" x2="100.0%"', mark)
    assert 'cx="50.0%"' in mark
    assert "&lt;tuned&gt;" in mark and "<tuned>" not in mark


def test_line_chart_spans_its_points() -> None:
    chart = line_chart([[1, 4.0], [2, 1.0], [3, 2.0]], title="loss")
    raw = re.search(r'class="raw" points="([^"]+)"', chart)
    assert raw is not None and raw[1] == "0.0,0.000 50.0,100.000 100.0,66.667"  # 4 is the top, 1 the bottom, 2 a third of the way up


def test_running_mean_is_symmetrical() -> None:
    assert running_mean([1, 2, 6, 3, 8], 1) == [1, 3, 11 / 3, 17 / 3, 8]
