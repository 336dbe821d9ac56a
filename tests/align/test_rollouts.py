"""Rollouts are the policy's own tokens, of its weights as they stand."""

import pytest
import torch

from mygpt.align.policy import open_policy
from mygpt.align.rollouts import rollouts
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.infer.protocols import Sampling
from mygpt.lm.adapters.lora import LoRA
from mygpt.training.batches import batch_of
from mygpt.training.label_logprobs import label_logprobs
from mygpt.training.tuning import TuningConfig
from tests.finetune import toys

PROMPTS = [Conversation((Message("user", text),)) for text in ("Who may come in?", "When does it open, and who said so?")]
SAMPLING = Sampling(max_tokens=12, temperature=1.0)


def test_tokens_and_logprobs_are_the_policys(run: Run) -> None:
    """The engine's log-probabilities are those of the training's forward pass, before and after the weights move."""
    policy = open_policy(toys.base(toys.BaseConfig(), run=run), TuningConfig(method=LoRA(rank=2), precision="float32"), run=run)
    seen = []
    for _ in range(2):
        made = rollouts(policy, PROMPTS, samples=3, sampling=SAMPLING, seed=1, run=run)
        assert [r.prompt for r in made] == [PROMPTS[0]] * 3 + [PROMPTS[1]] * 3
        batch = batch_of([r.example for r in made], padding_id=0, device=torch.device("cpu"))
        with torch.no_grad():
            logprobs_N = label_logprobs(policy.module, batch.ids_BT, batch.trained_BT)
        sampled = [value for r in made for value in r.answer.logprobs]
        torch.testing.assert_close(logprobs_N, torch.tensor(sampled), atol=1e-4, rtol=1e-4)
        for one in made:
            assert one.example.token_ids[-one.num_tokens :] == one.answer.token_ids and sum(one.example.trained) == one.num_tokens
            assert one.is_finished == (one.answer.finish_reason == "stop") and one.num_tokens <= 12
        assert len({r.answer.token_ids for r in made[:3]}) > 1
        seen.append([r.answer.token_ids for r in made])
        with torch.no_grad():
            for parameter in policy.module.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.3 * torch.randn_like(parameter))
    assert seen[0] != seen[1]


def test_the_same_seed_gives_the_same_answers(run: Run) -> None:
    policy = open_policy(toys.base(toys.BaseConfig(), run=run), TuningConfig(method=LoRA(rank=2), precision="float32"), run=run)
    first, again, other = (
        [r.answer.token_ids for r in rollouts(policy, PROMPTS, samples=2, sampling=SAMPLING, seed=seed, run=run)] for seed in (1, 1, 50)
    )
    assert first == again != other


def test_greedy_rollouts_are_refused(run: Run) -> None:
    policy = open_policy(toys.base(toys.BaseConfig(), run=run), TuningConfig(method=LoRA(rank=2), precision="float32"), run=run)
    with pytest.raises(UsageError, match="temperature 0"):
        rollouts(policy, PROMPTS, samples=2, sampling=Sampling(max_tokens=4), seed=1, run=run)
