"""One report over three copies of a model: as it came, tuned, and the tuned one behind a server, on the same items.

    python -m benchmarks.three_copies --json --keep        (the page goes to benchmarks/results/three_copies.html)

T0 templates: half of each file's rows are learnt, the other half are asked. Those of `--templates` are asked as chats and answered with a
label (samsum: a summary, whose token F1 is shown, and decides nothing alone); those of `--chosen` by the likelihood of each label after
`--shots` solved examples; of those of `--costed` the right answer is scored in bits per byte, which has neither chance nor ceiling: there
a model so small shows effects.
GSM8K (100 items) proves plumbing only at this size; general text (bits per byte) shows forgetting. The served copy does all of them,
log-probabilities through `/v1/completions` too. Tuned and served are the same weights and prompts; in bfloat16 their answers differ here
and there all the same, since rounding depends on what else is in the batch.
"""

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from benchmarks.record import RESULTS, arguments, finish
from mygpt.artifacts.dataset import Conversation, Dataset, Message, conversation_facts, write_conversations
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions
from mygpt.artifacts.task import Example, Item, Task, TaskSettings, write_task
from mygpt.cli.options import progress_view
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.evaluate.compare_models import CompareConfig, compare_models
from mygpt.evaluate.harness import RunTaskConfig, run_task
from mygpt.evaluate.same_items import join
from mygpt.evaluate.tasks import ReadTaskConfig, read_task
from mygpt.finetune.sft import SFTConfig, sft
from mygpt.infer.remote import RemoteCompleter
from mygpt.infer.remote_scorer import RemoteScorer
from mygpt.infer.token_scores import TokenScorer
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.sources import obtain
from mygpt.serve.api import create_app
from mygpt.serve.served import Served
from mygpt.serve.server import address_of, listen, server_for

TEMPLATES = {
    "t0_qasc": "qasc_qa_with_separated_facts_1",
    "t0_cosmos_qa": "cosmos_qa_context_question_description_answer_text",
    "t0_paws": "paws_labeled_final_Concatenation",
    "t0_mrpc": "glue_mrpc_equivalent",
    "t0_ag_news": "ag_news_which_section_choices",
    "t0_samsum": "samsum_Generate_a_summary_for_this_dialogue",
}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--texts", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="smollm2-135m-q4_1")
    parser.add_argument("--templates", nargs="+", default=["t0_qasc", "t0_samsum", "t0_ag_news", "t0_cosmos_qa"], choices=list(TEMPLATES))
    parser.add_argument("--chosen", nargs="*", default=["t0_qasc", "t0_paws"], choices=list(TEMPLATES), help="of them, by likelihood")
    parser.add_argument("--costed", nargs="*", default=["t0_qasc", "t0_samsum", "t0_ag_news", "t0_cosmos_qa"], choices=list(TEMPLATES))
    parser.add_argument("--shots", type=int, default=4, help="solved examples before each question that is answered by likelihood")
    parser.add_argument("--items", type=int, default=100, help="of GSM8K")
    parser.add_argument("--pieces", type=int, default=40, help="of general text")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--home", type=Path, help="where what was measured is kept, so that a broken run goes on; default: a new folder")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as fresh,
        Run(options.home or Path(fresh), name="three-copies", listeners=(progress_view(),)) as run,
    ):
        finish("three_copies", measured(run, options), options)


def measured(run: Run, options: Any) -> dict[str, Any]:
    templates: dict[str, Any] = {
        name: read_task(ReadTaskConfig(builtin=name), source=options.texts / "t0" / f"{TEMPLATES[name]}.jsonl", run=run)
        for name in dict.fromkeys([*options.templates, *options.chosen, *options.costed])
    }
    odd = HalfConfig(half="odd")
    asked: list[Any] = [asked_as_chat(odd, task=templates[name], run=run) for name in options.templates]
    gsm8k = ReadTaskConfig(builtin="gsm8k_chat", max_items=options.items)
    asked.append(read_task(gsm8k, source=options.texts / "gsm8k_test.jsonl", run=run))
    shots = ByLikelihoodConfig(shots=options.shots)
    scored: list[Any] = [asked_by_likelihood(shots, task=templates[name], run=run) for name in options.chosen]
    scored += [asked_for_bits(odd, task=templates[name], run=run) for name in options.costed]
    general = read_task(ReadTaskConfig(builtin="text", max_items=options.pieces), source=options.texts / "wiki_demo.txt", run=run)
    scored.append(general)

    model = obtain(options.model, run=run)
    learnt: Any = answered_in_chats(HalfConfig(half="even"), tasks=tuple(templates.values()), run=run)
    adapter: Any = sft(SFTConfig(epochs=options.epochs), model=model, dataset=learnt, run=run)

    base, tuned = TorchEngine(model, run=run), TorchEngine(model, adapter=adapter, run=run)
    made: list[tuple[str, Any]] = []
    for label, engine in (("base", base), ("tuned", tuned)):
        made += [(label, run_task(RunTaskConfig(cached=False), task=task, completer=engine, run=run)) for task in asked]
        made += [(label, run_task(RunTaskConfig(cached=False), task=task, scorer=engine, run=run)) for task in scored]
    with served(tuned, run.home) as address:
        remote = RemoteCompleter(f"{address}/v1#tuned", run=run, timeout_seconds=600)  # it shares the cores with what asks it
        made += [("served", run_task(RunTaskConfig(cached=False), task=task, completer=remote, run=run)) for task in asked]
        scorer = RemoteScorer(f"{address}/v1#tuned", run=run, timeout_seconds=600)
        made += [("served", run_task(RunTaskConfig(cached=False), task=task, scorer=scorer, run=run)) for task in scored]

    labels, predictions = [label for label, _ in made], tuple(one for _, one in made)
    report: Any = compare_models(CompareConfig(labels=tuple(labels)), predictions=predictions, run=run)
    if options.keep:
        shutil.copy(report.page, RESULTS / "three_copies.html")
    return figures(report.figures, predictions, labels)


