"""What counts as a word when texts are compared: runs of letters and digits, in any script.

words        all scripts; each character of a script written without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) is a word
ascii_words  a-z and 0-9 only, as Google's rouge-score reads a text: of a Greek, Russian or Chinese one nothing is left

On ASCII text both give the same words. Marks that belong to a letter (vowel signs of Hindi, points of Hebrew) do not end a word.
"""

import re
import unicodedata
from functools import lru_cache

_WITHOUT_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_ASCII_WORD = re.compile("[a-z0-9]+")


def words(text: str) -> list[str]:
    """`words("PEP-8, the 2nd")` -> `["pep", "8", "the", "2nd"]`."""
    text = unicodedata.normalize("NFKC", text).lower()
    marks = "" if text.isascii() else "".join(sorted(c for c in set(text) if unicodedata.category(c).startswith("M")))
    return _word(marks).findall(text)


def ascii_words(text: str) -> list[str]:
    return _ASCII_WORD.findall(text.lower())


@lru_cache(maxsize=4_096)
def _word(marks: str) -> re.Pattern[str]:
    """`re` has no class for marks, so those of the text are named."""
    letter = rf"[^\W_{_WITHOUT_SPACES}]"
    inside = rf"(?:{letter}|(?![{_WITHOUT_SPACES}])[{re.escape(marks)}])" if marks else letter
    return re.compile(rf"[{_WITHOUT_SPACES}]|{letter}{inside}*")
