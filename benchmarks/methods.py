"""Every method of tuning on the same rows, tokens and held-out items: what it learns, forgets, and costs.

    python -m benchmarks.methods --json --keep                    (about 40 minutes on two quiet cores; goes on where it was stopped)
    python -m benchmarks.methods --only dora --only prefix        (these alone, beside the base and LoRA)

SmolLM2-135M learns half of the rows of two T0 templates, those nearest to headroom (docs/decisions/008): qasc, answered with one of eight
options, and samsum, a summary scored by token F1. About 33,000 tokens, once, in the same steps for every method, each at its own usual
learning rate. The other halves are asked; differences from the base and from LoRA are paired, by the harness. Forgetting is the general
check of `evaluate/forgetting`. Every training and every set of answers is kept in `--home`, so an interrupted run goes on. Speed and memory
are those of a training on some of the rows, in a process of its own.
"""

import argparse
import gc
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.claim import answer_bits
from benchmarks.record import arguments, finish
from benchmarks.three_copies import HalfConfig, answered_in_chats, asked_as_chat
from mygpt.artifacts.dataset import Conversation, Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.report import Predictions
from mygpt.artifacts.store import Store
from mygpt.artifacts.task import Task
from mygpt.cli.options import progress_view
from mygpt.core.config import Config
from mygpt.core.home import model_cache
from mygpt.core.run import Run
from mygpt.core.spread import spread
from mygpt.evaluate.forgetting import GeneralCheckConfig, compare, general_check
from mygpt.evaluate.harness import RunTaskConfig, run_task
from mygpt.evaluate.paired_difference import Resampling, difference, score
from mygpt.evaluate.same_items import join
from mygpt.evaluate.tasks import ReadTaskConfig, read_task
from mygpt.finetune.sft import SFTConfig, sft
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.adapters.bottleneck import Bottleneck
from mygpt.lm.adapters.freeze import Freeze
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.ia3 import IA3
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.adapters.methods import Method
from mygpt.lm.adapters.p_tuning import PTuning
from mygpt.lm.adapters.prefix import Prefix
from mygpt.lm.adapters.prompt import Prompt
from mygpt.lm.memory import give_back_freed_memory
from mygpt.lm.sources import obtain
from mygpt.pipelines.race import RaceRowsConfig, race_rows
from mygpt.pipelines.race_report import training_cost

TEMPLATES = {"t0_qasc": "qasc_qa_with_separated_facts_1", "t0_samsum": "samsum_Generate_a_summary_for_this_dialogue"}
METHODS: Mapping[str, tuple[str, Method]] = {
    "full": ("full", Full()),
    "freeze_last_2": ("freeze, last 2 layers", Freeze(num_layers=2)),
    "freeze_decay": ("freeze, rate falling by 0.9 a layer", Freeze(pattern=".*", layer_decay=0.9)),
    "lora": ("LoRA, all linear layers", LoRA()),
    "lora_attention": ("LoRA, attention only", LoRA(targets="attention-only")),
    "rslora": ("rsLoRA", LoRA(rank_stabilised=True)),
    "dora": ("DoRA", LoRA(weight_decomposed=True)),
    "qlora": ("QLoRA, NF4", LoRA(weights="nf4")),
    "prefix": ("prefix tuning, 20 tokens", Prefix()),
    "prompt_20": ("prompt tuning, 20 tokens", Prompt()),
    "p_tuning": ("p-tuning, 20 tokens", PTuning()),
    "ia3": ("IA3", IA3()),
    "bottleneck": ("bottleneck adapters", Bottleneck()),
}
BASE, LORA = "base", "lora"


class Budget(Config):
    """How much is learnt and asked."""

    items: Mapping[str, int] = {"t0_qasc": 80, "t0_samsum": 40}  # held out
    rows: int | None = None  # learnt; default: all
    rows_for_cost: int = 40  # learnt once more, one method after the other, for speed and memory
    epochs: int = 1
    step_tokens: int = 1024
    general: GeneralCheckConfig = GeneralCheckConfig()
    num_resamples: int = 10_000


