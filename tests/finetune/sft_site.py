"""Run as its own process by test_killed.py: forks children that train, and kill themselves.

stdin   {"home": DIR, "model": DIGEST, "dataset": DIGEST, "settings": {...}, "die_at_step": N}, or another death: N
stdout  "killed", "done", "stopped" (exit code 143) or "failed" when the child has ended
`die_at_step`   in the middle of that training step, before its checkpoint
`term_at_step`  the same with SIGTERM: a checkpoint is written
`term_in_saving`  with SIGTERM (given as true), after the last step, while the adapter is written
`die_at_event`  at that file event (open, mkdir, rename, remove) below `checkpoints/`: in the middle of writing one
"""

import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.model import Model
from mygpt.artifacts.store import Store
from mygpt.core.errors import Stopped
from mygpt.core.outbound import silence_hub
from mygpt.core.run import Run
from mygpt.finetune.sft import SFTConfig, sft, sft_forecast
from mygpt.lm.adapters import methods

WATCHED = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_event(number: int) -> None:
    seen = 0

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if name in WATCHED and f"{os.sep}checkpoints{os.sep}" in str(arguments[0]):
            seen += 1
            if seen == number:
                die()

    sys.addaudithook(hook)


def term_in_saving() -> None:
    save = methods.save

    def interrupted(*args: Any, **more: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        save(*args, **more)

    methods.save = interrupted


def train(order: dict[str, Any]) -> None:
    home = Path(order["home"])
    store = Store(home)

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "log" and event["training_step"] == order.get("die_at_step"):
            die()
        if event["event"] == "log" and event["training_step"] == order.get("term_at_step"):
            os.kill(os.getpid(), signal.SIGTERM)

    run = Run(home, name="tuned", listeners=(listen,))
    model, dataset = Model.of(store, order["model"]), Dataset.of(store, order["dataset"])
    if "die_at_event" in order:
        die_at_event(order["die_at_event"])
    if "term_in_saving" in order:
        term_in_saving()
    sft(SFTConfig(**order["settings"]), model=model, dataset=dataset, run=run)
    run.close()


def foresee(order: dict[str, Any]) -> None:
    home = Path(order["home"])
    store = Store(home)
    model, dataset = Model.of(store, order["model"]), Dataset.of(store, order["dataset"])
    sft_forecast(SFTConfig(**order["settings"]), model=model, dataset=dataset, home=home)


def main() -> None:
    silence_hub()
    for name in ("peft", "transformers.models.llama.modeling_llama", "transformers.models.auto.modeling_auto"):
        importlib.import_module(name)  # once, not in every child
    torch.set_num_threads(1)
    for line in sys.stdin:
        foresee(json.loads(line))  # once, not in every child
        child = os.fork()
        if child == 0:
            try:
                train(json.loads(line))
            except Stopped as told:
                os._exit(told.exit_code)
            except BaseException as error:
                sys.stderr.write(f"{error!r}\n")
                sys.stderr.flush()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        ended = {0: "done", 143: "stopped"}.get(os.WEXITSTATUS(status), "failed") if os.WIFEXITED(status) else "killed"
        sys.stdout.write(f"{ended}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
