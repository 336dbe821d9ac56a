"""The loss against transformers' own, and the equalities that let a step be split in any way."""

from typing import Any

import pytest
import torch

from mygpt.core.errors import Refused
from mygpt.lm.chat import Rendered
from mygpt.training.batches import batch_of
from mygpt.training.losses import require_own_loss, summed_cross_entropy
from tests.training import tiny

LENGTHS = [24, 5, 17, 9, 2, 12, 30, 7]


def loss_of(module: Any, rows: list[Rendered], *, padding_id: int = 0) -> torch.Tensor:
    batch = batch_of(rows, padding_id=padding_id, device=torch.device("cpu"))
    return summed_cross_entropy(module, batch.ids_BT, batch.trained_BT)


def gradients(module: Any, rows: list[Rendered], rows_per_batch: int) -> list[torch.Tensor]:
    """Of the step's mean loss, gathered over micro-batches as the recipe does."""
    module.zero_grad()
    num_trained = sum(sum(r.trained[1:]) for r in rows)
    for start in range(0, len(rows), rows_per_batch):
        (loss_of(module, rows[start : start + rows_per_batch]) / num_trained).backward()
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
@pytest.mark.parametrize("share_trained", [0.4, 1.0])
def test_equals_transformers_own_loss(name: str, share_trained: float) -> None:
    """Labels of -100 are left out of its mean (its documented `ignore_index`); 30 tokens are more than a window of 8."""
    module = tiny.ARCHITECTURES[name]()
    for row in tiny.examples([30, 6], share_trained=share_trained):
        ids_BT, trained_BT = torch.tensor([row.token_ids]), torch.tensor([row.trained])
        labels_BT = ids_BT.masked_fill(~trained_BT, -100)
        with torch.no_grad():
            own = float(module(input_ids=ids_BT, labels=labels_BT).loss) * int(trained_BT[:, 1:].sum())
            assert float(summed_cross_entropy(module, ids_BT, trained_BT)) == pytest.approx(own, rel=2e-6)
        require_own_loss(module, ids_BT, trained_BT)  # says the same


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_nobody_sees_padding_or_other_rows(name: str) -> None:
    module = tiny.ARCHITECTURES[name]()
    rows = tiny.examples(LENGTHS)
    with torch.no_grad():
        alone = sum(float(loss_of(module, [row])) for row in rows)
        assert float(loss_of(module, rows)) == pytest.approx(alone, rel=1e-6)
        assert float(loss_of(module, rows, padding_id=17)) == pytest.approx(alone, rel=1e-6)


def test_any_split_gives_the_same_gradient() -> None:
    module = tiny.llama()
    rows = tiny.examples(LENGTHS)
    whole = gradients(module, rows, 8)
    assert len(whole) == len(list(module.parameters())) and all(g.norm() > 0 for g in whole)
    for rows_per_batch in (1, 4):
        for a, b in zip(gradients(module, rows, rows_per_batch), whole, strict=True):
            assert (a - b).norm() <= 1e-5 * b.norm()


def test_the_vocabulary_product_is_only_where_a_label_is() -> None:
    module = tiny.llama()
    rows = tiny.examples(LENGTHS)
    seen: list[int] = []
    module.get_output_embeddings().register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0].shape[:-1].numel()))
    loss_of(module, rows)
    assert seen == [sum(sum(r.trained[1:]) for r in rows)]
    assert seen[0] < sum(LENGTHS) / 2


def test_the_first_token_is_no_label() -> None:
    """Nothing precedes it. With only that marked, the loss is 0 and the gradients are 0, without a NaN."""
    module = tiny.llama()
    for row in (Rendered((5, 6, 7), (True, False, False), ()), Rendered((5,), (True,), ())):
        loss = loss_of(module, [row])
        loss.backward()
        assert float(loss.detach()) == 0.0
        assert all(p.grad is None or (p.grad == 0).all() for p in module.parameters())


def test_one_label_by_hand() -> None:
    module = tiny.llama()
    row = Rendered((5, 6, 7), (False, False, True), ())
    with torch.no_grad():
        logits_V = module(input_ids=torch.tensor([[5, 6]])).logits[0, -1]
        by_hand = float(logits_V.exp().sum().log() - logits_V[7])
        assert float(loss_of(module, [row])) == pytest.approx(by_hand, rel=1e-5)


def test_adapters_are_seen_through() -> None:
    from peft import LoraConfig, get_peft_model

    row = tiny.examples([12])[0]
    module = get_peft_model(tiny.llama(), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False))
    ids_BT = torch.tensor([row.token_ids])
    labels_BT = ids_BT.masked_fill(~torch.tensor([row.trained]), -100)
    own = float(module(input_ids=ids_BT, labels=labels_BT).loss.detach()) * sum(row.trained[1:])
    loss = loss_of(module, [row])
    assert float(loss.detach()) == pytest.approx(own, rel=2e-6)
    assert abs(float(loss.detach()) - float(loss_of(tiny.llama(), [row]).detach())) > 0.1  # the adapter did something
    loss.backward()
    assert {n.rsplit(".", 2)[-2] for n, p in module.named_parameters() if p.grad is not None} == {"default"}


def test_an_unknown_head_is_refused() -> None:
    """A model that halves its logits in `forward`, as nothing in its configuration says."""
    module = tiny.llama()
    forward = module.forward

    def halved(**inputs: Any) -> Any:
        output = forward(**inputs)
        output.logits = output.logits / 2
        return output

    module.forward = halved
    row = tiny.examples([12])[0]
    with pytest.raises(Refused, match="LlamaForCausalLM computes its logits in a way that is not known") as refused:
        require_own_loss(module, torch.tensor([row.token_ids]), torch.tensor([row.trained]))
    assert refused.value.exit_code == 3
