"""`mygpt evaluate compare`, `gate` and `card` as a user types them: exit codes, JSON, and errors that say what to do."""

import json
from pathlib import Path
from typing import Any

import pytest

from mygpt.artifacts.report import Predictions
from mygpt.cli import recipe_call
from mygpt.cli.main import main
from mygpt.core.run import Run
from mygpt.evaluate.harness import RunTaskConfig, run_task
from mygpt.evaluate.tasks import ReadTaskConfig, read_task
from mygpt.infer.token_scores import TokenScorer
from mygpt.serve.api import create_app
from mygpt.serve.served import Served
from tests.evaluate.made_up import MadeUpConfig, made_up_corpus, made_up_dataset
from tests.evaluate.made_up_predictions import flipped, made, shares
from tests.evaluate.test_compare_models import Knows, YesNoConfig, yes_no
from tests.infer.tiny_models import engine_of, tiny_module
from tests.serve.live_site import running, source_passage

HALF = shares(100, 50)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def named(home: Path) -> dict[str, list[Predictions]]:
    """`base` and `tuned`, each on two tasks."""
    found: dict[str, list[Predictions]] = {}
    for model, gain in (("base", 0), ("tuned", 30)):
        run = Run(home, name=model)
        found[model] = [made(run, model, task, flipped(HALF, lost=0, won=gain)) for task in ("ag_news", "trec")]
        run.close()
    return found


def called(home: Path, *arguments: Any, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any, str]:
    """(exit code, JSON on stdout, stderr)"""
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments), "--home", str(home), "--json"])
    shown = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, json.loads(shown.out), shown.err


def test_compare_by_name(home: Path, named: dict[str, list[Predictions]], capsys: pytest.CaptureFixture[str]) -> None:
    code, result, _ = called(home, "evaluate", "compare", "base", "tuned", "--set", "num_resamples=300", capsys=capsys)
    assert code == 0 and result["id"].startswith("report/base-tuned-") and Path(result["page"]).is_file()
    assert [(m["label"], len(m["predictions"])) for m in result["models"]] == [("base", 2), ("tuned", 2)]
    assert result["headline"] == "Against base, on 2 tasks: tuned is better on 2."


def test_compare_by_id_with_labels(home: Path, named: dict[str, list[Predictions]], capsys: pytest.CaptureFixture[str]) -> None:
    before, after = named["base"][0].id, named["tuned"][0].id
    code, result, _ = called(home, "evaluate", "compare", before, f"after={after}", "--dry-run", capsys=capsys)
    assert (code, result["predictions"], result["labels"]) == (0, [before, after], ["base", "after"])


def test_compare_in_words(home: Path, named: dict[str, list[Predictions]], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "compare", "base", "tuned", "--home", str(home), "--set", "num_resamples=300"])
    shown = capsys.readouterr()
    assert ended.value.code == 0
    assert "Better: ag_news (+0.300" in shown.out and "mygpt why report/base-tuned" in shown.out


