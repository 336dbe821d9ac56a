"""Fused layers against the classes they stand in for: the same logits and gradients, with adapters, caches and masks; the same files."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    ContinuousBatchingConfig,
    GenerationConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from mygpt.lm.attention import grouped_attention
from mygpt.lm.fused_layer import fuse, unfuse

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")
SMALL: dict[str, Any] = {"vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
                         "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip
CONFIGS = {
    "Llama": LlamaConfig(**SMALL),
    "Llama with biases": LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True),
    "Llama with longer positions": LlamaConfig(
        **SMALL, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    ),
    "Mistral": MistralConfig(**SMALL, sliding_window=5),
    "Qwen2": Qwen2Config(**SMALL),
    "Qwen2 with a window": Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=5, max_window_layers=1),
}


def twins(config: Any) -> tuple[Any, Any]:
    """A random model, and the same fused."""
    pair = []
    for _ in range(2):
        torch.manual_seed(3)
        module = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        for weight in module.parameters():
            torch.nn.init.normal_(weight, std=0.3)
        pair.append(module)
    return pair[0], fuse(pair[1])


def gradients(module: Any, ids_BT: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    module.zero_grad()
    with grouped_attention(module):
        logits = module(input_ids=ids_BT, use_cache=False).logits
        logits.log_softmax(-1)[..., 1].sum().backward()  # inside: a checkpointed layer is computed again here
    return logits.detach(), {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def require_alike(plain: Any, fused: Any) -> None:
    ids_BT = torch.randint(90, (3, 11), generator=torch.Generator().manual_seed(0))
    (logits, wanted), (other, found) = gradients(plain, ids_BT), gradients(fused, ids_BT)
    torch.testing.assert_close(other, logits, atol=1e-4, rtol=1e-4)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-4 * float(gradient.abs().max()) + 1e-7, rtol=1e-4, msg=name)


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_gradients(name: str) -> None:
    plain, fused = twins(CONFIGS[name])
    assert type(fused.model.layers[0]).__name__.startswith("Fused") and isinstance(fused.model.layers[0], type(plain.model.layers[0]))
    require_alike(plain, fused)


@pytest.mark.parametrize("name", CONFIGS)
def test_generation_with_a_cache_and_left_padding(name: str) -> None:
    plain, fused = twins(CONFIGS[name])
    ids_BT, mask_BT = torch.randint(1, 90, (2, 7)), torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7])
    asked = {"input_ids": ids_BT, "attention_mask": mask_BT, "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    assert plain.generate(**asked).tolist() == fused.generate(**asked).tolist()


def test_transformers_own_continuous_batching() -> None:
    """Its paged cache changes the arguments of attention: it has to be given them, and gives the same tokens."""
    plain, fused = twins(CONFIGS["Llama"])
    asked = GenerationConfig(max_new_tokens=6, do_sample=False, eos_token_id=-1, pad_token_id=0)
    prompts = [[5, 17, 33, 8], [71, 2]]
    wanted = [plain.generate(torch.tensor([ids]), generation_config=asked)[0, len(ids) :].tolist() for ids in prompts]
    size = ContinuousBatchingConfig(num_blocks=16, page_size=16, max_batch_tokens=64)  # else its cache takes most of the machine's memory
    found = fused.generate_batch(prompts, generation_config=asked, continuous_batching_config=size, warmup=False)
    by_prompt = {tuple(one.prompt_ids): one.generated_tokens for one in found.values()}
    assert [by_prompt[tuple(ids)] for ids in prompts] == wanted


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"], ["down_proj"]])
@pytest.mark.parametrize("biases", [False, True])
def test_low_rank_adapters(targets: Any, biases: bool) -> None:
    settings = LoraConfig(r=3, lora_alpha=7, target_modules=targets, task_type="CAUSAL_LM")
    pair = [get_peft_model(module, settings) for module in twins(CONFIGS["Llama with biases" if biases else "Llama"])]
    for module in pair:
        torch.manual_seed(5)
        for name, weight in module.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(weight, std=0.3)
    require_alike(*pair)
    with pair[0].disable_adapter(), pair[1].disable_adapter():
        require_alike(*(module.requires_grad_(True) for module in pair))


@pytest.mark.parametrize(
    "settings",
    [
        LoraConfig(r=3, use_dora=True, target_modules="all-linear", task_type="CAUSAL_LM"),
        LoraConfig(r=3, lora_bias=True, target_modules="all-linear", task_type="CAUSAL_LM"),
        IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"),
    ],
)
def test_other_adapters_go_their_own_way(settings: Any) -> None:
    pair = [get_peft_model(module, settings) for module in twins(CONFIGS["Llama"])]
    for module in pair:
        torch.manual_seed(5)
        for weight in module.parameters():
            if weight.requires_grad:
                torch.nn.init.normal_(weight, std=0.3)
    require_alike(*pair)


def test_rows_with_adapters_of_their_own() -> None:
    pair = []
    for module in twins(CONFIGS["Llama"]):
        made = get_peft_model(module, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"), adapter_name="a")
        made.add_adapter("b", LoraConfig(r=3, target_modules="all-linear", task_type="CAUSAL_LM"))
        torch.manual_seed(5)
        for name, weight in made.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(weight, std=0.3)
        pair.append(made.eval())
    ids_BT = torch.randint(90, (3, 6))
    with torch.no_grad():
        wanted, found = (module(input_ids=ids_BT, adapter_names=["a", "__base__", "b"]).logits for module in pair)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_hooks_checkpointing_and_dropout_are_kept() -> None:
    plain, fused = twins(CONFIGS["Llama"])
    for module in (plain, fused):
        module.model.layers[0].mlp.register_forward_hook(lambda part, given, made: made * 2)
        module.model.layers[1].self_attn.register_forward_hook(lambda part, given, made: (made[0] * 3, made[1]))
        module.train().activation_checkpointing_enable({"use_reentrant": False})
    require_alike(plain, fused)
    config = LlamaConfig(**SMALL, attention_dropout=0.5)
    dropping = [module.train() for module in twins(config)]
    ids_BT = torch.randint(90, (2, 6))
    logits = []
    for module in dropping:
        torch.manual_seed(1)
        logits.append(module(input_ids=ids_BT).logits)
    torch.testing.assert_close(logits[1], logits[0], atol=1e-4, rtol=1e-4)  # the same weights were dropped: its own forward pass


def test_files_are_those_of_the_plain_model(tmp_path: Path) -> None:
    plain, fused = twins(CONFIGS["Llama"])
    plain.save_pretrained(tmp_path / "plain")
    fused.save_pretrained(tmp_path / "fused")
    for file in sorted((tmp_path / "plain").iterdir()):
        assert file.read_bytes() == (tmp_path / "fused" / file.name).read_bytes()


def test_unfused_is_as_it_was() -> None:
    plain, fused = twins(CONFIGS["Llama"])
    assert [type(part) for part in unfuse(fused).modules()] == [type(part) for part in plain.modules()]
    require_alike(plain, fused)


def test_other_architectures_are_left_alone() -> None:
    module = fuse(AutoModelForCausalLM.from_config(Qwen3Config(**SMALL, head_dim=8)))
    assert not any(type(part).__name__.startswith("Fused") for part in module.modules())
