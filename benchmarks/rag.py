"""Retrieval, citations and abstention, measured; and the fit of their constants, which stand in rag/cite.py and rag/relevance.py.

    python -m benchmarks.rag --json --keep

search      nDCG@10 on Cranfield (1,400 abstracts, 225 queries); rivals in the same run: BM25 alone, vectors alone
fit         on questions of our own about the httpx documentation (rag_httpx.jsonl: for each of 54, two true sentences, a true
            fragment, a false sentence and a false fragment), on off-topic questions about it, and on Cranfield
held out    the sample handbook: 60 questions, 30 off-topic ones, 15 planted false sentences. No constant was fitted on it, but rules
            (expected answer types, comparisons, midnight) were written after seeing what it got wrong; hence "second", questions
            on it that were written afterwards. The completer is scripted: it gives the reference answer ("answers"), the evidence
            word for word ("quotes"), or the answer to another question ("strangers": every citation is wrong)

A citation is right when its span and the evidence overlap. Cranfield's queries are numbered by their position in cran.qry; its
judgements 1 to 4 count as relevant, 5 and -1 do not (cranqrel.readme).
"""

import json
import math
import re
import tempfile
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from benchmarks.record import arguments, finish
from mygpt.artifacts.corpus import Corpus, Document, Passage, Span, write_corpus
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.data.ingest import IngestConfig, ingest
from mygpt.infer.cached import CachedEmbedder
from mygpt.infer.protocols import Embedder, Sampling, StreamingCompleter
from mygpt.infer.scripted import ScriptedCompleter
from mygpt.infer.torch_embedder import TorchEmbedder
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.sources import obtain
from mygpt.metrics.bootstrap import paired_bootstrap
from mygpt.rag.answer import QUOTED, AnswerConfig, RetrievalCompleter
from mygpt.rag.cite import FOREIGN_WEIGHT, LEXICAL_SHARE, SUPPORT, Answered, Match, cite_all, combine, match_all
from mygpt.rag.index import IndexConfig, build_index
from mygpt.rag.relevance import MIN_RELEVANCE, SENTENCE_SHARE, Relevance, relevance_all
from mygpt.rag.search import Search, open_search

HERE = Path(__file__).parent
HANDBOOK = HERE.parent / "examples" / "handbook"
QUESTIONS = HERE.parent / "tests" / "fixtures" / "handbook"
_TOP = 3
_PRECISION = 0.88  # asked of citations in the fit
_ANSWERED = 0.93  # share of the answerable fit questions that must be answered

Row = dict[str, Any]


class CranfieldConfig(Config):
    pass


@recipe
def cranfield(config: CranfieldConfig, *, folder: Path, run: Run) -> Corpus:
    """One passage per abstract; the title is not repeated."""
    read = []
    for block in re.split(r"^\.I ", (folder / "cran.all.1400").read_text(), flags=re.MULTILINE)[1:]:
        number, rest = block.split("\n", 1)
        title = re.search(r"\.T\n(.*?)\n?\.A", rest, re.DOTALL)
        name, text = " ".join(title[1].split()) if title else "", rest.split(".W\n", 1)[1].strip()
        document = Document(f"{int(number):016d}", number.strip(), text, name, "text/plain", "", len(text), "en")
        read.append((document, [Passage(document.id, Span(document.id, 0, len(text)), text, name, document.path)] if text else []))
    return publish(Corpus, run, lambda written: write_corpus(written, read, []), name="cranfield")


# -- search ---------------------------------------------------------------------------------------------------------------


def ndcg_at_10(ranking: Sequence[str], relevant: set[str]) -> float:
    """Source: Jarvelin and Kekalainen 2002, with binary gains and log2(rank + 1)."""
    gained = sum(1 / math.log2(rank + 1) for rank, item in enumerate(ranking[:10], start=1) if item in relevant)
    return gained / sum(1 / math.log2(rank + 1) for rank in range(1, min(10, len(relevant)) + 1))


