"""Which runs of n words do two collections of text share? Hashed n-grams, in NumPy.

    index = NgramIndex.build(texts)      the n-grams of these texts; a text of fewer than n words counts as one n-gram, the whole of it
    index.met_in(others)                 those of them that occur in `others`: cheap, since only hashes of `texts` are kept, however
                                         many the others are. Contamination: items.met_in(training text).overlap(item)
    index.overlap(text)                  how much of `text` lies in n-grams of the index, and where

Source     13 words: Brown et al. 2020, arXiv:2005.14165, appendix C
We differ  words are those of `metrics/words`: any script, letters and digits only, any case. Hashes are 64-bit polynomials over bytes, each
           byte replaced by a random number: two of 10^8 n-grams collide by chance with probability 0.0003. A text shorter than n words is
           found only whole, inside a longer text as well
Cost       one pass over the bytes; memory 8 bytes per distinct n-gram of the indexed texts
Dims       B bytes of a piece   W words of a piece
"""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mygpt.metrics.words import words

_PIECE_CHARACTERS = 1 << 16  # hashed at once: its arrays stay in the processor's cache
_SHARED_CHARACTERS = 4_096  # by neighbouring pieces of one long text, so that no n-gram falls between them
_FILTER_BITS = 20
_BASE = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2^64
_BOUNDARY = 1  # a byte that is a word of its own between texts: `words` never makes it, so no n-gram of an item spans two texts
_GAP = ord(" ")


@dataclass(frozen=True)
class Overlap:
    """Of one text with an index. Positions count words, from 0, end exclusive."""

    num_words: int
    share: float  # of the words that lie in a shared n-gram
    longest_run: int  # words
    positions: tuple[tuple[int, int], ...]
    longest_text: str  # the longest run, as words


