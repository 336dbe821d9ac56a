"""The page on answers says what `benchmarks/results/rag.json` holds."""

import json
from pathlib import Path

from benchmarks.readme import README, _second_abstained
from benchmarks.record import RESULTS

PAGE = Path(__file__).parents[2] / "docs" / "rag" / "answer.md"


def test_the_figures_of_the_page_are_those_measured() -> None:
    record = json.loads((RESULTS / "rag.json").read_text(encoding="utf-8"))
    held_out, page = record["held_out"], PAGE.read_text(encoding="utf-8")
    answers, quotes, strangers = (held_out["citations"][name] for name in ("answers", "quotes", "strangers"))
    silent = held_out["abstention"]
    figures = {
        "60 reference answers in other words": f"{answers['right']} of {answers['citations']} ({answers['precision']:.2f})",
        "evidence word for word": f"{quotes['right']} of {quotes['citations']}",
        "answers of other questions": f"{strangers['citations']} of {strangers['questions']}",
        "planted false sentences": f"{len(held_out['citations']['planted_cited'])} of 15",
        "off-topic questions not answered": f"{silent['off_topic_abstained']} of {silent['off_topic']}",
        "answerable questions not answered": f"{silent['answerable_abstained']} of {silent['answerable']}",
    }
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    for what, figure in figures.items():
        (row,) = [line for line in rows if what in line]
        assert f"| {figure} |" in row


def test_the_readme_shows_the_second_set_beside_the_first() -> None:
    assert _second_abstained({"abstained_general": "9 of 10", "abstained_near_topic": "5 of 10"}) == "14 of 20"
    lines = README.read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("| off-topic questions not answered"))
    second = json.loads((RESULTS / "rag.json").read_text(encoding="utf-8"))["second"]
    assert f"| {_second_abstained(second)} |" in lines[first + 1]
