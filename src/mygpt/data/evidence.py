"""Sentences that state a fact by themselves, so that a question can be asked for which they are the answer."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mygpt.artifacts.corpus import Passage, Span
from mygpt.artifacts.sentences import blocks, split_sentences

_WORD = re.compile(r"\w+")
# These begin a sentence that leans on the one before it.
_LEANING = re.compile(
    r"(it|its|this|these|those|that|they|their|them|he|she|his|her|such|however|also|then|thus|therefore|otherwise|instead|here|there|"
    r"and|but|or|so|for example|for instance|in this|in that|as above|as below|the following|the above|note|see|first|second|finally)\b",
    re.IGNORECASE,
)
_POINTING = re.compile(
    r"\b(as follows|the following|above|below|this (section|page|document|guide|example)|(next|previous) section)\b", re.IGNORECASE
)
_CODE = re.compile(r"`+[^`]+`+")
_STAND_IN = "\uf0e0"  # private use: for a stretch of code, whose `*` and `_` are no emphasis


@dataclass(frozen=True)
class Evidence:
    """A sentence of a passage: `text` without Markdown, `span` in the document."""

    text: str
    passage: Passage
    span: Span


def evidence_in(passage: Passage) -> Iterator[Evidence]:
    """In order. Headings, code, tables, questions and sentences that point elsewhere are passed over."""
    for block in blocks(passage.text):
        if block.kind not in ("paragraph", "item"):
            continue
        body = passage.text[block.body : block.end]
        for start, end in split_sentences(body):
            text = plain(body[start:end])
            if states_a_fact(text):
                first = passage.span.start + block.body + start
                yield Evidence(text, passage, Span(passage.span.document_id, first, first + end - start, passage.span.place))


def states_a_fact(sentence: str) -> bool:
    words = _WORD.findall(sentence)
    if not 6 <= len(words) <= 45 or sentence[-1] not in ".!" or sentence.endswith("..") or "\n\n" in sentence:
        return False
    letters = sum(c.isalpha() or c.isspace() for c in sentence)
    if letters < 0.75 * len(sentence) or "://" in sentence:
        return False
    return not _LEANING.match(sentence) and not _POINTING.search(sentence)


def plain(markdown: str) -> str:
    """Links become their text; emphasis, the `>` of quotes and line breaks go; code stays as it is, in its backticks."""
    code: list[str] = []

    def put_by(stretch: re.Match[str]) -> str:
        code.append(stretch.group())
        return f"{_STAND_IN}{len(code) - 1}{_STAND_IN}"

    text = _CODE.sub(put_by, markdown.replace(_STAND_IN, " "))
    text = re.sub(r"\n(?:[ \t]*>)+", "\n", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"(\*\*|__)(.+?)\1", r"\2", text)
    text = re.sub(r"(?<![\w*])[*_](\S(?:.*?\S)?)[*_](?![\w*])", r"\1", text)
    return " ".join(re.sub(f"{_STAND_IN}(\\d+){_STAND_IN}", lambda found: code[int(found[1])], text).split())


def best_evidence(answer: str, candidates: list[Evidence], overlap: float) -> Evidence | None:
    """The candidate that holds the largest share of the answer's words, if at least `overlap` of them."""
    best = max(candidates, key=lambda e: shared_words(answer, e.text), default=None)
    return best if best is not None and shared_words(answer, best.text) >= overlap else None


def shared_words(answer: str, sentence: str) -> float:
    """The share of the answer's content words that stand in `sentence`; 0 for an answer without any."""
    said = content_words(answer)
    return len(said & content_words(sentence)) / len(said) if said else 0.0


def content_words(text: str) -> set[str]:
    return {w for w in (word.lower() for word in _WORD.findall(text)) if w not in _FUNCTION_WORDS}


def by_document(passages: Iterable[Passage]) -> dict[str, list[Passage]]:
    """Passages by document id, in order."""
    grouped: dict[str, list[Passage]] = {}
    for passage in passages:
        grouped.setdefault(passage.span.document_id, []).append(passage)
    return grouped


_FUNCTION_WORDS = frozenset(
    """a an and are as at be been but by can could did do does for from had has have he her his how i if in into is it its may might must
    no not of on or our shall she should so such than that the their them then there these they this those to was we were what when where
    which who whom why will with would you your""".split()  # noqa: SIM905
)
