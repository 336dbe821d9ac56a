"""Checks before any weight moves: wrong data is refused with the reason, and one example is shown as the model will see it."""

from collections.abc import Callable, Sequence

from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.lm.chat import ChatRenderer, Rendered


def preflight(
    examples: Sequence[Rendered],
    *,
    renderer: ChatRenderer,
    max_example_tokens: int,
    serving_template: str,
    context_tokens: int | None = None,
    run: Run,
) -> None:
    """Raises Refused when training on `examples` would be silently wrong, and says what is special about their template.

    `serving_template` is the digest (ChatRenderer.template_digest) of what serving will render with, `context_tokens` the model's window.
    """
    if not examples:
        raise Refused("The training set is empty.", fix="Make pairs first (`mygpt data question_answer`), or look at why all were dropped.")
    if renderer.template_digest != serving_template:
        raise Refused(
            f"The chat template of training ({renderer.template_digest[:12]}) is not the one of serving ({serving_template[:12]}).",
            fix="Train and serve with the same tokenizer folder.",
        )
    stops = frozenset(renderer.stop_token_ids)
    silent: list[int] = []
    endless: list[int] = []
    num_tokens: list[int] = []
    warnings = dict.fromkeys(renderer.warnings)
    for i, example in enumerate(examples):  # once: they may be on the disk
        num_tokens.append(len(example.token_ids))
        if not any(example.trained[1:]):  # nothing precedes the first token, so it is no label
            silent.append(i)
        elif not every_answer_stops(example, stops):
            endless.append(i)
        warnings |= dict.fromkeys(example.warnings)
    if silent:
        raise Refused(
            f"{len(silent)} of {len(examples)} examples have no trained token (first: number {silent[0]}).",
            fix="Each needs an assistant turn with text.",
        )
    if endless:
        raise Refused(
            f"{len(endless)} of {len(examples)} examples do not train the stop token (first: number {endless[0]}), "
            "so the model would not learn to end.",
            fix="Look at the chat template's end of an assistant turn.",
        )
    require_whole(num_tokens, max_example_tokens=max_example_tokens, context_tokens=context_tokens)
    for text in warnings:
        run.warn(text)
    show_example(examples, renderer.text, run=run)


def show_example(examples: Sequence[Rendered], text_of: Callable[[Sequence[int]], str], *, run: Run) -> None:
    """The one in the middle, marked by what is trained."""
    shown = examples[len(examples) // 2]
    texts = [text_of(shown.token_ids[:end]) for _, end, _ in stretches(shown.trained)]  # alone, some tokenizers drop a first space
    parts = [
        {"text": text[len(before) :], "trained": trained}
        for before, text, (_, _, trained) in zip(["", *texts], texts, stretches(shown.trained), strict=False)
    ]
    run.emit("trained_example", parts=parts, examples=len(examples))


def require_whole(num_tokens: Sequence[int], *, max_example_tokens: int, context_tokens: int | None) -> None:
    """Raises Refused when an example is longer than may be: what is cut off is the answer."""
    longest = max(num_tokens)
    allowed = min(max_example_tokens, context_tokens or max_example_tokens)
    if longest <= allowed:
        return
    cut = sum(n > allowed for n in num_tokens)
    told = f"{cut} of {len(num_tokens)} examples are longer than {allowed} tokens (longest: {longest}), so answers would be cut."
    if allowed == max_example_tokens and longest <= (context_tokens or longest):
        fix = (
            f"Set `max_example_tokens` to {longest} (with `mygpt up`: `--set sft.max_example_tokens={longest}`), shorten the examples, "
            "or leave them out with `drop_over_long=true`."
        )
    else:
        fix = (
            f"The model's window is {context_tokens} tokens: give shorter examples, leave them out with `drop_over_long=true`, "
            "or choose a model with a wider one."
        )
    raise Refused(told, fix=fix)


def without_over_long(num_tokens: Sequence[int], *, max_example_tokens: int, context_tokens: int | None, run: Run) -> list[int]:
    """Which examples are short enough; how many are left out is said. Raises Refused where none stays."""
    allowed = min(max_example_tokens, context_tokens or max_example_tokens)
    kept = [i for i, n in enumerate(num_tokens) if n <= allowed]
    if len(kept) == len(num_tokens):
        return kept
    longest = max(num_tokens)
    told = f"{len(num_tokens) - len(kept)} of {len(num_tokens)} examples are longer than {allowed} tokens (longest: {longest})"
    if not kept:
        raise Refused(f"{told}: none would be left to train on.", fix="Raise `max_example_tokens`, or shorten the examples.")
    run.warn(f"{told}: they are left out of training, whole.")
    return kept


def every_answer_stops(example: Rendered, stops: frozenset[int]) -> bool:
    return all(example.token_ids[end - 1] in stops for _, end, trained in stretches(example.trained) if trained)


def stretches(trained: Sequence[bool]) -> list[tuple[int, int, bool]]:
    """Runs of equal value as (start, end, value)."""
    runs: list[tuple[int, int, bool]] = []
    for i, value in enumerate(trained):
        if runs and runs[-1][2] == value:
            runs[-1] = (runs[-1][0], i + 1, value)
        else:
            runs.append((i, i + 1, value))
    return runs
