"""Two answers in one row: the log-probabilities and gradients of two rows, or two rows where a model does not take one."""

from typing import Any

import pytest
import torch

from mygpt.align.answer_rows import (
    answer_logprobs,
    packs_pairs,
    row_tokens,
    separate_rows,
    shared_rows,
    shared_tokens,
    single_rows,
    takes_shared_rows,
)
from mygpt.core.run import Run
from mygpt.lm.adapters import methods
from mygpt.lm.adapters.prompt import Prompt
from mygpt.lm.chat import Rendered
from tests.lm.test_varlen import as_on_a_gpu
from tests.training import tiny

__all__ = ["as_on_a_gpu"]

CPU = torch.device("cpu")


def pair(prompt: int, chosen: int, rejected: int, seed: int = 0, *, behind: int = 1) -> tuple[Rendered, Rendered]:
    """Answers of so many labels behind a common prompt; each ends with tokens that are no labels."""
    draw = torch.Generator().manual_seed(seed)
    begin = torch.randint(3, tiny.VOCABULARY, (prompt,), generator=draw).tolist()

    def answer(labels: int) -> Rendered:
        ids = torch.randint(3, tiny.VOCABULARY, (labels + behind,), generator=draw).tolist()
        return Rendered((*begin, *ids), (False,) * prompt + (True,) * labels + (False,) * behind, ())

    return answer(chosen), answer(rejected)


PAIRS = [pair(7, 4, 9, 1), pair(3, 6, 2, 2), pair(12, 1, 1, 3)]


def plainly(module: Any, example: Rendered) -> torch.Tensor:
    """By the model's own forward pass over the whole sequence."""
    logprobs_TV = module(input_ids=torch.tensor([example.token_ids])).logits[0].float().log_softmax(-1)
    places = [t for t, trained in enumerate(example.trained) if trained]
    return torch.stack([logprobs_TV[t - 1, example.token_ids[t]] for t in places]).sum()


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "cohere", "granite"])
def test_a_shared_prompt_changes_no_number(architecture: str) -> None:
    module = tiny.ARCHITECTURES[architecture]()
    weights = [0.3, -1.0, 2.0, 0.7, -0.2, 1.1]
    found, gradients = [], []
    for form in (shared_rows, separate_rows, None):
        module.zero_grad()
        if form is None:
            logprobs_A = torch.stack([plainly(module, example) for both in PAIRS for example in both])
        else:
            logprobs_A = answer_logprobs(module, form(PAIRS, padding_id=0, device=CPU))
        (logprobs_A * torch.tensor(weights)).sum().backward()
        found.append(logprobs_A.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]))
    for logprobs_A, gradient in zip(found[:2], gradients[:2], strict=True):
        assert torch.allclose(logprobs_A, found[2], atol=1e-4)
        assert torch.allclose(gradient, gradients[2], atol=1e-4 * float(gradients[2].abs().max()))
    assert found[2].std() > 1 and gradients[2].norm() > 0.1


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("architecture", ["llama", "mistral", "granite"])
def test_all_pairs_in_one_packed_row(architecture: str) -> None:
    """As a GPU has them, its kernel in plain torch."""
    module = tiny.ARCHITECTURES[architecture]().double()
    weights = torch.tensor([0.3, -1.0, 2.0, 0.7, -0.2, 1.1])
    found, gradients = [], []
    for rows in (separate_rows(PAIRS, padding_id=0, device=CPU), shared_rows(PAIRS, padding_id=0, device=CPU, packed=True)):
        module.zero_grad()
        logprobs_A = answer_logprobs(module, rows)
        (logprobs_A * weights).sum().backward()
        found.append(logprobs_A.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]))
    assert rows.ids_BT.shape == (1, sum(row_tokens(both, shared=True) for both in PAIRS)) and rows.seen_B1TT is None
    torch.testing.assert_close(*found)
    assert (gradients[0] - gradients[1]).norm() <= 1e-5 * gradients[0].norm()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_packed_row_on_a_gpu(run: Run) -> None:
    """The sums of float32 within bfloat16's rounding, always to the same bits; and a model is found to take such rows."""
    module = tiny.llama(hidden_size=64, num_attention_heads=4, num_key_value_heads=2)
    alone_A = answer_logprobs(module, separate_rows(PAIRS, padding_id=0, device=CPU)).detach()
    half, device = module.to("cuda", torch.bfloat16), torch.device("cuda")
    assert packs_pairs(half) and takes_shared_rows(half, PAIRS[2], padding_id=0, run=run)
    with torch.no_grad():
        packed = [answer_logprobs(half, shared_rows(PAIRS, padding_id=0, device=device, packed=True)) for _ in range(3)]
    torch.testing.assert_close(packed[0].cpu(), alone_A, rtol=0.01, atol=0.1)
    assert all(torch.equal(one, packed[0]) for one in packed)


