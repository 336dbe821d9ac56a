"""Which head a checkpoint has, which it can be opened with, and what is new in it."""

import json
from pathlib import Path

import pytest
import torch

from mygpt.artifacts.model import Model
from mygpt.core.errors import Refused, UsageError
from mygpt.core.run import Run
from mygpt.finetune.classifier import ClassifierConfig, classifier
from mygpt.lm.adapters import methods
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.adapters.prompt import Prompt
from mygpt.lm.checkpoint import facts_of
from mygpt.lm.heads import HEADS, open_head, whole_modules
from mygpt.lm.inputs import encode, padded, window_tokens
from tests.finetune import label_data, shapes

ALLOWED = {
    "bert": {"masked_lm", "classifier", "tagger", "embedder"},
    "roberta": {"masked_lm", "classifier", "tagger", "embedder"},
    "t5": {"seq2seq_lm", "classifier", "tagger"},
    "bart": {"seq2seq_lm", "classifier"},
    "llama": {"lm", "classifier", "reward", "tagger", "embedder"},
    "gpt2": {"lm", "classifier", "reward", "tagger", "embedder"},
}


def base(shape: str, run: Run, head: str = "") -> Model:
    return shapes.base(shapes.BaseConfig(shape=shape, head=head), run=run)


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_every_head_of_every_shape(shape: str, run: Run) -> None:
    model = base(shape, run)
    for head in HEADS:
        labels = ("a", "b", "c") if head in ("classifier", "tagger") else ()
        if head in ALLOWED[shape]:
            opened = open_head(model, head, labels=labels, dtype=torch.float32)
            assert opened.labels == labels or not labels
            assert not opened.module.training
        else:
            with pytest.raises((Refused, UsageError), match=r"has no \w+ head in transformers|needs a language model"):
                open_head(model, head, labels=labels)


@pytest.mark.parametrize(
    ("architecture", "head"),
    [
        ("LlamaForCausalLM", "lm"),
        ("GPT2LMHeadModel", "lm"),
        ("Gemma3ForConditionalGeneration", "lm"),  # reads images too; no encoder-decoder
        ("T5ForConditionalGeneration", "seq2seq_lm"),
        ("BertForMaskedLM", "masked_lm"),
        ("BertForPreTraining", "masked_lm"),
        ("BartForSequenceClassification", "classifier"),
        ("BertForTokenClassification", "tagger"),
        ("BertModel", "embedder"),
    ],
)
def test_head_of_a_checkpoint(architecture: str, head: str, tmp_path: Path) -> None:
    config = {"architectures": [architecture], "is_encoder_decoder": architecture.startswith(("T5", "Bart"))}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert facts_of(tmp_path)["head"] == head


def test_a_new_head_depends_on_the_seed_and_is_said(run: Run) -> None:
    model, notes = base("gpt2", run), list[str]()
    run.listeners.append(lambda event: notes.append(event["text"]) if event["event"] == "note" else None)
    first, again, other = (
        open_head(model, "classifier", labels=("a", "b"), seed=seed, run=run, dtype=torch.float32).module.score.weight for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert notes == ["New in GPT2ForSequenceClassification, drawn from the seed: score (64 weights)."] * 3
    assert float(first.detach().std()) == pytest.approx(0.2, rel=0.3)  # as the architecture draws: initializer_range


def test_whole_modules_by_hand() -> None:
    module = torch.nn.ModuleDict({"a": torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)), "b": torch.nn.Linear(1, 1)})
    assert whole_modules(module, ["a.0.weight", "a.0.bias", "a.1.weight", "a.1.bias", "b.weight"]) == ["a"]
    assert whole_modules(module, ["a.1.weight", "a.1.bias"]) == ["a.1"]


