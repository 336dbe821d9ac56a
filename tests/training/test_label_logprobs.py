"""Log-probabilities with gradients, against transformers' own logits."""

import pytest
import torch

from mygpt.training.batches import batch_of
from mygpt.training.label_logprobs import by_row, label_logprobs, logprobs_and_entropies_of, logprobs_of, summed_by_row
from mygpt.training.losses import hidden_states, summed_cross_entropy
from tests.training import tiny

LENGTHS = [9, 4, 14]


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    batch = batch_of(tiny.examples(LENGTHS), padding_id=0, device=torch.device("cpu"))
    is_label_BT = batch.trained_BT.clone()
    is_label_BT[:, 0] = False
    return batch.ids_BT, is_label_BT


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_equals_the_softmax_of_transformers_own_logits(name: str, temperature: float) -> None:
    module = tiny.ARCHITECTURES[name]()
    ids_BT, is_label_BT = rows()
    with torch.no_grad():
        found_N = label_logprobs(module, ids_BT, is_label_BT, temperature=temperature)
        own_BTV = (module(input_ids=ids_BT).logits.float() / temperature).log_softmax(-1)
    own_N = own_BTV[:, :-1].gather(-1, ids_BT[:, 1:, None])[..., 0][is_label_BT[:, 1:]]
    torch.testing.assert_close(found_N, own_N, atol=2e-6, rtol=2e-6)


def test_the_sum_is_the_cross_entropy() -> None:
    module, (ids_BT, is_label_BT) = tiny.llama(), rows()
    with torch.no_grad():
        assert float(-label_logprobs(module, ids_BT, is_label_BT).sum()) == pytest.approx(
            float(summed_cross_entropy(module, ids_BT, is_label_BT)), rel=1e-6
        )


def test_chunks_change_neither_values_nor_gradients() -> None:
    """With weights that differ from token to token, as in a policy gradient."""
    module, (ids_BT, is_label_BT) = tiny.llama(), rows()
    weights_N = torch.randn(int(is_label_BT.sum()), generator=torch.Generator().manual_seed(1))
    found = []
    for chunk in (None, 4):
        module.zero_grad()
        hidden_BTD = hidden_states(module, ids_BT)
        at_labels_ND = hidden_BTD[:, :-1][is_label_BT[:, 1:]]
        labels_N = ids_BT[:, 1:][is_label_BT[:, 1:]]
        logprobs_N = logprobs_of(module, at_labels_ND, labels_N, chunk_labels=chunk)
        both_N, entropies_N = logprobs_and_entropies_of(module, at_labels_ND, labels_N, chunk_labels=chunk)
        torch.testing.assert_close(both_N, logprobs_N)
        (logprobs_N * weights_N + both_N + entropies_N).sum().backward()
        found.append([logprobs_N.detach(), entropies_N.detach(), *(p.grad.clone() for p in module.parameters())])
    for whole, in_chunks in zip(*found, strict=True):
        torch.testing.assert_close(whole, in_chunks, atol=1e-5, rtol=1e-5)


def test_entropy_and_its_gradient_are_torchs() -> None:
    module, (ids_BT, _) = tiny.llama(), rows()
    hidden_ND = hidden_states(module, ids_BT)[0].detach().requires_grad_()
    labels_N = torch.zeros(len(hidden_ND), dtype=torch.int64)
    _, entropies_N = logprobs_and_entropies_of(module, hidden_ND, labels_N, temperature=0.5)
    own_N = torch.distributions.Categorical(logits=module.lm_head(hidden_ND) / 0.5).entropy()
    torch.testing.assert_close(entropies_N, own_N)
    (ours,) = torch.autograd.grad(entropies_N.sum(), hidden_ND, retain_graph=True)
    (own,) = torch.autograd.grad(own_N.sum(), hidden_ND)
    torch.testing.assert_close(ours, own, atol=1e-5, rtol=1e-4)


def test_rows_by_hand() -> None:
    is_label_BT = torch.tensor([[False, True, False, True], [False, False, False, False], [False, False, True, False]])
    values_N = torch.tensor([1.0, 2.0, 5.0], requires_grad=True)
    assert by_row(values_N, is_label_BT).tolist() == [[1.0, 2.0], [0.0, 0.0], [5.0, 0.0]]
    assert summed_by_row(values_N, is_label_BT).tolist() == [3.0, 0.0, 5.0]
    (by_row(values_N, is_label_BT)[0].sum() + 3 * summed_by_row(values_N, is_label_BT)[2]).backward()
    assert values_N.grad is not None and values_N.grad.tolist() == [1.0, 1.0, 3.0]
