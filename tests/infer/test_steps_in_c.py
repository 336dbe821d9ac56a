"""Whole answers whose steps are computed in C (`lm/decode_layers`): in bfloat16 as near to a float32 forward pass as those of the modules,
in float32 equal to it."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model

from mygpt.artifacts.model import Model
from mygpt.infer import batch
from mygpt.infer.protocols import Answer, Sampling
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.fused_layer import fuse
from mygpt.lm.load import load_lm
from mygpt.lm.low_rank import written_in
from mygpt.lm.processor import has_cpu_flag
from mygpt.lm.virtual_tokens import install
from tests.infer.test_torch_engine import MIXED, PASSAGE
from tests.infer.tiny_models import ask, engine_of, own_greedy, tiny_module

pytestmark = pytest.mark.skipif(
    not has_cpu_flag("avx512_bf16") or shutil.which("cc") is None, reason="no AVX-512 BF16, or no C compiler, on this machine"
)
SHAPE: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of every forward pass: whether it was computed in C."""
    seen: list[bool] = []
    own = batch.decoded

    def noted(*given: Any) -> torch.Tensor | None:
        made = own(*given)
        seen.append(made is not None)
        return made

    monkeypatch.setattr(batch, "decoded", noted)
    return seen


def narrow(architecture: str, **settings: Any) -> Any:
    module = tiny_module(architecture, **{**SHAPE, **settings})
    with torch.no_grad():
        for weight in module.parameters():
            weight.mul_(0.4 if weight.dim() > 1 else 1.0)  # sharp enough that tokens differ, flat enough that rounding does not decide
    return fuse(module.to(torch.bfloat16))


def mean_error(module: Any, engine: TorchEngine, answers: list[Answer], conversations: list[Any]) -> float:
    """Of the log-probabilities, against one forward pass of the whole text in float32."""
    exact = module.to(torch.float32)
    errors = []
    for conversation, answer in zip(conversations, answers, strict=True):
        prompt = engine.renderer.prompt(conversation)
        with torch.inference_mode():
            logits_TV = exact(input_ids=torch.tensor([prompt + answer.token_ids])).logits[0]
        found = logits_TV.log_softmax(-1)[len(prompt) - 1 : -1].gather(-1, torch.tensor(answer.token_ids)[:, None])[:, 0]
        errors += (found - torch.tensor(answer.logprobs)).abs().tolist()
    module.to(torch.bfloat16)
    return sum(errors) / len(errors)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "mistral"])
