"""Two real processes that talk gloo over loopback give what one gives."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mygpt.artifacts.model import Adapter
from mygpt.artifacts.store import Store
from mygpt.cli.main import main
from mygpt.core.errors import Unreachable
from mygpt.core.run import Alone, Run
from mygpt.finetune.sft import SFTConfig, sft
from mygpt.training.distributed import joined_ranks, share_of
from tests.finetune import toys
from tests.finetune.objectives import tuned
from tests.training.ranks_site import summed_gradient

REPOSITORY = Path(__file__).resolve().parents[2]
LORA = {"name": "lora", "rank": 4, "alpha": 8}
SETTINGS: dict[str, Any] = {"method": LORA, "learning_rate": 5e-3, "step_tokens": 256, "micro_batch_tokens": 128}
SETTINGS |= {"precision": "float32", "epochs": 3, "checkpoint_seconds": 0}


@pytest.mark.parametrize(
    ("step", "count", "shares"),
    [
        ([[1, 2], [3], [4]], 1, [[[1, 2], [3], [4]]]),
        ([[1, 2], [3], [4]], 2, [[[1, 2], [4]], [[3]]]),
        ([[1, 2, 3, 4, 5]], 2, [[[1, 2]], [[3, 4, 5]]]),
        ([[1, 2, 3, 4], [5]], 3, [[[1, 2]], [[3, 4]], [[5]]]),
        ([[1]], 2, [[[1]], []]),
    ],
)
def test_shares(step: list[list[int]], count: int, shares: list[list[list[int]]]) -> None:
    dealt = [share_of(step, rank=rank, count=count) for rank in range(count)]
    assert dealt == shares
    assert sorted(i for share in dealt for micro in share for i in micro) == sorted(i for micro in step for i in micro)


def test_one_process_is_alone() -> None:
    with joined_ranks() as ranks:
        assert isinstance(ranks, Alone) and (ranks.rank, ranks.count) == (0, 1)


def test_a_recipe_for_one_process_is_not_started_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor resumed."""
    for more, words in (([], "runs in one process, and torchrun started 2."), (["--resume"], "does not train, so it has no checkpoint")):
        monkeypatch.setenv("WORLD_SIZE", "1" if more else "2")
        with pytest.raises(SystemExit) as ended:
            main(["data", "replay", "--completer", "tiny", "--home", str(tmp_path / "home"), *more])
        assert ended.value.code == 2
        assert f"`mygpt data replay` {words}" in capsys.readouterr().err


def test_offline_ranks_are_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "10.1.2.3", "MYGPT_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Unreachable, match=r"ranks at 10\.1.2.3 needs a connection"), joined_ranks():
        pass