QUICK = Budget(  # proves the way, not the claim
    items={"t0_qasc": 4, "t0_samsum": 4},
    rows=12,
    rows_for_cost=2,
    epochs=4,
    step_tokens=512,
    general=GeneralCheckConfig(max_tokens=1, piece_characters=4_000),
    num_resamples=200,
)


def main() -> None:
    parser = arguments(__doc__ or "")
    add_inputs(parser)
    parser.add_argument("--only", action="append", choices=list(METHODS), help="this method, beside the base and LoRA; may be repeated")
    options = parser.parse_args()
    if options.only and options.keep:
        parser.error("`--keep` is for all methods: leave `--only` out (what was measured is not measured again)")
    names = [n for n in METHODS if not options.only or n in (LORA, *options.only)]
    with Run(options.home, name="methods", listeners=(progress_view(),)) as run:
        figures = measured(
            run, names, model=obtain(options.model, run=run), texts=options.texts, budget=QUICK if options.quick else Budget()
        )
    finish("methods", figures, options)


def add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--texts", type=Path, default=Path("../shared/data/t0"), help="the folder of T0 templates")
    parser.add_argument("--model", default="smollm2-135m-q4_1")
    parser.add_argument("--home", type=Path, default=model_cache().parent / "mygpt-benchmarks", help="where what was measured is kept")
    parser.add_argument("--quick", action="store_true", help="a few items: proves that it runs")


def measured(run: Run, names: list[str], *, model: Model, texts: Path, budget: Budget) -> dict[str, Any]:
    """LoRA is one of `names`: the others are held against it."""
    read = {name: read_task(ReadTaskConfig(builtin=name), source=texts / f"{file}.jsonl", run=run) for name, file in TEMPLATES.items()}
    tasks: dict[str, Any] = {name: asked_as_chat(HalfConfig(half="odd"), task=task, run=run) for name, task in read.items()}
    rows: Any = answered_in_chats(HalfConfig(half="even"), tasks=tuple(read.values()), run=run)
    if budget.rows is not None:
        rows = race_rows(RaceRowsConfig(rows=budget.rows), dataset=rows, run=run)
    learnt = spread(rows.split("train"), 24)  # what training must have made cheaper
    answers, bits = {}, {}
    tuned: dict[str, Adapter | Model] = {}
    for name in (BASE, *names):
        with run.step(name):
            engine = TorchEngine(model, run=run)
            if name != BASE:
                tuned[name] = trained(METHODS[name][1], model, rows, budget, run)
                engine = engine_of(model, tuned[name], run)
            answers[name], bits[name] = answers_of(engine, tasks, budget, run), bits_of(engine, learnt)
        assert name == BASE or bits[name] < bits[BASE], f"{name}: the loss did not fall: {bits[BASE]:.4f} to {bits[name]:.4f} bits per byte"
        del engine
        gc.collect()
        give_back_freed_memory()
    tokens = {one.manifest.facts["tokens"] for one in tuned.values()}
    assert len(tokens) == 1, f"the budget was to be equal, and was {tokens}"
    scores = scores_of(answers, budget)
    train_tokens = tokens.pop()
    cost = costs_of(names, model, rows, budget, run)
    made = {
        name: {
            "title": METHODS[name][0],
            **scores[name],
            "learnt_bits_per_byte": round(bits[name], 4),
            "forgetting": forgotten(answers, name, budget),
            **cost[name],
            "train_seconds": round(train_tokens / cost[name]["tokens_per_second"], 1),
        }
        for name in names
    }
    figures = {"model": model.id, "train_rows": len(rows.split("train")), "train_tokens": train_tokens, "epochs": budget.epochs}
    figures |= {"items": dict(budget.items), "methods": made}
    figures["base"] = {**scores[BASE], "learnt_bits_per_byte": round(bits[BASE], 4)}
    return {**figures, **ratios(made)}


def trained(method: Method, model: Model, rows: Dataset, budget: Budget, run: Run) -> Adapter | Model:
    config = SFTConfig(method=method, epochs=budget.epochs, step_tokens=budget.step_tokens)
    made: Adapter | Model = sft(config, model=model, dataset=rows, run=run)
    return made


