"""GRPO against trl, in one run: the same model, prompts, answers a step, longest answer, reward and rate.

    python -m benchmarks.grpo_vs_trl --texts ../shared/data --json --keep

SmolLM2-135M in bfloat16, LoRA r=16 on all linear layers, 16 answers of at most 64 tokens a step (8 to each of two GSM8K questions),
temperature 1, the token mean as loss, no KL in it. The reward is a rule that tells nearly any two texts apart (the share of vowels), so
that no group is without spread and every answer is learnt from. trl runs in an environment of its own at several settings, a few steps
each; the fastest then goes the whole way. `ratio`: steps a second against that, from the end of the first step to the end of the last on
both sides; ours watch the KL to the reference beside. `ratio_tokens`: sampled tokens a second, should one side's answers be shorter.
"""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import arguments, finish
from benchmarks.rivals import rival
from mygpt.align.grpo import GRPOConfig, grpo
from mygpt.align.rewards import NamedReward
from mygpt.artifacts.dataset import Conversation, Dataset, Message, conversation_facts, write_conversations
from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.home import find_home
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.sources import obtain

_PROMPTS, _SAMPLES, _LONGEST, _RATE = 2, 8, 64, 1e-5
_SETTINGS: dict[str, dict[str, Any]] = {
    "batch 16": {"per_device_train_batch_size": 16},
    "batch 16, autocast": {"per_device_train_batch_size": 16, "bf16": True},
    "batch 4": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
    "batch 4, autocast": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "bf16": True},
    "batch 16, continuous batching": {"per_device_train_batch_size": 16, "use_transformers_continuous_batching": True},
}


class QuestionsConfig(Config):
    questions: tuple[str, ...]


@recipe
def asked(config: QuestionsConfig, *, run: Run) -> Dataset:
    splits = {"train": [Conversation((Message("user", text),), str(n)) for n, text in enumerate(config.questions)]}
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=conversation_facts(splits))


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--texts", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--probe-steps", type=int, default=3, help="of each of trl's settings")
    parser.add_argument("--only-ours", action="store_true")
    options = parser.parse_args()
    model = obtain(options.model, run=Run(find_home(None), name="benchmark"))
    lines = (options.texts / "gsm8k_train.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line)["question"] for line in lines[: _PROMPTS * options.steps]]
    ours = own(model, questions)
    say(f"ours: {ours}")
    figures: dict[str, Any] = {"model": model.id, "steps": options.steps, "answers": _PROMPTS * _SAMPLES, "most_tokens": _LONGEST}
    figures |= {"threads": torch.get_num_threads(), "dtype": "torch.bfloat16", "ours": ours}
    if not options.only_ours:
        probes: dict[str, float] = {}
        for name, setting in _SETTINGS.items():
            try:
                probes[name] = theirs(model, questions, setting, options.probe_steps)["seconds_a_step"]
            except RuntimeError as error:
                say(f"trl, {name}: {str(error)[-500:]}")
                continue
            say(f"trl, {name}: {probes[name]} s a step")
        best = min(probes, key=lambda name: probes[name])
        trl = theirs(model, questions, _SETTINGS[best], options.steps)
        assert all(norm > 0 for norm in trl["grad_norms"]), trl
        figures |= {"trl": trl, "trl_best": best, "trl_probes": probes}
        figures["ratio"] = round(trl["seconds_a_step"] / ours["seconds_a_step"], 2)
        figures["ratio_tokens"] = round(figures["ratio"] * ours["tokens_an_answer"] / trl["tokens_an_answer"], 2)
    finish("grpo_vs_trl", figures, options)


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def vowels(prompt: Conversation, answer: Answer) -> float:
    return sum(c in "aeiou" for c in answer.text) / max(1, len(answer.text))


class Timed(NamedReward):
    """Says when sampling ended and the update began: what the reward itself saw."""

    spans: list[tuple[float, float]] = []  # noqa: RUF012

    def each(self, prompts: Sequence[Conversation], answers: Sequence[Answer]) -> list[float]:
        began = time.time()
        found = [self(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        self.spans.append((began, time.time()))
        return found


def own(model: Model, questions: Sequence[str]) -> dict[str, Any]:
    ends: list[float] = []

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "log" and "training_step" in event:
            ends.append(time.time())

    config = GRPOConfig(
        method=LoRA(),
        learning_rate=_RATE,
        prompts_per_rollout=_PROMPTS,
        samples=_SAMPLES,
        max_answer_tokens=_LONGEST,
        warmup_share=0.0,
        final_share=1.0,
        checkpoint_seconds=1e9,
    )
    Timed.spans.clear()
    with tempfile.TemporaryDirectory() as home, Run(Path(home), name="benchmark", listeners=(listen,)) as run:
        dataset = asked(QuestionsConfig(questions=tuple(questions)), run=run)
        facts = grpo(config, model=model, dataset=dataset, reward=Timed("vowels", vowels), run=run).manifest.facts
    vitals = facts["vitals"]
    assert all(row["grad_norm"] > 0 for row in vitals) and facts["flat_groups"] == 0, vitals
    sampled = [began - end for end, (began, _) in zip(ends, Timed.spans[1:], strict=False)]
    updates = [end - done for end, (_, done) in zip(ends[1:], Timed.spans[1:], strict=True)]
    return {
        "seconds_a_step": round((ends[-1] - ends[0]) / (len(ends) - 1), 3),
        "seconds_sampling": round(sum(sampled) / len(sampled), 3),
        "seconds_scoring": round(sum(done - began for began, done in Timed.spans[1:]) / len(sampled), 4),
        "seconds_update_and_watching": round(sum(updates) / len(updates), 3),
        "tokens_an_answer": round(sum(row["length"] for row in vitals) / len(vitals), 1),
        "rewards": [row["reward"] for row in vitals],
        "peak_memory_bytes": facts["ledger"]["peak_memory_bytes"],
    }


def theirs(model: Model, questions: Sequence[str], setting: dict[str, Any], steps: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        asked_of = {"model": str(model.payload), "questions": list(questions), "setting": setting, "steps": steps, "out": folder}
        asked_of |= {"samples": _SAMPLES, "most_tokens": _LONGEST, "learning_rate": _RATE, "threads": torch.get_num_threads()}
        file = Path(folder) / "asked.json"
        file.write_text(json.dumps(asked_of), encoding="utf-8")
        found: dict[str, Any] = rival("trl").run(Path(__file__).parent / "trl_grpo_side.py", [str(file)])
    return found


if __name__ == "__main__":
    main()
