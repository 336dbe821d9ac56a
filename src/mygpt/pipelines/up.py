"""From a folder of documents to your own GPT: read, index, question, train, measure, deploy.

Every step is a recipe, so an unchanged one is taken from the store. New documents refresh the index; the model is trained anew only
when asked (`retune`), because training costs minutes and answers come from the documents.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mygpt.artifacts.corpus import Corpus
from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.deployment import Deployment
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.report import Predictions, Report
from mygpt.artifacts.search_index import SearchIndex
from mygpt.artifacts.store import Store
from mygpt.core.config import Config
from mygpt.core.outbound import require_sharing
from mygpt.core.run import Run
from mygpt.data.ingest import IngestConfig, ingest
from mygpt.data.question_answer import QuestionAnswerConfig, question_answer
from mygpt.data.readers.ocr import find_tesseract
from mygpt.data.replay import ReplayConfig, replay
from mygpt.evaluate.before_after import BeforeAfterConfig, before_after
from mygpt.evaluate.forgetting import general_check
from mygpt.evaluate.gate import STOP, GateConfig, gate
from mygpt.evaluate.harness import RunTaskConfig, run_task
from mygpt.evaluate.held_out_questions import are_enough, held_out_questions
from mygpt.finetune.sft import SFTConfig, sft
from mygpt.infer.cached_completer import CachedCompleter
from mygpt.infer.few_shot import FewShot, choose_examples
from mygpt.infer.protocols import Completer
from mygpt.infer.remote import RemoteCompleter
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.memory import give_back_freed_memory
from mygpt.lm.sources import obtain
from mygpt.pipelines.deployment import DeployConfig, deploy, embedder_for, training_seconds
from mygpt.pipelines.languages import languages_to_train
from mygpt.pipelines.sources import Sources
from mygpt.rag.answer import AnswerConfig, RetrievalCompleter
from mygpt.rag.index import IndexConfig, build_index
from mygpt.rag.search import open_search


class UpConfig(Config):
    model: str = "smollm2-135m"
    embedder: str = "minilm"
    minutes: float = 10.0  # on two cores: how much is asked, learnt and measured follows from it
    ingest: IngestConfig = IngestConfig()
    index: IndexConfig = IndexConfig()
    questions: QuestionAnswerConfig = QuestionAnswerConfig()
    replay: ReplayConfig = ReplayConfig()
    sft: SFTConfig = SFTConfig()
    evaluate: BeforeAfterConfig = BeforeAfterConfig()
    answer: AnswerConfig = AnswerConfig()
    min_train_pairs: int = 24  # below, tuning would teach nothing
    policy: Path | None = None  # of the gate; default: up_policy.yaml beside this file


@dataclass(frozen=True)
class Up:
    """What one `up` made, or found made."""

    deployment: Deployment
    base: Model
    corpus: Corpus
    index: SearchIndex
    dataset: Dataset | None
    tuned: Adapter | Model | None
    report: Report | None
    decision: Report | None  # of the gate: whether the tuned model may be served
    retune_seconds: float | None  # what training anew on changed documents would cost; None when nothing changed


def up(
    config: UpConfig,
    *,
    sources: Sources,
    run: Run,
    retune: bool = False,
    teacher: str | None = None,
    share_documents: bool = False,
    force: bool = False,
) -> Up:
    store = Store(run.home)
    before = store.lookup(run.name, kind=Deployment.kind)
    previous = Deployment(before, store) if before else None

    with run.step("models"):
        model = obtain(config.model, run=run)
        embedder = embedder_for(obtain(config.embedder, run=run), run.home)
    with run.step("read"):
        corpus = ingest(config.ingest, sources=sources.paths, ocr=find_tesseract(), run=run)
        sources.save(run.home)
    with run.step("index"):
        index = build_index(config.index, corpus=corpus, embedder=embedder, run=run)

    # What the model learns from: the documents of its first training, until training anew is asked for.
    learnt = corpus if previous is None or retune else previous.trained_on or corpus
    languages = languages_to_train(learnt, model=config.model, embedder=config.embedder, force=force, run=run)
    if languages is None:
        deployment = deploy(DeployConfig(answer=config.answer), model=model, index=index, run=run)
        store.touch(deployment.manifest, name=run.name)
        return Up(deployment, model, corpus, index, None, None, None, None, None)

    with run.step("question"):
        asker = teacher_or(teacher, model, num_passages=learnt.num_passages, share_documents=share_documents, run=run)
        asker = CachedCompleter(asker, run.home / "cache" / "answers.sqlite")
        dataset = question_answer(scaled(config.questions, config.minutes, languages), corpus=learnt, completer=asker, run=run)
    tuned: Adapter | Model | None = None
    if len(dataset.split("train")) >= config.min_train_pairs:
        with run.step("train"):
            rehearsal = replay(config.replay, completer=TorchEngine(model, run=run), run=run) if config.replay.prompts else None
            tuned = sft(config.sft, model=model, dataset=dataset, replay=rehearsal, run=run)
            give_back_freed_memory()
    else:
        run.warn(f"Only {len(dataset.split('train'))} pairs to learn from: no tuning (at least {config.min_train_pairs} are needed).")
    learnt_index = index if learnt.digest == corpus.digest else build_index(config.index, corpus=learnt, embedder=embedder, run=run)
    with run.step("measure"):
        report, decision = measure(
            config, model=model, tuned=tuned, dataset=dataset, corpus=learnt, index=learnt_index, embedder=embedder, run=run
        )

    with run.step("deploy"):
        chosen = tuned if tuned is not None and may_ship(decision) else model
        deployment = deploy(
            DeployConfig(answer=config.answer),
            model=chosen if isinstance(chosen, Model) else model,
            adapter=chosen if isinstance(chosen, Adapter) else None,
            index=index,
            report=report,
            trained_on=learnt,
            run=run,
        )
    for made in (deployment, corpus, index, dataset, tuned, decision, report):
        if made is not None:
            store.touch(made.manifest, name=run.name)  # equal work may have been done under another name
    changed = learnt.digest != corpus.digest
    return Up(deployment, model, corpus, index, dataset, tuned, report, decision, training_seconds(dataset, tuned) if changed else None)


def measure(
    config: UpConfig,
    *,
    model: Model,
    tuned: Adapter | Model | None,
    dataset: Dataset,
    corpus: Corpus,
    index: SearchIndex,
    embedder: Any,
    run: Run,
) -> tuple[Report, Report | None]:
    """The arms side by side: the base as it is, with examples, with retrieval; the tuned model, and with retrieval.

    All on one Task, the held-out questions. Then the gate, on what would be served: the tuned model with retrieval against the base with
    retrieval.
    """
    base = TorchEngine(model, run=run)
    search = open_search(index, embedder)
    settings = config.evaluate

    task = held_out_questions(settings.answers, dataset=dataset, run=run) if are_enough(dataset) else None

    def answers(completer: Completer, arm: str) -> Predictions | None:
        run.note(f"Measuring: {arm}")
        return run_task(RunTaskConfig(cached=False), task=task, completer=completer, run=run) if task else None

    def general(engine: TorchEngine) -> Predictions:
        return general_check(settings.general, completer=engine, scorer=engine, dataset=dataset, corpus=corpus, run=run)

    examples = choose_examples(dataset.split("train"), settings.few_shot_examples)
    base_arms: dict[str, Any] = {
        "base_zero_shot": answers(base, "base"),
        "base_few_shot": answers(FewShot(base, examples), "base with examples") if examples else None,
        "base_retrieval": answers(RetrievalCompleter(base, search, config.answer), "base with retrieval"),
        "general_base": general(base),
    }
    tuned_arms: dict[str, Any] = {}
    if tuned is not None:
        engine = TorchEngine(tuned, run=run) if isinstance(tuned, Model) else TorchEngine(model, adapter=tuned, run=run)
        tuned_arms = {
            "tuned": answers(engine, "tuned"),
            "tuned_retrieval": answers(RetrievalCompleter(engine, search, config.answer), "tuned with retrieval"),
            "general_tuned": general(engine),
        }
    report = before_after(settings, dataset=dataset, **base_arms, **tuned_arms, adapter=tuned, corpus=corpus, run=run)
    if tuned is None or task is None or len({item.cluster for item in task.items}) < 2:
        return report, None
    candidate, baseline = (tuned_arms["tuned_retrieval"],), (base_arms["base_retrieval"],)
    policy = config.policy or Path(__file__).with_name("up_policy.yaml")
    decision = gate(GateConfig(), policy=policy, candidate=candidate, baseline=baseline, report=report, run=run)
    run.note(f"Gate: {decision.manifest.facts['headline']}")
    return report, decision


def teacher_or(teacher: str | None, model: Model, *, num_passages: int, share_documents: bool, run: Run) -> Completer:
    """Who writes the questions: the base model itself, another model here, or a completer at an address."""
    if teacher is None:
        return TorchEngine(model, run=run)
    if not teacher.startswith(("http://", "https://")):
        return TorchEngine(obtain(teacher, run=run), run=run)
    require_sharing(teacher, num_passages=num_passages, allowed=share_documents)
    run.warn(f"Up to {num_passages} passages of your documents go to {teacher}.")
    return RemoteCompleter(teacher, run=run)


def scaled(questions: QuestionAnswerConfig, minutes: float, languages: tuple[str, ...]) -> QuestionAnswerConfig:
    """The aims are for ten minutes; more time asks more, less asks less."""
    factor = minutes / 10
    aims = {name: max(12, round(getattr(questions, name) * factor)) for name in ("train_pairs", "knowledge_pairs", "generalisation_pairs")}
    return questions.model_copy(update={**aims, "languages": languages})


def may_ship(decision: Report | None) -> bool:
    """A gate that says stop keeps the base in service; one that has too few questions to decide does not."""
    return decision is None or decision.manifest.facts["outcome"] != STOP


def figures(result: Up, run: Run) -> dict[str, Any]:
    """The machine-readable summary (`mygpt up --json`)."""
    reported = result.report.figures if result.report else {}
    names = ["f1_base", "f1_fewshot", "f1_tuned", "f1_retrieval", "f1_tuned_retrieval", "f1_ci", "f1_ci_fewshot"]
    names += ["forgetting_bpb", "general_right"]
    rows = result.dataset.manifest.facts["rows"] if result.dataset else {}
    return {
        "name": run.name,
        "deployment": result.deployment.id,
        "model": (result.deployment.adapter or result.deployment.model).id,  # what is served
        "tuned": result.tuned.id if result.tuned else None,  # what was trained, served or not
        "base": result.base.id,
        "report": str(result.report.page) if result.report else None,
        "index": result.index.id,
        "corpus": result.corpus.id,
        "documents": result.corpus.num_documents,
        "passages": result.corpus.num_passages,
        "passages_asked_about": result.dataset.manifest.facts["passages_used"] if result.dataset else 0,
        "skipped": [{"path": s.path, "reason": s.reason, "detail": s.detail, "fix": s.fix} for s in result.corpus.skipped],
        "seconds": {step: round(seconds, 2) for step, seconds in run.seconds_by_step.items()},
        "tokens_per_second": result.tuned.manifest.facts.get("tokens_per_second") if result.tuned else None,
        **{name: reported.get(name) for name in names},
        "pairs_train": rows.get("train", 0),
        "pairs_knowledge": rows.get("knowledge", 0),
        "pairs_generalisation": rows.get("generalisation", 0),
        "verdict": reported.get("verdict")
        or {"outcome": "too few to decide", "text": "Nothing was trained; answers come from the documents."},
        "gate": {key: result.decision.manifest.facts[key] for key in ("outcome", "headline")} if result.decision else None,
        "retune_seconds": result.retune_seconds,
    }
