"""Supervised fine-tuning by every method: what it makes, and bases in four bits. Killed and resumed: test_killed.py."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.finetune.sft import SFTConfig, sft, sft_forecast
from mygpt.infer.protocols import Sampling
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.adapters import methods
from mygpt.lm.adapters.bottleneck import Bottleneck
from mygpt.lm.adapters.freeze import Freeze
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.ia3 import IA3
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.adapters.p_tuning import PTuning
from mygpt.lm.adapters.prefix import Prefix
from mygpt.lm.adapters.prompt import Prompt
from mygpt.lm.load import load_lm
from mygpt.training.losses import summed_cross_entropy
from mygpt.training.recompute import recompute_layers
from tests.finetune import toys
from tests.infer.tiny_models import ask

FAST: dict[str, Any] = {"step_tokens": 256, "micro_batch_tokens": 256, "precision": "float32", "learning_rate": 1e-2, "epochs": 2}
VIRTUAL = (Prefix(num_tokens=4), Prompt(num_tokens=4), PTuning(num_tokens=4, hidden_size=16))
METHODS = (
    *(LoRA(rank=2, weight_decomposed=True), LoRA(rank=2, weights="nf4"), IA3(), Bottleneck(size=4), Freeze(num_layers=1, layer_decay=0.5)),
    *VIRTUAL,
)


def label(method: Any) -> str:
    return f"{method.name}{'-dora' * getattr(method, 'weight_decomposed', False)}{'-nf4' * (getattr(method, 'weights', '') == 'nf4')}"


@pytest.fixture
def model(run: Run) -> Model:
    return toys.base(toys.BaseConfig(), run=run)


@pytest.fixture
def dataset(run: Run) -> Dataset:
    return toys.pairs(toys.PairsConfig(), run=run)


@pytest.mark.parametrize("method", METHODS, ids=label)
def test_packed_or_computed_again_changes_nothing(method: Any, model: Model, dataset: Dataset, run: Run) -> None:
    """One step an epoch over all pairs: each in a row of its own, all in one row, and layers computed again. Before virtual tokens the
    model builds no mask that keeps examples apart: that is found, said, and they get a row each."""
    said: list[str] = []
    run.listeners.append(lambda event: said.append(event["text"]) if event["event"] == "warning" else None)
    one_step = {**FAST, "step_tokens": 4096, "learning_rate": 1e-3}
    ways = ({"pack_tokens": 0}, {"pack_tokens": 4096}, {"pack_tokens": 4096, "recompute": True})
    made = [sft(SFTConfig(**one_step, **way, method=method), model=model, dataset=dataset, run=run).manifest.facts for way in ways]
    assert [facts["packed"] for facts in made] == [False, method not in VIRTUAL, method not in VIRTUAL]
    why = "Examples of LlamaForCausalLM are not packed, each is a row of its own: an example notices what stands before it in the row"
    assert [text.startswith(why) for text in said] == [True] * 2 * (method in VIRTUAL)
    apart = 2e-2 if getattr(method, "weights", "") == "nf4" else 2e-4  # four bits are multiplied in bfloat16
    for facts in made[1:]:
        assert [loss for _, loss in facts["curve"]] == pytest.approx([loss for _, loss in made[0]["curve"]], abs=apart)
    assert made[0]["curve"][1][1] < made[0]["curve"][0][1]  # the update moved something


@pytest.mark.parametrize("method", [Full(), LoRA(rank=2, targets=("in_proj",))], ids=label)
def test_a_running_state_is_trained(method: Any, dataset: Dataset, run: Run) -> None:
    """Mamba: no heads, no pairs of tokens, no packing. What a refusal names as possible is so."""
    model = toys.base(toys.BaseConfig(architecture="mamba"), run=run)
    facts = sft(SFTConfig(**FAST, method=method), model=model, dataset=dataset, run=run).manifest.facts
    losses = [loss for _, loss in facts["curve"]]
    assert sum(losses[len(losses) // 2 :]) < sum(losses[: len(losses) // 2]) and not facts["packed"]
    assert sft_forecast(SFTConfig(**FAST, method=method), model=model, dataset=dataset, home=run.home)["flops"] > 0


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (LoRA(), "peft does not put LORA into a MambaForCausalLM: .* Module 'out_proj' is incompatible"),
        (LoRA(targets=("x_proj", "dt_proj")), "reads the matrix of `dt_proj` without calling it"),
        (IA3(), "No layers with attention"),
        (Bottleneck(), "No layers with attention"),
        (Freeze(), "No layers with attention"),
        (Prefix(num_tokens=4), "keeps a running state"),
        (Prompt(num_tokens=4), "keeps a running state"),
        (PTuning(num_tokens=4), "keeps a running state"),
    ],
    ids=lambda value: label(value) if not isinstance(value, str) else "",
)
def test_what_a_running_state_cannot_take_is_refused_before_weights_are_loaded(
    method: Any, reason: str, dataset: Dataset, run: Run
) -> None:
    model = toys.base(toys.BaseConfig(architecture="mamba"), run=run)
    with pytest.raises(Refused, match=reason):
        sft_forecast(SFTConfig(**FAST, method=method), model=model, dataset=dataset, home=run.home)


@pytest.mark.parametrize("method", [LoRA(rank=2, weight_decomposed=True), IA3(), Bottleneck(size=4), Prefix(num_tokens=4)], ids=label)
def test_the_gradient_of_layers_computed_again_is_the_same(method: Any, model: Model) -> None:
    ids_BT, trained_BT = torch.arange(3, 43).view(2, 20), torch.ones(2, 20, dtype=torch.bool)
    found = []
    for again in (False, True):
        loaded = load_lm(model, dtype=torch.float32)
        torch.manual_seed(0)
        module = methods.attach(loaded.module, method, tokenizer=loaded.tokenizer).eval()
        trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        with torch.no_grad():
            for _, parameter in trained:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
        summed_cross_entropy(recompute_layers(module) if again else module, ids_BT, trained_BT).backward()
        found.append({name: p.grad for name, p in trained})
    for name, gradient in found[0].items():
        assert gradient is not None and gradient.abs().max() > 0, name
        assert (found[1][name] - gradient).abs().max() <= 1e-5 * gradient.abs().max(), name


@pytest.mark.parametrize("method", [*METHODS, Full(), LoRA()], ids=label)
def test_every_method_is_foreseen(method: Any, model: Model, dataset: Dataset, run: Run) -> None:
    """On the meta device, no weight loaded: the trained weights are those that training then moves."""
    foreseen = sft_forecast(SFTConfig(**FAST, method=method), model=model, dataset=dataset, home=run.home)
    loaded = load_lm(model, dtype=torch.float32)
    module = methods.attach(loaded.module, method, tokenizer=loaded.tokenizer)
    trained = [p for p in module.parameters() if p.requires_grad]
    assert foreseen["trained_weights"] == sum(p.numel() for p in trained) > 0
    assert foreseen["gradient_bytes"] == 4 * foreseen["trained_weights"] and foreseen["activation_bytes"] > 10_000
    whole = sum(p.numel() * 4 for p in module.parameters())
    if getattr(method, "weights", "") == "nf4":  # the embedding stays whole; 0.52 bytes for each frozen weight of a linear layer
        assert 0.2 * whole < foreseen["weights_bytes"] < 0.6 * whole
    else:
        assert foreseen["weights_bytes"] == whole


@pytest.mark.parametrize("method", METHODS, ids=label)
def test_answers_with_what_was_learnt(method: Any, model: Model, dataset: Dataset, run: Run) -> None:
    made = sft(SFTConfig(**{**FAST, "epochs": 1}, method=method), model=model, dataset=dataset, run=run)
    assert isinstance(made, Model if method.name == "freeze" else Adapter)
    engine = TorchEngine(made) if isinstance(made, Model) else TorchEngine(model, adapter=made)
    before = TorchEngine(model).score(["Who?"], [" Clara"])[0].logprob
    assert engine.score(["Who?"], [" Clara"])[0].logprob != pytest.approx(before, abs=1e-4)
    assert len(engine.complete([ask("Who founded the museum?")], Sampling(max_tokens=3, temperature=0))[0].token_ids) <= 3


def test_the_learnt_prompt_can_be_read(model: Model, dataset: Dataset, run: Run) -> None:
    method = Prompt(num_tokens=3, text="abc")
    facts = sft(SFTConfig(**{**FAST, "learning_rate": 1e-5}, method=method), model=model, dataset=dataset, run=run).manifest.facts
    assert [row[0][0] for row in facts["nearest_words"]] == ["a", "b", "c"]
    assert set(facts["tightness"]) == {"learnt", "random"}


def test_without_a_rate_the_methods_own_is_taken_and_said(model: Model, dataset: Dataset, run: Run) -> None:
    notes: list[str] = []
    rates: list[float] = []
    run.listeners.append(lambda event: notes.append(event["text"]) if event["event"] == "note" else None)
    run.listeners.append(lambda event: rates.append(event["learning_rate"]) if event["event"] == "log" else None)
    settings = {**FAST, "learning_rate": None, "warmup_share": 0.0}
    sft(SFTConfig(**settings, method=IA3()), model=model, dataset=dataset, run=run)
    own = IA3().learning_rate
    assert f"Learning rate {own:g}, the usual one of `method=ia3`." in notes
    assert max(rates) == pytest.approx(own)


def test_an_adapter_of_four_bits_is_served_on_four_bits(model: Model, dataset: Dataset, run: Run) -> None:
    from bitsandbytes.nn import Linear4bit

    made = sft(SFTConfig(**FAST, method=LoRA(rank=2, weights="nf4")), model=model, dataset=dataset, run=run)
    assert isinstance(made, Adapter) and made.manifest.facts["weights"] == "nf4"
    served, whole = load_lm(model, adapter=made), load_lm(model, adapter=made, weights="full")
    kinds = [type(one.module.base_model.model.model.layers[0].mlp.up_proj.base_layer) for one in (served, whole)]
    assert kinds == [Linear4bit, torch.nn.Linear]


def test_an_example_must_leave_room_for_virtual_tokens(model: Model, run: Run) -> None:
    """The window is 256; with 200 virtual tokens before it 56 are left."""
    dataset = toys.pairs(toys.PairsConfig(), run=run)
    with pytest.raises(Refused, match="longer than 56 tokens"):
        sft(SFTConfig(**FAST, method=Prompt(num_tokens=200)), model=model, dataset=dataset, run=run)


def test_a_refused_method_leaves_nothing(model: Model, run: Run, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="6 layers were to be trained, and the model has 2"):
        sft(SFTConfig(**FAST, method=Freeze(num_layers=6)), model=model, dataset=dataset, run=run)
    assert len(list(run.home.glob("artifacts/model/*"))) == 1
