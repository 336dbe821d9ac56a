"""Words as retrieval and citation see them: terms, numbers, names, negations, and how much a term tells (IDF).

A term is folded (case, diacritics), without its English ending, and not a stop word. Chinese, Japanese and Thai, which are written
without spaces, are cut into pairs of characters.

Source    IDF in the form that is never negative, as in Lucene's BM25: ln(1 + (N - n + 0.5) / (n + 0.5)); plural endings: Harman 1991,
          "How effective is suffixing?" (the S stemmer)
We differ -ing, -ed, -er and -ly go too, and the final e with them, so that close, closes, closed and closing meet. Two rare words may
          meet wrongly; the exact words still count in FTS5 and in the vectors
"""

import functools
import math
import re
import unicodedata
from collections.abc import Iterable

from mygpt.artifacts.search_index import SearchIndex

_UNSPACED = r"\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]+|\d+(?:[.,:]\d+)*|[^\W\d_{_UNSPACED}]+(?:['’][^\W\d_]+)?|\w")
_UNSPACED_RUN = re.compile(rf"[{_UNSPACED}]+")

_STOP_WORDS = """
a about above after again all also am an and any are aren't as at be because been before being below between both but by can can't cannot
could couldn't did didn't do does doesn't doing don't done down during each either else etc even ever every few for from further get gets
go goes going had hadn't has hasn't have haven't having he he's her here hers herself him himself his how however i i'd i'll i'm i've if
in into is isn't it it's its itself just let let's many may me might mine more most much must my myself need needs neither no nor not of
off on once only onto or other our ours ourselves out over own per please rather same shall she should shouldn't since so some such than
that that's the their theirs them themselves then there there's these they they're this those though through thus to too under until up
upon us very was wasn't we we're were weren't what what's when where whether which while who whom whose why way will with within without
won't would wouldn't yes yet you you're your yours yourself yourselves
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
# What answers say about themselves: true of every answer, evidence for none.
_FRAMING = """
according answer based context described document following given information mentioned passage provided question source state stated text
"""

_NUMBER_WORDS = {
    "zero": 0, "one": 1, "two": 2, "second": 2, "twice": 2, "three": 3, "third": 3, "four": 4, "fourth": 4, "five": 5, "fifth": 5, "six": 6,
    "sixth": 6, "seven": 7, "seventh": 7, "eight": 8, "eighth": 8, "nine": 9, "ninth": 9, "ten": 10, "tenth": 10,
    "eleven": 11, "eleventh": 11, "twelve": 12, "twelfth": 12, "dozen": 12, "thirteen": 13, "fourteen": 14,
    "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20,
    "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
    "hundred": 100, "thousand": 1000, "midnight": "0:00", "noon": "12:00", "midday": "12:00",
}  # fmt: skip
_NOT_COUNTS = frozenset({"one", "second"})  # "no one", "a second reading", "five seconds": a count only where digits say so
_NEGATIONS = re.compile(r"\b(?:not|no|never|none|nobody|nothing|nowhere|neither|nor|cannot|without|unable|\w+n['’]t)\b", re.IGNORECASE)
_IDENTIFIER = re.compile(r"(?<![\w/])[A-Za-z]\w*(?:(?:[._]+|::|\[|\()\w+[\])]*)+|\w+\(\)|(?<!\w)[a-z]+[A-Z]\w*")
_NAME = re.compile(r"(?<![\w.])[A-Z][\w’'-]*[\w]|(?<![\w.])[A-Z]{2,}\b")


def words(text: str) -> list[str]:
    """Folded words in order, with their endings; unspaced scripts as overlapping pairs of characters."""
    folded = fold(text)
    if folded.isascii():
        return [word.removesuffix("'s") for word in _WORD.findall(folded)]
    found: list[str] = []
    for match in _WORD.finditer(folded):
        word = match.group()
        if _UNSPACED_RUN.fullmatch(word):
            found += [word[i : i + 2] for i in range(max(1, len(word) - 1))]
        else:
            found.append(word.removesuffix("'s"))
    return found


def terms(text: str) -> list[str]:
    """What `text` is about: stems of its words, numbers in one spelling, no stop words."""
    return [term for term in map(_term, words(text)) if term]


@functools.lru_cache(maxsize=100_000)
def _term(word: str) -> str:
    """ "" for a stop word."""
    if word in STOP_WORDS:
        return ""
    if word[0].isdigit():
        return plain_number(word)
    if word in _NUMBER_WORDS and word not in _NOT_COUNTS:
        return str(_NUMBER_WORDS[word])
    return stem(word)


def fold(text: str) -> str:
    """Lower case, no diacritics, straight apostrophes."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold().replace("’", "'"))
    return unicodedata.normalize("NFC", "".join(c for c in decomposed if not unicodedata.combining(c)))