# -- real ranks ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ranks() -> Iterator[Callable[..., list[Any]]]:
    """Gives orders to the site; returns how each rank ended."""
    places = os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": places, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "tests.training.ranks_site"]
    process = subprocess.Popen(command, text=True, env=environment, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout

    def order(job: str, folder: Path, **more: Any) -> list[Any]:
        line = {"job": job, "count": 2, "port": free_port(), "folder": str(folder), **more}
        process.stdin.write(json.dumps(line) + "\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        ended: list[Any] = json.loads(process.stdout.readline())  # type: ignore[union-attr]
        return ended

    yield order
    process.stdin.close()
    process.wait(timeout=20)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def test_the_gradient_of_two_is_that_of_one(ranks: Callable[..., list[Any]], tmp_path: Path) -> None:
    """Three micro-batches, dealt two and one; float32, 1e-5 of the largest entry; the same bits on both ranks."""
    assert ranks("gradient", tmp_path) == [0, 0]
    one = summed_gradient(Alone())
    first, second = (load_file(tmp_path / f"gradient-{rank}.safetensors") for rank in (0, 1))
    assert set(first) == set(one) and all(torch.equal(first[name], second[name]) for name in one)
    for name, gradient in one.items():
        assert (first[name] - gradient).abs().max() <= 1e-5 * gradient.abs().max(), name
        assert gradient.abs().max() > 0


@pytest.fixture
def trained(run: Run, tmp_path: Path) -> dict[str, Any]:
    model, dataset = toys.base(toys.BaseConfig(), run=run), toys.pairs(toys.PairsConfig(), run=run)
    shutil.copytree(run.home, tmp_path / "two")
    made = sft(SFTConfig(**SETTINGS), model=model, dataset=dataset, run=run)
    return {"one": made, "home": tmp_path / "two", "order": {"model": model.digest, "dataset": dataset.digest, "settings": SETTINGS}}


def weights(adapter: Any) -> dict[str, torch.Tensor]:
    return load_file(adapter.payload / "adapter_model.safetensors")


def require_same(a: Any, b: Any) -> None:
    facts = [made.manifest.facts for made in (a, b)]
    assert [step for step, _ in facts[0]["curve"]] == [step for step, _ in facts[1]["curve"]]
    assert [loss for _, loss in facts[0]["curve"]] == pytest.approx([loss for _, loss in facts[1]["curve"]], abs=2e-4)
    assert facts[0]["tokens"] == facts[1]["tokens"]
    for name, tensor in weights(a).items():
        assert (weights(b)[name] - tensor).abs().max() <= 1e-4 * tensor.abs().max(), name


def test_the_model_of_two_is_that_of_one(ranks: Callable[..., list[Any]], trained: dict[str, Any]) -> None:
    """One artefact, one stream of events, and both ranks hand it back."""
    home = trained["home"]
    before = len(list((home / "runs").iterdir()))
    assert ranks("sft", home, **trained["order"]) == [0, 0]
    made = Adapter.open(Store(home), "tuned")
    require_same(trained["one"], made)
    assert made.manifest.facts["ledger"]["computed_tokens"] >= made.manifest.facts["tokens"]
    assert len(list((home / "artifacts" / "adapter").iterdir())) == 1 and len(list((home / "runs").iterdir())) == before + 1
    assert {(home / f"made-by-rank-{rank}").read_text() for rank in (0, 1)} == {made.digest}
    assert not list((home / "checkpoints").glob("*"))


def test_sigterm_to_one_stops_both_and_both_go_on(ranks: Callable[..., list[Any]], trained: dict[str, Any]) -> None:
    home = trained["home"]
    ended = ranks("sft", home, **trained["order"], term_at_step=3)
    assert len(ended) == 2 and all("Stopped: Training was told to stop" in told for told in ended), ended
    assert ranks("sft", home, **trained["order"]) == [0, 0]
    require_same(trained["one"], Adapter.open(Store(home), "tuned"))


def test_a_rank_that_dies_ends_the_other(ranks: Callable[..., list[Any]], trained: dict[str, Any]) -> None:
    """With words, at once, and without harm: one process then goes on from the checkpoint of two."""
    home = trained["home"]
    first, second = ranks("sft", home, **trained["order"], die_at_step=4)
    assert second == "died" and first.startswith("MygptError: Rank 0 of 2 has lost another rank: ")
    assert "goes on from the last checkpoint" in first
    assert list((home / "checkpoints").glob("*/step-*"))
    assert ranks("sft", home, **trained["order"], count=1) == [0]
    require_same(trained["one"], Adapter.open(Store(home), "tuned"))


@pytest.mark.parametrize(
    ("objective", "changes"),
    [
        *(("classifier", {"micro_batch_tokens": 30}), ("embedder", {"micro_batch_tokens": 60})),
        *(("embedder", {"micro_batch_tokens": 2048}), ("embedder", {"step_pairs": 1})),
    ],
)
def test_other_objectives_share_their_work_too(
    objective: str, changes: dict[str, int], ranks: Callable[..., list[Any]], run: Run, tmp_path: Path
) -> None:
    """The embedder's loss is over all texts of a step, whichever rank reads them: dealt, or, where they
    fit one micro-batch, halved; of a step of one pair, too."""
    settings = {"method": LORA, "learning_rate": 5e-3, **changes}
    one = tuned(objective, "bert", run, **settings)
    (tmp_path / "two").mkdir()
    shutil.copytree(run.home, tmp_path / "two", dirs_exist_ok=True, ignore=lambda folder, names: {"adapter"} & set(names))
    assert ranks("objective", tmp_path / "two", objective=objective, settings=settings) == [0, 0]
    two = Adapter.open(Store(tmp_path / "two"), "tuned")
    require_same(one, two)
    assert one.manifest.facts["ledger"]["real_tokens"] == two.manifest.facts["ledger"]["real_tokens"]


@pytest.mark.slow
def test_torchrun(trained: dict[str, Any]) -> None:
    """The command of the page."""
    home = trained["home"]
    settings = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port()), "-m", "mygpt"]
    called = ["finetune", "sft", "--model", "tiny", "--dataset", "pairs", "--name", "tuned", "--home", str(home), "--offline", *settings]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *called], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Made adapter/tuned-") == 1
    require_same(trained["one"], Adapter.open(Store(home), "tuned"))
