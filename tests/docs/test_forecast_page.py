"""The page on forecasts says what `benchmarks/results/forecast.json` holds."""

import json
from pathlib import Path

from benchmarks.forecast import SETTINGS
from benchmarks.record import RESULTS

PAGE = Path(__file__).parents[2] / "docs" / "training" / "forecast.md"


def test_the_figures_of_the_page_are_those_measured() -> None:
    settings = json.loads((RESULTS / "forecast.json").read_text(encoding="utf-8"))["settings"]
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert list(settings) == list(SETTINGS)
    for name, one in settings.items():
        peaks, times = (" / ".join(f"{value:g}" for value in one[key]) for key in ("peak_gb", "seconds"))
        foreseen = " / ".join("–" if value is None else f"{value:g}" for value in one["forecast_seconds"])
        assert f"| {name} | {one['forecast_gb']:g} | {peaks} | {one['memory_ratio']:g} | {foreseen} | {times} |" in rows


def test_every_setting_of_the_benchmark_is_one() -> None:
    assert all(setting.configured().checkpoint_seconds == 3600 for setting in SETTINGS.values())
