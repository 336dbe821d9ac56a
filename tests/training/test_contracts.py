"""What every training must keep, in float32: a step's gradient does not depend on how its examples are laid out, examples in one row do
not see each other, and the loss is the one that the architecture itself computes. Per family, with random weights."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

from mygpt.core.run import Run
from mygpt.lm.attention import packed_attention
from mygpt.lm.chat import Rendered
from mygpt.lm.logits import logits_at
from mygpt.training.batches import batch_of
from mygpt.training.losses import (
    hidden_states,
    require_own_loss,
    summed_cross_entropy,
    summed_masked_cross_entropy,
    summed_target_cross_entropy,
)
from mygpt.training.packing import isolation_fault, keeps_apart, packed_batch
from mygpt.training.recompute import recompute_layers
from tests.training import tiny

CPU = torch.device("cpu")
LENGTHS = [24, 5, 17, 9, 2, 12, 30, 7]  # together 106; windows are of 8
NOT_PACKED = {"bloom": "notices what stands before it", "mamba": "notices what stands before it"}
PACKED = [name for name in tiny.DECODERS if name not in NOT_PACKED]


@cache
def decoder(name: str) -> Any:
    return tiny.family(name)


def step_gradient(module: Any, micro_batches: list[Any], num_trained: int, **settings: Any) -> list[torch.Tensor]:
    module.zero_grad()
    for batch in micro_batches:
        nats = summed_cross_entropy(module, batch.ids_BT, batch.trained_BT, positions_BT=batch.positions_BT, **settings)
        (nats / num_trained).backward()
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


def in_rows(examples: list[Rendered], rows: int) -> list[Any]:
    return [batch_of(examples[i : i + rows], padding_id=0, device=CPU) for i in range(0, len(examples), rows)]


def packed(examples: list[Rendered], each: int, **settings: Any) -> list[Any]:
    return [packed_batch(examples[i : i + each], padding_id=0, device=CPU, **settings) for i in range(0, len(examples), each)]


def assert_same(gradients: list[torch.Tensor], reference: list[torch.Tensor]) -> None:
    assert len(gradients) == len(reference) > 5
    whole = torch.stack([g.norm() for g in reference]).norm()
    for ours, theirs in zip(gradients, reference, strict=True):
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm() + 1e-7 * whole  # a bias of keys has the gradient zero


# -- one step, laid out in every way -----------------------------------------------------------------------------------------

WAYS: dict[str, Callable[[list[Rendered]], list[Any]]] = {
    "a row each": lambda examples: in_rows(examples, 1),
    "rows of three": lambda examples: in_rows(examples, 3),
    "one packed row": lambda examples: packed(examples, 8),
    "packs of three": lambda examples: packed(examples, 3),
    "padded to 128": lambda examples: packed(examples, 8, shapes=[128]),
}


@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral", "cohere2", "gpt2"])
@pytest.mark.parametrize("chunk_labels", [None, 5])
def test_any_layout_gives_the_gradient_of_the_plain_forward_pass(name: str, chunk_labels: int | None) -> None:
    module, examples = decoder(name), tiny.examples(LENGTHS)
    num_trained = sum(sum(e.trained[1:]) for e in examples)
    assert num_trained > 3 * 5
    module.zero_grad()
    for e in examples:
        ids_BT = torch.tensor([e.token_ids])
        labels_BT = ids_BT.masked_fill(~torch.tensor([e.trained]), -100)
        (module(input_ids=ids_BT, labels=labels_BT).loss * sum(e.trained[1:]) / num_trained).backward()
    plain = [p.grad.clone() for p in module.parameters() if p.grad is not None]
    for way in WAYS.values():
        assert_same(step_gradient(module, way(examples), num_trained, chunk_labels=chunk_labels), plain)


@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral", "gpt2"])
@pytest.mark.parametrize("way", ["rows of three", "one packed row"])
def test_computing_layers_again_changes_nothing(name: str, way: str) -> None:
    module, examples = tiny.family(name), tiny.examples(LENGTHS)
    runs: list[Any] = []
    layer = module.get_decoder().h[1] if name == "gpt2" else module.get_decoder().layers[1]
    layer.mlp.register_forward_pre_hook(lambda *_: runs.append(1))
    before = step_gradient(module, WAYS[way](examples), 50)
    once = len(runs)
    recompute_layers(module)
    assert_same(step_gradient(module, WAYS[way](examples), 50), before)
    assert len(runs) == 3 * once  # it did happen: forward, and again for the backward pass
    assert module.config._attn_implementation != "mygpt_grouped"


def test_layers_keep_their_input_only() -> None:
    """What autograd holds for a backward pass of two layers, in float32 numbers."""

    def kept(module: Any) -> int:
        sizes: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            hidden_states(module, torch.arange(3, 63)[None]).sum()
        return sum(sizes.values()) - sum(p.numel() for p in module.parameters() if p.untyped_storage().data_ptr() in sizes)

    module = tiny.family("llama")
    everything = kept(module)
    recompute_layers(module)
    assert kept(module) < 0.4 * everything


# -- every family ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tiny.DECODERS)
def test_our_loss_is_the_architectures_own(name: str) -> None:
    module = decoder(name)
    for e in tiny.examples([30, 6]):
        ids_BT, trained_BT = torch.tensor([e.token_ids]), torch.tensor([e.trained])
        with torch.no_grad():
            own = float(module(input_ids=ids_BT, labels=ids_BT.masked_fill(~trained_BT, -100)).loss) * int(trained_BT[:, 1:].sum())
            for chunk_labels in (None, 3):
                ours = summed_cross_entropy(module, ids_BT, trained_BT, chunk_labels=chunk_labels)
                assert float(ours) == pytest.approx(own, rel=3e-6)
        require_own_loss(module, ids_BT, trained_BT)


@pytest.mark.parametrize("name", PACKED)
def test_packed_logits_are_unpacked_logits(name: str) -> None:
    """With padding behind, as it is on a GPU; each example stands where the numbers of the one before would leak in."""
    module, examples = decoder(name), tiny.examples(LENGTHS)
    batch = packed_batch(examples, padding_id=0, device=CPU, shapes=[128])
    with torch.no_grad():
        together_TV = logits_at(module, hidden_states(module, batch.ids_BT, batch.positions_BT)[0])
        first = 0
        for e in examples:
            alone_TV = module(input_ids=torch.tensor([e.token_ids])).logits[0]
            apart = together_TV[first : first + len(e.token_ids)] - alone_TV
            assert apart.norm() <= 1e-5 * alone_TV.norm()
            first += len(e.token_ids)
    assert isolation_fault(module, examples[0].token_ids, examples[1].token_ids) is None


@pytest.mark.parametrize("name", NOT_PACKED)
def test_a_family_that_cannot_be_packed_is_found_and_said(name: str, run: Run) -> None:
    """ALiBi's mask takes no positions here; a recurrent state runs on through the row."""
    said: list[str] = []
    run.listeners.append(lambda event: said.append(event["text"]) if event["event"] == "warning" else None)
    assert not keeps_apart(decoder(name), tiny.examples(LENGTHS), run=run)
    assert NOT_PACKED[name] in said[0] and type(decoder(name)).__name__ in said[0]
    assert keeps_apart(decoder("llama"), tiny.examples([9]), run=run) and len(said) == 1


