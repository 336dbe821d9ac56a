"""ORPO: its first loss is likelihood and odds of the base, and splits and kills change nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mygpt.align.answers import rendered_answer
from mygpt.align.orpo import ORPOConfig, odds_ratio_loss, orpo
from mygpt.artifacts.model import Adapter
from mygpt.core.run import Run
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.chat import ChatRenderer
from mygpt.lm.load import load_lm
from tests.align import pair_sites
from tests.finetune import toys
from tests.finetune.conftest import Killed, killed_at, one_thread

__all__ = ["killed_at", "one_thread"]


def tuned(run: Run, **changes: Any) -> Any:
    settings = {"method": LoRA(rank=2), "step_pairs": 4, **pair_sites.FAST, **changes}
    dataset = pair_sites.compared(pair_sites.ComparedConfig(), run=run)
    return orpo(ORPOConfig(**settings), model=toys.base(toys.BaseConfig(), run=run), dataset=dataset, run=run)


def losses(made: Any) -> list[float]:
    return [loss for _, loss in made.manifest.facts["curve"]]


def test_the_first_loss_is_the_bases(run: Run) -> None:
    """By the model's own forward pass over each answer."""
    loaded = load_lm(toys.base(toys.BaseConfig(), run=run), dtype=torch.float32)
    renderer = ChatRenderer(loaded.tokenizer)
    means = []
    for row in pair_sites.compared(pair_sites.ComparedConfig(), run=run).preferences("train"):
        for answer in (row.chosen, row.rejected):
            example = rendered_answer(renderer, row.prompt, answer)
            with torch.no_grad():
                logprobs_TV = loaded.module(input_ids=torch.tensor([example.token_ids])).logits[0].float().log_softmax(-1)
            own = [logprobs_TV[t - 1, example.token_ids[t]] for t, trained in enumerate(example.trained) if trained]
            means.append(torch.stack(own).mean())
    chosen, rejected = torch.stack(means).view(-1, 2).unbind(1)
    made = tuned(run, odds_weight=0.5, epochs=6)
    assert losses(made)[0] == pytest.approx(float((-chosen + 0.5 * odds_ratio_loss(chosen, rejected)).mean()), abs=2e-4)
    assert losses(made)[-1] < losses(made)[0] - 0.5
    held_out = made.manifest.facts["held_out"]
    assert isinstance(made, Adapter) and "accuracy" not in held_out["after"] and held_out["after"]["likelier_interval"][1] <= 1


def test_micro_batches_change_nothing(run: Run) -> None:
    curves = [losses(tuned(run, micro_batch_tokens=n)) for n in (2048, 1)]
    assert curves[1] == pytest.approx(curves[0], abs=5e-4)


def test_killed_and_resumed_is_uninterrupted(run: Run, killed_at: Callable[[int], Run]) -> None:
    whole = tuned(run, epochs=4)
    with pytest.raises(Killed):
        tuned(killed_at(3), epochs=4)
    assert tuned(killed_at(0), epochs=4).manifest.content == whole.manifest.content
