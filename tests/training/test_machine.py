"""What this machine can do and has."""

import json
from pathlib import Path

import pytest
import torch

from mygpt.training import machine
from mygpt.training.machine import matmul_flops_per_second, memory_limit_bytes, resident_bytes

CPU = torch.device("cpu")


def test_the_fastest_product_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random_before = torch.get_rng_state()
    measured = matmul_flops_per_second(CPU, torch.float32, tmp_path)
    assert torch.equal(torch.get_rng_state(), random_before)
    assert 1e8 < measured < 1e14
    (key,) = json.loads((tmp_path / "cache" / "matmul.json").read_text())
    assert "float32" in key and f"{torch.get_num_threads()} threads" in key
    monkeypatch.setattr(machine, "_measured", lambda *args: 5.0)  # a busy moment
    assert matmul_flops_per_second(CPU, torch.float32, tmp_path) == measured
    monkeypatch.setattr(machine, "_measured", lambda *args: 2 * measured)
    assert matmul_flops_per_second(CPU, torch.float32, tmp_path) == 2 * measured
    monkeypatch.setattr(machine, "_measured", lambda *args: 5.0)
    assert matmul_flops_per_second(CPU, torch.float32, tmp_path) == 2 * measured
    assert matmul_flops_per_second(CPU, torch.bfloat16, tmp_path) == 5.0  # another format, beside the first
    assert len(json.loads((tmp_path / "cache" / "matmul.json").read_text())) == 2
    machine.remember_share("kind", 0.25, tmp_path)
    assert machine.reached_share("kind", tmp_path) == 0.25 and machine.reached_share("another", tmp_path) is None
    (tmp_path / "cache" / "matmul.json").write_text("{")
    assert matmul_flops_per_second(CPU, torch.float32, tmp_path) == 5.0


@pytest.mark.parametrize(
    ("membership", "files", "limits"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "3000000"}, [3_000_000]),
        ("0::/a/b\n", {"a/b/memory.max": "500", "a/memory.max": "700"}, [500, 700]),
        ("0::/\n", {"memory.max": "900"}, [900]),
        ("3:cpu:/x\n2:memory:/x\n", {"memory/x/memory.limit_in_bytes": "800", "x/memory.max": "1"}, [800]),
        ("0::/gone\n", {}, []),
    ],
    ids=["above", "both", "root", "version 1", "not visible"],
)
def test_control_groups(membership: str, files: dict[str, str], limits: list[int], tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text(membership)
    for name, content in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(content)
    assert machine._cgroup_limits(tmp_path / "cgroup", tmp_path / "fs") == limits


def test_the_tightest_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_cgroup_limits", lambda: [7_000, 5_000])
    assert memory_limit_bytes(CPU) == 5_000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # ranks of one machine share it
    assert memory_limit_bytes(CPU) == 2_500
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    monkeypatch.setattr(machine, "_cgroup_limits", list)
    assert memory_limit_bytes(CPU) > 1e8
    assert 1e7 < resident_bytes(CPU) < memory_limit_bytes(CPU)
