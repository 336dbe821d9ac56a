"""A recorded stream of events, as the terminal shows it."""

import io
from typing import Any

from rich.console import Console

from mygpt.views.terminal import TerminalView, before_after_table

TRAIN = {"event": "progress", "step": "train", "total": 4000, "unit": "tokens"}
EVENTS: list[dict[str, Any]] = [
    {"event": "step_started", "step": "models", "time": 0.0},
    {"event": "step_cached", "step": "models", "artifact": "model/x", "time": 0.1},
    {"event": "step_finished", "step": "models", "seconds": 0.2, "time": 0.2},
    {"event": "step_started", "step": "train", "time": 1.0},
    TRAIN | {"done": 100, "rate_per_second": 400.0, "eta_seconds": 9.75, "time": 2.0},
    {"event": "warning", "text": "2 files [were] skipped", "time": 2.5},
    TRAIN | {"done": 2000, "rate_per_second": 431.2, "eta_seconds": 4.6, "loss": 1.25, "time": 12.0},
    TRAIN | {"done": 4000, "rate_per_second": 430.0, "eta_seconds": 0.0, "time": 13.0},
    {"event": "published", "artifact": "adapter/x", "kind": "adapter", "name": "x", "time": 13.1},
    {"event": "step_finished", "step": "train", "seconds": 72.4, "time": 73.4},
    {"event": "something new", "time": 74.0},
]  # fmt: skip


def shown(*, terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)
    view = TerminalView(console)
    for event in EVENTS:
        view(event)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_plain_lines_where_there_is_no_terminal() -> None:
    assert shown(terminal=False).replace("\u202f", " ").splitlines() == [
        "... models",
        "✓ models  unchanged",
        "... train",
        "  ! 2 files [were] skipped",
        "    train: 2 000 of 4 000 tokens · 431 tokens/s · 4.6 s left · loss 1.25",
        "✓ train  1 min 12 s  4 000 tokens · 430 tokens/s",
    ]


def test_live_in_a_terminal_and_the_terminal_is_given_back() -> None:
    text = shown(terminal=True)
    assert "✓ models  unchanged" in text
    assert "✓ train  1 min 12 s" in text
    assert "! 2 files [were] skipped" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 2  # cursor hidden and shown again, once for each outermost step


def test_an_interrupted_step_is_not_called_done() -> None:
    console = Console(file=io.StringIO(), width=100)
    view = TerminalView(console)
    view({"event": "step_started", "step": "train", "time": 0.0})
    view({"event": "step_finished", "step": "train", "seconds": 3.0, "failed": True, "time": 3.0})
    assert "✗ train  stopped after 3.0 s" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_run_that_ends_in_the_middle_of_a_step_gives_the_terminal_back() -> None:
    for end in ("run_failed", "run_finished"):
        console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
        view = TerminalView(console)
        view({"event": "step_started", "step": "train", "time": 0.0})
        assert console.file.getvalue().count("\x1b[?25h") == 0  # type: ignore[attr-defined]
        view({"event": end, "seconds": 1.0, "time": 1.0})
        assert console.file.getvalue().count("\x1b[?25h") == 1  # type: ignore[attr-defined]


def test_before_after_table_fits_80_columns() -> None:
    arm = {"rouge_l": 0.3, "exact_match": 0.1, "answer_tokens": 22.0, "share_cut": 0.05}
    arms = [
        {"arm": "base_zero_shot", "label": "base", "f1": 0.28, "over_base": None, **arm},
        {"arm": "tuned_retrieval", "label": "tuned + retrieval", "f1": 0.5123, "over_base": {"low": -0.081, "high": 0.18}, **arm},
    ]
    figures: dict[str, Any] = {
        "verdict": {"headline": "Tuning paid off.", "sentences": ["A sentence."]},
        "sets": {"knowledge": {"items": 84, "best": "tuned_retrieval", "cheapest": "base_zero_shot", "arms": arms}},
    }
    console = Console(file=io.StringIO(), width=80)
    console.print(before_after_table(figures))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[:2] == ["Tuning paid off.", "A sentence."]
    assert "84 questions" in lines[3]
    assert lines[5].split() == ["base", "0.28", "–", "0.30", "10", "%", "22", "5", "%", "keeps", "up"]
    assert lines[6].split() == ["tuned", "+", "retrieval", "0.51", "−0.08", "to", "+0.18", "0.30", "10", "%", "22", "5", "%", "best"]
    assert max(map(len, lines)) <= 80

    figures["sets"]["knowledge"]["reliable"] = False
    console.print(before_after_table(figures))
    assert "84 questions, interval unreliable" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_trained_part_of_an_example_is_green() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system="standard")
    parts = [{"text": "<|im_start|>user\nWho [x]?<|im_end|>\n", "trained": False}, {"text": "Ottoline.<|im_end|>", "trained": True}]
    TerminalView(console)({"event": "trained_example", "parts": parts, "examples": 7, "time": 0.0})
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert "One of 7 examples" in text
    assert "\x1b[32mOttoline.<|im_end|>" in text
    assert "\x1b[2mWho [x]?<|im_end|>" in text
