"""Instructions whose obedience a program can check: "at least 300 words", "no commas", "end with this phrase".

Source: Zhou et al. 2023, "Instruction-following evaluation for large language models", arXiv:2311.07911, table 1, whose ids and argument
names these are; an empty answer obeys nothing.
We differ: words are what white space separates and sentences what ends in . ! or ?, where the paper's program uses nltk; the language of
an answer is told by py3langid, where that uses langdetect.
"""

import functools
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from mygpt.core.errors import UsageError

Arguments = Mapping[str, Any]


def follows(answer: str, instruction: str, arguments: Arguments) -> bool:
    """Raises UsageError for an instruction that is not known."""
    require_known(instruction)
    return bool(answer.strip()) and CHECKS[instruction](answer, arguments)


def require_known(instruction: str) -> None:
    if instruction not in CHECKS:
        raise UsageError(f"The instruction `{instruction}` cannot be checked.", fix=f"Known: {', '.join(CHECKS)}.")


def _holds(count: int, relation: str, limit: int) -> bool:
    """The paper has two relations only."""
    if relation not in ("at least", "less than"):
        raise UsageError(f"`{relation}` is no relation of an instruction.", fix="Write `at least` or `less than`.")
    return count >= limit if relation == "at least" else count < limit


def _num_words(text: str) -> int:
    return len(re.findall(r"\w+", text))


def _has(text: str, keyword: str) -> bool:
    return re.search(re.escape(keyword), text, re.IGNORECASE) is not None


def _whole_word(text: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) is not None


def _num_sentences(text: str) -> int:
    return sum(bool(part.strip()) for part in re.split(r"(?<=[.!?])\s+", text.strip()))


def _paragraphs_by_stars(text: str, a: Arguments) -> bool:
    """The prompt asks for paragraphs divided by ***; the first and the last divider may stand alone."""
    parts = re.split(r"\s?\*\*\*\s?", text)
    inner = parts[1:-1]
    filled = [p for p in parts if p.strip()]
    return all(p.strip() for p in inner) and len(filled) == a["num_paragraphs"]


def _first_word_of_paragraph(text: str, a: Arguments) -> bool:
    paragraphs = [p for p in re.split(r"\n\n", text) if p.strip()]
    if len(paragraphs) != a["num_paragraphs"] or a["nth_paragraph"] > len(paragraphs):
        return False
    word = re.match(r"[\w-]+", paragraphs[a["nth_paragraph"] - 1].strip().lstrip("'\""))
    return word is not None and word.group().lower() == str(a["first_word"]).lower()


def _is_json(text: str) -> bool:
    inside = re.sub(r"^\s*```(?:json|Json|JSON)?|```\s*$", "", text).strip()
    try:
        json.loads(inside)
    except ValueError:
        return False
    return True


def _two_answers(text: str, a: Arguments) -> bool:
    parts = text.split("******")
    filled = [p.strip() for p in parts if p.strip()]
    return all(p.strip() for p in parts[1:-1]) and len(filled) == 2 and filled[0] != filled[1]


def _capital_words(text: str) -> int:
    return sum(word.isupper() for word in re.findall(r"\S+", text))


def _is_language(text: str, a: Arguments) -> bool:
    return bool(_language_identifier().classify(text)[0] == a["language"])


@functools.cache
def _language_identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # 60 MB once loaded

    return LanguageIdentifier.from_model_file(MODEL_FILE)


def _highlights(text: str) -> int:
    return sum(bool(part.strip("* \n")) for part in re.findall(r"\*\*[^\n*]+\*\*|\*[^\n*]+\*", text))


_BULLET = re.compile(r"^\s*(?:\*(?!\*)|-)\s", re.MULTILINE)
_ANSWERS = ("my answer is yes.", "my answer is no.", "my answer is maybe.")

CHECKS: dict[str, Callable[[str, Arguments], bool]] = {
    "keywords:existence": lambda text, a: all(_has(text, k) for k in a["keywords"]),
    "keywords:frequency": lambda text, a: _holds(
        len(re.findall(re.escape(a["keyword"]), text, re.IGNORECASE)), a["relation"], a["frequency"]
    ),
    "keywords:forbidden_words": lambda text, a: not any(_whole_word(text, w) for w in a["forbidden_words"]),
    "keywords:letter_frequency": lambda text, a: _holds(text.lower().count(a["letter"].lower()), a["let_relation"], a["let_frequency"]),
    "language:response_language": _is_language,
    "length_constraints:number_sentences": lambda text, a: _holds(_num_sentences(text), a["relation"], a["num_sentences"]),
    "length_constraints:number_paragraphs": _paragraphs_by_stars,
    "length_constraints:number_words": lambda text, a: _holds(_num_words(text), a["relation"], a["num_words"]),
    "length_constraints:nth_paragraph_first_word": _first_word_of_paragraph,
    "detectable_content:number_placeholders": lambda text, a: len(re.findall(r"\[.*?\]", text)) >= a["num_placeholders"],
    "detectable_content:postscript": lambda text, a: _has(text, a["postscript_marker"]),
    "detectable_format:number_bullet_lists": lambda text, a: len(_BULLET.findall(text)) == a["num_bullets"],
    "detectable_format:constrained_response": lambda text, a: any(said in text.lower() for said in _ANSWERS),
    "detectable_format:number_highlighted_sections": lambda text, a: _highlights(text) >= a["num_highlights"],
    "detectable_format:multiple_sections": lambda text, a: (
        len(re.findall(rf"\s?{re.escape(a['section_spliter'])}\s?\d+\s?", text)) >= a["num_sections"]
    ),
    "detectable_format:json_format": lambda text, a: _is_json(text),
    "detectable_format:title": lambda text, a: any(t.strip("<> ") for t in re.findall(r"<<[^\n]+>>", text)),
    "combination:two_responses": _two_answers,
    "combination:repeat_prompt": lambda text, a: text.strip().lower().startswith(a["prompt_to_repeat"].strip().lower()),
    "startend:end_checker": lambda text, a: text.strip().strip('"').lower().endswith(a["end_phrase"].strip().lower()),
    "startend:quotation": lambda text, a: len(text.strip()) > 1 and text.strip()[0] == text.strip()[-1] == '"',
    "change_case:capital_word_frequency": lambda text, a: _holds(_capital_words(text), a["capital_relation"], a["capital_frequency"]),
    "change_case:english_capital": lambda text, a: text.isupper(),
    "change_case:english_lowercase": lambda text, a: text.islower(),
    "punctuation:no_comma": lambda text, a: "," not in text,
}