@functools.lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    if len(word) <= 3 or not word.isascii():
        return word
    if word.endswith("ies") and len(word) > 4 and word[-4] not in "ae":
        word = word[:-3] + "y"
    elif word.endswith("es") and word[-3] in "sxzh" and len(word) > 4:
        word = word[:-2]
    elif word.endswith("s") and word[-2] not in "us":
        word = word[:-1]
    for ending in ("ing", "ed", "er", "ly"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and re.search("[aeiouy]", word[: -len(ending)]):
            word = word[: -len(ending)]
            if word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    return word.removesuffix("e") if len(word) > 3 else word


FRAMING = frozenset(map(stem, _FRAMING.split()))


def spaced(text: str) -> str:
    """Unspaced scripts with a space between characters, so that FTS5 sees each; its phrases then find words."""
    return _UNSPACED_RUN.sub(lambda run: f" {' '.join(run.group())} ", text)


def plain_number(written: str) -> str:
    """`1,000` and `1000`, `09:30` and `9:30`, `2.50` and `2.5` are one number each."""
    number = re.sub(r",(?=\d{3}(?:\D|$))", "", written)
    if re.fullmatch(r"\d+[.,]\d+", number):
        number = number.replace(",", ".").rstrip("0").rstrip(".")
    return number.lstrip("0") or "0"


def numbers(text: str) -> set[str]:
    """Every number, in digits or in words up to a hundred; `one` and `second` count only as digits."""
    found = set()
    for word in words(text):
        if word[0].isdigit():
            found.add(plain_number(word))
        elif word in _NUMBER_WORDS and word not in _NOT_COUNTS:
            found.add(str(_NUMBER_WORDS[word]))
    return found


def numbers_allowed(text: str) -> set[str]:
    """`numbers`, and those that a reader may take from the words: `one`, `second`, `a` and `once` are 1 or 2."""
    lenient = {str(_NUMBER_WORDS[w]) for w in words(text) if w in _NOT_COUNTS}
    return numbers(text) | lenient


def is_negated(text: str) -> bool:
    return bool(_NEGATIONS.search(text))


def names(text: str) -> set[str]:
    """Folded words with a capital letter that does not come from opening the sentence."""
    found = set()
    for match in _NAME.finditer(text):
        opens = not re.search(r"[^\s\"'“‘(*_#>-]", re.split(r"[.!?:\n|]\s*", text[: match.start()])[-1])
        word = match.group()
        inner_capital = any(c.isupper() for c in word[1:])
        if (not opens or inner_capital) and fold(word) not in STOP_WORDS:
            found |= {stem(w) for w in words(word)}
    return found


def identifiers(text: str) -> set[str]:
    """Folded pieces of words that are spelt as in code: `client.aclose()`, `max_connections`, `httpx[http2]`."""
    found = set()
    for match in _IDENTIFIER.finditer(text):
        found |= {piece for piece in re.split(r"[\W_]+", fold(match.group())) if len(piece) > 1 and not piece.isdigit()}
    return found


class TermWeights:
    """IDF of terms over the passages of an index; a term that stands nowhere weighs most."""

    def __init__(self, index: SearchIndex):
        self._index = index
        self._num_passages = int(index.manifest.facts["passages"])
        self._known: dict[str, int] = {}

    def of(self, wanted: Iterable[str]) -> dict[str, float]:
        known = self._counts(set(wanted))
        return {term: idf(self._num_passages, count) for term, count in known.items()}

    def _counts(self, wanted: set[str]) -> dict[str, int]:
        """In how many passages each term stands."""
        new = sorted(wanted - self._known.keys())
        for start in range(0, len(new), 500):
            part = new[start : start + 500]
            counts = dict(self._index.rows(f"SELECT term, passages FROM terms WHERE term IN ({','.join('?' * len(part))})", part))
            self._known.update({term: int(counts.get(term, 0)) for term in part})
        return {term: self._known[term] for term in wanted}

    def coverage(self, wanted: Iterable[str], found: Iterable[str]) -> float:
        """Which share of the weight of `wanted` is in `found`; 0 when nothing is wanted."""
        weights = self.of(wanted)
        total = sum(weights.values())
        there = set(found)
        return sum(weight for term, weight in weights.items() if term in there) / total if total else 0.0

    def known_share(self, wanted: Iterable[str]) -> float:
        """Which share of the weight of `wanted` stands in any passage at all."""
        counts = self._counts(set(wanted))
        return self.coverage(counts, [term for term, count in counts.items() if count])


def idf(num_passages: int, num_with_term: int) -> float:
    return math.log(1 + (num_passages - num_with_term + 0.5) / (num_with_term + 0.5))
