"""Write the tables of the pages in PAGES from `benchmarks/results/` (`make docs`, held by a test)."""

import json
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS

DOCS = Path(__file__).parents[1] / "docs"
PAGES = (DOCS / "finetune" / "index.md", DOCS / "align" / "index.md", DOCS / "infer" / "engine.md")
_TASKS = {"t0_qasc": "qasc, share right", "t0_samsum": "samsum, token F1"}


def main() -> None:
    for page in PAGES:
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")


def with_tables(page: str) -> str:
    """Whatever tables it has marks for."""
    tables = (
        *(("methods", methods_table), ("method_claims", claims_table)),
        *(("alignment", alignment_table), ("generate_vs_hf", generation_table)),
    )
    for module, make in tables:
        begin, end = f"<!-- made by `make docs` from benchmarks/results/{module}.json -->\n", f"<!-- /{module} -->"
        before, found, rest = page.partition(begin)
        if not found:
            continue
        _, closed, after = rest.partition(end)
        assert closed, f"the page has lost its mark {end}"
        file = RESULTS / f"{module}.json"
        made = make(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else _not_yet(module)
        page = f"{before}{begin}\n{made}\n\n{end}{after}"
    return page


def generation_table(record: dict[str, Any]) -> str:
    """Our engine against transformers: its best batch size, with our memory setting, and its continuous batching."""
    heads = ["answers", "tokens/s", "of `transformers.generate`", "times (aim)", "with our memory setting", "matrix product, bandwidth"]
    rows = []
    for key, answers, aim in (("mixed", "8 to 128 tokens", 2.5), ("equal", "all of 128 tokens", 1.3)):
        shown = record[key]
        theirs = shown["transformers_tokens_per_second"][str(shown["transformers_best_batch"])]
        rows.append(
            [
                answers,
                f"{shown['tokens_per_second']:.0f}",
                f"{theirs:.0f}, batches of {shown['transformers_best_batch']}",
                f"**{shown['ratio']:.2f}** ({aim})",
                f"{shown['ratio_with_our_memory_setting']:.2f} times",
                f"{shown['share_of_matmul_limit']:.0%}, {shown['share_of_bandwidth_limit']:.0%}",
            ]
        )
    mixed, dtype = record["mixed"], record["dtype"].removeprefix("torch.")
    told = (
        f"{record['prompts']} prompts of {record['prompt_tokens']:,} tokens together, {record['model']}, {dtype}. `transformers` runs as "
        f"it is installed, in a process of its own, at its best batch size; its continuous batching makes "
        f"{mixed['continuous_batching_tokens_per_second']:.0f} tokens/s of the mixed answers: "
        f"**{mixed['ratio_continuous']:.2f} times** (aim 8). "
        f"The last column: shares of this machine's fastest matrix product and of its bandwidth. {_where(record)}"
    )
    return "\n".join([*_table(heads, rows), "", told])


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
        f"rate, one seed; held out: {asked}. In brackets 95 % intervals, of differences paired. Speed and "
        f"memory: some of the rows once more, each method in a process of its own. {_where(record)}"
    )
    return "\n".join([*_table(heads, rows), "", told])


def claims_table(record: dict[str, Any]) -> str:
    rows = [[claim["claim"], f"**{claim['found']}**", claim["said"], _counted(claim)] for claim in record["claims"].values()]
    told = f"{record['model']} and bases of our own (`benchmarks/own_bases.py`). In brackets 95 % intervals. {_where(record)}"
    return "\n".join([*_table(["claim", "here it", "measured", "n, seeds"], rows), "", told])


def alignment_table(record: dict[str, Any]) -> str:
    """Every technique: how often it beats the base by the rule, and what else moved."""
    axes = record.get("hhh", [])
    heads = ["technique", "wins against the base", "points, 0 to 3 <br>more than the base", "words <br>finished"]
    heads += [axis["axis"] for axis in axes]
    base = record["base"]
    rows = [["base", "", f"{base['points']:.2f}", f"{base['words']:.1f} <br>{base['finished']:.0%}", *("" for _ in axes)]]
    for name, shown in record["techniques"].items():
        won = "{estimate:.0%} ({low:.0%} to {high:.0%})".format(**shown["win_rate"])
        rows.append(
            [
                name.replace("_", " "),
                won,
                f"{shown['points']:.2f} <br>{_interval(shown['gain'])}",
                f"{shown['words']:.1f} <br>{shown['finished']:.0%}",
                *(axis["verdicts"].get(name, "–") for axis in axes),
            ]
        )
    told = (
        f"{record['model']}, LoRA, one seed: {record['graded_answers']:,} graded answers to {record['requests']} requests for each "
        f"technique ({record['pairs']} pairs), asked {record['items']} others. In brackets 95 % intervals over requests. "
        f"{_where(record)}"
    )
    return "\n".join([*_table(heads, rows), "", told])


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
