"""trl's half of `sft_vs_trl`, in trl's own environment: learns rows of ids, prints its speed as JSON. Nothing of mygpt is imported."""

import json
import sys
import time
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


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


class Counted:
    """A collator around trl's: what its batches really hold."""

    def __init__(self, collator: Any):
        self.collator = collator
        self.tokens = self.trained_tokens = 0

    def __call__(self, rows: Any) -> Any:
        batch = self.collator(rows)
        mask = batch.get("attention_mask")  # none where rows are packed without padding
        self.tokens += int(batch["input_ids"].numel() if mask is None else mask.sum())
        self.trained_tokens += int((batch["labels"] != -100).sum())
        return batch


def main() -> None:
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked["threads"])
    with open(asked["data"], encoding="utf-8") as file:
        rows = json.load(file)[: asked["rows"]]
    setting = dict(asked["setting"])
    size = setting.get("per_device_train_batch_size", 8)
    accumulated = max(1, 8 // size)
    if asked["updates"] and setting.get("packing"):
        setting["max_steps"] = asked["updates"]
    module = AutoModelForCausalLM.from_pretrained(asked["model"], dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(asked["model"])
    config = SFTConfig(
        output_dir=asked["out"] + "-trainer",
        learning_rate=asked["learning_rate"],
        lr_scheduler_type="constant",
        num_train_epochs=1,
        gradient_accumulation_steps=accumulated,
        max_length=512,
        bf16=asked["autocast"],
        use_cpu=True,
        gradient_checkpointing=False,  # it recomputes the forward pass: slower
        max_grad_norm=1.0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        seed=0,
        **setting,
    )
    adapters = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    clock = Clock()
    trainer = SFTTrainer(
        model=module,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=adapters if asked["method"] == "lora" else None,
        callbacks=[clock],
    )
    trainer.data_collator = counted = Counted(trainer.data_collator)
    trainer.train()
    if asked["updates"]:
        trainer.save_model(asked["out"])
    found = {"tokens_per_second": counted.tokens / (clock.ended - clock.began), "losses": clock.losses, "updates": clock.updates}
    found |= {"tokens": counted.tokens, "trained_tokens": counted.trained_tokens}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
