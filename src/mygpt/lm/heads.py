"""A Model opened with the head that an objective needs, whatever head it was made with.

    lm           the next token                     AutoModelForCausalLM (as `load_lm` opens it)
    seq2seq_lm   an answer to what was read         AutoModelForSeq2SeqLM: T5, BART
    masked_lm    the token behind a mask            AutoModelForMaskedLM: BERT, RoBERTa
    classifier   one label for a text or a pair     AutoModelForSequenceClassification
    reward       one number for an answer           AutoModelForSequenceClassification with one label (`reward_head`)
    tagger       one label for each token           AutoModelForTokenClassification
    embedder     vectors (no head at all)           AutoModel

A head that the checkpoint lacks, or has for other labels, begins anew: drawn as its architecture does, from the seed, and said aloud. That
weights of the model itself are missing is never passed over. Whatever is saved later opens in plain transformers by the same class.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from mygpt.artifacts.model import Adapter, Model
from mygpt.core.errors import Refused, UsageError
from mygpt.core.outbound import silence_hub
from mygpt.core.run import Run
from mygpt.lm import reward_head
from mygpt.lm.adapters import methods
from mygpt.lm.adapters.peft_model import label_modules
from mygpt.lm.fused_layer import fuse
from mygpt.lm.load import Loaded, load_lm, load_tokenizer, preferred_device, preferred_dtype
from mygpt.lm.memory import keep_freed_memory

HEADS = {  # classes of transformers
    "lm": "AutoModelForCausalLM",
    "seq2seq_lm": "AutoModelForSeq2SeqLM",
    "masked_lm": "AutoModelForMaskedLM",
    "classifier": "AutoModelForSequenceClassification",
    "reward": "AutoModelForSequenceClassification",
    "tagger": "AutoModelForTokenClassification",
    "embedder": "AutoModel",
}
_PROBLEMS = {"classifier": "single_label_classification", "reward": "regression"}


@dataclass(frozen=True)
class Opened(Loaded):
    head: str = "lm"
    new: tuple[str, ...] = ()  # names of modules that the checkpoint lacks, or has for other labels

    @property
    def labels(self) -> tuple[str, ...]:
        names: dict[int, str] = self.module.config.id2label
        return tuple(names[i] for i in sorted(names))


def open_head(
    model: Model,
    head: str,
    *,
    labels: Sequence[str] = (),
    adapter: Adapter | None = None,
    seed: int = 0,
    run: Run | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
) -> Opened:
    """`model` (with `adapter` on it) in eval mode, with this head. Without `labels`: those of the adapter or of the model.

    Raises Refused where the architecture has no such head, UsageError for an adapter of another model or head.
    """
    if head == "lm":
        loaded = load_lm(model, adapter=adapter, dtype=dtype, device=device)
        return Opened(loaded.module, loaded.tokenizer, model, adapter)
    if adapter is not None:
        _require_adapter_of(adapter, model, head)
        labels = labels or adapter.manifest.facts.get("labels", ())
    device = device or preferred_device()
    if device.type == "cpu":
        keep_freed_memory()
    opened = _opened(model, head, labels, seed=seed, dtype=dtype or preferred_dtype(device))
    module, new = opened.module, opened.new
    if head == "reward" and not reward_head.keep_padding_apart(opened.tokenizer) and run is not None:
        run.warn(f"{model.id} pads with the token that ends answers and has no other: plain transformers would read the token before it.")
    if new and run is not None and adapter is None:
        drawn = sum(p.numel() for name in new for p in module.get_submodule(name).parameters())
        run.note(f"New in {type(module).__name__}, drawn from the seed: {', '.join(new)} ({drawn:,} weights).")
    if head == "reward" and device.type == "cpu":
        fuse(module)
    if adapter is not None:
        module = methods.load(module, {"default": adapter.payload})
    return replace(opened, module=module.to(device).eval(), adapter=adapter)


def head_blueprint(model: Model, head: str, *, labels: Sequence[str] = (), dtype: torch.dtype) -> Opened:
    """What `open_head` would give, without its weights: the module is on the meta device. Raises Refused as it does."""
    opened = _opened(model, head, labels, seed=0, dtype=dtype, without_weights=True)
    if head == "reward" and preferred_device().type == "cpu":
        fuse(opened.module)
    return replace(opened, module=opened.module.eval())


def _opened(model: Model, head: str, labels: Sequence[str], *, seed: int, dtype: torch.dtype, without_weights: bool = False) -> Opened:
    if head == "reward":
        labels = reward_head.LABELS
    tokenizer = load_tokenizer(model)
    if tokenizer.pad_token_id is None:
        raise Refused(f"The tokenizer of {model.id} has no padding token and no end token.", fix="Add a `pad_token` to its configuration.")
    if head == "reward":
        reward_head.keep_padding_apart(tokenizer)
    with torch.random.fork_rng(devices=[]):  # opening a model leaves no trace in what is drawn afterwards
        torch.default_generator.manual_seed(seed)
        module, new = _drawn(model, head, labels, dtype=dtype, without_weights=without_weights)
    for config in (module.config, module.config.get_text_config()):
        config.pad_token_id = tokenizer.pad_token_id  # a decoder's classifier finds the last token by it
    return Opened(module, tokenizer, model, None, head, tuple(new))


def _drawn(model: Model, head: str, labels: Sequence[str], *, dtype: torch.dtype, without_weights: bool) -> tuple[Any, list[str]]:
    """(the module, names of its modules that are new)."""
    module, missing = _from_pretrained(model, head, labels, dtype=dtype, without_weights=without_weights)
    lost = [name for name in missing if _is_of_the_base(module, name)]
    if lost:
        raise Refused(
            f"{model.id} lacks {len(lost)} weights of {type(module).__name__} itself (first: {lost[0]}), not only of its head.",
            fix="Choose a model of this architecture whose checkpoint is whole.",
        )
    new, of_labels = whole_modules(module, missing), label_modules(module)
    if of_labels and _is_for_other_labels(model, labels):
        _draw_anew(module, of_labels)
        new = sorted({*new, *of_labels})
    if head == "reward":
        if not isinstance(getattr(module, "score", None), torch.nn.Linear):
            raise _no_such_head(model, head)
        if "score" in new:
            reward_head.draw(module)
    return module, new


def whole_modules(module: Any, names: Sequence[str]) -> list[str]:
    """The outermost modules all of whose parameters are in `names`: `["score.weight"]` -> `["score"]`."""
    wanted, found = set(names), list[str]()
    for name, part in module.named_modules():
        own = [f"{name}.{p}" if name else p for p, _ in part.named_parameters()]
        if name and own and wanted.issuperset(own) and not any(name.startswith(f"{outer}.") for outer in found):
            found.append(name)
    return found


def _from_pretrained(
    model: Model, head: str, labels: Sequence[str], *, dtype: torch.dtype, without_weights: bool
) -> tuple[Any, list[str]]:
    """The module, and the names of the parameters that its checkpoint lacks."""
    silence_hub()
    import transformers

    named: dict[str, Any] = {}
    if labels:
        named = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    try:
        with _quiet():
            opener = _reward_class(model) if head == "reward" else getattr(transformers, HEADS[head])
            module, told = opener.from_pretrained(
                model.payload,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                ignore_mismatched_sizes=bool(labels),  # a head for another number of labels: it begins anew
                output_loading_info=True,
                **({"device_map": "meta"} if without_weights else {}),
                **named,
            )
    except ValueError as error:
        if "Unrecognized configuration class" not in str(error) and "trust_remote_code" not in str(error):
            raise
        raise _no_such_head(model, head) from error
    if head in ("embedder", "masked_lm") and module.config.is_encoder_decoder:
        raise _no_such_head(model, head)
    if head in _PROBLEMS:
        module.config.problem_type = _PROBLEMS[head]
    return module, sorted({*told["missing_keys"], *(key for key, *_ in told["mismatched_keys"])})


def _reward_class(model: Model) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model.payload, local_files_only=True, trust_remote_code=False)
    try:
        return reward_head.reward_class(config)
    except KeyError as error:
        raise _no_such_head(model, "reward") from error


def _no_such_head(model: Model, head: str) -> Refused:
    architecture = model.manifest.facts.get("architecture") or "the architecture of its config.json"
    able = {
        "seq2seq_lm": "an encoder-decoder such as T5 or BART",
        "masked_lm": "an encoder such as BERT or RoBERTa",
        "reward": "a decoder such as Llama or GPT-2 (an encoder's classifier can be a reward: `ClassifierReward`)",
        "embedder": "an encoder or a decoder (an encoder-decoder's vectors are those of two stacks)",
    }.get(head, "another architecture")
    return Refused(f"{model.id} ({architecture}) has no {head} head in transformers.", fix=f"Choose {able}.")


def _require_adapter_of(adapter: Adapter, model: Model, head: str) -> None:
    facts = adapter.manifest.facts
    if facts.get("base") != model.digest:
        raise UsageError(
            f"{adapter.id} was trained on {str(facts.get('base'))[:12]}, not on {model.id}.", fix="Load it on its own base model."
        )
    if (has := facts.get("head", "lm")) != head:
        raise UsageError(f"{adapter.id} has the head `{has}`, not `{head}`.", fix=f"Open it as `{has}`.")


def _is_for_other_labels(model: Model, labels: Sequence[str]) -> bool:
    """Whether the checkpoint may have a head that was trained for something else than `labels`."""
    config = json.loads((model.payload / "config.json").read_text(encoding="utf-8"))
    has = config.get("id2label") or {}
    if len(labels) == 1:  # one number: its name tells nothing
        return len(has) != 1
    return bool(labels) and [has[key] for key in sorted(has, key=int)] != list(labels)


def _is_of_the_base(module: Any, name: str) -> bool:
    """Poolers count as heads: checkpoints made for masks have none."""
    prefix = module.base_model_prefix
    is_inside = name.startswith(f"{prefix}.") if hasattr(module, prefix) else not name.startswith("lm_head.")
    return is_inside and "pooler" not in name


@torch.no_grad()
def _draw_anew(module: Any, names: Sequence[str]) -> None:
    """As the architecture draws new weights; transformers passes over those that are marked as drawn."""
    for name in names:
        for parameter in module.get_submodule(name).parameters():
            parameter._is_hf_initialized = False
        for part in module.get_submodule(name).modules():
            module._init_weights(part)


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers reports missing weights to its log; here they are said in the run's event stream."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
