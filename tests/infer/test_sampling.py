"""Four words with known probabilities, as in the textbook example; and draws that can be repeated."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import chisquare

from mygpt.infer.protocols import Sampling
from mygpt.infer.repeats import occurrences
from mygpt.infer.sampling import _first_above, choose, filtered_probabilities, generators, penalised

CAKE, DONUT, BANANA, APPLE, REST = range(5)
PROBABILITIES = torch.tensor([0.20, 0.10, 0.02, 0.01, 0.67])
LOGITS = PROBABILITIES.log()
FOUR_WORDS = torch.tensor([0.20, 0.10, 0.02, 0.01, 0.0]) / 0.33  # without the rest
FOUR_LOGITS = FOUR_WORDS.log()  # log 0 is -inf: never drawn


def draws(logits: torch.Tensor, sampling: Sampling, number: int) -> torch.Tensor:
    """Counts per token over `number` rows."""
    rows = generators([sampling] * number, [(i,) for i in range(number)])
    ids, _ = choose(logits.expand(number, -1), [sampling] * number, rows)
    return torch.bincount(ids, minlength=len(logits))


def probabilities(logits: torch.Tensor, **settings: float) -> list[float]:
    found: list[float] = filtered_probabilities(logits[None], [Sampling(**settings)])[0].tolist()  # type: ignore[arg-type]
    return found


def test_temperature_zero_is_greedy() -> None:
    greedy = [Sampling(temperature=0)] * 2
    ids, logprobs = choose(torch.stack([LOGITS, FOUR_LOGITS]), greedy, generators(greedy, [(1,), (2,)]))
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


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (0.5, [CAKE]),  # cake alone has 0.606 and crosses: the likeliest stays whatever it has
        (0.7, [CAKE]),  # donut would take it to 0.909
        (0.92, [CAKE, DONUT]),
        (0.98, [CAKE, DONUT, BANANA]),  # 0.970
        (0.0, [CAKE]),
    ],
)
def test_top_p_may_drop_the_token_that_crosses(top_p: float, kept: list[int]) -> None:
    found = probabilities(FOUR_LOGITS, temperature=1.0, top_p=top_p, keep_crossing=False)
    total = sum(FOUR_WORDS[kept].tolist())
    assert found == pytest.approx([float(FOUR_WORDS[t]) / total if t in kept else 0.0 for t in range(5)])


def test_top_p_of_a_flat_large_vocabulary_sorts_all_of_it() -> None:
    """4,000 tokens of like probability: the 1,024 likeliest hold about a quarter, half needs 2,000 of them."""
    logits = torch.zeros(1, 4_000) + torch.arange(4_000) * 1e-7
    assert int((filtered_probabilities(logits, [Sampling(temperature=1.0, top_p=0.5)]) > 0).sum()) == pytest.approx(2_000, abs=2)


@pytest.mark.parametrize(("min_p", "kept"), [(0.04, 4), (0.06, 3), (0.11, 2), (0.51, 1), (1.0, 1)])
def test_min_p_is_a_share_of_the_likeliest(min_p: float, kept: int) -> None:
    """Beside cake (1): donut 0.5, banana 0.1, apple 0.05."""
    found = probabilities(FOUR_LOGITS, temperature=1.0, min_p=min_p)
    assert [p > 0 for p in found] == [True] * kept + [False] * (5 - kept)
    assert sum(found) == pytest.approx(1)


def test_temperature_comes_before_min_p() -> None:
    """At temperature 2 apple has sqrt(0.05) = 0.22 of cake's probability, and stays at 0.2."""
    assert probabilities(FOUR_LOGITS, temperature=2.0, min_p=0.2)[APPLE] > 0
    assert probabilities(FOUR_LOGITS, temperature=1.0, min_p=0.2)[APPLE] == 0


def test_rows_have_settings_of_their_own() -> None:
    samplings = [Sampling(), Sampling(temperature=1.0, top_k=1), Sampling(temperature=1.0, top_k=2), Sampling(temperature=1.0, top_p=0.5)]
    logits = FOUR_LOGITS.expand(4, -1)
    rows = generators(samplings, [(i,) for i in range(4)])
    drawn = [choose(logits, samplings, rows)[0].tolist() for _ in range(200)]
    assert [sorted({step[r] for step in drawn}) for r in range(4)] == [[CAKE], [CAKE], [CAKE, DONUT], [CAKE]]
    found = filtered_probabilities(logits, [replace(s, temperature=1.0) for s in samplings]).tolist()
    assert found == [probabilities(FOUR_LOGITS, temperature=1.0, top_k=s.top_k, top_p=s.top_p) for s in samplings]


def penalties(sampling: Sampling, prompt: list[int], answer: list[int]) -> list[float]:
    return penalised(LOGITS[None], [sampling], [prompt], [answer])[0].tolist()


