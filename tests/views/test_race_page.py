"""The page and the table of a race: well-formed, nothing fetched, nothing from data taken for markup, and the figures are on them."""

import copy
import io
from typing import Any

import pytest
from rich.console import Console

from mygpt.views.race_page import render
from mygpt.views.race_table import race_table
from tests.views.test_report_page import ATTACK, Page


def contender(
    name: str, label: str, f1: float, *, trainable: int = 0, forgot: float | None = None, keeps_up: bool = False
) -> dict[str, Any]:
    def limits(value: float) -> dict[str, float]:
        return {"estimate": value, "low": value - 0.04, "high": value + 0.04}

    arm = {
        "f1": f1,
        "f1_interval": [f1 - 0.05, f1 + 0.05],
        "rouge_l": f1 - 0.02,
        "exact_match": 0.1,
        "answer_tokens": 21.0,
        "share_cut": 0.25,
        "share_abstained": 0.0,
        "over_base": None if name == "base" else limits(f1 - 0.2),
        "behind_best": None if name == "full" else limits(0.36 - f1),
        "keeps_up": keeps_up,
    }
    lost = None
    if forgot is not None:
        flips = {"num_items": 96, "right_base": 61, "right_tuned": 58, "right_to_wrong": 7, "wrong_to_right": 4, "p_value": 0.55}
        lost = {"bpb_base": 1.02, "bpb_tuned": 1.02 + forgot, "bpb": limits(forgot), **flips, "beyond": forgot > 0.05}
    cost = {"prompt_tokens": 31.4 if name != "few_shot" else 162.0, "ms_per_answer": 118.2, "trainable": trainable}
    cost |= {"trainable_share": trainable / 134_515_008, "train_seconds": 93.0, "tokens_per_second": 452.0}
    return {
        "contender": name,
        "label": label,
        "trained": trainable > 0,
        "artifact": f"adapter/x-{name}" if trainable else None,
        "sets": {"knowledge": arm, "generalisation": copy.deepcopy(arm)},
        "cost": cost | {"peak_memory_bytes": 1_310_000_000 if trainable else None},
        "forgetting": lost,
    }


def figures() -> dict[str, Any]:
    answers = [{"label": "the base", "answer": ATTACK, "f1": 0.0}, {"label": "LoRA", "answer": "", "f1": 0.0}]
    shown = {"items": 69, "passages": 41, "reliable": True, "best": "full", "cheapest": "lora"}
    return {
        "name": ATTACK,
        "measured": "2026-11-25",
        "model": "model/smollm2-135m-q4_1-404dbbede95f",
        "parameters": 134_515_008,
        "choice": {
            "outcome": "recommended", "headline": "Take LoRA: it keeps up with full fine-tuning and costs less.",
            "forgot_too_much": ["full"], "sentences": [ATTACK, "Forgotten: LoRA +0.012, full fine-tuning +0.061 (too much)."],
        },
        "recommended": "lora",
        "deciding_set": "knowledge",
        "contenders": [
            contender("base", "the base", 0.2),
            contender("few_shot", "examples in the prompt", 0.28),
            contender("prompt", "prompt tuning", 0.29, trainable=11_520, forgot=0.004),
            contender("lora", "LoRA", 0.34, trainable=4_884_480, forgot=0.012, keeps_up=True),
            contender("full", "full fine-tuning", 0.36, trainable=134_515_008, forgot=0.061, keeps_up=True),
        ],
        "sets": {"knowledge": shown, "generalisation": {**shown, "items": 46, "passages": 29, "reliable": False}},
        "not_run": [{"contender": "retrieval", "label": "retrieval", "reason": ATTACK}],
        "train_rows": 125,
        "replay_rows": 80,
        "train_tokens": 39_870,
        "max_forgetting_bpb": 0.05,
        "samples": [{"question": ATTACK, "reference": ATTACK, "answers": answers}],
        "settings": {"epochs": 3, "train_tokens": 40_000, "note": ATTACK},
        "lineage": [{"role": "dataset", "kind": "dataset", "id": "dataset/x-0123456789ab", "recipe": "mygpt.finetune.sft:sft"}],
    }  # fmt: skip


def test_nothing_is_fetched_and_nothing_runs() -> None:
    html = render(figures())
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "embed", "a", "form", "base"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href", "srcset", "action")]
    assert "url(" not in html and "@import" not in html
    assert page.text.count(ATTACK) >= 8  # said as it was written, everywhere it stands


def test_the_figures_are_on_the_page() -> None:
    text = " ".join(Page(render(figures())).text.split())
    for said in (
        "Take LoRA", "+0.14", "+0.10 to +0.18", "token F1, LoRA", "39 870", "4 884 480", "3.63 %", "1 min 33 s", "1.31 GB",
        "118 ms", "61 → 58 of 96", "+0.061", "too much", "keeps up, take it", "the same 125 rows 3 times", "80 of the base's own answers",
    ):  # fmt: skip
        assert said in text, said
    assert text.count("Interval unreliable") == 1  # of the second set


@pytest.mark.parametrize(
    ("recommended", "forgot_too_much", "tone"), [("lora", ["full"], "good"), ("lora", ["lora"], "fair"), (None, [], "plain")]
)
def test_tone(recommended: str | None, forgot_too_much: list[str], tone: str) -> None:
    shown = figures() | {"recommended": recommended}
    shown["choice"] |= {"forgot_too_much": forgot_too_much}
    assert ("class", f"verdict {tone}") in Page(render(shown)).attributes


def test_where_nothing_was_trained() -> None:
    shown = figures()
    shown |= {"contenders": shown["contenders"][:2], "recommended": None, "train_rows": 0, "train_tokens": 0, "samples": [], "not_run": []}
    text = Page(render(shown)).text
    assert "Nothing was trained, so nothing was forgotten." in text and "What took no part" not in text


def test_the_table_in_a_terminal() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(race_table(figures()))
    lines = console.export_text().splitlines()
    score, cost = (line.split() for line in lines if line.startswith("LoRA "))
    assert score == ["LoRA", "0.34", "+0.10", "to", "+0.18", "−0.02", "to", "+0.06", "take", "it"]
    assert cost == ["LoRA", "31", "118", "4", "884", "480", "1", "min", "33", "s", "1.31", "GB", "+0.012"]
    assert next(line for line in lines if line.startswith("full fine-tuning ")).rstrip().endswith("best")
    assert any(line.startswith("retrieval took no part: ") for line in lines)
    assert not [line for line in lines if "…" in line], "it fits"
