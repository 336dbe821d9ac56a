"""Spans, rates, exposure and membership by hand, on completers that repeat and scorers that answer from a table."""

import math
import string
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mygpt.artifacts.dataset import (
    Conversation,
    Dataset,
    Message,
    Preference,
    conversation_facts,
    preference_facts,
    row_facts,
    write_conversations,
    write_preferences,
)
from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.memorisation import (
    MemorisationConfig,
    edit_similarity,
    longest_common_prefix,
    longest_common_span,
    memorisation,
    summarise,
)
from mygpt.infer.protocols import Identity, Sampling, Score
from mygpt.infer.scripted import ScriptedCompleter
from mygpt.infer.torch_engine import TorchEngine
from tests.infer.tiny_models import byte_tokenizer, engine_of, tiny_module

LONG = "one two three four five six seven eight nine ten eleven twelve"
TRAINED = {"Who?": "The keeper of the lamp, since May.", "Count.": LONG, "Where?": "On the north pier, by the stairs."}
HELD_OUT = {"When?": "At nine on weekdays.", "Why?": "For the light."}
REPLIES = {
    "Who?": "The keeper of the lamp, since May.",  # word for word
    "Count.": "one two three and so on",
    "Where?": "",  # a model that says nothing
    "one two three four five": "six seven eight nine ten and more",  # the prefix is continued exactly
    "When?": "At ten on weekdays.",
    "Why?": "Because of the light.",
}
SMALL = MemorisationConfig(prompt_tokens=5, target_tokens=5, copied_words=3, novelty_words=(2, 3), novelty_characters=(13, 14))


class RowsConfig(Config):
    trained: dict[str, str] = TRAINED


@recipe
def rows(config: RowsConfig, *, run: Run) -> Dataset:
    splits = {"train": _conversations(config.trained), "generalisation": _conversations(HELD_OUT)}
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=conversation_facts(splits))


def _conversations(pairs: dict[str, str]) -> list[Conversation]:
    return [Conversation((Message("user", q), Message("assistant", a)), id=f"row {q}") for q, a in pairs.items()]


class LossTable:
    """Nats per token by continuation, or by the prompt's last line and the continuation."""

    def __init__(self, losses: dict[str, float], other: float = 5.0):
        self._losses, self._other = losses, other

    @property
    def identity(self) -> Identity:
        return {"engine": "loss table", "losses": {k: str(v) for k, v in self._losses.items()}}

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        whole = [p.rpartition("\n")[2] + c for p, c in zip(prompts, continuations, strict=True)]
        return [Score(-self._losses.get(text, self._other) * 4, 4, len(text.encode())) for text in whole]


LOSSES = {TRAINED["Who?"]: 1.0, LONG: 2.0, TRAINED["Where?"]: 3.0, HELD_OUT["When?"]: 2.5, HELD_OUT["Why?"]: 4.0}


def test_by_hand(run: Run) -> None:
    completer = ScriptedCompleter(lambda c: REPLIES[c.raw_text or c.question])
    made = memorisation(SMALL, dataset=rows(RowsConfig(), run=run), completer=completer, scorer=LossTable(LOSSES), run=run)
    found = {row["item_id"]: row for row in made.rows}
    asked = ["Who?/answer", "Count./answer", "Count./prefix", "Where?/answer", "When?/answer", "Why?/answer"]
    assert list(found) == [f"row {name}" for name in asked]
    who, prefix, where, when = (found[f"row {name}"] for name in ("Who?/answer", "Count./prefix", "Where?/answer", "When?/answer"))
    # five words are the target: "The keeper of the lamp,"; the answer goes on with two more
    assert (who["reference"], who["verbatim"], who["longest_common_tokens"], who["longest_common_characters"]) == (
        "The keeper of the lamp,",
        True,
        5,
        23,
    )
    assert (who["edit_similarity"], who["copied_share"], who["loss"]) == (pytest.approx(5 / 7), 1.0, 1.0)
    assert (prefix["question"], prefix["reference"], prefix["verbatim"]) == ("one two three four five", "six seven eight nine ten", True)
    assert (prefix["copied_share"], prefix["loss"]) == (5 / 7, None)
    assert (where["verbatim"], where["longest_common_tokens"], where["edit_similarity"], where["copied_share"]) == (False, 0, 0.0, 0.0)
    assert [found[f"row {name}"]["common_prefix_tokens"] for name in asked] == [5, 3, 5, 0, 1, 0]  # "one two three and"
    assert (when["member"], when["verbatim"], when["longest_common_tokens"], when["edit_similarity"]) == (False, False, 2, 0.75)

    assert [row["extracted"] for row in made.rows] == [1.0, 0.0, 1.0, 0.0, None, None]  # of others: no score, so no part of the figure

    told = summarise(made)
    assert told.members.num_prefixes == 1 and told.members.extracted and told.members.extracted.estimate == 1.0
    assert told.members.reproduced and told.members.reproduced.estimate == pytest.approx(1 / 3)
    assert told.members.copied_share and told.members.copied_share.estimate == pytest.approx((1 + 1 / 2 + 0) / 3)  # "one two three" of 6
    assert told.members.longest_span and told.members.longest_span.estimate == pytest.approx((5 + 3 + 0) / 3)
    assert told.members.common_prefix and told.members.common_prefix.estimate == pytest.approx((5 + 3 + 0) / 3)
    # "one two three and so on": three of six words are new; what is word for word is not; what says nothing is left out
    assert [row["novelty_2"] for row in (who, found["row Count./answer"], where)] == [0.0, 0.5, None]
    assert {n: one.estimate for n, one in told.members.novelty.items()} == {2: 0.25, 3: 0.25}
    # of its 23 characters "one two three" and the space behind are in the training text: 14 in a row, and no run of 15
    count = found["row Count./answer"]
    assert (count["novelty_13_characters"], count["novelty_14_characters"]) == (pytest.approx(9 / 23), pytest.approx(9 / 23))
    assert (who["novelty_13_characters"], where["novelty_13_characters"]) == (0.0, None)
    assert told.members.novelty_characters[14].estimate == pytest.approx((0 + 9 / 23) / 2)
    fifteen = memorisation(
        SMALL.model_copy(update={"novelty_characters": (15,)}),
        dataset=rows(RowsConfig(), run=run),
        completer=completer,
        scorer=LossTable(LOSSES),
        run=run,
    )
    assert {row["item_id"]: row["novelty_15_characters"] for row in fifteen.rows}["row Count./answer"] == 1.0
    assert (told.members.longest_span_of_all, told.others.longest_span_of_all) == (5, 2)
    assert told.others.extracted is None and told.others.reproduced and told.others.reproduced.estimate == 0.0
    assert told.loss_auc and told.loss_auc.estimate == pytest.approx(5 / 6)  # of 3 x 2 pairs only 3.0 against 2.5 is out of order


