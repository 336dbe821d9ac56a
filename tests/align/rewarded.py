"""Rewards, prompts and settings that the tests of all methods without a critic share."""

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from mygpt.align.rewards import NamedReward
from mygpt.align.rollouts import rollout
from mygpt.align.scored_rollouts import Scored
from mygpt.artifacts.dataset import Conversation, Dataset, Message, conversation_facts, write_conversations
from mygpt.artifacts.model import Adapter
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.errors import Stopped
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer
from mygpt.lm.adapters.lora import LoRA
from tests.align import sites
from tests.finetune import toys
from tests.training.test_steps import terminate

TINY: dict[str, Any] = {"method": LoRA(rank=2), "precision": "float32", "max_answer_tokens": 6, "max_example_tokens": 120}
TINY |= {"prompts_per_rollout": 2, "samples": 3, "checkpoint_seconds": 0.0, "epochs": 2}


def letters(prompt: Conversation, answer: Answer) -> float:
    return sum(c.isalpha() for c in answer.text) / 10


LETTERS = NamedReward("letters", letters)


def made_by(function: Callable[..., Any], config: Any, run: Run, *, reward: Any = LETTERS, **more: Any) -> Any:
    model, dataset = toys.base(toys.BaseConfig(), run=run), sites.prompts(sites.PromptsConfig(), run=run)
    return function(config, model=model, dataset=dataset, reward=reward, run=run, **more)


def weights_of(adapter: Adapter) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(adapter.payload / "adapter_model.safetensors")


class Killed(BaseException):
    pass


@contextmanager
def again(run: Run, **listeners: Callable[[dict[str, Any]], None]) -> Iterator[Run]:
    """A run beside `run`, made anew."""
    one = Run(run.home, name=run.name, seed=run.seed, listeners=tuple(listeners.values()), fresh=True)
    try:
        yield one
    finally:
        one.close()


def resumed_is_uninterrupted(function: Callable[..., Any], config: Any, run: Run, *, killed_at: int, stopped_at: int) -> None:
    """A kill in update `killed_at`, SIGTERM in `stopped_at`, and the same command to the end: the same bytes, curve and vitals."""
    whole = made_by(function, config, run)

    def at(update: int, act: Callable[[], None], event: dict[str, Any]) -> None:
        if event["event"] == "log" and event.get("training_step") == update:
            act()

    def kill() -> None:
        raise Killed

    with pytest.raises(Killed), again(run, a=functools.partial(at, killed_at, kill)) as killed:
        made_by(function, config, killed)
    with pytest.raises(Stopped), again(run, a=functools.partial(at, stopped_at, terminate)) as told:
        made_by(function, config, told)
    notes: list[str] = []
    with again(run, a=lambda event: notes.append(event["text"]) if event["event"] == "note" else None) as last:
        other = made_by(function, config, last)
    assert any(text.startswith("Going on from step") for text in notes)
    assert other.manifest.content == whole.manifest.content
    facts, others = whole.manifest.facts, other.manifest.facts
    for key in ("curve", "vitals", "prompts_asked", "flat_groups"):
        assert facts[key] == others[key], key
    assert not list((run.home / "checkpoints").glob("*"))


# -- fixed tensors, with trl's own numbers -----------------------------------------------------------------------------------

TRL: dict[str, Any] = json.loads((Path(__file__).parent / "trl_policy_losses.json").read_text(encoding="utf-8"))


class Fixed:
    """The tensors of `benchmarks/trl_policy_side.py`, answer after answer as the recipes hold them."""

    def __init__(self) -> None:
        self.lengths = TRL["lengths"]
        longest = max(self.lengths)
        self.is_answer_BL = torch.arange(longest) < torch.tensor(self.lengths)[:, None]
        self.new_BL, self.old_BL, self.reference_BL = (torch.tensor(TRL[key], dtype=torch.float64) for key in ("new", "old", "reference"))
        self.new_BL.requires_grad_()
        self.advantages_B = torch.tensor(TRL["advantages"], dtype=torch.float64)
        prompt = Conversation((Message("user", "?"),))
        answers = [Answer("", token_ids=(3,) * length) for length in self.lengths]
        made = {i: rollout((1, 2), prompt, answer, is_finished=True) for i, answer in enumerate(answers)}
        self.scored = Scored(made, torch.zeros(3, 2), 0)

    def spread(self, values_B: torch.Tensor) -> torch.Tensor:
        return values_B.repeat_interleave(torch.tensor(self.lengths))


def dataset_of(rows: list[Conversation], run: Run) -> Dataset:
    return rows_of(RowsConfig(rows=tuple((row.id, tuple((m.role, m.content) for m in row.messages)) for row in rows)), run=run)


class RowsConfig(Config):
    rows: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


@recipe
def rows_of(config: RowsConfig, *, run: Run) -> Dataset:
    splits = {"train": [Conversation(tuple(Message(*m) for m in said), id) for id, said in config.rows]}  # type: ignore[arg-type]
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=conversation_facts(splits), name="rows")
