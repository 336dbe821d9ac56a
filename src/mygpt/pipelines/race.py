"""A short race on your own questions: what does it take to answer them? Prompting, retrieval and any method of tuning, at equal budget.

    base         the model as it is             few_shot     with solved examples before the question
    retrieval    with what the index finds      a method     tuned by `finetune/sft` with it (`lm/adapters/methods`)

Every trained contender reads the same rows, in the same steps: `train_tokens` of them, as nearly as whole rows and whole epochs allow, and
beside them the base's own answers to general questions (`data/replay`), as `mygpt up` trains. All answer the same held-out questions. What
each costs is measured beside it: trained weights, seconds, memory; and for every question the tokens that have to be read and the
milliseconds until the answer stands. `pipelines/race_verdict` says which to take.

A method that this architecture cannot take, or that needs more memory than there is, is reported with the reason, and the race goes on.
"""

import copy
import difflib
import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from pydantic import NonNegativeInt, PositiveInt

from mygpt.artifacts.corpus import Corpus
from mygpt.artifacts.dataset import Conversation, Dataset, Message, conversation_facts, write_conversations
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import already_made, publish, recipe
from mygpt.artifacts.report import Predictions, Report
from mygpt.artifacts.search_index import SearchIndex
from mygpt.artifacts.task import Task
from mygpt.core.config import Config
from mygpt.core.errors import MygptError, Refused, UsageError
from mygpt.core.run import Run
from mygpt.core.spread import spread
from mygpt.data.replay import ReplayConfig, replay
from mygpt.evaluate.forgetting import GeneralCheckConfig, general_check
from mygpt.evaluate.harness import RunTaskConfig, run_task
from mygpt.evaluate.held_out_questions import SETS, HeldOutConfig, are_enough, held_out_questions
from mygpt.finetune.rows import forecast_of
from mygpt.finetune.sft import SFTConfig, sft
from mygpt.infer.few_shot import FewShot, choose_examples
from mygpt.infer.protocols import Completer, Embedder, Sampling
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.adapters.bottleneck import Bottleneck
from mygpt.lm.adapters.freeze import Freeze
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.ia3 import IA3
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.adapters.methods import Method, num_virtual_tokens
from mygpt.lm.adapters.p_tuning import PTuning
from mygpt.lm.adapters.prefix import Prefix
from mygpt.lm.adapters.prompt import Prompt
from mygpt.lm.chat import ChatRenderer
from mygpt.lm.load import load_tokenizer
from mygpt.lm.memory import give_back_freed_memory
from mygpt.pipelines.race_report import RaceReportConfig, race_report
from mygpt.pipelines.race_verdict import BASE
from mygpt.rag.answer import AnswerConfig, RetrievalCompleter
from mygpt.rag.search import open_search
from mygpt.training.fit import foreseen
from mygpt.training.steps import Examples

UNTRAINED = ("few_shot", "retrieval")
METHODS = ("prompt", "prefix", "p_tuning", "ia3", "lora", "bottleneck", "freeze", "full")
_CHARACTERS_PER_TOKEN = 4  # of English, where no tokenizer is at hand


class RaceConfig(Config):
    contenders: tuple[str, ...] = ("few_shot", "retrieval", "prompt", "lora", "full")
    train_tokens: PositiveInt = 40_000  # that every trained contender reads: about two minutes each on two cores with a 135M model
    max_epochs: PositiveInt = 5  # of a small dataset: reading it more often than that only learns it by heart
    prompt: Prompt = Prompt()
    prefix: Prefix = Prefix()
    p_tuning: PTuning = PTuning()
    ia3: IA3 = IA3()
    lora: LoRA = LoRA()
    bottleneck: Bottleneck = Bottleneck()
    freeze: Freeze = Freeze()
    full: Full = Full()
    replay: ReplayConfig = ReplayConfig()  # learnt beside the rows by every trained contender; prompts=0: no replay
    step_tokens: PositiveInt = 1024  # padded tokens per update
    micro_batch_tokens: PositiveInt = 2048
    max_example_tokens: PositiveInt = 1024
    few_shot_examples: PositiveInt = 3
    answer: AnswerConfig = AnswerConfig()  # of retrieval
    questions: HeldOutConfig = HeldOutConfig()
    general: GeneralCheckConfig = GeneralCheckConfig()
    num_resamples: PositiveInt = 10_000
    min_items: NonNegativeInt = 20  # below: "too few to decide"
    max_forgetting_bpb: float = 0.05

    def method(self, contender: str) -> Method:
        chosen: Method = getattr(self, contender)
        return chosen

    def training(self, method: Method, *, epochs: int) -> SFTConfig:
        budgets = {name: getattr(self, name) for name in ("step_tokens", "micro_batch_tokens", "max_example_tokens")}
        return SFTConfig(method=method, epochs=epochs, **budgets)