def measure_search(search: Search, folder: Path) -> Row:
    queries = cranfield_queries(folder)
    relevant: dict[int, set[str]] = defaultdict(set)
    for line in (folder / "cranqrel").read_text().splitlines():
        query, document, code = line.split()[:3]
        if 1 <= int(code) <= 4:
            relevant[int(query)].add(document)
    asked = [n for n in range(1, len(queries) + 1) if relevant[n]]
    texts = [queries[n - 1] for n in asked]
    path = {number: p.path for number, p in enumerate(search.index.passages(range(search.index.manifest.facts["passages"])))}
    vectors_QD = search.embedder.embed(texts)
    numbers_V = [number for (number,) in search.index.rows("SELECT number FROM passages ORDER BY vector")]
    rankings: dict[str, list[list[str]]] = {
        "bm25": [[path[number] for number in search.by_words(text, 10)] for text in texts],
        "dense": [[path[numbers_V[v]] for v in np.argsort(-(search.index.vectors @ vector_D))[:10]] for vector_D in vectors_QD],
        "fused": [[hit.passage.path for hit in hits] for hits in search.search_all(texts, 10)],
    }
    scores = {name: [ndcg_at_10(r, relevant[n]) for r, n in zip(found, asked, strict=True)] for name, found in rankings.items()}
    figures: Row = {f"ndcg_at_10_{name}": round(float(np.mean(values)), 4) for name, values in scores.items()}
    for rival in ("bm25", "dense"):
        interval = paired_bootstrap(scores["fused"], scores[rival])
        figures[f"fused_minus_{rival}"] = [round(x, 4) for x in (interval.estimate, interval.low, interval.high)]
    return {"queries": len(asked), **figures}


def cranfield_queries(folder: Path) -> list[str]:
    blocks = re.split(r"^\.I ", (folder / "cran.qry").read_text(), flags=re.MULTILINE)[1:]
    return [" ".join(block.split(".W\n", 1)[1].split()) for block in blocks]


# -- citations ------------------------------------------------------------------------------------------------------------

_TRUE, _FALSE = ("answer", "reworded", "short"), ("false", "short_false")


def fit_citations(search: Search, rows: Sequence[Row]) -> Row:
    """The lexical share, penalty and threshold with the best recall of true sentences at a precision of at least `_PRECISION`."""
    found = search.search_all([row["question"] for row in rows], _TOP)
    matches: list[tuple[bool, bool, Match]] = []  # is it true, does its best span hold the evidence
    for column in (*_TRUE, *_FALSE):
        answers = [Answered(row["question"], row[column], [hit.passage for hit in hits]) for row, hits in zip(rows, found, strict=True)]
        for row, sentences in zip(rows, match_all(answers, weights=search.weights, embedder=search.embedder), strict=True):
            holds = [bool(m.candidate and holds_evidence(m.candidate.text, row["evidence"])) for m in sentences]
            matches += [(column in _TRUE, held, m) for held, m in zip(holds, sentences, strict=True)]
    best: Row = {"recall": -1.0}
    for share in np.arange(0.3, 0.95, 0.1):
        for penalty in (0.0, 2.0, 4.0, 6.0):
            scored = [(is_true and held, _score(m, share, penalty)) for is_true, held, m in matches]
            for support in np.arange(0.4, 0.96, 0.02):
                figures = _precision_recall(scored, float(support), sum(is_true for is_true, _, _ in matches))
                if figures["precision"] >= _PRECISION and figures["recall"] > best["recall"]:
                    constants = {"lexical_share": round(float(share), 2), "foreign_weight": penalty, "support": round(float(support), 2)}
                    best = {**constants, **figures}
    in_use = [(is_true and held, m.score) for is_true, held, m in matches]
    chosen = {"lexical_share": LEXICAL_SHARE, "foreign_weight": FOREIGN_WEIGHT, "support": SUPPORT}
    return {"best": best, "in_use": {**chosen, **_precision_recall(in_use, SUPPORT, sum(is_true for is_true, _, _ in matches))}}


def _score(match: Match, share: float, penalty: float) -> float:
    if match.candidate is None:
        return 0.0
    return combine(match.coverage, match.cosine, match.foreign, lexical_share=share, foreign_weight=penalty)


