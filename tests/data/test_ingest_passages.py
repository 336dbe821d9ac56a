"""Sentences, passages and languages."""

import itertools
import random

import pytest

from mygpt.artifacts.sentences import blocks, split_sentences
from mygpt.data.language import detect_language
from mygpt.data.passages import cut, heading_places, num_words


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One is here. Two is there! Is three? Yes.", ["One is here.", "Two is there!", "Is three?", "Yes."]),
        ("Dr. Smith met Prof. J. R. Moore, e.g. in Bern. They ate.", ["Dr. Smith met Prof. J. R. Moore, e.g. in Bern.", "They ate."]),
        ("See Fig. 3 and No. 5 on pp. 10. It ends.", ["See Fig. 3 and No. 5 on pp. 10.", "It ends."]),
        (
            "Needs Python 3.11.2 or v1.0. Get it at https://a.b/c.d?e=f. Done.",
            ["Needs Python 3.11.2 or v1.0.", "Get it at https://a.b/c.d?e=f.", "Done."],
        ),
        ("It costs 3.50 EUR. In 2020. The end", ["It costs 3.50 EUR.", "In 2020.", "The end"]),
        (
            "He works at Acme Inc. and likes it. The U.S. office closed. The U.S. The end.",
            ["He works at Acme Inc. and likes it.", "The U.S. office closed.", "The U.S.", "The end."],
        ),
        ('She said "Stop." Then she left. (Really.) Good.', ['She said "Stop."', "Then she left.", "(Really.)", "Good."]),
        (
            "Call `a. B` or [x. Y](https://z.org). httpx.get works. iPhone too.",
            ["Call `a. B` or [x. Y](https://z.org).", "httpx.get works.", "iPhone too."],
        ),
        ("Wait... what is it? ok then", ["Wait... what is it? ok then"]),
        ("Das gilt z.B. für Nr. 5 bzw. Abs. 2. Danach nicht.", ["Das gilt z.B. für Nr. 5 bzw. Abs. 2.", "Danach nicht."]),
        ("人人生而自由。他们有理性!好吗?好。", ["人人生而自由。", "他们有理性!好吗?好。"]),
        ("これは本です。それは?「はい。」", ["これは本です。", "それは?「はい。」"]),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_sentences_respect_markdown() -> None:
    text = "# Title. Of it\n\nIntro one. Intro\ntwo.\n\n1. First step. Do it.\n- Point a\n\n```\na = 1. \nB = 2\n```\n\n"
    text += "| A. B | c |\n| --- | --- |\n| 1. X | 2 |\n\n> Quote. More."
    assert sentences(text) == [
        "Title. Of it", "Intro one.", "Intro\ntwo.", "First step.", "Do it.", "Point a", "```\na = 1. \nB = 2\n```",
        "| A. B | c |", "| 1. X | 2 |", "Quote.", "More.",
    ]  # fmt: skip


def test_sentence_ranges_are_in_order_trimmed_and_lose_no_letter() -> None:
    rng = random.Random(7)
    alphabet = ["a", "B", ".", "!", " ", "\n", "\n\n", "```\n", "| x |\n", "- ", "# ", "1. ", "(", '"', "é", "。", "---\n", "    "]
    for _ in range(400):
        text = "".join(rng.choice(alphabet) for _ in range(60))
        ranges = split_sentences(text)
        assert all(0 <= a < b <= len(text) and text[a:b] == text[a:b].strip() for a, b in ranges)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(ranges))
        covered = "".join(text[a:b] for a, b in ranges)
        assert sum(covered.count(c) for c in "aBé") == sum(text.count(c) for c in "aBé")


def test_blocks() -> None:
    text = "Title\n=====\n\npara one\npara two\nSub\n---\n* a\n  more\n* b\n\n~~~py\nx\n\ny\n~~~\n***\n\n    indented code\n"
    assert [(b.kind, text[b.start : b.end]) for b in blocks(text)] == [
        ("heading", "Title"),
        ("paragraph", "para one\npara two\nSub"),
        ("item", "* a\n  more"),
        ("item", "* b"),
        ("code", "~~~py\nx\n\ny\n~~~"),
        ("code", "indented code"),
    ]


