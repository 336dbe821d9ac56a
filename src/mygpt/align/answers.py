"""A prompt with one answer as token ids, of which only that answer is learnt; and two answers that somebody compared.

    rendered_answer(renderer, prompt, "Yes.")     earlier assistant turns belong to the prompt
    up_to_stop(example)                           without what a template writes behind the answer's stop token
    usable_pairs(rows, renderer, ...)             pairs ready to be learnt from, or a refusal that says what is wrong with them

Nothing can be learnt of two equal answers, an empty answer is no answer, and one that is cut off was not the one that was judged.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mygpt.artifacts.dataset import Conversation, Message, Preference
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.lm.chat import ChatRenderer, Rendered


@dataclass(frozen=True)
class Pair:
    row: Preference
    chosen: Rendered
    rejected: Rendered

    @property
    def num_tokens(self) -> int:
        return len(self.chosen.token_ids) + len(self.rejected.token_ids)


def rendered_answer(renderer: ChatRenderer, prompt: Sequence[Message], answer: str) -> Rendered:
    """Trained are the tokens of `answer` and its stop token."""
    whole = renderer.render(Conversation((*prompt, Message("assistant", answer))))
    last = next(part for part in reversed(whole.parts) if part.role == "assistant")
    return replace(whole, trained=tuple(last.start <= i < last.end for i in range(len(whole.token_ids))))


def up_to_stop(example: Rendered) -> Rendered:
    """Its last token is the last trained one, the stop token: where a reward is read."""
    end = len(example.trained) - example.trained[::-1].index(True)
    return replace(example, token_ids=example.token_ids[:end], trained=example.trained[:end])


def usable_pairs(
    rows: Sequence[Preference],
    renderer: ChatRenderer,
    *,
    max_example_tokens: int,
    context_tokens: int | None,
    drop_unusable: bool,
    run: Run | None = None,
) -> list[Pair]:
    """Raises Refused when a pair cannot be learnt from, or none is there; with `drop_unusable` such pairs are left out.

    With a run, says how many, and what is special about their template.
    """
    allowed = min(max_example_tokens, context_tokens or max_example_tokens)
    pairs: list[Pair] = []
    faults: Counter[str] = Counter()
    first, too_long = "", f"longer than {allowed} tokens"
    for number, row in enumerate(rows):
        fault, shown = fault_of(row), f'"{row.chosen.strip()[:60]}" and "{row.rejected.strip()[:60]}"'
        if not fault:
            pair = Pair(row, *(rendered_answer(renderer, row.prompt, text) for text in (row.chosen, row.rejected)))
            longest = max(len(pair.chosen.token_ids), len(pair.rejected.token_ids))
            fault, shown = (too_long, f"{longest} tokens with its prompt") if longest > allowed else ("", "")
        if fault:
            faults[fault] += 1
            first = first or f"number {number}{f' ({row.id})' if row.id else ''}: {shown}"
        else:
            pairs.append(pair)
    told = f"{sum(faults.values())} of {len(rows)} pairs cannot be learnt from ({', '.join(f'{n} {what}' for what, n in faults.items())})"
    if faults and not drop_unusable:
        more = f"; or set `max_example_tokens` higher (the model reads {context_tokens or 'any number of'} tokens)"
        can_be_longer = faults[too_long] and (context_tokens is None or max_example_tokens < context_tokens)
        fix = f"Mend them, or leave them out with `--set drop_unusable=true`{more if can_be_longer else ''}."
        raise Refused(f"{told}; the first is {first}.", fix=fix)
    if not pairs:
        empty = "The training set has no pairs" if not rows else f"{told}: none would be left"
        raise Refused(f"{empty}.", fix="Make pairs first (`mygpt data preferences_from_ratings`), or look at why these cannot be used.")
    if run and faults:
        run.warn(f"{told}: they are left out, whole.")
    if run:
        for text in dict.fromkeys(renderer.warnings):
            run.warn(text)
    return pairs


def fault_of(row: Preference) -> str:
    """Why nothing can be learnt of this pair, in few words; "" where something can."""
    if not row.chosen.strip() or not row.rejected.strip():
        return "with an empty answer"
    return "of identical answers" if row.chosen.strip() == row.rejected.strip() else ""
