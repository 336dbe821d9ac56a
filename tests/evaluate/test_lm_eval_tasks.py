"""lm-eval's YAML: its fields mean what its guide says, and what needs Python is refused. Run by lm-eval itself where it is installed."""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.artifacts.task import Task
from mygpt.core.errors import MygptError, UsageError
from mygpt.core.run import Run
from mygpt.evaluate.harness import RunTaskConfig, run_task
from mygpt.evaluate.lm_eval_tasks import LmEvalConfig, lm_eval_model, lm_eval_task
from mygpt.evaluate.prompts import continuations, conversation, text_prompt
from mygpt.evaluate.tasks import ReadTaskConfig, read_task
from mygpt.infer.protocols import Identity, Score
from mygpt.infer.scripted import ScriptedCompleter

CHOICE = """\
task: tides
output_type: multiple_choice
test_split: test
doc_to_text: "{{place}}: {{question.strip()}}\\nAnswer:"
doc_to_choice: ["low", "high"]
doc_to_target: label
metric_list: [{metric: acc}]
metadata: {version: 2.0}
"""
ROWS = [{"place": "Quay", "question": " Now? ", "label": 1}, {"place": "Pier", "question": "Later?", "label": 0}]


def folder(path: Path, written: str, rows: Sequence[dict[str, Any]] = ROWS) -> Path:
    path.mkdir(exist_ok=True)
    (path / "task.yaml").write_text(written)
    (path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(source: Path, run: Run) -> Task:
    made = read_task(ReadTaskConfig(builtin="lm_eval"), source=source, run=run)
    assert isinstance(made, Task)
    return made


def test_multiple_choice(tmp_path: Path, run: Run) -> None:
    task = read(folder(tmp_path / "t", CHOICE), run)
    asked = [(text_prompt(task.settings, i), continuations(task.settings, i), i.gold) for i in task.items]
    assert asked == [("Quay: Now?\nAnswer:", [" low", " high"], 1), ("Pier: Later?\nAnswer:", [" low", " high"], 0)]
    assert (task.settings.name, task.version, task.form, task.primary) == ("tides", "2.0", "choice", "acc")


def test_choices_from_a_column_and_from_jinja(tmp_path: Path, run: Run) -> None:
    rows = [{"q": "Now?", "options": ["ebb", "flood"], "right": "flood"}] * 2
    by_column = (
        CHOICE.replace('["low", "high"]', "options").replace("label", '"{{right}}"').replace("{{place}}: {{question.strip()}}", "{{q}}")
    )
    task = read(folder(tmp_path / "a", by_column, rows), run)
    assert (task.items[0].choices, task.items[0].gold) == (("ebb", "flood"), 1)
    by_jinja = by_column.replace("doc_to_choice: options", 'doc_to_choice: "{{options | reverse | list}}"')
    assert read(folder(tmp_path / "b", by_jinja, rows), run).items[0].choices == ("flood", "ebb")


def test_generate_until(tmp_path: Path, run: Run) -> None:
    written = """\
task: sums
output_type: generate_until
doc_to_text: "{{q}}"
doc_to_target: "{{a}}"
description: "Give {one} number.\\n\\n"
generation_kwargs: {until: ["\\n\\n", "Q:"], max_gen_toks: 12}
filter_list: [{name: strict, filter: [{function: regex, regex_pattern: "#### (\\\\-?[0-9]+)"}, {function: take_first}]}]
metadata: {version: 1}
"""
    task = read(folder(tmp_path / "t", written, [{"q": "2 + 2?", "a": "4"}, {"q": "3 + 3?", "a": 6}]), run)
    assert conversation(task.settings, task.items[0]).raw_text == "Give {one} number.\n\n2 + 2?"  # as lm-eval sends it
    assert (task.settings.stop, task.settings.max_tokens, task.settings.answer_pattern) == (("\n\n", "Q:"), 12, r"#### (\-?[0-9]+)")
    assert [i.references for i in task.items] == [("4",), ("6",)]
    assert task.primary == "exact_match_strict"


def test_a_chat_where_asked(tmp_path: Path, run: Run) -> None:
    written = 'task: sums\noutput_type: generate_until\ndoc_to_text: "{{q}}"\ndoc_to_target: "{{a}}"\nmetadata: {version: 1}\n'
    source = folder(tmp_path / "t", written, [{"q": "2 + 2?", "a": "4"}, {"q": "3 + 3?", "a": 6}])
    task: Any = read_task(ReadTaskConfig(builtin="lm_eval", chat=True), source=source, run=run)
    assert conversation(task.settings, task.items[0]).messages == (Message("user", "2 + 2?"),)


LAST_WORD = """\
task: last_word
output_type: loglikelihood
doc_to_text: "{{start}}"
doc_to_target: "{{word}}"
metric_list: [{metric: perplexity}, {metric: acc}]
metadata: {version: 1}
"""


class Table:
    """(log-probability, greedy) by continuation."""

    def __init__(self, table: dict[str, tuple[float, bool | None]]):
        self.table = table

    @property
    def identity(self) -> Identity:
        return {"engine": "table", "table": {k: str(v) for k, v in self.table.items()}}

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        return [Score(self.table[c][0], 2, len(c.encode()), self.table[c][1]) for c in continuations]


def test_loglikelihood_by_hand(tmp_path: Path, run: Run) -> None:
    """LAMBADA's two figures: one of three is greedy; perplexity is exp of minus the mean of -1, -2 and -6."""
    rows = [{"start": "Over the", "word": w} for w in ("sea", "hill", "wall")]
    task = read(folder(tmp_path / "t", LAST_WORD, rows), run)
    assert (task.form, task.primary, text_prompt(task.settings, task.items[0])) == ("continuation", "acc", "Over the")
    table = Table({" sea": (-1.0, True), " hill": (-2.0, False), " wall": (-6.0, False)})
    made = run_task(RunTaskConfig(), task=task, scorer=table, run=run)
    assert [(row["acc"], row["logprob"], row["reference"]) for row in made.rows] == [  # type: ignore[attr-defined]
        (1.0, -1.0, "sea"),
        (0.0, -2.0, "hill"),
        (0.0, -6.0, "wall"),
    ]
    facts = made.manifest.facts
    assert facts["corpus"]["perplexity"] == pytest.approx(math.exp(3)) and facts["higher_is_better"] == {
        "acc": True,
        "logprob": True,
        "bits_per_byte": False,
    }
    untold = Table(dict.fromkeys((" sea", " hill", " wall"), (-1.0, None)))
    with pytest.raises(MygptError, match="Item `1`: the scorer does not tell whether the continuation is the greedy one"):
        run_task(RunTaskConfig(), task=task, scorer=untold, run=run)


def test_rolling(tmp_path: Path, run: Run) -> None:
    written = 'task: pages\noutput_type: loglikelihood_rolling\ndoc_to_target: "{{page}}"\nmetadata: {version: 1}\n'
    task = read(folder(tmp_path / "t", written, [{"page": "One."}, {"page": "Two."}]), run)
    assert ([i.question for i in task.items], task.primary) == (["One.", "Two."], "bits_per_byte")


@pytest.mark.parametrize(
    ("written", "what"),
    [
        (CHOICE + "process_docs: !function utils.clean\n", "`process_docs` is Python code, which is not run here"),
        ("include: other.yaml\n" + CHOICE, "includes other.yaml"),
        (CHOICE.replace("multiple_choice", "greedy_until"), "the output type `greedy_until` is not known"),
        (CHOICE.replace("task: tides\n", ""), "the field `task` is missing"),
        (CHOICE.replace("metadata: {version: 2.0}\n", ""), "has an empty version"),
        (CHOICE.replace("{{place}}", "{{town}}"), "rows.jsonl, row 1: the template .* cannot be filled: 'town' is undefined"),
        (CHOICE.replace("{{place}}", "{{place.__class__.__mro__}}"), "rows.jsonl, row 1: the template .* cannot be filled"),
        (CHOICE.replace('["low", "high"]', "place"), "row 1: the field `doc_to_choice` gives 'Quay', not a list"),
        (CHOICE.replace("doc_to_target: label", "doc_to_target: 5"), "row 1: the field `doc_to_target` is 5, which is none of the 2"),
        ("task: [", "is no YAML"),
    ],
)
def test_refused(written: str, what: str, tmp_path: Path, run: Run) -> None:
    with pytest.raises(UsageError, match=what):
        read(folder(tmp_path / "t", written), run)


def test_without_lm_eval(run: Run) -> None:
    try:
        import lm_eval  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(UsageError, match="lm-eval is not installed"):
            lm_eval_task(LmEvalConfig(task="tides"), run=run)


# -- run by lm-eval itself: what version 0.4.13 asked and made of the answers, recorded, and the real one where it is installed ----------

RECORDED = json.loads((Path(__file__).parent / "lm_eval_0_4_13.json").read_text(encoding="utf-8"))


class Quarters:
    """A quarter of a nat for each character; texts of even length are greedy. It answered when lm-eval was recorded."""

    @property
    def identity(self) -> Identity:
        return {"engine": "quarters"}

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        return [Score(-0.25 * len(c), len(c), len(c.encode()), len(c) % 2 == 0) for c in continuations]


def counts(conversation: Conversation) -> str:
    (message,) = conversation.messages
    return f" The sum is #### {len(message.content)}"


def install_recording(monkeypatch: pytest.MonkeyPatch, heard: list[Any]) -> None:
    """Modules by lm-eval's names, whose `simple_evaluate` puts the recorded requests to the model and gives the recorded results."""
    ways = {"tides": "loglikelihood", "last_word": "loglikelihood", "pages": "loglikelihood_rolling", "sums": "generate_until"}

    def simple_evaluate(*, model: Any, tasks: list[str], **_: Any) -> dict[str, Any]:
        (task,) = tasks
        samples = RECORDED["samples"][task]
        requests = [SimpleNamespace(args=tuple(arguments)) for sample in samples for arguments in sample["arguments"]]
        heard.extend(getattr(model, ways[task])(requests))
        return {part: {task: RECORDED[part][task]} for part in ("results", "versions", "higher_is_better", "samples")}

    class TaskManager:
        def __init__(self, include_path: str | None = None):
            self.all_tasks = list(ways)

    modules = {name: ModuleType(name) for name in ("lm_eval", "lm_eval.tasks", "lm_eval.api", "lm_eval.api.model")}
    modules["lm_eval"].__dict__.update(simple_evaluate=simple_evaluate, __version__="0.4.13")
    modules["lm_eval.tasks"].__dict__.update(TaskManager=TaskManager)
    modules["lm_eval.api.model"].__dict__.update(LM=object)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def recorded_answers(task: str) -> list[Any]:
    found = [answer for sample in RECORDED["samples"][task] for answers in sample["resps"] for answer in answers]
    return [tuple(answer) if isinstance(answer, list) else answer for answer in found]


@pytest.mark.parametrize(
    ("task", "rows", "better"),
    [
        ("tides", [{"acc": 0.0, "acc_norm": 1.0}, {"acc": 1.0, "acc_norm": 0.0}], {"acc": True, "acc_norm": True}),
        ("last_word", [{"acc": 0.0, "logprob": -1.25}, {"acc": 1.0, "logprob": -1.5}], {"logprob": True, "acc": True}),
        ("pages", [{"bits_per_byte": 0.25 / math.log(2), "num_bytes": 6}] * 2, {"bits_per_byte": False}),
        (
            "sums",
            [{"exact_match,strict": 0.0, "exact_match,flexible": 0.0}] * 2,
            {"exact_match,strict": True, "exact_match,flexible": True},
        ),
    ],
)
def test_what_lm_eval_asks_is_answered_as_recorded(
    task: str, rows: list[dict[str, float]], better: dict[str, bool], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """" tide" has five characters, so it is not greedy; " ferry" six. Of " low" and " high" the shorter is likelier."""
    heard: list[Any] = []
    install_recording(monkeypatch, heard)
    made = lm_eval_task(LmEvalConfig(task=task), completer=ScriptedCompleter(counts), scorer=Quarters(), run=run)
    assert heard == recorded_answers(task)
    assert [{name: row[name] for name in expected} for row, expected in zip(made.rows, rows, strict=True)] == [  # type: ignore[attr-defined]
        pytest.approx(expected) for expected in rows
    ]
    facts = made.manifest.facts
    assert facts["higher_is_better"] == better and facts["primary"] == next(iter(better)) and facts["version"] == "2.0"
    if task == "last_word":
        mean = sum(row["logprob"] for row in made.rows) / 2  # type: ignore[attr-defined]
        assert facts["lm_eval_results"][task]["perplexity,none"] == pytest.approx(math.exp(-mean))
    if task == "pages":
        told = facts["lm_eval_results"][task]["bits_per_byte,none"]
        assert told == pytest.approx(sum(row["bits_per_byte"] for row in made.rows) / 2)  # type: ignore[attr-defined]


def test_prompts_are_raw_text_or_a_users_message(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    install_recording(monkeypatch, [])
    asked: list[tuple[str, str]] = []

    def reply(conversation: Conversation) -> str:
        asked.extend((m.role, m.content) for m in conversation.messages)
        return "4"

    for chat in (False, True):
        lm_eval_task(LmEvalConfig(task="sums", chat=chat), completer=ScriptedCompleter(reply), run=run)
    assert asked == [("text", " Now?"), ("text", "Later?")] * 2 + [("user", " Now? "), ("user", "Later?")] * 2


def test_a_scorer_that_does_not_tell_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    install_recording(monkeypatch, [])
    silent = Table({" tide": (-1.0, None), " ferry": (-1.0, None)})
    with pytest.raises(UsageError, match="whether a continuation is the greedy one, and the scorer does not tell"):
        lm_eval_task(LmEvalConfig(task="last_word"), scorer=silent, run=run)
    with pytest.raises(UsageError, match="asks for `generate_until`, and there is no completer"):
        lm_eval_task(LmEvalConfig(task="sums"), scorer=silent, run=run)


class Narrow(Quarters):
    """Refuses texts of more than 12 characters, as an engine refuses what is longer than its window."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        if (longest := max(map(len, continuations), default=0)) > 12:
            raise UsageError(f"A text of {longest} characters does not fit.", fix="Score it in shorter pieces.")
        self.seen += [prompt + continuation for prompt, continuation in zip(prompts, continuations, strict=True)]
        return super().score(prompts, continuations)


def test_rolling_texts_longer_than_the_window_are_scored_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """43, 4 and no characters at -0.25 each. Cut after a word where the second half of a window has one; no text has no windows."""
    install_recording(monkeypatch, [])
    texts = ["The tide is out and the boats lie on sand.\n", "Ebb.", ""]
    requests = [SimpleNamespace(args=(text,)) for text in texts]
    scorer = Narrow()
    assert lm_eval_model(None, scorer, window_characters=12).loglikelihood_rolling(requests) == [-10.75, -1.0, 0.0]
    assert scorer.seen == ["The tide is ", "out and the ", "boats lie ", "on sand.\n", "Ebb."]
    with pytest.raises(UsageError, match="does not fit"):
        lm_eval_model(None, scorer).loglikelihood_rolling(requests)


class Lengths:
    """Longer is likelier: `high` wins."""

    @property
    def identity(self) -> Identity:
        return {"engine": "lengths"}

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        return [Score(math.log(len(c)), 1, len(c), False) for c in continuations]


def test_run_by_lm_eval_itself(tmp_path: Path, run: Run) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: an optional adapter")
    source = folder(tmp_path / "t", CHOICE)
    local = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {source / 'rows.jsonl'}}}}}\n"
    (source / "task.yaml").write_text(local + CHOICE)
    made = lm_eval_task(LmEvalConfig(task="tides", num_fewshot=0), folder=source, scorer=Lengths(), run=run)
    assert [(row["item_id"], row["acc"]) for row in made.rows] == [("tides/0", 1.0), ("tides/1", 0.0)]  # type: ignore[attr-defined]
    assert made.manifest.facts["version"] == "2.0" and made.manifest.facts["primary"] == "acc"


def test_a_log_probability_that_is_no_number_does_not_reach_lm_eval(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        identity = {"engine": "broken"}  # noqa: RUF012

        def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
            return [Score(math.nan, 1, 1, True) for _ in prompts]

    install_recording(monkeypatch, [])
    with pytest.raises(MygptError, match="the model gives nan as log-probability"):
        lm_eval_task(LmEvalConfig(task="tides"), scorer=Broken(), run=run)
