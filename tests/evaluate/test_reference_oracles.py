"""Figures that the literature states of judges and of sample sizes, from what is built here."""

import math

import pytest

from mygpt.core.run import Run
from mygpt.evaluate.paired_difference import Resampling, difference, score
from mygpt.evaluate.same_items import join
from mygpt.infer.judge import ModelJudge
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


@pytest.mark.parametrize(("m", "capital_m"), [(0.6, 0.2), (0.1, 0.7), (0.3, 0.3)])
def test_a_preference_as_alpaca_eval_counts_it(m: float, capital_m: float) -> None:
    """There 1 is the first output and 2 the second: 2 - P(m) / (P(m) + P(M)), from the judge's one-token verdict m or M.

    Ours is the probability that the first is better, between 1 and 0, of one order; the mean over both orders is what decides here.
    """
    scorer = TableScorer(lambda prompt: (m, capital_m))
    [made_of] = ModelJudge(scorer=scorer, wording=SHORT).compare(["q"], ["first"], ["second"])
    assert made_of.forward.value is not None
    assert 2 - made_of.forward.value == pytest.approx(2 - m / (m + capital_m))
