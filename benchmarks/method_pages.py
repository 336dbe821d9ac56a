"""Write the tables of docs/finetune/index.md from `benchmarks/results/` (`make docs`; a test holds the page to it)."""

import json
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "finetune" / "index.md"
_TASKS = {"t0_qasc": "qasc, share right", "t0_samsum": "samsum, token F1"}


def main() -> None:
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def with_tables(page: str) -> str:
    for name, module, make in (("methods", "methods", methods_table), ("claims", "method_claims", claims_table)):
        begin = f"<!-- {name}: made by `make docs` from benchmarks/results/{module}.json -->\n"
        before, found, rest = page.partition(begin)
        assert found, f"the page has lost its mark for {name}"
        _, _, after = rest.partition(f"<!-- /{name} -->")
        file = RESULTS / f"{module}.json"
        made = make(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else _not_yet(module)
        page = f"{before}{begin}\n{made}\n\n<!-- /{name} -->{after}"
    return page


def methods_table(record: dict[str, Any]) -> str:
    """Every method: what it learnt with its paired differences, what it forgot, what it took."""
    heads = ["method", *(f"{title} <br>over the base <br>over LoRA" for title in _TASKS.values())]
    heads += ["forgot: bits per byte <br>questions lost, won", "weights", "tokens/s <br>seconds", "peak memory <br>of the process"]
    base = record["base"]
    rows = [["base", *(_score(base[task]) for task in _TASKS), "", "", "", ""]]
    for shown in record["methods"].values():
        lost, share, memory = shown["forgetting"], shown["trainable_share"], shown["peak_memory_bytes"]
        rows.append(
            [
                shown["title"],
                *(_score(shown[task]) for task in _TASKS),
                f"{_interval(lost['bits_per_byte'], 3)} <br>{lost['right_to_wrong']}, {lost['wrong_to_right']} of {lost['questions']}",
                f"{shown['trainable']:,} <br>{'–' if share is None else f'{share:.3%}'}",
                f"{shown['tokens_per_second']:.0f} <br>{shown['train_seconds']:.0f}",
                "–" if memory is None else f"{memory / 2**30:.2f} GiB",
            ]
        )
    asked = ", ".join(f"{base[task]['n']} items of {title.partition(',')[0]}" for task, title in _TASKS.items())
    told = (
        f"{record['model']}: {record['train_rows']} rows, {record['train_tokens']:,} tokens for every method, each at its own learning "
        f"rate, one seed; held out: {asked}. In brackets 95 % intervals, of differences paired. {_where(record)}"
    )
    return "\n".join([*_table(heads, rows), "", told])


def claims_table(record: dict[str, Any]) -> str:
    rows = [[claim["claim"], f"**{claim['found']}**", claim["said"], _counted(claim)] for claim in record["claims"].values()]
    told = f"{record['model']} and bases of our own (`benchmarks/own_bases.py`). In brackets 95 % intervals. {_where(record)}"
    return "\n".join([*_table(["claim", "here it", "measured", "n, seeds"], rows), "", told])


def _counted(claim: dict[str, Any]) -> str:
    n = claim["n"]
    shown = ", ".join(str(value) for value in n.values()) if isinstance(n, dict) else str(n)
    return f"{shown}; {claim['seeds']}" if "seeds" in claim else shown


def _score(shown: dict[str, Any]) -> str:
    parts = [f"{shown['estimate']:.3f}"]
    parts += [_interval(shown[key]) if key in shown else "–" for key in ("over_base", "over_lora")] if "over_base" in shown else []
    return " <br>".join(parts)


def _interval(shown: dict[str, float], digits: int = 2) -> str:
    estimate, low, high = (f"{shown[key]:+.{digits}f}".replace("-", "−") for key in ("estimate", "low", "high"))
    return f"{estimate} ({low} to {high})"


def _where(record: dict[str, Any]) -> str:
    machine = record["machine"]
    return f"{machine['processor']}, {machine['cores']} cores, {record['date']}; not measured on a GPU. `{record['command'].strip()}`"


def _not_yet(module: str) -> str:
    return f"Not measured yet: `python -m benchmarks.{module} --json --keep`, then `make docs`, writes the table."


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    cells = [heads, ["---"] * len(heads), *rows]
    return [f"| {' | '.join(row)} |" for row in cells]


if __name__ == "__main__":
    main()
