"""Every method alike: what moves, what is saved, what plain peft makes of it, what merges, what stands together, what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification, BertModel

from mygpt.core.errors import Refused, UsageError
from mygpt.infer.protocols import Sampling
from mygpt.infer.scoring import Text, score_texts
from mygpt.lm.adapters import methods
from mygpt.lm.adapters.bottleneck import Bottleneck
from mygpt.lm.adapters.ia3 import IA3
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.adapters.prefix import Prefix
from mygpt.lm.adapters.prompt import Prompt
from mygpt.training.losses import hidden_states
from tests.infer.tiny_models import ask, engine_of, tiny_module
from tests.lm import tuned
from tests.lm.tuned import ADAPTERS, IDS_BT, LORA_FAMILY, METHODS, VIRTUAL, label

WINDOWED = ["gemma2", "mistral"]
LONGER = tuple(method.model_copy(update={"num_tokens": 7}) for method in VIRTUAL)


# -- what moves -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS, ids=label)
def test_the_loss_falls_and_only_what_was_declared_moves(method: Any) -> None:
    module, base = tuned.attached(method), dict(tiny_module("llama").named_parameters())
    names = {name for name, _ in tuned.trained(module)}
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    losses = tuned.steps(module, method, 8, learning_rate=2e-2)
    assert losses[-1] < losses[0] - 0.02
    moved = {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}
    assert moved == names
    frozen = [(name, p) for name, p in module.named_parameters() if name not in names and "rotary" not in name]
    for name, parameter in frozen:  # bit for bit what the base holds under the same name
        wrapper = "base_model." if method in VIRTUAL else "base_model.model."
        plain = name.removeprefix(wrapper).replace(".base_layer", "")
        assert torch.equal(parameter, base[plain]), name
    if method.name not in ("full", "freeze"):
        assert len(frozen) >= len(base)


@pytest.mark.parametrize("method", METHODS, ids=label)
def test_what_is_learnt_gets_the_gradient_in_bfloat16_that_it_gets_in_float32(method: Any) -> None:
    """Heads of 32 numbers: for bfloat16 in these some processors have kernels of their own, forwards only."""
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        base = tiny_module("llama", hidden_size=64, num_attention_heads=2, num_key_value_heads=1)
        for parameter in base.parameters():
            parameter.data = (parameter.data if parameter.dim() == 1 else parameter.data / 3).to(dtype)  # calm: rounding stays small
        torch.manual_seed(1)
        module = methods.attach(base, method, tokenizer=tuned.TOKENIZER).eval()
        hidden_BTD = hidden_states(module, IDS_BT).float()
        (hidden_BTD * torch.randn(hidden_BTD.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
        gradients.append({name: p.grad.float() for name, p in tuned.trained(module) if p.grad is not None})
    wanted, found = gradients
    assert wanted.keys() == found.keys() and wanted
    for name, one in wanted.items():
        assert (found[name] - one).norm() < 0.3 * one.norm() + 1e-6, name  # a lost part would be near 1


@pytest.mark.parametrize("method", [*LORA_FAMILY, IA3(), Bottleneck(size=4)], ids=label)
def test_begins_as_the_base(method: Any) -> None:
    assert torch.allclose(tuned.logits(tuned.attached(method)), tuned.logits(tiny_module("llama")), atol=1e-4)


@pytest.mark.parametrize("method", VIRTUAL, ids=label)
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_virtual_tokens_begin_as_the_words_before_the_text(method: Any, architecture: str) -> None:
    """Exactly as if these words stood there."""
    from mygpt.lm.adapters.real_words import ids_of

    words_BN = torch.tensor([ids_of(method.text, tuned.TOKENIZER, num_tokens=5)]).expand(len(IDS_BT), -1)
    spoken = tuned.logits(tiny_module(architecture), torch.cat([words_BN, IDS_BT], 1))[:, 5:]
    assert torch.allclose(tuned.logits(tuned.attached(method, architecture)), spoken, atol=2e-3)


# -- saved and loaded -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ADAPTERS, ids=label)
def test_saved_and_loaded(method: Any, tmp_path: Path) -> None:
    module = tuned.disturbed(method)
    folder = tuned.saved(module, method, tmp_path / "adapter")
    ours = methods.load(tiny_module("llama"), {"default": folder}).eval()
    assert torch.allclose(tuned.logits(ours), tuned.logits(module), atol=1e-5)
    assert (tuned.logits(ours) - tuned.logits(tiny_module("llama"))).abs().max() > 0.05
    assert not [name for name, p in ours.named_parameters() if p.requires_grad]
    if method.name != "bottleneck":
        plain = PeftModel.from_pretrained(tiny_module("llama"), str(folder)).eval()
        assert torch.equal(tuned.logits(plain), tuned.logits(ours))
    again = tuned.saved(tuned.disturbed(method), method, tmp_path / "again")
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["adapter_config.json", "adapter_model.safetensors"]
    assert [(folder / name).read_bytes() for name in files] == [(again / name).read_bytes() for name in files]


@pytest.mark.parametrize("method", ADAPTERS, ids=label)
def test_served_in_the_number_format_of_the_base(method: Any, tmp_path: Path) -> None:
    """As it was trained (docs/decisions/003): not in float32 beside bfloat16, which is what peft would do."""
    torch.manual_seed(1)
    module = methods.attach(tiny_module("llama").to(torch.bfloat16), method, tokenizer=tuned.TOKENIZER).eval()
    assert {p.dtype for _, p in tuned.trained(module)} == {torch.bfloat16}
    folder = tuned.saved(module, method, tmp_path / "adapter")
    loaded = methods.load(tiny_module("llama").to(torch.bfloat16), {"default": folder}).eval()
    if method not in VIRTUAL:
        assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    assert torch.equal(tuned.logits(loaded), tuned.logits(module))


# -- merged -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ADAPTERS, ids=label)
def test_switched_off_is_the_base_and_comes_back(method: Any) -> None:
    module, base = tuned.disturbed(method), tiny_module("llama")
    with torch.no_grad():
        learnt, trained = hidden_states(module, IDS_BT), [name for name, _ in tuned.trained(module)]
        with methods.switched_off(module):
            torch.testing.assert_close(hidden_states(module, IDS_BT), hidden_states(base, IDS_BT))
        assert torch.equal(hidden_states(module, IDS_BT), learnt)
    assert [name for name, _ in tuned.trained(module)] == trained
    with pytest.raises(UsageError, match="no adapter"), methods.switched_off(base):
        pass


@pytest.mark.parametrize("method", [*LORA_FAMILY, IA3()], ids=label)
def test_merged_is_unmerged(method: Any) -> None:
    unmerged = tuned.logits(module := tuned.disturbed(method))
    merged = methods.merge(module)
    assert type(merged).__name__ == "LlamaForCausalLM"
    assert {name for name, _ in merged.named_parameters()} == {name for name, _ in tiny_module("llama").named_parameters()}
    assert (tuned.logits(merged) - unmerged).abs().max() <= 1e-4 * unmerged.abs().max()


@pytest.mark.parametrize("method", [Bottleneck(size=4), *VIRTUAL], ids=label)
def test_what_cannot_be_merged_is_refused(method: Any) -> None:
    with pytest.raises(Refused, match="no matrix"):
        methods.merge(tuned.attached(method))
    with pytest.raises(UsageError, match="nothing to merge"):
        methods.merge(tiny_module("llama"))


# -- answers ----------------------------------------------------------------------------------------------------------------


def greedy(module: Any, prompt: tuple[int, ...], stops: frozenset[int], num_tokens: int) -> list[int]:
    """Token by token, the whole text through the module's own forward pass each time."""
    ids = list(prompt)
    for _ in range(num_tokens):
        ids.append(int(tuned.logits(module, torch.tensor([ids]))[0, -1].argmax()))
        if ids[-1] in stops:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize(
    ("method", "architecture"),
    [*((m, "llama") for m in ADAPTERS), *((m, a) for m in VIRTUAL for a in ("gpt2", *WINDOWED))],
    ids=lambda value: value if isinstance(value, str) else label(value),
)
def test_the_engine_answers_as_the_forward_pass_does(method: Any, architecture: str) -> None:
    """Questions that begin alike (a stem), and one that does not."""
    module = tuned.disturbed(method, architecture)
    engine = engine_of(module)
    questions = [ask("tell me about the old tower"), ask("tell me about the new tower"), ask("why?")]
    answers = engine.complete(questions, Sampling(max_tokens=6, temperature=0))
    for question, answer in zip(questions, answers, strict=True):
        prompt = engine.renderer.prompt(question)
        assert list(answer.token_ids) == greedy(module, prompt, engine.stop_token_ids, 6)


