"""Checks before any weight moves: wrong data is refused with the reason, and one example is shown as the model will see it."""

from collections.abc import Sequence

from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.lm.chat import ChatRenderer, Rendered


def preflight(examples: Sequence[Rendered], *, renderer: ChatRenderer, max_example_tokens: int, serving_template: str, run: Run) -> None:
    """Raises Refused when training on `examples` would be silently wrong. `serving_template` is a digest (ChatRenderer.template_digest)."""
    if not examples:
        raise Refused("The training set is empty.", fix="Make pairs first (`mygpt data question_answer`), or look at why all were dropped.")
    if renderer.template_digest != serving_template:
        raise Refused(
            f"The chat template of training ({renderer.template_digest[:12]}) is not the one of serving ({serving_template[:12]}).",
            fix="Train and serve with the same tokenizer folder.",
        )
    silent = [i for i, e in enumerate(examples) if not any(e.trained)]
    if silent:
        raise Refused(
            f"{len(silent)} of {len(examples)} examples have no trained token (first: number {silent[0]}).",
            fix="Each needs an assistant turn with text.",
        )
    stops = frozenset(renderer.stop_token_ids)
    endless = [i for i, e in enumerate(examples) if _last_trained(e) not in stops]
    if endless:
        raise Refused(
            f"{len(endless)} of {len(examples)} examples do not train the stop token (first: number {endless[0]}): the model would not learn to end.",
            fix="Look at the chat template's end of an assistant turn.",
        )
    longest = max(range(len(examples)), key=lambda i: len(examples[i].token_ids))
    if len(examples[longest].token_ids) > max_example_tokens:
        cut = sum(len(e.token_ids) > max_example_tokens for e in examples)
        raise Refused(
            f"{cut} examples are longer than {max_example_tokens} tokens (longest: {len(examples[longest].token_ids)}), so answers would be cut.",
            fix=f"Use `--set sft.max_example_tokens={len(examples[longest].token_ids)}`, or shorter examples.",
        )
    shown = examples[len(examples) // 2]
    parts = [{"text": renderer.text(shown.token_ids[start:end]), "trained": trained} for start, end, trained in stretches(shown.trained)]
    run.emit("trained_example", parts=parts, examples=len(examples))


def stretches(trained: Sequence[bool]) -> list[tuple[int, int, bool]]:
    """Runs of equal value as (start, end, value)."""
    runs: list[tuple[int, int, bool]] = []
    for i, value in enumerate(trained):
        if runs and runs[-1][2] == value:
            runs[-1] = (runs[-1][0], i + 1, value)
        else:
            runs.append((i, i + 1, value))
    return runs


def _last_trained(example: Rendered) -> int:
    return next(token for token, trained in zip(reversed(example.token_ids), reversed(example.trained), strict=True) if trained)
