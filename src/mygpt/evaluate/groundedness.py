"""Groundedness: which sentences of an answer the given passages support, which they contradict, and which they do not speak of.

    groundedness = supported / (supported + contradicted + unsupported)        None when the answer claims nothing, never 1

Each claim (a sentence that states something) gets one of four labels, counted apart: supported, contradicted, unsupported, unparsed (the
supporter gave no verdict). Of the retrieval, against the sentences of the reference answer:

    contextual precision = sum_k P@k * rel_k / sum_k rel_k    rel_k: passage k supports a sentence of the reference; P@k: share so far
    contextual recall    = sentences of the reference that the passages support / all

What labels is a `Supporter`; `WordSupporter` is a simple one: shared words, cosine of an Embedder, numbers and negation.

Source: the triad as in deepeval's faithfulness, contextual precision and contextual recall; statements checked one by one as in Es et al.
2023, arXiv:2309.15217 (RAGAS); average precision as in Manning et al. 2008, "Introduction to information retrieval", section 8.4.
We differ: deepeval counts "cannot tell" as faithful and an answer without claims as 1.0; here neither is.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Protocol

from mygpt.artifacts.corpus import Corpus
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.artifacts.sentences import split_sentences
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.behaviour_set import VERSION, Row, limits
from mygpt.infer.protocols import Embedder, Identity
from mygpt.metrics.bootstrap import bootstrap_mean
from mygpt.metrics.words import words

Label = Literal["supported", "contradicted", "unsupported", "unparsed"]
LABELS: tuple[Label, ...] = ("supported", "contradicted", "unsupported", "unparsed")

_ABOUT = 0.6  # of a claim's words in a sentence: from here on both speak of the same thing, and a number or a "not" may contradict
_FUNCTION_WORDS = """
a an the of to in on at by for from with and or as is are was were be been being it its this that these those there their they he she his
her we our you your i my has have had do does did will would can could should may might must not no so than then also which who t s
"""
_IS_FUNCTION_WORD = frozenset(_FUNCTION_WORDS.split())
_NUMBER_WORDS = {w: str(i) for i, w in enumerate("two three four five six seven eight nine ten eleven twelve".split(), 2)}  # noqa: SIM905
_NAME = re.compile(r"(?<=[\w,;:'’\"“”)(-]\s)[A-Z][\w’'-]+")  # a capital that does not come from opening the sentence
_NEGATED = re.compile(r"\b(?:not|no|never|none|nobody|nothing|neither|nor|cannot|without)\b|n['’]t\b", re.IGNORECASE)
_NO_CLAIM = re.compile(
    r"\W*(?:(?:hello|hi|sure|certainly|of course|yes|no|ok|okay|thanks?|thank you|you're welcome|great question)\b[^.]{0,30}"
    r"|(?:i|we) (?:do not|don't|cannot|can't) (?:know|say|tell|answer|find)\b.*|(?:i|we) (?:hope|apologi[sz]e)\b.*"
    r"|let me know\b.*|here (?:is|are)\b.*:)\W*",
    re.IGNORECASE | re.DOTALL,
)


class Supporter(Protocol):
    @property
    def identity(self) -> Identity: ...

    def label(self, claims: Sequence[str], passages: Sequence[str]) -> list[Label]:
        """One label per claim, in order. `unparsed` where no verdict could be had."""


class GroundednessConfig(Config):
    num_resamples: int = 10_000
    version: Literal["1"] = VERSION  # type: ignore[assignment]  # of the rules


@dataclass(frozen=True)
class Groundedness:
    """The labels of one answer's claims, counted."""

    supported: int
    contradicted: int
    unsupported: int
    unparsed: int

    @property
    def score(self) -> float | None:
        """Share of the claims with a verdict that are supported; None when there is none."""
        judged = self.supported + self.contradicted + self.unsupported
        return self.supported / judged if judged else None


