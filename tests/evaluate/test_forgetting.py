"""Forgetting worked by hand on scripted models, and the cutting of text."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from mygpt.core.errors import MygptError, UsageError
from mygpt.core.run import Run
from mygpt.evaluate.forgetting import GeneralCheckConfig, compare, general_check, held_out_bpb, pieces
from mygpt.evaluate.general_set import load_general
from mygpt.infer.protocols import Score
from mygpt.infer.scripted import ScriptedCompleter
from tests.evaluate.made_up import HELD_OUT_TEXT, MadeUpConfig, TableScorer, made_up_corpus, made_up_dataset


def test_flips_and_bits_per_byte(run: Run) -> None:
    """Base knows all; tuned loses the first four items and every byte of general text costs 0.03 bits more."""
    items, texts = load_general()
    known = {item.question: item.answers[0] for item in items}
    forgotten = {item.question for item in items[:4]}
    before = ScriptedCompleter(lambda c: known[c.question], name="base")
    after = ScriptedCompleter(lambda c: "" if c.question in forgotten else known[c.question], name="tuned")
    dataset, corpus = made_up_dataset(MadeUpConfig(), run=run), made_up_corpus(MadeUpConfig(), run=run)
    config = GeneralCheckConfig()
    base = general_check(config, completer=before, scorer=TableScorer(1.0), dataset=dataset, corpus=corpus, run=run)
    tuned = general_check(config, completer=after, scorer=TableScorer(1.03, {HELD_OUT_TEXT: 0.9}), dataset=dataset, corpus=corpus, run=run)

    measured = compare(base, tuned, num_resamples=500, seed=0)
    assert (measured.bpb_base, measured.bpb_tuned) == pytest.approx((1.0, 1.03))
    assert (measured.bpb.estimate, measured.bpb.low, measured.bpb.high) == pytest.approx((0.03, 0.03, 0.03))
    assert (measured.right_to_wrong, measured.wrong_to_right, measured.right_base - measured.right_tuned) == (4, 0, 4)
    assert measured.num_items == len(items) == measured.right_base
    assert measured.p_value == pytest.approx(2 / 2**4)
    assert (held_out_bpb(base), held_out_bpb(tuned)) == pytest.approx((1.0, 0.9))
    assert sum(r["num_bytes"] for r in base.rows if r["set"] == "general_text") == len("".join(texts).encode())
    assert (measured.num_texts, measured.reliable) == (len(texts), True)
    assert [r["num_bytes"] for r in base.rows if r["set"] == "held_out"] == [len(HELD_OUT_TEXT)]  # the studied document is not among them


def test_a_log_probability_that_is_no_number_names_its_piece(run: Run) -> None:
    _, (_, second, *_) = load_general()
    at_fault = next(iter(pieces(second, GeneralCheckConfig().piece_characters)))

    class Broken(TableScorer):
        def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
            scores = super().score(prompts, continuations)
            return [replace(s, logprob=math.nan) if c == at_fault else s for s, c in zip(scores, continuations, strict=True)]

    with pytest.raises(MygptError, match=r"Item `general_text-[1-9]+`: the model gives nan"):
        general_check(GeneralCheckConfig(), completer=ScriptedCompleter(lambda c: "?"), scorer=Broken(1.0), run=run)


def test_without_documents_only_general_text_is_scored(run: Run) -> None:
    base = general_check(GeneralCheckConfig(), completer=ScriptedCompleter(lambda c: "?"), scorer=TableScorer(1.0), run=run)
    assert held_out_bpb(base) is None


def test_other_rows_cannot_be_compared(run: Run) -> None:
    base, tuned = (
        general_check(GeneralCheckConfig(piece_characters=n), completer=ScriptedCompleter(lambda c: "?"), scorer=TableScorer(1.0), run=run)
        for n in (500, 900)
    )
    with pytest.raises(UsageError, match="general_text"):
        compare(base, tuned, num_resamples=10, seed=0)


def test_pieces_are_the_text_cut_where_it_pauses() -> None:
    text = "First paragraph.\n\nSecond one,\nwith a line. " + "x" * 50
    cut = list(pieces(text, 30))
    assert "".join(cut) == text
    assert cut[0] == "First paragraph.\n\n"
    assert max(map(len, cut)) <= 30
    assert list(pieces("", 30)) == []
