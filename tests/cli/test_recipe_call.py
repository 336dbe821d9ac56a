"""`mygpt STAGE TECHNIQUE`: options from the signature, errors that say what to do, and a real call as a user makes it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mygpt.artifacts.corpus import Corpus
from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe, recipe_function
from mygpt.artifacts.store import Store
from mygpt.catalog import TECHNIQUES, Technique, where
from mygpt.cli.main import main
from mygpt.cli.recipe_call import _signature, default_name, help_text, open_inputs, parse, recipe_inputs
from mygpt.cli.stages import first_sentence, recipes_of
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.infer import remote
from mygpt.infer.scripted import ScriptedCompleter
from mygpt.pipelines import tools

RECIPES = [t for t in TECHNIQUES if t.stage in ("data", "finetune", "align", "evaluate", "rag") and t.path.rpartition(":")[2].islower()]
KNOWN = ("home", "name", "seed", "set", "dataset", "base_zero_shot")
TEXT = "# Hours\n\nThe office opens at eight o'clock in the morning. Every visitor signs the book at the door.\n"


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "hours.md").write_text(TEXT)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def called(*arguments: Any, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any], str]:
    """(exit code, JSON on stdout, stderr) of one command, in this process."""
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments), "--json"])
    shown = capsys.readouterr()
    code = ended.value.code
    assert isinstance(code, int)
    return code, json.loads(shown.out), shown.err


# -- options -------------------------------------------------------------------------------------------------------------------


def test_parse_by_hand() -> None:
    line = "--dataset a:v1 --base-zero-shot=b --set x=-1 --set=y=2 --base_zero_shot c --json --dry-run"
    given, flags = parse(line.split(), known=KNOWN)
    assert given == {"dataset": ["a:v1"], "base_zero_shot": ["b", "c"], "set": ["x=-1", "y=2"]}
    assert flags == {"json", "dry-run"}
    assert parse([], known=KNOWN) == ({}, set())


@pytest.mark.parametrize(
    ("arguments", "what", "fix"),
    [
        (["--datset", "a"], "Unknown option `--datset`", "Did you mean `--dataset`?"),
        (["--base-zero-shoot=b"], "Unknown option `--base-zero-shoot`", "Did you mean `--base-zero-shot`?"),
        (["--dryrun"], "Unknown option `--dryrun`", "Did you mean `--dry-run`?"),
        (["--xyzzy"], "Unknown option `--xyzzy`", "`--help` shows the options."),
        (["--dataset"], "`--dataset` needs a value", "`--help` shows what it takes."),
        (["--dataset", "--json"], "`--dataset` needs a value", "`--help` shows what it takes."),
        (["--dataset="], "`--dataset` needs a value", "`--help` shows what it takes."),
        (["--json=1"], "`--json` takes no value", "Write `--json` alone."),
        (["handbook"], "`handbook` has no option before it", "Every value follows its option; `--help` shows them."),
    ],
)
def test_parse_errors(arguments: list[str], what: str, fix: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(arguments, known=KNOWN)
    assert what in error.value.what and error.value.fix == fix and error.value.exit_code == 2


@pytest.mark.parametrize("technique", RECIPES, ids=lambda t: t.name)
def test_every_recipe_can_be_called(technique: Technique) -> None:
    """Whatever a recipe must have, the command line can give; its help names each input and each setting."""
    function = recipe_function(technique.path)
    inputs = recipe_inputs(function)
    for name, (_, optional) in _signature(function).items():
        assert name in inputs or optional
    shown = help_text(technique, function, inputs)
    assert all(argument.option in shown for argument in inputs.values())
    assert f"mygpt {technique.stage} {technique.name}" in shown and technique.page in shown


def test_inputs_of_known_recipes() -> None:
    assert {t.name for t in RECIPES} >= {"ingest", "question_answer", "sft", "before_after", "index"}
    sft = recipe_inputs(recipe_function(where("sft").path))
    assert sft["model"].kinds == (Model,) and sft["dataset"].kinds == (Dataset,) and not sft["dataset"].optional
    ingest = recipe_inputs(recipe_function(where("ingest").path))
    assert list(ingest) == ["sources"] and ingest["sources"].is_path and ingest["sources"].several  # tesseract is looked for
    asked = recipe_inputs(recipe_function(where("question_answer").path))
    assert asked["completer"].protocol == "Completer" and asked["corpus"].kinds == (Corpus,)
    assert recipe_inputs(recipe_function(where("index").path))["embedder"].protocol == "Embedder"
    compared = recipe_inputs(recipe_function(where("before_after").path))
    assert compared["adapter"].kinds == (Adapter, Model) and compared["adapter"].optional


# -- a real call ---------------------------------------------------------------------------------------------------------------


def test_as_a_user_types_it(docs: Path, home: Path) -> None:
    command = [sys.executable, "-m", "mygpt", "data", "ingest", "--sources", f"{docs}/", "--home", str(home), "--json"]
    first = subprocess.run(command, capture_output=True, text=True, cwd=docs)
    assert first.returncode == 0, first.stderr
    made = json.loads(first.stdout)  # nothing but the result on stdout
    assert made["id"].startswith("corpus/docs-") and made["facts"]["documents"] == 1
    assert "ingest" in first.stderr
    corpus = Corpus.open(Store(home), "docs")
    assert corpus.digest == made["digest"]
    assert [d.path for d in corpus.documents.values()] == ["hours.md"]


def test_settings_name_and_seed(docs: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ingest = ("data", "ingest", "--sources", docs, "--home", home)
    code, made, _ = called(*ingest, "--name", "notes", "--seed", "3", "--set", "passage_words=20", capsys=capsys)
    assert code == 0 and made["id"].startswith("corpus/notes-")
    manifest = Corpus.open(Store(home), "notes").manifest
    assert manifest.seed == 3 and manifest.config["passage_words"] == 20
    assert called(*ingest, "--name", "notes", "--seed", "3", "--set", "passage_words=20", capsys=capsys)[1]["digest"] == made["digest"]
    code, told, _ = called(*ingest, "--seed", "three", capsys=capsys)
    assert (code, told["error"]) == (2, "`--seed three` is not a whole number.")
    code, told, _ = called(*ingest, "--set", "pasage_words=20", capsys=capsys)
    assert (code, told["fix"]) == (2, "Did you mean `passage_words`?")


def test_several_sources(docs: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "more.txt").write_text("The workshop is closed on every public holiday of the year.")
    code, made, _ = called("data", "ingest", "--sources", docs, "--sources", tmp_path / "more.txt", "--home", home, capsys=capsys)
    assert code == 0 and made["facts"]["documents"] == 2 and made["id"].startswith("corpus/docs-")


def test_dry_run_does_nothing(docs: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told, _ = called("data", "ingest", "--sources", docs, "--home", home, "--dry-run", capsys=capsys)
    assert code == 0
    assert told["recipe"] == "mygpt.data.ingest:ingest" and told["name"] == "docs"
    assert told["inputs"] == {"sources": [str(docs)]} and told["config"]["passage_words"] == 120
    assert not home.exists()


def test_help(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    for flag in ("--help", "-h"):
        with pytest.raises(SystemExit) as ended:
            main(["finetune", "sft", flag, "--home", str(home)])
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        assert "Example: mygpt finetune sft --model NAME --dataset NAME" in shown
        assert "learning_rate" in shown and "0.0005" in shown and "docs/finetune/sft.md" in shown
        lines = [line.split() for line in shown.splitlines()]
        for name in ("lora", "full", "freeze", "prefix", "prompt", "p_tuning", "ia3", "bottleneck"):
            assert [line[1:2] for line in lines if line[:1] == [f"method={name}"]]  # with a word on what it is
        assert ["method.rank", "16"] in lines and ["method.size", "64"] in lines and ["method.num_tokens", "20"] in lines
        assert not [line for line in lines if line[:1] == ["method.name"]]


@pytest.mark.parametrize("stage", sorted({t.stage for t in RECIPES}))
def test_the_help_of_a_stage_says_what_each_technique_does(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The first sentence of its module, not its paper; no module is imported for it."""
    with pytest.raises(SystemExit):
        main([stage, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for technique in recipes_of(stage):
        sentence = first_sentence(technique)
        has_its_own = (stage, technique.name) == ("evaluate", "gate")  # a command that is not derived, with help of its own
        assert sentence[-1] in ".?!" and (sentence in shown or has_its_own)
    assert "et al." not in shown


def test_a_first_sentence() -> None:
    assert first_sentence(where("kto")) == "KTO: learn from single answers that somebody called good or bad; no pairs are needed."


def test_every_choice_says_what_it_is() -> None:
    """Not what its base class is."""
    shown = help_text(where("dpo"), recipe_function(where("dpo").path), recipe_inputs(recipe_function(where("dpo").path)))
    losses = [line.strip() for line in shown.splitlines() if line.strip().startswith("loss=")]
    assert len(losses) == 14 and all(len(line.split(maxsplit=1)) == 2 for line in losses) and "Base of" not in shown


# -- what is wrong with a request ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "fix"),
    [
        (["method=prefx"], "There is no `method` `prefx`.", "Did you mean `method=prefix`?"),
        (["method=prefix", "method.num_token=5"], "Unknown setting `method.num_token`.", "Did you mean `method.num_tokens`?"),
        (["method.num_tokens=5"], "Unknown setting `method.num_tokens`.", None),  # LoRA, the default, has none
        (["rank=8"], "Unknown setting `rank`.", None),
    ],
)
def test_a_method_that_there_is_not(
    settings: list[str], error: str, fix: str | None, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word for setting in settings for word in ("--set", setting)]
    code, told, _ = called("finetune", "sft", "--model", "x", "--dataset", "y", "--home", home, *given, capsys=capsys)
    assert (code, told["error"]) == (2, error)
    assert fix is None or told["fix"] == fix


def test_missing_inputs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told, stderr = called("finetune", "sft", "--home", home, capsys=capsys)
    assert (code, told["exit_code"]) == (2, 2)
    assert told["error"] == "`mygpt finetune sft` needs --model, --dataset." and "--help" in told["fix"]
    assert told["error"] in stderr
    assert not home.exists()


def test_given_twice(docs: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--model", "--seed"):
        line = f"finetune sft --model a --dataset b --seed 1 {option} 2 --home {home}"
        code, told, _ = called(*line.split(), capsys=capsys)
        assert (code, told["error"]) == (2, f"`{option}` was given 2 times.")


def test_unknown_artefact_names_the_nearest(docs: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    called("data", "ingest", "--sources", docs, "--home", home, "--name", "handbook", capsys=capsys)
    for dry in ((), ("--dry-run",)):
        arguments = ("data", "question_answer", "--corpus", "handbok", "--completer", "smollm2-135m", "--home", home, *dry)
        code, told, _ = called(*arguments, capsys=capsys)
        assert code == 2 and told["error"] == f"No corpus `handbok` in {home}." and "`handbook`" in told["fix"]


def test_a_path_that_is_not_there(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for dry in ((), ("--dry-run",)):
        code, told, _ = called("data", "ingest", "--sources", tmp_path / "nowhere", "--home", home, *dry, capsys=capsys)
        assert code == 2 and "nowhere" in told["error"] and "--sources" in told["fix"]


# -- names ----------------------------------------------------------------------------------------------------------------------


class NoConfig(Config):
    pass


@recipe
def toy_model(config: NoConfig, *, run: Run) -> Model:
    return publish(Model, run, lambda folder: (folder / "config.json").write_text("{}") and None, name="base")


@recipe
def toy_adapter(config: NoConfig, *, model: Model, run: Run) -> Adapter:
    return publish(Adapter, run, lambda folder: (folder / "adapter_config.json").write_text("{}") and None, name="fine")


@recipe
def toy_dataset(config: NoConfig, *, run: Run) -> Dataset:
    return publish(Dataset, run, lambda folder: (folder / "x.parquet").write_text("") and None, facts={"rows": {"train": 7}}, name="pairs")


def test_default_names(run: Run, docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the data, whichever way they are named; else after the first input."""
    store = Store(run.home)
    dataset = toy_dataset(NoConfig(), run=run)
    sft, ingest, asked = (recipe_inputs(recipe_function(where(n).path)) for n in ("sft", "ingest", "question_answer"))
    for reference in ("pairs", "pairs:latest", "dataset/pairs:v1", dataset.digest, dataset.id):
        assert default_name(store, sft, {"model": ["smollm2-135m"], "dataset": [reference]}) == "pairs"
    assert default_name(store, sft, {"model": ["./models/tiny/"]}) == "tiny"
    assert default_name(store, asked, {"completer": ["smollm2-135m:v1+fine"]}) == "smollm2-135m"
    monkeypatch.chdir(docs)
    for spelling in (".", str(docs), f"{docs}/", "../docs"):
        assert default_name(store, ingest, {"sources": [spelling]}) == "docs"
    assert default_name(store, ingest, {}) == ""


def test_an_input_of_two_kinds(run: Run) -> None:
    store = Store(run.home)
    model = toy_model(NoConfig(), run=run)
    adapter = toy_adapter(NoConfig(), model=model, run=run)
    inputs = recipe_inputs(recipe_function(where("before_after").path))
    for made in (model, adapter):
        opened = open_inputs(store, run, inputs, {"adapter": [made.name]}, share_documents=False)
        assert opened["adapter"].digest == made.digest and type(opened["adapter"]) is type(made)


# -- private text ---------------------------------------------------------------------------------------------------------------


def test_passages_go_elsewhere_only_when_told(
    docs: Path, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def connected(address: str, *, run: Run) -> ScriptedCompleter:
        asked.append(address)
        return ScriptedCompleter(lambda conversation: "When does the office open?", name=address)

    monkeypatch.setattr(remote, "RemoteCompleter", connected)
    called("data", "ingest", "--sources", docs, "--home", home, capsys=capsys)
    elsewhere = ("data", "question_answer", "--corpus", "docs", "--completer", "https://models.example.com/v1", "--home", home)
    code, told, _ = called(*elsewhere, capsys=capsys)
    assert code == 3 and asked == []
    assert "1 passages of your documents to https://models.example.com/v1" in told["error"] and "--share-documents" in told["fix"]
    code, made, stderr = called(*elsewhere, "--share-documents", capsys=capsys)
    assert code == 0 and asked == ["https://models.example.com/v1"] and made["id"].startswith("dataset/docs-")
    assert "Up to 1 passages of your documents go to https://models.example.com/v1" in stderr
    here = ("data", "question_answer", "--corpus", "docs", "--completer", "http://127.0.0.1:8000/v1", "--home", home)
    assert called(*here, capsys=capsys)[0] == 0


class Elsewhere(ScriptedCompleter):
    """As its record looks when it was asked over the network."""

    @property
    def identity(self) -> dict[str, Any]:
        return {"engine": "remote", "address": "https://models.example.com/v1", "name": "large"}


def test_a_file_of_yours_goes_elsewhere_only_with_leave(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused before the file is read or anything is asked."""
    file = tmp_path / "principles.yaml"
    file.write_text("id: ours\n")
    elsewhere = ("--completer", "https://models.example.com/v1#m")
    asked = ("align", "critique_and_revision", *elsewhere, "--constitution-file", file, "--home", home)
    code, told, _ = called(*asked, capsys=capsys)
    assert code == 3 and "1 passages of your documents to https://models.example.com/v1#m" in told["error"]


def test_a_rerun_sends_passages_only_when_told_again(
    docs: Path, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def connected(address: str, *, run: Run) -> Elsewhere:
        asked.append(address)
        return Elsewhere(lambda conversation: "When does the office open?", name="large")

    monkeypatch.setattr(remote, "RemoteCompleter", connected)
    monkeypatch.setattr(tools, "RemoteCompleter", connected)
    called("data", "ingest", "--sources", docs, "--home", home, capsys=capsys)
    first = ("data", "question_answer", "--corpus", "docs", "--completer", "https://models.example.com/v1#large", "--share-documents")
    assert called(*first, "--home", home, capsys=capsys)[0] == 0
    asked.clear()
    code, told, _ = called("rerun", "dataset/docs", "--home", home, capsys=capsys)
    assert code == 3 and asked == []
    assert "1 passages of your documents to https://models.example.com/v1#large" in told["error"] and "--share-documents" in told["fix"]
    code, again, stderr = called("rerun", "dataset/docs", "--share-documents", "--home", home, capsys=capsys)
    assert (code, again["identical"], asked) == (0, True, ["https://models.example.com/v1#large"])
    assert "Up to 1 passages of your documents go to https://models.example.com/v1#large" in stderr


def test_questions_of_a_task_go_elsewhere_only_when_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = called("evaluate", "tasks", "--set", "builtin=arithmetic_1_digit", "--home", home, capsys=capsys)
    assert made[0] == 0, made
    code, told, _ = called(
        "evaluate", "harness", "--task", made[1]["id"], "--completer", "https://models.example.com/v1", "--home", home, capsys=capsys
    )
    assert code == 3 and "passages of your documents to https://models.example.com/v1" in told["error"]


def test_an_embedder_has_no_address(docs: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    called("data", "ingest", "--sources", docs, "--home", home, capsys=capsys)
    code, told, _ = called("rag", "index", "--corpus", "docs", "--embedder", "http://127.0.0.1:1/v1", "--home", home, capsys=capsys)
    assert (code, told["error"]) == (2, "http://127.0.0.1:1/v1 gives answers and log-probabilities only, so it cannot be the Embedder.")


def test_memory_that_runs_out_is_told_by_every_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def build() -> Any:
        raise MemoryError

    monkeypatch.setattr("mygpt.cli.main.build", build)
    with pytest.raises(SystemExit) as ended:
        main(["show", "x"])
    told = capsys.readouterr().err
    assert ended.value.code == 1 and told.startswith("error: Out of memory.\n  Use a smaller model")