@pytest.mark.parametrize("method", ADAPTERS, ids=label)
def test_scores_are_those_of_the_forward_pass(method: Any) -> None:
    module = tuned.disturbed(method)
    stem = tuple(range(10, 50))
    texts = [Text((*stem, 60, 61), 40), Text((*stem, 60, 62, 63), 40), Text((9, 8, 7, 6), 2)]  # two share their beginning
    for i, logprob, _ in score_texts(module, texts, max_tokens=4_096):
        logprobs_TV = tuned.logits(module, torch.tensor([texts[i].ids]))[0].log_softmax(-1)
        own = sum(float(logprobs_TV[t - 1, texts[i].ids[t]]) for t in range(texts[i].start, len(texts[i].ids)))
        assert logprob == pytest.approx(own, abs=2e-3)


def test_a_window_has_fewer_places() -> None:
    engine = engine_of(tuned.attached(Prefix(num_tokens=5)))
    assert engine.context_tokens == 400 - 5 == engine_of(tiny_module("llama")).context_tokens - 5


# -- several on one base ----------------------------------------------------------------------------------------------------


PAIRS = [LORA_FAMILY[:2], (Bottleneck(size=4), Bottleneck(size=3)), *zip(VIRTUAL, LONGER, strict=True)]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: label(pair[0]))
def test_switched_per_row(pair: tuple[Any, Any], tmp_path: Path) -> None:
    """Rows of two adapters and of the base in one batch answer as each does alone."""
    alone, payloads = {}, {}
    questions = [ask("tell me about the old tower"), ask("tell me about the new tower"), ask("why?")]
    sampling = Sampling(max_tokens=6, temperature=0)
    for seed, method in enumerate(pair, start=1):
        module = tuned.disturbed(method, seed=seed)
        payloads[f"a{seed}"] = tuned.saved(module, method, tmp_path / str(seed))
        alone[f"a{seed}"] = [a.token_ids for a in engine_of(module).complete(questions, sampling)]
    alone[""] = [a.token_ids for a in engine_of(tiny_module("llama")).complete(questions, sampling)]
    engine = engine_of(methods.load(tiny_module("llama"), payloads).eval())
    engine._adapters = dict.fromkeys(payloads)  # type: ignore[arg-type]
    names = [name for name in ("a1", "", "a2") for _ in questions]
    answers = engine.complete_each(questions * 3, [sampling] * 9, [name or None for name in names])
    assert [a.token_ids for a in answers] == [*alone["a1"], *alone[""], *alone["a2"]]
    assert len({tuple(found) for found in alone.values()}) == 3


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        ((LoRA(rank=2), Prompt(num_tokens=3)), "different methods cannot share one base: `a0` .lora., `a1` .prompt_tuning."),
        ((IA3(), IA3()), "IA3 scales what the base computes"),
        ((LoRA(rank=2, weight_decomposed=True),) * 2, "DoRA scales whole columns"),
    ],
    ids=["mixed", "ia3", "dora"],
)
def test_what_cannot_stand_together_is_refused(pair: tuple[Any, ...], reason: str, tmp_path: Path) -> None:
    payloads = {f"a{i}": tuned.saved(tuned.attached(m), m, tmp_path / str(i)) for i, m in enumerate(pair)}
    with pytest.raises(UsageError, match=reason):
        methods.load(tiny_module("llama"), payloads)


