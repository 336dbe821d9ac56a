"""A made-up corpus and dataset, published as recipes do, and a scorer that answers from a table."""

import math
from collections.abc import Sequence
from pathlib import Path

from mygpt.artifacts.corpus import Corpus, Document, Passage, Skipped, Span, write_corpus
from mygpt.artifacts.dataset import Conversation, Dataset, Dropped, Message, conversation_facts, write_conversations
from mygpt.artifacts.model import Adapter
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.infer.protocols import Identity, Score

HELD_OUT_TEXT = "Nobody trains on the museum. It opens at nine."


class MadeUpConfig(Config):
    num_items: int = 30


@recipe
def made_up_corpus(config: MadeUpConfig, *, run: Run) -> Corpus:
    read = []
    for name, text in (("studied", "The pump runs at 40 bar."), ("held-out", HELD_OUT_TEXT)):
        document = Document(name, f"{name}.md", text, name, "text/markdown", "0" * 64, len(text))
        read.append((document, [Passage(f"{name}-0", Span(name, 0, len(text)), text, name, f"{name}.md")]))
    skipped = [Skipped("<script>alert(1)</script>.pdf", "encrypted", "A password is needed.", "Remove it.")]
    return publish(Corpus, run, lambda folder: write_corpus(folder, read, skipped))


@recipe
def made_up_dataset(config: MadeUpConfig, *, run: Run) -> Dataset:
    splits = {
        "train": [pair(f"train-{i}", f"What is train fact {i}?", f"Train fact {i} is {i} bar.", "studied") for i in range(12)],
        "knowledge": [pair(f"k-{i}", f"What is fact {i}?", f"Fact {i} is {i} bar", "studied") for i in range(config.num_items)],
        "generalisation": [
            pair(f"g-{i}", f"What is rule {i}?", f"Rule {i} is {i} hours", "held-out") for i in range(config.num_items // 2)
        ],
    }
    dropped = [Dropped("not grounded", splits["train"][0])] * 3 + [Dropped("duplicate", splits["train"][1])]
    facts = {**conversation_facts(splits, dropped), "held_out_documents": ["held-out"]}
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits, dropped), facts=facts)


@recipe
def made_up_adapter(config: MadeUpConfig, *, dataset: Dataset, run: Run) -> Adapter:
    def write(folder: Path) -> None:
        (folder / "adapter_config.json").write_text("{}")

    facts = {"method": "lora", "trainable": 1234, "curve": [[1, 2.5], [2, 1.75], [3, 1.5]], "tokens_per_second": 431.0}
    return publish(Adapter, run, write, facts=facts)


def pair(name: str, question: str, answer: str, document: str) -> Conversation:
    messages = (Message("user", question), Message("assistant", answer))
    return Conversation(messages, name, (Span(document, 0, 10),), {"passage": f"passage-{name}"})


class TableScorer:
    """Every text costs the same bits per byte; texts named in `dearer` cost more."""

    def __init__(self, bits_per_byte: float, dearer: dict[str, float] | None = None):
        self._bits, self._dearer = bits_per_byte, dearer or {}

    @property
    def identity(self) -> Identity:
        return {"engine": "table", "bits": self._bits, "dearer": self._dearer}

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        assert all(prompt == "" for prompt in prompts)
        sizes = [len(text.encode()) for text in continuations]
        bits = [self._dearer.get(text, self._bits) for text in continuations]
        return [Score(-b * n * math.log(2), n // 4, n) for b, n in zip(bits, sizes, strict=True)]
