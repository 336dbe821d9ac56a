"""Answers that share their prompt's row are worth what they are in rows of their own, gradients and all."""

import pytest
import torch

from mygpt.align import shared_prompts
from mygpt.align.policy import Policy
from mygpt.align.rollouts import Rollout, rollout
from mygpt.align.shared_prompts import alike, answer_logprobs, packs_trees, planted, takes_trees, tree_batch
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.infer.protocols import Answer
from tests.lm.test_varlen import as_on_a_gpu
from tests.training import tiny

__all__ = ["as_on_a_gpu"]

LENGTHS = (5, 2, 9, 1, 4)


def made_of(prompts: list[tuple[int, ...]]) -> dict[int, Rollout]:
    found = {}
    draw = torch.Generator().manual_seed(3)
    for p, prompt in enumerate(prompts):
        for k, length in enumerate(LENGTHS):
            ids = tuple(torch.randint(3, tiny.VOCABULARY, (length,), generator=draw).tolist())
            found[10 + p * len(LENGTHS) + k] = rollout(
                prompt, Conversation((Message("user", str(p)),)), Answer("", token_ids=ids), is_finished=True
            )
    return found


class Alone(Policy):
    """Of a module and nothing else."""

    def __init__(self, module: torch.nn.Module) -> None:
        object.__setattr__(self, "module", module)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    padding_id = 0  # type: ignore[assignment]


MADE = made_of([tuple(range(5, 15)), tuple(range(20, 27))])


def logprobs_and_gradients(module: torch.nn.Module, *, shares: bool, tokens: int) -> tuple[dict[int, torch.Tensor], list[torch.Tensor]]:
    module.zero_grad()
    found = {}
    for trees in planted(sorted(MADE), MADE, shares=shares, micro_batch_tokens=tokens):
        batch = tree_batch(trees, MADE, Alone(module))
        assert batch.has_trees == (shares and any(len(tree) > 1 for tree in trees))
        logprobs_N = answer_logprobs(module, batch, temperature=0.7, chunk_labels=7)
        weights = torch.cat([torch.arange(1.0, n + 1) * (1 + row) for row, n in zip(batch.rows, batch.lengths, strict=True)])
        (logprobs_N * weights.to(logprobs_N.device)).sum().backward()
        found |= batch.each(logprobs_N.detach())
    return found, [p.grad for p in module.parameters() if p.grad is not None]


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "mistral", "gpt2"])
def test_as_in_rows_of_their_own(architecture: str) -> None:
    """Sliding windows of 8, soft-capped eager attention and learnt positions too; whatever the split."""
    module = tiny.ARCHITECTURES[architecture]().double()
    alone, gradients = logprobs_and_gradients(module, shares=False, tokens=1)
    for tokens in (1, 40, 10_000):
        shared, others = logprobs_and_gradients(module, shares=True, tokens=tokens)
        assert shared.keys() == alone.keys() == MADE.keys()
        for row, values in alone.items():
            torch.testing.assert_close(shared[row], values)
        torch.testing.assert_close(others, gradients, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("architecture", ["llama", "mistral", "gpt2"])
def test_all_trees_in_one_packed_row(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU has them, its kernel in plain torch: no padding, and gradients of rows of their own."""
    module = tiny.ARCHITECTURES[architecture]().double()
    alone, gradients = logprobs_and_gradients(module, shares=False, tokens=1)
    monkeypatch.setattr(shared_prompts, "packs_trees", lambda module: True)
    for tokens in (1, 10_000):
        packed, others = logprobs_and_gradients(module, shares=True, tokens=tokens)
        for row, values in alone.items():
            torch.testing.assert_close(packed[row], values)
        torch.testing.assert_close(others, gradients, rtol=1e-3, atol=1e-3)
    (trees,) = planted(sorted(MADE), MADE, shares=True, micro_batch_tokens=10_000)
    assert tree_batch(trees, MADE, Alone(module)).ids_BT.shape == (1, 10 + 7 + 2 * sum(LENGTHS))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_packed_row_on_a_gpu() -> None:
    """In bfloat16, whose rounding alone is a fifth of this model's gradient: so against rows of their own by the same kernel, and
    log-probabilities against float32 within a tenth of their spread."""
    module = tiny.llama(hidden_size=64, num_attention_heads=4, num_key_value_heads=2, intermediate_size=96)
    precise, _ = logprobs_and_gradients(module, shares=False, tokens=1)
    half = module.to("cuda", torch.bfloat16)
    assert packs_trees(half) and not packs_trees(tiny.llama())
    alone, gradients = logprobs_and_gradients(half, shares=False, tokens=1)
    theirs = torch.cat([one.float().flatten() for one in gradients])
    shared, gradients = logprobs_and_gradients(half, shares=True, tokens=10_000)
    ours = torch.cat([one.float().flatten() for one in gradients])
    apart = [torch.cat([shared[row].cpu() - other[row].cpu() for row in shared]).abs().mean() for other in (alone, precise)]
    assert apart[0] <= 0.05 and apart[1] <= 0.1 * torch.cat(list(precise.values())).std()
    assert (ours - theirs).norm() <= 0.05 * theirs.norm()


def test_one_prompt_is_computed_once() -> None:
    (trees,) = planted(sorted(MADE), MADE, shares=True, micro_batch_tokens=10_000)
    assert sorted(map(len, trees)) == [5, 5]
    assert tree_batch(trees, MADE, Alone(tiny.llama())).ids_BT.shape == (2, 10 + sum(LENGTHS))


def test_a_tree_stays_small() -> None:
    """512 tokens: of six answers of 150 to a prompt of 10, three stand together; one alone may be longer."""
    prompt = tuple(range(5, 15))
    one = rollout(prompt, MADE[10].prompt, Answer("", token_ids=(7,) * 150), is_finished=False)
    long = rollout(prompt, MADE[10].prompt, Answer("", token_ids=(7,) * 600), is_finished=False)
    trees = planted(range(7), {**dict.fromkeys(range(6), one), 6: long}, shares=True, micro_batch_tokens=500)
    assert sorted(sorted(tree) for (tree,) in trees) == [[0, 2, 4], [1, 3, 5], [6]]


def test_who_takes_trees() -> None:
    assert takes_trees(tiny.llama())
    assert not takes_trees(tiny.family("mamba"))




def test_trees_of_one_prompt_are_of_like_size() -> None:
    """Eight answers of 63 tokens, room for 402: two trees of four, not one of six and one of two, which would be padded to the six."""
    assert [len(group) for group in alike(dict.fromkeys(range(8), 63), most_tokens=402)] == [4, 4]
    uneven = {0: 300, 1: 200, 2: 190, 3: 100, 4: 10}
    groups = alike(uneven, most_tokens=400)
    assert sorted(i for group in groups for i in group) == list(uneven)
    assert [sum(uneven[i] for i in group) for group in groups] == [400, 400]
    assert alike({7: 900, 8: 10}, most_tokens=400) == [[7], [8]]
    assert alike({7: 900, 8: 10}, most_tokens=-5) == [[7], [8]]  # a prompt that leaves no room
