"""PPO against trl, in one run: the same prompts, lengths, answers a rollout, epochs, updates, learning rate and reward.

    python -m benchmarks.ppo_vs_trl --texts ../shared/data --json --keep

SmolLM2-135M in bfloat16, LoRA r=16 on all linear layers; 16 answers of at most 32 tokens to prompts of 24, four epochs of one update over
each rollout. The reward is the share of even token ids in the answer: a rule, so that no reward model hides the speed of the rest. trl 1.12
(the last that has PPO) runs in an environment of its own at several settings, one rollout each: its value function is a second model,
trained whole or with its trunk frozen (faster, and less than ours does); rows a forward pass; under autocast. The fastest then makes all.
`ratio`: rollouts with their updates a second, against that; `ratio_default`: against its value model as it comes.
Ours may have at most 3 GiB in use at any time, or the benchmark fails.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import arguments, finish
from benchmarks.rivals import rival
from mygpt.align.ppo import PPOConfig, ppo
from mygpt.align.rewards import NamedReward
from mygpt.artifacts.dataset import Conversation, Dataset, Message, conversation_facts, write_conversations
from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.home import find_home
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.load import load_tokenizer
from mygpt.lm.plain_text import text_ids
from mygpt.lm.sources import obtain

_MOST_BYTES = 3 * 2**30  # the aim of PPO with an adapter
_PROMPT, _ANSWER, _ANSWERS, _EPOCHS, _RATE = 24, 32, 16, 4, 1e-5
_SETTINGS: dict[str, dict[str, Any]] = {
    "value model whole, 16 rows": {"rows": 16, "value": "whole", "autocast": False},
    "value trunk frozen, 16 rows": {"rows": 16, "value": "frozen", "autocast": False},
    "value trunk frozen, 4 rows": {"rows": 4, "value": "frozen", "autocast": False},
}
_DEFAULT = "value model whole, 16 rows"


class PromptsConfig(Config):
    texts: tuple[str, ...]


@recipe
def prompts_of(config: PromptsConfig, *, run: Run) -> Dataset:
    splits = {"train": [Conversation((Message("text", text),), str(n)) for n, text in enumerate(config.texts)]}
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=conversation_facts(splits))


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--texts", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rollouts", type=int, default=4)
    options = parser.parse_args()
    model = obtain(options.model, run=Run(find_home(None), name="benchmark"))
    tokenizer = load_tokenizer(model)
    texts = beginnings(options.texts, tokenizer, count=(options.rollouts + 1) * _ANSWERS)
    figures: dict[str, Any] = {"model": model.id, "threads": torch.get_num_threads(), "dtype": "torch.bfloat16"}
    figures |= {"rollouts": options.rollouts, "answers": _ANSWERS, "prompt_tokens": _PROMPT, "answer_tokens": _ANSWER}
    figures |= {"updates_a_rollout": _EPOCHS, "learning_rate": _RATE}

    ours = own(model, texts[: options.rollouts * _ANSWERS], options.rollouts)
    say(f"mygpt: {ours['seconds']:.1f} s a rollout")
    rows = [list(text_ids(tokenizer, text)) for text in texts]
    probes: dict[str, float] = {}
    for name, setting in _SETTINGS.items():
        probes[name] = theirs(model, rows, setting, 1)["seconds"]
        say(f"trl, {name}: {probes[name]:.1f} s a rollout")
    best = min(probes, key=lambda name: probes[name])
    probes[f"{best}, autocast"] = theirs(model, rows, {**_SETTINGS[best], "autocast": True}, 1)["seconds"]
    say(f"trl, {best}, autocast: {probes[f'{best}, autocast']:.1f} s a rollout")
    fastest = min(probes, key=lambda name: probes[name])
    whole = theirs(model, rows, {**_SETTINGS[best], "autocast": fastest.endswith("autocast")}, options.rollouts)

    for side in (ours, whole):
        assert side["updates"] == options.rollouts * _EPOCHS, side
        assert side["moved"] > 0 and side["mean_tokens"] > _ANSWER / 2, side
    assert ours["peak_memory_bytes"] <= _MOST_BYTES, ours["peak_memory_bytes"]
    figures |= {
        "seconds_a_rollout": round(ours["seconds"], 2),
        "trl_seconds_a_rollout": round(whole["seconds"], 2),
        "trl_best": fastest,
        "trl_probes": {name: round(seconds, 2) for name, seconds in probes.items()},
        "mean_answer_tokens": round(ours["mean_tokens"], 1),
        "trl_mean_answer_tokens": round(whole["mean_tokens"], 1),
        "mean_reward": round(ours["reward"], 3),
        "trl_mean_reward": round(whole["reward"], 3),
        "kl_of_last_rollout": round(ours["kl"], 4),
        "trl_kl_of_last_rollout": round(whole["kl"], 4),
        "peak_memory_bytes": ours["peak_memory_bytes"],
        "trl_versions": {name: rival("trl-ppo").versions[name] for name in ("trl", "transformers", "torch", "peft", "accelerate")},
        "ratio": round(whole["seconds"] / ours["seconds"], 2),
        "ratio_default": round(probes[_DEFAULT] / ours["seconds"], 2),
    }
    finish("ppo_vs_trl", figures, options)


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def beginnings(folder: Path, tokenizer: Any, *, count: int) -> list[str]:
    """Texts of exactly `_PROMPT` tokens, which are the same tokens again when they are read."""
    found: list[str] = []
    for line in (folder / "gsm8k_train.jsonl").read_text(encoding="utf-8").splitlines():
        text = tokenizer.decode(text_ids(tokenizer, json.loads(line)["question"])[:_PROMPT])
        if len(text_ids(tokenizer, text)) == _PROMPT:
            found.append(text)
        if len(found) == count:
            return found
    raise AssertionError(f"only {len(found)} of {count} texts")


def even_tokens(prompt: Conversation, answer: Answer) -> float:
    return sum(token % 2 == 0 for token in answer.token_ids) / len(answer.token_ids)


def own(model: Model, texts: list[str], rollouts: int) -> dict[str, Any]:
    config = PPOConfig(
        method=LoRA(),
        learning_rate=_RATE,
        rollouts=rollouts,
        answers=_ANSWERS,
        epochs=_EPOCHS,
        max_answer_tokens=_ANSWER,
        checkpoint_seconds=1e9,
    )
    with tempfile.TemporaryDirectory() as home, Run(Path(home), name="benchmark") as run:
        dataset = prompts_of(PromptsConfig(texts=tuple(texts)), run=run)
        made = ppo(config, model=model, dataset=dataset, reward=NamedReward("even tokens", even_tokens), run=run)
        facts = made.manifest.facts
    vitals = facts["vitals"]
    return {
        "seconds": facts["ledger"]["seconds"] / rollouts,
        "updates": len(facts["curve"]),
        "moved": min(row["grad_norm"] for row in vitals),
        "mean_tokens": sum(row["length"] for row in vitals) / rollouts,
        "reward": sum(row["reward"] for row in vitals) / rollouts,
        "kl": vitals[-1]["kl"],
        "peak_memory_bytes": facts["ledger"]["peak_memory_bytes"],
    }


def theirs(model: Model, rows: list[list[int]], setting: dict[str, Any], rollouts: int) -> dict[str, Any]:
    """It is given a rollout's prompts more than it uses: in the last batch of its data accelerate would update after every few rows."""
    asked = {"model": str(model.payload), "rows": rows, "setting": setting, "rollouts": rollouts, "answers": _ANSWERS}
    asked |= {"answer_tokens": _ANSWER, "epochs": _EPOCHS, "learning_rate": _RATE, "threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "asked.json"
        given.write_text(json.dumps(asked), encoding="utf-8")
        found: dict[str, Any] = rival("trl-ppo").run(Path(__file__).parent / "ppo_trl_side.py", [str(given)])
    return found


if __name__ == "__main__":
    main()
