"""ROUGE against Google's rouge-score on the same texts, and by hand."""

import json
import random
from pathlib import Path

import pytest

from mygpt.metrics.rouge import REFERENCE, UNICODE, Tokenizer, longest_common_subsequence, rouge_l, rouge_lsum, rouge_n

rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")

_WORDS = ["the", "client_server", "pool", "times-out", "after", "5", "seconds,", "unless", "you", "set", "it.", "A", "new", "PoolTimeout"]


def test_equals_rouge_score_on_random_texts() -> None:
    rng = random.Random(7)
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    for _ in range(200):
        answer, reference = (" ".join(rng.choices(_WORDS, k=rng.randint(0, 30))) for _ in range(2))
        expected = scorer.score(reference, answer)
        for name, ours in (
            ("rouge1", rouge_n(answer, reference, 1)),
            ("rouge2", rouge_n(answer, reference, 2)),
            ("rougeL", rouge_l(answer, reference)),
        ):
            assert (ours.precision, ours.recall, ours.f) == pytest.approx(tuple(expected[name]), abs=1e-12)


def _summaries(folder: Path) -> list[tuple[str, str]]:
    """50 pairs: a summary, and of its dialogue the turns without their speakers, which is what a model that only copies would say."""
    path = folder / "t0" / "samsum_Generate_a_summary_for_this_dialogue.jsonl"
    if not path.is_file():
        pytest.skip(f"no T0 summaries at {path}")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:50]]
    pairs = []
    for row in rows:
        turns = [turn.partition(":")[2].strip() for turn in row["prompt"].splitlines()[1:]]
        summary = row["completion"].replace("<|endoftext|>", "").replace(". ", ".\n")
        pairs.append(("\n".join(turns), summary))
    return pairs


@pytest.mark.parametrize("stem", [False, True])
def test_equals_rouge_score_on_real_summaries(shared_data: Path, stem: bool) -> None:
    pairs = _summaries(shared_data)
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rouge3", "rougeL", "rougeLsum"], use_stemmer=stem)
    assert len(pairs) == 50
    found = 0.0
    for answer, reference in pairs:
        expected = scorer.score(reference, answer)
        for name, ours in (
            ("rouge1", rouge_n(answer, reference, 1, tokenizer=REFERENCE, stem=stem)),
            ("rouge2", rouge_n(answer, reference, 2, tokenizer=REFERENCE, stem=stem)),
            ("rouge3", rouge_n(answer, reference, 3, tokenizer=REFERENCE, stem=stem)),
            ("rougeL", rouge_l(answer, reference, tokenizer=REFERENCE, stem=stem)),
            ("rougeLsum", rouge_lsum(answer, reference, tokenizer=REFERENCE, stem=stem)),
        ):
            assert (ours.precision, ours.recall, ours.f) == pytest.approx(tuple(expected[name]), abs=1e-12), (name, answer)
            found += ours.f
    assert found / 250 > 0.03  # they do overlap


def test_lsum_equals_rouge_score_on_random_lines() -> None:
    """Few words and many lines, so that a sentence has several longest subsequences and words run out."""
    rng = random.Random(11)
    scorer = rouge_scorer.RougeScorer(["rougeLsum"], use_stemmer=False)
    for _ in range(200):
        answer, reference = ("\n".join(" ".join(rng.choices("abcde", k=rng.randint(0, 8))) for _ in range(rng.randint(1, 5))) for _ in "ab")
        ours = rouge_lsum(answer, reference)
        assert (ours.precision, ours.recall, ours.f) == pytest.approx(tuple(scorer.score(reference, answer)["rougeLsum"]), abs=1e-12)


def test_lin_2004_union_example() -> None:
    """Section 3.2: w1..w5 against w1 w2 w6 w7 w8 and w1 w3 w8 w9 w5: the union is w1 w2 w3 w5, 4 of 5."""
    assert rouge_lsum("w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", "w1 w2 w3 w4 w5").recall == pytest.approx(4 / 5)


COLD = "It is cold outside."


