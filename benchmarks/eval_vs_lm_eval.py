"""The same model, items and prompts through lm-eval's Hugging Face backend and through ours: equal figures, and how long each takes.

choice      T0 qasc (eight options) after a few solved examples: log-likelihoods and accuracy; all items share a prefix
rolling     pieces of wiki_demo.txt: log-likelihood of each, once more untimed with lm-eval's softmax in float64: its float32 sums are
            off by some 3e-3 from those of the model in float64, ours by 1e-4
generation  greedy answers to T0 samsum through the chat template: texts
raw         some of these prompts as raw text, a few tokens, untimed: texts, and whether both find them to be the greedy ones

python -m benchmarks.eval_vs_lm_eval --json --keep        (two cores to itself, about half an hour)
python -m benchmarks.eval_vs_lm_eval --items 10 --batch-sizes 4 --json    (for equality only: the timings mean nothing)

Timed are: ours, the whole recipe `run_task` with its artefact and without cache; lm-eval, its `LM` calls alone, at its fastest batch size.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import arguments, finish
from benchmarks.rivals import rival
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions
from mygpt.artifacts.task import Example, Item, Task, TaskSettings, write_task
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.evaluate.harness import RunTaskConfig, run_task
from mygpt.evaluate.prompts import continuations, conversation, text_prompt
from mygpt.evaluate.tasks import ReadTaskConfig, read_task
from mygpt.infer.protocols import Sampling
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.load import load_lm
from mygpt.lm.sources import obtain

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
RAW_PROMPTS, RAW_TOKENS = 8, 12
TOLERANCE = 1e-3  # of a log-likelihood, in float32


class WithExamplesConfig(Config):
    shots: int
    items: int


@recipe
def with_examples(config: WithExamplesConfig, *, task: Task, run: Run) -> Task:
    """The last rows, solved, before each of the first."""
    shown = tuple(Example(question=i.question, answer=i.choices[i.gold or 0]) for i in task.items[-config.shots :])
    settings: TaskSettings = task.settings.model_copy(update={"examples": shown, "name": f"{task.settings.name}_{config.shots}_shot"})
    items: list[Item] = task.items[: min(config.items, len(task.items) - config.shots)]
    return publish(Task, run, lambda folder: write_task(folder, items, settings))


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--items", type=int, default=64, help="of each kind")
    parser.add_argument("--shots", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=48, help="of an answer at most")
    parser.add_argument("--model", default="smollm2-135m-q4_1")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4, 16], help="that lm-eval may choose from")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "home", name="eval_vs_lm_eval")
        finish("eval_vs_lm_eval", measured(run, Path(folder), options), options)


def measured(run: Run, folder: Path, options: Any) -> dict[str, Any]:
    model = obtain(options.model, run=run)
    engine = TorchEngine(model, loaded=load_lm(model, dtype=getattr(torch, options.dtype)))
    tasks = tasks_of(run, options)
    requests = {
        "loglikelihood": [
            (text_prompt(tasks["choice"].settings, item), choice)
            for item in tasks["choice"].items
            for choice in continuations(tasks["choice"].settings, item)
        ],
        "loglikelihood_rolling": [(item.question,) for item in tasks["rolling"].items],
        "generate_until": [
            (
                engine.renderer.text(engine.renderer.prompt(conversation(tasks["generation"].settings, item))),
                {"until": [], "max_gen_toks": options.tokens, "do_sample": False},
            )
            for item in tasks["generation"].items
        ],
    }
    raw = raw_texts(tasks["generation"], engine)
    given = {"model": str(model.payload), "dtype": options.dtype, "batch_sizes": options.batch_sizes, "requests": requests}
    given["raw"] = {
        "generate_until": [(prompt, {"until": [], "max_gen_toks": RAW_TOKENS, "do_sample": False}) for prompt, _ in raw],
        "loglikelihood": [pair for prompt, text in raw for pair in ((prompt, text), (prompt, f"{text[:-1]}%"))],
    }
    (folder / "requests.json").write_text(json.dumps(given))
    lm_eval = rival("lm-eval")
    theirs = lm_eval.run(Path(__file__).parent / "lm_eval_side.py", [str(folder / "requests.json")])
    theirs_raw = theirs.pop("raw")
    engine.score(["Warm"], [" up"])
    ours = {kind: timed(task, engine, run) for kind, task in tasks.items()}
    scores = engine.score(*(list(side) for side in zip(*given["raw"]["loglikelihood"], strict=True)))
    equal = {
        "raw_texts_equal": sum(text == their for (_, text), their in zip(raw, theirs_raw["texts"], strict=True)),
        "greedy_equal": sum(s.is_greedy is their for s, their in zip(scores, theirs_raw["greedy"], strict=True)),
        "greedy": sum(theirs_raw["greedy"]),
        "raw_texts": len(raw),
    }
    measured_of = {"items": options.items, "dtype": options.dtype, "lm_eval": lm_eval.versions["lm_eval"]}
    return {**compared(tasks, ours, theirs), **equal, **measured_of}


def raw_texts(task: Task, engine: TorchEngine) -> list[tuple[str, str]]:
    """(prompt, what the model greedily goes on with)."""
    prompts = [item.question for item in task.items[:RAW_PROMPTS]]
    asked = [Conversation((Message("text", prompt),)) for prompt in prompts]
    answers = engine.complete(asked, Sampling(max_tokens=RAW_TOKENS))
    return [(prompt, answer.text) for prompt, answer in zip(prompts, answers, strict=True)]


def tasks_of(run: Run, options: Any) -> dict[str, Task]:
    def read(name: str, source: Path) -> Any:
        return read_task(ReadTaskConfig(builtin=name, max_items=options.items), source=source, run=run)

    qasc: Any = read_task(ReadTaskConfig(builtin="t0_qasc"), source=DATA / "t0" / "qasc_qa_with_separated_facts_1.jsonl", run=run)
    chosen: Any = with_examples(WithExamplesConfig(shots=options.shots, items=options.items), task=qasc, run=run)
    generated = read("t0_samsum", DATA / "t0" / "samsum_Generate_a_summary_for_this_dialogue.jsonl")
    short: Any = shortened(ShortenedConfig(max_tokens=options.tokens), task=generated, run=run)
    return {"choice": chosen, "rolling": read("text", DATA / "wiki_demo.txt"), "generation": short}


class ShortenedConfig(Config):
    max_tokens: int


@recipe
def shortened(config: ShortenedConfig, *, task: Task, run: Run) -> Task:
    settings = task.settings.model_copy(update={"max_tokens": config.max_tokens})
    return publish(Task, run, lambda folder: write_task(folder, task.items, settings))


def timed(task: Task, engine: TorchEngine, run: Run) -> tuple[Predictions, float]:
    tools: dict[str, Any] = {"completer": engine} if task.form == "generate" else {"scorer": engine}
    started = time.perf_counter()
    made: Any = run_task(RunTaskConfig(cached=False), task=task, **tools, run=run)
    return made, time.perf_counter() - started


def compared(tasks: dict[str, Task], ours: dict[str, tuple[Predictions, float]], theirs: dict[str, Any]) -> dict[str, Any]:
    choice, rolling, generation = (ours[kind][0].rows for kind in ("choice", "rolling", "generation"))
    flat = [logprob for row in choice for logprob in row["choice_logprobs"]]
    their_flat = theirs["loglikelihood"]["results"]
    their_acc, start = [], 0
    for item in tasks["choice"].items:
        own = their_flat[start : start + len(item.choices)]
        their_acc.append(float(own.index(max(own)) == item.gold))
        start += len(item.choices)
    differences = {
        "choice": max(abs(a - b) for a, b in zip(flat, their_flat, strict=True)),
        "rolling": max(abs(r["logprob"] - b) for r, b in zip(rolling, theirs["loglikelihood_rolling"]["exact"], strict=False)),
    }
    summed_in_float32 = max(abs(r["logprob"] - b) for r, b in zip(rolling, theirs["loglikelihood_rolling"]["results"], strict=True))
    texts = [(row["answer"].strip(), text.strip()) for row, text in zip(generation, theirs["generate_until"]["results"], strict=True)]
    ratios = {
        "ratio": theirs["loglikelihood"]["seconds"] / ours["choice"][1],
        "ratio_rolling": theirs["loglikelihood_rolling"]["seconds"] / ours["rolling"][1],
        "ratio_generation": theirs["generate_until"]["seconds"] / ours["generation"][1],
    }
    return {
        **{name: round(ratio, 2) for name, ratio in ratios.items()},
        "logprob_difference": {name: float(f"{value:.2g}") for name, value in differences.items()},
        "rolling_difference_as_lm_eval_sums": float(f"{summed_in_float32:.2g}"),
        "equal_to_1e-3": all(value <= TOLERANCE for value in differences.values()),
        "accuracy": {"ours": mean(row["acc"] for row in choice), "lm_eval": mean(their_acc)},
        "items_with_another_verdict": sum(row["acc"] != acc for row, acc in zip(choice, their_acc, strict=True)),
        "texts_equal": sum(a == b for a, b in texts),
        "texts": len(texts),
        "seconds": {kind: round(seconds, 2) for kind, (_, seconds) in ours.items()},
        "lm_eval_seconds": {kind: round(one["seconds"], 2) for kind, one in theirs.items()},
        "lm_eval_batch_size": {kind: one["batch_size"] for kind, one in theirs.items()},
    }


def mean(values: Any) -> float:
    listed = list(values)
    return round(sum(listed) / len(listed), 4)


if __name__ == "__main__":
    main()
