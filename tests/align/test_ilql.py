"""ILQL: losses by hand, exact resumption, guided answers. Walks through graphs, put together from parts: benchmarks/ilql.py."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mygpt.align.ilql import (
    VALUE_HEADS,
    GuidedCompleter,
    ILQLConfig,
    at_the_end,
    conservative_loss,
    expectile_loss,
    ilql,
    ilql_forecast,
    of_the_next,
    q_loss,
)
from mygpt.artifacts.dataset import Conversation, Dataset, Message, conversation_facts, write_conversations
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.cli.main import main
from mygpt.core.config import Config
from mygpt.core.errors import Refused, UsageError
from mygpt.core.run import Run
from mygpt.finetune.merge import MergeConfig, merge
from mygpt.infer.protocols import Sampling
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.lora import LoRA
from mygpt.training.optimizers import MasterAdamW
from tests.align import pair_sites
from tests.align.test_forecasts import ADAPTER, WEIGHTS, weighed
from tests.finetune import toys

SMALL: dict[str, Any] = {"precision": "float32", "epochs": 1, "max_example_tokens": 200, "head_units": 8, "method": LoRA(rank=2)}
ilql_module = importlib.import_module("mygpt.align.ilql")
GREEDY = Sampling(max_tokens=4)


class WalksConfig(Config):
    walks: tuple[tuple[str, str, str], ...]  # from where, the nodes after it, the reward


@recipe
def walks(config: WalksConfig, *, run: Run) -> Dataset:
    splits = {
        "train": [
            Conversation((Message("user", start), Message("assistant", path)), f"walk-{n}", facts={"reward": reward} if reward else {})
            for n, (start, path, reward) in enumerate(config.walks)
        ]
    }
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=conversation_facts(splits), name="walks")


# -- losses ------------------------------------------------------------------------------------------------------------------


def test_losses_by_hand() -> None:
    """Two rows of 2 and 1 labels, rewards 1 and -1, V 0.2 0.4 0.6, discount 0.5: targets 0 + 0.5*0.4 = 0.2, then 1, then -1."""
    rows_N = torch.tensor([0, 0, 1])
    value_N = torch.tensor([0.2, 0.4, 0.6], requires_grad=True)
    reward_N, next_N = at_the_end(torch.tensor([1.0, -1.0]), rows_N), of_the_next(value_N, rows_N)
    assert reward_N.tolist() == [0.0, 1.0, -1.0]
    assert next_N.tolist() == pytest.approx([0.4, 0.0, 0.0])
    q_N = torch.tensor([0.0, 0.5, 0.0], requires_grad=True)
    loss = q_loss(q_N, reward_N, next_N, discount=0.5)
    assert loss.item() == pytest.approx(0.04 + 0.25 + 1.0)
    loss.backward()
    assert q_N.grad is not None and q_N.grad.tolist() == pytest.approx([-0.4, -1.0, 2.0])
    assert value_N.grad is None  # what Q aims at stands still
    # u = 1 - 0.2, 0 - 0.4, 0.6 - 0.6: 0.7 * 0.64 + 0.3 * 0.16 + 0
    assert expectile_loss(torch.tensor([1.0, 0.0, 0.6]), value_N, expectile=0.7).item() == pytest.approx(0.448 + 0.048)
    # -log softmax([0, ln 3])[0] = ln 4
    assert conservative_loss(torch.tensor([[0.0, 3.0**0.5], [0.0, torch.log(torch.tensor(3.0))]]), torch.tensor([1, 0])).item() == (
        pytest.approx(float(torch.log1p(torch.exp(torch.tensor(-(3.0**0.5))))) + 1.386294, abs=1e-5)
    )


def test_an_expectile_of_one_half_is_the_mean_and_a_high_one_nears_the_best() -> None:
    tried = torch.tensor([0.0, 0.0, 0.0, 1.0])  # one way in four succeeds
    found = []
    for expectile in (0.5, 0.95):
        value = torch.zeros(1, requires_grad=True)
        for _ in range(400):
            (gradient,) = torch.autograd.grad(expectile_loss(tried, value.expand(4), expectile=expectile), value)
            with torch.no_grad():
                value -= 0.05 * gradient
        found.append(value.item())
    # the expectile e of three 0 and a 1: (1 - e) * 3 v = e (1 - v), v = e / (3 - 2 e)
    assert found == pytest.approx([0.25, 0.95 / 1.1], abs=1e-3)


# -- the recipe --------------------------------------------------------------------------------------------------------------


def test_any_split_gives_the_same_and_resumed_is_uninterrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = WalksConfig(walks=tuple((chr(97 + n), "bcd"[: 1 + n % 3], str(n % 2)) for n in range(8)))

    def go(home: Path, **settings: Any) -> dict[str, torch.Tensor]:
        from safetensors.torch import load_file

        run = Run(home, name="walk", seed=1)
        model, data = toys.base(toys.BaseConfig(), run=run), walks(rows, run=run)
        config = ILQLConfig(**{**SMALL, "epochs": 2}, step_tokens=160, checkpoint_seconds=0.0, follow_share=0.2, **settings)
        made = ilql(config, model=model, dataset=data, run=run)
        run.close()
        return {**load_file(made.payload / VALUE_HEADS), **load_file(made.payload / "adapter_model.safetensors")}

    whole = go(tmp_path / "whole")
    assert any(not torch.equal(whole[f"followers.q1.{n}.weight"], whole[f"q.q1.{n}.weight"]) for n in (0, 2))
    split = go(tmp_path / "whole", micro_batch_tokens=40)
    for name, tensor in whole.items():
        torch.testing.assert_close(split[name], tensor, atol=2e-4, rtol=2e-3, msg=name)

    update, calls = MasterAdamW.update, []

    def killed(self: Any, **given: Any) -> float:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return update(self, **given)

    monkeypatch.setattr(MasterAdamW, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "home")
    monkeypatch.setattr(MasterAdamW, "update", update)
    resumed = go(tmp_path / "home")
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_guiding_adds_beta_q_to_the_logits(run: Run) -> None:
    """With beta 0 answers are the policy's; with a large one the token of highest Q comes, whatever the policy would say."""
    from mygpt.align.ilql import guided
    from mygpt.lm.load import load_lm

    model = toys.base(toys.BaseConfig(), run=run)
    data = walks(WalksConfig(walks=(("a", "bcd", "1"), ("a", "ccd", "0"), ("b", "cd", "0.5"))), run=run)
    made = ilql(ILQLConfig(**SMALL), model=model, dataset=data, run=run)
    assert isinstance(made, Adapter)
    asked = [Conversation((Message("user", "a"),))]
    plain = TorchEngine(model, adapter=made).complete(asked, GREEDY)
    off = GuidedCompleter(model, adapter=made, beta=0.0)
    assert off.complete(asked, GREEDY) == plain and off.identity["beta"] == 0.0

    loaded = guided(load_lm(model, adapter=made), beta=1e4)
    head = loaded.module.get_output_embeddings()
    hidden_ND = torch.randn(3, 32, dtype=head.weight.dtype)
    with torch.no_grad():
        q1_NV, q2_NV = head.followers(hidden_ND.float())
        assert torch.equal(head(hidden_ND).argmax(-1), torch.minimum(q1_NV, q2_NV).argmax(-1))
        shift_NV = (head(hidden_ND) - head.head(hidden_ND).float()) / 1e4
        torch.testing.assert_close(shift_NV, torch.minimum(q1_NV, q2_NV), atol=1e-3, rtol=1e-3)
    with pytest.raises(UsageError, match="has no value heads"):
        GuidedCompleter(model)

    merged = merge(MergeConfig(), adapter=made, run=run)  # its value heads go along
    assert (merged.payload / VALUE_HEADS).read_bytes() == (made.payload / VALUE_HEADS).read_bytes()
    assert GuidedCompleter(merged, beta=0.0).complete(asked, GREEDY) == TorchEngine(merged).complete(asked, GREEDY)


