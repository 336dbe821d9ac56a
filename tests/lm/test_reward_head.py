"""The head `reward`: how it begins, where it is read, and which architectures have it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.lm.adapters import methods
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.checkpoint import facts_of
from mygpt.lm.heads import open_head
from mygpt.lm.reward_head import keep_padding_apart, rewards_at
from mygpt.training.losses import hidden_states
from tests.finetune import shapes, toys
from tests.training import tiny


class FamilyConfig(Config):
    name: str = "granite"


@recipe
def family(config: FamilyConfig, *, run: Run) -> Model:
    def write(folder: Path) -> None:
        tiny.family(config.name).save_pretrained(folder)
        tokenizer = tiny.chat_tokenizer()
        tokenizer.save_pretrained(folder)

    return publish(Model, run, write, facts={"head": "lm", "source": "test"}, name=config.name)


def test_begins_small_and_by_the_seed(run: Run) -> None:
    """N(0, 1 / sqrt(33)) of 32 hidden numbers: standard deviation 0.174; no bias."""
    model = toys.base(toys.BaseConfig(), run=run)
    heads = [open_head(model, "reward", seed=seed, dtype=torch.float32).module.score for seed in range(40)]
    weights = torch.cat([head.weight.detach().reshape(-1) for head in heads])
    assert heads[0].bias is None and heads[0].weight.shape == (1, 32)
    assert float(weights.std()) == pytest.approx(33**-0.5, rel=0.06) and float(weights.mean()) == pytest.approx(0, abs=0.02)
    again = open_head(model, "reward", seed=7, dtype=torch.float32)
    assert torch.equal(again.module.score.weight, heads[7].weight) and again.new == ("score",)


def test_a_saved_head_is_kept(run: Run, tmp_path: Path) -> None:
    """Also one that was made elsewhere, whose one label has another name."""
    from mygpt.lm.sources import FolderConfig, from_folder

    opened = open_head(toys.base(toys.BaseConfig(), run=run), "reward", seed=1, dtype=torch.float32)
    opened.module.config.id2label, opened.module.config.label2id = {0: "LABEL_0"}, {"LABEL_0": 0}
    opened.module.save_pretrained(tmp_path / "made")
    opened.tokenizer.save_pretrained(tmp_path / "made")
    assert facts_of(tmp_path / "made")["head"] == "reward"
    model = from_folder(FolderConfig(name="made"), folder=tmp_path / "made", run=run)
    again = open_head(model, "reward", seed=2, dtype=torch.float32)
    assert torch.equal(again.module.score.weight, opened.module.score.weight) and again.new == ()


@pytest.mark.parametrize("name", ["qwen2", "gemma2", "granite", "cohere", "bloom", "phi", "mamba"])
def test_any_decoder_has_one(name: str, run: Run) -> None:
    """Read at the last real token: the same alone and beside a longer row; saved and opened again, the same number."""
    opened = open_head(family(FamilyConfig(name=name), run=run), "reward", seed=1, dtype=torch.float32)
    assert type(opened.module).__name__.endswith("ForSequenceClassification")
    short, long = torch.tensor([[5, 9, 30, 2]]), torch.tensor([[7, 8, 30, 31, 32, 33, 2]])
    with torch.no_grad():
        alone = rewards_at(opened.module, hidden_states(opened.module, short)[:, -1])
        beside_BT = torch.cat([torch.nn.functional.pad(short, (0, 3)), long])
        beside = rewards_at(opened.module, hidden_states(opened.module, beside_BT)[torch.arange(2), torch.tensor([3, 6])])
    assert torch.allclose(alone[0], beside[0], atol=1e-4)
    assert abs(float(beside[0] - beside[1])) > 1e-3


def test_an_encoder_has_none(run: Run) -> None:
    for shape in ("bert", "t5"):
        with pytest.raises(Refused, match="has no reward head in transformers") as error:
            open_head(shapes.base(shapes.BaseConfig(shape=shape), run=run), "reward")
        assert "ClassifierReward" in error.value.fix


def test_padding_is_never_the_stop_token() -> None:
    """Where padding ends answers, transformers would read the token before; where it does not, nothing is changed."""
    tokenizer = tiny.chat_tokenizer()
    assert keep_padding_apart(tokenizer) and tokenizer.pad_token == "<|endoftext|>"
    tokenizer.pad_token = "<|im_end|>"
    assert keep_padding_apart(tokenizer) and tokenizer.pad_token == "<|endoftext|>"  # its unknown token
    lonely: Any = shapes.byte_tokenizer("gpt2")
    lonely.add_special_tokens({"pad_token": "</s>"})
    assert keep_padding_apart(lonely) and lonely.pad_token_id not in (lonely.eos_token_id, lonely.bos_token_id)


def test_the_trained_score_layer_is_the_one_that_is_read(run: Run) -> None:
    """peft keeps the layer it was given beside the one it trains; bfloat16 weights, products in float32."""
    opened = open_head(toys.base(toys.BaseConfig(), run=run), "reward", seed=1, dtype=torch.bfloat16)
    module = methods.attach(opened.module, LoRA(rank=2), tokenizer=opened.tokenizer, new=opened.new)
    (trained,) = [p for name, p in module.named_parameters() if "score" in name and p.requires_grad]
    hidden_ND = torch.randn(3, 32, dtype=torch.bfloat16)
    with torch.no_grad():
        trained.mul_(2)
    by_hand = hidden_ND.float() @ trained.detach().float()[0]
    assert torch.equal(rewards_at(module, hidden_ND), by_hand)
    with methods.switched_off(module):
        assert torch.allclose(rewards_at(module, hidden_ND), by_hand / 2)
