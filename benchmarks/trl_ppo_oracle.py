"""What trl's own PPO trainer makes of fixed numbers: the other side of tests/align/test_ppo_against_trl.py. Nothing of mygpt is imported.

    python -m benchmarks.rivals trl-ppo          says where the environment is
    THERE/bin/python benchmarks/trl_ppo_oracle.py | tail -1 > tests/align/trl_ppo.json

Models are tables: a policy whose logits depend on the token before alone, a reference and a value function of the same kind, a reward that
is a number for the last token. One rollout of given tokens, three epochs, plain gradient descent; the tables after it and what was logged
are printed. Answers fill their length, where trl's place for the reward is the last token, as ours.
"""

import json
import sys
from contextlib import nullcontext
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from transformers import GenerationConfig
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

VOCABULARY, ANSWERS, QUERY, ANSWER, EOS, PAD = 7, 8, 3, 5, 5, 6
RATE, TEMPERATURE = 4.0, 0.7
CASES: dict[str, dict[str, Any]] = {
    "k1": {"kl_estimator": "k1", "whiten_rewards": False},
    "k3": {"kl_estimator": "k3", "whiten_rewards": False, "missing_eos_penalty": 0.5},
    "whitened": {"kl_estimator": "k1", "whiten_rewards": True, "gamma": 0.9, "lam": 0.8},
}


class Table(torch.nn.Module):
    """Rows of numbers by token, in the clothes of a language model or of its backbone."""

    base_model_prefix = "backbone"
    is_gradient_checkpointing = False

    def __init__(self, rows: torch.Tensor):
        super().__init__()
        self.rows = torch.nn.Parameter(rows.clone())
        self.config = SimpleNamespace(to_dict=dict)
        self.generation_config = GenerationConfig()
        self.score = torch.nn.Identity()

    @property
    def backbone(self) -> "Table":
        return self

    def forward(self, input_ids: torch.Tensor, **more: Any) -> Any:
        found = self.rows[input_ids]
        return SimpleNamespace(logits=found.clone(), hidden_states=(found,))


class Recorded(PPOTrainer):
    def create_optimizer_and_scheduler(self, num_training_steps: int) -> None:
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE)
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1.0)

    def log(self, logs: dict[str, float], *args: Any, **more: Any) -> None:
        self.seen = logs


def main() -> None:
    torch.manual_seed(0)
    tables = {
        "policy": torch.randn(VOCABULARY, VOCABULARY),
        "reference": torch.randn(VOCABULARY, VOCABULARY),
        "value": torch.randn(VOCABULARY, 1),
        "reward": torch.randn(VOCABULARY, 1),
    }
    rows = torch.randint(0, PAD, (ANSWERS, QUERY + ANSWER))
    rows[: ANSWERS // 2, -1] = EOS
    made = {name: case(tables, rows, settings) for name, settings in CASES.items()}
    inputs = {**{name: rows.tolist() for name, rows in tables.items()}, "rows": rows.tolist(), "query": QUERY, "eos": EOS}
    packages = {name: version(name) for name in ("trl", "transformers", "torch")}
    found = {"versions": packages, "rate": RATE, "temperature": TEMPERATURE, "inputs": inputs, "settings": CASES, "cases": made}
    sys.stdout.write(json.dumps(found) + "\n")


def case(tables: dict[str, torch.Tensor], rows: torch.Tensor, settings: dict[str, Any]) -> dict[str, Any]:
    policy, reference, value, reward = (Table(tables[name]) for name in ("policy", "reference", "value", "reward"))
    config = PPOConfig(
        output_dir="/tmp/trl-ppo-oracle",
        per_device_train_batch_size=ANSWERS,
        gradient_accumulation_steps=1,
        num_mini_batches=1,
        num_ppo_epochs=3,
        total_episodes=ANSWERS,
        response_length=ANSWER,
        temperature=TEMPERATURE,
        kl_coef=0.2,
        vf_coef=0.3,
        cliprange=0.15,
        cliprange_value=0.25,
        num_sample_generations=0,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        **settings,
    )
    tokenizer: Any = SimpleNamespace(pad_token_id=PAD, eos_token_id=EOS)
    trainer = Recorded(
        args=config,
        processing_class=tokenizer,
        model=policy,
        ref_model=reference,
        reward_model=reward,
        value_model=value,
        train_dataset=Dataset.from_dict({"input_ids": rows[:, :QUERY].tolist()}),
        eval_dataset=Dataset.from_dict({"input_ids": rows[:, :QUERY].tolist()}),
        data_collator=lambda features: {"input_ids": torch.tensor([f["input_ids"] for f in features])},
    )

    def given(model: Any, queries: torch.Tensor, *more: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows in the order of their queries, and the logits that they were sampled from."""
        order = [next(i for i, row in enumerate(rows) if torch.equal(row[:QUERY], query)) for query in queries]
        logits = model(rows[order]).logits[:, QUERY - 1 : -1] / (TEMPERATURE + 1e-7)
        return rows[order], logits

    ppo_trainer.batch_generation = given
    ppo_trainer.unwrap_model_for_generation = lambda model, *args, **more: nullcontext(model)
    trainer.train()
    after = {"policy": policy.rows.tolist(), "value": value.rows.tolist()}
    return {"after": after, "logged": {key: float(number) for key, number in trainer.seen.items() if key != "eps"}}


if __name__ == "__main__":
    main()
