"""What GRPO with a verifier gains: addition, right answers on held-out sums before and after.

    python -m benchmarks.grpo_learns --json --keep

SmolLM2-135M answers "What is 47 + 38?" in its own words; the reward is 1 where the last number it writes is the sum. The sums of training
and test are apart. `gain`: share of right greedy answers after less before, over the same held-out sums, with a paired 95 % interval.
"""

import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import arguments, finish
from mygpt.align.grpo import GRPOConfig, grpo
from mygpt.align.verifiers import NumericReward
from mygpt.artifacts.dataset import Conversation, Dataset, Message, conversation_facts, write_conversations
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.home import find_home
from mygpt.core.run import Run
from mygpt.infer.protocols import Sampling
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.sources import obtain
from mygpt.metrics.bootstrap import paired_bootstrap

_LONGEST = 24  # tokens of an answer


class SumsConfig(Config):
    digits: int
    train: int
    test: int
    question: str


@recipe
def sums(config: SumsConfig, *, run: Run) -> Dataset:
    draw = random.Random(run.seed)
    low, high = 10 ** (config.digits - 1), 10**config.digits - 1
    if (high - low + 1) ** 2 < 1_000_000:
        pairs = draw.sample([(a, b) for a in range(low, high + 1) for b in range(low, high + 1)], config.train + config.test)
    else:
        pairs = sorted({(draw.randint(low, high), draw.randint(low, high)) for _ in range(2 * (config.train + config.test))})
        draw.shuffle(pairs)
        pairs = pairs[: config.train + config.test]
    rows = [
        Conversation((Message("user", config.question.format(a=a, b=b)), Message("assistant", str(a + b))), f"{a}+{b}") for a, b in pairs
    ]
    splits = {"train": rows[: config.train], "test": rows[config.train :]}
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=conversation_facts(splits))


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--digits", type=int, default=2)
    parser.add_argument("--question", default="What is {a} + {b}?")
    parser.add_argument("--items", type=int, default=300, help="held-out sums")
    parser.add_argument("--rollouts", type=int, default=150)
    parser.add_argument("--prompts", type=int, default=8, help="in a rollout")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = obtain(options.model, run=Run(find_home(None), name="benchmark"))
    began = time.time()

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "log" and "rollout" in event and event["rollout"] % 10 == 1:
            shown = {k: round(event[k], 3) for k in ("reward", "reward_std", "kl", "entropy", "length", "grad_norm")}
            say(f"{time.time() - began:.0f} s, rollout {event['rollout']}: {shown}")

    with tempfile.TemporaryDirectory() as home, Run(Path(home), name="benchmark", seed=options.seed, listeners=(listen,)) as run:
        settings = {"digits": options.digits, "train": options.rollouts * options.prompts, "test": options.items}
        dataset = sums(SumsConfig(**settings, question=options.question), run=run)
        before = right(model, None, dataset)
        say(f"before: {sum(before) / len(before):.3f}")
        config = GRPOConfig(
            method=LoRA(),
            learning_rate=options.rate,
            prompts_per_rollout=options.prompts,
            samples=options.samples,
            max_answer_tokens=_LONGEST,
            warmup_share=0.0,
            final_share=0.1,
            checkpoint_seconds=1e9,
        )
        started = time.time()
        made = grpo(config, model=model, dataset=dataset, run=run)
        assert isinstance(made, Adapter)
        seconds = time.time() - started
        after = right(model, made, dataset)
        vitals = made.manifest.facts["vitals"]
        flat = made.manifest.facts["flat_groups"]
    gain = paired_bootstrap(after, before)
    figures: dict[str, Any] = {"model": model.id, "digits": options.digits, "question": options.question, "items": len(before)}
    figures |= {"threads": torch.get_num_threads(), "rollouts": len(vitals), "answers_a_rollout": options.prompts * options.samples}
    figures |= {"before": sum(before) / len(before), "after": sum(after) / len(after)}
    figures |= {"gain": round(gain.estimate, 4), "gain_interval": [round(gain.low, 4), round(gain.high, 4)]}
    figures |= {"seconds_of_training": round(seconds), "learning_rate": options.rate, "flat_groups": flat}
    figures |= {"first_vitals": vitals[0], "last_vitals": vitals[-1], "rewards": [row["reward"] for row in vitals]}
    finish("grpo_learns", figures, options, seed=options.seed)


def right(model: Model, adapter: Adapter | None, dataset: Dataset) -> list[float]:
    """Of the held-out sums, by greedy answers: 1 or 0."""
    rows, verify = dataset.split("test"), NumericReward()
    answers = TorchEngine(model, adapter=adapter).complete(rows, Sampling(max_tokens=_LONGEST))
    for row, answer in list(zip(rows, answers, strict=True))[:3]:
        say(f"  {row.question} -> {answer.text!r}")
    return [verify(row, answer) for row, answer in zip(rows, answers, strict=True)]


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
