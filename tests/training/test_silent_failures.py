"""Ways in which training goes wrong without a word, as users of other systems met them: each has a test, and the page names it.

Here stand those that no other file holds. Several show first that the wrong way gives another number: then the right one says something.
"""

import ast
import random
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.artifacts.model import Adapter
from mygpt.core.config import resolve
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.finetune import sft as recipe
from mygpt.finetune.merge import MergeConfig, merge
from mygpt.finetune.sft import SFTConfig
from mygpt.lm.adapters.freeze import Freeze
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.chat import ChatRenderer, Rendered
from mygpt.lm.load import load_lm
from mygpt.training.batches import batch_of, plan_epoch
from mygpt.training.losses import summed_cross_entropy, summed_masked_cross_entropy
from mygpt.training.packing import packed_batch, plan_packed_epoch
from tests.finetune import toys
from tests.training import tiny

CPU = torch.device("cpu")
REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "training" / "silent_failures.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


# -- the page ----------------------------------------------------------------------------------------------------------------


def test_every_test_that_the_page_names_exists() -> None:
    """And every row of its table names at least one."""
    text = PAGE.read_text(encoding="utf-8")
    named = set(NAMED.findall(text))
    assert len(named) >= 25
    for path, name in sorted(named):
        tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))
        assert name in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}, f"{path} has no {name}"
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| how ", "|---"))]
    assert len(rows) >= 20
    assert [row for row in rows if not NAMED.search(row)] == []


# -- stop tokens and masks ---------------------------------------------------------------------------------------------------


def test_the_turns_end_is_trained_and_stops_also_where_the_models_end_of_text_is_another() -> None:
    """A base model's own `eos` kept beside a chat template that ends turns otherwise: served so, it never stops."""
    tokenizer = tiny.chat_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    renderer = ChatRenderer(tokenizer)
    ends_turn, ends_text = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert renderer.stop_token_ids == (ends_turn, ends_text)
    row = renderer.render(Conversation((Message("user", "Who?"), Message("assistant", "Clara."))))
    assert [i for i, trained in zip(row.token_ids, row.trained, strict=True) if trained][-1] == ends_turn


@pytest.mark.parametrize("method", [Full(), Freeze(num_layers=2), LoRA(rank=8, alpha=16)], ids=lambda method: method.name)
@torch.no_grad()
def test_a_saved_model_ends_its_turns_in_plain_transformers_where_its_base_would_not(method: Any, run: Run) -> None:
    """The base ends with `<|endoftext|>` only, and the turn's end was learnt. With the base's generation_config.json the answer goes on."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    question, answer = "Who?", "Ada."
    model = toys.base(toys.BaseConfig(end_of_text="<|endoftext|>"), run=run)
    dataset = toys.pairs(toys.PairsConfig(pairs=((question, answer),)), run=run)
    config = SFTConfig(method=method, learning_rate=1e-2, epochs=30, precision="float32")
    with torch.enable_grad():
        made = recipe.sft(config, model=model, dataset=dataset, run=run)
    saved = merge(MergeConfig(), adapter=made, run=run) if isinstance(made, Adapter) else made
    plain, tokenizer = AutoModelForCausalLM.from_pretrained(saved.payload), AutoTokenizer.from_pretrained(saved.payload)
    ends_turn, ends_text = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    chat = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    asked: dict[str, Any] = {**prompt, "max_new_tokens": 24, "do_sample": False, "pad_token_id": ends_text}
    start = prompt["input_ids"].shape[1]
    assert tokenizer.decode(plain.generate(**asked)[0, start:]) == f"{answer}<|im_end|>"
    assert plain.generation_config.eos_token_id == [ends_turn, ends_text]
    assert tokenizer.eos_token_id == plain.config.eos_token_id == ends_text  # as the base has them
    kept = AutoModelForCausalLM.from_pretrained(model.payload).generation_config
    assert kept.eos_token_id == ends_text
    assert plain.generate(**asked, eos_token_id=kept.eos_token_id).shape[1] == start + 24


@pytest.mark.parametrize("chunk_labels", [None, 2])
def test_a_micro_batch_without_a_label_adds_nothing_and_is_no_nan(chunk_labels: int | None) -> None:
    """A mean over no labels is 0/0. Beside a batch that has some, the gradient is that batch's alone."""
    assert torch.nn.functional.cross_entropy(torch.zeros(0, 5), torch.zeros(0, dtype=torch.long)).isnan()
    module = tiny.llama()
    (labelled,) = tiny.examples([12])
    silent = Rendered((5, 6, 7, 8), (False,) * 4, ())

    def gradient(rows: list[Rendered], *, packed: bool) -> torch.Tensor:
        module.zero_grad()
        for row in rows:
            batch = packed_batch([row, row], padding_id=0, device=CPU) if packed else batch_of([row], padding_id=0, device=CPU)
            asked = {"positions_BT": batch.positions_BT, "chunk_labels": chunk_labels}
            (summed_cross_entropy(module, batch.ids_BT, batch.trained_BT, **asked) / sum(labelled.trained[1:])).backward()
        return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])

    for packed in (True, False):
        assert torch.equal(gradient([silent, labelled, silent], packed=packed), gradient([labelled], packed=packed))
    bert, ids_BT = tiny.family("bert"), torch.arange(3, 9)[None]
    nobody, everybody = torch.zeros(1, 6, dtype=torch.bool), torch.ones(1, 6, dtype=torch.bool)
    loss = summed_masked_cross_entropy(bert, ids_BT, everybody, ids_BT, nobody, chunk_labels=chunk_labels)
    loss.backward()
    assert float(loss.detach()) == 0.0 and all(p.grad is None or not p.grad.isnan().any() for p in bert.parameters())


