"""Spans, rates, exposure and membership by hand, on completers that repeat and scorers that answer from a table."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mygpt.artifacts.dataset import Conversation, Dataset, Message, conversation_facts, write_conversations
from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.memorisation import (
    MemorisationConfig,
    edit_similarity,
    longest_common_span,
    memorisation,
    summarise,
)
from mygpt.infer.protocols import Identity, Score
from mygpt.infer.scripted import ScriptedCompleter

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
SMALL = MemorisationConfig(prompt_tokens=5, target_tokens=5, copied_words=3)


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
    completer = ScriptedCompleter(lambda c: REPLIES[c.question])
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
    assert (when["member"], when["verbatim"], when["longest_common_tokens"], when["edit_similarity"]) == (False, False, 2, 0.75)

    assert [row["extracted"] for row in made.rows] == [1.0, 0.0, 1.0, 0.0, None, None]  # of others: no score, so no part of the figure

    told = summarise(made)
    assert told.members.num_prefixes == 1 and told.members.extracted and told.members.extracted.estimate == 1.0
    assert told.members.reproduced and told.members.reproduced.estimate == pytest.approx(1 / 3)
    assert told.members.copied_share and told.members.copied_share.estimate == pytest.approx((1 + 1 / 2 + 0) / 3)  # "one two three" of 6
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
        completer = ScriptedCompleter(lambda c, said=said: said if c.question == first else "no", name=said)
        made = memorisation(
            MemorisationConfig(), dataset=dataset, completer=completer, scorer=LossTable(LOSSES), tokenizer=smollm2, run=run
        )
        (row,) = [row for row in made.rows if row["form"] == "prefix"]
        assert (row["question"], row["reference"], row["verbatim"]) == (first, then.strip(), expected)


def test_a_loss_that_is_no_number_is_said_and_left_out(run: Run) -> None:
    said: list[str] = []
    run.listeners.append(lambda event: said.append(event.get("text", "")))
    scorer = LossTable({**LOSSES, LONG: math.nan})
    completer = ScriptedCompleter(lambda c: REPLIES[c.question])
    made = memorisation(SMALL, dataset=rows(RowsConfig(), run=run), completer=completer, scorer=scorer, run=run)
    assert any(text.startswith("1 of 5 rows have a loss that is not a number") for text in said)
    told = summarise(made)
    assert told.loss_auc and told.loss_auc.estimate == pytest.approx(3 / 4)


def test_a_dataset_without_the_split_is_refused(run: Run) -> None:
    completer = ScriptedCompleter(lambda c: "")
    with pytest.raises(UsageError, match="no rows in the split `learnt`"):
        config = MemorisationConfig(members="learnt")
        memorisation(config, dataset=rows(RowsConfig(), run=run), completer=completer, scorer=LossTable({}), run=run)


# -- spans ----------------------------------------------------------------------------------------------------------------


def test_spans_by_hand() -> None:
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
