"""Labelled texts, tagged words, pairs, raw text and conversations of a user's files: what is read, what is refused, what is held out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mygpt.artifacts.dataset import Dataset, LabelledText, TaggedWords, TextPair
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.data.classes import ClassesConfig, classes
from mygpt.data.conversations import ConversationsConfig, conversations
from mygpt.data.tagged_words import TaggedWordsConfig, as_bio, tagged_words
from mygpt.data.text_pairs import TextPairsConfig, text_pairs
from mygpt.data.texts import TextsConfig, texts

CONLL = "-DOCSTART- -X- O\n\nAda NNP B-PER\nLund NNP I-PER\nsleeps VBZ O\n\nGhent NNP B-LOC\n"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, content: str) -> Path:
        (tmp_path / name).write_text(content, encoding="utf-8")
        return tmp_path / name

    return write


@pytest.fixture
def said(run: Run) -> list[str]:
    found: list[str] = []
    run.listeners.append(lambda event: found.append(event["text"]) if event["event"] == "warning" else None)
    return found


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def read_classes(run: Run, source: Path, held_out: Path | None = None, **settings: Any) -> Dataset:
    return classes(ClassesConfig(**settings), source=source, held_out=held_out, run=run)


def read_tagged(run: Run, source: Path, held_out: Path | None = None, **settings: Any) -> Dataset:
    return tagged_words(TaggedWordsConfig(**{"held_out_share": 0, **settings}), source=source, held_out=held_out, run=run)


# -- classes -------------------------------------------------------------------------------------------------------------------


def test_classes_of_all_file_kinds(run: Run, file: Callable[[str, str], Path], tmp_path: Path) -> None:
    rows = [{"body": f"text {i}", "kind": i % 3 + 8} for i in range(6)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    table = "body,kind\n" + "".join(f"{row['body']},{row['kind']}\n" for row in rows)
    for source in (file("a.csv", table), file("a.jsonl", lines(*rows)), file("a.json", json.dumps(rows)), tmp_path / "a.parquet"):
        found = read_classes(run, source, text="body", label="kind", held_out_share=0)
        assert found.labels == ("8", "9", "10")  # numbers in the order of numbers
        assert found.labelled("train")[1] == LabelledText("text 1", "9", id="2")
        assert found.manifest.facts["rows"] == {"train": 6, "test": 0}
        assert found.manifest.facts["rows_by_label"]["train"] == {"8": 2, "9": 2, "10": 2}


def test_pairs_of_texts(run: Run, file: Callable[[str, str], Path]) -> None:
    source = file("p.jsonl", lines({"a": "x", "b": "y", "label": "yes"}, {"a": "x", "b": "z", "label": "no"}))
    found = read_classes(run, source, text="a", pair="b", held_out_share=0)
    assert found.labelled("train") == [LabelledText("x", "yes", "y", "1"), LabelledText("x", "no", "z", "2")]


def test_held_out_texts_are_not_trained_on(run: Run, file: Callable[[str, str], Path], said: list[str]) -> None:
    """100 distinct texts, each twice: a tenth of the texts is held out, whole; the second copies are dropped, said aloud."""
    rows = [{"text": f"t{i}", "label": "ab"[i % 2]} for i in range(100)] * 2
    found = read_classes(run, file("a.jsonl", lines(*rows)))
    train, test = ({row.text for row in found.labelled(split)} for split in ("train", "test"))
    assert (len(train), len(test)) == (90, 10) and not train & test
    assert said == ["100 of 200 rows stand in the data more than once: each is kept once."]
    again = read_classes(run, file("b.jsonl", lines(*rows)))
    assert [row.text for row in again.labelled("test")] == [row.text for row in found.labelled("test")]


def test_a_held_out_file(run: Run, file: Callable[[str, str], Path], said: list[str]) -> None:
    source = file("a.csv", "text,label\nx,1\ny,2\nz,2\n")
    found = read_classes(run, source, file("t.csv", "text,label\ny,2\n"))
    assert [r.text for r in found.labelled("train")] == ["x", "z"] and [r.text for r in found.labelled("test")] == ["y"]
    assert said == ["1 training rows have a text of the held-out file: they are left out of training."]
    with pytest.raises(UsageError, match=r"t2.csv: the label '3' \(row 1\) is not in .*a.csv"):
        read_classes(run, source, file("t2.csv", "text,label\ny,3\n"))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("text,label\nx,1\n,2\n", "row 2: the field `text` is '', not a text"),
        ("body,label\nx,1\n", "row 1: the field `text` is missing"),
        ("text,label\nx,1\ny,1\n", "all rows have the label '1', so there is nothing to tell apart"),
        ("text,label\n", "has no rows"),
        ("text,label\nx,1,2\n", "row 1 has more cells than the header"),
    ],
)
def test_classes_refused(run: Run, file: Callable[[str, str], Path], content: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        read_classes(run, file("a.csv", content))


def test_two_labels_of_one_text(run: Run, file: Callable[[str, str], Path], said: list[str]) -> None:
    read_classes(run, file("a.csv", "text,label\nx,1\nx,2\ny,1\n"), held_out_share=0)
    assert said == ["1 texts have more than one label, for example 'x': no classifier can be right on both."]


# -- tagged words --------------------------------------------------------------------------------------------------------------


def test_conll_and_lists(run: Run, file: Callable[[str, str], Path]) -> None:
    rows = [{"words": ["Ada", "Lund", "sleeps"], "tags": ["B-PER", "I-PER", "O"]}, {"words": ["Ghent"], "tags": ["B-LOC"]}]
    for source, ids in ((file("a.conll", CONLL), ("line 3", "line 7")), (file("a.jsonl", lines(*rows)), ("row 1", "row 2"))):
        found = read_tagged(run, source)
        assert found.labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
        assert found.tagged("train") == [
            TaggedWords(("Ada", "Lund", "sleeps"), ("B-PER", "I-PER", "O"), ids[0]),
            TaggedWords(("Ghent",), ("B-LOC",), ids[1]),
        ]
        assert found.manifest.facts["entities"]["train"] == {"LOC": 1, "PER": 1}


def test_iob1_by_hand(run: Run, file: Callable[[str, str], Path]) -> None:
    """In IOB1 an entity begins with I; B only parts two neighbours of one kind (CoNLL-2003's own files)."""
    assert as_bio(["I-X", "I-X", "B-X", "I-Y", "O", "I-Y"]) == ["B-X", "I-X", "B-X", "B-Y", "O", "B-Y"]
    found = read_tagged(run, file("a.conll", "Ada I-PER\nLund I-PER\n"), scheme="iob1")
    assert found.tagged("train")[0].tags == ("B-PER", "I-PER")


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.conll", "Ada I-PER\n", r"line 1: 'Ada' has the tag I-PER, and nothing of that kind stands before it \(O\)"),
        ("a.conll", "x B-PER\nAda I-LOC\n", r"line 1: 'Ada' has the tag I-LOC, and nothing of that kind stands before it \(B-PER\)"),
        ("a.conll", "x O\n\ny B-X\nAda\n", "line 4: 'Ada' has a word and no tag"),
        ("a.conll", "Ada PER\n", "line 1: the tag 'PER' of 'Ada' is no BIO tag"),
        ("a.conll", "Ada O\n", "every word has the tag `O`"),
        ("a.jsonl", lines({"words": ["a", "b"], "tags": ["O"]}), "row 1: 2 words in `words` and 1 tags in `tags`"),
        ("a.jsonl", lines({"words": "a b", "tags": ["O"]}), "row 1: the field `words` is 'a b', not a list of texts"),
    ],
)
def test_tagged_refused(run: Run, file: Callable[[str, str], Path], name: str, content: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        read_tagged(run, file(name, content))


def test_entities_of_an_unknown_kind(run: Run, file: Callable[[str, str], Path]) -> None:
    with pytest.raises(UsageError, match="line 1: entities of the kind ORG are not in"):
        read_tagged(run, file("a.conll", CONLL), file("b.conll", "Acme B-ORG\n"))


# -- pairs, texts, conversations -----------------------------------------------------------------------------------------------


def test_text_pairs(run: Run, file: Callable[[str, str], Path]) -> None:
    """Negatives as a list, as one text, as none."""
    rows = ({"q": "a", "p": "b", "n": ["c", "d"]}, {"q": "e", "p": "f", "n": "g"}, {"q": "h", "p": "i"})
    settings = TextPairsConfig(anchor="q", positive="p", negatives="n", held_out_share=0)
    found = text_pairs(settings, source=file("a.jsonl", lines(*rows)), run=run)
    assert found.pairs("train") == [TextPair("a", "b", ("c", "d"), "1"), TextPair("e", "f", ("g",), "2"), TextPair("h", "i", (), "3")]
    with pytest.raises(UsageError, match="row 1: the text of `positive` also stands in `negatives`"):
        text_pairs(TextPairsConfig(), source=file("b.jsonl", lines({"anchor": "a", "positive": "b", "negatives": ["b"]})), run=run)


def test_texts(run: Run, file: Callable[[str, str], Path]) -> None:
    for source in (file("a.txt", "One.\n\nTwo\nlines.\n\n\n"), file("a.jsonl", lines({"text": "One."}, {"text": "Two\nlines."}))):
        found = texts(TextsConfig(held_out_share=0), source=source, run=run)
        assert found.texts("train") == ["One.", "Two\nlines."]
        assert found.split("train")[0].raw_text == "One."
    with pytest.raises(UsageError, match="come from a corpus or from a file"):
        texts(TextsConfig(), run=run)


def test_texts_of_a_corpus(run: Run, file: Callable[[str, str], Path], tmp_path: Path) -> None:
    from mygpt.data.ingest import IngestConfig, ingest

    (tmp_path / "docs").mkdir()
    file("docs/a.md", "The office opens at eight o'clock in the morning. Every visitor signs the book at the door.\n")
    corpus = ingest(IngestConfig(), sources=(tmp_path / "docs",), run=run)
    found = texts(TextsConfig(held_out_share=0), corpus=corpus, run=run)
    assert found.texts("train") == [document.text for document in corpus.stream_documents()]
    assert found.split("train")[0].id == "a.md"


def test_conversations(run: Run, file: Callable[[str, str], Path]) -> None:
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a?"}, {"role": "assistant", "content": "b."}]
    found = conversations(
        ConversationsConfig(held_out_share=0), source=file("a.jsonl", lines({"messages": talk}, {"prompt": "c?", "answer": "d."})), run=run
    )
    assert [[m.role for m in row.messages] for row in found.split("train")] == [["system", "user", "assistant"], ["user", "assistant"]]
    assert [(row.question, row.answer) for row in found.split("train")] == [("a?", "b."), ("c?", "d.")]


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        ("hello", "row 1: the field `messages` is no list of messages"),
        ([{"role": "human", "content": "x"}], "row 1: the field `messages` has the role 'human'"),
        ([{"role": "user", "content": "x"}], "row 1: the field `messages` does not end with an answer"),
        ([], "row 1: the field `messages` does not end with an answer"),
    ],
)
def test_conversations_refused(run: Run, file: Callable[[str, str], Path], messages: Any, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        conversations(ConversationsConfig(), source=file("a.jsonl", lines({"messages": messages})), run=run)


def test_the_restaurants(run: Run) -> None:
    """The set that examples/ brings: 96 and 24 rows, no restaurant in both, every name, dish and neighbour said in its sentence."""
    folder = EXAMPLES / "table_to_text"
    found = conversations(ConversationsConfig(), source=folder / "train.jsonl", held_out=folder / "test.jsonl", run=run)
    assert found.manifest.facts["rows"] == {"train": 96, "test": 24}
    named: dict[str, set[str]] = {"train": set(), "test": set()}
    for split in named:
        for row in found.split(split):
            fields = dict(part.split(": ", 1) for part in row.question.split(" | "))
            named[split].add(fields["name"])
            for field in fields.keys() & {"name", "food", "near"}:
                assert fields[field].lower().rstrip("s") in row.answer.lower(), row
    assert not named["train"] & named["test"]


def test_a_split_of_another_kind(run: Run, file: Callable[[str, str], Path]) -> None:
    found = read_classes(run, file("a.csv", "text,label\nx,1\ny,2\n"), held_out_share=0)
    with pytest.raises(UsageError, match="has rows of the schema `class`, and this needs `sft` or `text`"):
        found.split("train")