def test_what_a_row_holds() -> None:
    rows = shared_rows([pair(3, 2, 4, behind=2)], padding_id=0, device=CPU)
    assert rows.ids_BT.shape == (1, 9) and rows.num_labels_A.tolist() == [2, 4]  # nothing behind the last label
    assert rows.positions_BT is not None and rows.positions_BT.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5, 6]]
    assert rows.places_N.tolist() == [2, 3, 2, 5, 6, 7]  # both first labels are predicted where the prompt ends
    assert rows.seen_B1TT is not None and rows.seen_B1TT[0, 0, 6].tolist() == [True, True, True, False, False, True, True, False, False]
    assert row_tokens(PAIRS[0], shared=True) == 7 + 4 + 9 and row_tokens(PAIRS[0], shared=False) == 2 * (7 + 9)


def test_only_the_prompt_is_shared() -> None:
    """Answers that begin alike are answers all the same; prompts may differ before them."""
    alike = (Rendered((5, 6, 7, 8), (False, False, True, True), ()), Rendered((5, 6, 7, 9), (False, False, True, True), ()))
    assert shared_tokens(*alike) == 2
    assert shared_rows([alike], padding_id=0, device=CPU).num_labels_A.tolist() == [2, 2]
    differing = (Rendered((5, 6, 7), (False, False, True), ()), Rendered((4, 6, 8, 9), (False, False, True, True), ()))
    assert shared_tokens(*differing) == 0
    module = tiny.llama()
    together = answer_logprobs(module, shared_rows([differing], padding_id=0, device=CPU))
    assert torch.allclose(together, answer_logprobs(module, single_rows(differing, padding_id=0, device=CPU)), atol=1e-5)


def test_padding_stays_within_the_window() -> None:
    """A table of 12 positions; in a row of 21 tokens the padding of the other has none beyond it."""
    module = tiny.gpt2(n_positions=12)
    both = [pair(2, 9, 9, 1), pair(10, 1, 1, 2)]
    found = answer_logprobs(module, shared_rows(both, padding_id=0, device=CPU))
    assert torch.allclose(found, answer_logprobs(module, separate_rows(both, padding_id=0, device=CPU)), atol=1e-4)


@pytest.mark.parametrize("architecture", tiny.DECODERS)
def test_who_takes_them(architecture: str, run: Run) -> None:
    """A window of 8 tokens, distances counted from the mask, a recurrent state: two rows."""
    said: list[str] = []
    run.listeners.append(lambda event: said.append(event.get("text", "")))
    module = tiny.family(architecture)
    taken = takes_shared_rows(module, PAIRS[0], padding_id=0, run=run)
    assert taken == (architecture not in ("gemma2", "cohere2", "mistral", "bloom", "mamba"))
    assert taken == (not said) and all("so each prompt is read twice" in text for text in said)
    if taken:
        one, two = (answer_logprobs(module, form(PAIRS, padding_id=0, device=CPU)) for form in (shared_rows, separate_rows))
        assert torch.allclose(one, two, atol=1e-3)


def test_virtual_tokens_do_not_take_them(run: Run) -> None:
    """They stand before a row, and the mask knows nothing of them: found by its numbers or by an error, never used."""
    said: list[str] = []
    run.listeners.append(lambda event: said.append(event.get("text", "")))
    module = methods.attach(tiny.llama(vocab_size=300), Prompt(num_tokens=3), tokenizer=tiny.chat_tokenizer()).eval()
    if takes_shared_rows(module, PAIRS[0], padding_id=0, run=run):
        one, two = (answer_logprobs(module, form(PAIRS, padding_id=0, device=CPU)) for form in (shared_rows, separate_rows))
        assert torch.allclose(one, two, atol=1e-4)
    else:
        assert "each prompt is read twice" in said[0]
