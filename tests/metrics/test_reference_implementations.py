"""Metrics against reference implementations: sacrebleu on real summaries, scikit-learn, seqeval, krippendorff, nltk, SQuAD's rule."""

import json
import random
import re
import string
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mygpt.metrics.agreement import cohen_kappa, fleiss_kappa, interval, krippendorff_alpha, nominal, ordinal, weighted_kappa
from mygpt.metrics.bleu import bleu_of_sums, bleu_statistics, corpus_bleu, sentence_bleu, whitespace_bleu
from mygpt.metrics.bootstrap import bootstrap_statistic
from mygpt.metrics.calibration import brier_binary, brier_multiclass, equal_mass_bins, equal_width_bins, expected_calibration_error
from mygpt.metrics.chrf import corpus_chrf, sentence_chrf
from mygpt.metrics.exact_match import exact_match
from mygpt.metrics.macro_f1 import classification
from mygpt.metrics.randomisation import approximate_randomisation
from mygpt.metrics.ranking import exponential, mean_reciprocal_rank, ndcg_at_k, recall_at_k
from mygpt.metrics.roc_auc import roc_auc
from mygpt.metrics.span_f1 import EntitySpan, span_f1, span_f1_by_label
from mygpt.metrics.token_f1 import token_f1

NUM_PAIRS = 100


@pytest.fixture(scope="module")
def pairs(shared_data: Path) -> list[tuple[str, str]]:
    """Of samsum: the turns of a dialogue without their speakers, cut to forty words, and its summary."""
    path = shared_data / "t0" / "samsum_Generate_a_summary_for_this_dialogue.jsonl"
    if not path.is_file():
        pytest.skip(f"no T0 summaries at {path}")
    found = []
    for line in path.read_text(encoding="utf-8").splitlines()[:NUM_PAIRS]:
        row = json.loads(line)
        turns = " ".join(turn.partition(":")[2].strip() for turn in row["prompt"].splitlines()[1:])
        found.append((" ".join(turns.split()[:40]), row["completion"].replace("<|endoftext|>", "").strip()))
    assert len(found) == NUM_PAIRS
    return found


# -- sacrebleu --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokenizer", "lowercase"), [("13a", False), ("13a", True), ("intl", False), ("char", False)])
def test_bleu_equals_sacrebleu(pairs: list[tuple[str, str]], tokenizer: str, lowercase: bool) -> None:
    metrics = pytest.importorskip("sacrebleu.metrics")
    answers, references = [a for a, _ in pairs], [r for _, r in pairs]
    theirs = metrics.BLEU(tokenize=tokenizer, lowercase=lowercase).corpus_score(answers, [references])
    ours = corpus_bleu(answers, [[r] for r in references], tokenizer=tokenizer, lowercase=lowercase)
    assert ours.points == pytest.approx(theirs.score, abs=1e-9) and 1 < ours.points < 60
    assert ours.precisions == pytest.approx([p / 100 for p in theirs.precisions]) and ours.brevity_penalty == pytest.approx(theirs.bp)
    sums_K = bleu_statistics(answers, [[r] for r in references], tokenizer=tokenizer, lowercase=lowercase).sum(axis=0)
    assert float(bleu_of_sums(sums_K)) * 100 == pytest.approx(theirs.score, abs=1e-9)  # what a bootstrap resamples
    one = metrics.BLEU(tokenize=tokenizer, lowercase=lowercase, effective_order=True)
    for answer, reference in pairs:
        found = sentence_bleu(answer, [reference], tokenizer=tokenizer, lowercase=lowercase)
        assert found.points == pytest.approx(one.sentence_score(answer, [reference]).score, abs=1e-9)


def test_whitespace_bleu_equals_sacrebleu_on_real_text(pairs: list[tuple[str, str]]) -> None:
    """The one that is our own arithmetic."""
    metrics = pytest.importorskip("sacrebleu.metrics")
    answers, references = [a for a, _ in pairs], [r for _, r in pairs]
    theirs = metrics.BLEU(tokenize="none", smooth_method="none", force=True).corpus_score(answers, [references])
    assert whitespace_bleu(answers, [[r] for r in references]).points == pytest.approx(theirs.score, abs=1e-9)


