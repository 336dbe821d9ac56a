"""A GGUF file as a Model artefact: weights dequantised to bfloat16, tokenizer and chat template from the file's own metadata.

We differ: where transformers' reading of a GGUF leaves a byte-level vocabulary with GPT-2's way of cutting text, although the file's
`tokenizer.ggml.pre` names another one (SmolLM2 learnt every digit as a token), the way that the model learnt is restored; a name that
neither knows is said aloud. Source: the patterns stand in the models' own tokenizer.json, and in llama.cpp, src/llama-vocab.cpp.
"""

from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.errors import MygptError, Refused
from mygpt.core.outbound import silence_hub
from mygpt.core.run import Run
from mygpt.lm.checkpoint import facts_of

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_DIGIT = r"\p{N}"
# `tokenizer.ggml.pre` -> the cuts, made one after the other; what each matches becomes a piece of its own.
_CUTS: dict[str, tuple[str, ...]] = {
    "smollm": (_DIGIT, _GPT2),
    "starcoder": (_DIGIT, _GPT2),
    "refact": (_DIGIT, _GPT2),
    "command-r": (_DIGIT, _GPT2),
    "gpt-2": (_GPT2,),
    "llama-bpe": (_LLAMA3,),
    "qwen2": (_QWEN2,),
}


class GgufConfig(Config):
    name: str  # of the Model


@recipe
def from_gguf(config: GgufConfig, *, gguf: Path, run: Run) -> Model:
    """The model in a .gguf file of the user's."""
    return publish_dequantised(gguf, name=config.name, run=run, provenance={"source": "GGUF file", "path": str(gguf.absolute())})


def publish_dequantised(gguf: Path, *, name: str, run: Run, provenance: dict[str, Any]) -> Model:
    """Dequantise, save, describe. For use inside a recipe."""
    facts: dict[str, Any] = {}
    described = dict(provenance)

    def write(folder: Path) -> None:
        metadata = _metadata(gguf)
        write_checkpoint(gguf, folder, metadata=metadata, run=run)
        facts.update(facts_of(folder), source=described["source"])
        facts["form"] = f"dequantised to bfloat16 from {_quantisation(metadata)} GGUF"
        described.setdefault("licence", metadata.get("general.license"))

    return publish(Model, run, write, facts=facts, provenance=described, name=name)


def write_checkpoint(gguf: Path, folder: Path, *, metadata: dict[str, Any], run: Run) -> None:
    """config.json, generation_config.json, model.safetensors, tokenizer files, chat_template.jinja."""
    silence_hub()
    import torch
    from transformers import AutoModelForCausalLM

    progress = run.progress(3, "steps of conversion")
    try:
        tokenizer = read_tokenizer(gguf, metadata=metadata, run=run)
        progress.advance(doing="tokenizer read")
        with redirect_stderr(StringIO()):  # its own progress bars; ours go into the run's events
            model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, **_whole())
        progress.advance(doing="weights dequantised")
        for trace in ("quantization_config", "_pre_quantization_dtype"):
            if hasattr(model.config, trace):
                delattr(model.config, trace)
        model.hf_quantizer = None
        model.is_quantized = False
        ends = sorted({int(metadata[key]) for key in ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id") if key in metadata})
        if ends:
            model.generation_config.eos_token_id = ends[0] if len(ends) == 1 else ends
        model.save_pretrained(folder, safe_serialization=True)
        tokenizer.save_pretrained(folder)
        progress.advance(doing="saved")
    except (ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Refused(
            f"{gguf.name} cannot be turned into a trainable model: {first_line}.",
            fix="Use the model's safetensors folder instead; a GGUF can still be served with llama.cpp.",
        ) from error


def read_tokenizer(gguf: Path, *, metadata: dict[str, Any], run: Run) -> Any:
    """The file's vocabulary, merges, special tokens and chat template as a transformers tokenizer, cut the way the model learnt."""
    silence_hub()
    from tokenizers import Regex, pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    cut_by = metadata.get("tokenizer.ggml.pre", "")
    if metadata.get("tokenizer.ggml.model") == "gpt2":
        if cut_by in _CUTS:
            tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
                [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in _CUTS[cut_by]]
                + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
            )
        elif isinstance(tokenizer.backend_tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel):
            run.warn(
                f"{gguf.name} cuts text by `{cut_by or 'no named'}` rules, which are not known here; GPT-2's are used. "
                "Token ids may differ from the original's: prefer its safetensors folder for training."
            )
    context = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    if context:
        tokenizer.model_max_length = int(context)
    if not tokenizer.chat_template and metadata.get("tokenizer.chat_template"):
        tokenizer.chat_template = metadata["tokenizer.chat_template"]
    return tokenizer


def _metadata(gguf: Path) -> dict[str, Any]:
    """The short entries of the file's header; vocabulary and merges are left to transformers."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(gguf)
        return {name: field.contents() for name, field in reader.fields.items() if len(field.data) <= 16}
    except (ValueError, IndexError, OSError, UnicodeDecodeError) as error:
        raise MygptError(
            f"{gguf.name} is not a whole GGUF file: {error}.", fix="Download it again, and compare its checksum with the source's."
        ) from error


def _quantisation(metadata: dict[str, Any]) -> str:
    from gguf import LlamaFileType

    try:
        return LlamaFileType(int(metadata["general.file_type"])).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except (KeyError, ValueError):
        return "unnamed"


def _whole() -> dict[str, Any]:
    """Newer transformers may leave the blocks packed; a model to be trained and saved needs them unpacked."""
    try:
        from transformers.utils.quantization_config import GgufConfig as Packing
    except ImportError:
        return {}
    return {"quantization_config": Packing(dequantize=True)}
