"""From scripted answers to the report, end to end in a temporary home. Scores are worked by hand."""

import json

import pytest

from mygpt.artifacts.dataset import Conversation, Dataset
from mygpt.artifacts.kinds import noun
from mygpt.artifacts.report import Predictions, Report
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.before_after import BeforeAfterConfig, before_after
from mygpt.evaluate.forgetting import GeneralCheckConfig, general_check
from mygpt.evaluate.harness import RunTaskConfig, run_task
from mygpt.evaluate.held_out_questions import HeldOutConfig, held_out_questions
from mygpt.infer.few_shot import FewShot, choose_examples
from mygpt.infer.protocols import Answer, Sampling
from mygpt.infer.scripted import ScriptedCompleter
from tests.evaluate.made_up import MadeUpConfig, TableScorer, made_up_adapter, made_up_corpus, made_up_dataset

CONFIG = BeforeAfterConfig(num_resamples=500)


def number_in(conversation: Conversation) -> str:
    return conversation.question.rstrip("?").rsplit(" ", 1)[-1]


def knows_nothing(conversation: Conversation) -> str:
    return "I do not know."


def knows_facts(conversation: Conversation) -> str:
    """Every fact that was studied; every fifth answer is cut short. Of other documents, only the manner of answering."""
    n = number_in(conversation)
    if "fact" not in conversation.question:
        return f"Rule {n}"
    return f"Fact {n}" if int(n) % 5 == 0 else f"Fact {n} is {n} bar"


def knows_the_manner(conversation: Conversation) -> str:
    """With examples before it, the base model at least begins as they do."""
    return f"Fact {number_in(conversation)}" if len(conversation.messages) > 1 else knows_nothing(conversation)


def arm(dataset: Dataset, run: Run, completer: ScriptedCompleter | FewShot) -> Predictions:
    task = held_out_questions(HeldOutConfig(), dataset=dataset, run=run)
    return run_task(RunTaskConfig(cached=False), task=task, completer=completer, run=run)


def full_report(run: Run) -> Report:
    dataset, corpus = made_up_dataset(MadeUpConfig(), run=run), made_up_corpus(MadeUpConfig(), run=run)
    base = ScriptedCompleter(knows_the_manner, name="base")
    tuned = ScriptedCompleter(knows_facts, name="tuned")
    examples = choose_examples(dataset.split("train"), 3)
    general = GeneralCheckConfig()
    return before_after(
        CONFIG,
        dataset=dataset,
        base_zero_shot=arm(dataset, run, base),
        base_few_shot=arm(dataset, run, FewShot(base, examples)),
        base_retrieval=arm(dataset, run, ScriptedCompleter(knows_nothing, name="retrieval")),
        tuned=arm(dataset, run, tuned),
        tuned_retrieval=arm(dataset, run, ScriptedCompleter(knows_facts, name="tuned retrieval")),
        general_base=general_check(general, completer=base, scorer=TableScorer(1.0), dataset=dataset, corpus=corpus, run=run),
        general_tuned=general_check(general, completer=tuned, scorer=TableScorer(1.02), dataset=dataset, corpus=corpus, run=run),
        adapter=made_up_adapter(MadeUpConfig(), dataset=dataset, run=run),
        corpus=corpus,
        run=run,
    )


def test_figures(run: Run) -> None:
    """F1 of "Fact n" against "Fact n is n bar" is 2 * 2 / (2 + 5) = 4/7; 6 of 30 items are cut so, the other 24 are whole."""
    report = full_report(run)
    figures = report.figures
    assert figures["f1_base"] == 0.0
    assert figures["f1_fewshot"] == pytest.approx(4 / 7)
    assert figures["f1_tuned"] == pytest.approx((24 + 6 * 4 / 7) / 30)
    assert figures["f1_retrieval"] == 0.0
    assert figures["f1_tuned_retrieval"] == pytest.approx(figures["f1_tuned"])
    assert figures["f1_ci"][0] <= figures["f1_tuned"] <= figures["f1_ci"][1]
    assert figures["f1_ci_fewshot"][0] <= figures["f1_tuned"] - 4 / 7 <= figures["f1_ci_fewshot"][1]
    assert figures["f1_ci_fewshot"][0] > 0
    assert figures["forgetting_bpb"] == pytest.approx(0.02)
    assert figures["bpb_held_out"] == pytest.approx({"base": 1.0, "tuned": 1.02})
    assert (figures["pairs_train"], figures["pairs_knowledge"], figures["pairs_generalisation"]) == (12, 30, 15)
    assert figures["dropped"] == {"duplicate": 1, "not grounded": 3}
    assert figures["verdict"]["outcome"] == "learnt the content"
    assert (figures["verdict"]["best"], figures["verdict"]["cheapest"]) == ("tuned", "tuned")
    assert figures["training"]["curve"] == [[1, 2.5], [2, 1.75], [3, 1.5]]
    assert report.manifest.facts["outcome"] == "learnt the content"

    knowledge = {a["arm"]: a for a in figures["sets"]["knowledge"]["arms"]}
    assert knowledge["tuned"]["exact_match"] == pytest.approx(24 / 30)
    assert knowledge["base_few_shot"]["rouge_l"] == pytest.approx(4 / 7)  # "Fact n" is also the common subsequence
    elsewhere = {a["arm"]: a for a in figures["sets"]["generalisation"]["arms"]}
    assert elsewhere["tuned"]["f1"] == pytest.approx(4 / 7)

    assert figures["samples"]["best"][0]["change"] == pytest.approx(1.0)
    assert figures["samples"]["worst"][0]["tuned"] == "Fact 0"
    assert figures["samples"]["worst"][0]["change"] == pytest.approx(4 / 7)
    assert {entry["kind"] for entry in figures["lineage"]} == {"corpus", "dataset", "task", "adapter", "predictions"}
    assert json.loads((report.payload / "report.json").read_text()) == figures
    assert figures["verdict"]["headline"] in report.page.read_text(encoding="utf-8")