def test_a_checkpoint_with_a_hole(run: Run, tmp_path: Path) -> None:
    """One bias of the model itself is missing: that is no new head."""
    from safetensors.torch import load_file, save_file

    from mygpt.lm.sources import FolderConfig, from_folder

    folder = tmp_path / "hole"
    shapes.tiny_module("bert", "masked_lm").save_pretrained(folder)
    shapes.byte_tokenizer("bert").save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if name != "bert.encoder.layer.1.output.dense.bias"}
    assert len(kept) == len(weights) - 1
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    model = from_folder(FolderConfig(name="hole"), folder=folder, run=run)
    with pytest.raises(
        Refused, match=r"lacks 1 weights of BertForSequenceClassification itself \(first: bert.encoder.layer.1.output.dense.bias\)"
    ):
        open_head(model, "classifier", labels=("a", "b"))


def test_an_adapter_of_another_base_or_head(run: Run) -> None:
    data = label_data.weather(label_data.Nothing(), run=run)
    config = ClassifierConfig(method=LoRA(rank=2), epochs=1, precision="float32")
    made = classifier(config, model=base("bert", run), dataset=data, run=run)
    with pytest.raises(UsageError, match=rf"{made.id} was trained on {made.manifest.facts['base'][:12]}, not on model/tiny-roberta"):
        open_head(base("roberta", run), "classifier", adapter=made)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=f"{made.id} has the head `classifier`, not `tagger`"):
        open_head(base("bert", run), "tagger", adapter=made)  # type: ignore[arg-type]


def test_window(run: Run) -> None:
    """RoBERTa's table of 129 places begins after the padding id (0 here, so one is lost); T5 has no table."""
    windows = {shape: window_tokens(shapes.tiny_module(shape, shapes.OWN_HEAD[shape])) for shape in ("bert", "roberta", "t5", "gpt2")}
    assert windows == {"bert": 128, "roberta": 128, "t5": None, "gpt2": 128}
    roberta = shapes.tiny_module("roberta", "masked_lm")
    tokens = torch.full((1, 128), 20)
    roberta(input_ids=tokens)
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        roberta(input_ids=torch.full((1, 129), 20))


def test_virtual_tokens_take_places_of_the_window(run: Run) -> None:
    opened = open_head(base("bert", run), "classifier", labels=("a", "b"), dtype=torch.float32)
    module = methods.attach(opened.module, Prompt(num_tokens=5), tokenizer=opened.tokenizer, new=opened.new)
    assert window_tokens(module) == 128 - 5
    module(input_ids=torch.full((1, 123), 20), attention_mask=torch.ones(1, 123).long())
    with pytest.raises((IndexError, RuntimeError)):
        module(input_ids=torch.full((1, 124), 20), attention_mask=torch.ones(1, 124).long())


def test_what_is_new_is_trained_whole(run: Run) -> None:
    """A checkpoint made for masks has no pooler, and LoRA stands neither on it nor on the head: both move with every weight."""
    opened = open_head(base("bert", run), "classifier", labels=("a", "b"), dtype=torch.float32)
    assert opened.new == ("bert.pooler", "classifier")
    module = methods.attach(opened.module, LoRA(rank=2), tokenizer=opened.tokenizer, new=opened.new)
    trained = [name for name, p in module.named_parameters() if p.requires_grad]
    assert sum("modules_to_save" in name for name in trained) == 4  # weight and bias of each
    assert not [name for name in trained if "lora" in name and ("pooler" in name or "classifier" in name)]


def test_segments_only_where_they_are_told_apart(run: Run) -> None:
    bert, roberta = (open_head(base(shape, run), "classifier", labels=("a", "b"), dtype=torch.float32) for shape in ("bert", "roberta"))
    assert set(padded([encode(bert.tokenizer, "x", "y")], bert.module, padding_id=0)) == {"input_ids", "attention_mask", "token_type_ids"}
    assert set(padded([encode(roberta.tokenizer, "x", "y")], roberta.module, padding_id=0)) == {"input_ids", "attention_mask"}
    assert encode(shapes.byte_tokenizer("gpt2"), "").token_ids == (2,)  # something has to be read
    special = encode(bert.tokenizer, "x</s>")
    assert special.token_ids[-1] == 2 and 2 not in special.token_ids[:-1]  # its spelling in a text stays text
