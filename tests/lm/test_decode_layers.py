"""Layers in one call of C against transformers' own in float64, bfloat16 by tiles and by vectors and float32; and what they are not for."""

import copy
import shutil
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from mygpt.lm import decode_layers as in_c
from mygpt.lm.adapter_rows import adapter_rows
from mygpt.lm.decode_layers import OpenLane, most_rows, product, suits_product
from mygpt.lm.fused_decoder import decoded
from mygpt.lm.fused_layer import fuse
from mygpt.lm.low_rank import written_in
from mygpt.lm.processor import has_cpu_flag

pytestmark = pytest.mark.skipif(
    not has_cpu_flag("avx512f") or shutil.which("cc") is None, reason="no AVX-512, or no C compiler, on this machine"
)
in_bfloat16 = pytest.mark.skipif(not has_cpu_flag("avx512_bf16"), reason="no AVX-512 BF16 on this machine")
both_formats = pytest.mark.parametrize("dtype", [pytest.param(torch.bfloat16, marks=in_bfloat16), torch.float32])
SMALL: dict[str, Any] = {"vocab_size": 90, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
                         "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 200}  # fmt: skip
CONFIGS = {
    "Llama": LlamaConfig(**SMALL),
    "Llama with biases": LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True),
    "Llama of another shape": LlamaConfig(
        **{**SMALL, "hidden_size": 96, "intermediate_size": 160, "num_attention_heads": 6, "num_key_value_heads": 1, "head_dim": 128}
    ),
    "Mistral": MistralConfig(**SMALL),
    "Qwen2 with a window": Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=5, max_window_layers=1),
}


@pytest.fixture(
    params=[
        pytest.param("bfloat16 by tiles", marks=in_bfloat16),
        pytest.param("bfloat16 by vectors", marks=in_bfloat16),
        "float32",
    ]
)
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    """The format, for each way in which products are computed."""
    if request.param == "bfloat16 by tiles" and not in_c.has_tiles(torch.bfloat16):
        pytest.skip("no AMX on this machine")
    if request.param != "bfloat16 by tiles":
        monkeypatch.setattr(in_c, "has_tiles", lambda dtype: False)
        monkeypatch.setattr(in_c, "_MOST_ROWS_BY_VECTORS", in_c.MOST_ROWS)
    return torch.float32 if request.param == "float32" else torch.bfloat16


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(before)


def random_model(config: Any, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(3)
    module = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=dtype).eval()
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=0.15 if weight.dim() > 1 else 0.5)
    return fuse(module)


class Step:
    """New tokens for trees in several lanes, (trees, taken slots) each, with random keys and values; masks hide a third."""

    def __init__(self, config: Any, lanes: list[tuple[int, int]], Q: int, dtype: torch.dtype = torch.float32):
        g = torch.Generator().manual_seed(0)
        H, E, L = config.num_key_value_heads, config.head_dim, config.num_hidden_layers
        self.lanes = lanes
        B, longest = sum(trees for trees, _ in lanes), max(length for _, length in lanes) + Q
        self.ids_BQ = torch.randint(90, (B, Q), generator=g)
        self.positions_BQ = torch.randint(100, (B, Q), generator=g)
        self.kept = [
            [[torch.randn(trees, H, length + Q + 3, E, generator=g).to(dtype) for _ in range(L)] for _ in range(2)]
            for trees, length in lanes
        ]
        self.masks = {}
        for kind in ("full_attention", "sliding_attention"):
            hidden = torch.rand(B, 1, Q, longest, generator=g) < 0.3
            first = 0
            for trees, length in lanes:
                hidden[first : first + trees, :, :, length + Q :] = True
                hidden[first : first + trees, :, :, length] = False
                first += trees
            self.masks[kind] = torch.zeros(hidden.shape, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)
        self.kinds = getattr(config, "layer_types", None) or ["full_attention"] * L
        self.mask: Any = self.masks if "sliding_attention" in self.kinds else self.masks["full_attention"]

    def open(self) -> list[OpenLane]:
        return [OpenLane(length, keys, values) for (_, length), (keys, values) in zip(self.lanes, self.kept, strict=True)]

    def run(self, decoder: Any) -> torch.Tensor | None:
        given = {"input_ids": self.ids_BQ, "position_ids": self.positions_BQ, "attention_mask": self.mask, "use_cache": True, "cache": None}
        return decoded(decoder, given, self.open())

    def by_modules(self, decoder: Any) -> torch.Tensor:
        """Lane by lane through transformers' own layers; keys and values go to the same places, in the format of `decoder`."""
        made, first = [], 0
        for (trees, length), (keys, values) in zip(self.lanes, self.kept, strict=True):
            own, S = slice(first, first := first + trees), length + self.ids_BQ.shape[1]
            cache = DynamicCache()
            for layer in range(len(keys)):
                cache.update(keys[layer][:, :, :length].to(decoder.dtype), values[layer][:, :, :length].to(decoder.dtype), layer)
            masks = {kind: mask[own, ..., :S].to(decoder.dtype) for kind, mask in self.masks.items()}
            mask = masks if isinstance(self.mask, dict) else masks["full_attention"]
            given = {"position_ids": self.positions_BQ[own], "attention_mask": mask, "cache": cache}
            made.append(decoder(input_ids=self.ids_BQ[own], use_cache=True, **given).last_hidden_state)
            for layer in range(len(keys)):
                keys[layer][:, :, length:S], values[layer][:, :, length:S] = (
                    one[:, :, length:] for one in (cache.layers[layer].keys, cache.layers[layer].values)
                )
        return torch.cat(made)


