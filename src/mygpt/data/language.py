"""Which language a text is in, offline: ISO 639-1, or "" when unsure.

Source: M. Lui, T. Baldwin, "langid.py: An Off-the-shelf Language Identification Tool", ACL 2012, through py3langid (its model is
        NumPy arrays inside the package: no download, no pickle).
We differ: code, tables, addresses and numbers are taken out first, and a text with little left is "unsure" instead of a guess.
"""

import functools
import re
from typing import Any

_NOT_PROSE = re.compile(r"(?ms)^[ \t]*(`{3,}|~{3,}).*?^[ \t]*\1|`[^`\n]*`|https?://\S+|\S+@\S+|^[ \t]*\|?[-:| ]+\|?$|\b\w*[\d_/\\=<>{}]\S*")
_LETTER = re.compile(r"[^\W\d_]")
_SAMPLE_CHARACTERS = 8_000  # spread over the document: more changes nothing and costs time
_FEWEST_LETTERS = 40
_FEWEST_LETTERS_DENSE = 8  # scripts that few languages share: Han, kana, hangul, Thai, Greek, ...
_LOWEST_CONFIDENCE = 0.8
_TO_TWO_LETTERS = {"yue": "zh", "wuu": "zh", "nn": "no"}


def detect_language(text: str) -> str:
    """ISO 639-1 of the language most of `text` is in, "" when that is not clear."""
    prose = _NOT_PROSE.sub(" ", _sample(text)).replace("|", " ")
    letters = _LETTER.findall(prose)
    latin = sum(letter < "ɐ" for letter in letters)
    if len(letters) < (_FEWEST_LETTERS if latin * 2 > len(letters) else _FEWEST_LETTERS_DENSE):
        return ""
    language, confidence = _identifier().classify(prose)
    language = _TO_TWO_LETTERS.get(language, language)
    return language if confidence >= _LOWEST_CONFIDENCE and len(language) == 2 else ""


def _sample(text: str) -> str:
    if len(text) <= _SAMPLE_CHARACTERS:
        return text
    part = _SAMPLE_CHARACTERS // 4
    return "\n".join(text[start : start + part] for start in range(0, len(text) - part, (len(text) - part) // 3))


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # 60 MB once loaded

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
