"""Loading: the same logits as transformers and peft give, in the asked number format, and nothing written back."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.errors import Refused, UsageError
from mygpt.core.run import Run
from mygpt.lm.load import load_lm, preferred_dtype
from mygpt.lm.sources import obtain

IDS = torch.tensor([[1, 5, 9, 40, 41, 2]])


@pytest.fixture
def tiny(tiny_folder: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setenv("MYGPT_HOME", str(tmp_path / "cache"))
    return obtain(str(tiny_folder), run=run)


class LoraConfig(Config):
    rank: int = 2


@recipe
def random_lora(config: LoraConfig, *, model: Model, run: Run) -> Adapter:
    import peft

    def write(folder: Path) -> None:
        torch.manual_seed(1)
        settings = peft.LoraConfig(r=config.rank, target_modules=["q_proj"], init_lora_weights=False)
        peft.get_peft_model(load_lm(model, dtype=torch.float32).module, settings).save_pretrained(folder)

    return publish(Adapter, run, write, facts={"base": model.digest, "method": "lora"})


@recipe
def of_another_model(config: LoraConfig, *, run: Run) -> Adapter:
    def write(folder: Path) -> None:
        (folder / "adapter_config.json").write_text("{}")

    return publish(Adapter, run, write, facts={"base": "0" * 64})


@recipe
def tuned_with_another_template(config: LoraConfig, *, model: Model, run: Run) -> Adapter:
    import peft

    def write(folder: Path) -> None:
        settings = peft.LoraConfig(r=config.rank, target_modules=["q_proj"])
        peft.get_peft_model(load_lm(model, dtype=torch.float32).module, settings).save_pretrained(folder)

    return publish(Adapter, run, write, facts={"base": model.digest, "template": "f" * 64})


def logits(module: Any) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = module(input_ids=IDS).logits
    return result


def test_logits_are_those_of_transformers(tiny: Model, tiny_folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    loaded = load_lm(tiny, dtype=torch.float32)
    reference = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32).eval()
    torch.testing.assert_close(logits(loaded.module), logits(reference), atol=1e-5, rtol=1e-5)  # kernels of our own add in another order
    assert not loaded.module.training
    assert loaded.tokenizer.eos_token_id == 2
    assert loaded.device.type in ("cpu", "cuda")


def test_dtype_is_the_asked_one_else_the_preferred(tiny: Model) -> None:
    assert load_lm(tiny, dtype=torch.float32).module.dtype == torch.float32
    assert load_lm(tiny).module.dtype == preferred_dtype()
    assert preferred_dtype(torch.device("cpu")) in (torch.bfloat16, torch.float32)


def test_an_adapter_changes_the_logits_as_peft_does(tiny: Model, tiny_folder: Path, run: Run) -> None:
    import peft
    from transformers import AutoModelForCausalLM

    adapter = random_lora(LoraConfig(), model=tiny, run=run)
    ours = logits(load_lm(tiny, adapter=adapter, dtype=torch.float32).module)
    base = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    theirs = logits(peft.PeftModel.from_pretrained(base, str(adapter.payload)).eval())
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(ours, logits(load_lm(tiny, dtype=torch.float32).module))


def test_an_adapter_of_another_model_is_a_usage_error(tiny: Model, run: Run) -> None:
    with pytest.raises(UsageError, match="was trained on 000000000000"):
        load_lm(tiny, adapter=of_another_model(LoraConfig(), run=run))


def test_an_embedder_is_not_a_language_model(minilm: Model) -> None:
    with pytest.raises(UsageError, match="head `embedder`"):
        load_lm(minilm)


def test_training_in_place_leaves_the_artefact_as_it_is(tiny: Model) -> None:
    """Weights may be mapped from the file: writing to them must not reach it."""
    module = load_lm(tiny, dtype=torch.float32).module
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1.0)
    tiny.store.verify(tiny.manifest)


def test_a_chat_template_other_than_that_of_tuning_is_refused(tiny: Model, run: Run) -> None:
    adapter = tuned_with_another_template(LoraConfig(), model=tiny, run=run)
    with pytest.raises(Refused, match="was tuned with the chat template ffffffffffff, and the one at hand is"):
        load_lm(tiny, adapter=adapter, dtype=torch.float32)
