"""When a source cannot support a sentence, however alike they look: another number, name, unit, polarity or opposite.

A veto, not a proof: what passes here may still be unsupported, and is then stopped by its score (`rag/cite`).

We differ   from entailment models (TRUE, MiniCheck): rules of thumb for English on two CPU cores, whose misses are measured
            in `benchmarks/rag.py`; numbers and names work in any language with Latin digits and capital letters
"""

import re
from collections.abc import Iterable, Sequence

from mygpt.rag.words import STOP_WORDS, TermWeights, fold, identifiers, is_negated, names, numbers, numbers_allowed, stem, terms, words

# A sentence with a word of a group, against a source with another word of the group and without that one, says something else.
_EXCLUSIVE_WORDS = """
before after; minimum maximum; min max; least most; first last; earliest latest; above below; over under; open closed; start end; increase
decrease; rise fall; more fewer less; higher lower; longer shorter; larger smaller; bigger smaller; faster slower; older younger; heavier
lighter; allowed forbidden; allowed prohibited; permitted forbidden; may must; required optional; mandatory optional; mandatory voluntary;
enabled disabled; include exclude; always never sometimes; all none some; inside outside; indoors outdoors; morning afternoon evening
night; day night; north south east west; northern southern eastern western; left right; upper lower; up down; buy sell; accept refuse
reject; arrive depart; spring summer autumn winter; hourly daily weekly fortnightly monthly quarterly yearly; hour day week fortnight
month quarter year; second minute hour day week month year; gram kilogram tonne; kg tonne; centimetre metre kilometre mile; litre
millilitre; same different; encrypted unencrypted; public private; publicly privately; paid unpaid; full empty; hot cold; wet dry; light
dark; safe dangerous; binary text; red orange yellow green blue purple white black grey brown pink; synchronous asynchronous; single
double; half double; child adult; euro pound dollar; percent euro pound; add remove; win lose; succeed fail; encourage discourage; legal
illegal; possible impossible
"""
_EXCLUSIVE = [frozenset(map(stem, group.split())) for group in _EXCLUSIVE_WORDS.split(";")]
_NEEDS_ITS_OWN = {  # a word that narrows or compares, and those of which the source must have one
    word: frozenset({stem(w) for w in needs.split()} | set(needs.split()))
    for word, needs in {
        "only": "only sole solely except no none not just exclusively but unless",
        "more": "more most extra additional further greater larger longer higher bigger over above up",
        "less": "less fewer under below smaller shorter lower",
        "fewer": "less fewer under below smaller lower",
    }.items()
}
_SYMBOLS = {"£": "pound", "€": "euro", "$": "dollar", "%": "percent"}
_DENIES_NOTHING = re.compile(
    r"\b(?:no|not|none) (?:less|more|\w+er) than\b|\b(?:nothing|none) but\b|\bnot only\b|\bno matter\b", re.IGNORECASE
)
_CLAUSE = re.compile(
    r"[,;:()|–—]|\s-\s|\n|(?<=[.!?])\s|\b(?:and|but|or|unless|except|while|whereas|because|so that|although|if)\b",
    re.IGNORECASE,
)
_NAME_WEIGHT = 3.0  # a name says whom a number belongs to; a common word less so
_SAME_CLAUSE = 0.4  # of the weight of a clause: from here on, two clauses speak of the same thing
_BINDING_MARGIN = 0.12  # of the weight of the sentence: below it, two clauses fit equally well
_FRAGMENT_MARGIN = 0.25  # the same where most of the words are the question's


class Claim:
    """A sentence of an answer, taken apart once."""

    def __init__(self, text: str, known_names: Iterable[str] = ()):
        self.text = text
        self.terms = frozenset(terms(text))
        self.numbers = numbers(text)
        self.identifiers = identifiers(text)
        self.names = names(text) | (set(known_names) & {stem(w) for w in words(text)})
        self.marked = _marked_words(text)
        self.negated = _negated(text)


