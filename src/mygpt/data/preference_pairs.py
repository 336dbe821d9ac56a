"""Preference pairs of somebody else's files as a Dataset of the schema `preference`: two answers to one prompt, the better one named.

    hh-rlhf            `chosen` and `rejected` are whole dialogues as text: "\\n\\nHuman: ...\\n\\nAssistant: ..."
    trl, UltraFeedback `chosen` and `rejected` are texts, or lists of messages with or without the prompt's; `prompt` is a text or a list
                       of messages, and may be missing where both lists hold it

The prompt is what both dialogues share, the answers are their last turns. A row that cannot be read so, or of which nothing could be
learnt, is dropped, and kept beside the others with its reason. Where a row has scores, the chosen answer must have the higher one; how
much higher is the fact `score_margin`. A whole number in the column `margin`, a grade of the preference, is the row's own margin. Every row
names its file and the number of its row there.

Held out are whole dialogues by their first question: the later turns of one stand in several rows, and would tell the model the test.

Source: Bai et al. 2022, arXiv:2204.05862 (the files' form); Cui et al. 2023, arXiv:2310.01377 (scores)
We differ: rows whose dialogues part before the last answer are dropped, not cut where their characters part
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from mygpt.artifacts.dataset import Conversation, Dataset, Dropped, Message, Preference, preference_facts, write_preferences
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.rows import Row, read_rows
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.data.row_splits import opening, train_and_test

_TURN = re.compile(r"(?:^|\n\n)\s*(Human|Assistant):")
_ROLES: Mapping[str, Any] = {"Human": "user", "Assistant": "assistant", **{r: r for r in ("system", "user", "assistant", "tool")}}


class PreferencePairsConfig(Config):
    """What the files call their columns."""

    prompt: str = "prompt"
    chosen: str = "chosen"
    rejected: str = "rejected"
    chosen_score: str = "score_chosen"  # how good the answers are, in numbers: a file may do without
    rejected_score: str = "score_rejected"
    margin: str = "margin"  # how much better the chosen one is, where there are no scores: a grade (1, 2, 3), or a difference
    annotator: str = "annotator"
    held_out_share: Annotated[float, Field(ge=0, lt=1)] = 0.2  # of the dialogues, where no held-out file is given


@recipe
def preference_pairs(config: PreferencePairsConfig, *, sources: tuple[Path, ...], held_out: Path | None = None, run: Run) -> Dataset:
    """Splits `train` and `test`."""
    rows, dropped = _read(sources, config)
    given = None
    if held_out is not None:
        given, not_held = _read((held_out,), config)
        dropped += not_held
    if not rows:
        reasons = ", ".join(f"{n} {reason}" for reason, n in preference_facts({}, dropped)["dropped"].items())
        raise UsageError(f"None of the {len(dropped)} rows is a pair to learn from ({reasons}).", fix="See docs/data/preference_pairs.md.")
    splits = train_and_test(rows, given, share=config.held_out_share, text_of=opening, order=run.random("held out"), run=run)
    if dropped:
        run.warn(f"{len(dropped)} of {len(rows) + len(given or ()) + len(dropped)} rows are left out; the dataset keeps them with reasons.")
    facts = preference_facts(splits, dropped)
    return publish(Dataset, run, lambda folder: write_preferences(folder, splits, dropped), facts=facts)


def _read(files: Sequence[Path], config: PreferencePairsConfig) -> tuple[list[Preference], list[Dropped]]:
    rows: list[Preference] = []
    dropped: list[Dropped] = []
    seen: set[tuple[Any, ...]] = set()
    for file in files:
        for row in read_rows(file):
            found = read_pair(row, config)
            if isinstance(found, Preference) and (found.prompt, found.chosen, found.rejected, found.annotator) in seen:
                found = _dropped("a pair that was there before", found)
            if isinstance(found, Dropped):
                dropped.append(found)
            else:
                seen.add((found.prompt, found.chosen, found.rejected, found.annotator))
                rows.append(found)
    return rows, dropped


def read_pair(row: Row, config: PreferencePairsConfig) -> Preference | Dropped:
    """Raises UsageError for a row without the columns; a row of which nothing can be learnt is Dropped."""
    facts = {"source": row.file.name, "row": str(row.number)}
    name = f"{row.file.name}/{row.number}"
    chosen, rejected = (_dialogue(row, column, config) for column in (config.chosen, config.rejected))
    if not chosen or not rejected:
        raw = Conversation((Message("text", str(row.get(config.chosen))),), name, facts=facts)
        return Dropped("not a dialogue", raw, detail="no turns, and no prompt beside it")
    pair = Preference(chosen[:-1], chosen[-1].content, rejected[-1].content, name, None, str(row.values.get(config.annotator) or ""), facts)
    fault = _fault(chosen, rejected)
    if fault:
        return _dropped(fault, pair)
    better, worse = _number(row, config.chosen_score), _number(row, config.rejected_score)
    margin = better - worse if better is not None and worse is not None else _number(row, config.margin)
    if margin is not None and margin <= 0:
        return _dropped("of equal scores" if margin == 0 else "the rejected answer scores higher", pair)
    scores = {"score_chosen": better, "score_rejected": worse, "score_margin": margin}
    known = {key: f"{value:.6g}" for key, value in scores.items() if value is not None}
    return replace(pair, margin=_grade(row, config.margin), facts={**facts, **known})


def _dialogue(row: Row, column: str, config: PreferencePairsConfig) -> tuple[Message, ...]:
    """The whole of it, prompt and answer; () for what is no dialogue."""
    value, prompt = row.get(column), row.values.get(config.prompt)
    before = _messages(row, config.prompt, prompt) if isinstance(prompt, list) else _turns(str(prompt), "user") if prompt else ()
    if isinstance(value, list):
        messages = _messages(row, column, value)
        starts_anew = bool(messages) and (not before or messages[: len(before)] == before or messages[0].role != "assistant")
        return messages if starts_anew else (*before, *messages)
    if not isinstance(value, str):
        what = f"{row.place}: the field `{column}` is a {type(value).__name__}, not a text or a list of messages."
        raise UsageError(what, fix="See docs/data/preference_pairs.md.")
    if _TURN.match(value):
        return _turns(value, "assistant")
    return (*before, Message("assistant", value.strip())) if before else ()


def _turns(text: str, otherwise: str) -> tuple[Message, ...]:
    """Of a transcript; a text that is none is one message of the role `otherwise`. An empty last turn is where the answer would begin."""
    if not _TURN.match(text):
        return (Message(_ROLES[otherwise], text.strip()),)
    parts = _TURN.split(text)
    messages = tuple(Message(_ROLES[role], said.strip()) for role, said in zip(parts[1::2], parts[2::2], strict=True))
    return messages[:-1] if otherwise == "user" and messages[-1] == Message("assistant", "") else messages


def _messages(row: Row, column: str, listed: Sequence[Any]) -> tuple[Message, ...]:
    for message in listed:
        if not isinstance(message, Mapping) or message.get("role") not in _ROLES or not isinstance(message.get("content"), str):
            what = f"{row.place}: the field `{column}` holds {str(message)[:80]!r}, which is no message."
            raise UsageError(what, fix='Write [{"role": "user", "content": "..."}, ...].')
    return tuple(Message(_ROLES[message["role"]], message["content"].strip()) for message in listed)


def _fault(chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> str:
    """Why nothing can be learnt of two dialogues, in few words; "" where something can."""
    roles = [message.role for message in chosen[:-1] if message.role != "system"]
    if chosen[:-1] != rejected[:-1]:
        return "the dialogues part before the last answer"
    if (chosen[-1].role, rejected[-1].role) != ("assistant", "assistant"):
        return "does not end with an answer"
    in_turn = "tool" in roles or roles == [("user", "assistant")[i % 2] for i in range(len(roles))]
    if not roles or roles[-1] == "assistant" or not in_turn:
        return "turns do not alternate"
    if not all(message.content for message in chosen[:-1]):
        return "with an empty turn"
    if not chosen[-1].content or not rejected[-1].content:
        return "with an empty answer"
    return "of identical answers" if chosen[-1].content == rejected[-1].content else ""


def _dropped(reason: str, pair: Preference) -> Dropped:
    whole = Conversation((*pair.prompt, Message("assistant", pair.chosen)), pair.id, facts=pair.facts)
    return Dropped(reason, whole, detail=f"rejected: {pair.rejected}")


def _grade(row: Row, column: str) -> int | None:
    """None for what is no whole number above 0."""
    value = _number(row, column)
    return int(value) if value is not None and value > 0 and value.is_integer() else None


def _number(row: Row, column: str) -> float | None:
    value = row.values.get(column)
    if value is None or value == "":
        return None
    try:
        number = float(value)
        return None if math.isnan(number) else number  # an empty cell of a table
    except (TypeError, ValueError) as error:
        what = f"{row.place}: the field `{column}` is {value!r}, not a number."
        raise UsageError(what, fix="Name another column, or leave it out.") from error