@dataclass(frozen=True)
class Entered:
    """What is at hand: the questions, the model, and what it may look answers up in."""

    dataset: Dataset
    model: Model
    index: SearchIndex | None = None
    embedder: Embedder | None = None  # of the index
    corpus: Corpus | None = None  # its held-out documents are part of the general check


@dataclass(frozen=True)
class Budget:
    """The same for every trained contender."""

    rows: int
    epochs: int
    tokens: int


@dataclass
class _Measured:
    """What the contenders did so far, in the order in which they ran."""

    answers: dict[str, Predictions] = field(default_factory=dict)
    general: dict[str, Predictions] = field(default_factory=dict)  # of the base, and of those whose weights changed
    tuned: dict[str, Adapter | Model] = field(default_factory=dict)
    refused: dict[str, MygptError] = field(default_factory=dict)
    replay: Dataset | None = None


def race(config: RaceConfig, *, entered: Entered, run: Run) -> Report:
    """Run all, and write down which one to take. Raises UsageError for a contender that there is not, or a dataset without questions."""
    names = contenders_of(config)
    require_questions(entered.dataset)
    trained = [name for name in names if name in METHODS]
    task = held_out_questions(config.questions, dataset=entered.dataset, run=run)
    measured = _Measured()
    _run_untrained(config, names, entered, task, measured, run)
    rows, budget = entered.dataset, Budget(0, 0, 0)
    if trained:
        lengths = num_tokens(entered.dataset.split("train"), load_tokenizer(entered.model))
        budget = equal_budget(lengths, config.train_tokens, config.max_epochs)
        if budget.rows < len(lengths):
            rows = race_rows(RaceRowsConfig(rows=budget.rows), dataset=entered.dataset, run=run)
    for name in trained:
        with _taking_part(name, measured, run) as own:
            settings = config.training(config.method(name), epochs=budget.epochs)
            made = sft(settings, model=entered.model, dataset=rows, replay=measured.replay, run=own)
            answers, general = measure_tuned(made, config, entered, task, own)
            measured.answers[name], measured.general[name], measured.tuned[name] = answers, general, made
    _require_fault_of_the_method(trained, measured)
    read = {one.manifest.facts["tokens"] for one in measured.tuned.values()}
    assert len(read) <= 1, f"the budget was to be equal, and was {read}"
    reported = RaceReportConfig(
        answered=tuple(measured.answers),
        trained=tuple(measured.tuned),
        not_run=tuple((name, error.what) for name, error in measured.refused.items()),
        virtual_tokens={name: num_virtual_tokens(config.method(name)) for name in measured.tuned},
        epochs=budget.epochs,
        **{name: getattr(config, name) for name in ("train_tokens", "num_resamples", "min_items", "max_forgetting_bpb")},
    )
    found = {name: tuple(getattr(measured, name).values()) for name in ("answers", "general", "tuned")}
    return race_report(reported, dataset=entered.dataset, model=entered.model, replay=measured.replay, **found, run=run)