def contradiction(claim: Claim, source: str, around: str, weights: TermWeights) -> str:
    """Why `source` cannot support `claim` ("number", "name", ...), "" when nothing speaks against it.

    `around` is what a reader of the source also sees: title, heading. It may supply names, never numbers or polarity.
    """
    if claim.numbers - numbers_allowed(source):
        return "number"
    if claim.names - {stem(w) for w in words(f"{source} {around}")}:
        return "name"
    if claim.identifiers - set(re.split(r"[\W_]+", fold(f"{source} {around}"))):
        return "identifier"
    if claim.negated and not _negated(source):
        return "negation"
    marked = _marked_words(source)
    for group in _EXCLUSIVE:
        said, stands = claim.marked & group, marked & group
        if said - stands and stands - said:
            return "opposite"
    for word, needs in _NEEDS_ITS_OWN.items():
        if word in claim.marked and not needs & marked:
            return "scope"
    return "negation" if _other_polarity(claim, source, weights) else ""


def misplaced_number(claim: Claim, sources: Sequence[str], weights: TermWeights, *, question: str = "") -> bool:
    """A number stands in the sources, but a clause with another number fits what the sentence says of it better.

    `question` says what a mere fragment ("channel 14") is about.
    """
    clauses = [c for source in sources for c in _clauses(source) if numbers(c)]
    for said in _clauses(claim.text):
        wanted = numbers(said)
        rest = {*terms(said), *terms(question)} - wanted
        if not wanted or not rest:
            continue
        fit_with = max((_fit(claim, rest, c, weights) for c in clauses if numbers_allowed(c) & wanted), default=0.0)
        fit_against = max((_fit(claim, rest, c, weights) for c in clauses if not numbers_allowed(c) & wanted), default=0.0)
        if fit_against > fit_with + (_FRAGMENT_MARGIN if question else _BINDING_MARGIN):
            return True
    return False


def _fit(claim: Claim, rest: Iterable[str], clause: str, weights: TermWeights) -> float:
    """Share of the weight of `rest`, its names first, that stands in the clause."""
    there = set(terms(clause))
    weight = {t: w * (_NAME_WEIGHT if t in claim.names else 1.0) for t, w in weights.of(rest).items()}
    total = sum(weight.values())
    return sum(w for t, w in weight.items() if t in there) / total if total else 0.0


def _other_polarity(claim: Claim, source: str, weights: TermWeights) -> bool:
    """A clause of the sentence is affirmed where the clause of the source that fits it best is denied, or the reverse."""
    clauses = [(c, set(terms(c))) for c in _clauses(source)]
    for said in _clauses(claim.text):
        wanted = set(terms(said))
        best, found = max(clauses, key=lambda c: weights.coverage(wanted, c[1]), default=("", set()))
        if len(wanted) >= 2 and weights.coverage(wanted, found) >= _SAME_CLAUSE and _negated(best) != _negated(said):
            return True
    return False


def _clauses(text: str) -> list[str]:
    """Parts of a text that make one statement each; a part without a term of its own stays with the one before."""
    parts: list[str] = []
    for part in _CLAUSE.split(_DENIES_NOTHING.sub(" ", text)):
        if parts and not terms(part):
            parts[-1] += f" {part}"
        elif part.strip():
            parts.append(part)
    return parts


def _negated(text: str) -> bool:
    return is_negated(_DENIES_NOTHING.sub(" ", re.sub(r"[*_`]", "", text)))


def _marked_words(text: str) -> frozenset[str]:
    """Stems of all words, stop words too, with symbols spelt out: what the exclusive groups look at."""
    plain = re.sub(r"\bper cent\b", "percent", text)
    for symbol, word in _SYMBOLS.items():
        plain = plain.replace(symbol, f" {word} ")
    return frozenset({stem(w) for w in words(plain)} | {w for w in words(plain) if w in STOP_WORDS})
