"""The classifier: its loss is transformers' own, padding changes nothing, what is saved opens in plain transformers and peft."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.core.errors import MygptError, Refused, UsageError
from mygpt.core.run import Run
from mygpt.data.classes import ClassesConfig, classes
from mygpt.finetune.classifier import ClassifierConfig, classifier, summed_label_loss
from mygpt.infer.torch_classifier import TorchClassifier
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.heads import open_head
from mygpt.lm.inputs import encode, padded
from tests.finetune import label_data, shapes

FAST: dict[str, Any] = {"learning_rate": 3e-3, "epochs": 2, "step_tokens": 128, "micro_batch_tokens": 128, "precision": "float32"}


@pytest.fixture
def dataset(run: Run) -> Dataset:
    return label_data.weather(label_data.Nothing(), run=run)


def base(shape: str, run: Run) -> Model:
    return shapes.base(shapes.BaseConfig(shape=shape), run=run)


def tuned(shape: str, dataset: Dataset, run: Run, **changes: Any) -> Any:
    return classifier(ClassifierConfig(**{**FAST, **changes}), model=base(shape, run), dataset=dataset, run=run)


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_loss_is_transformers_own(shape: str, dataset: Dataset, run: Run) -> None:
    """Padded on the right, in one batch; transformers takes each row alone, with `labels`."""
    opened = open_head(base(shape, run), "classifier", labels=dataset.labels, seed=3, dtype=torch.float32)
    rows = dataset.labelled("train")
    examples = [encode(opened.tokenizer, row.text) for row in rows]
    right_N = torch.tensor([dataset.labels.index(row.label) for row in rows])
    with torch.no_grad():
        ours = summed_label_loss(opened.module, padded(examples, opened.module, padding_id=0), right_N) / len(rows)
        alone = [opened.module(input_ids=torch.tensor([e.token_ids]), labels=y[None]).loss for e, y in zip(examples, right_N, strict=True)]
    assert float(ours) == pytest.approx(float(torch.stack(alone).mean()), rel=1e-5)
    assert float(torch.stack(alone).std()) > 1e-3  # rows differ, so a mix-up of rows would show


@pytest.mark.parametrize("shape", ["roberta", "t5", "llama"])
def test_every_weight_end_to_end(shape: str, dataset: Dataset, run: Run) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    made = tuned(shape, dataset, run, epochs=8)
    facts = made.manifest.facts
    assert isinstance(made, Model) and made.head == "classifier" and facts["labels"] == ["cold", "hot"]
    assert facts["curve"][-1][1] < 0.7 * facts["curve"][0][1]
    assert facts["trainable"] == facts["parameters"]
    scores = facts["held_out"]
    assert scores["rows"] == 2 and scores["most_frequent"] == 0.5
    assert facts["sentences"][0].startswith(f"Held out: accuracy {scores['accuracy']:.2f} (95 % interval ")
    plain = AutoModelForSequenceClassification.from_pretrained(made.payload, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(made.payload)
    assert plain.config.id2label == {0: "cold", 1: "hot"}
    texts = ["snow fell", "the sun stood high"]
    with torch.no_grad():
        theirs = torch.cat([plain(**tokenizer(text, return_tensors="pt")).logits.softmax(-1) for text in texts])
    ours = TorchClassifier(made, opened=open_head(made, "classifier", dtype=torch.float32)).probabilities(texts)
    assert torch.allclose(torch.tensor(ours), theirs, atol=1e-5)


@pytest.mark.parametrize("shape", ["bart", "gpt2"])
def test_adapter_opens_in_plain_peft(shape: str, dataset: Dataset, run: Run) -> None:
    """With the new head in it: it is what the base does not have."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    made = tuned(shape, dataset, run, method=LoRA(rank=2), epochs=4)
    assert isinstance(made, Adapter) and made.manifest.facts["head"] == "classifier"
    plain = AutoModelForSequenceClassification.from_pretrained(made.base.payload, num_labels=2, dtype=torch.float32)
    plain.config.pad_token_id = 0
    plain = PeftModel.from_pretrained(plain, str(made.payload)).eval()
    ours = open_head(made.base, "classifier", adapter=made, dtype=torch.float32)
    inputs = padded([encode(ours.tokenizer, text) for text in ("snow fell", "heat")], ours.module, padding_id=0)
    with torch.no_grad():
        assert torch.allclose(plain(**inputs).logits, ours.module(**inputs).logits, atol=1e-6)
    assert ours.labels == ("cold", "hot")
    assert TorchClassifier(made.base, adapter=made).classify(["snow fell"]) in (["cold"], ["hot"])


