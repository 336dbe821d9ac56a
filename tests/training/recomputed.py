"""Whether an objective can compute its layers again: two trainings of it, and what their first updates were made of."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mygpt.training import recompute
from mygpt.training.optimizers import MasterAdamW

Gradients = dict[str, torch.Tensor]


def first_gradients(train: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> tuple[Gradients, int, Any]:
    """Of the first update in `train()`; how many layers were computed again in the whole training; and what it made."""
    found: Gradients = {}
    again: list[Any] = []
    update, checkpoint = MasterAdamW.update, recompute.checkpoint

    def noted(self: Any, **given: Any) -> float:
        if not found:
            found.update({name: p.grad.clone() for name, p in self.parameters.items() if p.grad is not None})
        return update(self, **given)

    def counted(inside: Any, *args: Any, **given: Any) -> Any:
        runs: list[int] = []

        def computed(*args: Any, **given: Any) -> Any:
            runs.append(1)
            if len(runs) == 2:
                again.append(inside)
            return inside(*args, **given)

        return checkpoint(computed, *args, **given)

    with monkeypatch.context() as patch:
        patch.setattr(MasterAdamW, "update", noted)
        patch.setattr(recompute, "checkpoint", counted)
        made = train()
    return found, len(again), made


def is_same_with_and_without(train: Callable[[bool], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """`train(recompute)`: the same gradients to 1e-5, and less to keep foreseen."""
    (plain, never, whole), (again, count, other) = (first_gradients(lambda on=on: train(on), monkeypatch) for on in (False, True))
    assert never == 0 and count > 0
    assert plain.keys() == again.keys() and any(bool(gradient.abs().max() > 0) for gradient in plain.values())
    most = max(float(gradient.abs().max()) for gradient in plain.values())
    for name, gradient in plain.items():
        apart = float((again[name] - gradient).abs().max())
        assert apart <= 1e-5 * float(gradient.abs().max()) + 1e-7 * most, (name, apart)
    foreseen = [made.manifest.facts.get("forecast", {}).get("activation_bytes") for made in (whole, other)]
    assert foreseen == [None, None] or foreseen[1] < foreseen[0]