class WordSupporter:
    """Labels by rules, sentence against sentence (and two neighbours together):

    support = coverage, the share of the claim's content words in the sentence; with an embedder, the mean of coverage and cosine

    Supported: at least `threshold`, every number and name of the claim there, and negated alike. Contradicted: no sentence supports it,
    and one that has most of its words has other numbers or is negated otherwise; two neighbours cannot mend that. Unsupported: else.
    """

    def __init__(self, embedder: Embedder | None = None, *, threshold: float = 0.6):
        self._embedder, self._threshold = embedder, threshold

    @property
    def identity(self) -> Identity:
        embedder = self._embedder.identity if self._embedder else None
        return {"supporter": "words", "version": VERSION, "threshold": self._threshold, "embedder": embedder}

    def label(self, claims: Sequence[str], passages: Sequence[str]) -> list[Label]:
        candidates = [candidate for passage in passages for candidate in _candidates(passage)]
        cosines = self._cosines(claims, [text for text, _ in candidates])
        return [self._label(claim, candidates, row) for claim, row in zip(claims, cosines, strict=True)]

    def _label(self, claim: str, candidates: Sequence[tuple[str, bool]], cosines: Sequence[float | None]) -> Label:
        wanted, numbers, names = _content(claim), _numbers(claim), _content(" ".join(_NAME.findall(claim)))
        if not wanted | numbers:
            return "unparsed"
        supported, contradicted = {True: False, False: False}, False  # by one sentence, by two
        for (candidate, is_single), cosine in zip(candidates, cosines, strict=True):
            there, other = _content(candidate), _numbers(candidate)
            coverage = len((wanted | numbers) & (there | other)) / len(wanted | numbers)
            support = coverage if cosine is None else (coverage + cosine) / 2
            same_polarity = _is_negated(claim) == _is_negated(candidate)
            supported[is_single] |= support >= self._threshold and numbers <= other and names <= there and same_polarity
            is_about = is_single and bool(wanted) and len(wanted & there) / len(wanted) >= _ABOUT
            contradicted |= is_about and (not same_polarity or bool(other and not numbers <= other))
        if supported[True]:
            return "supported"
        return "contradicted" if contradicted else "supported" if supported[False] else "unsupported"

    def _cosines(self, claims: Sequence[str], candidates: Sequence[str]) -> list[list[float | None]]:
        if self._embedder is None or not claims or not candidates:
            return [[None] * len(candidates) for _ in claims]
        vectors_ND = self._embedder.embed([*claims, *candidates])
        rows: list[list[float | None]] = (vectors_ND[: len(claims)] @ vectors_ND[len(claims) :].T).tolist()
        return rows


@recipe
def groundedness(
    config: GroundednessConfig, *, predictions: Predictions, supporter: Supporter, corpus: Corpus | None = None, run: Run
) -> Predictions:
    """Of answers that were given already. Each row needs `passages`, the texts it was answered from, best first; or `passage`, the id of
    one in `corpus`. With a `reference`, the passages are measured too."""
    by_id = {p.id: p.text for p in corpus.stream_passages()} if corpus else {}
    progress = run.progress(len(predictions.rows), "answers")
    rows = []
    for number, row in enumerate(predictions.rows, 1):
        passages = _passages(row, number, by_id, predictions)
        said = claims(row.get("answer") or "") if row.get("finish_reason") != "abstained" else []
        labels = supporter.label(said, passages) if said else []
        counts = count_labels(labels)
        judged = {**vars(counts), "groundedness": counts.score, "claims": said, "labels": list(labels), "parsed": not counts.unparsed}
        rows.append({**_kept(row), **judged})
        rows[-1] |= _retrieval(row.get("reference") or "", passages, supporter)
        progress.advance()
    facts = _figures(rows, config, run.seed_for("bootstrap"))
    told: dict[str, Any] = {
        "task": "groundedness",
        "version": VERSION,
        "form": "generate",
        "primary": "groundedness",
        "supporter": supporter.identity,
    }
    directions = dict.fromkeys(("groundedness", "contextual_precision", "contextual_recall"), True)
    told |= {"metrics": list(directions), "higher_is_better": directions, "chance": None}
    told |= {"model": predictions.manifest.facts.get("model") or predictions.manifest.tools.get("completer")}
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows), facts={**told, **facts})


def claims(answer: str) -> list[str]:
    """The sentences of an answer that state something: no questions, greetings, or remarks that nothing is known."""
    sentences = [answer[start:end] for start, end in split_sentences(answer)]
    return [s for s in sentences if re.search(r"\w", s) and not s.rstrip("\"'”’) ").endswith("?") and not _NO_CLAIM.fullmatch(s)]