def test_micro_batches_change_nothing(dataset: Dataset, run: Run) -> None:
    curves = [tuned("llama", dataset, run, micro_batch_tokens=n).manifest.facts["curve"] for n in (128, 40, 1)]
    for other in curves[1:]:
        assert [loss for _, loss in other] == pytest.approx([loss for _, loss in curves[0]], abs=2e-4)


def test_pairs_of_texts(run: Run) -> None:
    dataset = label_data.follows(label_data.Nothing(), run=run)
    made = tuned("bert", dataset, run, epochs=2)
    assert made.manifest.facts["held_out"] is None
    assert made.manifest.facts["sentences"] == ["No held-out rows: how well it does was not measured."]
    opened = open_head(made, "classifier", dtype=torch.float32)
    example = encode(opened.tokenizer, "mill", "pond")
    assert example.segments == (0,) * 6 + (1,) * 5  # <s> mill </s> pond </s>
    found = TorchClassifier(made, opened=opened).probabilities(["mill", "mill"], ["mill", "pond"])
    assert abs(found[0] - found[1]).max() > 1e-4


def test_a_head_for_other_labels_begins_anew(dataset: Dataset, run: Run) -> None:
    notes: list[str] = []
    run.listeners.append(lambda event: notes.append(event.get("text", "")))
    made = tuned("bert", dataset, run)
    other = label_data.follows(label_data.Nothing(), run=run)
    notes.clear()
    opened = open_head(made, "classifier", labels=other.labels, seed=5, run=run, dtype=torch.float32)
    kept = open_head(made, "classifier", labels=dataset.labels, seed=5, run=run, dtype=torch.float32)
    own = open_head(made, "classifier", dtype=torch.float32).module.classifier.weight
    assert torch.equal(kept.module.classifier.weight, own)
    assert not torch.equal(opened.module.classifier.weight, own)
    assert [note for note in notes if note] == ["New in BertForSequenceClassification, drawn from the seed: classifier (66 weights)."]


def test_too_long(dataset: Dataset, run: Run) -> None:
    with pytest.raises(Refused, match=r"6 of 10 texts are longer than 11 tokens \(longest: 20\)"):
        tuned("bert", dataset, run, max_example_tokens=11)
    said: list[str] = []
    run.listeners.append(lambda event: said.append(event.get("text", "")))
    made = tuned("bert", dataset, run, max_example_tokens=11, cut_long=True)
    assert "6 of 10 texts are longer than 11 tokens and lose their end, here and in use." in said
    assert made.manifest.facts["cut_tokens"] == 11
    with pytest.raises(UsageError, match="A text of 302 tokens does not fit the classifier's window of 128"):
        TorchClassifier(made).classify(["x" * 300])
    assert TorchClassifier(made, cut_tokens=11).probabilities(["x" * 300]).shape == (1, 2)


def test_a_loss_that_is_no_number_ends_the_run(dataset: Dataset, run: Run) -> None:
    with pytest.raises(MygptError, match=r"The loss became nan.* at step 2 .*with learning rate 1e\+25"):
        tuned("gpt2", dataset, run, learning_rate=1e25)
    assert not list(run.home.glob("artifacts/model/test-*"))


def test_rows_of_another_kind(run: Run) -> None:
    with pytest.raises(UsageError, match="has rows of the schema `pairs`, and this needs `class`"):
        tuned("bert", label_data.answers(label_data.Nothing(), run=run), run)


@pytest.mark.slow
def test_the_small_encoder_learns_four_kinds_of_letters(minilm: Model, run: Run) -> None:
    """36 letters that are ours, 12 held out; naming one kind always would be right on 3."""
    folder = Path(__file__).resolve().parents[2] / "examples" / "tickets"
    dataset = classes(ClassesConfig(), source=folder / "train.jsonl", held_out=folder / "test.jsonl", run=run)
    made = classifier(ClassifierConfig(epochs=10), model=minilm, dataset=dataset, run=run)
    scores = made.manifest.facts["held_out"]
    assert scores["rows"] == 12 and scores["most_frequent"] == 0.25
    assert scores["accuracy"] >= 9 / 12