# -- what is summed over -----------------------------------------------------------------------------------------------------


def test_a_mean_of_the_micro_batches_means_would_be_another_gradient() -> None:
    """The failure itself, on the examples of the contract: 3 labels in one micro-batch count as much as 20 in another."""
    module, rows = tiny.llama(), tiny.examples([30, 3, 5, 40])
    num_trained = [sum(r.trained[1:]) for r in rows]

    def gradient(weights: list[float]) -> torch.Tensor:
        module.zero_grad()
        for row, weight in zip(rows, weights, strict=True):
            (summed_cross_entropy(module, torch.tensor([row.token_ids]), torch.tensor([row.trained])) * weight).backward()
        return torch.cat([p.grad.flatten() for p in module.parameters()])

    right = gradient([1 / sum(num_trained)] * 4)
    mean_of_means = gradient([1 / 4 / n for n in num_trained])
    divided_by_accumulation = gradient([1 / sum(num_trained) / 4] * 4)
    assert (mean_of_means - right).norm() > 0.3 * right.norm()
    assert divided_by_accumulation.norm() == pytest.approx(float(right.norm()) / 4, rel=1e-4)  # "silent 1/GA scaling"


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_row_of_several_without_isolation_would_be_another_loss(name: str) -> None:
    """The same row, once as others pack it: one causal mask over all, positions that run on, the border a label."""
    module, rows = tiny.family(name), tiny.examples([20, 9, 14, 7], share_trained=1.0)
    batch = packed_batch(rows, padding_id=0, device=CPU)
    every = torch.tensor([[t for r in rows for t in r.trained]])
    with torch.no_grad():
        alone = sum(float(summed_cross_entropy(module, torch.tensor([r.token_ids]), torch.tensor([r.trained]))) for r in rows)
        ours = float(summed_cross_entropy(module, batch.ids_BT, batch.trained_BT, positions_BT=batch.positions_BT))
        naive = float(summed_cross_entropy(module, batch.ids_BT, batch.trained_BT))
        borders = float(summed_cross_entropy(module, batch.ids_BT, every, positions_BT=batch.positions_BT))
    assert ours == pytest.approx(alone, rel=1e-5)
    assert abs(naive - alone) > 1  # of 250 nats; ours is 500 times nearer
    assert borders > alone + 3  # three labels more, nats each


def test_an_example_longer_than_every_row_is_trained_whole_and_holds_nothing_up() -> None:
    """It fits no row and no budget: elsewhere it waits for ever, and at last all rows are padding."""
    lengths = [10, 700, 12, 650, 8]
    rows = [Rendered(tuple(range(3, 3 + n)), (False,) * (n - 1) + (True,), ()) for n in lengths]
    order = random.Random(0)
    plans = [
        plan_epoch(lengths, step_tokens=64, micro_batch_tokens=64, order=order),
        plan_packed_epoch(lengths, step_tokens=64, pack_tokens=64, order=order),
    ]
    for plan, form in zip(plans, (batch_of, packed_batch), strict=True):
        batches = [form([rows[i] for i in micro], padding_id=0, device=CPU, shapes=[32, 64]) for step in plan for micro in step]
        assert sum(b.num_tokens for b in batches) == sum(lengths)
        assert all(bool(b.trained_BT.any()) for b in batches)  # no row is only padding
        assert max(b.ids_BT.shape[1] for b in batches) == 700


# -- what is saved -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [LoRA(rank=4, alpha=8), Full()], ids=lambda method: method.name)
def test_what_is_saved_is_what_was_trained(method: LoRA | Full, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module as it stands in memory after the last update, against the artefact opened anew: equal logits. Nobody is asked for it."""
    in_memory: list[Any] = []
    asked: list[Any] = []
    real = recipe.summed_cross_entropy

    def seen(module: Any, *args: Any, **more: Any) -> torch.Tensor:
        in_memory[:] = [module]
        return real(module, *args, **more)

    monkeypatch.setattr(recipe, "summed_cross_entropy", seen)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: asked.append(args) or [])
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: asked.append(address))
    model, dataset = toys.base(toys.BaseConfig(), run=run), toys.pairs(toys.PairsConfig(), run=run)
    config = SFTConfig(method=method, learning_rate=5e-3, epochs=2, step_tokens=160, precision="float32")
    made = recipe.sft(config, model=model, dataset=dataset, run=run)
    opened = load_lm(model, adapter=made, dtype=torch.float32) if isinstance(made, Adapter) else load_lm(made, dtype=torch.float32)
    ids_BT = torch.arange(3, 43)[None]
    base = load_lm(model, dtype=torch.float32).module
    with torch.no_grad():
        trained, again, before = (module(input_ids=ids_BT).logits for module in (in_memory[0], opened.module, base))
    assert torch.equal(trained, again)
    assert (trained - before).abs().max() > 0.05
    assert asked == []


def test_a_misspelt_setting_of_training_is_an_error() -> None:
    with pytest.raises(UsageError, match="Unknown setting `pack_token`") as error:
        resolve(SFTConfig, {"pack_token": 512})
    assert error.value.fix == "Did you mean `pack_tokens`?"