def test_the_same_inputs_give_the_same_bytes(run: Run) -> None:
    """The comparison alone, made again from the artefacts in the store."""
    first = full_report(run)
    recorded = {name: first.store.get(only.digest) for name, (only,) in first.manifest.inputs.items()}
    run.fresh = True
    again = before_after(CONFIG, **{name: noun(m, first.store) for name, m in recorded.items() if m}, run=run)  # type: ignore[arg-type]
    assert set(recorded) >= {"dataset", "base_zero_shot", "tuned", "general_base", "adapter", "corpus"}
    assert again.manifest.content == first.manifest.content


def test_a_folder_too_small_for_tuning_gets_a_report_that_says_so(run: Run) -> None:
    dataset = made_up_dataset(MadeUpConfig(num_items=6), run=run)
    base = arm(dataset, run, ScriptedCompleter(knows_nothing))
    figures = before_after(CONFIG, dataset=dataset, base_zero_shot=base, run=run).figures
    assert figures["verdict"]["outcome"] == "too few to decide"
    assert figures["sets"]["knowledge"]["best"] is None  # of 6 questions no arm is called the best
    assert (figures["f1_base"], figures["f1_tuned"], figures["f1_ci"], figures["forgetting_bpb"]) == (0.0, None, None, None)


def test_no_held_out_questions_at_all(run: Run) -> None:
    dataset = made_up_dataset(MadeUpConfig(num_items=0), run=run)
    report = before_after(CONFIG, dataset=dataset, run=run)
    assert report.figures["sets"] == {}
    assert "There are 0 held-out questions" in report.page.read_text(encoding="utf-8")


def test_arms_on_other_questions_are_refused(run: Run) -> None:
    dataset = made_up_dataset(MadeUpConfig(), run=run)
    base = arm(dataset, run, ScriptedCompleter(knows_nothing))
    some = held_out_questions(HeldOutConfig(max_items=10), dataset=dataset, run=run)
    fewer = run_task(RunTaskConfig(), task=some, completer=ScriptedCompleter(knows_facts), run=run)
    assert [r["item_id"] for r in fewer.rows[:3]] == ["k-0", "k-3", "k-6"]  # 10 of 30, at even distances
    with pytest.raises(UsageError, match="10 questions that are not the 30"):
        before_after(CONFIG, dataset=dataset, base_zero_shot=base, tuned=fewer, run=run)


def test_cut_and_abstained_answers_are_counted(run: Run) -> None:
    class Engine(ScriptedCompleter):
        def complete(self, conversations, sampling):  # type: ignore[no-untyped-def]
            reasons = ["length", "stop", "abstained"]
            return [Answer("so", finish_reason=reasons[i % 3], token_ids=(1, 2) * (i % 3)) for i in range(len(conversations))]

    dataset = made_up_dataset(MadeUpConfig(), run=run)
    report = before_after(CONFIG, dataset=dataset, base_zero_shot=arm(dataset, run, Engine(knows_nothing)), run=run)
    (base,) = report.figures["sets"]["knowledge"]["arms"]
    assert (base["share_cut"], base["share_abstained"]) == pytest.approx((1 / 3, 1 / 3))
    assert base["answer_tokens"] == pytest.approx(3.0)  # 2 and 4 tokens; an engine that tells none is not counted as 0


def test_few_shot_shows_the_examples_first_and_is_named_by_them(run: Run) -> None:
    dataset = made_up_dataset(MadeUpConfig(), run=run)
    examples = choose_examples(dataset.split("train"), 3)
    seen: list[Conversation] = []
    inner = ScriptedCompleter(lambda c: seen.append(c) or "ok", name="inner")  # type: ignore[func-returns-value]
    few_shot = FewShot(inner, examples)
    few_shot.complete([Conversation(dataset.split("knowledge")[0].prompt)], Sampling())
    assert [m.role for m in seen[0].messages] == ["user", "assistant"] * 3 + ["user"]
    assert seen[0].messages[1].content == examples[0].answer
    assert seen[0].question == "What is fact 0?"
    assert few_shot.identity["completer"] == inner.identity
    assert few_shot.identity["num_examples"] == 3
    assert few_shot.identity["examples"] != FewShot(inner, examples[:2]).identity["examples"]
