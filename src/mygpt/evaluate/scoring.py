"""One item's score in each form: columns of metrics, and how the answer was read. The maths is `metrics/`; this is only who calls what.

choice        acc, acc_norm (per character), acc_bytes (per UTF-8 byte), mutual information, mc2
generate      by the task's kind of answer: text, summary, number, label, instructions
continuation  acc (is it what greedy decoding writes?), the log-probability, bits per byte
rolling       bits per byte

Source: Gao et al., Language Model Evaluation Harness v0.4.13, for the names and the normalisations; mc2: Lin et al. 2022, arXiv:2109.07958.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mygpt.artifacts.sentences import split_sentences
from mygpt.artifacts.task import INSTRUCTIONS, TRUE_CHOICES, Item, TaskSettings
from mygpt.core.errors import MygptError
from mygpt.evaluate.extraction import GSM8K_STRICT, Extraction, cleaned_number, extract_label, extract_number, extract_text
from mygpt.evaluate.instructions import follows
from mygpt.infer.protocols import Embedder, Score
from mygpt.metrics.bits_per_byte import bits_per_byte
from mygpt.metrics.bleu import sentence_bleu
from mygpt.metrics.chrf import sentence_chrf
from mygpt.metrics.exact_match import exact_match
from mygpt.metrics.multiple_choice import mc2, score_choices
from mygpt.metrics.numeric_answer import numeric_match
from mygpt.metrics.rouge import rouge_l, rouge_lsum, rouge_n
from mygpt.metrics.similarity import embedding_similarity
from mygpt.metrics.token_f1 import token_f1


@dataclass(frozen=True)
class Scored:
    answer: str
    reference: str
    metrics: dict[str, float]
    parsed: bool | None = None  # None: nothing had to be read
    shown: dict[str, Any] = field(default_factory=dict)  # further columns


def scored_choice(item: Item, scores: Sequence[Score], bare: Sequence[Score] | None) -> Scored:
    """`bare`: the scores of the same choices without the question, for mutual information."""
    assert item.gold is not None  # check_task
    logprobs = finite(item.id, [s.logprob for s in scores])
    without = finite(item.id, [s.logprob for s in bare]) if bare is not None else []
    made = score_choices(logprobs, item.choices, item.gold, item_id=item.id, unconditional=without)
    metrics = {"acc": made.acc, "acc_norm": made.acc_norm, "acc_bytes": made.acc_bytes}
    if made.acc_mutual_info is not None:
        metrics["acc_mutual_info"] = made.acc_mutual_info
    if TRUE_CHOICES in item.facts:
        true = set(item.facts[TRUE_CHOICES].split())
        metrics["mc2"] = mc2(logprobs, [str(i) in true for i in range(len(logprobs))], item_id=item.id)
    shown = {
        "picked": made.chosen,
        "gold": item.gold,
        "tied": made.tied,
        "choice_logprobs": logprobs,
        "confidence": made.probabilities[made.chosen],  # among the choices, of the one taken
    }
    return Scored(item.choices[made.chosen], item.choices[item.gold], metrics, shown=shown)


def scored_answer(settings: TaskSettings, item: Item, answer: str) -> Scored:
    if settings.answer == "instructions":
        return _obeyed(item, answer)
    read, metrics = _read(settings, item, answer)
    shown = {
        "read_strict": read.strict,
        "read_flexible": read.flexible,
        "read_number": None if read.number is None else float(read.number.value),
    }
    return Scored(answer, " | ".join(item.references), metrics, read.parsed, shown)


def scored_continuation(item: Item, score: Score) -> Scored:
    (logprob,) = finite(item.id, [score.logprob])
    if score.is_greedy is None:
        fix = "Use a model on this machine, or a server whose log-probabilities come with the likeliest token."
        raise MygptError(f"Item `{item.id}`: the scorer does not tell whether the continuation is the greedy one.", fix=fix)
    shown = {"num_tokens": score.num_tokens, "num_bytes": score.num_bytes}
    metrics = {"acc": float(score.is_greedy), "logprob": logprob, "bits_per_byte": bits_per_byte([logprob], [score.num_bytes])}
    return Scored("", item.references[0], metrics, shown=shown)


def scored_text(item: Item, scores: Sequence[Score]) -> Scored:
    """`scores`: of the text's windows, in order."""
    logprob = math.fsum(finite(item.id, [s.logprob for s in scores]))
    num_bytes = sum(s.num_bytes for s in scores)
    shown = {
        "logprob": logprob,
        "num_bytes": num_bytes,
        "num_words": len(item.question.split()),
        "num_tokens": sum(s.num_tokens for s in scores),
    }
    return Scored("", "", {"bits_per_byte": bits_per_byte([logprob], [num_bytes])}, shown=shown)


