"""The program in an answer: what stands in its first fenced block, or all of it where there is none.

Source: the chat form of PAL (Gao et al. 2022, arXiv:2211.10435; its code takes the first block as well)
We differ: a block that was cut by the length of the answer counts up to its end.
"""

import re

_FENCE = re.compile(r"^[ \t]*```[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)


def program_in(answer: str) -> str:
    """Text of the program, with its indentation. An answer without a fence is taken to be a program."""
    found = _FENCE.search(answer)
    return (found.group(1) if found else answer).rstrip() + "\n"
