"""Run as its own process by test_distributed.py: forks real ranks (gloo on 127.0.0.1), one set for each line.

stdin   {"job": NAME, "count": 2, "port": N, "folder": DIR, ...}
stdout  the ranks' endings as JSON: 0, or what was raised
`objective` tunes a tiny base by the recipe <objective> of tests/finetune/objectives.py
`gradient`  of one step of a tiny model, summed over the ranks, to <folder>/gradient.safetensors
`sft`       trains on what lies in the home <folder>; `term_at_step` and `die_at_step` end rank 1 in the middle of that step
"""

import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.model import Model
from mygpt.artifacts.store import Store
from mygpt.core.outbound import silence_hub
from mygpt.core.run import Run
from mygpt.finetune import sft as sft_module
from mygpt.finetune.sft import SFTConfig, sft
from mygpt.training.batches import batch_of
from mygpt.training.distributed import joined_ranks, share_of
from mygpt.training.losses import summed_cross_entropy
from tests.finetune.objectives import tuned
from tests.training import tiny

LENGTHS = [5, 9, 12, 7, 30, 3, 21]
STEP = [[0, 1, 2], [3], [4, 5, 6]]


def summed_gradient(ranks: Any) -> dict[str, torch.Tensor]:
    module, examples = tiny.llama().requires_grad_(True), tiny.examples(LENGTHS)
    num_trained = sum(sum(e.trained[1:]) for e in examples)
    for micro in share_of(STEP, rank=ranks.rank, count=ranks.count):
        batch = batch_of([examples[i] for i in micro], padding_id=0, device=torch.device("cpu"))
        (summed_cross_entropy(module, batch.ids_BT, batch.trained_BT) / num_trained).backward()
    if ranks.count > 1:
        ranks.sum_gradients(module.parameters())
    return {name: p.grad.clone() for name, p in module.named_parameters()}


def train(order: dict[str, Any], ranks: Any) -> None:
    home = Path(order["folder"])
    store = Store(home)
    run = Run(home, name="tuned", ranks=ranks)
    model, dataset = Model.of(store, order["model"]), Dataset.of(store, order["dataset"])
    real = sft_module.summed_cross_entropy
    steps_seen = 0

    def watched(*args: Any, **more: Any) -> torch.Tensor:
        nonlocal steps_seen
        steps_seen += 1
        if ranks.rank == 1 and steps_seen == order.get("die_at_step"):
            os._exit(7)
        if ranks.rank == 1 and steps_seen == order.get("term_at_step"):
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **more)

    sft_module.summed_cross_entropy = watched
    made = sft(SFTConfig(**order["settings"]), model=model, dataset=dataset, run=run)
    run.close()
    (home / f"made-by-rank-{ranks.rank}").write_text(made.digest)


def tune(order: dict[str, Any], ranks: Any) -> None:
    run = Run(Path(order["folder"]), name="tuned", ranks=ranks)
    tuned(order["objective"], "bert", run, **order["settings"])
    run.close()


def rank_of(order: dict[str, Any], rank: int, told: Path) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": order["count"], "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": order["port"]}
    os.environ.update({name: str(value) for name, value in place.items()})
    try:
        with joined_ranks() as ranks:
            if order["job"] == "sft":
                train(order, ranks)
            elif order["job"] == "objective":
                tune(order, ranks)
            else:
                found = summed_gradient(ranks)
                save_file(found, Path(order["folder"]) / f"gradient-{rank}.safetensors")
        told.write_text(json.dumps(0))
    except BaseException as error:
        told.write_text(json.dumps(f"{type(error).__name__}: {error}"))
    os._exit(0)


def main() -> None:
    silence_hub()
    shapes = ("models.llama.modeling_llama", "models.bert.modeling_bert", "models.auto.modeling_auto")
    for name in ("peft", *(f"transformers.{shape}" for shape in shapes)):
        importlib.import_module(name)  # once, not in every child
    torch.set_num_threads(1)
    for line in sys.stdin:
        order = json.loads(line)
        folder = Path(order["folder"])
        children = {}
        for rank in range(order["count"]):
            if (child := os.fork()) == 0:
                rank_of(order, rank, folder / f"ended-{rank}.json")
            children[child] = rank
        for child in children:
            os.waitpid(child, 0)
        files = [folder / f"ended-{rank}.json" for rank in range(order["count"])]
        sys.stdout.write(json.dumps([json.loads(f.read_text()) if f.exists() else "died" for f in files]) + "\n")
        for file in files:
            file.unlink(missing_ok=True)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
