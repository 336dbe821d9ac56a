"""What counts as a word when texts are compared: runs of letters and digits, in any script.

We differ: Google's rouge-score keeps only a-z and 0-9, so that every score of a Greek, Russian or Chinese text is 0. Here letters and
digits of all scripts count, and each character of a script written without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) is
a word of its own. On ASCII text both give the same words.
"""

import re
import unicodedata

_WITHOUT_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_WITHOUT_SPACES}]|[^\W_{_WITHOUT_SPACES}]+")


def words(text: str) -> list[str]:
    """`words("PEP-8, the 2nd")` -> `["pep", "8", "the", "2nd"]`."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())
