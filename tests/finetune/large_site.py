"""Run as its own process by tests/training/test_example_file.py: how much memory a set of many rows takes.

argument  {"home": DIR, "model": DIGEST, "few": DIGEST, "many": DIGEST, "recipe": one of RECIPES}
stdout    {"grown_bytes": N, "examples": N, "tokens": N, "file_bytes": N, "lengths": [of some of them]}

First a set of few rows is trained on, so that all that is loaded once is there; then one step of the large one.
"""

import json
import random
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mygpt.artifacts.dataset import Conversation, Dataset, Message, row_facts, write_conversations
from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.store import Store
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.finetune.causal_lm import CausalLMConfig, causal_lm
from mygpt.finetune.masked_lm import MaskedLMConfig, masked_lm
from mygpt.finetune.sft import SFTConfig, sft
from mygpt.finetune.span_corruption import SpanCorruptionConfig, span_corruption
from mygpt.lm.adapters.lora import LoRA
from mygpt.training.machine import PeakMemory, resident_bytes

SETTINGS: dict[str, Any] = {"step_tokens": 256, "precision": "float32", "epochs": 1, "method": LoRA(rank=2)}
RECIPES: dict[str, Any] = {
    "sft": (sft, partial(SFTConfig, pack_tokens=256)),
    "causal_lm": (causal_lm, partial(CausalLMConfig, pack_tokens=256)),
    "masked_lm": (masked_lm, MaskedLMConfig),
    "span_corruption": (span_corruption, SpanCorruptionConfig),
}
CPU = torch.device("cpu")


class RowsConfig(Config):
    rows: int
    recipe: str


@recipe
def rows(config: RowsConfig, *, run: Run) -> Dataset:
    """Random words; with what stands around them, about 200 tokens of one byte each."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghij", k=7)) for _ in range(500)]

    def row(number: int) -> Conversation:
        if config.recipe != "sft":
            return Conversation((Message("text", " ".join(draw.choices(words, k=25))),), str(number))
        asked, answer = (" ".join(draw.choices(words, k=k)) for k in (11, 11))
        return Conversation((Message("user", asked), Message("assistant", answer)), str(number))

    splits = {"train": [row(number) for number in range(config.rows)]}
    schema = "sft" if config.recipe == "sft" else "text"
    facts = row_facts(schema, splits)
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=facts, name=f"rows-{config.rows}")


class Stopped(BaseException):
    pass


def main() -> None:
    order = json.loads(sys.argv[1])
    home = Path(order["home"])
    store = Store(home)
    function, config = RECIPES[order["recipe"]]
    model = Model.of(store, order["model"])
    torch.set_num_threads(1)
    with Run(home, name="few") as run:
        function(config(**SETTINGS), model=model, dataset=Dataset.of(store, order["few"]), run=run)

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "log":
            raise Stopped

    before = resident_bytes(CPU)
    peak = PeakMemory(CPU)
    try:
        with Run(home, name="many", listeners=(stop,)) as run:
            function(config(**SETTINGS), model=model, dataset=Dataset.of(store, order["many"]), run=run)
    except Stopped:
        pass
    grown = peak.bytes() - before
    (folder,) = (home / "cache" / "examples").glob("*")
    lengths = np.load(folder / "index.npy", allow_pickle=False)[:, 1]
    told = {"grown_bytes": grown, "examples": len(lengths), "tokens": int(lengths.sum()), "lengths": lengths[:200].tolist()}
    told["file_bytes"] = (folder / "tokens.bin").stat().st_size
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