def exact(config: Any, module: Any) -> Any:
    """The same weights in float64, as transformers made the classes."""
    plain = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=torch.float64, attn_implementation="eager").eval()
    plain.load_state_dict(module.state_dict())
    return plain.model


def error(made: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((made.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("lanes", "Q"), [([(1, 9)], 1), ([(3, 40), (2, 17), (14, 5)], 1), ([(2, 20), (3, 6)], 4), ([(11, 30)], 11)])
def test_against_float64(name: str, lanes: list[tuple[int, int]], Q: int, dtype: torch.dtype) -> None:
    """As near as transformers' own layers in the same format come, or nearer (leeway: both are sums of roundings, of 2^-9 or of 2^-24)."""
    config = CONFIGS[name]
    module = random_model(config, dtype)
    wanted, own, found = (Step(config, lanes, Q, dtype) for _ in range(3))
    exactly = wanted.by_modules(exact(config, module))
    rounded = own.by_modules(module.model)
    made = found.run(module.model)
    assert made is not None and made.dtype == dtype
    most, leeway, most_kept = (0.02, 1.1, 0.01) if dtype == torch.bfloat16 else (1e-5, 1.5, 1e-6)
    assert error(made, exactly) < min(most, leeway * error(rounded, exactly))
    for lane in range(len(lanes)):
        for part in range(2):
            for layer, one in enumerate(found.kept[lane][part]):
                assert error(one, wanted.kept[lane][part][layer]) < most_kept


@pytest.mark.parametrize("name", ["Llama with biases", "Llama of another shape", "Qwen2 with a window"])
@pytest.mark.parametrize(
    ("rank", "targets", "lanes"),
    [
        (16, "all-linear", [(3, 40), (2, 17), (14, 5)]),
        (32, "all-linear", [(9, 9)]),
        (48, ["k_proj", "down_proj"], [(37, 8)]),
        (16, ["q_proj", "o_proj", "up_proj"], [(2, 9)]),
    ],
)
def test_updates_beside_weights_against_float64(
    name: str, rank: int, targets: Any, lanes: list[tuple[int, int]], dtype: torch.dtype
) -> None:
    """As near as peft's own layers in the same format come (leeway as above), on one thread and, to the bit, on two."""
    config = CONFIGS[name]
    tuned = with_updates(random_model(config, dtype), rank, targets)
    wanted, own, found = (Step(config, lanes, 1, dtype) for _ in range(3))
    exactly = wanted.by_modules(copy.deepcopy(tuned).double().get_decoder())
    rounded = own.by_modules(tuned.get_decoder())
    made = found.run(tuned.get_decoder())
    assert made is not None and made.dtype == dtype
    with tuned.disable_adapter():
        without = Step(config, lanes, 1, dtype).by_modules(tuned.get_decoder())
    most, leeway, most_kept = (0.02, 1.1, 0.01) if dtype == torch.bfloat16 else (1e-5, 1.5, 1e-6)
    assert error(made, exactly) < min(most, leeway * error(rounded, exactly)) < 0.2 * error(without, exactly)
    for lane in range(len(lanes)):
        for part in range(2):
            for layer, one in enumerate(found.kept[lane][part]):
                assert error(one, wanted.kept[lane][part][layer]) < most_kept
    torch.set_num_threads(2)
    assert torch.equal(Step(config, lanes, 1, dtype).run(tuned.get_decoder()), made)  # type: ignore[arg-type]


def with_updates(module: Any, rank: int, targets: Any = "all-linear", **more: Any) -> Any:
    """LoRA that changes a good part of what the layers compute, in their own format."""
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM", **more)
    tuned = get_peft_model(module, config, autocast_adapter_dtype=False).eval()
    for name, weight in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return tuned


def test_updates_that_go_through_the_modules() -> None:
    config = CONFIGS["Llama"]

    def run(tuned: Any) -> torch.Tensor | None:
        return Step(config, [(2, 6)], 1).run(tuned.get_decoder())

    assert run(with_updates(random_model(config), 8)) is None  # half a tile
    assert run(with_updates(random_model(config), 16, use_dora=True)) is None
    dropping = with_updates(random_model(config), 16, lora_dropout=0.1)
    assert run(dropping) is not None and run(dropping.train()) is None
    of_another_format = with_updates(random_model(config), 16)
    of_another_format.get_decoder().layers[1].mlp.up_proj.lora_A.bfloat16()
    assert run(of_another_format) is None
    two = with_updates(random_model(config), 16)
    two.add_adapter("other", LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert run(two) is not None
    step = Step(config, [(2, 6)], 1)
    with adapter_rows(two, ["default", "other"]):
        assert step.run(two.get_decoder()) is None


def test_rows_depend_on_nothing_beside_them(dtype: torch.dtype) -> None:
    """To the bit: alone or in a batch of 37 in two lanes, on one thread or two, with other slots behind the mask."""
    config = CONFIGS["Llama"]
    module = random_model(config, dtype)
    lanes = [(30, 25), (7, 11)]
    together = Step(config, lanes, 1, dtype)
    torch.set_num_threads(2)
    made = together.run(module.model)
    assert made is not None
    torch.set_num_threads(1)
    assert torch.equal(Step(config, lanes, 1, dtype).run(module.model), made)  # type: ignore[arg-type]
    for tree, lane, at in ((0, 0, 0), (29, 0, 29), (33, 1, 3)):
        alone = Step(config, [(1, together.lanes[lane][1])], 1, dtype)
        alone.ids_BQ, alone.positions_BQ = together.ids_BQ[tree, None], together.positions_BQ[tree, None]
        alone.kept = [[[one[at : at + 1].clone() for one in part] for part in together.kept[lane]]]
        hidden = together.masks["full_attention"][tree, 0, 0, : together.lanes[lane][1]] != 0
        for part in alone.kept[0]:
            for one in part:
                one[:, :, : len(hidden)][:, :, hidden] = float("nan")
        alone.mask = together.masks["full_attention"][tree : tree + 1]
        assert torch.equal(alone.run(module.model), made[tree : tree + 1])  # type: ignore[arg-type]


def test_a_row_that_sees_nothing_gives_numbers(dtype: torch.dtype) -> None:
    config = CONFIGS["Llama"]
    step = Step(config, [(2, 6)], 1, dtype)
    step.mask = torch.full_like(step.mask, torch.finfo(dtype).min)
    made = step.run(random_model(config, dtype).model)
    assert made is not None and bool(made.isfinite().all())


def test_weights_are_read_anew() -> None:
    """Training changes them in place, and `written_in` puts LoRA's sums where they stood."""
    config = CONFIGS["Llama"]
    module = random_model(config)
    before = Step(config, [(2, 6)], 1).run(module.model)
    module.model.layers[1].mlp.down_proj.weight.mul_(1.5)
    after = Step(config, [(2, 6)], 1).run(module.model)
    assert before is not None and after is not None and not torch.equal(before, after)
    tuned = get_peft_model(module, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"))
    decoder = tuned.get_decoder()
    assert Step(config, [(2, 6)], 1).run(decoder) is None
    with written_in(tuned):
        written = Step(config, [(2, 6)], 1).run(decoder)
    assert written is not None and not torch.equal(written, after)
    torch.testing.assert_close(written, Step(config, [(2, 6)], 1).by_modules(decoder), atol=1e-4, rtol=1e-4)
    assert Step(config, [(2, 6)], 1).run(decoder) is None
    with tuned.disable_adapter():
        assert Step(config, [(2, 6)], 1).run(decoder) is None  # peft's layers still stand there


@pytest.mark.parametrize(
    "part", ["", "layers.1", "layers.0.self_attn", "layers.0.mlp.act_fn", "layers.1.mlp.up_proj", "layers.1.post_attention_layernorm"]
)
@pytest.mark.parametrize("before", [False, True])
def test_whatever_is_hooked_goes_through_the_modules(part: str, before: bool) -> None:
    config = CONFIGS["Llama"]
    decoder = random_model(config).model
    hooked = decoder.get_submodule(part)
    register = hooked.register_forward_pre_hook if before else hooked.register_forward_hook
    taken = register(lambda *given: None)
    assert Step(config, [(2, 6)], 1).run(decoder) is None
    taken.remove()
    assert Step(config, [(2, 6)], 1).run(decoder) is not None


def test_a_hook_for_calls_without_a_cache_is_asked() -> None:
    config = CONFIGS["Llama"]
    decoder = random_model(config).model
    changes = SimpleNamespace(made=None)
    decoder.register_forward_pre_hook(lambda part, args, given: changes.made, with_kwargs=True)
    assert Step(config, [(2, 6)], 1).run(decoder) is not None
    changes.made = ((), {})
    assert Step(config, [(2, 6)], 1).run(decoder) is None


@both_formats
def test_it_takes_so_many_rows(dtype: torch.dtype) -> None:
    config = CONFIGS["Llama"]
    decoder = random_model(config, dtype).model
    assert Step(config, [(most_rows(dtype), 3)], 1, dtype).run(decoder) is not None
    assert Step(config, [(most_rows(dtype) + 1, 3)], 1, dtype).run(decoder) is None


def test_what_it_is_not_for() -> None:
    config = CONFIGS["Llama"]
    module = random_model(config)
    with torch.enable_grad():
        assert Step(config, [(2, 6)], 1).run(module.model) is None
    empty = Step(config, [(2, 6)], 1)
    empty.kept = [[[], []]]
    assert empty.run(module.model) is None
    assert Step(config, [(2, 6)], 1, torch.bfloat16).run(module.model) is None
    assert Step(config, [(2, 6)], 1, torch.float16).run(random_model(config, torch.float16).model) is None
    mixed = random_model(config)
    mixed.model.layers[1].input_layernorm.bfloat16()
    assert Step(config, [(2, 6)], 1).run(mixed.model) is None
    eager = random_model(config)
    eager.config._attn_implementation = "eager"
    assert Step(config, [(2, 6)], 1).run(eager.model) is None
    dropping = random_model(LlamaConfig(**SMALL, attention_dropout=0.5))
    assert Step(config, [(2, 6)], 1).run(dropping.model) is not None
    assert Step(config, [(2, 6)], 1).run(dropping.model.train()) is None
    narrow = LlamaConfig(**{**SMALL, "intermediate_size": 80})  # no whole tiles
    assert Step(narrow, [(2, 6)], 1).run(random_model(narrow).model) is None
    other = Qwen3Config(**SMALL)  # norms of queries and keys
    assert Step(other, [(2, 6)], 1).run(random_model(other).model) is None
    pruned = random_model(config)
    pruned.model.layers[1].mlp.up_proj = torch.nn.Linear(64, 64, bias=False)
    assert Step(config, [(2, 6)], 1).run(pruned.model) is None


@pytest.mark.parametrize(
    ("dtype", "tiles"),
    [
        pytest.param(torch.bfloat16, True, marks=in_bfloat16),
        pytest.param(torch.bfloat16, False, marks=in_bfloat16),
        (torch.float32, False),
    ],
)
@given(N=st.integers(1, 128), K=st.integers(1, 9), F=st.integers(1, 9), threads=st.integers(1, 2), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_product(dtype: torch.dtype, tiles: bool, N: int, K: int, F: int, threads: int, seed: int) -> None:
    """Sums of K products in float32: the error is that of adding up, 2^-24 of the sum of magnitudes at each of log K to K steps."""
    if tiles and not in_c.has_tiles(dtype):
        pytest.skip("no AMX on this machine")
    g = torch.Generator().manual_seed(seed)
    x, weight = torch.randn(N, 32 * K, generator=g).to(dtype), torch.randn(16 * F, 32 * K, generator=g).to(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_c, "has_tiles", lambda dtype: tiles)
        patch.setattr(in_c, "_MOST_ROWS_BY_VECTORS", in_c.MOST_ROWS)
        torch.set_num_threads(threads)
        assert suits_product(x, weight)
        made = product(x, weight)
    limit = x.double().abs() @ weight.double().abs().T * 32 * K * 2.0**-24
    assert bool(((made.double() - x.double() @ weight.double().T).abs() <= limit).all())


@both_formats
def test_what_a_product_is_not_for(dtype: torch.dtype) -> None:
    x, weight = torch.zeros(3, 64, dtype=dtype), torch.zeros(32, 64, dtype=dtype)
    assert suits_product(x, weight)
    assert not suits_product(x.half(), weight.half())
    assert not suits_product(x.double(), weight)
    assert not suits_product(x[:0], weight)
    assert not suits_product(x[:, :48], weight[:, :48].contiguous())
    assert not suits_product(x, weight[:20])
    assert not suits_product(x, weight.T.contiguous().T)
    assert not suits_product(torch.zeros(129, 64, dtype=dtype), weight)