def paragraph(words: int, word: str = "word") -> str:
    """Sentences of ten words."""
    return " ".join(" ".join([word] * 9) + f" {word}." for _ in range(words // 10))


def test_passages_stay_in_their_section_and_close_to_the_target() -> None:
    text = f"# T\n\n## A\n\n{paragraph(300)}\n\n## B\n\n{paragraph(20)}\n\n{paragraph(30)}\n\n## Empty\n\n### C\n\n{paragraph(100)}"
    cuts = cut(text, heading_places(text), 120)
    # A: 302 words with its heading = 120 + 120 + the rest; "# T" has no text of its own and opens A's first passage.
    assert [place for _, _, place in cuts] == ["A", "A", "A", "B", "Empty > C"]
    assert text[: cuts[0][1]].startswith("# T\n\n## A\n\nword")
    assert text[cuts[3][0] : cuts[3][1]] == f"## B\n\n{paragraph(20)}\n\n{paragraph(30)}"
    assert text[cuts[4][0] : cuts[4][1]].startswith("## Empty\n\n### C")
    assert all(60 <= num_words(text[a:b]) <= 168 for a, b, place in cuts if place == "A")
    assert all(text[b - 1] == "." for _, b, _ in cuts)


def test_a_boundary_inside_a_paragraph_splits_it() -> None:
    text = f"{paragraph(50)} {paragraph(50)}"
    middle = len(paragraph(50)) + 1
    assert cut(text, ((0, "page 1"), (middle, "page 2")), 120) == [(0, middle - 1, "page 1"), (middle, len(text), "page 2")]


def test_code_stays_whole_and_tables_break_at_rows() -> None:
    code = "```\n" + "\n".join(f"call({i}, {i})" for i in range(50)) + "\n```"
    text = f"{paragraph(90)}\n\nRun this:\n\n{code}"
    pieces = [text[a:b] for a, b, _ in cut(text, (), 120)]
    assert pieces == [paragraph(90), f"Run this:\n\n{code}"]
    table = "| a | b |\n| --- | --- |\n" + "\n".join(f"| row {i} | {'x ' * 10}|" for i in range(40))
    pieces = [table[a:b] for a, b, _ in cut(table, (), 120)]
    assert len(pieces) > 3
    assert all(piece.startswith("| ") and piece.endswith("|") for piece in pieces)
    assert sum(piece.count("| row ") for piece in pieces) == 40


@pytest.mark.parametrize("text", ["x" * 20_000, "word " * 3000, "人生而自由" * 1000, "a" * 5000 + " b " + "c" * 5000])
def test_text_without_sentences_is_still_cut(text: str) -> None:
    cuts = cut(text, (), 120)
    assert all(num_words(text[a:b]) <= 168 for a, b, _ in cuts)
    assert "".join("".join(text[a:b].split()) for a, b, _ in cuts) == "".join(text.split())


def test_no_text_no_passage() -> None:
    assert cut("", (), 120) == []
    assert cut("# Only a title", ((0, "Only a title"),), 120) == [(0, 14, "Only a title")]


# Universal Declaration of Human Rights, article 1 (public domain).
RIGHTS = {
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de conscience.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y conciencia.",
    "it": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di ragione e di coscienza.",
    "nl": "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren. Zij zijn begiftigd met verstand en geweten.",
    "pl": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni obdarzeni rozumem i sumieniem.",
    "tr": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler.",
    "ru": "Все люди рождаются свободными и равными в своём достоинстве и правах.",
    "el": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "zh": "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心。",
}


@pytest.mark.parametrize("language", RIGHTS)
def test_languages(language: str) -> None:
    assert detect_language(RIGHTS[language]) == language


@pytest.mark.parametrize(
    "text",
    ["", "123 456 789", "ok", "```python\nimport os\nfor name in os.listdir():\n    print(name)\n```", "| 1 | 2 |\n|---|---|\n| 3 | 4 |"],
)
def test_unsure_when_there_is_no_prose(text: str) -> None:
    assert detect_language(text) == ""


def test_code_does_not_change_the_language_of_the_text_around_it() -> None:
    code = "```python\n" + "value = compute_total(items, start=0)\n" * 40 + "```"
    assert detect_language(f"{RIGHTS['de']}\n\n{code}\n\n{RIGHTS['de']}") == "de"