@pytest.mark.parametrize(("lane_slots", "max_rows"), [(batch._LANE_SLOTS, 64), (1, 64), (batch._LANE_SLOTS, 3)])
def test_log_probabilities(
    architecture: str, lane_slots: int, max_rows: int, steps: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trees of several rows, lanes of their own, rows that come in later. Errors are those of bfloat16: as large as the modules', give or
    take a quarter, since answers part where two tokens are as likely."""
    monkeypatch.setattr(batch, "_LANE_SLOTS", lane_slots)
    module = narrow(architecture)
    engine = engine_of(module, max_rows=max_rows)
    answers = engine.complete(MIXED, Sampling(max_tokens=24))
    assert sum(steps) >= 23 and not all(steps)  # prompts are too many tokens for it
    ours = mean_error(module, engine, answers, MIXED)
    monkeypatch.setattr(batch, "decoded", lambda *given: None)
    theirs = mean_error(module, engine, engine.complete(MIXED, Sampling(max_tokens=24)), MIXED)
    assert ours < 1.25 * theirs and theirs < 0.03


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "mistral"])
@pytest.mark.parametrize(("lane_slots", "max_rows"), [(batch._LANE_SLOTS, 64), (1, 3)])
def test_in_float32_they_are_those_of_transformers(
    architecture: str, lane_slots: int, max_rows: int, steps: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "_LANE_SLOTS", lane_slots)
    module = narrow(architecture).float()
    engine = engine_of(module, max_rows=max_rows)
    answers = engine.complete(MIXED, Sampling(max_tokens=24))
    assert sum(steps) >= 23 and not all(steps)
    stops = engine.renderer.stop_token_ids
    for conversation, answer in zip(MIXED, answers, strict=True):
        prompt = engine.renderer.prompt(conversation)
        assert list(answer.token_ids) == own_greedy(module, prompt, max_tokens=24, stops=stops)
        logits_TV = module(input_ids=torch.tensor([prompt + answer.token_ids])).logits[0]
        wanted = logits_TV.log_softmax(-1)[len(prompt) - 1 : -1].gather(-1, torch.tensor(answer.token_ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(answer.logprobs), wanted.detach(), atol=1e-4, rtol=0)


def test_drawn_answers_can_be_repeated_and_do_not_depend_on_threads(steps: list[bool]) -> None:
    module = narrow("llama")
    asked, sampling = [ask(PASSAGE + "When?"), ask("Hi")], Sampling(max_tokens=20, temperature=1.0, seed=4)
    first = engine_of(module).complete(asked, sampling)
    torch.set_num_threads(2)
    assert [a.token_ids for a in engine_of(module).complete(asked, sampling)] == [a.token_ids for a in first]
    assert sum(steps) > 30


def test_behind_virtual_tokens(steps: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    module = get_peft_model(narrow("llama"), PrefixTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"))
    torch.nn.init.normal_(module.prompt_encoder["default"].embedding.weight, std=0.5)
    install(module.eval())
    module.to(torch.bfloat16)
    engine = engine_of(module)
    answers = engine.complete(MIXED, Sampling(max_tokens=12))
    assert sum(steps) >= 11
    ours = mean_error(module, engine, answers, MIXED)
    monkeypatch.setattr(batch, "decoded", lambda *given: None)
    theirs = mean_error(module, engine, engine.complete(MIXED, Sampling(max_tokens=12)), MIXED)
    assert ours < 1.25 * theirs and theirs < 0.03


def test_updates_at_work_go_through_the_modules_and_written_in_they_do_not(steps: list[bool]) -> None:
    torch.manual_seed(2)
    module = get_peft_model(narrow("llama"), LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"))
    module.eval().to(torch.bfloat16)
    at_work = engine_of(module).complete(MIXED, Sampling(max_tokens=8))
    assert not any(steps)
    with written_in(module):
        written = engine_of(module).complete(MIXED, Sampling(max_tokens=8))
    assert any(steps)
    alike = [(a, b) for one, other in zip(at_work, written, strict=True) for a, b in zip(one.logprobs[:1], other.logprobs[:1], strict=True)]
    assert all(abs(a - b) < 0.1 for a, b in alike)


def test_the_real_model(smollm2: Model, steps: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """SmolLM2-135M in bfloat16: errors no larger than the modules', and where greedy answers part, two tokens were nearly as likely."""
    loaded = load_lm(smollm2, dtype=torch.bfloat16)
    engine = TorchEngine(smollm2, loaded=loaded)
    asked = [*(ask(f"{PASSAGE} {question}") for question in ("When?", "How many programs?", "What does it do?")), ask("Name a colour.")]
    found = engine.complete(asked, Sampling(max_tokens=16))
    assert sum(steps) >= 15
    monkeypatch.setattr(batch, "decoded", lambda *given: None)
    by_modules = engine.complete(asked, Sampling(max_tokens=16))
    ours, theirs = (mean_error(loaded.module, engine, answers, asked) for answers in (found, by_modules))
    assert ours < 1.25 * theirs and theirs < 0.1
    for one, other in zip(found, by_modules, strict=True):
        part = next((i for i, pair in enumerate(zip(one.token_ids, other.token_ids, strict=False)) if len(set(pair)) > 1), None)
        assert part is None or abs(one.logprobs[part] - other.logprobs[part]) < 0.3
