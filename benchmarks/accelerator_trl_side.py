"""trl's half of `accelerator`, in trl's own environment: every setting that may be its fastest, one after another, and JSON of each.

Rows are packed (best fit, which keeps examples apart, or run together and cut). Attention is what is installed: FlashAttention,
FlexAttention, SDPA. To the fastest of all these and to the fastest that keeps examples apart torch.compile, Liger's kernels and autocast
are added in turn and kept where they help. Layers are computed again only where memory does not hold them. Nothing of mygpt is imported.
"""

import gc
import importlib.util
import json
import statistics
import sys
import time
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback
from trl import SFTConfig, SFTTrainer

_CUDA = torch.cuda.is_available()


class Clock(TrainerCallback):
    """When each update ended, on a device that is done with it, and every loss."""

    def __init__(self) -> None:
        self.ticks: list[float] = []
        self.losses: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if _CUDA:
            torch.cuda.synchronize()
        self.ticks.append(time.perf_counter())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))


def main() -> None:
    asked = json.loads(sys.argv[1])
    ends = time.monotonic() + asked["seconds"]
    found: dict[str, Any] = {}

    def attempt(name: str, setting: dict[str, Any]) -> float:
        if found and time.monotonic() > ends:
            found[name] = {"failed": "no time was left"}
            return 0.0
        began = time.monotonic()
        found[name] = measured(asked, setting) | {"seconds": round(time.monotonic() - began, 1)}
        sys.stderr.write(f"{name}: {found[name].get('tokens_per_second') or found[name]}\n")
        return float(found[name].get("tokens_per_second", 0.0))

    settings = beginnings(asked)
    speeds = {name: attempt(name, setting) for name, setting in settings.items()}
    apart = {name: speed for name, speed in speeds.items() if settings[name]["packing_strategy"] == "bfd"}
    for best in dict.fromkeys(max(some, key=lambda name: some[name]) for some in (speeds, apart)):
        setting, speed, called = settings[best], speeds[best], best
        for name, more in additions(asked).items():
            faster = attempt(f"{called}, {name}", setting | more)
            if faster > speed:
                setting, speed, called = setting | more, faster, f"{called}, {name}"
    sys.stdout.write(json.dumps(found) + "\n")


def beginnings(asked: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Ways of attention and packing."""
    together = {"rows": asked["rows"], "packing_strategy": "bfd"}
    flash = [f"flash_attention_{n}" for n, package in ((3, "flash_attn_interface"), (2, "flash_attn")) if importlib.util.find_spec(package)]
    found = {name: {"attention": name, **together} for name in flash}
    if _CUDA:
        found["flex_attention"] = {"attention": "flex_attention", **together}  # has no backward pass on a CPU
    found["sdpa, run together"] = {"attention": "sdpa", "rows": asked["rows"], "packing_strategy": "wrapped"}
    found["sdpa, row by row"] = {"attention": "sdpa", "rows": 1, "packing_strategy": "bfd"}
    return found


def additions(asked: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {"liger": {"use_liger_kernel": True}} if importlib.util.find_spec("liger_kernel") else {}
    if asked["compiled"]:
        found["torch.compile"] = {"torch_compile": True}
    return {**found, "autocast": {"bf16": True}}


def measured(asked: dict[str, Any], setting: dict[str, Any]) -> dict[str, Any]:
    """Once more with layers computed again where memory was short."""
    for recomputes in (False, True):
        try:
            return {**trained(asked, setting, recomputes), "apart": setting["packing_strategy"] == "bfd", "recomputes": recomputes}
        except torch.OutOfMemoryError as error:
            told = {"failed": f"out of memory: {error}"[:300]}
        except Exception as error:  # whatever a setting dies of is its result
            return {"failed": f"{type(error).__name__}: {error}"[:300]}
        finally:
            torch.compiler.reset()
            gc.collect()
            if _CUDA:
                torch.cuda.empty_cache()
    return told


def trained(asked: dict[str, Any], setting: dict[str, Any], recomputes: bool) -> dict[str, Any]:
    with open(asked["data"], encoding="utf-8") as file:
        rows = json.load(file)
    options = dict(setting)
    attention, size = options.pop("attention"), options.pop("rows")
    loading: dict[str, Any] = {"dtype": torch.bfloat16, "attn_implementation": attention}
    if asked["method"] == "qlora":
        four = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": torch.bfloat16}
        loading |= {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, **four), "device_map": {"": "cuda" if _CUDA else "cpu"}}
        options["optim"] = "paged_adamw_32bit"
    module = AutoModelForCausalLM.from_pretrained(asked["model"], **loading)
    config = SFTConfig(
        output_dir=asked["out"],
        learning_rate=asked["learning_rate"],
        lr_scheduler_type="constant",
        num_train_epochs=1,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=max(1, asked["update_rows"] // size),
        packing=True,
        max_length=asked["row_tokens"],
        use_cpu=not _CUDA,
        gradient_checkpointing=recomputes,
        max_grad_norm=1.0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        seed=0,
        **{"bf16": False, **options},
    )
    clock = Clock()
    adapters = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = SFTTrainer(
        model=module,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(asked["model"]),
        peft_config=None if asked["method"] == "full" else adapters,
        callbacks=[clock],
    )
    tokens = counted(trainer)
    if _CUDA:
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    each = config.gradient_accumulation_steps
    per_update = [sum(tokens[i : i + each]) for i in range(0, len(tokens), each)]
    seconds = [end - start for start, end in zip(clock.ticks, clock.ticks[1:], strict=False)]
    speeds = [number / took for number, took in zip(per_update[1:], seconds, strict=True)]
    return {
        "tokens_per_second": round(statistics.median(speeds[asked["warm_up"] - 1 :]), 1),
        "tokens": sum(tokens),
        "updates": len(clock.ticks),
        "seconds_of_updates": [round(took, 4) for took in seconds],
        "losses": clock.losses,
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if _CUDA else None,
    }


def counted(trainer: Any) -> list[int]:
    """Real tokens of every batch, as it is made."""
    tokens: list[int] = []
    collate = trainer.data_collator

    def counting(rows: list[dict[str, Any]]) -> Any:
        tokens.append(sum(len(row["input_ids"]) for row in rows))
        return collate(rows)

    trainer.data_collator = counting
    return tokens


if __name__ == "__main__":
    main()
