"""Alignment on a GPU against trl, on a model of random weights that is made here: nothing is fetched, and no text is needed.

    python -m benchmarks.align_accelerator --only grpo --json --keep    Llama's 1.2B shape in bfloat16, LoRA r=16 on all linear layers
    python -m benchmarks.align_accelerator --only dpo --json --keep
    python -m benchmarks.align_accelerator --only ppo --json --keep     ours alone: trl has no PPO any more
    python -m benchmarks.align_accelerator --quick --json               the same path with a tiny shape, on a CPU too: proves no speed

Each of the three ends within `--seconds`; records of one machine gather in one file. trl runs at each of its settings that may be its
fastest (`align_accelerator_trl_side`) but WITHOUT vLLM, which may well sample faster for it and was not at hand. `ratio`: seconds an update
of its fastest over ours; medians, the first updates left out; a clock that waits for the device ends each update on both sides.

grpo    8 answers to each of 8 prompts, 256 tokens each: a random model hardly ever stops. The reward is the share of even tokens, which
        tells nearly any two answers apart. The token mean is the loss, with no KL in it
dpo     16 pairs an update, prompts and answers of 256 tokens each, learnt six times; reference log-probabilities beforehand, not timed;
        ours with layers compiled and without
ppo     64 answers of 256 tokens, four updates a rollout, a rule as the reward
"""

import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import record
from benchmarks.accelerator import SHAPES, WORDS, device_name, earlier, give_back, random_llama, trl_versions
from benchmarks.dpo_vs_trl import RowsConfig, ids_of, rows_of
from benchmarks.grpo_vs_trl import QuestionsConfig, Timed, asked
from benchmarks.record import arguments, finish
from benchmarks.rivals import Rival, rival
from benchmarks.sft_vs_trl import say
from mygpt.align.answers import Pair, rendered_answer
from mygpt.align.dpo import DPOConfig, dpo
from mygpt.align.grpo import GRPOConfig, grpo
from mygpt.align.pair_losses import DPO
from mygpt.align.ppo import PPOConfig, ppo
from mygpt.artifacts.dataset import Conversation, Message, Preference
from mygpt.artifacts.model import Model
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.chat import ChatRenderer
from mygpt.lm.load import load_tokenizer

_NEEDS = "torch sees no GPU here. One NVIDIA GPU of 80 GB is needed; `--quick` runs a tiny shape on a CPU."
_BETA, _EPOCHS = 0.1, 6


@dataclass(frozen=True)
class Work:
    recipe: str
    shape: str = "1.2b"
    warm_up: int = 2  # updates (of PPO rollouts) that are not counted; of trl's GRPO, whose updates differ little, 1
    updates: int = 8
    trl_updates: int = 8  # of each of its settings
    prompts: int = 8  # of a rollout
    samples: int = 8
    prompt_tokens: int = 128
    answer_tokens: int = 256
    update_pairs: int = 16
    micro_batch_tokens: int = 32_768
    learning_rate: float = 1e-5

    @property
    def answers(self) -> int:
        return self.prompts * self.samples


PARTS = {
    "grpo": Work("grpo", trl_updates=4),
    "dpo": Work("dpo", warm_up=4, updates=24, trl_updates=24, prompt_tokens=256, learning_rate=3e-4),
    "ppo": Work("ppo", updates=5),
}
_TINY: dict[str, Any] = {"shape": "tiny", "prompts": 2, "samples": 4, "answer_tokens": 12, "update_pairs": 4, "micro_batch_tokens": 512}
QUICK = {
    "grpo": Work("grpo", **_TINY, updates=4, trl_updates=4, prompt_tokens=24),
    "dpo": Work("dpo", **_TINY, updates=12, trl_updates=12, prompt_tokens=24, learning_rate=3e-3),
    "ppo": Work("ppo", **_TINY, updates=3, prompt_tokens=24),
}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", choices=PARTS, help="a part that fits into ten minutes; without it all, one after another")
    parser.add_argument("--quick", action="store_true", help="a tiny shape, on whatever device is here")
    parser.add_argument("--seconds", type=float, default=540, help="of a part: what is left of them after ours is trl's")
    parser.add_argument("--alone", action="store_true", help="leave trl out")
    options = parser.parse_args()
    if not (options.quick or torch.cuda.is_available()):
        parser.error(_NEEDS)
    works = QUICK if options.quick else PARTS
    works = {options.only: works[options.only]} if options.only else works
    options.keep = options.keep and not options.quick  # no speed of a tiny shape is worth it
    figures = earlier("align_accelerator", set(PARTS)) if options.keep else {}
    for name, work in works.items():
        ends = time.monotonic() + options.seconds
        with tempfile.TemporaryDirectory() as home:
            figures[name] = compared(work, Path(home), ends=ends, alone=options.alone)
    finish("align_accelerator", figures, options)