def test_the_words_may_be_a_tokenizers_tokens(run: Run, smollm2: Model) -> None:
    """The same text at 50 + 50 tokens of SmolLM2; the reply goes on as trained, or changes one token near the end."""
    from mygpt.lm.load import load_tokenizer

    text = " ".join(f"{word}," for word in (LONG + " " + LONG.upper()).split() * 3)
    ids = load_tokenizer(smollm2)(text)["input_ids"]
    first, then = (load_tokenizer(smollm2).decode(part) for part in (ids[:50], ids[50:100]))
    dataset = rows(RowsConfig(trained={"Count.": text}), run=run)
    for said, expected in ((then, True), (then[:-3] + "xyz", False)):
        completer = ScriptedCompleter(lambda c, said=said: said if c.raw_text == first else "no", name=said)
        made = memorisation(
            MemorisationConfig(), dataset=dataset, completer=completer, scorer=LossTable(LOSSES), tokenizer=smollm2, run=run
        )
        (row,) = [row for row in made.rows if row["form"] == "prefix"]
        assert (row["question"], row["reference"], row["verbatim"]) == (first, then.strip(), expected)


def test_tokens_are_the_completers_own_where_it_has_them(run: Run) -> None:
    """Bytes, of a tiny model: its own greedy text planted as training text is extracted from raw text, 6 bytes from 5, and a changed one
    is not. Through a chat template the model goes on otherwise."""
    module = tiny_module("llama")
    with torch.no_grad():  # only letters are ever likely, so that its text is text
        head = torch.nn.Linear(32, 259)
        head.weight.copy_(module.get_output_embeddings().weight)
        head.bias.copy_(torch.tensor([0.0 if chr_ in string.ascii_letters else -1e4 for chr_ in _characters()]))
    module.set_output_embeddings(head)
    engine = engine_of(module)
    start = "ferry"
    (made,) = engine.complete([Conversation((Message("text", start),))], Sampling(max_tokens=6))
    other = made.text[:-1] + ("x" if made.text[-1] != "x" else "y")
    trained = {"Own?": start + made.text, "Other?": start + other}
    config = MemorisationConfig(prompt_tokens=5, target_tokens=6, copied_words=3)
    completer = Named(engine)
    predictions = memorisation(
        config, dataset=rows(RowsConfig(trained=trained), run=run), completer=completer, scorer=LossTable({}), run=run
    )
    prefixes = {row["item_id"]: row for row in predictions.rows if row["form"] == "prefix" and row["member"]}
    assert {name: row["extracted"] for name, row in prefixes.items()} == {"row Own?/prefix": True, "row Other?/prefix": False}
    assert [row["common_prefix_tokens"] for row in prefixes.values()] == [6, 5]
    assert predictions.manifest.facts["tokens"] == "the completer's"
    through_the_template = engine.complete([Conversation((Message("user", start),))], Sampling(max_tokens=6))[0].text
    assert through_the_template != made.text


