"""The benchmarks of the methods run from end to end on a base of a few thousand weights and a few rows of our own."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import methods
from benchmarks.claim import FAILS, HOLDS, OPEN, Bits, Setting
from benchmarks.claim_labels import Labelled, balanced, labelled_rows
from benchmarks.claim_prompts import SEVERAL
from benchmarks.claim_seq2seq import table_rows
from benchmarks.method_claims import CLAIMS, READ_OFF, median_ratio
from benchmarks.method_claims import measured as measured_claim
from benchmarks.methods import METHODS, QUICK
from mygpt.artifacts.model import Model
from mygpt.artifacts.store import Store
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.lm.adapters.freeze import Freeze
from mygpt.lm.adapters.lora import LoRA
from tests.pipelines.conftest import HANDBOOK
from tests.pipelines.teacher import make_tiny_base

_COLOURS = ("red", "blue", "green", "grey")


def write_templates(folder: Path) -> Path:
    """Ours, in the form of the T0 files: options as lines that begin with a dash, and short dialogues."""
    folder.mkdir()
    choices = "".join(f"- {colour}\n" for colour in _COLOURS)
    chosen = [{"prompt": f"Boat {i} is painted {c}. Which colour?\n{choices}", "completion": f"{c}<|endoftext|>"} for i, c in _rows(24)]
    told = [{"prompt": f"Summarise: A: is boat {i} {c}? B: yes.\n", "completion": f"Boat {i} is {c}.<|endoftext|>"} for i, c in _rows(24)]
    for name, rows in zip(methods.TEMPLATES.values(), (chosen, told), strict=True):
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return folder


def _rows(number: int) -> list[tuple[int, str]]:
    return [(i, _COLOURS[i * 7 % 4]) for i in range(number)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("benchmarks")
    make_tiny_base(base / "home", base / "tiny")
    write_templates(base / "t0")
    return base / "home"


def measured(home: Path, names: list[str]) -> dict[str, Any]:
    with Run(home, name="methods") as run:
        model = Model.open(Store(home), "tiny")
        return methods.measured(run, names, model=model, texts=home.parent / "t0", budget=QUICK)


def test_methods_side_by_side(home: Path) -> None:
    figures = measured(home, ["lora", "full", "ia3"])
    assert set(figures["methods"]) == {"lora", "full", "ia3"} and figures["train_rows"] == 12
    lora, full = figures["methods"]["lora"], figures["methods"]["full"]
    assert full["peak_memory_bytes"] > 0 and full["train_seconds"] > 0
    assert full["trainable_share"] == 1 and 0 < lora["trainable_share"] < 1
    assert figures["ratio"] == pytest.approx(lora["tokens_per_second"] / full["tokens_per_second"], abs=1e-4)
    for task in methods.TEMPLATES:
        assert "over_base" in lora[task] and "over_lora" not in lora[task]
        over = full[task]["over_lora"]
        assert over["low"] <= over["estimate"] <= over["high"]
        assert over["estimate"] == pytest.approx(full[task]["estimate"] - lora[task]["estimate"], abs=2e-4)
        assert full[task]["n"] == 4
    assert {"bits_per_byte", "right_to_wrong", "questions"} <= set(lora["forgetting"])
    json.dumps(figures, allow_nan=False)


def test_methods_go_on_where_they_stopped(home: Path) -> None:
    """Another method is added: what was trained, for its scores and for its cost, and answered before is taken from the home."""
    measured(home, ["lora"])
    before = {m.digest for m in Store(home).manifests() if m.kind in ("adapter", "predictions", "model")}
    figures = measured(home, ["lora", "freeze_last_2"])
    new = [m.kind for m in Store(home).manifests() if m.digest not in before and m.kind in ("adapter", "predictions", "model")]
    assert sorted(new) == [*["model"] * 2, *["predictions"] * 3] and set(figures["methods"]) == {"lora", "freeze_last_2"}


def test_every_method_of_the_issue_has_a_row() -> None:
    settings = [method for _, method in METHODS.values()]
    assert {m.name for m in settings} == {"full", "freeze", "lora", "prefix", "prompt", "p_tuning", "ia3", "bottleneck"}
    kinds = {(m.targets, m.rank_stabilised, m.weight_decomposed, m.weights) for m in settings if isinstance(m, LoRA)}
    assert kinds == {
        ("all-linear", False, False, "full"), ("attention-only", False, False, "full"), ("all-linear", True, False, "full"),
        ("all-linear", False, True, "full"), ("all-linear", False, False, "nf4"),
    }  # fmt: skip
    assert {(m.num_layers, m.layer_decay < 1) for m in settings if isinstance(m, Freeze)} == {(2, False), (4, True)}


# -- claims -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def setting(home: Path) -> Iterator[Setting]:
    base = home.parent
    texts = base / "t0"
    for name, row in zip(SEVERAL[2:], ({"prompt": "Fog on the pier. Section?", "completion": "Weather"},) * 2, strict=True):
        (texts / f"{name}.jsonl").write_text("\n".join([json.dumps(row)] * 8), encoding="utf-8")
    articles = base / "articles.txt"
    articles.write_text("\n\n".join(f.read_text(encoding="utf-8") for f in sorted(HANDBOOK.rglob("*.md"))), encoding="utf-8")
    with (base / "labelled.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "class", "tweet"])
        writer.writerows([n, n % 3, f"The {_COLOURS[n % 3]} boat, number {n}"] for n in range(60))
    tables = base / "tables"
    tables.mkdir()
    for name, number in (("train", 16), ("test", 4)):
        rows = [{"prompt": f"name: Boat {i} | colour: {c}", "answer": f"Boat {i} is {c}."} for i, c in _rows(number)]
        (tables / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    with Run(home, name="claims") as run:
        yield Setting(run, Model.open(Store(home), "tiny"), texts, articles, base / "labelled.csv", tables, quick=True)


@pytest.mark.parametrize("name", [*CLAIMS, *READ_OFF])
def test_every_claim_runs_and_says_what_came_out(name: str, setting: Setting) -> None:
    row = measured_claim(name, setting)
    assert row["found"] in (HOLDS, FAILS, OPEN) and row["claim"].endswith(".") and row["said"].endswith(".")
    assert row["n"] and (name in READ_OFF or row["seconds"] > 0)
    json.dumps(row, allow_nan=False)
    again = measured_claim(name, setting)
    assert again == row, "kept, not measured again"


def test_sizes_of_prompts(setting: Setting) -> None:
    """Every figure is there for every base, and a difference is that of its two figures."""
    sizes = measured_claim("prompt_sizes", setting)["sizes"]
    assert len(sizes) == 2
    for shown in sizes.values():
        prompts = {"prompt_5", "prompt_20", "prompt_50", "prompt_20_four_tasks"}
        assert set(shown["bits_per_byte"]) == {"base", "few_shot", "full", "full_four_tasks"} | prompts
        bits, best = shown["bits_per_byte"], shown["best_prompt"]
        assert shown["best_prompt_over_full"]["estimate"] == pytest.approx(bits[best] - bits["full"], abs=2e-4)
        assert shown["best_prompt_over_full_four_tasks"]["estimate"] == pytest.approx(bits[best] - bits["full_four_tasks"], abs=2e-4)
        assert bits["full"] < bits["base"], "it learnt"


def test_bits_of_answers_by_hand() -> None:
    """Two answers of 4 and 2 bytes that cost 6 ln 2 and 3 ln 2 nats: 9 bits over 6 bytes; against 3 and 3, the difference is 3 bits."""
    ours, theirs = Bits([6 * math.log(2), 3 * math.log(2)], [4, 2]), Bits([3 * math.log(2), 3 * math.log(2)], [4, 2])
    assert ours.per_byte == pytest.approx(1.5)
    assert ours.over(theirs).estimate == pytest.approx(0.5)


def test_median_ratio_by_hand() -> None:
    """Ratios 1.1, 1.0, 1.3: the middle one, whatever the times themselves; the interval reaches from the least to the most."""
    assert median_ratio([1.1, 2.0, 3.9], [1.0, 2.0, 3.0]) == {"estimate": 1.1, "low": 1.0, "high": 1.3}


def test_missing_files_are_said(setting: Setting, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        table_rows(tmp_path / "train.jsonl")
    assert str(tmp_path / "train.jsonl") in error.value.what and "--table-to-text" in error.value.fix
    (tmp_path / "test.jsonl").write_text('{"prompt": "name: A"}\n')
    with pytest.raises(UsageError, match="row 1 has no `prompt` with an `answer`"):
        table_rows(tmp_path / "test.jsonl")
    with pytest.raises(UsageError, match=r"no file .* of labelled texts"):
        labelled_rows(tmp_path / "none.csv")


def test_classes_are_balanced() -> None:
    """Of 5, 3 and 4 rows three of each are kept, in turn."""
    rows = [Labelled(f"{label}-{n}", label) for label, number in ((0, 5), (1, 3), (2, 4)) for n in range(number)]
    assert [row.label for row in balanced(rows)] == [0, 1, 2] * 3
