"""The benchmark of alignment on a GPU, its tiny shape on whatever device is here: our side whole, and the texts that both sides learn."""

import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import align_accelerator
from benchmarks.accelerator import SHAPES, random_llama
from benchmarks.align_accelerator import QUICK, SIDES, Texts, Work, assert_falls
from mygpt.artifacts.dataset import Conversation
from mygpt.artifacts.model import Model
from mygpt.core.run import Run


@pytest.fixture
def tiny(run: Run) -> Model:
    return random_llama(SHAPES["tiny"], run=run)


def test_texts_have_their_tokens(tiny: Model) -> None:
    work = Work("dpo", prompt_tokens=40, answer_tokens=31)
    texts = Texts(tiny, work)
    for pair in texts.pairs(3):
        assert len(texts.renderer.prompt(Conversation(pair.row.prompt))) == 40
        assert [sum(one.trained) for one in (pair.chosen, pair.rejected)] == [31, 31] and pair.row.chosen != pair.row.rejected


@pytest.mark.parametrize("recipe", ["grpo", "dpo", "ppo"])
def test_our_side_of_the_quick_path(recipe: str, tiny: Model, tmp_path: Path) -> None:
    work = replace(QUICK[recipe], updates={"grpo": 3, "dpo": 12, "ppo": 3}[recipe])
    found, given = SIDES[recipe](tiny, work, Texts(tiny, work), tmp_path)
    if recipe == "dpo":
        answers = work.update_pairs * 2 * work.answer_tokens
        assert found["tokens_an_update"] <= answers + work.update_pairs * work.prompt_tokens  # a prompt once, and no stop token's end
        assert found["tokens_an_update"] > answers and len(found["losses"]) == 12 and not found["compiled"]
        assert len(given["pairs"]) == 8 and {len(pair["prompt_ids"]) for pair in given["pairs"]} == {work.prompt_tokens}
        return
    assert 0.97 * work.answer_tokens <= found["tokens_an_answer"] <= work.answer_tokens and len(set(found["rewards"])) > 1
    if recipe == "grpo":
        assert found["seconds_an_update"] == pytest.approx(statistics.median(found["seconds_of_updates"][1:]), abs=1e-3)
        assert found["sampled_tokens_per_second"] == pytest.approx(8 * found["tokens_an_answer"] / found["seconds_sampling"], rel=0.01)
    else:
        parts = [found[name] for name in ("seconds_sampling", "seconds_reading", "seconds_learning")]
        assert min(parts[::2]) > 0 and sum(parts) == pytest.approx(found["seconds_a_rollout"], rel=0.2)


def test_without_a_gpu_it_says_what_is_needed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["align_accelerator", "--only", "dpo"])
    with pytest.raises(SystemExit) as ended:
        align_accelerator.main()
    assert ended.value.code == 2 and "no GPU" in (said := capsys.readouterr().err) and "--quick" in said


def test_what_did_not_learn_is_no_measurement() -> None:
    assert_falls([0.7, 0.69, 0.5, 0.5, 0.2, 0.1])
    stays: list[Any] = [0.7] * 6
    with pytest.raises(AssertionError, match="did not fall"):
        assert_falls(stays)
