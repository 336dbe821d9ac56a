"""A tiny classifier with random weights against transformers' own forward pass; a scorer's three answers by hand; SmolLM2 as it is."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from mygpt.artifacts.model import Model
from mygpt.core.errors import MygptError, UsageError
from mygpt.core.run import Run
from mygpt.infer.entailment import ClassifierEntailer, ScorerEntailer, nli_places
from mygpt.infer.protocols import Identity, Score
from mygpt.lm.sources import FolderConfig, from_folder
from mygpt.metrics.entailment import mutual_entailment, relation
from tests.metrics.test_similarity import COFFEE, PAIRS, TEA

PAGE = Path(__file__).resolve().parents[2] / "docs" / "evaluate" / "entailment.md"
TEXT = "mike really loves drinking tea adores sipping does not drink coffee . it is cold outside"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *TEXT.split()]
LABELS = {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}


def classifier(folder: Path, run: Run, labels: dict[int, str]) -> Model:
    """BERT's shape, a word for a token, saved as transformers saves it."""
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=64, id2label=labels, label2id={label: i for i, label in labels.items()}, initializer_range=0.5,
    )  # fmt: skip
    folder.mkdir()
    BertForSequenceClassification(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    made = from_folder(FolderConfig(name=folder.name), folder=folder, run=run)
    assert isinstance(made, Model) and made.head == "classifier"
    return made


@pytest.mark.parametrize("labels", [LABELS, {0: "entailment", 1: "neutral", 2: "contradiction"}, {0: "entailment", 1: "not_entailment"}])
def test_a_classifier_equals_transformers(labels: dict[int, str], tmp_path: Path, run: Run) -> None:
    """Pairs of different lengths in one batch against each alone and unpadded; what label is where is read from the model's own names."""
    made = classifier(tmp_path / "nli", run, labels)
    pairs = [(a.lower(), b.lower()) for a, b in (*PAIRS, *(reversed(pair) for pair in PAIRS))]
    found = ClassifierEntailer(made).entail([a for a, _ in pairs], [b for _, b in pairs])
    module = AutoModelForSequenceClassification.from_pretrained(made.payload)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(made.payload)
    place = {label.lower(): i for i, label in labels.items()}
    for (premise, hypothesis), one in zip(pairs, found, strict=True):
        with torch.no_grad():
            plain = module(**tokenizer(premise, hypothesis, return_tensors="pt")).logits[0].softmax(-1).tolist()
        assert one.entailment == pytest.approx(plain[place["entailment"]], abs=1e-6)
        contradiction = plain[place["contradiction"]] if "contradiction" in place else 0.0
        assert one.contradiction == pytest.approx(contradiction, abs=1e-6)
        assert one.neutral == pytest.approx(1 - plain[place["entailment"]] - contradiction, abs=1e-6)
    assert len({round(one.entailment, 4) for one in found}) > 6  # it does look at both texts
    assert found[0] != found[len(PAIRS)]  # and at which comes first


def test_labels_are_read_by_name() -> None:
    assert nli_places({0: "LABEL_NEUTRAL", 1: "entailment", 2: "contradiction"}, where="m") == {"entailment": [1], "contradiction": [2]}
    assert nli_places({0: "not_entailment", 1: "entailment"}, where="m") == {"entailment": [1], "contradiction": []}
    with pytest.raises(UsageError, match="m classifies texts as LABEL_0, LABEL_1: none of these is entailment"):
        nli_places({0: "LABEL_0", 1: "LABEL_1"}, where="m")


def test_a_pair_too_long_is_an_error(tmp_path: Path, run: Run) -> None:
    with pytest.raises(UsageError, match=r"A pair of 73 tokens does not fit the classifier's window of 64"):
        ClassifierEntailer(classifier(tmp_path / "nli", run, LABELS)).entail(["tea " * 40], ["tea " * 30])


class Answers:
    """Log-probabilities of yes, maybe and no; remembers what was asked."""

    def __init__(self, yes: float, maybe: float, no: float):
        self.table = {" yes": yes, " maybe": maybe, " no": no}
        self.asked: list[str] = []

    @property
    def identity(self) -> Identity:
        return {"engine": "answers"}

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        self.asked += prompts
        return [Score(self.table[c], 1, len(c)) for c in continuations]


def test_a_scorer_by_hand() -> None:
    """0.2, 0.04 and 0.16 of the model's probability are yes, maybe and no: of these three 0.5, 0.1 and 0.4."""
    scorer = Answers(math.log(0.2), math.log(0.04), math.log(0.16))
    (found,) = ScorerEntailer(scorer).entail(["A {hypothesis} fell."], ["It {premise} fell."])  # braces stay text
    assert (found.entailment, found.neutral, found.contradiction) == pytest.approx((0.5, 0.1, 0.4))
    assert scorer.asked[0].startswith("Premise: A {hypothesis} fell.\nHypothesis: It {premise} fell.\nQuestion: ")
    with pytest.raises(MygptError, match="as log-probabilities of yes, maybe and no"):
        ScorerEntailer(Answers(math.nan, -1.0, -1.0)).entail(["a"], ["b"])


def test_what_smollm2_says_is_on_the_page(smollm2: Model) -> None:
    """And it is poor: it says yes to nearly everything, and ranks the coffee pair above the tea pair as n-grams do."""
    from mygpt.infer.torch_engine import TorchEngine
    from mygpt.lm.load import load_lm

    entailer = ScorerEntailer(TorchEngine(smollm2, loaded=load_lm(smollm2, dtype=torch.float32)))
    first, second = [a for a, _ in PAIRS], [b for _, b in PAIRS]
    found = dict(zip(PAIRS, zip(entailer.entail(first, second), entailer.entail(second, first), strict=True), strict=True))
    page = PAGE.read_text(encoding="utf-8")
    for (a, b), (forward, backward) in found.items():
        row = page.partition(f"| {a} | {b} | ")[2].partition("\n")[0].split(" | ")
        assert [float(cell) for cell in row[:2]] == pytest.approx([forward.entailment, backward.entailment], abs=0.0151), (a, b)
        assert row[2] == relation(forward, backward)
    assert mutual_entailment(*found[TEA]) < mutual_entailment(*found[COFFEE])