def finite(item_id: str, logprobs: Sequence[float]) -> list[float]:
    """Raises MygptError where a log-probability is no number: one would decide every comparison it is in."""
    for number, logprob in enumerate(logprobs):
        if not math.isfinite(logprob):
            raise MygptError(
                f"Item `{item_id}`: the model gives {logprob} as log-probability of choice or window {number}.",
                fix="Its weights or activations overflow: score it in float32, and look at what its training ended with.",
            )
    return list(logprobs)


def _read(settings: TaskSettings, item: Item, answer: str) -> tuple[Extraction, dict[str, float]]:
    references = item.references
    if settings.answer == "number":
        read = extract_number(answer, settings.answer_pattern or GSM8K_STRICT)
        cleaned = {cleaned_number(r) for r in references}
        return read, {
            "numeric": float(any(numeric_match(answer, r) for r in references)),
            "exact_match_flexible": float(read.flexible in cleaned),
            "exact_match_strict": float(read.strict in cleaned),
        }
    if settings.answer == "label":
        read = extract_label(answer, item.choices)
        return read, {"acc": float(read.flexible in references), "acc_strict": float(read.strict in references)}
    read = extract_text(answer, settings.answer_pattern)
    text = read.flexible or ""
    metrics = {
        "exact_match": max(exact_match(text, r) for r in references),
        "f1": max(token_f1(text, r) for r in references),
        "rouge_l": max(rouge_l(text, r).f for r in references),
        "exact_match_strict": max(exact_match(read.strict or "", r) for r in references),
    }
    return read, {**metrics, **_overlap(text, references)} if settings.answer == "summary" else metrics


def _overlap(text: str, references: Sequence[str]) -> dict[str, float]:
    """Of one summary: each ROUGE by the reference that fits best, BLEU and chrF by all of them together."""
    lines = _lines(text)
    return {
        "rouge_1": max(rouge_n(text, r, 1).f for r in references),
        "rouge_2": max(rouge_n(text, r, 2).f for r in references),
        "rouge_lsum": max(rouge_lsum(lines, _lines(r)).f for r in references),
        "bleu": sentence_bleu(text, references).score,
        "chrf": sentence_chrf(text, references).score,
    }


def similarities(embedder: Embedder, texts: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Of each text with the nearest of its references, by their vectors; 0 for a text that says nothing."""
    told = [[r for r in own if r.strip()] for own in references]
    pairs = [(text, r) for text, own in zip(texts, told, strict=True) for r in own]
    found = iter(embedding_similarity(embedder.embed([text for text, _ in pairs]), embedder.embed([r for _, r in pairs])))
    nearest = [max(next(found) for _ in own) for own in told]
    return [best if text.strip() else 0.0 for text, best in zip(texts, nearest, strict=True)]


def _lines(text: str) -> str:
    """A sentence on each line, as ROUGE-Lsum reads a text."""
    return "\n".join(text[start:end] for start, end in split_sentences(text))


def _obeyed(item: Item, answer: str) -> Scored:
    instructions = json.loads(item.facts[INSTRUCTIONS])
    strict = [follows(answer, i["id"], i["kwargs"]) for i in instructions]
    loose = [any(follows(a, i["id"], i["kwargs"]) for a in _loosely(answer)) for i in instructions]
    metrics = {
        "prompt_strict": float(all(strict)),
        "instruction_strict": sum(strict) / len(strict),
        "prompt_loose": float(all(loose)),
        "instruction_loose": sum(loose) / len(loose),
    }
    reference = ", ".join(i["id"] for i in instructions)
    broken = [i["id"] for i, obeyed in zip(instructions, strict, strict=True) if not obeyed]
    return Scored(answer, reference, metrics, bool(answer.strip()), {"broken": ", ".join(broken)})


def _loosely(answer: str) -> list[str]:
    """Zhou et al. 2023, section 2.2: without first line, last line or both, and without asterisks."""
    lines = answer.split("\n")
    cuts = [answer, "\n".join(lines[1:]), "\n".join(lines[:-1]), "\n".join(lines[1:-1])]
    return [text for cut in cuts for text in (cut, cut.replace("*", ""))]