def test_the_rarer_way_that_wins_is_taken(run: Run) -> None:
    """Of twelve walks six go `bx` and lose, four `cx` and lose, two `bw` and win: imitation writes `bx`, ILQL `bw`."""
    rows = [("a", "bx", "0")] * 6 + [("a", "cx", "0")] * 4 + [("a", "bw", "1")] * 2
    model, data = toys.base(toys.BaseConfig(), run=run), walks(WalksConfig(walks=tuple(rows)), run=run)
    settings = {**SMALL, "method": Full(), "head_units": 64, "learning_rate": 3e-3, "epochs": 40, "warmup_share": 0.02}
    made = ilql(ILQLConfig(**settings, step_tokens=4096, micro_batch_tokens=4096, follow_share=0.2), model=model, dataset=data, run=run)
    assert isinstance(made, Model)
    asked = [Conversation((Message("user", "a"),))]
    [alone], [better] = (GuidedCompleter(made, beta=beta).complete(asked, GREEDY) for beta in (0.0, 16.0))
    assert (alone.text, better.text) == ("bx", "bw")


# -- forecast ----------------------------------------------------------------------------------------------------------------

ROWS = WalksConfig(walks=(("a", "bcd", "1"), ("a", "ccd", "0"), ("b", "cd", "0.5")))
HEADS = 2 * (32 * 8 + 8 + 8 * 259 + 259), 32 * 8 + 8 + 8 + 1  # both Q, and V: 8 units over 32, a vocabulary of 259


