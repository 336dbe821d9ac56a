"""Layers computed again for their gradients (`recompute`) where models are aligned: nothing but memory changes, and sampling is as fast."""

from typing import Any

import pytest

from mygpt.align.grpo import GRPOConfig, grpo
from mygpt.align.ilql import ILQLConfig, ilql
from mygpt.align.policy import open_policy
from mygpt.align.rollouts import rollouts
from mygpt.core.run import Run
from mygpt.infer.protocols import Sampling
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.adapters.prompt import Prompt
from mygpt.training.recompute import is_recomputed
from mygpt.training.tuning import TuningConfig
from tests.align import sites
from tests.align import test_dpo as of_dpo
from tests.align import test_ilql as of_ilql
from tests.align import test_kto as of_kto
from tests.align import test_ppo as of_ppo
from tests.align import test_reward_model as of_rewards
from tests.align.rewarded import TINY, made_by
from tests.finetune import toys
from tests.finetune.conftest import one_thread
from tests.training.recomputed import is_same_with_and_without

__all__ = ["one_thread"]


@pytest.mark.parametrize("method", [LoRA(rank=2), Full(), Prompt(num_tokens=4)], ids=lambda method: method.name)
def test_pairs(method: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers share their prompt's row; the reference is the policy with its adapter off, or a copy."""
    is_same_with_and_without(lambda recompute: of_dpo.tuned(run, method=method, recompute=recompute), monkeypatch)


def test_kto(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    is_same_with_and_without(lambda recompute: of_kto.tuned(run, recompute=recompute), monkeypatch)


def test_reward_model(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    is_same_with_and_without(lambda recompute: of_rewards.trained(run, epochs=1, recompute=recompute), monkeypatch)


def test_ppo(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value function reads the same layers."""
    is_same_with_and_without(lambda recompute: of_ppo.tuned(run, recompute=recompute), monkeypatch)


def test_grpo(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """In trees: answers to a prompt share a row."""
    settings = {**TINY, "epochs": 1, "kl_coefficient": 0.1}
    is_same_with_and_without(
        lambda recompute: made_by(grpo, GRPOConfig(**settings, recompute=recompute), run), monkeypatch
    )


def test_ilql(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = of_ilql.WalksConfig(walks=(("a", "bc", "1"), ("b", "d", "0")))
    model, data = toys.base(toys.BaseConfig(), run=run), of_ilql.walks(rows, run=run)
    is_same_with_and_without(
        lambda recompute: ilql(ILQLConfig(**of_ilql.SMALL, recompute=recompute), model=model, dataset=data, run=run), monkeypatch
    )


def test_sampling_meets_layers_as_they_were(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels for decoding steps leave layers alone whose forward pass is not their class's (`lm/fused_decoder`)."""
    config = TuningConfig(method=LoRA(rank=2), precision="float32", recompute=True)
    policy = open_policy(toys.base(toys.BaseConfig(), run=run), config, run=run)
    layers = [layer for layer in policy.module.modules() if is_recomputed(layer)]
    assert len(layers) == 2

    def look(*_: Any) -> Any:
        assert not any("forward" in vars(layer) for layer in layers)
        raise ZeroDivisionError

    monkeypatch.setattr(TorchEngine, "complete_each", look)
    prompts = sites.prompts(sites.PromptsConfig(), run=run).split("train")
    with pytest.raises(ZeroDivisionError):
        rollouts(policy, prompts, samples=1, sampling=Sampling(max_tokens=2, temperature=1), seed=0, run=run)
    assert all(map(is_recomputed, layers))