def _precision_recall(scored: Sequence[tuple[bool, float]], support: float, num_true: int) -> Row:
    cited = [right for right, score in scored if score >= support]
    return {"precision": round(sum(cited) / max(len(cited), 1), 3), "recall": round(sum(cited) / num_true, 3), "cited": len(cited)}


def holds_evidence(quote: str, evidence: Sequence[str]) -> bool:
    return any(" ".join(e.split()) in " ".join(quote.split()) for e in evidence)


def overlaps(quote: str, evidence: str) -> bool:
    """One holds the other, white space and table marks aside."""
    one, other = (" ".join(text.replace("|", " ").split()) for text in (quote, evidence))
    return one in other or other in one


def measure_citations(search: Search) -> Row:
    rows = read_rows(QUESTIONS / "questions.jsonl")
    others = rows[1:] + rows[:1]
    replies: dict[str, Callable[[int], str]] = {
        "answers": lambda i: f"{rows[i]['answer'][0].upper()}{rows[i]['answer'][1:]}.",
        "quotes": lambda i: rows[i]["evidence"],
        "strangers": lambda i: f"{others[i]['answer'][0].upper()}{others[i]['answer'][1:]}.",
    }
    figures: Row = {}
    for name, reply in replies.items():
        by_question = {row["question"]: reply(i) for i, row in enumerate(rows)}
        scripted = ScriptedCompleter(_by_question(by_question))
        completer = RetrievalCompleter(scripted, search, AnswerConfig(min_relevance=0))
        answers = completer.complete([Conversation((Message("user", row["question"]),)) for row in rows], Sampling())
        own = [[c for c in a.citations if c.end <= len(by_question[row["question"]])] for a, row in zip(answers, rows, strict=True)]
        cited = [(c.quote, row) for citations, row in zip(own, rows, strict=True) for c in citations]
        right = sum(overlaps(quote, row["evidence"]) for quote, row in cited) if name != "strangers" else 0
        figures[name] = {"citations": len(cited), "right": right, "precision": round(right / max(len(cited), 1), 3), "questions": len(rows)}
    figures["planted_cited"] = planted_cited(search)
    return figures


def _by_question(said: dict[str, str]) -> Callable[[Conversation], str]:
    return lambda conversation: said[conversation.question.rpartition("Question: ")[2]]


def measure_model(search: Search, engine: StreamingCompleter) -> Row:
    """What a real model's answers are worth: its sentences, how many are cited, and how many of those their spans support.

    Support was judged by hand from sentence and span alone (`rag_judged.jsonl`); a pair that is not there is not counted.
    Beside it what a program can see: the span overlaps the question's evidence, or is the sentence word for word.
    """
    rows = read_rows(QUESTIONS / "questions.jsonl")
    asked = [Conversation((Message("user", row["question"]),)) for row in rows]
    completer = RetrievalCompleter(engine, search)
    first_seconds = []
    for conversation in asked[:5]:
        started = time.perf_counter()
        next(completer.stream(conversation, Sampling(max_tokens=4)))
        first_seconds.append(time.perf_counter() - started)
    answers = completer.complete(asked, Sampling(max_tokens=64))
    given = [(answer, row) for answer, row in zip(answers, rows, strict=True) if answer.finish_reason != "abstained"]
    marked = [(answer.text, c, row) for answer, row in given for c in answer.citations]
    quoted = [(c.quote, row) for text, c, row in marked if text[: c.start].endswith(QUOTED + "“")]  # ours, not the model's
    cited = [(text[c.start : c.end], c.quote, row) for text, c, row in marked if not text[: c.start].endswith(QUOTED + "“")]
    right = sum(overlaps(quote, row["evidence"]) for _, quote, row in cited)
    verbatim = sum(not overlaps(quote, row["evidence"]) and overlaps(quote, said) for said, quote, row in cited)
    judgements = {(row["said"], row["quote"]): row["supported"] for row in read_rows(HERE / "rag_judged.jsonl")}
    judged = [judgements.get((said, quote)) for said, quote, _ in cited]
    quoted_right = sum(overlaps(quote, row["evidence"]) for quote, row in quoted)
    return {
        "answers": len(given),
        "citations": len(cited),
        "overlap_evidence": right,
        "other_but_word_for_word": verbatim,
        "judged": sum(j is not None for j in judged),
        "judged_supported": sum(j is True for j in judged),
        "precision": round(sum(j is True for j in judged) / max(sum(j is not None for j in judged), 1), 3),
        "precision_by_overlap": round((right + verbatim) / max(len(cited), 1), 3),
        "quotes": len(quoted),
        "quotes_overlap_evidence": quoted_right,
        "answers_with_a_citation": sum(bool(answer.citations) for answer, _ in given),
        "unsupported_sentences": sum(len(answer.unsupported) for answer, _ in given),
        "first_token_seconds_worst_of_4": round(max(first_seconds[1:]), 3),
    }


