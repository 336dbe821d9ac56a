"""The loss against transformers' own, and the equalities that let a step be split in any way."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mygpt.core.errors import Refused
from mygpt.lm.chat import Rendered
from mygpt.training.batches import batch_of
from mygpt.training.losses import chunk_labels_for, require_own_loss, summed_cross_entropy, summed_masked_cross_entropy
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


def test_rounding_alone_refuses_nothing() -> None:
    """A forward pass that rounds its logits to quarters, as bfloat16 does from 32 on. Two likely tokens do not average that out:
    their loss is off by more than the 2 % and 0.02 that are allowed in some rows, that of 64 positions in none; scaled by 0.9 it is."""
    module = tiny.llama()
    with torch.no_grad():
        module.lm_head.weight.mul_(2 / module.lm_head.weight.std() / module.config.hidden_size**0.5)
    forward, factor = module.forward, 1.0

    def rounded(**inputs: Any) -> Any:
        output = forward(**inputs)
        output.logits = (output.logits * factor * 4).round() / 4
        return output

    module.forward = rounded
    apart = 0
    for row in tiny.examples([70] * 20):
        ids_BT = torch.tensor([row.token_ids])
        with torch.no_grad():
            for place in (68, 69):
                ids_BT[0, place] = forward(input_ids=ids_BT).logits[0, place - 1].argmax()
            trained_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
            trained_BT[:, -2:] = True
            own = float(torch.nn.functional.cross_entropy(module(input_ids=ids_BT).logits[0, -3:-1], ids_BT[0, -2:]))
            apart += abs(float(summed_cross_entropy(module, ids_BT, trained_BT)) / 2 - own) > 0.02 + 0.02 * own
        require_own_loss(module, ids_BT, trained_BT)
    assert apart > 0
    factor = 0.9
    with pytest.raises(Refused):
        require_own_loss(module, ids_BT, trained_BT)


# -- in chunks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trained_head", [True, False])
@pytest.mark.parametrize("chunk_labels", [1, 7, 16, 1000])
def test_chunks_give_the_same_loss_and_gradient(trained_head: bool, chunk_labels: int) -> None:
    """Gemma 2's head caps its logits after the product; 3.5 is a factor that backward brings from outside."""
    module = tiny.gemma2()
    module.get_input_embeddings().requires_grad_(trained_head)  # the head is tied to it
    batch = batch_of(tiny.examples(LENGTHS), padding_id=0, device=torch.device("cpu"))
    asked = (module, batch.ids_BT, batch.trained_BT)
    whole = summed_cross_entropy(*asked)
    (whole * 3.5).backward()
    reference = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    in_chunks = summed_cross_entropy(*asked, chunk_labels=chunk_labels)
    (in_chunks * 3.5).backward()
    assert float(in_chunks.detach()) == pytest.approx(float(whole.detach()), rel=1e-6)
    found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    assert found.keys() == reference.keys() and ("model.embed_tokens.weight" in found) is trained_head
    for name, gradient in found.items():
        assert (gradient - reference[name]).norm() <= 1e-5 * reference[name].norm(), name
    with torch.no_grad():
        assert float(summed_cross_entropy(*asked, chunk_labels=chunk_labels)) == pytest.approx(float(whole.detach()), rel=1e-6)


def test_chunks_never_make_a_tensor_of_all_logits() -> None:
    """A vocabulary of 2,000 and 60 labels: 120,000 logits stand together, or 8 x 2,000."""

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = function(*args, **(kwargs or {}))
            for tensor in made if isinstance(made, (tuple, list)) else [made]:
                if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in weights:
                    self.numbers = max(self.numbers, tensor.numel())
            return made

    def largest(chunk_labels: int | None) -> int:
        ids_BT = torch.arange(3, 64)[None]
        with Largest() as seen:
            summed_cross_entropy(module, ids_BT, torch.ones_like(ids_BT, dtype=torch.bool), chunk_labels=chunk_labels).backward()
        return seen.numbers

    module = tiny.llama(vocab_size=2_000)
    module.get_input_embeddings().requires_grad_(False)
    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    assert largest(None) == 60 * 2_000
    assert largest(8) == 8 * 2_000


def test_a_chunk_is_what_400_megabytes_hold() -> None:
    """16 bytes a logit: 512 labels of SmolLM2's vocabulary."""
    head = torch.nn.Linear(1, 49_152)
    module: Any = SimpleNamespace(parameters=head.parameters, get_output_embeddings=lambda: head)
    assert chunk_labels_for(module) == 512 == 403_000_000 // (16 * 49_152)


def test_a_masked_head_of_unknown_order_is_refused() -> None:
    """DistilBERT keeps the three parts of its head side by side."""
    from transformers import DistilBertConfig, DistilBertForMaskedLM

    module = DistilBertForMaskedLM(DistilBertConfig(vocab_size=tiny.VOCABULARY, dim=32, n_layers=1, n_heads=4, hidden_dim=48))
    ids_BT, all_BT = torch.arange(3, 9)[None], torch.ones(1, 6, dtype=torch.bool)
    with pytest.raises(Refused, match="head of DistilBertForMaskedLM has several parts"):
        summed_masked_cross_entropy(module, ids_BT, all_BT, ids_BT, all_BT)