def test_significance_of_bleu_equals_sacrebleus(pairs: list[tuple[str, str]]) -> None:
    """p of approximate randomisation, (as far + 1) / (N + 1), and the interval of one system: two answers of three, cut to 30 words."""
    significance = pytest.importorskip("sacrebleu.significance")
    from sacrebleu.metrics import BLEU

    references = [[r for _, r in pairs]]
    before = [a for a, _ in pairs]
    after = [" ".join(a.split()[:30]) if i % 3 else a for i, a in enumerate(before)]
    test = significance.PairedTest([("before", before), ("after", after)], {"BLEU": BLEU()}, references, test_type="ar", n_samples=4_000)
    theirs = next(scores for name, scores in test()[1].items() if "BLEU" in name)[1]
    counts = [bleu_statistics(answers, [[r] for r in references[0]]) for answers in (after, before)]
    ours = approximate_randomisation(counts[0], counts[1], bleu_of_sums, num_samples=4_000)
    assert 0.005 < theirs.p_value < 0.9
    assert ours == pytest.approx(theirs.p_value, abs=4 * (2 * 0.25 / 4_000) ** 0.5)

    drawn = BLEU().corpus_score(before, references, n_bootstrap=1_000)
    width = float(re.search(r"± ([\d.]+)", str(drawn.format(width=4)))[1])  # type: ignore[index]
    found = bootstrap_statistic(counts[1], bleu_of_sums, num_resamples=4_000)
    assert 100 * (found.high - found.low) / 2 == pytest.approx(width, rel=0.12)  # ours is the wider of two, and expanded


@pytest.mark.parametrize("word_order", [0, 2])
def test_chrf_equals_sacrebleu(pairs: list[tuple[str, str]], word_order: int) -> None:
    metrics = pytest.importorskip("sacrebleu.metrics")
    theirs = metrics.CHRF(word_order=word_order)
    answers, references = [a for a, _ in pairs], [r for _, r in pairs]
    ours = corpus_chrf(answers, [[r] for r in references], word_order=word_order)
    assert ours.points == pytest.approx(theirs.corpus_score(answers, [references]).score, abs=1e-9) and 10 < ours.points < 60
    for answer, reference in pairs:
        found = sentence_chrf(answer, [reference], word_order=word_order)
        assert found.points == pytest.approx(theirs.sentence_score(answer, [reference]).score, abs=1e-9)


# -- SQuAD v1.1: Rajpurkar et al. 2016, section 6.1, written anew from its text -------------------------------------------------


def _squad_words(text: str) -> list[str]:
    """Lower case; no punctuation; without the words a, an, the; white space as one."""
    kept = [character for character in text.lower() if character not in string.punctuation]
    return [word for word in re.split(r"\s+", "".join(kept)) if word and word not in ("a", "an", "the")]


def _squad_f1(answer: str, reference: str) -> float:
    left, shared = Counter(_squad_words(reference)), 0
    for word in _squad_words(answer):
        if left[word]:
            left[word] -= 1
            shared += 1
    if not shared:
        return 0.0
    precision, recall = shared / len(_squad_words(answer)), shared / len(_squad_words(reference))
    return 2 * precision * recall / (precision + recall)


def test_token_f1_and_exact_match_follow_squads_rule(pairs: list[tuple[str, str]]) -> None:
    """On real text, and on pieces of it that nearly agree. ASCII only: there ours removes what SQuAD's script leaves."""
    rng = random.Random(3)
    compared = exact = 0
    for answer, reference in pairs:
        shorter = " ".join(w for w in reference.split() if rng.random() < 0.8)
        dressed = f"The {reference.upper()}!"
        for a, r in ((answer, reference), (shorter, reference), (dressed, reference), (answer[:30], answer)):
            if not (a.isascii() and r.isascii() and _squad_words(a)):
                continue
            assert token_f1(a, r) == pytest.approx(_squad_f1(a, r), abs=1e-12), (a, r)
            assert exact_match(a, r) == float(_squad_words(a) == _squad_words(r)), (a, r)
            compared += 1
            exact += exact_match(a, r) == 1.0
    assert compared > 200 and exact > 50


# -- scikit-learn -----------------------------------------------------------------------------------------------------------


