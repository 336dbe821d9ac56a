"""How much of a text lies in runs of n characters that some other texts hold? Spelling and punctuation count, where `overlap` sees words.

    index = CharacterIndex.build(texts)    every run of 50 characters of these texts; a shorter text counts as one run, the whole of it
    index.share(text)                      of the characters of `text`, those that lie in a run of the index

Novelty of a text is 1 - share. Eight words in a row can be a common phrase and thirteen a paraphrase apart; fifty characters alike are
copied, in any language and in code, where words say little.

Source     n-gram novelty: McCoy et al. 2021, arXiv:2111.09509, of words; the same share of runs of characters is ours
We differ  texts are compared in Unicode's NFKC, in lower case, white space as one space. Hashes are 64-bit polynomials of the characters:
           two of 10^8 different runs collide by chance with probability 0.0003
Cost       n products over the texts in NumPy; memory 8 bytes per distinct run
Dims       C characters   R runs
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mygpt.guard.overlap import are_in

_PIECE_CHARACTERS = 1 << 16  # hashed at once: its arrays stay in the processor's cache
_BASE = np.uint64(0x9E3779B97F4A7C15)
_SPREAD = np.uint64(0xBF58476D1CE4E5B9)  # both odd, so that nothing is lost modulo 2^64


@dataclass(frozen=True)
class CharacterIndex:
    n: int
    hashes_R: np.ndarray  # sorted, distinct, uint64
    short: frozenset[str]  # texts of fewer than n characters, whole

    @classmethod
    def build(cls, texts: Iterable[str], n: int = 50) -> "CharacterIndex":
        if n < 1:
            raise ValueError(f"a run has at least one character, not {n}")
        found, short = [np.zeros(0, np.uint64)], set()
        for text in map(_normal, texts):
            if len(text) < n:
                short.add(text)
            else:
                found.append(np.unique(_hashed(text, n)))
        return cls(n, np.unique(np.concatenate(found)), frozenset(short - {""}))

    def share(self, text: str) -> float:
        text = _normal(text)
        if len(text) < self.n:
            return float(text in self.short)
        covered_C = np.zeros(len(text), dtype=bool)
        for first in np.flatnonzero(are_in(_hashed(text, self.n), self.hashes_R)):
            covered_C[first : first + self.n] = True
        return float(covered_C.mean())


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def _hashed(text: str, n: int) -> np.ndarray:
    """(R,): of the run of n characters at each place, in order."""
    code_C = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64) * _SPREAD
    code_C ^= code_C >> np.uint64(29)
    num = len(code_C) - n + 1
    hashes_R = np.zeros(num, dtype=np.uint64)
    for start in range(0, num, _PIECE_CHARACTERS):
        piece = hashes_R[start : start + _PIECE_CHARACTERS]
        for place in range(start, start + n):
            piece *= _BASE
            piece += code_C[place : place + len(piece)]
    return hashes_R