def test_flex_attention_keeps_examples_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of a GPU, its kernel run uncompiled here: transformers makes its block mask from the same positions."""
    from mygpt.lm import attention

    module, examples = tiny.family("mistral").requires_grad_(False), tiny.examples(LENGTHS)  # no backward pass on a CPU
    used: list[str] = []
    monkeypatch.setattr(attention, "_is_on_cpu", lambda module: False)
    module.get_decoder().layers[0].register_forward_pre_hook(lambda *_: used.append(module.config._attn_implementation))
    with torch.compiler.set_stance("force_eager"):
        fault = isolation_fault(module, examples[0].token_ids, examples[1].token_ids)
    assert fault is None and used[0] == "flex_attention" and module.config._attn_implementation == "sdpa"
    with packed_attention(tiny.family("bloom"), torch.arange(9)[None]) as told:
        assert not told  # knows no FlexAttention: left as it is


@pytest.mark.parametrize("name", tiny.ENCODERS)
def test_an_encoders_loss_is_its_own(name: str) -> None:
    """Two sentences of unlike length: padding is hidden, from both sides."""
    module, examples = tiny.family(name), tiny.examples([20, 7])
    batch = batch_of(examples, padding_id=1, device=CPU)
    real_BT = torch.arange(20) < torch.tensor([[20], [7]])
    labels_BT = batch.ids_BT.masked_fill(~batch.trained_BT, -100)
    given_BT = batch.ids_BT.masked_fill(batch.trained_BT, 3)
    own = module(input_ids=given_BT, attention_mask=real_BT, labels=labels_BT).loss * batch.trained_BT.sum()
    own.backward()
    plain = [p.grad.clone() for p in module.parameters() if p.grad is not None]
    for chunk_labels in (None, 3):
        module.zero_grad()
        ours = summed_masked_cross_entropy(module, given_BT, real_BT, batch.ids_BT, batch.trained_BT, chunk_labels=chunk_labels)
        ours.backward()
        assert float(ours.detach()) == pytest.approx(float(own.detach()), rel=3e-6)
        assert_same([p.grad for p in module.parameters() if p.grad is not None], plain)
    alone = summed_masked_cross_entropy(module, given_BT[1:, :7], real_BT[1:, :7], batch.ids_BT[1:, :7], batch.trained_BT[1:, :7])
    first = summed_masked_cross_entropy(module, given_BT[:1], real_BT[:1], batch.ids_BT[:1], batch.trained_BT[:1])
    assert float((alone + first).detach()) == pytest.approx(float(own.detach()), rel=3e-6)


@pytest.mark.parametrize("name", tiny.ENCODER_DECODERS)
def test_an_encoder_decoders_loss_is_its_own(name: str) -> None:
    module, sources, targets = tiny.family(name), tiny.examples([20, 7]), tiny.examples([6, 11], seed=1, share_trained=1.0)
    source, target = (batch_of(rows, padding_id=0, device=CPU) for rows in (sources, targets))
    real_BS = torch.arange(20) < torch.tensor([[20], [7]])
    own = module(
        input_ids=source.ids_BT, attention_mask=real_BS, labels=target.ids_BT.masked_fill(~target.trained_BT, -100), use_cache=False
    )
    (own.loss * 17).backward()
    plain = [p.grad.clone() for p in module.parameters() if p.grad is not None]
    for chunk_labels in (None, 3):
        module.zero_grad()
        ours = summed_target_cross_entropy(
            module, source.ids_BT, real_BS, target.ids_BT, target.trained_BT, chunk_labels=chunk_labels
        )
        ours.backward()
        assert float(ours.detach()) == pytest.approx(17 * float(own.loss.detach()), rel=3e-6)
        assert_same([p.grad for p in module.parameters() if p.grad is not None], plain)


