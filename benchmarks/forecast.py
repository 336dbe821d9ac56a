"""What the forecast of a training said against what the training took: memory and time, on the real 135M model.

    python -m benchmarks.forecast --json --keep

Each setting trains two steps, twice, each time in a process of its own: memory is a process's high-water mark, and the second forecast of
time rests on what the first training reached. `ratio` is the largest peak over its forecast: above 1 the forecast was too small.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.record import arguments, finish
from mygpt.artifacts.dataset import Conversation, Dataset, Message, conversation_facts, write_conversations
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.finetune.sft import SFTConfig, sft
from mygpt.lm.sources import obtain

SETTINGS: dict[str, dict[str, Any]] = {
    "lora, 2048 tokens": {"step_tokens": 2048, "micro_batch_tokens": 2048},
    "lora, 1024 tokens": {"step_tokens": 1024, "micro_batch_tokens": 1024},
    "all weights, 1024 tokens": {"method": "full", "learning_rate": 3e-5, "step_tokens": 1024, "micro_batch_tokens": 1024},
}


class WordsConfig(Config):
    rows: int = 8
    words: int = 100


@recipe
def words(config: WordsConfig, *, run: Run) -> Dataset:
    """Rows of one length, so that every micro-batch is full."""
    answers = [" ".join(f"word{(i * j) % 97}" for j in range(config.words)) for i in range(config.rows)]
    rows = [Conversation((Message("user", f"What is number {i}?"), Message("assistant", text)), str(i)) for i, text in enumerate(answers)]
    splits = {"train": rows}
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=conversation_facts(splits), name="words")


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", default="smollm2-135m-q4_1")
    parser.add_argument("--one", help="a setting, a home, a seed: train, and print the facts (called by this script)", nargs=3)
    options = parser.parse_args()
    if options.one:
        name, home, seed = options.one
        print(json.dumps(train(name, Path(home), int(seed), options.model)))  # noqa: T201
        return
    with tempfile.TemporaryDirectory() as home:
        found = {name: [one(name, home, seed, options.model) for seed in (0, 1)] for name in SETTINGS}
    figures: dict[str, Any] = {name: compared(runs) for name, runs in found.items()}
    finish("forecast", {"ratio": max(one["memory_ratio"] for one in figures.values()), "settings": figures}, options)


def one(name: str, home: str, seed: int, model: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.forecast", "--model", model, "--one", name, home, str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert facts["curve"][-1][1] > 0 and facts["ledger"]["flops"] == facts["forecast"]["flops"]
    return facts


def train(name: str, home: Path, seed: int, model: str) -> dict[str, Any]:
    with Run(home, name="forecast", seed=seed) as run:
        config = SFTConfig(epochs=2 if SETTINGS[name]["step_tokens"] == 2048 else 1, checkpoint_seconds=3600, **SETTINGS[name])
        return sft(config, model=obtain(model, run=run), dataset=words(WordsConfig(), run=run), run=run).manifest.facts


def compared(runs: list[dict[str, Any]]) -> dict[str, Any]:
    forecast, ledger = runs[1]["forecast"], runs[1]["ledger"]
    parts = {name: round(value / 1e6) for name, value in forecast.items() if name.endswith("_bytes") and value is not None}
    return {
        "forecast_gb": round(forecast["bytes"] / 1e9, 2),
        "peak_gb": [round(run["ledger"]["peak_memory_bytes"] / 1e9, 2) for run in runs],
        "memory_ratio": round(max(run["ledger"]["peak_memory_bytes"] for run in runs) / forecast["bytes"], 3),
        "megabytes_by_part": parts,
        "forecast_seconds": [round(run["forecast"]["seconds"], 1) for run in runs],
        "seconds": [round(run["ledger"]["seconds"], 1) for run in runs],
        "share_of_limit": ledger["share_of_limit"],
    }


if __name__ == "__main__":
    main()
