r"""Readings of an answer, always side by side, because which one is taken can change a score by half.

strict     what stands where the prompt asked for it (`#### 18`); nothing else counts
flexible   the last number, or the one label that is named anywhere
numeric    the last number, compared as a number: 18, 18.0, $18 and 18... are equal

A reading that finds nothing is None: an answer that cannot be parsed is counted, never taken for a wrong one in silence.

Source: Cobbe et al. 2021, arXiv:2110.14168 (the `####` mark); strict and flexible of Gao et al., Language Model Evaluation Harness v0.4.13,
gsm8k.yaml version 3: after either, commas, dollar signs, all up to `#### ` and a last full stop are removed and texts compared.
We differ: the flexible pattern there also takes "..", and breaks on "18..."; `numeric` does neither. A label counts only where no other
label is named beside it.
"""

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

from mygpt.metrics.numeric_answer import Number, last_number

GSM8K_STRICT = r"#### (\-?[0-9\.\,]+)"
_AROUND = string.whitespace + string.punctuation
_FLEXIBLE_NUMBER = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")


@dataclass(frozen=True)
class Extraction:
    """What each reading found; None where it found nothing."""

    strict: str | None
    flexible: str | None
    parsed: bool  # whether anything was found that can be compared: ".." is no number, though the flexible pattern takes it
    number: Number | None = None


def extract_number(answer: str, strict_pattern: str = GSM8K_STRICT) -> Extraction:
    strict = re.search(strict_pattern, answer)
    flexible = _FLEXIBLE_NUMBER.findall(answer)
    number = last_number(answer)
    return Extraction(
        strict=cleaned_number(strict.group(1)) if strict else None,
        flexible=cleaned_number(flexible[-1].strip()) if flexible else None,
        parsed=number is not None,
        number=number,
    )


def extract_label(answer: str, labels: Sequence[str]) -> Extraction:
    """Strict: the answer is a label and nothing more. Flexible: exactly one label is named in it, as whole words."""
    strict = next((label for label in labels if _bare(answer) == _bare(label)), None)
    named = [strict] if strict is not None else _named(answer, labels)
    return Extraction(strict, named[0] if len(named) == 1 else None, parsed=len(named) == 1)


def extract_text(answer: str, strict_pattern: str = "") -> Extraction:
    """Strict: what the pattern's group holds, without a last full stop; without a pattern, the answer. Flexible: the answer."""
    found = re.search(strict_pattern, answer) if strict_pattern else None
    strict = found.group(1).strip().removesuffix(".") if found else (None if strict_pattern else answer.strip() or None)
    return Extraction(strict, answer.strip() or None, parsed=bool(answer.strip()))


def cleaned_number(text: str) -> str:
    """As lm-eval compares: without commas, dollar signs, all up to `#### `, and a last full stop."""
    return re.sub(r"\.$", "", re.sub(r"(?s).*#### ", "", text.replace(",", "").replace("$", "")))


def _bare(text: str) -> str:
    """Case, white space and punctuation around it set aside."""
    return text.strip(_AROUND).casefold()


def _named(answer: str, labels: Sequence[str]) -> list[str]:
    """Labels that stand in the answer as whole words; one inside another's words ("equivalent" in "not equivalent") is not named."""
    found: list[str] = []
    rest = answer
    for label in sorted(labels, key=len, reverse=True):
        # a single letter is a label only as a capital of its own: "a" is an article
        flags = re.NOFLAG if len(label) == 1 else re.IGNORECASE
        pattern = re.compile(rf"(?<!\w){re.escape(label)}(?!\w)", flags)
        if pattern.search(rest):
            found.append(label)
            rest = pattern.sub(" \0 ", rest)
    return found