def count_labels(labels: Sequence[Label]) -> Groundedness:
    counts = Counter(labels)
    if unknown := sorted(set(counts) - set(LABELS)):
        raise UsageError(f"The supporter gave the label {unknown[0]!r}.", fix=f"Labels are: {', '.join(LABELS)}.")
    return Groundedness(*(counts[label] for label in LABELS))


def contextual_precision(relevant: Sequence[bool]) -> float | None:
    """Of passages in the order in which they were ranked; None when none is relevant, since order then means nothing."""
    precisions = [sum(relevant[:k]) / k for k, is_relevant in enumerate(relevant, 1) if is_relevant]
    return sum(precisions) / len(precisions) if precisions else None


def contextual_recall(labels: Sequence[Label]) -> float | None:
    """Of the sentences of the reference answer; None when none got a verdict."""
    judged = [label for label in labels if label != "unparsed"]
    return judged.count("supported") / len(judged) if judged else None


def _retrieval(reference: str, passages: Sequence[str], supporter: Supporter) -> Row:
    expected = claims(reference)
    if not expected or not passages:
        return {"contextual_precision": None, "contextual_recall": None}
    relevant = ["supported" in supporter.label(expected, [passage]) for passage in passages]
    return {
        "contextual_precision": contextual_precision(relevant),
        "contextual_recall": contextual_recall(supporter.label(expected, passages)),
    }


def _figures(rows: Sequence[Row], config: GroundednessConfig, seed: int) -> dict[str, Any]:
    def mean(name: str) -> dict[str, Any] | None:
        values = [(row[name], row["cluster"]) for row in rows if row[name] is not None]
        if not values:
            return None
        numbers, clusters = [v for v, _ in values], [c for _, c in values]
        return limits(bootstrap_mean(numbers, clusters=clusters, num_resamples=config.num_resamples, seed=seed), len(set(clusters)))

    return {
        **{name: mean(name) for name in ("groundedness", "contextual_precision", "contextual_recall")},
        "claims": {label: sum(row[label] for row in rows) for label in LABELS},
        "answers_without_claims": sum(not row["claims"] for row in rows),
        "answers": len(rows),
    }


def _passages(row: Row, number: int, by_id: dict[str, str], predictions: Predictions) -> list[str]:
    if row.get("passages") is not None:
        return list(row["passages"])
    if row.get("finish_reason") == "abstained":
        return []
    place = row.get("passage") or row.get("cluster")  # questions on one passage are one cluster
    if place in by_id:
        return [by_id[place]]
    raise UsageError(
        f"Row {number} of {predictions.id} (`{row.get('item_id')}`) does not say from which passages it was answered.",
        fix="Give it a column `passages` with their texts, or hand in the corpus whose passage its column `passage` names.",
    )


def _kept(row: Row) -> Row:
    columns = ("item_id", "prompt_sha256", "prompt_tokens", "question", "answer", "reference", "finish_reason")
    kept = {column: row.get(column) for column in columns}
    cluster = row.get("cluster") or row.get("passage") or row.get("item_id")
    return {**kept, "task": "groundedness", "version": VERSION, "form": "generate", "cluster": cluster}


def _candidates(passage: str) -> list[tuple[str, bool]]:
    """Every sentence, and every two neighbours; whether it is one sentence."""
    ranges = split_sentences(passage)
    return [(passage[a:b], True) for a, b in ranges] + [(passage[a[0] : b[1]], False) for a, b in pairwise(ranges)]


def _content(text: str) -> frozenset[str]:
    spelt = set(words(text)) - _IS_FUNCTION_WORD - _NUMBER_WORDS.keys()
    return frozenset(word for word in spelt if not word.isdigit())


def _numbers(text: str) -> frozenset[str]:
    """In digits or, from two to twelve, in words; thousands without their commas: "1,200" is "1200"."""
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    digits = {found.lstrip("0") or "0" for found in re.findall(r"\d+(?:\.\d+)?", plain)}
    return frozenset(digits | {_NUMBER_WORDS[word] for word in words(text) if word in _NUMBER_WORDS})


def _is_negated(text: str) -> bool:
    return _NEGATED.search(text) is not None