def compared(work: Work, home: Path, *, ends: float, alone: bool) -> dict[str, Any]:
    with Run(home, name="accelerator") as run:
        model = random_llama(SHAPES[work.shape], run=run)
    give_back()
    texts = Texts(model, work)
    ours, given = SIDES[work.recipe](model, work, texts, home)
    say(f"{work.recipe}: {ours}")
    figures = {**asdict(work), "commit": record.commit(), "device": device_name(), **ours}
    if alone or work.recipe == "ppo":
        return figures
    tried = theirs(work, model, given, home, seconds=ends - time.monotonic())
    done = {name: one for name, one in tried.items() if "failed" not in one}
    figures |= {"trl": tried, "trl_versions": trl_versions(trl()), "ratio": None}
    if not done:
        say(f"{work.recipe}: trl ran at none of its settings, so there is no ratio")
        return figures
    for name, one in done.items():
        if work.recipe == "grpo":
            assert one["tokens_an_answer"] >= 0.97 * work.answer_tokens and all(norm > 0 for norm in one["grad_norms"]), (name, one)
        else:
            assert_falls(one["losses"])
    best = min(done, key=lambda name: done[name]["seconds_an_update"])
    seconds = done[best]["seconds_an_update"]
    figures |= {"ratio": round(seconds / ours["seconds_an_update"], 2), "trl_best": best, "trl_seconds_an_update": seconds}
    if work.recipe == "grpo":
        fastest = min(one["seconds_sampling"] for one in done.values())
        figures |= {"trl_seconds_sampling": done[best]["seconds_sampling"], "ratio_sampling": round(fastest / ours["seconds_sampling"], 2)}
    return {**figures, "trl_peak_memory_bytes": done[best]["peak_memory_bytes"]}


def assert_falls(losses: Sequence[float]) -> None:
    third = len(losses) // 3
    assert statistics.mean(losses[-third:]) < statistics.mean(losses[:third]), f"the loss did not fall: {losses}"


# -- what is asked, and what is learnt ---------------------------------------------------------------------------------------