def test_what_it_needs_by_hand(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Base and adapter as in `test_forecasts`; Q, V and Q' in float32, Q' neither with a gradient nor with a state. What all three make of
    the vocabulary, weighed where it is made, has room in what was foreseen."""
    wide = list[int]()  # bytes of what is as wide as the vocabulary and kept for the backward pass

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        wide.append(tensor.nbytes if tensor.ndim == 2 and tensor.shape[1] == 259 and tensor.shape[0] != 8 else 0)
        return tensor

    found = weighed(monkeypatch, ilql_module, "hidden_states")
    settings = {**SMALL, "step_tokens": 4096, "micro_batch_tokens": 4096}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made = ilql(ILQLConfig(**settings), model=toys.base(toys.BaseConfig(), run=run), dataset=walks(ROWS, run=run), run=run)
    foreseen, facts = made.manifest.facts["forecast"], made.manifest.facts
    (q, v), labels = HEADS, facts["ledger"]["trained_tokens"]
    assert foreseen["trained_weights"] == ADAPTER + q + v and foreseen["gradient_bytes"] == 4 * (ADAPTER + q + v)
    assert foreseen["optimizer_bytes"] == 12 * (ADAPTER + q + v) and foreseen["weights_bytes"] == 4 * (WEIGHTS + ADAPTER + 2 * q + v)
    assert foreseen["logits_bytes"] == 3 * labels * 259 * (4 + 12)
    assert 0.95 * foreseen["activation_bytes"] <= max(found) <= 1.05 * foreseen["activation_bytes"]
    assert 0 < sum(wide) <= foreseen["logits_bytes"]
    assert foreseen["steps"] == 1 and foreseen["tokens"] == facts["ledger"]["real_tokens"]
    # the next forecast is what this one took
    again = ilql_forecast(ILQLConfig(**settings), model=toys.base(toys.BaseConfig(), run=run), dataset=walks(ROWS, run=run), home=run.home)
    assert again["seconds"] == pytest.approx(facts["ledger"]["seconds"], abs=0.001)


def test_a_dry_run_refuses_preferences(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    model, pairs = toys.base(toys.BaseConfig(), run=run), pair_sites.compared(pair_sites.ComparedConfig(), run=run)
    good = walks(ROWS, run=run)
    for dataset, code in ((good, 0), (pairs, 2)):
        with pytest.raises(SystemExit) as ended:
            main(["align", "ilql", "--model", model.id, "--dataset", dataset.id, "--home", str(run.home), "--dry-run"])
        assert ended.value.code == code
    said = capsys.readouterr()
    assert json.loads(said.out)["forecast"]["examples"] == 3
    assert "rows of the schema `preference`, and this needs `sft` or `text`" in said.err


# -- bad input ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reward", "said"), [("", "no reward"), ("good", "'good'"), ("nan", "'nan'")])
def test_a_reward_that_is_no_number_is_refused(reward: str, said: str, run: Run) -> None:
    data = walks(WalksConfig(walks=(("a", "b", "1"), ("a", "c", reward))), run=run)
    with pytest.raises(UsageError, match=said):
        ilql(ILQLConfig(**SMALL), model=toys.base(toys.BaseConfig(), run=run), dataset=data, run=run)


def test_rewards_that_are_all_alike_teach_nothing(run: Run) -> None:
    data = walks(WalksConfig(walks=(("a", "b", "1"), ("a", "c", "1"))), run=run)
    with pytest.raises(Refused, match="none is better"):
        ilql(ILQLConfig(**SMALL), model=toys.base(toys.BaseConfig(), run=run), dataset=data, run=run)
