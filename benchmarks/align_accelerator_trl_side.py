"""trl's half of `align_accelerator`, in trl's own environment: every setting that may be its fastest, one after another, and JSON of each.

GRPO samples by `transformers.generate` or by its continuous batching; to the faster of the two Liger's kernels, autocast and torch.compile
are added in turn and kept where they help. DPO begins with all pairs of an update in one batch, and the same is added. vLLM is in neither.
Nothing of mygpt is imported.
"""

import contextlib
import gc
import importlib.util
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer

_CUDA = torch.cuda.is_available()


class Clock(TrainerCallback):
    """When each update began and ended, on a device that is done with it, and what was logged of it."""

    def __init__(self) -> None:
        self.ticks: list[float] = []
        self.logs: list[dict[str, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if _CUDA:
            torch.cuda.synchronize()
        self.ticks.append(time.perf_counter())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        if logs and "loss" in logs:
            self.logs.append({name: float(value) for name, value in logs.items() if isinstance(value, int | float)})

    @property
    def seconds(self) -> list[float]:
        return [end - start for start, end in itertools.pairwise(self.ticks)]


class OfIds(DPOTrainer):
    """The same tokens as on the other side, so nothing is rendered here."""

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        return dataset


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        asked = json.load(file)
    ends = time.monotonic() + asked["seconds"]
    found: dict[str, Any] = {}

    def attempt(name: str, setting: dict[str, Any]) -> float:
        if found and time.monotonic() > ends:
            found[name] = {"failed": "no time was left"}
            return float("inf")
        began = time.monotonic()
        found[name] = measured(asked, setting) | {"seconds": round(time.monotonic() - began, 1)}
        sys.stderr.write(f"{name}: {found[name].get('seconds_an_update') or found[name]}\n")
        return float(found[name].get("seconds_an_update", "inf"))

    batch = {"per_device_train_batch_size": asked["batch"]}
    beginnings: dict[str, dict[str, Any]] = {"generate": batch}
    if _CUDA:  # elsewhere it takes half of the machine's memory
        beginnings["continuous batching"] = {**batch, "use_transformers_continuous_batching": True}
    if asked["recipe"] == "dpo":
        beginnings = {f"batch {asked['batch']}": batch}
    took = {name: attempt(name, setting) for name, setting in beginnings.items()}
    called = min(took, key=lambda name: took[name])
    setting, best = beginnings[called], took[called]
    for name, more in additions().items():
        if (seconds := attempt(f"{called}, {name}", setting | more)) < best:
            setting, best, called = setting | more, seconds, f"{called}, {name}"
    sys.stdout.write(json.dumps(found) + "\n")


def additions() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {"liger": {"use_liger_kernel": True}} if importlib.util.find_spec("liger_kernel") and _CUDA else {}
    return {**found, "autocast": {"bf16": True}, "torch.compile": {"torch_compile": True}}


def measured(asked: dict[str, Any], setting: dict[str, Any]) -> dict[str, Any]:
    try:
        return (grpo if asked["recipe"] == "grpo" else dpo)(asked, setting)
    except Exception as error:  # whatever a setting dies of is its result
        return {"failed": f"{type(error).__name__}: {error}"[:300]}
    finally:
        torch.compiler.reset()
        gc.collect()
        if _CUDA:
            torch.cuda.empty_cache()


def shared(asked: dict[str, Any], setting: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of a configuration, and arguments of a trainer, that both methods have."""
    settings = {"output_dir": asked["out"], "learning_rate": asked["learning_rate"], "lr_scheduler_type": "constant"}
    settings |= {"use_cpu": not _CUDA, "gradient_checkpointing": False, "max_grad_norm": 1.0, "logging_steps": 1, "save_strategy": "no"}
    settings |= {"report_to": [], "seed": 0, "bf16": False, **setting}
    adapters = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    made = {"model": AutoModelForCausalLM.from_pretrained(asked["model"], dtype=torch.bfloat16), "peft_config": adapters}
    return settings, {**made, "processing_class": AutoTokenizer.from_pretrained(asked["model"])}


def grpo(asked: dict[str, Any], setting: dict[str, Any]) -> dict[str, Any]:
    settings, arguments = shared(asked, setting)
    config = GRPOConfig(
        max_steps=asked["updates"],
        num_generations=asked["samples"],
        max_completion_length=asked["answer_tokens"],
        temperature=1.0,
        beta=0.0,
        shuffle_dataset=False,
        **settings,
    )
    clock, sampling = Clock(), []

    def even(completion_ids: Any, **more: Any) -> list[float]:
        return [sum(token % 2 == 0 for token in ids) / max(1, len(ids)) for ids in completion_ids]

    data = Dataset.from_list([{"prompt": [{"role": "user", "content": text}]} for text in asked["questions"]])
    trainer = GRPOTrainer(reward_funcs=even, args=config, train_dataset=data, callbacks=[clock], **arguments)
    sample = trainer._generate_single_turn

    def timed(*given: Any, **more: Any) -> Any:
        with seconds_into(sampling):
            return sample(*given, **more)

    trainer._generate_single_turn = timed
    found = trained(asked, trainer, clock)
    lengths = [log["completions/mean_length"] for log in clock.logs]
    return {
        **found,
        "seconds_sampling": round(statistics.median(sampling[asked["warm_up"] :]), 3),
        "tokens_an_answer": round(statistics.mean(lengths), 1),
        "rewards": [round(log["reward"], 5) for log in clock.logs],
        "grad_norms": [round(log["grad_norm"], 5) for log in clock.logs],
    }


def dpo(asked: dict[str, Any], setting: dict[str, Any]) -> dict[str, Any]:
    settings, arguments = shared(asked, setting)
    config = DPOConfig(
        beta=asked["beta"],
        num_train_epochs=asked["epochs"],
        gradient_accumulation_steps=asked["update_pairs"] // asked["batch"],
        precompute_ref_log_probs=True,
        max_length=None,
        **settings,
    )
    clock = Clock()
    data = Dataset.from_list(asked["pairs"])
    trainer = OfIds(args=config, train_dataset=data, callbacks=[clock], **arguments)
    return {**trained(asked, trainer, clock), "losses": [round(log["loss"], 4) for log in clock.logs]}


def trained(asked: dict[str, Any], trainer: Any, clock: Clock) -> dict[str, Any]:
    if _CUDA:
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    return {
        "seconds_an_update": round(statistics.median(clock.seconds[asked["warm_up"] - 1 :]), 4),
        "seconds_of_updates": [round(took, 4) for took in clock.seconds],
        "updates": len(clock.ticks),
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if _CUDA else None,
    }


@contextlib.contextmanager
def seconds_into(kept: list[float]) -> Iterator[None]:
    if _CUDA:
        torch.cuda.synchronize()
    began = time.perf_counter()
    yield
    if _CUDA:
        torch.cuda.synchronize()
    kept.append(time.perf_counter() - began)


if __name__ == "__main__":
    main()