def planted_cited(search: Search) -> list[str]:
    """The planted false sentences that were given a citation, from the passages most like them."""
    sentences = [row["sentence"] for row in read_rows(QUESTIONS / "planted.jsonl")]
    found = search.search_all(sentences, _TOP)
    answers = [Answered("", sentence, [hit.passage for hit in hits]) for sentence, hits in zip(sentences, found, strict=True)]
    marks = cite_all(answers, index=search.index, weights=search.weights, embedder=search.embedder)
    return [sentence for sentence, (citations, _) in zip(sentences, marks, strict=True) if citations]


def measure_second(search: Search) -> Row:
    """20 questions, each with a true and a false sentence, and 20 off-topic ones, half of them near: written last, when all rules stood."""
    rows = read_rows(HERE / "rag_second.jsonl")
    pairs = [row for row in rows if "answer" in row]
    found = search.search_all([row["question"] for row in pairs], _TOP)
    figures: Row = {}
    for column in ("answer", "false"):
        answers = [Answered(row["question"], row[column], [hit.passage for hit in hits]) for row, hits in zip(pairs, found, strict=True)]
        marks = cite_all(answers, index=search.index, weights=search.weights, embedder=search.embedder)
        figures[f"cited_{column}"] = sum(bool(citations) for citations, _ in marks)
    for kind in ("general", "near_topic"):
        judged = _judged(search, [row["question"] for row in rows if row.get("kind") == kind])
        figures[f"abstained_{kind}"] = f"{sum(j.score < MIN_RELEVANCE for j in judged)} of {len(judged)}"
    lost = sum(j.score < MIN_RELEVANCE for j in _judged(search, [row["question"] for row in pairs]))
    return {**figures, "abstained_answerable": f"{lost} of {len(pairs)}"}


# -- abstention -----------------------------------------------------------------------------------------------------------


def fit_relevance(httpx: Search, abstracts: Search, rows: Sequence[Row], off_topic: Sequence[Row], folder: Path) -> Row:
    """Logistic regression of "its answer was found" on the two parts of relevance; the threshold keeps `_ANSWERED` of those."""
    own = [row["question"] for row in rows]
    reworded = [row["reworded_question"] for row in rows]
    strange = [row["question"] for row in off_topic]
    queries = cranfield_queries(folder)[::3]
    near = [row["question"] for row in off_topic if row["kind"] == "near_topic"]
    answerable = [*_found(httpx, own, rows), *_found(httpx, reworded, rows)]
    kinds = [  # judged, weight of one, label; near misses count more, since they are what is hard
        (_judged(httpx, answerable), 1.0, 1),
        (_judged(abstracts, queries), 0.6, 1),
        (_judged(httpx, near), 3.0, 0),
        (_judged(httpx, strange), 0.6, 0),
        (_judged(httpx, queries), 0.3, 0),
        (_judged(abstracts, own + strange), 0.3, 0),
    ]
    x_N2 = np.array([[j.sentence, j.known] for judged, _, _ in kinds for j in judged])
    weight_N = np.array([weight for judged, weight, _ in kinds for _ in judged])
    label_N = np.array([label for judged, _, label in kinds for _ in judged])

    def loss(b_3: np.ndarray) -> float:
        z_N = x_N2 @ b_3[1:] + b_3[0]
        return float((weight_N * (np.logaddexp(0, z_N) - label_N * z_N)).mean() + 1e-3 * (b_3[1:] ** 2).sum())

    b_3 = minimize(loss, np.zeros(3)).x
    share = float(b_3[1] / (b_3[1] + b_3[2]))
    kept = np.quantile([SENTENCE_SHARE * j.sentence + (1 - SENTENCE_SHARE) * j.known for j in kinds[0][0]], 1 - _ANSWERED)
    names = ("answerable", "cranfield", "near_topic", "off_topic", "cranfield_to_httpx", "httpx_to_cranfield")
    shares = [float(np.mean([j.score < MIN_RELEVANCE for j in judged])) for judged, _, _ in kinds]
    abstained = {name: round(share, 3) for name, share in zip(names, shares, strict=True)}
    return {
        "best": {"sentence_share": round(share, 2), "min_relevance": round(float(kept), 3)},
        "in_use": {"sentence_share": SENTENCE_SHARE, "min_relevance": MIN_RELEVANCE, "abstained": abstained},
    }


