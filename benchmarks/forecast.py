"""What the forecast of a training said against what the training took: memory and time, of every kind of training.

    python -m benchmarks.forecast --json --keep

Decoders are the real 135M model, encoders MiniLM, the encoder-decoder a T5-small shape of random weights. Each setting trains a few steps,
twice, each time in a process of its own: memory is a process's high-water mark, and the second forecast of time rests on what the first
training reached (of rollouts time is not foreseen). `ratio` is the largest peak over its forecast: above 1 the forecast was too small.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.own_bases import OwnBaseConfig, shape_of, trained_tokenizer
from benchmarks.record import arguments, finish
from mygpt.align.dpo import DPOConfig, dpo
from mygpt.align.grpo import GRPOConfig, grpo
from mygpt.align.ppo import PPOConfig, ppo
from mygpt.align.reward_model import RewardModelConfig, reward_model
from mygpt.align.rewards import NamedReward
from mygpt.artifacts.dataset import (
    Conversation,
    Dataset,
    LabelledText,
    Message,
    Preference,
    TaggedWords,
    TextPair,
    conversation_facts,
    preference_facts,
    row_facts,
    write_conversations,
    write_labelled,
    write_pairs,
    write_preferences,
    write_tagged,
)
from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.finetune.classifier import ClassifierConfig, classifier
from mygpt.finetune.embedder import EmbedderConfig, embedder
from mygpt.finetune.masked_lm import MaskedLMConfig, masked_lm
from mygpt.finetune.seq2seq import Seq2SeqConfig, seq2seq
from mygpt.finetune.sft import SFTConfig, sft
from mygpt.finetune.tagger import TaggerConfig, tagger
from mygpt.lm.adapters.full import Full
from mygpt.lm.checkpoint import facts_of
from mygpt.lm.sources import obtain

Schema = Literal["sft", "class", "tagged", "pairs", "text", "preference"]


@dataclass(frozen=True)
class Setting:
    recipe: Callable[..., Any]
    config: type[Any]
    settings: dict[str, Any]
    schema: Schema = "sft"
    base: Literal["decoder", "encoder", "t5"] = "decoder"
    inputs: dict[str, Any] = field(default_factory=dict)

    def configured(self) -> Any:
        return self.config(checkpoint_seconds=3600, **self.settings)


LENGTH = NamedReward("length", lambda prompt, answer: float(len(answer.token_ids)))
SETTINGS = {
    "lora, 2048 tokens": Setting(sft, SFTConfig, {"step_tokens": 2048, "micro_batch_tokens": 2048, "epochs": 2}),
    "lora, 1024 tokens": Setting(sft, SFTConfig, {"step_tokens": 1024, "micro_batch_tokens": 1024, "epochs": 1}),
    "all weights, 1024 tokens": Setting(
        sft, SFTConfig, {"method": Full(), "learning_rate": 3e-5, "step_tokens": 1024, "micro_batch_tokens": 1024, "epochs": 1}
    ),
    "classifier, all weights": Setting(classifier, ClassifierConfig, {"step_tokens": 2048, "epochs": 2}, "class", "encoder"),
    "tagger, all weights": Setting(tagger, TaggerConfig, {"step_tokens": 2048, "epochs": 2}, "tagged", "encoder"),
    "embedder, in parts": Setting(embedder, EmbedderConfig, {"step_pairs": 8, "epochs": 2}, "pairs", "encoder"),
    "masked_lm, all weights": Setting(masked_lm, MaskedLMConfig, {"step_tokens": 2048, "epochs": 2}, "text", "encoder"),
    "seq2seq, all weights": Setting(
        seq2seq, Seq2SeqConfig, {"step_tokens": 2048, "max_answer_tokens": 256, "held_out_answers": 0, "epochs": 2}, "sft", "t5"
    ),
    "dpo, lora": Setting(dpo, DPOConfig, {"step_pairs": 4}, "preference"),
    "reward_model, lora": Setting(reward_model, RewardModelConfig, {"step_tokens": 2048, "max_example_tokens": 512}, "preference"),
    "grpo, lora": Setting(
        grpo, GRPOConfig, {"prompts_per_rollout": 4, "samples": 4, "max_answer_tokens": 64}, "sft", inputs={"reward": LENGTH}
    ),
    "ppo, lora": Setting(ppo, PPOConfig, {"rollouts": 2, "answers": 64, "max_answer_tokens": 64}, "sft", inputs={"reward": LENGTH}),
}


class WordsConfig(Config):
    schema_name: Schema = "sft"
    rows: int = 8
    words: int = 100


@recipe
def words(config: WordsConfig, *, run: Run) -> Dataset:
    """Rows of one length, so that every micro-batch is full."""
    texts = [" ".join(f"word{(i * j) % 97}" for j in range(config.words)) for i in range(config.rows)]
    asked = [(Message("user", f"What is number {i}?"),) for i in range(config.rows)]
    rows, write, facts = _as(config.schema_name, texts, asked)
    splits = {"train": rows}
    return publish(Dataset, run, lambda folder: write(folder, splits), facts=facts(splits), name=f"words-{config.schema_name}")


def _as(schema: Schema, texts: list[str], asked: list[tuple[Message, ...]]) -> tuple[list[Any], Callable[..., None], Callable[..., Any]]:
    """(rows, what writes them, their facts)."""
    tags = ["O", "B-ODD", "I-ODD"]
    match schema:
        case "class":
            rows: list[Any] = [LabelledText(text, ("odd", "even")[i % 2]) for i, text in enumerate(texts)]
            return rows, write_labelled, lambda splits: row_facts("class", splits, labels=["even", "odd"])
        case "tagged":
            rows = [TaggedWords(tuple(t.split()), tuple(("O", "B-ODD")[n % 2] for n in range(len(t.split())))) for t in texts]
            return rows, write_tagged, lambda splits: row_facts("tagged", splits, labels=tags)
        case "pairs":
            return [TextPair(f"{i} {t}", t) for i, t in enumerate(texts)], write_pairs, lambda splits: row_facts("pairs", splits)
        case "text":
            rows = [Conversation((Message("text", text),), str(i)) for i, text in enumerate(texts)]
            return rows, write_conversations, lambda splits: row_facts("text", splits)
        case "preference":
            rows = [Preference(prompt, text, f"{text} no") for prompt, text in zip(asked, texts, strict=True)]
            return rows, write_preferences, preference_facts
        case "sft":
            rows = [Conversation((*p, Message("assistant", t)), str(i)) for i, (p, t) in enumerate(zip(asked, texts, strict=True))]
            return rows, write_conversations, conversation_facts


@recipe
def untrained_t5(config: OwnBaseConfig, *, run: Run) -> Model:
    def write(folder: Path) -> dict[str, Any]:
        tokenizer = trained_tokenizer(config, [" ".join(f"What is number word{n}?" for n in range(97))])
        shape_of(config, config.vocabulary).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return facts_of(folder)

    return publish(Model, run, write, facts={"source": "own"}, provenance={"licence": "Apache-2.0"}, name="untrained-t5")


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", default="smollm2-135m-q4_1")
    parser.add_argument("--one", help="a setting, a home, a seed: train, and print the facts (called by this script)", nargs=3)
    options = parser.parse_args()
    if options.one:
        name, home, seed = options.one
        print(json.dumps(train(name, Path(home), int(seed), options.model)))  # noqa: T201
        return
    with tempfile.TemporaryDirectory() as home:
        found = {name: [one(name, home, seed, options.model) for seed in (0, 1)] for name in SETTINGS}
    figures: dict[str, Any] = {name: compared(runs) for name, runs in found.items()}
    finish("forecast", {"ratio": max(one["memory_ratio"] for one in figures.values()), "settings": figures}, options)


def one(name: str, home: str, seed: int, model: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.forecast", "--model", model, "--one", name, home, str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert not done.returncode, f"{name}: {done.stderr[-2000:]}"
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert facts["curve"][-1][1] > 0 or name.startswith(("grpo", "ppo"))
    assert facts["ledger"]["flops"] == facts["forecast"]["flops"] or facts["forecast"]["seconds"] is None
    return facts


def train(name: str, home: Path, seed: int, model: str) -> dict[str, Any]:
    """The facts of what was made."""
    one = SETTINGS[name]
    with Run(home, name="forecast", seed=seed) as run:
        if one.base == "t5":
            base = untrained_t5(OwnBaseConfig(shape="t5", vocabulary=32_000, hidden_size=512, layers=6, heads=8), run=run)
        else:
            base = obtain(model if one.base == "decoder" else "minilm", run=run)
        dataset = words(WordsConfig(schema_name=one.schema), run=run)
        made = one.recipe(one.configured(), model=base, dataset=dataset, **one.inputs, run=run)
        return dict(made.manifest.facts)


def compared(runs: list[dict[str, Any]]) -> dict[str, Any]:
    forecast, ledger = runs[1]["forecast"], runs[1]["ledger"]
    parts = {name: round(value / 1e6) for name, value in forecast.items() if name.endswith("_bytes") and value is not None}
    return {
        "forecast_gb": round(forecast["bytes"] / 1e9, 2),
        "peak_gb": [round(run["ledger"]["peak_memory_bytes"] / 1e9, 2) for run in runs],
        "memory_ratio": round(max(run["ledger"]["peak_memory_bytes"] for run in runs) / forecast["bytes"], 3),
        "megabytes_by_part": parts,
        "forecast_seconds": [run["forecast"]["seconds"] and round(run["forecast"]["seconds"], 1) for run in runs],
        "seconds": [round(run["ledger"]["seconds"], 1) for run in runs],
        "share_of_limit": ledger["share_of_limit"],
    }


if __name__ == "__main__":
    main()
