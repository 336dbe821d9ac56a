"""trl's half of `grpo_vs_trl`, in trl's own environment: prints seconds a step and what it did as JSON. Nothing of mygpt is imported."""

import json
import sys
import time
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class Clock(TrainerCallback):
    """When every step ended, and what was logged of it."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.logs: list[dict[str, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.ends.append(time.perf_counter())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        if logs and "reward" in logs:
            self.logs.append(dict(logs))


def vowels(prompts: Any, completions: Any, **more: Any) -> list[float]:
    texts = [completion[0]["content"] for completion in completions]
    return [sum(c in "aeiou" for c in text) / max(1, len(text)) for text in texts]


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        asked = json.load(file)
    torch.set_num_threads(asked["threads"])
    module = AutoModelForCausalLM.from_pretrained(asked["model"], dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(asked["model"])
    config = GRPOConfig(
        output_dir=asked["out"],
        learning_rate=asked["learning_rate"],
        lr_scheduler_type="constant",
        max_steps=asked["steps"],
        num_generations=asked["samples"],
        max_completion_length=asked["most_tokens"],
        temperature=1.0,
        beta=0.0,
        **{"bf16": False, **asked["setting"]},
        use_cpu=True,
        gradient_checkpointing=False,  # it recomputes the forward pass: slower
        max_grad_norm=1.0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        shuffle_dataset=False,
        seed=0,
    )
    clock = Clock()
    trainer = GRPOTrainer(
        model=module,
        reward_funcs=vowels,
        args=config,
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": text}]} for text in asked["questions"]]),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[clock],
    )
    trainer.train()
    lengths = [log["completions/mean_length"] for log in clock.logs]
    found = {
        "seconds_a_step": round((clock.ends[-1] - clock.ends[0]) / (len(clock.ends) - 1), 3),
        "tokens_an_answer": round(sum(lengths) / len(lengths), 1),
        "rewards": [round(log["reward"], 5) for log in clock.logs],
        "grad_norms": [log["grad_norm"] for log in clock.logs],
        "groups_without_spread": sum(log["frac_reward_zero_std"] for log in clock.logs),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