@dataclass(frozen=True)
class NgramIndex:
    n: int
    hashes: Mapping[int, np.ndarray]  # by number of words: sorted, distinct, uint64. Below n: whole texts

    @classmethod
    def build(cls, texts: Iterable[str], n: int = 13, *, most_texts: int | None = None) -> "NgramIndex":
        """`most_texts`: n-grams that more texts than this share are left out, as phrases of a template rather than of a text."""
        if n < 1:
            raise ValueError(f"an n-gram has at least one word, not {n}")
        found: dict[int, list[np.ndarray]] = {}
        owners: dict[int, list[np.ndarray]] = {}
        num_texts = 0
        for piece in _pieces(texts):
            hashed = _Hashed(piece)
            for size, hashes, owner in hashed.ngrams_by_text(n):
                if most_texts is None:
                    hashes = np.unique(hashes)
                found.setdefault(size, []).append(hashes)
                owners.setdefault(size, []).append(owner + num_texts)
            num_texts += hashed.num_texts
        if most_texts is None:
            return cls(n, {size: np.unique(np.concatenate(parts)) for size, parts in sorted(found.items())})
        counted = {size: _shared_by(np.concatenate(found[size]), np.concatenate(owners[size])) for size in sorted(found)}
        return cls(n, {size: hashes[texts_with <= most_texts] for size, (hashes, texts_with) in counted.items()})

    def met_in(self, texts: Iterable[str]) -> "NgramIndex":
        """Those n-grams of this index that occur in `texts`."""
        filters = {size: _filter(hashes) for size, hashes in self.hashes.items() if len(hashes)}
        met = {size: np.zeros(len(self.hashes[size]), dtype=bool) for size in filters}
        for piece in _pieces(texts):
            hashed = _Hashed(piece)
            for size, known in filters.items():
                hashes = hashed.ngrams(size)
                maybe = hashes[known[hashes >> np.uint64(64 - _FILTER_BITS)]]
                if len(maybe):
                    met[size][np.searchsorted(self.hashes[size], maybe[are_in(maybe, self.hashes[size])])] = True
        return NgramIndex(self.n, {size: self.hashes[size][met[size]] for size in met})

    def overlap(self, text: str) -> Overlap:
        found = _words(text)
        size = min(self.n, len(found))
        known = self.hashes.get(size)
        if not found or known is None or not len(known):
            return Overlap(len(found), 0.0, 0, (), "")
        covered_W = np.zeros(len(found), dtype=bool)
        for first in np.flatnonzero(are_in(_Hashed(" ".join(found)).ngrams(size), known)):
            covered_W[first : first + size] = True
        edges = np.flatnonzero(np.diff(np.concatenate([[False], covered_W, [False]])))
        runs = [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
        longest = max(runs, key=lambda run: run[1] - run[0], default=(0, 0))
        return Overlap(len(found), float(covered_W.mean()), longest[1] - longest[0], tuple(runs), " ".join(found[slice(*longest)]))

    @property
    def num_ngrams(self) -> int:
        return sum(len(hashes) for hashes in self.hashes.values())


def are_in(hashes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Of each hash, whether it is among `known`, which are sorted: few look-ups in many, where `numpy.isin` would sort them again."""
    if not len(known):
        return np.zeros(len(hashes), dtype=bool)
    found: np.ndarray = known[np.minimum(np.searchsorted(known, hashes), len(known) - 1)] == hashes
    return found


class _Hashed:
    """One piece of text as words (runs of bytes) and the running sum from which any n-gram's hash is two look-ups."""

    def __init__(self, piece: str):
        byte_B = _table()[np.frombuffer(_spelled(piece).encode("utf-8", "surrogatepass"), dtype=np.uint8)]
        is_word_B = byte_B != _GAP
        after_word_B = np.concatenate([[False], is_word_B[:-1]])
        byte_B = np.append(byte_B[is_word_B | after_word_B], np.uint8(_GAP))  # one gap after each word
        gaps = np.flatnonzero(byte_B == _GAP)
        gaps = gaps[: len(gaps) - (len(gaps) > 1 and gaps[-1] == gaps[-2] + 1)] if len(byte_B) > 1 else gaps[:0]
        powers_B, inverse_B = _powers(len(byte_B))
        self._sum_B = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_random_numbers()[byte_B] * powers_B)])
        self._end_W = gaps
        self._start_W = np.concatenate([[0], gaps[:-1] + 1]) if len(gaps) else gaps
        self._undo_W = inverse_B[self._start_W]
        self._boundaries = np.flatnonzero((byte_B[self._start_W] == _BOUNDARY) & (self._end_W - self._start_W == 1))

    @property
    def num_texts(self) -> int:
        return len(self._boundaries) + 1

    def ngrams(self, size: int) -> np.ndarray:
        """Of each run of `size` words, in order. Those that span two texts hold a boundary, and match nothing."""
        count = max(0, len(self._start_W) - size + 1)
        hashes: np.ndarray = (self._sum_B[self._end_W[size - 1 :]] - self._sum_B[self._start_W[:count]]) * self._undo_W[:count]
        return hashes

    def ngrams_by_text(self, n: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(words, hashes, number of the text within the piece): n-grams inside one text, and texts that are shorter, whole."""
        first_T = np.concatenate([[0], self._boundaries + 1])
        length_T = np.concatenate([self._boundaries, [len(self._start_W)]]) - first_T
        text_W = np.searchsorted(self._boundaries, np.arange(len(self._start_W)))
        starts = np.arange(max(0, len(self._start_W) - n + 1))
        inside = starts[starts + n <= (first_T + length_T)[text_W[starts]]]
        inside = inside[~np.isin(inside, self._boundaries)]
        yield n, self._between(inside, n), text_W[inside]
        for size in np.unique(length_T[(length_T > 0) & (length_T < n)]):
            whole = np.flatnonzero(length_T == size)
            yield int(size), self._between(first_T[whole], int(size)), whole

    def _between(self, first: np.ndarray, size: int) -> np.ndarray:
        hashes: np.ndarray = (self._sum_B[self._end_W[first + size - 1]] - self._sum_B[self._start_W[first]]) * self._undo_W[first]
        return hashes


def _pieces(texts: Iterable[str]) -> Iterator[str]:
    """Short texts joined by a boundary, long ones cut at spaces into pieces that share their ends."""
    waiting, characters = list[str](), 0
    for text in texts:
        text = text.replace(chr(_BOUNDARY), " ") if chr(_BOUNDARY) in text else text
        start = 0
        while len(text) - start > _PIECE_CHARACTERS:
            end = _space_before(text, start + _PIECE_CHARACTERS, start + _PIECE_CHARACTERS // 2)
            yield text[start:end]
            start = _space_before(text, end - _SHARED_CHARACTERS, start + 1)
        waiting.append(text[start:])
        characters += len(text) - start
        if characters >= _PIECE_CHARACTERS:
            yield f" {chr(_BOUNDARY)} ".join(waiting)
            waiting, characters = [], 0
    if waiting:
        yield f" {chr(_BOUNDARY)} ".join(waiting)


def _space_before(text: str, place: int, lowest: int) -> int:
    found = text.rfind(" ", lowest, place)
    return found if found > 0 else place


def _spelled(piece: str) -> str:
    """So that runs of letters and digits, and of anything beyond ASCII, are the words of the piece, but for ASCII capitals."""
    if piece.isascii():
        return piece
    code_C = np.frombuffer(piece.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    hard = []
    for code in np.unique(code_C[code_C >= 128]).tolist():
        stands_for = _stands_for(chr(code))
        if stands_for is None:
            hard.append(code)
        elif stands_for != chr(code):
            piece = piece.replace(chr(code), stands_for)
    return _spelled_at(piece, np.flatnonzero(np.isin(code_C, hard)).tolist()) if hard else piece


def _spelled_at(piece: str, places: list[int]) -> str:
    """What stands between spaces around these places, read by `words`, which is slower: few texts need it, or few places of them."""
    parts, done = list[str](), 0
    for place in places:
        if place >= done:
            start = max(piece.rfind(" ", done, place) + 1, done)
            end = piece.find(" ", place)
            end = len(piece) if end < 0 else end
            parts += (piece[done:start], " ".join(_words(piece[start:end])))
            done = end
    return "".join([*parts, piece[done:]])


@lru_cache(maxsize=65_536)
def _stands_for(character: str) -> str | None:
    """A letter or digit: itself in lower case. No part of a word: a space. None: `words` takes it apart, joins it, or looks around it."""
    normal, small = unicodedata.normalize("NFKC", character), _sigma(character.lower())
    if not words(character) and not any(unicodedata.category(c).startswith("M") for c in normal):
        return " "
    joins = "\u1100" <= character <= "\u11ff"  # Hangul letters form syllables
    if joins or character != normal or len(small) != 1 or [_words(character), _words(f"a{character}a")] != [[small], [f"a{small}a"]]:
        return None
    return small


def _words(text: str) -> list[str]:
    return [_sigma(word) for word in words(text)]


def _sigma(text: str) -> str:
    """Which small sigma a capital becomes depends on what follows it: here they are one letter."""
    return text.replace("\u03c2", "\u03c3")


def _shared_by(hashes: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct hashes, and by how many owners each is had."""
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    is_new = np.concatenate([[True], (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])]) if len(hashes) else np.zeros(0, bool)
    distinct, counts = np.unique(hashes[is_new], return_counts=True)
    return distinct, counts