# -- what an architecture cannot take ---------------------------------------------------------------------------------------


def bert(kind: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 259, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    return kind(BertConfig(**sizes, num_labels=3)).eval()


@pytest.mark.parametrize(
    ("method", "kind", "reason"),
    [
        (Prefix(), BertForSequenceClassification, "nothing hands its layers a cache"),
        (Prefix(), BertModel, "nothing hands its layers a cache"),
        (Prompt(), BertForTokenClassification, "answers once for each token"),
        (VIRTUAL[2], BertModel, "P-tuning .* answers once for each token"),
    ],
    ids=["prefix sequences", "prefix encoder", "prompt tokens", "p_tuning encoder"],
)
def test_refused_with_the_reason(method: Any, kind: Any, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        methods.attach(bert(kind), method, tokenizer=tuned.TOKENIZER)


@pytest.mark.parametrize("method", [*LORA_FAMILY, IA3(), Bottleneck(size=4), Prompt(num_tokens=3)], ids=label)
def test_a_new_head_is_trained_and_saved(method: Any, tmp_path: Path) -> None:
    module = methods.attach(bert(BertForSequenceClassification), method, tokenizer=tuned.TOKENIZER).eval()
    with torch.no_grad():
        for _, parameter in tuned.trained(module):
            parameter.add_(torch.randn(parameter.shape))
    assert any("classifier" in name for name, _ in tuned.trained(module))
    folder = tuned.saved(module, method, tmp_path / "adapter")
    loaded = methods.load(bert(BertForSequenceClassification), {"default": folder}).eval()
    with torch.no_grad():
        assert torch.allclose(loaded(input_ids=IDS_BT).logits, module(input_ids=IDS_BT).logits, atol=1e-4)
