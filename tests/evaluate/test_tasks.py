"""The readers: each on a few rows of our own in the layout of its data set, the user's own tasks, and what is wrong with a file."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mygpt.artifacts.task import Item, Task, TaskSettings
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.harness import RunTaskConfig, run_task
from mygpt.evaluate.prompts import continuations, conversation, text_prompt
from mygpt.evaluate.tasks import BUILTIN, ReadTaskConfig, builtin_task, read_task
from mygpt.infer.protocols import Score


def lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(name: str, source: Path | None, run: Run, examples: Path | None = None) -> Task:
    made = read_task(ReadTaskConfig(builtin=name), source=source, examples=examples, run=run)
    assert isinstance(made, Task)
    return made


def seen(task: Task, number: int = 0) -> tuple[str, list[str], int | None]:
    """What a model is asked: prompt, continuations, right one."""
    item = task.items[number]
    return text_prompt(task.settings, item), continuations(task.settings, item), item.gold


# -- the table ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", BUILTIN, ids=lambda t: t.name)
def test_every_row_has_its_reader(task: Any) -> None:
    assert callable(task.reader) and task.about


def test_nearest_names(run: Run) -> None:
    assert builtin_task("gsm8k").path == "mygpt.evaluate.tasks.gsm8k:five_shot"
    with pytest.raises(UsageError) as error:
        builtin_task("helaswag")
    assert (error.value.what, error.value.fix) == ("There is no built-in task `helaswag`.", "Did you mean `hellaswag`?")
    with pytest.raises(UsageError, match="Known: gsm8k, gsm8k_chat"):
        builtin_task("zzz")
    with pytest.raises(UsageError, match=r"`mmlu` needs its file \(question, choices, answer\)"):
        read_task(ReadTaskConfig(builtin="mmlu"), run=run)
    with pytest.raises(UsageError, match="No task was named"):
        read_task(ReadTaskConfig(), run=run)


# -- built in -------------------------------------------------------------------------------------------------------------

WORD_PROBLEMS = [
    {"question": "Ada has 2 pens and buys 3. How many?", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"},
    {"question": "A hall seats 1200. Half are taken. How many?", "answer": "1200 / 2 = 600\n#### 1,200"},
    {"question": "It falls from 3 to -4. To what?", "answer": "To -4.\n#### -4"},
]


def test_gsm8k(tmp_path: Path, run: Run) -> None:
    source = lines(tmp_path / "test.jsonl", WORD_PROBLEMS)
    task = read("gsm8k", source, run)
    assert [item.references for item in task.items] == [("5",), ("1200",), ("-4",)]
    prompt = conversation(task.settings, task.items[0]).question
    assert prompt.count("Question: ") == 6 and prompt.count("\n#### ") == 5
    assert prompt.endswith("#### 30\n\nQuestion: Ada has 2 pens and buys 3. How many?\nAnswer:")
    assert task.settings.stop == ("Question:",)
    shown = read("gsm8k", source, run, examples=source).settings.examples
    assert [e.answer for e in shown] == [row["answer"] for row in WORD_PROBLEMS]
    chat = read("gsm8k_chat", source, run)
    assert conversation(chat.settings, chat.items[0]).question.startswith("Ada has 2 pens and buys 3. How many?\n\nThink step by step.")
    with pytest.raises(UsageError, match="row 1: the field `answer` has no `#### NUMBER`"):
        read("gsm8k", lines(tmp_path / "bad.jsonl", [{"question": "a", "answer": "5"}] * 2), run)


def test_our_own_examples_are_right() -> None:
    """`<<2+3=5>>`: what stands before the sign equals what stands behind it, and the last result is the answer."""
    import re

    from mygpt.evaluate.tasks import gsm8k

    for example in gsm8k._OWN:
        steps = re.findall(r"<<([0-9+*/ -]+)=([0-9.]+)>>", example.answer)
        for terms, result in steps:
            a, sign, b = re.fullmatch(r"(\d+)([-+*/])(\d+)", terms).groups()  # type: ignore[union-attr]
            assert {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b), "/": int(a) / int(b)}[sign] == float(result)
        assert example.answer.endswith(f"#### {steps[-1][1]}")


def test_hellaswag(tmp_path: Path, run: Run) -> None:
    endings = ["rows home. [substeps] He rests.", "eats the oar.", "flies off.", "sings  loudly."]
    row = {
        "ind": 7,
        "activity_label": "Rowing",
        "ctx_a": "A man sits in a boat.",
        "ctx_b": "he [title] then",
        "endings": endings,
        "label": "0",
    }
    task = read("hellaswag", lines(tmp_path / "a.jsonl", [row, {**row, "ind": 8, "ctx_b": "", "label": "3"}]), run)
    prompt, choices, gold = seen(task)
    assert prompt == "Rowing: A man sits in a boat. He. then"
    assert (choices[0], choices[3], gold) == (" rows home. He rests.", " sings loudly.", 0)
    assert ([item.id for item in task.items], task.items[1].gold, task.primary) == (["7", "8"], 3, "acc_norm")
    assert text_prompt(task.settings, task.items[1]) == "Rowing: A man sits in a boat."


def test_arc_in_both_layouts(tmp_path: Path, run: Run) -> None:
    hub = {"id": "x1", "question": "What melts?", "choices": {"text": ["ice", "stone", "air"], "label": ["A", "B", "C"]}, "answerKey": "A"}
    own = {
        "id": "x2",
        "question": {"stem": "What burns?", "choices": [{"text": "wood", "label": "1"}, {"text": "water", "label": "2"}]},
        "answerKey": "1",
    }
    task = read("arc", lines(tmp_path / "a.jsonl", [hub, own]), run)
    assert seen(task) == ("Question: What melts?\nAnswer:", [" ice", " stone", " air"], 0)
    assert seen(task, 1) == ("Question: What burns?\nAnswer:", [" wood", " water"], 0)
    assert task.settings.chance == pytest.approx((1 / 3 + 1 / 2) / 2, abs=1e-4)
    with pytest.raises(UsageError, match="row 1: the field `answerKey` is `D`, and the labels are"):
        read("arc", lines(tmp_path / "b.jsonl", [{**hub, "answerKey": "D"}, own]), run)


def test_mmlu(tmp_path: Path, run: Run) -> None:
    rows = [{"question": f"{n} + 1?", "choices": ["1", "2", "3", "4"], "answer": n, "subject": "sums"} for n in range(3)]
    task = read("mmlu", lines(tmp_path / "a.jsonl", rows), run)
    assert seen(task, 2) == ("2 + 1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:", [" A", " B", " C", " D"], 2)
    shown = read("mmlu", tmp_path / "a.jsonl", run, examples=tmp_path / "a.jsonl")
    assert seen(shown)[0].startswith("0 + 1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: A\n\n1 + 1?\n")
    table = tmp_path / "a.csv"
    table.write_text('question,A,B,C,D,answer\n"2, or 3?",2,3,4,5,B\n1?,1,2,3,4,A\n')
    assert [item.gold for item in read("mmlu", table, run).items] == [1, 0]


def test_truthfulqa(tmp_path: Path, run: Run) -> None:
    one = {"choices": ["No.", "Yes."], "labels": [1, 0]}
    many = {"choices": ["No.", "Yes.", "Never."], "labels": [1, 0, 1]}
    rows = [{"question": "Do fish fly?", "mc1_targets": one, "mc2_targets": many}] * 2
    source = lines(tmp_path / "a.jsonl", rows)
    first = read("truthfulqa_mc1", source, run)
    assert seen(first) == ("Q: Do fish fly?\nA:", [" No.", " Yes."], 0)
    both = read("truthfulqa_mc2", source, run)
    assert (both.items[0].facts["true_choices"], both.primary, both.settings.chance) == ("0 2", "mc2", pytest.approx(2 / 3, abs=1e-4))


def test_glue_forms(tmp_path: Path, run: Run) -> None:
    boolq = [{"passage": "Ice floats.", "question": "does ice float", "answer": True}, {"passage": "x", "question": "y", "answer": False}]
    task = read("boolq", lines(tmp_path / "boolq.jsonl", boolq), run)
    assert seen(task) == ("Ice floats.\nQuestion: does ice float?\nAnswer:", [" no", " yes"], 1)
    pairs = [{"sentence1": "It rains.", "sentence2": "It is wet.", "label": 0}, {"sentence1": "a", "sentence2": "b", "label": 1}]
    source = lines(tmp_path / "pairs.jsonl", pairs)
    assert seen(read("rte", source, run)) == ("It rains.\nQuestion: It is wet. True or False?\nAnswer:", [" True", " False"], 0)
    named = lines(tmp_path / "named.jsonl", [{"premise": "p", "hypothesis": "h", "label": "not_entailment"}] * 2)
    assert read("rte", named, run).items[0].gold == 1
    prompt, choices, gold = seen(read("mrpc", source, run))
    assert (prompt.splitlines()[:2], choices, gold) == (["Sentence 1: It rains.", "Sentence 2: It is wet."], [" no", " yes"], 0)
    films = [{"idx": 4, "sentence": "A joy.", "label": 1}, {"idx": 5, "sentence": "Dull.", "label": 0}]
    task = read("sst2", lines(tmp_path / "sst2.jsonl", films), run)
    assert seen(task) == ("A joy.\nQuestion: Is this sentence positive or negative?\nAnswer:", [" negative", " positive"], 1)
    assert task.settings.chance == task.manifest.facts["commonest_label"] == 0.5


def test_squad_in_both_layouts(tmp_path: Path, run: Run) -> None:
    flat = [
        {
            "id": "q1",
            "context": "The pier is 40 m long.",
            "question": "How long?",
            "answers": {"text": ["40 m", "40 m"], "answer_start": [12, 12]},
        },
        {"id": "q2", "context": "The pier is 40 m long.", "question": "How old?", "answers": {"text": [], "answer_start": []}},
    ]
    task = read("squad", lines(tmp_path / "a.jsonl", flat), run)
    assert [item.references for item in task.items] == [("40 m",), ("unanswerable",)]
    assert task.items[0].cluster == task.items[1].cluster == "The pier is 40 m long."
    assert '"unanswerable"' in conversation(task.settings, task.items[0]).question
    nested = {"data": [{"title": "Pier", "paragraphs": [{"context": c, "qas": [_asked(c)]} for c in ("It is wet.", "It is dry.")]}]}
    (tmp_path / "b.json").write_text(json.dumps(nested))
    task = read("squad", tmp_path / "b.json", run)
    assert [(i.id, i.references) for i in task.items] == [("It is wet.", ("wet",)), ("It is dry.", ("dry",))]


def _asked(context: str) -> dict[str, Any]:
    return {"id": context, "question": "How is it?", "answers": [{"text": context[6:9], "answer_start": 6}]}


def slices(task: Task) -> list[str | None]:
    return [item.facts.get("slice") for item in task.items]


def test_slices_where_a_set_has_parts(tmp_path: Path, run: Run) -> None:
    """Subject, exam, source, title, category, class; a column `slice` goes before them."""
    four = {"question": "Which?", "choices": ["1", "2", "3", "4"], "answer": 0}
    mmlu = [{**four, "subject": "law"}, {**four, "subject": "law", "slice": "mine"}, four]
    assert slices(read("mmlu", lines(tmp_path / "m.jsonl", mmlu), run)) == ["law", "mine", None]
    arc = {"question": "What melts?", "choices": {"text": ["ice", "air"], "label": ["A", "B"]}, "answerKey": "A"}
    named = [{**arc, "id": name} for name in ("Mercury_7175875", "MCAS_2000_4_6", "7")] + [{**arc, "id": "A_1", "subject": "physics"}]
    assert slices(read("arc", lines(tmp_path / "a.jsonl", named), run)) == ["Mercury", "MCAS", None, "physics"]
    ending = {"activity_label": "Rowing", "ctx_a": "A man sits.", "ctx_b": "he", "endings": ["a", "b", "c", "d"], "label": "0"}
    sources = [{**ending, "ind": 1, "source_id": "activitynet~v_x"}, {**ending, "ind": 2, "source_id": "wikihow~9"}, {**ending, "ind": 3}]
    assert slices(read("hellaswag", lines(tmp_path / "h.jsonl", sources), run)) == ["activitynet", "wikihow", None]
    asked = {"context": "Oslo is a town.", "question": "What is Oslo?", "answers": {"text": ["a town"]}, "title": "Oslo"}
    assert slices(read("squad", lines(tmp_path / "s.jsonl", [asked, asked]), run)) == ["Oslo", "Oslo"]
    targets = {"choices": ["yes", "no"], "labels": [1, 0]}
    true = {"question": "Is it?", "mc1_targets": targets, "mc2_targets": targets}
    assert slices(read("truthfulqa_mc1", lines(tmp_path / "t.jsonl", [{**true, "category": "Health"}, true]), run)) == ["Health", None]
    rated = [{"sentence": "Good.", "label": 1}, {"sentence": "Bad.", "label": 0}]
    assert slices(read("sst2", lines(tmp_path / "g.jsonl", rated), run)) == ["positive", "negative"]
    news = [{"prompt": "Goal! Which section?", "completion": label} for label in ("Sports", "Business<|endoftext|>")]
    assert slices(read("t0_ag_news", lines(tmp_path / "n.jsonl", news), run)) == ["Sports", "Business"]
    assert set(slices(read("arithmetic_1_digit", None, run))) == {"plus", "minus", "times"}


def test_slices_reach_the_rows(tmp_path: Path, run: Run) -> None:
    """A scorer that always likes "positive" more: right on all 10 of one class and on none of the other."""

    class Cheerful:
        identity = {"engine": "cheerful"}  # noqa: RUF012

        def score(self, prompts: list[str], continuations: list[str]) -> list[Score]:
            return [Score(-1.0 if c == " positive" else -2.0, 1, len(c)) for c in continuations]

    rows = [{"sentence": f"Film {n}.", "label": n % 2} for n in range(20)]
    made = run_task(RunTaskConfig(), task=read("sst2", lines(tmp_path / "g.jsonl", rows), run), scorer=Cheerful(), run=run)  # type: ignore[arg-type]
    assert Counter((row["slice"], row["acc"]) for row in made.rows) == {("positive", 1.0): 10, ("negative", 0.0): 10}


def test_summaries_bbh_and_text(tmp_path: Path, run: Run) -> None:
    rows = [{"id": "s1", "dialogue": "A: Tea?\nB: Yes.", "summary": "They have tea."}, {"id": "s2", "dialogue": "x", "summary": "y"}]
    task = read("summaries", lines(tmp_path / "s.jsonl", rows), run)
    assert (task.items[0].references, task.primary) == (("They have tea.",), "rouge_l")
    (tmp_path / "b.json").write_text(
        json.dumps({"examples": [{"input": "not True is", "target": "False"}, {"input": "a", "target": "(A)"}]})
    )
    task = read("bbh", tmp_path / "b.json", run)
    assert (task.items[0].references, task.settings.primary) == (("False",), "exact_match_strict")
    (tmp_path / "t.txt").write_text("One line.\n\n" * 500)
    task = read("text", tmp_path / "t.txt", run)
    assert "".join(item.question for item in task.items) == "One line.\n\n" * 500


def test_ifeval(tmp_path: Path, run: Run) -> None:
    row = {
        "key": 1000,
        "prompt": "Write without commas, at least 3 words.",
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
        "kwargs": [{}, {"relation": "at least", "num_words": 3, "language": None}],
    }
    task = read("ifeval", lines(tmp_path / "a.jsonl", [row, {**row, "key": 1001}]), run)
    assert json.loads(task.items[0].facts["instructions"])[1] == {
        "id": "length_constraints:number_words",
        "kwargs": {"relation": "at least", "num_words": 3},
    }
    for changed, what in (
        ({"instruction_id_list": ["style:rhyme", "punctuation:no_comma"]}, "row 1: The instruction `style:rhyme` cannot be checked"),
        ({"kwargs": [{}]}, "row 1: the field `kwargs` does not have one object for each of 2 instructions"),
        ({"kwargs": [{}, {"relation": "at least"}]}, "row 1: the field `kwargs` of `length_constraints:number_words` lacks 'num_words'"),
    ):
        with pytest.raises(UsageError, match=what):
            read("ifeval", lines(tmp_path / "bad.jsonl", [{**row, **changed}, row]), run)


def test_arithmetic_is_right_and_always_the_same(run: Run) -> None:
    for name in ("arithmetic_1_digit", "arithmetic_2_digit"):
        task = read(name, None, run)
        assert len(task.items) == 100
        for item in task.items:
            a, word, b = item.question.removeprefix("What is ").removesuffix("?").split()
            assert {"plus": int(a) + int(b), "minus": int(a) - int(b), "times": int(a) * int(b)}[word] == int(item.references[0]) >= 0
    task = read("arithmetic_choice", None, run)
    golds = [item.gold for item in task.items]
    assert all(golds.count(place) > 10 for place in range(4))  # the right one stands anywhere
    assert task.items[0].id == "1-0" or len({item.id for item in task.items}) == 100
    assert text_prompt(task.settings, task.items[0]).startswith("20 + 10 = 30\n30 - 20 = 10\n")


# -- T0, on the real files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file", "chance", "commonest"),
    [
        ("t0_ag_news", "ag_news_which_section_choices", 1 / 4, 122 / 200),
        ("t0_paws", "paws_labeled_final_Concatenation", 1 / 2, 109 / 200),
        ("t0_mrpc", "glue_mrpc_equivalent", 1 / 2, 142 / 200),
        ("t0_imdb", "imdb_Reviewer_Expressed_Sentiment", 1.0, 1.0),  # all 200 are negative
        ("t0_qasc", "qasc_qa_with_separated_facts_1", 1 / 8, None),
        ("t0_cosmos_qa", "cosmos_qa_context_question_description_answer_text", 1 / 4, None),
    ],
)
def test_t0(name: str, file: str, chance: float, commonest: float | None, shared_data: Path, run: Run) -> None:
    task = read(name, shared_data / "t0" / f"{file}.jsonl", run)
    assert (len(task.items), task.settings.chance, task.manifest.facts["commonest_label"]) == (
        200,
        pytest.approx(chance, abs=0.01),
        commonest,
    )
    prompt, choices, gold = seen(task)
    assert prompt == prompt.strip() and gold is not None
    completion = json.loads((shared_data / "t0" / f"{file}.jsonl").read_text().split("\n")[0])["completion"]
    assert choices[gold] == f"\n{completion.removesuffix('<|endoftext|>')}"


def test_t0_without_labels_is_refused(shared_data: Path, run: Run) -> None:
    with pytest.raises(UsageError, match=r"trec_trec1.jsonl, row 1: the field `completion` is empty, so there is no right answer"):
        read("t0_trec", shared_data / "t0" / "trec_trec1.jsonl", run)


# -- your own -------------------------------------------------------------------------------------------------------------

OWN = """\
name: tides
version: 1
form: choice
data: rows.csv
fields: {question: frage}
prompt: "{question} ({place})\\nAnswer:"
chance: 0.5
"""


def own(folder: Path, settings: str = OWN, rows: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "task.yaml").write_text(settings)
    table = 'id,frage,choices,gold,place\na,Is it high?,"[""low"", ""high""]",1,quay\nb,Is it low?,"[""low"", ""high""]",low,pier\n'
    (folder / "rows.csv").write_text(rows or table)
    return folder


def test_a_task_of_your_own(tmp_path: Path, run: Run) -> None:
    task = read_task(ReadTaskConfig(), source=own(tmp_path / "tides"), run=run)
    assert isinstance(task, Task)
    assert (task.name, task.version, task.primary, task.settings.chance) == ("tides", "1", "acc", 0.5)
    assert seen(task) == ("Is it high? (quay)\nAnswer:", [" low", " high"], 1)
    assert [item.gold for item in task.items] == [1, 0]
    assert task.items[0] == Item("a", "Is it high?", ("low", "high"), 1, (), {"place": "quay"})


def test_items_inside_the_yaml(tmp_path: Path, run: Run) -> None:
    written = "name: capitals\nversion: '3'\nform: generate\nitems:\n- {question: Of Norway, reference: Oslo}\n"
    (tmp_path / "task.yaml").write_text(written + "- {question: Of Chile, references: [Santiago, Santiago de Chile]}\n")
    task = read_task(ReadTaskConfig(version="4"), source=tmp_path / "task.yaml", run=run)
    assert isinstance(task, Task)
    assert [(i.id, i.references) for i in task.items] == [("1", ("Oslo",)), ("2", ("Santiago", "Santiago de Chile"))]
    assert (task.version, task.primary) == ("4", "f1")


@pytest.mark.parametrize(
    ("settings", "rows", "what"),
    [
        (OWN.replace("version: 1\n", ""), "", r"task.yaml: the field `version` is missing"),
        (OWN.replace("name: tides\n", ""), "", r"task.yaml: the field `name` is missing"),
        (OWN + "promt: x\n", "", r"Unknown setting `promt`. Did you mean `prompt`\?"),
        (OWN.replace("{place}", "{town}"), "", "Item `a` of the task `tides` has no field `town`"),
        (OWN.replace("frage}", "fragen}"), "", r"rows.csv, row 1: the field `fragen` is missing. It has: `id`, `frage`"),
        (OWN, "id,frage,choices,place\na,b,[],c\n", r"rows.csv, row 1: the field `gold` is missing"),
        (OWN, "id,frage,choices,gold,place\na,b,red,0,c\n", r"rows.csv, row 1: the field `choices` is 'red', not a list of texts"),
        (OWN, 'id,frage,choices,gold,place\na,b,"[""x"",""y""]",7,c\n', r"row 1: the field `gold` is '7', which is none of the 2 choices"),
        (OWN, 'id,frage,choices,gold,place\na,,"[""x"",""y""]",0,c\n', r"rows.csv, row 1: the field `question` is '', not a text"),
        (OWN, "id,frage\na,b,c\n", "rows.csv, row 1 has more cells than the header"),
        (OWN, "id,frage,choices,gold,place\n", "rows.csv has no rows"),
        (OWN.replace("rows.csv", "../rows.csv"), "", "lies outside the folder"),
        (OWN.replace("data: rows.csv\n", ""), "", "exactly one of `data` and `items`"),
        ("a: [", "", "task.yaml is no YAML"),
        ("- a", "", "task.yaml holds no settings"),
    ],
)
def test_what_is_wrong_with_it(settings: str, rows: str, what: str, tmp_path: Path, run: Run) -> None:
    with pytest.raises(UsageError, match=what):
        read_task(ReadTaskConfig(), source=own(tmp_path / "tides", settings, rows), run=run)


def test_twice_the_same_id_and_too_few(tmp_path: Path, run: Run) -> None:
    line = 'a,Is it high?,"[""low"", ""high""]",1,quay\n'
    with pytest.raises(UsageError, match="has 1 ids more than once: `a`"):
        read_task(ReadTaskConfig(), source=own(tmp_path / "twice", rows="id,frage,choices,gold,place\n" + line * 2), run=run)
    with pytest.raises(UsageError, match="has 1 item"):
        read_task(ReadTaskConfig(), source=own(tmp_path / "one", rows="id,frage,choices,gold,place\n" + line), run=run)


def test_a_yaml_without_its_folder(tmp_path: Path, run: Run) -> None:
    """Its data would not be part of what the task is addressed by."""
    with pytest.raises(UsageError, match=r"names its data, rows.csv, in another file"):
        read_task(ReadTaskConfig(), source=own(tmp_path / "tides") / "task.yaml", run=run)
    with pytest.raises(UsageError, match=r"holds no task\.yaml"):
        read_task(ReadTaskConfig(), source=tmp_path, run=run)
    with pytest.raises(UsageError, match="is no task"):
        read_task(ReadTaskConfig(), source=tmp_path / "tides" / "rows.csv", run=run)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.jsonl", b'{"question": "a"}\n{broken\n', r"a.jsonl, row 2 is no JSON"),
        ("a.jsonl", b"[1]\n", r"a.jsonl, row 1 is \[1\], not an object"),
        ("a.json", b'{"x": 1}', "a.json holds no list of objects"),
        ("a.jsonl", b"\xff\xfe", "a.jsonl cannot be read"),
        ("a.parquet", b"no", "a.parquet is no Parquet file"),
        ("a.docx", b"", "a.docx is no data file"),
    ],
)
def test_files_that_do_not_parse(name: str, content: bytes, what: str, tmp_path: Path, run: Run) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=what):
        read("sst2", tmp_path / name, run)


def test_log_of_nothing_is_not_asked(run: Run) -> None:
    """The settings of every built-in task that needs no file are sound: their chance is a rate."""
    for task in BUILTIN:
        if not task.file:
            settings: TaskSettings = read(task.name, None, run).settings
            assert settings.chance is not None and 0 <= settings.chance < 1 and math.isfinite(settings.chance)
