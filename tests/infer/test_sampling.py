"""Four words with known probabilities, as in the textbook example; and draws that can be repeated."""

import pytest
import torch
from scipy.stats import chisquare

from mygpt.infer.protocols import Sampling
from mygpt.infer.repeats import occurrences
from mygpt.infer.sampling import choose, filtered_probabilities, generators

CAKE, DONUT, BANANA, APPLE, REST = range(5)
PROBABILITIES = torch.tensor([0.20, 0.10, 0.02, 0.01, 0.67])
LOGITS = PROBABILITIES.log()
FOUR_WORDS = torch.tensor([0.20, 0.10, 0.02, 0.01, 0.0]) / 0.33  # without the rest
FOUR_LOGITS = FOUR_WORDS.log()  # log 0 is -inf: never drawn


def draws(logits: torch.Tensor, sampling: Sampling, number: int) -> torch.Tensor:
    """Counts per token over `number` rows."""
    rows = generators(sampling, [(i,) for i in range(number)])
    ids, _ = choose(logits.expand(number, -1), sampling, rows)
    return torch.bincount(ids, minlength=len(logits))


def probabilities(logits: torch.Tensor, **settings: float) -> list[float]:
    found: list[float] = filtered_probabilities(logits[None], Sampling(**settings))[0].tolist()  # type: ignore[arg-type]
    return found


def test_temperature_zero_is_greedy() -> None:
    ids, logprobs = choose(torch.stack([LOGITS, FOUR_LOGITS]), Sampling(temperature=0), generators(Sampling(), [(1,), (2,)]))
    assert ids.tolist() == [REST, CAKE]
    assert logprobs.exp().tolist() == pytest.approx([0.67, 0.20 / 0.33])


def test_a_small_temperature_comes_near_to_greedy() -> None:
    assert draws(FOUR_LOGITS, Sampling(temperature=0.02), 500).tolist() == [500, 0, 0, 0, 0]


def test_temperature_one_draws_as_often_as_the_model_says() -> None:
    """Chi-square over 5 outcomes and 20,000 draws: p above 0.001 (the seeds are fixed, so this cannot flicker)."""
    counts = draws(LOGITS, Sampling(temperature=1.0), 20_000)
    assert chisquare(counts, PROBABILITIES.double() / PROBABILITIES.double().sum() * 20_000).pvalue > 0.001


def test_temperature_two_flattens_by_the_square_root() -> None:
    roots = PROBABILITIES.double().sqrt()
    assert probabilities(LOGITS, temperature=2.0) == pytest.approx((roots / roots.sum()).tolist(), abs=1e-6)
    counts = draws(LOGITS, Sampling(temperature=2.0), 20_000)
    assert chisquare(counts, roots / roots.sum() * 20_000).pvalue > 0.001


def test_top_k_three_never_yields_apple() -> None:
    assert probabilities(FOUR_LOGITS, temperature=1.0, top_k=3) == pytest.approx([20 / 32, 10 / 32, 2 / 32, 0, 0])
    counts = draws(FOUR_LOGITS, Sampling(temperature=5.0, top_k=3), 5_000)
    assert counts[APPLE] == counts[REST] == 0 and (counts[:3] > 0).all()


def test_top_k_beyond_the_vocabulary_is_all_of_it() -> None:
    assert probabilities(LOGITS, temperature=1.0, top_k=99) == pytest.approx(PROBABILITIES.tolist())


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (0.5, [CAKE]),  # cake alone has 0.606
        (0.7, [CAKE, DONUT]),  # cake 0.606 is below, donut takes it to 0.909: it crosses and is kept
        (0.95, [CAKE, DONUT, BANANA]),
        (0.99, [CAKE, DONUT, BANANA, APPLE]),
        (0.0, [CAKE]),
    ],
)
def test_top_p_keeps_the_token_that_crosses(top_p: float, kept: list[int]) -> None:
    found = probabilities(FOUR_LOGITS, temperature=1.0, top_p=top_p)
    total = sum(FOUR_WORDS[kept].tolist())
    assert found == pytest.approx([float(FOUR_WORDS[t]) / total if t in kept else 0.0 for t in range(5)])
    counts = draws(FOUR_LOGITS, Sampling(temperature=1.0, top_p=top_p), 1_000)
    assert {t for t in range(5) if counts[t]} == set(kept)


def test_top_p_counts_what_top_k_left() -> None:
    """After top-k 2 cake has 2/3: it alone reaches 0.65, of all five words it would not."""
    assert probabilities(LOGITS[:4], temperature=1.0, top_k=2, top_p=0.65) == pytest.approx([1, 0, 0, 0])


def test_transformers_filters_the_same() -> None:
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    torch.manual_seed(0)
    logits = torch.randn(6, 50) * 3
    theirs = logits
    for warper in (TemperatureLogitsWarper(0.7), TopKLogitsWarper(20), TopPLogitsWarper(0.8)):
        theirs = warper(None, theirs)
    ours = filtered_probabilities(logits, Sampling(temperature=0.7, top_k=20, top_p=0.8))
    torch.testing.assert_close(ours, theirs.softmax(-1))


def test_log_probabilities_are_the_models_before_temperature() -> None:
    logits = LOGITS.expand(50, -1)
    ids, logprobs = choose(logits, Sampling(temperature=3.0, top_k=2), generators(Sampling(), [(i,) for i in range(50)]))
    torch.testing.assert_close(logprobs, logits.log_softmax(-1).gather(-1, ids[:, None])[:, 0])


def test_the_same_seed_and_prompt_draw_the_same_beside_anything() -> None:
    sampling = Sampling(temperature=1.0, seed=3)
    prompts = [(5, 6), (7,), (8, 9, 10), (1,)]

    def drawn(these: list[tuple[int, ...]], seed: int = 3) -> dict[tuple[int, ...], list[int]]:
        rows = generators(Sampling(seed=seed), these)
        steps = [choose(LOGITS.expand(len(these), -1), sampling, rows)[0].tolist() for _ in range(20)]
        return {prompt: [step[i] for step in steps] for i, prompt in enumerate(these)}

    together = drawn(prompts)
    assert drawn(prompts[::-1]) == together
    assert {p: drawn([p])[p] for p in prompts} == together
    assert drawn(prompts, seed=4) != together
    assert len(set(map(tuple, together.values()))) == len(prompts)


def test_equal_prompts_have_streams_of_their_own() -> None:
    first, second, again = generators(Sampling(), [(1, 2), (1, 2), (3,)])
    assert torch.rand(4, generator=first).tolist() != torch.rand(4, generator=second).tolist()
    (alone,) = generators(Sampling(), [(3,)])
    assert torch.equal(torch.rand(4, generator=again), torch.rand(4, generator=alone))


def test_occurrences() -> None:
    assert occurrences("abacab") == [0, 0, 1, 0, 2, 1]
    assert occurrences([]) == []
