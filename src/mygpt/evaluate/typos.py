"""The same task with typing errors in its questions: what a model knows only in perfect spelling, it does not know.

In each chosen word two neighbouring letters change places, one is dropped, or one is doubled; the first letter stays. Words of the choices
and words with digits are left alone, so that the right answer stays right.

Source: Liang et al. 2022, "Holistic evaluation of language models", arXiv:2211.09110, section 4.4 (robustness: the worst over an item and
its disturbed forms).
We differ: three kinds of slips drawn at one rate, where HELM has a table of misspellings and further disturbances.
"""

import random
import re
from dataclasses import replace

from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.task import Task, write_task
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run

_WORD = re.compile(r"(?<!\w)[^\W\d_]{4,}(?!\w)")


class TyposConfig(Config):
    rate: float = 0.15  # of the words of four letters or more


@recipe
def typos(config: TyposConfig, *, task: Task, run: Run) -> Task:
    """A variant with the same ids; `scenarios` puts the two beside each other."""
    if not 0 < config.rate <= 1:
        raise UsageError(f"The rate {config.rate} is no share of the words.", fix="Give one above 0 and up to 1.")
    items = [
        replace(item, question=with_typos(item.question, config.rate, run.random(f"typos/{item.id}"), kept=" ".join(item.choices)))
        for item in task.items
    ]
    settings = task.settings.model_copy(update={"name": f"{task.settings.name}_typos", "variant_of": task.settings.name})
    return publish(Task, run, lambda folder: write_task(folder, items, settings), name=settings.name)


def with_typos(text: str, rate: float, draw: random.Random, *, kept: str = "") -> str:
    """`kept`: words that stay as they are."""
    untouched = {word.casefold() for word in _WORD.findall(kept)}

    def slip(match: re.Match[str]) -> str:
        word = match[0]
        if draw.random() >= rate or word.casefold() in untouched:
            return word
        i = draw.randrange(1, len(word) - 1)
        swapped = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
        return draw.choice([swapped, word[:i] + word[i + 1 :], word[:i] + word[i] + word[i:]])

    return _WORD.sub(slip, text)
