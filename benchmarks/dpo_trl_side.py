"""trl's half of `dpo_vs_trl`, in trl's own environment: learns pairs of ids by DPO, prints its speed as JSON. Nothing of mygpt is imported.

Its other ways to be faster are not there on a CPU: `padding_free` is switched off in this version, liger and hub kernels want a GPU.
"""

import json
import sys
import time
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer


class Clock(TrainerCallback):
    """From the beginning of the first update to the end of the last, and every loss."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0
        self.updates = 0
        self.losses: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.began = self.began or time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.ended, self.updates = time.perf_counter(), self.updates + 1

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))


class OfIds(DPOTrainer):
    """The same tokens as on the other side, so nothing is rendered here."""

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        return dataset


def main() -> None:
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked["threads"])
    with open(asked["data"], encoding="utf-8") as file:
        rows = json.load(file)[: asked["pairs"]]
    for row in rows:
        row["length"] = len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
    module = AutoModelForCausalLM.from_pretrained(asked["model"], dtype=torch.bfloat16)
    config = DPOConfig(
        output_dir=asked["out"] + "-trainer",
        beta=asked["beta"],
        learning_rate=asked["learning_rate"],
        lr_scheduler_type="constant",
        num_train_epochs=asked["epochs"],
        per_device_train_batch_size=asked["batch"],
        gradient_accumulation_steps=asked["step_pairs"] // asked["batch"],
        train_sampling_strategy="group_by_length" if asked["grouped"] else "random",
        remove_unused_columns=False,  # else the lengths by which it groups are gone
        precompute_ref_log_probs=True,
        max_length=None,
        bf16=asked["autocast"],
        use_cpu=True,
        gradient_checkpointing=False,  # it recomputes the forward pass: slower
        max_grad_norm=1.0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        seed=0,
    )
    clock = Clock()
    trainer = OfIds(
        model=module,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(asked["model"]),
        peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[clock],
    )
    trainer.train()
    if asked["keep"]:
        trainer.save_model(asked["out"])
    found = {"updates_per_second": clock.updates / (clock.ended - clock.began), "losses": clock.losses, "updates": clock.updates}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
