"""Memory runs out in a training: the settings that are named are those that the recipe has, and with them a forward pass is smaller."""

import re
from typing import Any

import pytest
import torch

from mygpt.core.errors import MygptError
from mygpt.core.run import Run
from mygpt.finetune.sft import SFTConfig, sft
from mygpt.lm.adapters.freeze import Freeze
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.lora import LoRA
from tests.finetune import objectives, toys

APART: dict[str, Any] = {"pack_tokens": 0, "recompute": True}  # a row for each example, layers computed again already
OTHERS = "Other programs on this machine may hold the memory too."


def failing(*args: Any, **more: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "backward", failing)


def told_of_sft(run: Run, **settings: Any) -> MygptError:
    model, dataset = toys.base(toys.BaseConfig(), run=run), toys.pairs(toys.PairsConfig(), run=run)
    with pytest.raises(MygptError, match="Out of memory at step 1 of") as told:
        sft(SFTConfig(**{"precision": "float32", **settings}), model=model, dataset=dataset, run=run)
    return told.value


def told_of(objective: str, shape: str, run: Run, **settings: Any) -> MygptError:
    with pytest.raises(MygptError, match="Out of memory at step 1 of") as told:
        objectives.tuned(objective, shape, run, **settings)
    return told.value


@pytest.mark.usefixtures("no_memory")
@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "`pack_tokens` to 512 or `recompute` to true"),  # half of a step's 1,024: a row of 2,048 never comes
        ({"pack_tokens": 300, "method": Full()}, "`pack_tokens` to 150 or `recompute` to true or `method` to lora"),
        ({**APART, "micro_batch_tokens": 256, "method": Full()}, "`micro_batch_tokens` to 128 or `method` to lora"),
        ({**APART, "method": Freeze(num_layers=1)}, "`micro_batch_tokens` to 512"),
    ],
)
def test_sft_names_what_bounds_a_row(settings: dict[str, Any], named: str, run: Run) -> None:
    assert told_of_sft(run, **settings).fix == f"Set {named}. {OTHERS}"


@pytest.mark.usefixtures("no_memory")
@pytest.mark.parametrize(
    ("objective", "shape", "settings", "named"),
    [
        # 2,048 is never reached
        ("classifier", "bert", {"step_tokens": 1024}, "`micro_batch_tokens` to 512 or `recompute` to true or `method` to lora"),
        ("classifier", "bert", {"step_tokens": 4096, "method": LoRA()}, "`micro_batch_tokens` to 1024 or `recompute` to true"),
        ("embedder", "bert", {"micro_batch_tokens": 300, "recompute": True}, "`micro_batch_tokens` to 150 or `method` to lora"),  # pairs
        ("seq2seq", "t5", {"micro_batch_tokens": 50, "method": Freeze(num_layers=1)}, "`micro_batch_tokens` to 25 or `recompute` to true"),
    ],
)
def test_other_objectives_name_their_micro_batch(objective: str, shape: str, settings: dict[str, Any], named: str, run: Run) -> None:
    assert told_of(objective, shape, run, **settings).fix == f"Set {named}. {OTHERS}"


@pytest.mark.usefixtures("no_memory")
def test_who_follows_has_a_smaller_forward_pass(run: Run) -> None:
    """Where a step is smaller than `micro_batch_tokens`, half of the latter would change nothing."""
    first = told_of("classifier", "bert", run, step_tokens=128)
    assert "`micro_batch_tokens` to 64" in first.fix
    second = told_of("classifier", "bert", run, step_tokens=128, micro_batch_tokens=64)
    assert padded_tokens(second) <= 64 < padded_tokens(first) <= 128


BESIDE_STEPS = (
    *(("mygpt.finetune.sft", name) for name in ("load_lm", "require_own_loss", "published")),
    ("mygpt.training.tuning", "MasterAdamW"),
)


@pytest.mark.parametrize(("module", "name"), BESIDE_STEPS, ids=lambda value: value.rpartition(".")[2])
def test_outside_of_steps_too(module: str, name: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, the check of the loss, the optimiser's state, saving."""
    monkeypatch.setattr(f"{module}.{name}", failing)
    model, dataset = toys.base(toys.BaseConfig(), run=run), toys.pairs(toys.PairsConfig(), run=run)
    with pytest.raises(MygptError, match="Out of memory: CUDA out of memory") as told:
        sft(SFTConfig(precision="float32", method=Full(), epochs=1), model=model, dataset=dataset, run=run)
    assert told.value.fix.startswith(f"Use a smaller base or `--set method=lora` or `--set precision=bfloat16`. {OTHERS}")


@pytest.mark.parametrize(("objective", "shape", "name"), [("classifier", "bert", "held_out_scores"), ("seq2seq", "t5", "publish_tuned")])
def test_in_other_objectives_too(objective: str, shape: str, name: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"mygpt.finetune.{objective}.{name}", failing)
    with pytest.raises(MygptError, match="Out of memory: CUDA out of memory"):
        objectives.tuned(objective, shape, run)


def test_another_error_stays_what_it_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **more: Any) -> None:
        raise RuntimeError("size mismatch")

    monkeypatch.setattr("mygpt.finetune.sft.require_own_loss", broken)
    model, dataset = toys.base(toys.BaseConfig(), run=run), toys.pairs(toys.PairsConfig(), run=run)
    with pytest.raises(RuntimeError, match="size mismatch"):
        sft(SFTConfig(precision="float32"), model=model, dataset=dataset, run=run)


def padded_tokens(error: MygptError) -> int:
    rows, longest = re.findall(r"of (\d+) examples of at most (\d+) tokens", error.what)[0]
    return int(rows) * int(longest)