@pytest.mark.parametrize(
    ("references", "error"),
    [
        (["base"], "There is one model to compare: base."),
        (["base", "tunned"], "No predictions `tunned`"),
        (["base", "both"], "`both` names predictions of several models"),
    ],
)
def test_compare_refuses(
    home: Path, named: dict[str, list[Predictions]], references: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(home, name="both")
    made(run, "one", "ag_news", HALF)
    made(run, "other", "ag_news", HALF[::-1])
    run.close()
    code, result, told = called(home, "evaluate", "compare", *references, capsys=capsys)
    assert code == 2 and result["error"].startswith(error) and result["fix"] and error in told


@pytest.mark.parametrize(
    ("rules", "code", "outcome"),
    [
        ("- {task: ag_news, better_by: 0}\n- {task: trec, not_worse_by: 0.05}", 0, "ship"),
        ("- {task: ag_news, better_by: 0}\n- {task: trec, at_least: 0.9}", 3, "do not ship"),
        ("- {task: ag_news, better_by: 0.25}", 3, "need more items"),
    ],
)
def test_gate(
    home: Path, named: dict[str, list[Predictions]], tmp_path: Path, rules: str, code: int, outcome: str, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(f"baseline: base\ncandidate: tuned\nrules:\n{rules}\n")
    ended, result, _ = called(home, "evaluate", "gate", "--policy", policy, capsys=capsys)
    assert (ended, result["outcome"]) == (code, outcome)
    assert (result["more_items"] > 0) == (outcome == "need more items")
    assert all(rule["reason"] for rule in result["rules"]) and Path(result["page"]).is_file()
    again, same, _ = called(home, "evaluate", "gate", "--policy", policy, capsys=capsys)  # from the store: the exit code is the same
    assert (again, same["id"]) == (code, result["id"])


def test_gate_refuses(home: Path, named: dict[str, list[Predictions]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("rules:\n- {task: ag_news, better_by: 0}\n")
    code, result, _ = called(home, "evaluate", "gate", "--policy", policy, capsys=capsys)
    assert (code, result["error"]) == (2, "There is no candidate.")
    policy.write_text("rules:\n- {task: ag_news, beter_by: 0}\n")
    code, result, _ = called(home, "evaluate", "gate", "--policy", policy, "--candidate", "tuned", capsys=capsys)
    assert (code, result["fix"]) == (2, "Did you mean `better_by`?")
    policy.write_text("rules:\n- {task: ag_new, better_by: 0}\n")
    code, result, _ = called(home, "evaluate", "gate", "--policy", policy, "--candidate", "tuned", "--baseline", "base", capsys=capsys)
    assert (code, result["fix"]) == (2, "Did you mean `ag_news`?")


def test_eval(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """40 and 55 of 60 right. Engines are made up; tasks, items, rows and report are real."""
    opened = []

    def tool(store: Any, run: Any, protocol: str, reference: str, *rest: Any, **more: Any) -> Knows:
        opened.append((protocol, reference))
        return Knows(int(reference))

    monkeypatch.setattr(recipe_call, "_tool", tool)
    run = Run(home, name="yes_no")
    yes_no(YesNoConfig(num_items=60), run=run)
    run.close()
    code, result, _ = called(home, "eval", "40", "55", "--task", "yes_no", "--set", "cached=false", capsys=capsys)
    assert code == 0 and [(s["model"], s["task"], s["items"]) for s in result["scores"]] == [("40", "yes_no", 60), ("55", "yes_no", 60)]
    assert [s["estimate"] for s in result["scores"]] == pytest.approx([40 / 60, 55 / 60])
    assert opened == [("Scorer", "40"), ("Scorer", "55")] and result["report"].startswith("report/eval-")
    code, again, _ = called(home, "evaluate", "compare", "40", "55", "--set", "num_resamples=300", capsys=capsys)  # by the models' names
    assert code == 0 and [m["predictions"] for m in again["models"]] == [[s["predictions"]] for s in result["scores"]]
    code, result, _ = called(home, "eval", "40", "--task", "yes_no", "--set", "cached=false", capsys=capsys)
    assert code == 0 and len(result["scores"]) == 1 and result["report"] is None
    code, result, _ = called(home, "eval", "http://models.example/v1", "--task", "yes_no", capsys=capsys)
    assert code == 3 and "60" in result["error"]  # nothing leaves this machine unasked
    code, result, _ = called(home, "eval", "40", "--task", "yes_not", capsys=capsys)
    assert code == 2 and "`yes_no`" in result["fix"]


def test_compare_measures_models_and_takes_predictions_beside(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """40, 55 and 30 of 60 right; the first was measured before, on one of the two tasks only."""
    opened = []

    def tool(store: Any, run: Any, protocol: str, reference: str, *rest: Any, **more: Any) -> Knows:
        opened.append(reference)
        return Knows(int(reference.rpartition("#")[2]))

    monkeypatch.setattr(recipe_call, "_tool", tool)
    for name in ("yes_no", "other"):
        run = Run(home, name=name)
        yes_no(YesNoConfig(num_items=60, name=name), run=run)
        run.close()
    code, _, _ = called(home, "eval", "40", "--task", "yes_no", "--set", "cached=false", capsys=capsys)
    assert code == 0 and opened == ["40"]
    settings = ("--set", "num_resamples=300", "--set", "cached=false")
    compare = ("evaluate", "compare", "40", "mine=55", "served=http://127.0.0.1:1/v1#30", *settings)
    code, planned, _ = called(home, *compare, "--task", "yes_no", "--dry-run", capsys=capsys)
    assert code == 0 and planned["labels"] == ["40"] and planned["measured"] == ["55", "http://127.0.0.1:1/v1#30"] and opened == ["40"]
    code, result, _ = called(home, *compare, "--task", "yes_no", capsys=capsys)
    assert code == 0 and opened == ["40", "55", "http://127.0.0.1:1/v1#30"]
    assert [m["label"] for m in result["models"]] == ["40", "mine", "served"]
    (task,) = result["tasks"]
    assert [m["score"]["estimate"] for m in task["models"]] == pytest.approx([40 / 60, 55 / 60, 30 / 60])
    code, result, _ = called(home, *compare, "--task", "yes_no", "--task", "other", capsys=capsys)  # the predictions do not cover both
    assert code == 0 and opened[3:] == ["40", "55", "http://127.0.0.1:1/v1#30"] and len(result["tasks"]) == 2
    code, result, _ = called(home, "evaluate", "compare", "40", "http://models.example/v1", "--task", "yes_no", capsys=capsys)
    assert code == 3 and "60 passages" in result["error"]
    code, result, _ = called(home, "evaluate", "compare", "40", "http://127.0.0.1:1/v1", capsys=capsys)
    assert code == 2 and "No predictions `http://127.0.0.1:1/v1`" in result["error"]


class Named:
    """An engine whose model is no artefact."""

    def __init__(self, engine: Any, name: str):
        self.identity, self.score = {"engine": "tiny", "name": name}, engine.score


def test_compare_of_what_is_served(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two names of a real server on this machine, on a choice task and on whole texts: their scores are those of the models themselves."""
    engines = {name: engine_of(tiny_module("llama", intermediate_size=size)) for name, size in (("small", 48), ("large", 64))}
    models = [Served(n, e, e.context_tokens, e.count_tokens, TokenScorer(e), e) for n, e in engines.items()]
    run = Run(home, name="yes_no")
    chosen = yes_no(YesNoConfig(num_items=40), run=run)
    (tmp_path / "task.yaml").write_text(
        "name: pages\nversion: 1\nform: rolling\nitems:\n" + "".join(f"- question: Pier {i} is closed.\n" for i in range(30))
    )
    pages: Any = read_task(ReadTaskConfig(), source=tmp_path / "task.yaml", run=run)
    run.close()
    with running(create_app(models, source_passage=source_passage, home=home, title="t"), home) as site:
        words = [f"{name}={site.address}/v1#{name}" for name in engines]
        tasks = ("--task", "yes_no", "--task", "pages")
        code, result, told = called(home, "evaluate", "compare", *words, *tasks, "--set", "num_resamples=300", capsys=capsys)
    assert code == 0, told
    assert [m["label"] for m in result["models"]] == ["small", "large"]
    for task, own in zip(result["tasks"], (chosen, pages), strict=True):
        for model in task["models"]:
            scorer = Named(engines[model["label"]], model["label"])
            local = run_task(RunTaskConfig(cached=False), task=own, scorer=scorer, run=Run(home, name="local"))
            rows = local.rows  # type: ignore[attr-defined]
            weights = [row.get("num_bytes") or 1 for row in rows]
            mean = sum(row[task["metric"]] * w for row, w in zip(rows, weights, strict=True)) / sum(weights)
            assert model["score"]["estimate"] == pytest.approx(mean, abs=1e-6)


def test_card(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(home, name="handbook")
    dataset = made_up_dataset(MadeUpConfig(), run=run)
    made(run, "base", "ag_news", HALF)  # of the same name, and of a kind that has no card
    run.close()
    file = tmp_path / "CARD.md"
    code, result, _ = called(
        home, "evaluate", "card", "handbook", "--intended-use", "Questions about ferries.", "--to", file, capsys=capsys
    )
    assert code == 0 and file.read_text() == result["card"] and result["id"] == dataset.id
    assert file.read_text().startswith("# Data card: handbook\n") and "- Questions about ferries." in file.read_text()
    run = Run(home, name="handbook")
    made_up_corpus(MadeUpConfig(), run=run)
    run.close()
    code, result, _ = called(home, "evaluate", "card", "handbook", capsys=capsys)
    assert (code, result["error"]) == (2, "`handbook` is the name of several: `dataset/handbook`, `corpus/handbook`.")
