"""The main job on three real documents with the real model: what it makes, and what it does the second time."""

import shutil
import time
from pathlib import Path
from typing import Any

from mygpt.artifacts.deployment import Deployment
from mygpt.artifacts.lineage import why
from mygpt.artifacts.report import Predictions, Report
from mygpt.artifacts.store import Store
from tests.pipelines.conftest import QUICK, SmallUp, mygpt

PROMISED = ("model", "report", "index", "seconds", "tokens_per_second", "f1_base", "f1_fewshot", "f1_tuned", "f1_ci", "f1_ci_fewshot")
PROMISED += ("forgetting_bpb", "pairs_train", "pairs_knowledge", "pairs_generalisation", "verdict")


def test_the_summary_holds_what_is_promised(small_up: SmallUp) -> None:
    assert set(PROMISED) <= set(small_up.result)
    assert Path(small_up.result["report"]).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert small_up.result["pairs_train"] >= 8
    assert small_up.result["tokens_per_second"] > 0
    assert len(small_up.result["f1_ci"]) == 2
    forgetting = Report.open(Store(small_up.home), "ferry").figures["forgetting"]
    right = small_up.result["general_right"]
    assert right == {"base": forgetting["right_base"], "tuned": forgetting["right_tuned"], "items": 96}
    assert {"read", "index", "question", "train", "measure", "deploy"} <= set(small_up.result["seconds"])


def test_every_arm_is_the_harness_on_one_task(small_up: SmallUp) -> None:
    """Equal items and settings in every arm; prompts hashed by their token ids, also behind retrieval; what was read stays in the row."""
    store = Store(small_up.home)
    report = Report.open(store, "ferry")
    inputs = {name: only.digest for name, (only,) in report.manifest.inputs.items()}
    arms = {name: Predictions.of(store, digest) for name, digest in inputs.items() if name.startswith(("base", "tuned"))}
    assert len(arms) == 5
    assert {arm.manifest.recipe for arm in arms.values()} == {"mygpt.evaluate.harness:run_task"}
    assert len({arm.manifest.facts["task_content"] for arm in arms.values()}) == 1
    assert len({arm.manifest.facts["template"] for arm in arms.values()} - {None}) == 1
    for name, arm in arms.items():
        rows, facts = arm.rows, arm.manifest.facts
        assert facts["items"] == len(rows) and {"unparsed", "empty", "cut"} <= set(facts)
        answered = [row for row in rows if row["finish_reason"] != "abstained"]
        if "retrieval" in name:
            assert all(row["passages"] for row in answered) and any("ids" in h for h in facts["hashed"])
        else:
            assert facts["hashed"] == ["ids"]
    same = [arms[name].manifest.facts["prompts"] for name in ("base_zero_shot", "tuned")]
    assert same[0] == same[1] != arms["base_few_shot"].manifest.facts["prompts"]


def test_nothing_was_written_into_the_folder(small_up: SmallUp) -> None:
    assert sorted(p.suffix for p in small_up.folder.rglob("*")) == [".md"] * 4


def test_unchanged_documents_cost_no_work(small_up: SmallUp) -> None:
    before = sorted(m.digest for m in Store(small_up.home).manifests())
    started = time.perf_counter()
    code, again = mygpt("up", str(small_up.folder), "--home", str(small_up.home), *QUICK)
    assert code == 0
    assert time.process_time() - started < 2 * 15  # seconds of processor on two cores; benchmarks/up measures the time of a quiet machine
    assert sorted(m.digest for m in Store(small_up.home).manifests()) == before
    assert (again["model"], again["deployment"]) == (small_up.result["model"], small_up.result["deployment"])


def test_why_leads_from_what_is_served_to_the_documents(small_up: SmallUp) -> None:
    store = Store(small_up.home)
    tree = why(store, Deployment.open(store, "ferry").manifest)

    def sources(node: Any) -> set[str]:
        own = {node.path} if node.path else set()
        return own.union(*(sources(child) for child in node.children))

    assert str(small_up.folder) in sources(tree)
    adapter_line = next(child for child in tree.children if child.argument == "report")
    assert adapter_line.children


def test_a_new_document_is_cited_and_the_model_stays(small_up: SmallUp, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(small_up.home, home)
    note = tmp_path / "walrus.md"
    note.write_text("# Walrus desk\n\nThe Walrus desk is open from 06:15 and is led by Ottoline Farrow.\n", encoding="utf-8")
    started = time.process_time()
    code, added = mygpt("add", str(note), "--home", str(home))
    assert code == 0
    _, answer = mygpt("chat", "--home", str(home), "-q", "Who leads the Walrus desk?")
    assert time.process_time() - started < 2 * 15  # seconds of processor on two cores; benchmarks/up measures the time of a quiet machine
    assert "walrus.md" in {c["path"] for c in answer["citations"]}, answer
    before = Deployment.open(Store(small_up.home), "ferry")
    after = Deployment.open(Store(home), "ferry")
    assert (after.model.digest, after.adapter and after.adapter.digest) == (before.model.digest, before.adapter and before.adapter.digest)
    assert added["index"] != small_up.result["index"]

    code, later = mygpt("up", str(small_up.folder), "--home", str(home), *QUICK)
    assert code == 0
    assert later["model"] == small_up.result["model"]
    assert later["documents"] == 5
    store = Store(home)
    trained = [store.find(f"{kind}/ferry").cost["seconds"] for kind in ("dataset", "adapter")]
    assert later["retune_seconds"] == added["retune_seconds"] == sum(trained) > 5  # of seconds measured, not guessed
    assert not [m for m in Store(home).manifests() if m.kind == "adapter" and m.id != small_up.result["model"]]


def test_the_report_is_one_file_without_foreign_addresses(small_up: SmallUp) -> None:
    report = Report.open(Store(small_up.home), "ferry")
    page = report.page.read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert report.figures["pairs_train"] == small_up.result["pairs_train"]


def test_rerunning_the_questions_gives_the_same_bytes(small_up: SmallUp) -> None:
    code, corpus = mygpt("rerun", "corpus/ferry", "--home", str(small_up.home))
    assert (code, corpus["identical"]) == (0, True)


def test_dry_run_does_nothing(small_up: SmallUp, tmp_path: Path) -> None:
    code, plan = mygpt("up", str(small_up.folder), "--home", str(tmp_path / "none"), "--dry-run")
    assert (code, plan["files"], plan["trains"]) == (0, 4, True)
    assert not (tmp_path / "none").exists()
    assert plan["training"].startswith("about ") and "questions of 100 tokens" in plan["training"] and " GB of memory (" in plan["training"]
    _, again = mygpt("up", str(small_up.folder), "--home", str(small_up.home), "--dry-run")
    assert again["training"].startswith("about ") and again["training"].endswith("on the questions of last time")


def test_asking_about_something_else_abstains(small_up: SmallUp) -> None:
    code, answer = mygpt("chat", "--home", str(small_up.home), "-q", "What is the boiling point of tungsten hexafluoride?")
    assert code == 0
    assert answer["abstained"]
    assert answer["citations"] == []
