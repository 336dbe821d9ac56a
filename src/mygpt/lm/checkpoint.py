"""What a checkpoint folder holds, read from its JSON and safetensors headers alone: no torch, no weights in memory."""

import json
import math
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mygpt.core.errors import Refused, UsageError

_KEPT_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja")
_KEPT_SUBFOLDERS = ("1_Pooling", "2_Dense", "additional_chat_templates")  # sentence embedders' pooling; named chat templates
_PICKLED_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def wanted_files(names: Iterable[str]) -> list[str]:
    """Of the files of a model folder or repository, those that a Model artefact keeps: never code, never pickles."""
    kept = []
    for name in sorted(names):
        folder, _, leaf = name.rpartition("/")
        if folder not in ("", *_KEPT_SUBFOLDERS) or leaf.startswith(".") or not leaf.endswith(_KEPT_SUFFIXES):
            continue
        kept.append(name)
    if any(name.startswith("model") and name.endswith(".safetensors") for name in kept):
        kept = [name for name in kept if not name.startswith("consolidated")]  # the same weights a second time, in the maker's own layout
    return [name for name in kept if name not in ("data_config.json", "requirements.txt")]


def require_safe_weights(names: Iterable[str], *, where: str) -> None:
    """Raises Refused when the weights exist only as pickles, UsageError when this is no checkpoint at all."""
    names = list(names)
    if "config.json" not in names:
        raise UsageError(
            f"{where} has no config.json, so it is not a model as transformers saves it.",
            fix="Name a folder with config.json and *.safetensors, a .gguf file, or an alias.",
        )
    if any(name.endswith(".safetensors") for name in wanted_files(names)):
        return
    pickled = sorted(name for name in names if name.endswith(_PICKLED_SUFFIXES))
    if pickled:
        raise Refused(
            f"{where} holds its weights only as pickles ({', '.join(pickled[:3])}); opening a pickle runs whatever code is inside.",
            fix="Convert it where you trust it: load it with transformers there and call `save_pretrained`, which writes *.safetensors.",
        )
    raise UsageError(f"{where} holds no *.safetensors weights.", fix="Name a folder with config.json and *.safetensors, or a .gguf file.")


def copy_checkpoint(source: Path, target: Path, names: Iterable[str]) -> None:
    """Hard links where both lie on one disk, else copies. Links are followed: the artefact holds files."""
    for name in names:
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        file = (source / name).resolve()
        try:
            os.link(file, place)
        except OSError:  # another disk, or a file system without links
            shutil.copyfile(file, place)


def facts_of(folder: Path) -> dict[str, Any]:
    """Head, parameters, context_tokens, hidden_size, and for embedders dimensions and pooling."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config") or config
    head = _head(folder, config)
    hidden = text.get("hidden_size") or text.get("n_embd") or text.get("d_model")
    context = text.get("max_position_embeddings") or text.get("n_positions")
    facts: dict[str, Any] = {
        "head": head,
        "architecture": (config.get("architectures") or [""])[0],
        "parameters": num_parameters(folder),
        "context_tokens": context,
        "hidden_size": hidden,
    }
    if head == "embedder":
        sentence = folder / "sentence_bert_config.json"
        if sentence.exists():
            trained = json.loads(sentence.read_text(encoding="utf-8")).get("max_seq_length")
            facts["context_tokens"] = min(x for x in (trained, context) if x) if trained or context else None
        facts["dimensions"] = hidden
    return facts


def num_parameters(folder: Path) -> int:
    """Summed over the safetensors headers; a tied matrix is stored, and counted, once."""
    return sum(math.prod(shape) for file in sorted(folder.glob("*.safetensors")) for shape in tensor_shapes(file).values())


def tensor_shapes(file: Path) -> dict[str, list[int]]:
    """Name -> shape. Source: the safetensors format, 8 bytes little-endian header length, then JSON."""
    with open(file, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 0 < length <= file.stat().st_size - 8:
            raise UsageError(f"{file.name} is not a safetensors file (its header claims {length} bytes).", fix="Download or save it again.")
        try:
            header = json.loads(stream.read(length))
        except ValueError as error:
            raise UsageError(
                f"{file.name} is not a safetensors file (its header is not JSON).", fix="Download or save it again."
            ) from error
    return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}


def _head(folder: Path, config: dict[str, Any]) -> str:
    if (folder / "modules.json").exists() or (folder / "sentence_bert_config.json").exists():
        return "embedder"
    architecture = (config.get("architectures") or [""])[0]
    if architecture.endswith("ForConditionalGeneration") and config.get("is_encoder_decoder"):
        return "seq2seq_lm"
    if architecture.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")):
        return "lm"
    if architecture.endswith(("ForMaskedLM", "ForPreTraining")):
        return "masked_lm"
    if architecture.endswith("ForSequenceClassification"):
        return "reward" if len(config.get("id2label") or {}) == 1 else "classifier"
    if architecture.endswith("ForTokenClassification"):
        return "tagger"
    if architecture.endswith("Model"):
        return "embedder"
    raise UsageError(
        f"The model's architecture is {architecture or 'not given'}; mygpt knows language models (causal, masked, "
        "encoder-decoder), sentence embedders, classifiers and taggers.",
        fix="Choose a model whose config.json names one of these, such as a ...ForCausalLM architecture.",
    )
