"""Figures that the literature states of judges and of sample sizes, from what is built here."""

import math

import pytest

from mygpt.core.run import Run
from mygpt.evaluate.paired_difference import Resampling, difference, score
from mygpt.evaluate.same_items import join
from mygpt.infer.judge import ModelJudge
from mygpt.metrics.power import items_needed
from mygpt.metrics.wilson import wilson
from tests.evaluate.made_up_predictions import flipped, made, shares
from tests.infer.test_judge import SHORT, TableScorer

GSM8K_ITEMS = 1_319


def test_what_pairing_is_worth_on_gsm8k(run: Run) -> None:
    """1,319 items, three of four right, 5 % of them answered otherwise by the second model: 95 % half-widths of the difference.

    Apart: 1.96 * sqrt(2 * .75 * .25 / 1319) = 3.3 points. Paired: 1.96 * sqrt(.05 / 1319) = 1.2 points.
    """
    before = shares(GSM8K_ITEMS, round(0.75 * GSM8K_ITEMS))
    after = flipped(before, lost=33, won=33)  # 66 of 1,319
    (task,) = join([made(run, "base", "gsm8k", before), made(run, "tuned", "gsm8k", after)])
    draws = Resampling(num_resamples=4_000)
    alone = [score(task, label, "acc", draws).interval for label in ("base", "tuned")]
    apart = math.hypot(*((one.high - one.low) / 2 for one in alone))  # of independent estimates variances add up
    paired = difference(task, "tuned", "base", "acc", draws).interval
    assert 100 * apart == pytest.approx(3.3, abs=0.05)
    assert 100 * (paired.high - paired.low) / 2 == pytest.approx(1.2, abs=0.06)


def test_published_figures_that_250_items_cannot_tell_apart() -> None:
    """llm-compressor's pages: W4A16 .728 +- .028, INT8 .752 +- .027, FP8 .768 +- .027 of GSM8K at 250 items, one standard error each.

    The two furthest apart differ by .040 +- .039: z = 1.03, and unpaired some 1,845 items a side would tell them apart four times in five.
    """
    right = {"W4A16": 182, "INT8": 188, "FP8": 192}
    one_error = 2 * 0.8413447 - 1  # the level of +- one standard error
    found = {name: wilson(k, 250, level=one_error) for name, k in right.items()}
    assert [round(one.estimate, 3) for one in found.values()] == [0.728, 0.752, 0.768]
    errors = {name: (one.high - one.low) / 2 for name, one in found.items()}
    assert list(errors.values()) == pytest.approx([0.028, 0.027, 0.027], abs=0.0006)
    z = (0.768 - 0.728) / math.hypot(errors["FP8"], errors["W4A16"])
    assert z == pytest.approx(1.03, abs=0.01) and z < 1.96
    assert found["W4A16"].high > found["INT8"].low and wilson(192, 250).low < 0.728  # within each other's 95 % interval
    needed = items_needed(0.04, math.sqrt(0.728 * 0.272 + 0.768 * 0.232))
    assert needed == pytest.approx(1_845, abs=5) and needed > 7 * 250


@pytest.mark.parametrize(("m", "capital_m"), [(0.6, 0.2), (0.1, 0.7), (0.3, 0.3)])
def test_a_preference_as_alpaca_eval_counts_it(m: float, capital_m: float) -> None:
    """There 1 is the first output and 2 the second: 2 - P(m) / (P(m) + P(M)), from the judge's one-token verdict m or M.

    Ours is the probability that the first is better, between 1 and 0, of one order; the mean over both orders is what decides here.
    """
    scorer = TableScorer(lambda prompt: (m, capital_m))
    [made_of] = ModelJudge(scorer=scorer, wording=SHORT).compare(["q"], ["first"], ["second"])
    assert made_of.forward.value is not None
    assert 2 - made_of.forward.value == pytest.approx(2 - m / (m + capital_m))
