"""A hand-made corpus about two ferries, and an embedder of hashed words: fast, and every number can be worked out."""

from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import numpy as np

from mygpt.artifacts.corpus import Corpus, Document, Passage, Span, write_corpus
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.infer.protocols import Identity
from mygpt.rag.words import terms

BOATS = (
    "The Heron carries 72 passengers. The Wren carries 40 passengers.\n\n"
    "The Heron was built in 2009 at Tolvarth. The Wren is made of larch planks on oak frames. Neither boat sails in fog."
)
FARES = (
    "An adult single costs £4.20 and an adult day return costs £7.00. Children under 5 travel free.\n\n"
    "A carnet of ten crossings costs £32.00. A carnet is valid for 18 months from the day it is bought. Unused crossings are not refunded."
)


class WordsConfig(Config):
    language: str = "en"


@recipe
def corpus_of(config: WordsConfig, *, folder: Path, run: Run) -> Corpus:
    """Each text file of `folder` is a document, each of its paragraphs a passage; `places` are the paragraphs' numbers."""
    read = []
    for file in sorted(folder.glob("*.txt")):
        text = file.read_text(encoding="utf-8")
        starts = [text.index(paragraph) for paragraph in text.split("\n\n") if paragraph]
        places = tuple((start, f"paragraph {i}") for i, start in enumerate(starts, start=1))
        document = Document(
            f"{crc32(file.name.encode()):016x}", file.name, text, file.stem.title(), "text/plain", "", len(text), config.language, places
        )
        ends = [text.find("\n\n", start) for start in starts]
        spans = [(start, end if end >= 0 else len(text), place) for start, end, (_, place) in zip(starts, ends, places, strict=True)]
        passages = [Passage(f"{file.stem}-{s}", Span(document.id, s, e, p), text[s:e], document.title, file.name) for s, e, p in spans]
        read.append((document, passages))
    return publish(Corpus, run, lambda folder: write_corpus(folder, read, []))


class HashedWords:
    """One dimension per stem, as near as 256 dimensions allow; counts what it was asked."""

    dimensions = 256

    def __init__(self) -> None:
        self.embedded: list[str] = []

    @property
    def identity(self) -> Identity:
        return {"engine": "hashed words"}

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.embedded += texts
        vectors_ND = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for vector_D, text in zip(vectors_ND, texts, strict=True):
            for term in terms(text) or [text]:
                vector_D[crc32(term.encode("utf-8", "replace")) % self.dimensions] += 1
            vector_D /= np.linalg.norm(vector_D)
        return vectors_ND
