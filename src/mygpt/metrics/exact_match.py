"""Exact match: is the answer the reference, once case, punctuation and articles are set aside?

Source: Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1, and its official script: lower case, punctuation, articles, white space,
in that order.
We differ: punctuation of all scripts counts as punctuation (the script knows ASCII only), so a typographic quote changes nothing.
"""

import re
import string
import unicodedata

_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise(text: str) -> str:
    """`normalise("The cat's  Hat.")` -> `"cats hat"`."""
    kept = "".join(c for c in text.lower() if c not in string.punctuation and not unicodedata.category(c).startswith("P"))
    return " ".join(_ARTICLES.sub(" ", kept).split())


def exact_match(answer: str, reference: str) -> float:
    """1.0 or 0.0."""
    return float(normalise(answer) == normalise(reference))