def _found(search: Search, questions: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """The questions whose evidence is among the passages that would be read."""
    found = search.search_all(questions, _TOP)
    held = [any(holds_evidence(h.passage.text, row["evidence"]) for h in hits) for hits, row in zip(found, rows, strict=True)]
    return [question for question, is_held in zip(questions, held, strict=True) if is_held]


def _judged(search: Search, questions: Sequence[str]) -> list[Relevance]:
    return relevance_all(questions, search.search_all(questions, _TOP), weights=search.weights, embedder=search.embedder)


def measure_abstention(search: Search) -> Row:
    rows, off_topic = read_rows(QUESTIONS / "questions.jsonl"), read_rows(QUESTIONS / "off_topic.jsonl")
    questions = [row["question"] for row in rows]
    lost = [row["id"] for row, j in zip(rows, _judged(search, questions), strict=True) if j.score < MIN_RELEVANCE]
    strange = _judged(search, [row["question"] for row in off_topic])
    kept = [row["id"] for row, j in zip(off_topic, strange, strict=True) if j.score >= MIN_RELEVANCE]
    found = _found(search, questions, [{"evidence": [row["evidence"]]} for row in rows])
    return {
        "off_topic": len(off_topic),
        "off_topic_abstained": len(off_topic) - len(kept),
        "off_topic_answered": kept,
        "answerable": len(rows),
        "answerable_abstained": len(lost),
        "answerable_lost": lost,
        "evidence_in_top_3": len(found),
    }


# -- the run --------------------------------------------------------------------------------------------------------------


def read_rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data", help="folder with cranfield/ and httpx_docs/")
    parser.add_argument("--model", default="", help="also measure the answers of this model, for example smollm2-135m-q4_1")
    parser.add_argument("--home", type=Path, help="kept for the next run; else a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        finish("rag", measure(options, options.home or Path(folder)), options)


def measure(options: Namespace, home: Path) -> Row:
    run = Run(home, name="benchmark")
    embedder = CachedEmbedder(TorchEmbedder(obtain("minilm", run=run)), home / "cache" / "vectors.sqlite")
    data: Path = options.data
    httpx = _search(ingest(IngestConfig(), sources=(data / "httpx_docs",), run=run), embedder, run)
    handbook = _search(ingest(IngestConfig(), sources=(HANDBOOK,), run=run), embedder, run)
    abstracts = _search(cranfield(CranfieldConfig(), folder=data / "cranfield", run=run), embedder, run)
    rows, off_topic = read_rows(HERE / "rag_httpx.jsonl"), read_rows(HERE / "rag_httpx_off_topic.jsonl")
    figures: Row = {
        "search": measure_search(abstracts, data / "cranfield"),
        "fit": {"citations": fit_citations(httpx, rows), "relevance": fit_relevance(httpx, abstracts, rows, off_topic, data / "cranfield")},
        "held_out": {"citations": measure_citations(handbook), "abstention": measure_abstention(handbook)},
        "second": measure_second(handbook),
    }
    if options.model:
        figures["held_out"]["model"] = measure_model(handbook, TorchEngine(obtain(options.model, run=run)))
    return figures


def _search(corpus: Corpus, embedder: Embedder, run: Run) -> Search:
    return open_search(build_index(IndexConfig(), corpus=corpus, embedder=embedder, run=run), embedder)


if __name__ == "__main__":
    main()
