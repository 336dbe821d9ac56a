"""Tuning an encoder-decoder: the loss of transformers, the end is trained, answers learnt by heart, plain transformers and peft."""

from typing import Any

import pytest
import torch

from mygpt.artifacts.dataset import Conversation, Dataset, Message
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.store import Store
from mygpt.cli.recipe_call import _tool
from mygpt.core.errors import Refused, UsageError
from mygpt.core.run import Run
from mygpt.finetune.seq2seq import Seq2SeqConfig, encoded_pairs, seq2seq
from mygpt.infer.protocols import Sampling
from mygpt.infer.torch_seq2seq import Seq2SeqCompleter
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.heads import open_head
from mygpt.lm.inputs import padded
from mygpt.pipelines.tools import rebuild_tool
from mygpt.training.label_losses import summed_answer_loss
from tests.finetune import label_data, shapes

FAST: dict[str, Any] = {"learning_rate": 3e-3, "epochs": 2, "step_tokens": 64, "micro_batch_tokens": 64, "precision": "float32"}
QUICK: dict[str, Any] = {**FAST, "max_answer_tokens": 8, "held_out_answers": 0}


@pytest.fixture
def dataset(run: Run) -> Dataset:
    return label_data.sums(label_data.Nothing(), run=run)


def base(shape: str, run: Run) -> Model:
    return shapes.base(shapes.BaseConfig(shape=shape), run=run)


def tuned(shape: str, dataset: Dataset, run: Run, **changes: Any) -> Any:
    return seq2seq(Seq2SeqConfig(**{**QUICK, **changes}), model=base(shape, run), dataset=dataset, run=run)


@pytest.mark.parametrize("shape", ["t5", "bart"])
def test_loss_is_transformers_own(shape: str, dataset: Dataset, run: Run) -> None:
    opened = open_head(base(shape, run), "seq2seq_lm", dtype=torch.float32)
    read, written = encoded_pairs(opened, dataset.split("train"))
    assert all(ids[-1] == 2 for ids in written)  # the end is a label
    total = sum(map(len, written))
    with torch.no_grad():
        ours = summed_answer_loss(opened.module, padded(read, opened.module, padding_id=0), written) / total
        alone = [
            opened.module(input_ids=torch.tensor([e.token_ids]), labels=torch.tensor([ids])).loss * len(ids)
            for e, ids in zip(read, written, strict=True)
        ]
    assert float(ours) == pytest.approx(float(sum(alone)) / total, rel=1e-5)


@pytest.mark.parametrize(("shape", "learning_rate"), [("t5", 1e-2), ("bart", 5e-3)])
def test_learnt_by_heart(shape: str, learning_rate: float, dataset: Dataset, run: Run) -> None:
    """Answers as transformers' own greedy generation from the saved folder writes them; the stop is learnt with them."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    made = tuned(shape, dataset, run, epochs=120, step_tokens=256, held_out_answers=3, learning_rate=learning_rate)
    assert isinstance(made, Model) and made.head == "seq2seq_lm"
    assert made.manifest.facts["held_out"]["exact_match"] == made.manifest.facts["held_out"]["token_f1"] == 1.0
    completer = Seq2SeqCompleter(made, opened=open_head(made, "seq2seq_lm", dtype=torch.float32))
    asked = [Conversation((Message("user", text),)) for text in ("1 and 2?", "2 and 2?")]
    answers = completer.complete(asked, Sampling(max_tokens=8))
    assert [(a.text, a.finish_reason) for a in answers] == [("3.", "stop"), ("4.", "stop")]
    assert [a.finish_reason for a in completer.complete(asked, Sampling(max_tokens=1))] == ["length", "length"]
    plain, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(made.payload, dtype=torch.float32), AutoTokenizer.from_pretrained(made.payload)
    written = plain.generate(**tokenizer("1 and 2?", return_tensors="pt"), max_new_tokens=8, do_sample=False)
    assert tokenizer.decode(written[0], skip_special_tokens=True) == "3."


def test_adapter_opens_in_plain_peft(dataset: Dataset, run: Run) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSeq2SeqLM

    made = tuned("bart", dataset, run, method=LoRA(rank=2), epochs=4, learning_rate=1e-3)
    assert isinstance(made, Adapter) and made.manifest.facts["curve"][-1][1] < made.manifest.facts["curve"][0][1]
    plain = PeftModel.from_pretrained(
        AutoModelForSeq2SeqLM.from_pretrained(made.base.payload, dtype=torch.float32), str(made.payload)
    ).eval()
    ours = open_head(made.base, "seq2seq_lm", adapter=made, dtype=torch.float32).module
    ids_1T = torch.tensor([[40, 50, 2]])
    with torch.no_grad():
        assert torch.equal(plain(input_ids=ids_1T, labels=ids_1T).logits, ours(input_ids=ids_1T, labels=ids_1T).logits)
    asked = [Conversation((Message("user", "1 and 2?"),))]
    (answer,) = Seq2SeqCompleter(made.base, adapter=made).complete(asked, Sampling(max_tokens=30))
    assert len(answer.token_ids) == 30 and answer.finish_reason == "length"  # so little was learnt: it does not stop by itself


def test_named_on_the_command_line_and_made_again_from_its_record(run: Run) -> None:
    model, store = base("bart", run), Store(run.home)
    completer = _tool(store, run, "Completer", model.name, 0, share_documents=False)
    again = rebuild_tool(store, run, num_passages=0, share_documents=False)("completer", completer.identity)
    assert isinstance(completer, Seq2SeqCompleter) and isinstance(again, Seq2SeqCompleter)
    assert again.identity == completer.identity and completer.identity["model"] == model.digest


def test_micro_batches_change_nothing(dataset: Dataset, run: Run) -> None:
    curves = [tuned("bart", dataset, run, micro_batch_tokens=n).manifest.facts["curve"] for n in (64, 1)]
    assert [loss for _, loss in curves[1]] == pytest.approx([loss for _, loss in curves[0]], abs=2e-4)


def test_refusals(dataset: Dataset, run: Run) -> None:
    with pytest.raises(Refused, match="9 of 9 answers are longer than 1 tokens"):
        tuned("t5", dataset, run, max_answer_tokens=1)
    with pytest.raises(Refused, match="9 of 9 prompts are longer than 5 tokens"):
        tuned("t5", dataset, run, max_example_tokens=5)
    opened = open_head(base("t5", run), "seq2seq_lm")
    talk = tuple(Message(role, "x") for role in ("user", "assistant", "user", "assistant"))  # type: ignore[arg-type]
    with pytest.raises(Refused, match="has the turns user, assistant, user before its answer"):
        encoded_pairs(opened, [Conversation(talk)])
    with pytest.raises(Refused, match="1 of 1 rows have no answer"):
        encoded_pairs(opened, [Conversation((Message("user", "x"),), "7")])
    with pytest.raises(UsageError, match="answers greedily here"):
        Seq2SeqCompleter(opened.model, opened=opened).complete([Conversation((Message("user", "x"),))], Sampling(temperature=0.7))
