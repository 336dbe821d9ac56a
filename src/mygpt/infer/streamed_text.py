"""Text that grows token by token: what of it may be shown, and where it ends.

Shown is what no later token can take back: not the beginning of a character whose bytes are still coming, and not what may turn out to
be the beginning of a stop string.
"""

from collections.abc import Sequence

_BROKEN = "\ufffd"  # what bytes that are no whole character decode to


def cut_at_stop(text: str, stops: Sequence[str]) -> str:
    """`text` up to the first of the stop strings in it."""
    found = [at for stop in stops if stop and (at := text.find(stop)) >= 0]
    return text[: min(found)] if found else text


def settled(text: str, stops: Sequence[str]) -> str:
    """The beginning of `text` (in which no stop string stands) that stays as it is whatever follows.

    Without stop strings: `text` less a last character that came in part.
    """
    text = text.rstrip(_BROKEN)
    held = 0
    for stop in stops:
        for length in range(min(len(stop) - 1, len(text)), held, -1):
            if text.endswith(stop[:length]):
                held = length
                break
    return text[: len(text) - held]
