"""Numeric answer: the last number of a text, compared as a number.

    last_number("so $1,000.00 in all.")       1000
    numeric_match("That makes 18...", "18")   True
    numeric_match("I do not know..", "18")    None: there is nothing to compare; count it, and do not call it wrong in silence

Read are: signs, thousands in threes, decimals, exponents, fractions and mixed numbers (3/4, 2 3/4), currency signs, per cent, digits of any
script. A number that belongs to a word (CO2) is none. `50%` equals both 50 and 0.5, since answers are written either way.

Source: the task is GSM8K's (Cobbe et al. 2021, arXiv:2110.14168); the last number is taken as in lm-eval's flexible extraction.
We differ: lm-eval's gsm8k compares text, so that it takes ".." for a number, and "18.00" or "18..." for another number than 18.
"""

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

_SIGNS = str.maketrans({"−": "-", "－": "-", "⁄": "/", "٫": ".", "٬": ","})
_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_])(?<![0-9]\.)"  # not inside a word, a version or a longer number; after a digit, a dash is no sign
    r"(?P<sign>-?)[$€£¥₹]?(?P<inner_sign>-?)"
    rf"(?:(?:(?P<mixed>{_WHOLE}) )?(?<![0-9]/)(?P<above>{_WHOLE})/(?P<below>[0-9]+)(?![0-9/])"
    rf"|(?P<decimal>{_WHOLE}(?:\.[0-9]+)?|\.[0-9]+)(?P<exponent>[eE][-+]?[0-9]{{1,3}}(?![0-9A-Za-z]))?)"
    r"(?P<percent>\s?%)?"
)
_LONGEST = 400  # characters of a number; longer runs of digits are a model that repeats itself


@dataclass(frozen=True)
class Number:
    value: Fraction
    percent: bool = False


def last_number(text: str) -> Number | None:
    """None when there is none."""
    found = [number for match in _NUMBER.finditer(_plain(text)) if (number := _read(match)) is not None]
    return found[-1] if found else None


def same_number(a: Number, b: Number, *, relative_tolerance: float = 0.0) -> bool:
    if a.percent != b.percent:
        share, other = (a, b) if a.percent else (b, a)
        return any(_close(value, other.value, relative_tolerance) for value in (share.value, share.value / 100))
    return _close(a.value, b.value, relative_tolerance)


def numeric_match(answer: str, reference: str, *, relative_tolerance: float = 0.0) -> bool | None:
    """None when the answer holds no number. Raises ValueError when the reference holds none."""
    right = last_number(reference)
    if right is None:
        raise ValueError(f"the reference holds no number: {reference[:80]!r}")
    given = last_number(answer)
    return None if given is None else same_number(given, right, relative_tolerance=relative_tolerance)


def _plain(text: str) -> str:
    text = text.translate(_SIGNS)
    return text if text.isascii() else "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)


def _read(match: re.Match[str]) -> Number | None:
    if len(match[0]) > _LONGEST:
        return None
    if match["above"]:
        if not int(match["below"]):
            return None
        value = _whole(match["mixed"] or "0") + Fraction(_whole(match["above"]), int(match["below"]))
    else:
        value = Fraction(match["decimal"].replace(",", "")) * Fraction(10) ** int((match["exponent"] or "e0")[1:])
    return Number(-value if match["sign"] or match["inner_sign"] else value, bool(match["percent"]))


def _whole(digits: str) -> int:
    return int(digits.replace(",", ""))


def _close(a: Fraction, b: Fraction, relative_tolerance: float) -> bool:
    return abs(a - b) <= abs(b) * Fraction(relative_tolerance)