def test_classes_equal_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = random.Random(1)
    for num_classes in (2, 3, 7):
        labels = [f"class {i}" for i in range(num_classes)]
        gold = [rng.choice(labels) for _ in range(200)]
        named = [label if rng.random() < 0.6 else rng.choice(labels) for label in gold]
        found = classification(named, gold, labels=labels)
        assert found.macro_f1 == pytest.approx(sklearn.f1_score(gold, named, average="macro"))
        assert found.micro_f1 == pytest.approx(sklearn.f1_score(gold, named, average="micro"))
        assert found.accuracy == pytest.approx(sklearn.accuracy_score(gold, named))
        assert [list(row[:-1]) for row in found.confusion] == sklearn.confusion_matrix(gold, named, labels=labels).tolist()
        assert cohen_kappa(named, gold) == pytest.approx(sklearn.cohen_kappa_score(named, gold))
        for power, name in ((1, "linear"), (2, "quadratic")):
            expected = sklearn.cohen_kappa_score(named, gold, labels=labels, weights=name)
            assert weighted_kappa(named, gold, labels, power=power) == pytest.approx(expected)


def test_brier_equals_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(2)
    said, happened = rng.random(300), rng.random(300) < 0.4
    assert brier_binary(said.tolist(), happened.tolist()) == pytest.approx(sklearn.brier_score_loss(happened, said))
    shares_NC, gold_N = rng.dirichlet([1, 1, 1, 1], 300), rng.integers(0, 4, 300)
    expected = sklearn.brier_score_loss(gold_N, shares_NC, labels=[0, 1, 2, 3], scale_by_half=False)
    assert brier_multiclass(shares_NC.tolist(), gold_N.tolist()) == pytest.approx(expected)


def test_ndcg_equals_scikit_learn() -> None:
    """Every document judged and listed, as scikit-learn wants it; 2^grade - 1 by giving it those gains."""
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    for _ in range(50):
        grades_D, scores_D = rng.integers(0, 4, 12), rng.permutation(12).astype(float)
        if not grades_D.any():
            continue
        ranked = [f"d{i}" for i in np.argsort(-scores_D)]
        grades = {f"d{i}": float(grade) for i, grade in enumerate(grades_D)}
        for k in (1, 5, 12):
            assert ndcg_at_k(ranked, grades, k) == pytest.approx(sklearn.ndcg_score([grades_D], [scores_D], k=k))
            steep = sklearn.ndcg_score([2.0**grades_D - 1], [scores_D], k=k)
            assert ndcg_at_k(ranked, grades, k, gain=exponential) == pytest.approx(steep)


def test_roc_auc_equals_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(4)
    for _ in range(20):
        positive, negative = rng.integers(0, 9, 30) + 1.0, rng.integers(0, 9, 50) + 0.0  # many ties
        expected = sklearn.roc_auc_score([1] * 30 + [0] * 50, [*positive, *negative])
        assert roc_auc(positive.tolist(), negative.tolist()).estimate == pytest.approx(expected)


def test_reliability_equals_scikit_learn() -> None:
    """The points of its calibration curve; ECE is their distance from the diagonal, weighted by a count of our own."""
    curve = pytest.importorskip("sklearn.calibration").calibration_curve
    rng = np.random.default_rng(5)
    for num_items in (40, 400):
        said = np.round(rng.random(num_items) ** 0.5, 3)
        right = rng.random(num_items) < 0.8 * said
        for num_bins in (5, 10, 17):
            bins = equal_width_bins(said.tolist(), right.tolist(), num_bins=num_bins)
            shares, confidences = curve(right, said, n_bins=num_bins, strategy="uniform")
            assert [b.accuracy for b in bins] == pytest.approx(shares.tolist())
            assert [b.confidence for b in bins] == pytest.approx(confidences.tolist())
            counts = np.histogram(-said, bins=-np.linspace(0, 1, num_bins + 1)[::-1])[0][::-1]  # of (low, high], as both have it
            expected = float((counts[counts > 0] * np.abs(shares - confidences)).sum() / num_items)
            assert expected_calibration_error(bins) == pytest.approx(expected) and expected > 0.05
    said, right = rng.permutation(60) / 60, rng.random(60) < 0.5  # no ties: five times twelve, in both
    shares, confidences = curve(right, said, n_bins=5, strategy="quantile")
    bins = equal_mass_bins(said.tolist(), right.tolist(), num_bins=5)
    assert [(b.num_items, b.accuracy) for b in bins] == [(12, pytest.approx(share)) for share in shares]
    assert [b.confidence for b in bins] == pytest.approx(confidences.tolist())