def _characters() -> list[str]:
    tokenizer = byte_tokenizer()
    return [tokenizer.decode([i]) for i in range(259)]


class Named:
    """A tiny engine, whose model is no artefact."""

    def __init__(self, engine: TorchEngine):
        self.identity, self.complete, self.loaded = {"engine": "tiny"}, engine.complete, engine.loaded


def test_a_loss_that_is_no_number_is_said_and_left_out(run: Run) -> None:
    said: list[str] = []
    run.listeners.append(lambda event: said.append(event.get("text", "")))
    scorer = LossTable({**LOSSES, LONG: math.nan})
    completer = ScriptedCompleter(lambda c: REPLIES[c.raw_text or c.question])
    made = memorisation(SMALL, dataset=rows(RowsConfig(), run=run), completer=completer, scorer=scorer, run=run)
    assert any(text.startswith("1 of 5 rows have a loss that is not a number") for text in said)
    told = summarise(made)
    assert told.loss_auc and told.loss_auc.estimate == pytest.approx(3 / 4)


def test_a_dataset_without_the_split_is_refused(run: Run) -> None:
    completer = ScriptedCompleter(lambda c: "")
    with pytest.raises(UsageError, match="no rows in the split `learnt`"):
        config = MemorisationConfig(members="learnt")
        memorisation(config, dataset=rows(RowsConfig(), run=run), completer=completer, scorer=LossTable({}), run=run)


class OtherRowsConfig(Config):
    schema_: str


@recipe
def other_rows(config: OtherRowsConfig, *, run: Run) -> Dataset:
    """The trained pairs as preferences, each answer preferred to two others, or the long answer alone as raw text."""
    if config.schema_ == "preference":
        rejected = [(q, a, other) for q, a in TRAINED.items() for other in ("No idea.", "Ask again.")]
        pairs = [Preference((Message("user", q),), a, other, id=f"{q} {other}") for q, a, other in rejected]
        splits = {"train": pairs}
        return publish(Dataset, run, lambda folder: write_preferences(folder, splits), facts=preference_facts(splits))
    texts = {name: [Conversation((Message("text", text),), id=text[:3])] for name, text in (("train", LONG), ("generalisation", "Soon."))}
    return publish(Dataset, run, lambda folder: write_conversations(folder, texts), facts=row_facts("text", texts))


def test_preferred_answers_and_raw_texts_are_asked_for_too(run: Run) -> None:
    completer = ScriptedCompleter(lambda c: REPLIES[c.raw_text or c.question])
    preferred = other_rows(OtherRowsConfig(schema_="preference"), run=run)
    made = memorisation(SMALL, dataset=preferred, completer=completer, scorer=LossTable(LOSSES), run=run)
    asked = [(row["question"], row["form"], row["verbatim"]) for row in made.rows]
    one_two = "one two three four five"
    assert asked == [("Who?", "answer", True), ("Count.", "answer", False), (one_two, "prefix", True), ("Where?", "answer", False)]
    raw = other_rows(OtherRowsConfig(schema_="text"), run=run)
    made = memorisation(SMALL, dataset=raw, completer=completer, scorer=LossTable({LONG: 2.0}), run=run)
    assert [(row["item_id"], row["question"], row["extracted"], row["loss"]) for row in made.rows] == [("one/prefix", one_two, 1.0, 2.0)]


# -- spans ----------------------------------------------------------------------------------------------------------------


def test_spans_by_hand() -> None:
    assert longest_common_prefix("harbour", "harvest") == 3
    assert longest_common_prefix([1, 2], [1, 2, 3]) == 2
    assert longest_common_prefix("a", "b") == longest_common_prefix("", "b") == 0
    assert longest_common_span("the harbour bell", "a harbour wall") == len(" harbour ")
    assert longest_common_span("abc", "") == longest_common_span("", "") == longest_common_span("ab", "cd") == 0
    assert edit_similarity("kitten", "sitting") == pytest.approx(1 - 3 / 7)  # Levenshtein's own pair: 3 edits
    assert (edit_similarity("", ""), edit_similarity("abc", ""), edit_similarity("", "abc")) == (1.0, 0.0, 0.0)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text("ab c", max_size=12), st.text("ab c", max_size=12))
def test_spans_against_plain_python(a: str, b: str) -> None:
    def distance(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        row = list(range(len(b) + 1))
        for i, x in enumerate(a, 1):
            row, above = [i], row
            for j, y in enumerate(b, 1):
                row.append(min(row[-1] + 1, above[j] + 1, above[j - 1] + (x != y)))
        return row[-1]

    parts = [a[i:j] for i in range(len(a)) for j in range(i + 1, len(a) + 1)]
    assert longest_common_span(a, b) == max((len(part) for part in parts if part in b), default=0)
    assert edit_similarity(a, b) == pytest.approx(1 - distance(a, b) / max(len(a), len(b), 1))
