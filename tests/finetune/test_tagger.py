"""The tagger: labels on first tokens, the loss of transformers, entities decoded as valid BIO, what is saved opens elsewhere."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from mygpt.artifacts.dataset import Dataset, TaggedWords
from mygpt.artifacts.model import Adapter, Model
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.finetune.tagger import TaggerConfig, tagger, token_labels
from mygpt.infer.torch_tagger import TorchTagger, follows, likeliest_tags
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.heads import open_head
from mygpt.lm.inputs import encode_words, padded
from mygpt.metrics.span_f1 import EntitySpan
from mygpt.training.label_losses import NO_LABEL, summed_token_loss
from tests.finetune import label_data, shapes
from tests.finetune.conftest import Killed

FAST: dict[str, Any] = {"learning_rate": 3e-3, "epochs": 2, "step_tokens": 64, "micro_batch_tokens": 64, "precision": "float32"}
LABELS = ("O", "B-X", "I-X", "B-Y", "I-Y")


@pytest.fixture
def dataset(run: Run) -> Dataset:
    return label_data.people(label_data.Nothing(), run=run)


def base(shape: str, run: Run) -> Model:
    return shapes.base(shapes.BaseConfig(shape=shape), run=run)


def tuned(shape: str, dataset: Dataset, run: Run, **changes: Any) -> Any:
    return tagger(TaggerConfig(**{**FAST, **changes}), model=base(shape, run), dataset=dataset, run=run)


def test_labels_stand_on_first_tokens_by_hand() -> None:
    """<s> A d a _ w e n t </s>: one byte a token, the space belongs to no word."""
    example, firsts = encode_words(shapes.byte_tokenizer("bert"), ["Ada", "went"])
    assert firsts == [1, 5] and len(example) == 10
    row = TaggedWords(("Ada", "went"), ("B-X", "O"))
    assert token_labels(row, firsts, len(example), LABELS) == [NO_LABEL, 1, *[NO_LABEL] * 3, 0, *[NO_LABEL] * 4]


def test_words_found_as_tokenizers_of_words_find_them(minilm: Model, smollm2: Model) -> None:
    """transformers' own word numbers are the reference, for WordPiece and for byte-level BPE; an accent, a special spelling, an emoji."""
    from mygpt.lm.load import load_tokenizer

    words = ["Überlingen", "isn't", "far", "[SEP]", "</s>", "🚢", "unbelievably", "x"]
    wordpiece = load_tokenizer(minilm)
    given = wordpiece(words, is_split_into_words=True, split_special_tokens=True)
    assert encode_words(wordpiece, words)[1] == [given.word_ids().index(i) for i in range(len(words))]
    bpe = load_tokenizer(smollm2)
    example, firsts = encode_words(bpe, words)
    pieces = [
        bpe.encode(("" if i == 0 else " ") + word, add_special_tokens=False, split_special_tokens=True) for i, word in enumerate(words)
    ]
    assert list(example.token_ids) == [token for piece in pieces for token in piece]
    assert firsts == [sum(map(len, pieces[:i])) for i in range(len(words))]


@pytest.mark.parametrize("shape", ["bert", "roberta", "t5", "llama", "gpt2"])
def test_loss_is_transformers_own(shape: str, dataset: Dataset, run: Run) -> None:
    opened = open_head(base(shape, run), "tagger", labels=dataset.labels, seed=3, dtype=torch.float32)
    rows = dataset.tagged("train")
    encoded = [encode_words(opened.tokenizer, row.words) for row in rows]
    labels = [token_labels(row, firsts, len(e), dataset.labels) for row, (e, firsts) in zip(rows, encoded, strict=True)]
    num_words = [len(row.words) for row in rows]
    with torch.no_grad():
        ours = summed_token_loss(opened.module, padded([e for e, _ in encoded], opened.module, padding_id=0), labels) / sum(num_words)
        alone = [
            opened.module(input_ids=torch.tensor([e.token_ids]), labels=torch.tensor([right])).loss * n
            for (e, _), right, n in zip(encoded, labels, num_words, strict=True)
        ]
    assert float(ours) == pytest.approx(float(sum(alone)) / sum(num_words), rel=1e-5)


