"""The page says what `benchmarks/results/critique_and_revision.json` holds."""

import json
from pathlib import Path

from benchmarks.record import RESULTS

PAGE = Path(__file__).parents[2] / "docs" / "align" / "critique_and_revision.md"


def test_the_figures_of_the_page_are_those_measured() -> None:
    record = json.loads((RESULTS / "critique_and_revision.json").read_text(encoding="utf-8"))
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    share, dropped = record["share_revised"], record["dropped"]
    estimate, low, high = (f"{100 * share[name]:.0f}" for name in ("estimate", "low", "high"))
    assert f"{record['critiques']} critiques" in page
    assert f"{record['revisions']} revisions of {record['requests_revised']} requests ({estimate} %, interval {low} to {high} %)" in page
    assert f"{dropped['repeats itself']} loops, {dropped['repeats the critique']} repeats of the critique" in page
    assert record["no_change_needed"] == record["left_alone"] == 0 and dropped["answer too long"] == 16
