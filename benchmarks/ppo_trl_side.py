"""trl's half of `ppo_vs_trl`, in trl's own environment: learns from a rule, prints its speed as JSON. Nothing of mygpt is imported."""

import json
import sys
import tempfile
import time
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl.experimental.ppo import PPOConfig, PPOTrainer


class EvenTokens(torch.nn.Module):
    """Shaped like a reward model: the share of even token ids among those behind the prompt, at every place."""

    base_model_prefix = "backbone"

    def __init__(self, prompt_tokens: int):
        super().__init__()
        self.prompt_tokens = prompt_tokens
        self.score = torch.nn.Identity()

    @property
    def backbone(self) -> Any:
        return self

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **more: Any) -> Any:
        is_answer = attention_mask.bool() & (torch.arange(input_ids.shape[1]) >= self.prompt_tokens)
        even = ((input_ids % 2 == 0) & is_answer).cumsum(1)
        return SimpleNamespace(hidden_states=((even / is_answer.cumsum(1).clamp(min=1))[..., None],))


class Clock(TrainerCallback):
    """From the beginning of training to the end of the last rollout's updates."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.ended = time.perf_counter()


class Logged(PPOTrainer):
    """Keeps what is logged."""

    def log(self, logs: dict[str, float], *args: Any, **more: Any) -> None:
        self.__dict__.setdefault("seen", []).append(logs)


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        asked = json.load(file)
    torch.set_num_threads(asked["threads"])
    torch.manual_seed(0)
    setting, answers, rollouts = asked["setting"], asked["answers"], asked["rollouts"]
    tokenizer = AutoTokenizer.from_pretrained(asked["model"])
    tokenizer.pad_token_id = 0  # its own is the end token, which trl's lengths are computed from
    policy = AutoModelForCausalLM.from_pretrained(asked["model"], dtype=torch.bfloat16)
    value = AutoModelForSequenceClassification.from_pretrained(asked["model"], num_labels=1, dtype=torch.bfloat16)
    if setting["value"] == "frozen":
        value.requires_grad_(False)
        value.score.requires_grad_(True)
    rows = Dataset.from_dict({"input_ids": asked["rows"][: (rollouts + 1) * answers]})
    lengths: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        config = PPOConfig(
            output_dir=folder,
            per_device_train_batch_size=setting["rows"],
            gradient_accumulation_steps=answers // setting["rows"],
            num_mini_batches=1,
            num_ppo_epochs=asked["epochs"],
            total_episodes=rollouts * answers,
            response_length=asked["answer_tokens"],
            stop_token="eos",
            temperature=1.0,
            learning_rate=asked["learning_rate"],
            local_rollout_forward_batch_size=answers,
            num_sample_generations=0,
            gradient_checkpointing=False,  # it computes the forward pass again: slower
            bf16=setting["autocast"],
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
            logging_steps=1,
        )
        clock = Clock()
        trainer = Logged(
            args=config,
            processing_class=tokenizer,
            model=policy,
            ref_model=None,
            reward_model=EvenTokens(len(asked["rows"][0])),
            value_model=value,
            train_dataset=rows,
            eval_dataset=rows,
            callbacks=[clock],
            peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
        trained = {name: p for name, p in trainer.policy_model.named_parameters() if p.requires_grad}
        before = {name: p.detach().clone() for name, p in trained.items()}
        real = trainer.policy_model.generate

        def generate(*args: Any, **more: Any) -> Any:
            made = real(*args, **more)
            new_BT = made.sequences[:, more["input_ids"].shape[1] :]
            lengths.extend((new_BT != tokenizer.pad_token_id).sum(1).tolist())
            return made

        trainer.policy_model.generate = generate
        trainer.train()
    updates = max(int(state["step"]) for state in trainer.optimizer.state.values())
    found = {
        "seconds": (clock.ended - clock.began) / rollouts,
        "updates": updates,
        "moved": max(float((p.detach() - before[name]).abs().max()) for name, p in trained.items()),
        "mean_tokens": sum(lengths) / len(lengths),
        "reward": sum(logs["objective/scores"] for logs in trainer.seen) / rollouts,
        "kl": trainer.seen[-1]["objective/kl"],
    }
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