def test_no_such_class_in_transformers(dataset: Dataset, run: Run) -> None:
    with pytest.raises(Refused, match=r"tiny-bart-\w+ \(BartForConditionalGeneration\) has no tagger head in transformers"):
        tuned("bart", dataset, run)


def test_every_weight_end_to_end(dataset: Dataset, run: Run) -> None:
    """Learnt by heart: the entities of both held-out texts, which were learnt, are all found."""
    from transformers import AutoModelForTokenClassification

    made = tuned("bert", dataset, run, epochs=30)
    facts = made.manifest.facts
    assert isinstance(made, Model) and made.head == "tagger" and facts["labels"] == list(dataset.labels)
    assert facts["held_out"] == {"rows": 2, "span_f1": 1.0, "precision": 1.0, "recall": 1.0, "span_f1_by_kind": {"LOC": 1.0, "PER": 1.0}}
    found = TorchTagger(made).entities([["Oslo", "sent", "Bo", "home"]])
    assert found == [[EntitySpan("LOC", 0, 1), EntitySpan("PER", 2, 3)]]
    plain = AutoModelForTokenClassification.from_pretrained(made.payload, dtype=torch.float32).eval()
    example, firsts = encode_words(shapes.byte_tokenizer("bert"), ["Oslo", "sent", "Bo", "home"])
    with torch.no_grad():
        named = plain(input_ids=torch.tensor([example.token_ids])).logits[0].argmax(-1)
    assert [plain.config.id2label[int(named[i or 0])] for i in firsts] == ["B-LOC", "O", "B-PER", "O"]


def test_adapter(dataset: Dataset, run: Run) -> None:
    made = tuned("llama", dataset, run, method=LoRA(rank=2), epochs=4)
    assert isinstance(made, Adapter) and made.manifest.facts["head"] == "tagger"
    assert [len(tags) for tags in TorchTagger(made.base, adapter=made).tag([["Oslo", "sent", "Bo"], []])] == [3, 0]


def test_killed_and_resumed_is_uninterrupted(dataset: Dataset, run: Run, killed_at: Callable[..., Run]) -> None:
    whole = tuned("gpt2", dataset, run, checkpoint_seconds=0)
    with pytest.raises(Killed):
        tuned("gpt2", dataset, killed_at(3), checkpoint_seconds=0)
    assert tuned("gpt2", dataset, killed_at(0), checkpoint_seconds=0).manifest.content == whole.manifest.content


def test_micro_batches_change_nothing(dataset: Dataset, run: Run) -> None:
    curves = [tuned("roberta", dataset, run, micro_batch_tokens=n).manifest.facts["curve"] for n in (64, 1)]
    assert [loss for _, loss in curves[1]] == pytest.approx([loss for _, loss in curves[0]], abs=2e-4)


def test_decoding_by_hand() -> None:
    """Word by word the likeliest are O, I-X: not valid. Of the valid ones B-X I-X has 0.3 x 0.7 = 0.21, O O only 0.5 x 0.1 = 0.05."""
    scores_WL = np.log(np.array([[0.5, 0.3, 0.1, 0.05, 0.05], [0.1, 0.1, 0.7, 0.05, 0.05]]))
    assert likeliest_tags(scores_WL, LABELS) == ["B-X", "I-X"]
    assert likeliest_tags(scores_WL[1:], LABELS) == ["O"]  # the first of two equal ones, 0.1 each
    assert likeliest_tags(scores_WL[:0], LABELS) == []


def test_decoding_is_the_best_of_all_valid_ones() -> None:
    draw = np.random.default_rng(0)
    for _ in range(20):
        scores_WL = draw.normal(size=(4, 5)) * 2
        valid = [p for p in product(range(5), repeat=4) if all(follows(LABELS[b], LABELS[a]) for a, b in zip((0, *p), p, strict=False))]
        best = max(valid, key=lambda p: sum(scores_WL[i, label] for i, label in enumerate(p)))
        assert likeliest_tags(scores_WL, LABELS) == [LABELS[i] for i in best]