@pytest.mark.parametrize(
    ("answer", "variant", "recall", "precision", "f"),
    [  # issue 3, by hand
        ("It is very cold outside.", "1", 1.0, 4 / 5, 0.89),
        ("It is very cold outside.", "2", 2 / 3, 2 / 4, 0.57),
        ("It is very cold outside.", "L", 1.0, 4 / 5, 0.89),
        ("It is not cold outside.", "1", 1.0, 4 / 5, 0.89),  # the opposite, the same score
        ("It is not cold outside.", "L", 1.0, 4 / 5, 0.89),
        ("outside cold it is", "1", 1.0, 1.0, 1.0),  # ROUGE-1 knows no order
        ("outside cold it is", "2", 1 / 3, 1 / 3, 0.33),  # only "it is"
        ("outside cold it is", "L", 2 / 4, 2 / 4, 0.5),
        ("cold cold cold cold", "1", 1 / 4, 1 / 4, 0.25),  # clipped
        ("cold cold cold cold", "2", 0.0, 0.0, 0.0),
        ("", "1", 0.0, 0.0, 0.0),  # a model that says nothing
    ],
)
@pytest.mark.parametrize("tokenizer", [REFERENCE, UNICODE], ids=lambda t: t.name)
def test_cold_outside(answer: str, variant: str, recall: float, precision: float, f: float, tokenizer: Tokenizer) -> None:
    found = rouge_l(answer, COLD, tokenizer=tokenizer) if variant == "L" else rouge_n(answer, COLD, int(variant), tokenizer=tokenizer)
    assert (found.recall, found.precision) == pytest.approx((recall, precision))
    assert found.f == pytest.approx(f, abs=0.005)
    assert found.signature == f"rouge-{variant}|tok:{tokenizer.name}|stem:no|version:1"


def test_lin_2004_example() -> None:
    """Section 3.1: S1 "police killed the gunman", S2 "police kill the gunman": 3/4; S3 "the gunman kill police": 2/4."""
    reference = "police killed the gunman"
    assert rouge_l("police kill the gunman", reference).f == pytest.approx(3 / 4)
    assert rouge_l("the gunman kill police", reference).f == pytest.approx(2 / 4)


def test_a_repeated_word_is_clipped() -> None:
    assert rouge_n("the the the the", "the cat", 1).precision == pytest.approx(1 / 4)


def test_other_scripts_count() -> None:
    assert rouge_l("Москва столица России", "столица России").recall == 1.0
    assert rouge_l("Москва столица России", "столица России", tokenizer=REFERENCE).f == 0.0  # as rouge-score has it
    assert rouge_n("北京是首都", "首都是北京", 1).f == 1.0
    assert rouge_n("हिन्दी भाषा", "हिन्दी", 1).precision == 1 / 2  # two words, not pieces between vowel signs


def test_stems_by_hand() -> None:
    """Porter 1980: "caresses" -> "caress", "relational" -> "relat"; words of three letters stay ("was" would be "wa")."""
    assert rouge_l("caresses relational", "caress relate", stem=True).f == 1.0
    assert rouge_l("caresses relational", "caress relate").f == 0.0
    assert rouge_n("was", "wa", 1, stem=True).f == 0.0
    assert rouge_n("drinking tea", "drinks tea", 2, stem=True).f == 1.0
    assert rouge_lsum("drinking\ntea", "tea drinks", stem=True).recall == 1.0
    assert rouge_l("Москва", "Москва", stem=True).f == 1.0  # other scripts pass
    assert rouge_l("a", "a", stem=True).signature == "rouge-L|tok:unicode|stem:porter|version:1"


def test_n_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="not 0"):
        rouge_n("a", "a", 0)


def test_subsequence_equals_the_textbook_table() -> None:
    rng = random.Random(3)
    for _ in range(100):
        a, b = (rng.choices("abcd", k=rng.randint(0, 90)) for _ in range(2))  # longer than one machine word
        row = [0] * (len(b) + 1)
        for x in a:
            diagonal = 0
            for j, y in enumerate(b, start=1):
                diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
        assert longest_common_subsequence(a, b) == row[-1]