def _run_untrained(config: RaceConfig, names: Sequence[str], entered: Entered, task: Task, measured: _Measured, run: Run) -> None:
    """The base, and what can be done without training it."""
    engine = TorchEngine(entered.model, run=run)
    with run.step(BASE):
        measured.answers[BASE] = answers_of(engine, engine, task, run)
        if any(name in METHODS for name in names):
            measured.general[BASE] = general_of(engine, config, entered, run)
            if config.replay.prompts:
                measured.replay = replay(config.replay, completer=engine, run=run)
    if "few_shot" in names:
        with _taking_part("few_shot", measured, run) as own:
            examples = choose_examples(entered.dataset.split("train"), config.few_shot_examples)
            measured.answers["few_shot"] = answers_of(FewShot(engine, examples), engine, task, own)
    if "retrieval" in names:
        with _taking_part("retrieval", measured, run) as own:
            if entered.index is None or entered.embedder is None:
                raise UsageError("There is no search index over its documents.", fix="Name what `mygpt up` made, or give `--index`.")
            completer = RetrievalCompleter(engine, open_search(entered.index, entered.embedder), config.answer)
            measured.answers["retrieval"] = answers_of(completer, engine, task, own)
    del engine
    _let_go()


def measure_tuned(made: Adapter | Model, config: RaceConfig, entered: Entered, task: Task, run: Run) -> tuple[Predictions, Predictions]:
    """Its answers, and the general check."""
    engine = TorchEngine(made, run=run) if isinstance(made, Model) else TorchEngine(entered.model, adapter=made, run=run)
    found = answers_of(engine, engine, task, run), general_of(engine, config, entered, run)
    del engine
    _let_go()
    return found


@contextmanager
def _taking_part(name: str, measured: _Measured, run: Run) -> Iterator[Run]:
    """A step of the run whose results carry the contender's name. One that is refused takes no part, and the race goes on."""
    own = copy.copy(run)
    own.name = f"{run.name}-{name}"
    with run.step(name):
        try:
            yield own
        except (Refused, UsageError) as error:
            run.warn(f"{name} takes no part: {error.what}")
            measured.refused[name] = error


def _require_fault_of_the_method(trained: Sequence[str], measured: _Measured) -> None:
    """Where all methods are refused for one and the same reason, it is the rows that cannot be learnt: raises that."""
    refused = [measured.refused[name] for name in trained if name in measured.refused]
    if len(refused) == len(trained) > 1 and len({error.what for error in refused}) == 1:
        raise refused[0]


def _let_go() -> None:
    """Of weights that nobody refers to any more, so that the next contender's memory is its own."""
    gc.collect()
    give_back_freed_memory()


def answers_of(completer: Completer, engine: TorchEngine, task: Task, run: Run) -> Predictions:
    """The weights are read, and one word said, before the clock starts: a contender is not slow because it came first."""
    asked: dict[str, Any] = {"task": task, "completer": completer, "run": run}
    if not already_made(run_task, RunTaskConfig(cached=False), **asked):
        engine.complete([Conversation((Message("user", "Hello"),))], Sampling(max_tokens=1))
    return run_task(RunTaskConfig(cached=False), **asked)


def general_of(engine: TorchEngine, config: RaceConfig, entered: Entered, run: Run) -> Predictions:
    dataset = entered.dataset if entered.corpus is not None else None
    return general_check(config.general, completer=engine, scorer=engine, dataset=dataset, corpus=entered.corpus, run=run)


# -- before anything is computed --------------------------------------------------------------------------------------------


def contenders_of(config: RaceConfig) -> tuple[str, ...]:
    """Each once, in the order given. Raises UsageError with the nearest name."""
    known = (*UNTRAINED, *METHODS)
    for name in config.contenders:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean `{nearest[0]}`?" if nearest else f"Known: {', '.join(known)}."
            raise UsageError(f"There is no contender `{name}`.", fix=hint)
    if not config.contenders:
        raise UsageError("No contender was named.", fix=f"For example: `--set contenders=[few_shot, lora]`. Known: {', '.join(known)}.")
    return tuple(dict.fromkeys(config.contenders))