def costs_of(names: Sequence[str], model: Model, rows: Dataset, budget: Budget, run: Run) -> dict[str, dict[str, Any]]:
    """What each takes on some of the rows, in a process of its own, since memory is a process's high-water mark; all within a few minutes,
    since the whole trainings may lie hours apart."""
    some: Any = race_rows(RaceRowsConfig(rows=budget.rows_for_cost), dataset=rows, run=run)
    alone = partial(cost_alone, home=run.home, model=model.digest, rows=some.digest, budget=budget)
    with run.step("cost"), ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        return dict(zip(names, pool.map(alone, names), strict=True))


def cost_alone(name: str, *, home: Path, model: str, rows: str, budget: Budget) -> dict[str, Any]:
    with Run(home, name="methods-cost") as run:
        store = Store(home)
        base = Model.of(store, model)
        return training_cost(trained(METHODS[name][1], base, Dataset.of(store, rows), budget, run), base)


def engine_of(model: Model, tuned: Adapter | Model, run: Run) -> TorchEngine:
    return TorchEngine(tuned, run=run) if isinstance(tuned, Model) else TorchEngine(model, adapter=tuned, run=run)


def bits_of(engine: TorchEngine, rows: Sequence[Conversation]) -> float:
    """Per byte of the right answers: of rows that were learnt, a loss that does not depend on which of them came last."""
    return answer_bits(engine.loaded.module, engine.renderer, rows).per_byte  # type: ignore[arg-type]


def answers_of(engine: TorchEngine, tasks: Mapping[str, Task], budget: Budget, run: Run) -> dict[str, Predictions]:
    """On every task, and on general questions and text."""
    made: dict[str, Any] = {
        name: run_task(RunTaskConfig(max_items=budget.items[name], cached=False), task=task, completer=engine, run=run)
        for name, task in tasks.items()
    }
    return {**made, "general": general_check(budget.general, completer=engine, scorer=engine, run=run)}


def scores_of(answers: Mapping[str, Mapping[str, Predictions]], budget: Budget) -> dict[str, dict[str, Any]]:
    """By method and task: the score, and the paired differences from the base and from LoRA."""
    resampling = Resampling(num_resamples=budget.num_resamples)
    found: dict[str, dict[str, Any]] = {name: {} for name in answers}
    for task_name in TEMPLATES:
        task = join([own[task_name] for own in answers.values()], list(answers))[0]
        for name in answers:
            shown = {"metric": task.primary, "n": len(task.item_ids), "chance": task.chance}
            shown |= limits(score(task, name, task.primary, resampling).interval)
            for against in (BASE, LORA):
                if name not in (BASE, against):
                    shown[f"over_{against}"] = limits(difference(task, name, against, task.primary, resampling).interval)
            found[name][task_name] = shown
    return found


def forgotten(answers: Mapping[str, Mapping[str, Predictions]], name: str, budget: Budget) -> dict[str, Any]:
    lost = compare(answers[BASE]["general"], answers[name]["general"], num_resamples=budget.num_resamples, seed=0)
    flips = {"right_to_wrong": lost.right_to_wrong, "wrong_to_right": lost.wrong_to_right, "questions": lost.num_items}
    return {"bits_per_byte": limits(lost.bpb), **flips, "p_value": round(lost.p_value, 4)}


def limits(interval: Any) -> dict[str, float]:
    return {key: round(getattr(interval, key), 4) for key in ("estimate", "low", "high")}


def ratios(made: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Real tokens a second, and weights trained, of LoRA over full fine-tuning."""
    if not {"full", LORA} <= made.keys():
        return {}
    full, lora = made["full"], made[LORA]
    found = {"ratio": lora["tokens_per_second"] / full["tokens_per_second"], "ratio_trainable": lora["trainable"] / full["trainable"]}
    return {name: round(value, 4) for name, value in found.items()}


if __name__ == "__main__":
    main()
