"""The page: well-formed, nothing fetched, nothing from a document taken for markup, and the figures are on it."""

import copy
from html.parser import HTMLParser
from typing import Any

import pytest

from mygpt.views.report_page import render

ATTACK = "<script>alert('x')</script><img src=http://evil.example/x.png onerror=alert(1)>\"'"
_VOID = {"meta", "br", "line", "circle", "rect", "polyline"}


def arm(name: str, f1: float, over: list[float] | None) -> dict[str, Any]:
    interval = {"estimate": sum(over) / 2, "low": over[0], "high": over[1]} if over else None
    return {
        "arm": name,
        "label": name.replace("_", " "),
        "f1": f1,
        "f1_interval": [f1 - 0.05, f1 + 0.05],
        "rouge_l": f1 - 0.02,
        "exact_match": 0.1,
        "answer_tokens": None,
        "share_cut": 0.25,
        "share_abstained": 0.0,
        "behind_best": None,
        "over_base": interval,
    }


def figures() -> dict[str, Any]:
    sample = {"question": ATTACK, "reference": ATTACK, "base": ATTACK, "tuned": ATTACK, "f1_base": 0.0, "f1_tuned": 1.0, "change": 1.0}
    arms = [arm("base_zero_shot", 0.28, None), arm("tuned", 0.41, [0.08, 0.18])]
    return {
        "name": ATTACK,
        "measured": "2026-11-20",
        "verdict": {
            "outcome": "learnt the content", "best": "tuned", "headline": "It paid off.", "sentences": [ATTACK],
            "forgetting": "within the limit",
        },
        "f1_base": 0.28,
        "f1_fewshot": 0.33,
        "f1_tuned": 0.41,
        "f1_retrieval": None,
        "f1_tuned_retrieval": None,
        "f1_ci": [0.08, 0.18],
        "f1_ci_fewshot": [0.02, 0.14],
        "forgetting_bpb": 0.0214,
        "bpb_held_out": {"base": 1.3, "tuned": 1.25},
        "pairs_train": 1412,
        "pairs_knowledge": 84,
        "pairs_generalisation": 38,
        "sets": {"knowledge": {"items": 84, "passages": 42, "reliable": True, "best": "tuned", "cheapest": "tuned", "arms": arms}},
        "forgetting": {
            "bpb_base": 1.02, "bpb_tuned": 1.0414, "bpb": {"estimate": 0.0214, "low": 0.01, "high": 0.03}, "max_bpb": 0.05,
            "num_items": 72, "right_base": 51, "right_tuned": 50, "right_to_wrong": 4, "wrong_to_right": 3, "p_value": 1.0,
        },
        "dropped": {ATTACK: 12, "duplicate": 3},
        "documents": {
            "read": 22,
            "passages": 131,
            "passages_asked_about": 97,
            "skipped": [{"path": ATTACK, "reason": "corrupt", "detail": ATTACK, "fix": ATTACK}],
        },
        "training": {
            "curve": [[1, 2.5], [2, 2.0], [3, 1.5]], "tokens_per_second": 431.0, "method": "lora", "trainable": 4884480, "seconds": 143.2,
        },
        "samples": {"best": [sample], "worst": [sample]},
        "settings": {"note": ATTACK},
        "lineage": [{"role": "dataset", "kind": "dataset", "id": "dataset/x-0123456789ab", "recipe": "mygpt.finetune.sft:sft"}],
    }  # fmt: skip


class Page(HTMLParser):
    """Reads a page and checks that every element is closed where it should be."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_nothing_is_fetched_and_nothing_runs() -> None:
    html = render(figures())
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "embed", "a", "form", "base"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href", "srcset", "action")]
    assert "url(" not in html and "@import" not in html
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes
    assert page.text.count(ATTACK) >= 12  # said as it was written, everywhere it stands


def test_the_figures_are_on_the_page() -> None:
    text = " ".join(Page(render(figures())).text.split())
    for said in (
        "+0.13",
        "+0.08 to +0.18",
        "+0.02 to +0.14",
        "0.28 → 0.41",
        "+0.021",
        "51 → 50",
        "1 412",
        "2 min 23 s",
        "learnt the content",
    ):
        assert said in text


def test_under_thirty_passages_the_page_says_so() -> None:
    reliable = Page(render(figures())).text
    few = figures()
    few["sets"]["knowledge"] |= {"passages": 29, "reliable": False}
    text = " ".join(Page(render(few)).text.split())
    assert text.lower().count("interval unreliable") == 2 and "unreliable" not in reliable


def test_arms_and_measures_that_were_not_run() -> None:
    bare = figures() | dict.fromkeys(
        ("f1_base", "f1_fewshot", "f1_tuned", "f1_ci", "f1_ci_fewshot", "forgetting_bpb", "forgetting", "documents", "training")
    )
    bare |= {"sets": {}, "dropped": {}, "samples": {"best": [], "worst": []}, "lineage": [], "bpb_held_out": {"base": None, "tuned": None}}
    bare["verdict"] = {"outcome": "too few to decide", "best": None, "headline": "Too few.", "sentences": [], "forgetting": "not measured"}
    text = Page(render(bare)).text
    assert "There was no training" in text
    assert "Not measured" in text


@pytest.mark.parametrize(
    ("outcome", "forgetting", "tone"),
    [
        ("learnt the content", "within the limit", "good"),
        ("learnt the style, not the content", "within the limit", "fair"),
        ("learnt the content", "beyond the limit", "bad"),
        ("worse than before", "within the limit", "bad"),
        ("too few to decide", "not measured", "plain"),
    ],
)
def test_tone(outcome: str, forgetting: str, tone: str) -> None:
    shown = copy.deepcopy(figures())
    shown["verdict"] |= {"outcome": outcome, "forgetting": forgetting}
    assert ("class", f"verdict {tone}") in Page(render(shown)).attributes
