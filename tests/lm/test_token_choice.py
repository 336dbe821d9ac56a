"""Choices in C against the torch functions that they stand in for, and against the settings' meaning where logits are alike."""

import math
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mygpt.core.errors import MygptError
from mygpt.infer.protocols import Sampling
from mygpt.infer.sampling import _chosen, filtered_probabilities
from mygpt.lm.token_choice import Choice, choose_tokens, log_sums, suits

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")
DRAWS = [i / 64 for i in range(64)]


def in_c(logits_V: torch.Tensor, sampling: Sampling, drawn: list[float]) -> list[int]:
    filters = (sampling.top_p, sampling.min_p, sampling.top_k, sampling.keep_crossing)
    choices = [Choice(sampling.temperature, *filters, d) for d in drawn]
    found: list[int] = choose_tokens(logits_V.repeat(len(drawn), 1), choices).tolist()
    return found


@given(
    V=st.sampled_from([5, 300, 3_000]), spread=st.sampled_from([0.5, 3.0, 12.0]), temperature=st.sampled_from([0.3, 1.0, 2.5]),
    top_k=st.sampled_from([0, 1, 4, 40]), top_p=st.sampled_from([1.0, 0.95, 0.5, 0.0]), min_p=st.sampled_from([0.0, 0.1, 1.0]),
    keep_crossing=st.booleans(), seed=st.integers(0, 999),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_every_token_has_its_probability(
    V: int, spread: float, temperature: float, top_k: int, top_p: float, min_p: float, keep_crossing: bool, seed: int
) -> None:
    """64 draws over the whole of 0 to 1 give the tokens at which torch's cumulated probabilities pass them."""
    logits_V = torch.randn(V, generator=torch.Generator().manual_seed(seed)) * spread
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, keep_crossing=keep_crossing)
    cumulated_V = filtered_probabilities(logits_V[None].clone(), [sampling])[0].double().cumsum(-1)
    found = torch.tensor(in_c(logits_V, sampling, DRAWS))
    through = cumulated_V[found]
    before = torch.where(found > 0, cumulated_V[found - 1], 0.0)
    drawn, off = torch.tensor(DRAWS, dtype=torch.float64) * cumulated_V[-1], 2e-5  # what float32 sums of torch are good to
    assert bool((before - off <= drawn).all()) and bool((drawn <= through + off).all())


@pytest.mark.parametrize(("temperature", "filters"), [(0.0, {}), (1.0, {}), (0.7, {"top_p": 0.9}), (1.2, {"top_k": 50, "min_p": 0.02})])
def test_the_same_generators_give_the_same_tokens(temperature: float, filters: dict[str, float]) -> None:
    logits_RV = torch.randn(40, 5_000, generator=torch.Generator().manual_seed(1)) * 3
    samplings = [Sampling(temperature=temperature, **filters)] * 40  # type: ignore[arg-type]
    by_torch = _chosen(logits_RV.clone(), samplings, [torch.Generator().manual_seed(r) for r in range(40)])
    draws = [float(torch.rand(1, generator=torch.Generator().manual_seed(r))) for r in range(40)]
    found = [in_c(row, sampling, [d])[0] for row, sampling, d in zip(logits_RV, samplings, draws, strict=True)]
    assert found == by_torch.tolist()
    assert len(set(found)) > 20


def test_of_tokens_alike_the_first_fill_the_nucleus() -> None:
    """Ten of equal probability: 0.35 is crossed by the fourth; without the one that crosses it is three. top-k keeps all that are alike."""
    flat = torch.zeros(10)
    assert set(in_c(flat, Sampling(temperature=1.0, top_p=0.35), DRAWS)) == {0, 1, 2, 3}
    assert set(in_c(flat, Sampling(temperature=1.0, top_p=0.35, keep_crossing=False), DRAWS)) == {0, 1, 2}
    assert set(in_c(flat, Sampling(temperature=1.0, top_p=0.0), DRAWS)) == {0}
    assert set(in_c(flat, Sampling(temperature=1.0, top_k=2), DRAWS)) == set(range(10))


def test_what_cannot_be_is_never_drawn() -> None:
    logits_V = torch.full((700,), -math.inf)
    logits_V[[3, 650]] = torch.tensor([1.0, 0.0])
    share = 1 / (1 + math.exp(-1.0))
    assert in_c(logits_V, Sampling(temperature=1.0), [0.0, share - 1e-6, share + 1e-6, 1 - 2**-24]) == [3, 3, 650, 650]
    assert in_c(logits_V, Sampling(temperature=0.0), [0.0]) == [3]
    assert in_c(logits_V * 1000, Sampling(temperature=1.0), [1 - 2**-24]) == [3]  # a weight of exp(-1000) is none


def test_log_sums() -> None:
    logits_RV = torch.randn(5, 3_000, generator=torch.Generator().manual_seed(0)) * 10
    logits_RV[2, 5], logits_RV[3, :2_990] = 300.0, -math.inf
    torch.testing.assert_close(log_sums(logits_RV), logits_RV.double().logsumexp(-1).float(), atol=0, rtol=3e-7)
    half_RV = logits_RV[:, ::2]
    assert not suits(half_RV)
    torch.testing.assert_close(log_sums(half_RV), half_RV.double().logsumexp(-1).float(), atol=0, rtol=3e-7)


def test_what_it_is_not_for() -> None:
    logits = torch.zeros(4, 9)
    assert suits(logits)
    assert not suits(logits.bfloat16()) and not suits(logits.T) and not suits(logits.to("meta"))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("fault", [[math.nan] * 4, [1.0, math.nan, 0.0, 2.0], [1.0, math.inf, 0.0, 2.0], [-math.inf] * 4])
def test_logits_that_are_no_numbers_are_an_error(fault: list[float], temperature: float) -> None:
    logits_RV = torch.tensor([[1.0, 2.0, 3.0, 4.0], fault])
    with pytest.raises(MygptError, match=r"no numbers .* in 1 of 2 rows"):
        choose_tokens(logits_RV, [Choice(temperature, 1.0, 0.0, 0, True, 0.5)] * 2)


def test_log_sums_of_what_is_no_number_are_none() -> None:
    sums = log_sums(torch.tensor([[0.0, 0.0], [0.0, math.nan], [math.nan, math.nan]]))
    assert float(sums[0]) == pytest.approx(math.log(2)) and bool(sums[1:].isnan().all())


def test_settings_at_their_ends() -> None:
    """A tenth is one of ten alike, exactly; more top-k than an int32 holds keeps all; a min-p above 1 keeps the likeliest."""
    flat = torch.zeros(10)
    assert set(in_c(flat, Sampling(temperature=1.0, top_p=0.1), DRAWS)) == {0}
    assert set(in_c(flat, Sampling(temperature=1.0, top_p=0.3), DRAWS)) == {0, 1, 2}
    assert set(in_c(flat, Sampling(temperature=1.0, top_p=0.7, keep_crossing=False), DRAWS)) == set(range(7))
    assert set(in_c(flat, Sampling(temperature=1.0, top_k=2**32 + 1), DRAWS)) == set(range(10))
    peak = torch.tensor([0.0, 3.0, 1.0])
    assert choose_tokens(peak[None], [Choice(1.0, 1.0, 1.5, 0, True, 0.1)]).tolist() == [1]