def test_mrr_and_recall_equal_scikit_learn() -> None:
    """With one right document, the mean precision at its place is 1 / place. Recall of the documents that are among the first k."""
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(6)
    scores_QD = np.stack([rng.permutation(12) for _ in range(60)]).astype(float)
    rankings = [[f"d{i}" for i in np.argsort(-scores_D)] for scores_D in scores_QD]
    one_QD = np.eye(12)[rng.integers(0, 12, 60)]
    expected = sklearn.label_ranking_average_precision_score(one_QD, scores_QD)
    assert mean_reciprocal_rank(rankings, [{f"d{row.argmax()}"} for row in one_QD]) == pytest.approx(expected)
    some_QD = (rng.random((60, 12)) < 0.3) | (one_QD > 0)
    for k in (1, 5, 12):
        among_QD = scores_QD >= 12 - k
        expected = sklearn.recall_score(some_QD, among_QD, average="samples")
        found = [recall_at_k(ranked, [f"d{i}" for i in np.flatnonzero(row)], k) for ranked, row in zip(rankings, some_QD, strict=True)]
        assert np.mean(found) == pytest.approx(expected)


# -- seqeval, krippendorff, nltk ----------------------------------------------------------------------------------------------


def _spans(tags: list[str]) -> list[EntitySpan]:
    """Of strict IOB2."""
    found: list[EntitySpan] = []
    for place, tag in enumerate([*tags, "O"]):
        if found and found[-1].end < 0 and not tag.startswith("I-"):
            found[-1] = found[-1]._replace(end=place)
        if tag.startswith("B-"):
            found.append(EntitySpan(tag[2:], place, -1))
    return found


def _tags(rng: random.Random, num_words: int) -> list[str]:
    tags: list[str] = []
    while len(tags) < num_words:
        label, length = rng.choice(["PER", "LOC", "ORG"]), rng.randint(1, 3)
        tags += ["O"] * rng.randint(0, 2) + [f"B-{label}"] + [f"I-{label}"] * (length - 1)
    return tags[:num_words]


def test_span_f1_equals_seqeval() -> None:
    seqeval = pytest.importorskip("seqeval.metrics")
    from seqeval.scheme import IOB2

    rng = random.Random(5)
    gold = [_tags(rng, 20) for _ in range(40)]
    named = [tags if rng.random() < 0.3 else [*tags[:10], *_tags(rng, 10)] for tags in gold]
    strict = {"mode": "strict", "scheme": IOB2}
    found = span_f1([_spans(tags) for tags in named], [_spans(tags) for tags in gold])
    assert found.f1 == pytest.approx(seqeval.f1_score(gold, named, **strict)) and 0.4 < found.f1 < 0.9
    assert found.precision == pytest.approx(seqeval.precision_score(gold, named, **strict))
    assert found.recall == pytest.approx(seqeval.recall_score(gold, named, **strict))
    report = seqeval.classification_report(gold, named, output_dict=True, **strict)
    by_label = span_f1_by_label([_spans(tags) for tags in named], [_spans(tags) for tags in gold])
    assert {label: one.f1 for label, one in by_label.items()} == pytest.approx({label: report[label]["f1-score"] for label in by_label})


@pytest.mark.parametrize(("distance", "level"), [(nominal, "nominal"), (ordinal, "ordinal"), (interval, "interval")])
def test_alpha_equals_krippendorff(distance: object, level: str) -> None:
    """Four raters, five grades, a fifth of the ratings missing."""
    package = pytest.importorskip("krippendorff")
    rng = random.Random(6)
    for _ in range(10):
        truth = [rng.randint(1, 5) for _ in range(30)]
        rows = [[None if rng.random() < 0.2 else min(5, max(1, t + rng.choice((0, 0, 0, 1, -1)))) for t in truth] for _ in range(4)]
        data = [[np.nan if rating is None else rating for rating in row] for row in rows]
        expected = package.alpha(reliability_data=data, level_of_measurement=level)
        assert krippendorff_alpha(rows, distance=distance) == pytest.approx(expected)  # type: ignore[arg-type]


def test_fleiss_kappa_equals_nltk() -> None:
    """Its `pi` is Fleiss's of 1971; 5 raters put 40 items into 4 classes."""
    agreement = pytest.importorskip("nltk.metrics.agreement")
    rng = random.Random(7)
    for _ in range(5):
        truth = [rng.randrange(4) for _ in range(40)]
        given = [[t if rng.random() < 0.6 else rng.randrange(4) for _ in range(5)] for t in truth]
        told = [(f"rater {r}", f"item {i}", f"class {c}") for i, row in enumerate(given) for r, c in enumerate(row)]
        expected = agreement.AnnotationTask(data=told).pi()
        found = fleiss_kappa([[row.count(c) for c in range(4)] for row in given])
        assert found == pytest.approx(expected) and 0.2 < expected < 0.6