class Texts:
    """Made-up words, of so many tokens to the last one."""

    def __init__(self, model: Model, work: Work):
        self.renderer, self.work, self._draw = ChatRenderer(load_tokenizer(model)), work, random.Random(0)

    def questions(self, count: int) -> list[str]:
        return [self._of(self.work.prompt_tokens, lambda text: len(self.renderer.prompt(asked_by(text)))) for _ in range(count)]

    def pairs(self, count: int) -> list[Pair]:
        made = []
        for question in self.questions(count):
            prompt = asked_by(question).messages

            def tokens(text: str, prompt: Sequence[Message] = prompt) -> int:
                return sum(rendered_answer(self.renderer, prompt, text).trained)

            row = Preference(prompt, *(self._of(self.work.answer_tokens, tokens) for _ in range(2)))
            made.append(Pair(row, *(rendered_answer(self.renderer, prompt, text) for text in (row.chosen, row.rejected))))
        return made

    def _of(self, tokens: int, count: Callable[[str], int]) -> str:
        """Words are added while they fit, then letters."""
        text = self._draw.choice(WORDS)
        while (missing := tokens - count(text)) > 0:
            some = self._draw.choices(WORDS, k=missing // 4) if missing > 8 else [self._draw.choice(WORDS)[: self._draw.randint(1, 4)]]
            longer = " ".join([text, *some])
            text = longer if count(longer) <= tokens else text
        return text


def asked_by(text: str) -> Conversation:
    return Conversation((Message("user", text),))


def even(prompt: Conversation, answer: Answer) -> float:
    """Of a random model's tokens most are no text, so their numbers are what is judged."""
    return sum(token % 2 == 0 for token in answer.token_ids) / max(1, len(answer.token_ids))


# -- ours --------------------------------------------------------------------------------------------------------------------


class Ticks:
    """When each update ended, on a device that is done with it."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "log" and "training_step" in event:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.ends.append(time.time())

    @property
    def seconds(self) -> list[float]:
        return [end - start for start, end in itertools.pairwise(self.ends)]


def own_grpo(model: Model, work: Work, texts: Texts, home: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    questions = texts.questions(work.prompts * work.updates)
    config = GRPOConfig(
        method=LoRA(),
        learning_rate=work.learning_rate,
        prompts_per_rollout=work.prompts,
        samples=work.samples,
        max_answer_tokens=work.answer_tokens,
        micro_batch_tokens=work.micro_batch_tokens,
        warmup_share=0.0,
        final_share=1.0,
        checkpoint_seconds=1e9,
        precision="bfloat16",
    )
    ticks = Ticks()
    Timed.spans.clear()
    with Run(home, name="accelerator", listeners=(ticks,)) as run:
        dataset = asked(QuestionsConfig(questions=tuple(questions)), run=run)
        facts = grpo(config, model=model, dataset=dataset, reward=Timed("even", even), run=run).manifest.facts
    give_back()
    vitals, kept = facts["vitals"], slice(work.warm_up - 1, None)
    assert all(row["grad_norm"] > 0 for row in vitals) and facts["flat_groups"] == 0, vitals
    length = statistics.mean(row["length"] for row in vitals)
    assert length >= 0.97 * work.answer_tokens, length
    sampling = [began - end for end, (began, _) in zip(ticks.ends, Timed.spans[1:], strict=False)]
    updating = [end - done for end, (_, done) in zip(ticks.ends[1:], Timed.spans[1:], strict=True)]
    seconds = statistics.median(sampling[kept])
    found = {
        "seconds_an_update": round(statistics.median(ticks.seconds[kept]), 4),
        "seconds_of_updates": [round(took, 4) for took in ticks.seconds],
        "seconds_sampling": round(seconds, 4),
        "seconds_learning_and_watching": round(statistics.median(updating[kept]), 4),
        "sampled_tokens_per_second": round(work.answers * length / seconds, 1),
        "tokens_an_answer": round(length, 1),
        "rewards": [row["reward"] for row in vitals],
        "peak_memory_bytes": facts["ledger"]["peak_memory_bytes"],
    }
    given = {"questions": questions, "samples": work.samples, "answer_tokens": work.answer_tokens, "batch": work.answers}
    return found, given


def own_dpo(model: Model, work: Work, texts: Texts, home: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    pairs = texts.pairs(work.update_pairs * work.updates // _EPOCHS)
    file = home / "rows.json"
    rows = [[[(m.role, m.content) for m in pair.row.prompt], pair.row.chosen, pair.row.rejected] for pair in pairs]
    file.write_text(json.dumps(rows), encoding="utf-8")
    ways = {compiled: learnt_pairs(model, work, file, home, compiled=compiled) for compiled in (False, True) if compiled <= on_gpu()}
    best = min(ways.values(), key=lambda one: one["seconds_an_update"])
    found = {**best, "compiled": best is ways.get(True), "seconds_an_update_not_compiled": ways[False]["seconds_an_update"]}
    given = {"pairs": [ids_of(pair) for pair in pairs], "beta": _BETA, "epochs": _EPOCHS, "batch": work.update_pairs}
    return found, {**given, "update_pairs": work.update_pairs}


def on_gpu() -> bool:
    return torch.cuda.is_available()


def learnt_pairs(model: Model, work: Work, file: Path, home: Path, *, compiled: bool) -> dict[str, Any]:
    config = DPOConfig(
        loss=DPO(beta=_BETA),
        method=LoRA(),
        learning_rate=work.learning_rate,
        epochs=_EPOCHS,
        step_pairs=work.update_pairs,
        micro_batch_tokens=work.micro_batch_tokens,
        compile_layers=compiled,
        warmup_share=0.0,
        final_share=1.0,
        checkpoint_seconds=1e9,
        precision="bfloat16",
    )
    ticks = Ticks()
    with Run(home, name="accelerator", listeners=(ticks,)) as run:
        facts = dpo(config, model=model, dataset=rows_of(RowsConfig(rows=str(file)), run=run), run=run).manifest.facts
    give_back()
    losses = [loss for _, loss in facts["curve"]]
    assert abs(losses[0] - 0.693) < 0.06 and facts["prompts_shared"] and len(losses) == work.updates, losses
    assert_falls(losses)
    seconds = statistics.median(ticks.seconds[work.warm_up - 1 :])
    tokens = facts["ledger"]["real_tokens"] / work.updates
    return {
        "seconds_an_update": round(seconds, 4),
        "seconds_of_updates": [round(took, 4) for took in ticks.seconds],
        "tokens_an_update": round(tokens),
        "losses": losses,
        "peak_memory_bytes": facts["ledger"]["peak_memory_bytes"],
    }


def own_ppo(model: Model, work: Work, texts: Texts, home: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    config = PPOConfig(
        method=LoRA(),
        learning_rate=work.learning_rate,
        rollouts=work.updates,
        answers=work.answers,
        samples=work.samples,
        max_answer_tokens=work.answer_tokens,
        micro_batch_tokens=work.micro_batch_tokens,
        checkpoint_seconds=1e9,
        precision="bfloat16",
    )
    ticks = Ticks()
    Timed.spans.clear()
    with Run(home, name="accelerator", listeners=(ticks,)) as run:
        dataset = asked(QuestionsConfig(questions=tuple(texts.questions(work.prompts * work.updates))), run=run)
        facts = ppo(config, model=model, dataset=dataset, reward=Timed("even", even), run=run).manifest.facts
    give_back()
    assert all(row["grad_norm"] > 0 for row in facts["vitals"]), facts["vitals"]
    rollout_ends = ticks.ends[config.updates - 1 :: config.updates]
    first_ends = ticks.ends[config.updates :: config.updates]
    kept = slice(work.warm_up - 1, None)
    rollouts = [end - start for start, end in itertools.pairwise(rollout_ends)]
    sampling = [began - end for end, (began, _) in zip(rollout_ends, Timed.spans[1:], strict=False)]
    first = [end - done for end, (_, done) in zip(first_ends, Timed.spans[1:], strict=True)]
    other = [end - start for start, end in zip(first_ends, rollout_ends[1:], strict=True)]
    an_update = statistics.median(other[kept]) / (config.updates - 1)
    found = {
        "seconds_a_rollout": round(statistics.median(rollouts[kept]), 3),
        "seconds_sampling": round(statistics.median(sampling[kept]), 3),
        "seconds_reading": round(statistics.median(first[kept]) - an_update, 3),  # values, old and reference log-probabilities
        "seconds_learning": round(config.updates * an_update, 3),
        "updates_a_rollout": config.updates,
        "tokens_an_answer": round(statistics.mean(row["length"] for row in facts["vitals"]), 1),
        "rewards": [row["reward"] for row in facts["vitals"]],
        "peak_memory_bytes": facts["ledger"]["peak_memory_bytes"],
    }
    return found, {}


SIDES: dict[str, Callable[[Model, Work, Texts, Path], tuple[dict[str, Any], dict[str, Any]]]] = {
    "grpo": own_grpo,
    "dpo": own_dpo,
    "ppo": own_ppo,
}


# -- trl ---------------------------------------------------------------------------------------------------------------------


def theirs(work: Work, model: Model, given: dict[str, Any], home: Path, *, seconds: float) -> dict[str, Any]:
    """By setting, {"seconds_an_update", "updates", "peak_memory_bytes", ...} or {"failed"}."""
    about = {"recipe": work.recipe, "model": str(model.payload), "learning_rate": work.learning_rate, "updates": work.trl_updates}
    about |= {"warm_up": 1 if work.recipe == "grpo" else work.warm_up, "seconds": seconds, "out": str(home / "trl"), **given}
    file = home / "asked.json"
    file.write_text(json.dumps(about), encoding="utf-8")
    script = Path(__file__).parent / "align_accelerator_trl_side.py"
    found: dict[str, Any] = trl().run(script, [str(file)], timeout_seconds=max(seconds, 60) + 300)
    for name, one in found.items():
        say(f"trl, {name}: {one.get('failed') or one['seconds_an_update']}")
    return found


def trl() -> Rival:
    return rival("trl-align-gpu" if on_gpu() else "trl")


if __name__ == "__main__":
    main()
