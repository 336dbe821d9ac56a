"""Models this small are slower on two threads than on one."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mygpt.core.run import Run
from tests.training.conftest import one_thread

__all__ = ["one_thread"]


class Killed(BaseException):
    pass


@pytest.fixture
def killed_at(run: Run) -> Iterator[Callable[[int], Run]]:
    """`killed_at(3)`: a run beside `run`, made anew, that ends in the middle of training step 3, before that step's checkpoint."""
    opened: list[Run] = []

    def new(step: int) -> Run:
        def listen(event: dict[str, Any]) -> None:
            if event["event"] == "log" and event.get("training_step") == step:
                raise Killed

        opened.append(Run(run.home, name=run.name, seed=run.seed, listeners=(listen,), fresh=True))
        return opened[-1]

    yield new
    for one in opened:
        one.close()
