"""The benchmark of a GPU, its tiny shape on whatever device is here: our side whole, and what it says of itself."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import accelerator, record
from benchmarks.accelerator import QUICK, SHAPES, Work, chats, earlier, own, random_llama
from mygpt.core.run import Run
from mygpt.lm.chat import ChatRenderer
from mygpt.lm.load import load_tokenizer


@pytest.mark.parametrize("method", ["full", "lora"])
def test_our_side_of_the_quick_path(method: str, run: Run, tmp_path: Path) -> None:
    """Operations by hand: the layers' 73,728 weights, the vocabulary product where a label is, a pair of tokens in each of two layers."""
    work = replace(next(one for one in QUICK if one.method == method), updates=6)
    model = random_llama(SHAPES[work.shape], run=run)
    rendered, rows = chats(work, ChatRenderer(load_tokenizer(model)))
    lengths = [len(one.token_ids) for one in rendered]
    labels = sum(sum(one.trained[1:]) for one in rendered)
    assert sum(lengths) >= 6 * 1_024 > sum(lengths) - 256 and max(lengths) <= 256
    with torch.compiler.set_stance("force_eager"):  # the compiler takes longer than the rest
        found = own(work, model, rows, rendered, tmp_path)
    assert found["trained_tokens"] == labels and len(found["seconds_of_updates"]) == found["updates_done"] - 1 >= 5
    assert found["losses"][-1] < found["losses"][0] < 6.8  # ln 768 = 6.64
    if method == "full":
        layers = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
        by_hand = 6 * layers * sum(lengths) + 6 * 768 * 64 * labels + 2 * 12 * 64 * sum(n * n for n in lengths)
        assert found["flops_per_token"] * sum(lengths) == pytest.approx(by_hand)
    speed = found["tokens_per_second"] * found["flops_per_token"] / found["limit_flops_per_second"]
    assert found["share_of_limit"] == pytest.approx(speed, abs=1e-4)


def test_without_a_gpu_it_says_what_is_needed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["accelerator", "--only", "1.2b-full"])
    with pytest.raises(SystemExit) as ended:
        accelerator.main()
    assert ended.value.code == 2 and "no GPU" in (said := capsys.readouterr().err) and "--quick" in said


def test_the_shapes_are_llamas() -> None:
    """Parameters by their model cards: 1.24 and 8.03 thousand million."""

    def weights(name: str) -> int:
        s = SHAPES[name]
        head = s.hidden // s.heads
        layer = 2 * s.hidden * s.heads * head + 2 * s.hidden * s.kv_heads * head + 3 * s.hidden * s.gate + 2 * s.hidden
        return s.layers * layer + (1 if s.tied else 2) * s.vocabulary * s.hidden + s.hidden

    assert weights("1.2b") == 1_235_814_400 and weights("8b") == 8_030_261_248


def test_parts_gather_in_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    assert earlier("accelerator", {"1.2b_full"}) == {}
    kept: dict[str, Any] = {"benchmark": "accelerator", "1.2b_full": {"ratio": 2.0}, "versions": record.versions()}
    for gpu, found in ((record.gpu(), {"1.2b_full": {"ratio": 2.0}}), ("another", {})):
        (tmp_path / "accelerator.json").write_text(json.dumps({**kept, "machine": {"gpu": gpu}}))
        assert earlier("accelerator", {"1.2b_full"}) == found and earlier("accelerator", {"8b_lora"}) == {}


def test_a_record_names_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="NVIDIA H200", total_memory=139 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    for count, told in ((1, "NVIDIA H200, 139 GiB"), (2, "2 x NVIDIA H200, 139 GiB")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        assert record.machine()["gpu"] == told
    monkeypatch.delitem(sys.modules, "torch")
    assert record.machine()["gpu"] == "none"  # who did not import torch used none


def test_each_part_makes_whole_updates() -> None:
    works: list[Work] = [work for works in (*accelerator.PARTS.values(), QUICK) for work in works]
    for work in works:
        assert work.update_tokens % work.pack_tokens == work.pack_tokens % work.row_tokens == 0
        assert work.updates > 4 and work.words[1] * 2 < 2 * work.row_tokens