def require_questions(dataset: Dataset) -> None:
    if not are_enough(dataset):
        wanted = " or ".join(f"`{name}`" for name in SETS)
        splits = ", ".join(f"{name} ({len(dataset.split(name))})" for name in dataset.splits) or "none"
        raise UsageError(
            f"{dataset.id} holds no held-out questions to race on: that needs the split {wanted}, and it has {splits}.",
            fix="`mygpt up DIR` makes a dataset with held-out questions; so does `mygpt data question_answer`.",
        )
    if not dataset.split("train"):
        raise UsageError(f"{dataset.id} has no rows to learn from or to show.", fix="Its split `train` must hold questions with answers.")


def num_tokens(rows: Iterable[Conversation], tokenizer: Any | None) -> list[int]:
    """Of each row as training reads it; from its characters where there is no tokenizer."""
    if tokenizer is None:
        return [max(1, sum(len(m.content) for m in row.messages) // _CHARACTERS_PER_TOKEN) for row in rows]
    renderer = ChatRenderer(tokenizer)
    return [len(renderer.render(row).token_ids) for row in rows]


def equal_budget(lengths: Sequence[int], wanted: int, max_epochs: int) -> Budget:
    """Some of the rows once, evenly spread, when there are more tokens than wanted; else all of them, in whole epochs."""
    total = sum(lengths)
    if total <= wanted:
        epochs = min(max(1, round(wanted / total)), max_epochs)
        return Budget(len(lengths), epochs, epochs * total)
    rows = max(1, int(len(lengths) * wanted / total))
    return Budget(rows, 1, sum(spread(lengths, rows)))


class RaceRowsConfig(Config):
    rows: PositiveInt


@recipe
def race_rows(config: RaceRowsConfig, *, dataset: Dataset, run: Run) -> Dataset:
    """What every contender learns from: some rows of `train`, evenly spread."""
    splits = {"train": spread(dataset.split("train"), config.rows)}
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=conversation_facts(splits))


def forecast(config: RaceConfig, *, dataset: Dataset, index: SearchIndex | None, model: Model | None) -> dict[str, Any]:
    """What a race would do (`--dry-run`). Without the model at hand tokens are estimated from characters."""
    names = contenders_of(config)
    require_questions(dataset)
    trained = [name for name in names if name in METHODS]
    skipped = ["retrieval"] if "retrieval" in names and index is None else []
    questions = sum(min(len(dataset.split(name)), config.questions.max_items) for name in SETS)
    tokenizer = load_tokenizer(model) if model else None
    lengths = num_tokens(dataset.split("train"), tokenizer)
    budget = equal_budget(lengths, config.train_tokens, config.max_epochs)
    needs = {name: training_needs(config, name, budget, dataset=dataset, model=model, tokenizer=tokenizer) for name in trained if model}
    runs = [BASE, *(name for name in names if name not in skipped)]
    return {
        "dataset": dataset.id,
        "model": model.id if model else None,
        "contenders": runs,
        "not_run": skipped,
        "questions": questions,
        "train_rows": budget.rows if trained else 0,
        "epochs": budget.epochs if trained else 0,
        "train_tokens_each": budget.tokens if trained else 0,
        "train_tokens": budget.tokens * len(trained),
        "training": needs,
        "replay_rows_at_most": config.replay.prompts if trained else 0,
        "answer_tokens_at_most": questions * config.questions.max_tokens * len(runs),
        "estimated": model is None,
    }


def training_needs(config: RaceConfig, name: str, budget: Budget, *, dataset: Dataset, model: Model, tokenizer: Any) -> dict[str, Any]:
    """Memory and time of one contender's training, without what is learnt beside the rows; or why it will take no part."""
    rendered = [ChatRenderer(tokenizer).render(row) for row in spread(dataset.split("train"), budget.rows)]
    known = Examples((), num_tokens=[len(e.token_ids) for e in rendered], num_trained=[sum(e.trained[1:]) for e in rendered])
    settings = config.training(config.method(name), epochs=budget.epochs)
    try:
        return foreseen(forecast_of(settings, model, tokenizer, known, Random, home=dataset.store.home), examples=len(rendered))
    except (Refused, UsageError) as error:
        return {"needs": f"takes no part: {error.what}"}
