"""The tables of methods and claims are made from the results, and say what the results say."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import method_pages
from benchmarks.method_pages import DOCS, alignment_table, claims_table, generation_table, methods_table, with_tables


def interval(estimate: float) -> dict[str, float]:
    return {"estimate": estimate, "low": estimate - 0.05, "high": estimate + 0.05}


def task(score: float, n: int = 80, **over: float) -> dict[str, Any]:
    return {"metric": "acc", "n": n, **interval(score), **{f"over_{name}": interval(value) for name, value in over.items()}}


ABOUT = {"model": "model/base-0123", "machine": {"processor": "A", "cores": 2}, "date": "2026-11-26", "command": "python -m benchmarks.x "}
LORA = {
    "title": "LoRA, all linear layers", "t0_qasc": task(0.41, base=0.15), "t0_samsum": task(0.33, base=0.12),
    "forgetting": {"bits_per_byte": interval(-0.012), "right_to_wrong": 4, "wrong_to_right": 3, "questions": 96},
    "trainable": 4_884_480, "trainable_share": 0.036312, "tokens_per_second": 441.3, "train_seconds": 82.4, "peak_memory_bytes": 2**30,
}  # fmt: skip
PREFIX = {
    **LORA, "title": "prefix tuning", "t0_qasc": task(0.30, base=0.04, lora=-0.11), "trainable_share": None, "peak_memory_bytes": None,
}  # fmt: skip
METHODS = {
    **ABOUT, "train_rows": 200, "train_tokens": 32_957, "base": {"t0_qasc": task(0.26), "t0_samsum": task(0.21, n=40)},
    "methods": {"lora": LORA, "prefix": PREFIX},
}  # fmt: skip


PAGE = DOCS / "finetune" / "index.md"


MADE = [
    *(("finetune/index.md", ["methods", "method_claims"]), ("align/index.md", ["alignment"])),
    ("infer/engine.md", ["generate_vs_hf"]),
]


@pytest.mark.parametrize(("page", "modules"), MADE)
def test_the_page_is_made_from_the_results(page: str, modules: list[str]) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert all(f"<!-- /{module} -->" in text for module in modules)
    assert with_tables(text) == text, "run `make docs`"


def test_the_table_says_what_was_measured() -> None:
    lines = methods_table(METHODS).splitlines()
    assert lines[2].split(" | ")[:3] == ["| base", "0.260", "0.210"]
    lora, prefix = (line.strip("| ").split(" | ") for line in lines[3:5])
    assert lora[1] == "0.410 <br>+0.15 (+0.10 to +0.20) <br>–"
    assert prefix[1] == "0.300 <br>+0.04 (−0.01 to +0.09) <br>−0.11 (−0.16 to −0.06)"
    assert lora[3] == "−0.012 (−0.062 to +0.038) <br>4, 3 of 96"
    assert lora[4:] == ["4,884,480 <br>3.631%", "441 <br>82", "1.00 GiB"] and prefix[4:][2] == "–"
    assert "32,957 tokens for every method" in lines[-1] and "80 items of qasc, 40 items of samsum" in lines[-1]


def test_the_table_of_alignment_shows_wins_gains_and_the_axes() -> None:
    one = {"points": 1.5, "finished": 0.9, "words": 22.4, "examples": []}
    technique = {**one, "win_rate": interval(0.7), "gain": interval(0.5), "seconds": 61.2}
    still = {**one, "win_rate": interval(0.5), "gain": interval(0.0)}  # no training
    axes = [{"axis": name, "verdicts": {"dpo": verdict}} for name, verdict in (("helpful", "better"), ("honest", "worse"))]
    counted = {"requests": 128, "graded_answers": 1024, "pairs": 111, "items": 120}
    record = {**ABOUT, **counted, "base": {**one, "points": 1.0}, "techniques": {"dpo": technique, "best_of_4": still}, "hhh": axes}
    lines = alignment_table(record).splitlines()
    assert lines[0].endswith("| helpful | honest |")
    assert lines[3] == "| dpo | 70% (65% to 75%) | 1.50 <br>+0.50 (+0.45 to +0.55) | 22.4 <br>90% | better | worse |"
    assert lines[4].endswith("| 22.4 <br>90% | – | – |")
    assert "1,024 graded answers to 128 requests for each technique (111 pairs), asked 120 others" in lines[-1]


def test_the_table_of_generation_sets_both_engines_side_by_side() -> None:
    def answers(ratio: float, best: str) -> dict[str, Any]:
        theirs = {"16": 100.0, "32": 125.4}
        shares = {"share_of_matmul_limit": 0.332, "share_of_bandwidth_limit": 0.178}
        own = {"tokens_per_second": 561.2, "ratio": ratio, "ratio_with_our_memory_setting": 3.561}
        return {**own, **shares, "transformers_tokens_per_second": theirs, "transformers_best_batch": int(best)}

    mixed = {**answers(4.351, "32"), "continuous_batching_tokens_per_second": 62.8, "ratio_continuous": 8.93}
    record = {**ABOUT, "prompts": 64, "prompt_tokens": 13_556, "dtype": "torch.bfloat16", "mixed": mixed, "equal": answers(3.17, "16")}
    lines = generation_table(record).splitlines()
    assert lines[2] == "| 8 to 128 tokens | 561 | 125, batches of 32 | **4.35** (2.5) | 3.56 times | 33%, 18% |"
    assert lines[3].startswith("| all of 128 tokens | 561 | 100, batches of 16 | **3.17** (1.3) |")
    assert "makes 63 tokens/s of the mixed answers: **8.93 times** (aim 8)" in lines[-1]


def test_claims_say_what_came_out_also_when_it_is_no() -> None:
    claims = {
        "a": {"claim": "A holds.", "found": "holds", "said": "It did.", "n": 80, "seeds": 3},
        "b": {"claim": "B holds.", "found": "does not hold", "said": "It did not.", "n": {"x": 80, "y": 40}},
    }
    lines = claims_table({**ABOUT, "claims": claims}).splitlines()
    assert lines[2:4] == ["| A holds. | **holds** | It did. | 80; 3 |", "| B holds. | **does not hold** | It did not. | 80, 40 |"]


def test_what_is_not_measured_says_how_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method_pages, "RESULTS", tmp_path)
    page = with_tables(PAGE.read_text(encoding="utf-8"))
    assert page.count("Not measured yet") == 2 and "`python -m benchmarks.method_claims --json --keep`" in page
    (tmp_path / "methods.json").write_text(json.dumps(METHODS), encoding="utf-8")
    page = with_tables(page)
    assert page.count("Not measured yet") == 1 and "| prefix tuning |" in page
    assert with_tables(page) == page