def _filter(hashes: np.ndarray) -> np.ndarray:
    """By the first bits of a hash: whether any hash of the index begins so. Spares most look-ups."""
    known = np.zeros(1 << _FILTER_BITS, dtype=bool)
    known[hashes >> np.uint64(64 - _FILTER_BITS)] = True
    return known


@lru_cache(maxsize=1)
def _table() -> np.ndarray:
    """Bytes as they are hashed: letters in lower case, digits, anything beyond ASCII; the rest is a gap."""
    table = np.full(256, _GAP, dtype=np.uint8)
    for byte in range(256):
        if byte >= 128 or byte == _BOUNDARY or chr(byte).isalnum():
            table[byte] = ord(chr(byte).lower()) if byte < 128 else byte
    return table


@lru_cache(maxsize=1)
def _random_numbers() -> np.ndarray:
    return np.random.default_rng(13).integers(0, 1 << 64, size=256, dtype=np.uint64)


def _powers(length: int) -> tuple[np.ndarray, np.ndarray]:
    """base^0, base^1, ... modulo 2^64, and their inverses."""
    powers, inverses = _powers_up_to(1 << max(length - 1, 1).bit_length())
    return powers[:length], inverses[:length]


@lru_cache(maxsize=4)
def _powers_up_to(length: int) -> tuple[np.ndarray, np.ndarray]:
    powers, inverses = (np.full(length, base, dtype=np.uint64) for base in (_BASE, pow(_BASE, -1, 1 << 64)))
    powers[0] = inverses[0] = 1
    return np.cumprod(powers, dtype=np.uint64), np.cumprod(inverses, dtype=np.uint64)