def test_frequency_and_presence_count_the_answer_only() -> None:
    """By hand: cake said twice, donut once, banana only in the prompt."""
    found = penalties(Sampling(frequency_penalty=0.5, presence_penalty=0.25), [BANANA], [CAKE, DONUT, CAKE])
    expected = LOGITS - torch.tensor([0.25 + 2 * 0.5, 0.25 + 0.5, 0, 0, 0])
    assert found == pytest.approx(expected.tolist())


def test_repetition_is_that_of_transformers() -> None:
    """On prompt and answer; logits above zero are divided, those below multiplied."""
    from transformers import RepetitionPenaltyLogitsProcessor

    logits = torch.tensor([[2.0, -1.0, 0.5, 3.0, -2.0]])
    theirs = RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([[0, 1, 0]]), logits.clone())
    ours = penalised(logits, [Sampling(repetition_penalty=1.3)], [[0]], [[1, 0]])
    torch.testing.assert_close(ours, theirs)
    assert logits.tolist() == [[2.0, -1.0, 0.5, 3.0, -2.0]]  # the model's own stay


def test_no_stop_before_min_tokens() -> None:
    """The likeliest of the five is the stop. Two rows are held, one of them with a penalty too; the third has its two tokens."""
    held = [Sampling(min_tokens=2), Sampling(min_tokens=2, presence_penalty=9.0), Sampling(min_tokens=2)]
    given = {"prompts": [()] * 3, "answers": [(), (CAKE,), (CAKE, CAKE)], "stops": [REST]}
    ids, logprobs = choose(LOGITS.repeat(3, 1), held, generators(held, [(1,)] * 3), **given)
    assert ids.tolist() == [CAKE, DONUT, REST]
    assert logprobs.exp().tolist() == pytest.approx([0.2, 0.1, 0.67])  # under the model as it is


def test_transformers_filters_the_same() -> None:
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    torch.manual_seed(0)
    logits = torch.randn(6, 50) * 3
    theirs = logits
    for warper in (TemperatureLogitsWarper(0.7), TopKLogitsWarper(20), TopPLogitsWarper(0.8)):
        theirs = warper(None, theirs)
    ours = filtered_probabilities(logits, [Sampling(temperature=0.7, top_k=20, top_p=0.8)] * 6)
    torch.testing.assert_close(ours, theirs.softmax(-1))


def test_log_probabilities_are_the_models_before_temperature() -> None:
    logits = LOGITS.expand(50, -1)
    samplings = [Sampling(temperature=3.0, top_k=2)] * 50
    ids, logprobs = choose(logits, samplings, generators(samplings, [(i,) for i in range(50)]))
    torch.testing.assert_close(logprobs, logits.log_softmax(-1).gather(-1, ids[:, None])[:, 0])


def test_the_same_seed_and_prompt_draw_the_same_beside_anything() -> None:
    sampling = Sampling(temperature=1.0, seed=3)
    prompts = [(5, 6), (7,), (8, 9, 10), (1,)]

    def drawn(these: list[tuple[int, ...]], seed: int = 3) -> dict[tuple[int, ...], list[int]]:
        rows = generators([Sampling(seed=seed)] * len(these), these)
        steps = [choose(LOGITS.expand(len(these), -1), [sampling] * len(these), rows)[0].tolist() for _ in range(20)]
        return {prompt: [step[i] for step in steps] for i, prompt in enumerate(these)}

    together = drawn(prompts)
    assert drawn(prompts[::-1]) == together
    assert {p: drawn([p])[p] for p in prompts} == together
    assert drawn(prompts, seed=4) != together
    assert len(set(map(tuple, together.values()))) == len(prompts)


def test_equal_prompts_have_streams_of_their_own() -> None:
    first, second, again = generators([Sampling()] * 3, [(1, 2), (1, 2), (3,)])
    assert torch.rand(4, generator=first).tolist() != torch.rand(4, generator=second).tolist()
    (alone,) = generators([Sampling()], [(3,)])
    assert torch.equal(torch.rand(4, generator=again), torch.rand(4, generator=alone))


def test_occurrences() -> None:
    assert occurrences("abacab") == [0, 0, 1, 0, 2, 1]
    assert occurrences([]) == []


@pytest.mark.parametrize("vocabulary", [64, 1_000, 4_096, 50_257])
def test_a_token_is_found_block_by_block(vocabulary: int) -> None:
    """As by cumulating the whole vocabulary in float64; a probability of 0 is never drawn."""
    draw = torch.Generator().manual_seed(vocabulary)
    probabilities_RV = torch.randn(40, vocabulary, generator=draw).mul(3).softmax(-1)
    probabilities_RV[:, ::3] = 0
    drawn_R = torch.rand(40, generator=draw)
    drawn_R[:2] = torch.tensor([0.0, 1 - 2**-24])
    cumulated_RV = probabilities_RV.double().cumsum(-1)
    plain = torch.searchsorted(cumulated_RV, drawn_R[:, None].double() * cumulated_RV[:, -1:], right=True)[:, 0]
    found = _first_above(probabilities_RV, drawn_R)
    assert torch.equal(found, plain) and bool((probabilities_RV.gather(1, found[:, None]) > 0).all())
