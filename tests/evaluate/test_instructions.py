"""Each check of IFEval on an answer that obeys and one that does not; both read off the instruction's own words."""

from typing import Any

import pytest

from mygpt.artifacts.task import Item, TaskSettings
from mygpt.core.errors import UsageError
from mygpt.evaluate.instructions import CHECKS, follows
from mygpt.evaluate.scoring import scored_answer

CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["tide", "moon"]}, "The Moon pulls the tide.", "The moon pulls."),
    ("keywords:frequency", {"keyword": "ebb", "relation": "at least", "frequency": 2}, "Ebb, then ebb.", "Ebb, then flood."),
    ("keywords:forbidden_words", {"forbidden_words": ["sea"]}, "The season is long.", "The Sea is calm."),
    ("keywords:letter_frequency", {"letter": "z", "let_relation": "less than", "let_frequency": 2}, "A zebra.", "A Zebra in a zoo."),
    ("language:response_language", {"language": "de"}, "Das Wetter ist heute schön und die See ist ruhig.", "The weather is fine today."),
    ("length_constraints:number_sentences", {"relation": "less than", "num_sentences": 3}, "One. Two.", "One. Two! Three?"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One.\n***\nTwo.", "One.\n\nTwo."),
    ("length_constraints:number_words", {"relation": "at least", "num_words": 3}, "one two three", "one two"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        "First.\n\nThen more.",
        "Then.\n\nFirst.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name], [place]", "[name]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Yes.\nP.S. Bring a coat.", "Yes."),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n* two", "* one\n* two\n- three"),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", "Perhaps."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*one* and **two**", "*one* and two"),
    ("detectable_format:multiple_sections", {"section_spliter": "SECTION", "num_sections": 2}, "SECTION 1\na\nSECTION 2\nb", "SECTION 1"),
    ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', "{a: 1}"),
    ("detectable_format:title", {}, "<<Tides>>\nThey rise.", "Tides"),
    ("combination:two_responses", {}, "Yes.\n******\nNo.", "Yes.\n******\nYes."),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "Say it. It.", "It. Say it."),
    ("startend:end_checker", {"end_phrase": "Any questions?"}, "So it is. Any questions?", "Any questions? So it is."),
    ("startend:quotation", {}, '"So it is."', "So it is."),
    ("change_case:capital_word_frequency", {"capital_relation": "at least", "capital_frequency": 2}, "HIGH and LOW", "HIGH and low"),
    ("change_case:english_capital", {}, "HIGH TIDE, 4 PM", "High tide"),
    ("change_case:english_lowercase", {}, "high tide, 4 pm", "High tide"),
    ("punctuation:no_comma", {}, "High and low.", "High, then low."),
]


def test_every_check_has_a_case() -> None:
    assert sorted(CHECKS) == sorted(case[0] for case in CASES)
    assert len(CHECKS) == 25  # table 1 of the paper


@pytest.mark.parametrize(("instruction", "arguments", "obeys", "does_not"), CASES, ids=[case[0] for case in CASES])
def test_check(instruction: str, arguments: dict[str, Any], obeys: str, does_not: str) -> None:
    assert follows(obeys, instruction, arguments)
    assert not follows(does_not, instruction, arguments)
    assert not follows("  ", instruction, arguments)


def test_an_unknown_instruction_and_relation() -> None:
    with pytest.raises(UsageError, match="The instruction `style:rhyme` cannot be checked"):
        follows("x", "style:rhyme", {})
    with pytest.raises(UsageError, match="`about` is no relation"):
        follows("x", "length_constraints:number_words", {"relation": "about", "num_words": 3})


def test_strict_and_loose() -> None:
    """ "Sure!" before the answer breaks the strict reading of `english_lowercase` and not the loose one (first line left out)."""
    both = '[{"id": "change_case:english_lowercase", "kwargs": {}}, {"id": "punctuation:no_comma", "kwargs": {}}]'
    item = Item("a", "Write.", facts={"instructions": both})
    settings = TaskSettings(name="x", version="1", form="generate", primary="prompt_strict", answer="instructions")
    made = scored_answer(settings, item, "Sure!\nhigh tide comes at four.")
    assert made.metrics == {"prompt_strict": 0.0, "instruction_strict": 0.5, "prompt_loose": 1.0, "instruction_loose": 1.0}
    assert made.shown["broken"] == "change_case:english_lowercase"
    assert scored_answer(settings, item, " ").parsed is False
