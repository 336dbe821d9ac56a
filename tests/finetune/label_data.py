"""Small self-written sets as artefacts: labelled texts, tagged words, pairs, raw text, prompts and answers."""

from mygpt.artifacts.dataset import (
    Conversation,
    Dataset,
    LabelledText,
    Message,
    TaggedWords,
    TextPair,
    conversation_facts,
    row_facts,
    write_conversations,
    write_labelled,
    write_pairs,
    write_tagged,
)
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.run import Run

COLD = ("snow fell", "ice held", "frost bit", "sleet came", "snow lay deep", "the ice cracked")
HOT = ("sun burned", "heat rose", "tar melted", "sand glowed", "the sun stood high", "heat lay on all")


class Nothing(Config):
    pass


@recipe
def weather(config: Nothing, *, run: Run) -> Dataset:
    rows = [
        LabelledText(text, label, id=text)
        for pair in zip(COLD, HOT, strict=True)
        for text, label in zip(pair, ("cold", "hot"), strict=True)
    ]
    splits = {"train": rows[:10], "test": rows[10:]}
    return publish(
        Dataset, run, lambda f: write_labelled(f, splits), facts=row_facts("class", splits, labels=["cold", "hot"]), name="weather"
    )


@recipe
def follows(config: Nothing, *, run: Run) -> Dataset:
    """Pairs of texts: the same word twice, or two words."""
    words = ("mill", "pond", "gate", "barn", "loft")
    rows = [LabelledText(a, "same" if a == b else "other", b) for i, a in enumerate(words) for b in (a, words[i - 1])]
    splits = {"train": rows}
    return publish(
        Dataset, run, lambda f: write_labelled(f, splits), facts=row_facts("class", splits, labels=["other", "same"]), name="follows"
    )


SENTENCES = (
    ("Ada Lund slept in Ghent", "B-PER I-PER O O B-LOC"),
    ("Oslo sent Bo home", "B-LOC O B-PER O"),
    ("Nobody left", "O O"),
    ("Mia Berg saw Ada Lund", "B-PER I-PER O B-PER I-PER"),
)


@recipe
def people(config: Nothing, *, run: Run) -> Dataset:
    rows = [TaggedWords(tuple(w.split()), tuple(t.split()), str(i)) for i, (w, t) in enumerate(SENTENCES)]
    splits = {"train": rows, "test": rows[:2]}
    labels = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    return publish(Dataset, run, lambda f: write_tagged(f, splits), facts=row_facts("tagged", splits, labels=labels), name="people")


@recipe
def answers(config: Nothing, *, run: Run) -> Dataset:
    questions = ("Who bakes?", "Who sails?", "Who digs?", "Who sings?", "Who rows?", "Who weaves?")
    named = ("The baker at the mill.", "A man from Bergen.", "Two men with spades.", "The choir.", "The crew.", "Her aunt.")
    rows = [TextPair(q, a, ("Nobody.",) if i % 2 else (), str(i)) for i, (q, a) in enumerate(zip(questions, named, strict=True))]
    splits = {"train": rows, "test": rows[:4]}
    return publish(Dataset, run, lambda f: write_pairs(f, splits), facts=row_facts("pairs", splits), name="answers")


TEXTS = ("The ferry leaves at nine.", "A bell rings twice before the ferry leaves.", "Nine bells, and the tide turns. " * 6, "Rain.")


@recipe
def prose(config: Nothing, *, run: Run) -> Dataset:
    rows = [Conversation((Message("text", text),), str(i)) for i, text in enumerate(TEXTS)]
    splits = {"train": rows, "test": rows[:2]}
    return publish(Dataset, run, lambda f: write_conversations(f, splits), facts=row_facts("text", splits), name="prose")


@recipe
def sums(config: Nothing, *, run: Run) -> Dataset:
    rows = [
        Conversation((Message("user", f"{a} and {b}?"), Message("assistant", f"{a + b}.")), f"{a}{b}") for a in range(3) for b in range(3)
    ]
    splits = {"train": rows, "test": rows[:3]}
    return publish(Dataset, run, lambda f: write_conversations(f, splits), facts=conversation_facts(splits), name="sums")