def figures(report: dict[str, Any], predictions: tuple[Predictions, ...], labels: list[str]) -> dict[str, Any]:
    """By task: each model's score with its interval, and on how many items tuned and served answered otherwise."""
    tasks = {}
    for task in join(predictions, labels):
        shown = next(t for t in report["tasks"] if t["task"] == task.task)
        tasks[task.task] = {key: shown[key] for key in shown if key in ("primary", "models", "chance")}
        if (remote := task.of("served")) is not None and (local := task.of("tuned")) is not None:
            pairs = list(zip(local.rows, remote.rows, strict=True))
            tasks[task.task]["served_otherwise"] = sum(a["answer"] != b["answer"] for a, b in pairs)
            tasks[task.task]["same_prompts"] = sum(a["prompt_sha256"] == b["prompt_sha256"] for a, b in pairs)
    return {"headline": report["headline"], "sentences": report["sentences"], "tasks": tasks}


class HalfConfig(Config):
    half: Literal["even", "odd"]

    def of(self, items: list[Item]) -> list[Item]:
        return items[0 if self.half == "even" else 1 :: 2]


@recipe
def asked_as_chat(config: HalfConfig, *, task: Task, run: Run) -> Task:
    """The same rows and labels, answered in words instead of chosen by likelihood."""
    given, has_labels = task.settings, bool(task.items[0].choices)
    settings = TaskSettings(
        name=given.name,
        version=f"{given.version}-chat",
        form="generate",
        primary="acc" if has_labels else "f1",
        answer="label" if has_labels else "summary",
        max_tokens=32 if has_labels else 80,
        chance=given.chance if has_labels else 0.0,
    )
    items = [Item(i.id, i.question, choices=i.choices, gold=i.gold, references=(right(i),)) for i in config.of(task.items)]
    return publish(Task, run, lambda folder: write_task(folder, items, settings))


class ByLikelihoodConfig(Config):
    shots: int


@recipe
def asked_by_likelihood(config: ByLikelihoodConfig, *, task: Task, run: Run) -> Task:
    """The rows that are not learnt, after as many of the others, solved."""
    solved = HalfConfig(half="even").of(task.items)[: config.shots]
    examples = tuple(Example(question=item.question, answer=right(item)) for item in solved)
    name = f"{task.settings.name}_{config.shots}_shot" if examples else task.settings.name
    settings = task.settings.model_copy(update={"name": name, "examples": examples})
    items = HalfConfig(half="odd").of(task.items)
    return publish(Task, run, lambda folder: write_task(folder, items, settings), name=name)


@recipe
def asked_for_bits(config: HalfConfig, *, task: Task, run: Run) -> Task:
    """The same rows; what the right answer costs, in bits for each of its bytes."""
    given = task.settings
    settings = TaskSettings(name=f"{given.name}_bits", version=given.version, form="continuation", primary="bits_per_byte")
    items = [Item(i.id, i.question, references=(right(i),)) for i in config.of(task.items)]
    return publish(Task, run, lambda folder: write_task(folder, items, settings), name=settings.name)


@recipe
def answered_in_chats(config: HalfConfig, *, tasks: tuple[Task, ...], run: Run) -> Dataset:
    rows = [
        Conversation((Message("user", item.question), Message("assistant", right(item))), id=f"{task.settings.name}/{item.id}")
        for task in tasks
        for item in config.of(task.items)
    ]
    splits = {"train": rows}
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=conversation_facts(splits))


def right(item: Item) -> str:
    return item.references[0] if item.gold is None else item.choices[item.gold]


@contextmanager
def served(engine: TorchEngine, home: Path) -> Iterator[str]:
    """A real server on a free port of this machine."""
    tuned = Served("tuned", engine, engine.context_tokens, engine.count_tokens, TokenScorer(engine), engine)
    app = create_app([tuned], source_passage=lambda *_: None, home=home, title="tuned")
    listener = listen("127.0.0.1", 0)
    server = server_for(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield address_of(listener)
    finally:
        server.should_exit = True
        thread.join(timeout=20)


if __name__ == "__main__":
    main()
