"""Every objective on a tiny base with its small set, tuned in one call; and what the saved result computes, ours and plain."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.artifacts.model import Adapter, Model
from mygpt.core.run import Run
from mygpt.finetune.classifier import ClassifierConfig, classifier
from mygpt.finetune.embedder import EmbedderConfig, embedder
from mygpt.finetune.masked_lm import MaskedLMConfig, masked_lm
from mygpt.finetune.seq2seq import Seq2SeqConfig, seq2seq
from mygpt.finetune.span_corruption import SpanCorruptionConfig, span_corruption
from mygpt.finetune.tagger import TaggerConfig, tagger
from mygpt.infer.protocols import Sampling
from mygpt.infer.torch_classifier import TorchClassifier
from mygpt.infer.torch_embedder import TorchEmbedder
from mygpt.infer.torch_seq2seq import Seq2SeqCompleter
from mygpt.infer.torch_tagger import TorchTagger
from mygpt.lm.heads import HEADS, open_head
from tests.finetune import label_data, shapes

FAST: dict[str, Any] = {"precision": "float32", "checkpoint_seconds": 0, "epochs": 2, "warmup_share": 0.0}


@dataclass(frozen=True)
class Objective:
    recipe: Callable[..., Adapter | Model]
    config: type[Any]
    data: Callable[..., Any]
    head: str
    settings: dict[str, Any]
    use: Callable[..., Any]  # what is asked of the saved result by its class in `infer`


def _classified(model: Model, **more: Any) -> Any:
    return TorchClassifier(model, **more).probabilities(["snow fell", "heat"])


def _tagged(model: Model, **more: Any) -> Any:
    return TorchTagger(model, **more).tag([["Oslo", "sent", "Bo"]])


def _embedded(model: Model, **more: Any) -> Any:
    return TorchEmbedder(model, **more).embed(["Who sails?", "A far longer text."])


def _written(model: Model, **more: Any) -> Any:
    asked = [Conversation((Message("user", text),)) for text in ("1 and 2?", "0 and 1?")]
    return [answer.token_ids for answer in Seq2SeqCompleter(model, **more).complete(asked, Sampling(max_tokens=4))]


def _unmasked(model: Model, **more: Any) -> Any:
    return open_head(model, "masked_lm", **more)


_TEXT: dict[str, Any] = {"step_tokens": 128, "micro_batch_tokens": 128, "max_example_tokens": 48}
OBJECTIVES = {
    "classifier": Objective(classifier, ClassifierConfig, label_data.weather, "classifier", {"step_tokens": 64}, _classified),
    "tagger": Objective(tagger, TaggerConfig, label_data.people, "tagger", {"step_tokens": 64}, _tagged),
    "embedder": Objective(embedder, EmbedderConfig, label_data.answers, "embedder", {"step_pairs": 3, "max_example_tokens": 64}, _embedded),
    "masked_lm": Objective(masked_lm, MaskedLMConfig, label_data.prose, "masked_lm", _TEXT, _unmasked),
    "span_corruption": Objective(span_corruption, SpanCorruptionConfig, label_data.prose, "seq2seq_lm", _TEXT, _written),
    "seq2seq": Objective(
        seq2seq, Seq2SeqConfig, label_data.sums, "seq2seq_lm", {"step_tokens": 64, "max_answer_tokens": 8, "held_out_answers": 0}, _written
    ),
}


def base(shape: str, run: Run) -> Model:
    return shapes.base(shapes.BaseConfig(shape=shape), run=run)


def tuned(objective: str, shape: str, run: Run, **changes: Any) -> Any:
    """The Adapter or Model that the recipe makes of a tiny base."""
    one = OBJECTIVES[objective]
    config = one.config(**{**FAST, **one.settings, **changes})
    return one.recipe(config, model=base(shape, run), dataset=one.data(label_data.Nothing(), run=run), run=run)


@torch.no_grad()
def output(module: Any) -> np.ndarray:
    """What the module computes for two rows, one of them padded: logits, or hidden states where there is no head."""
    ids_BT = torch.tensor([[1, 60, 61, 62, 2], [1, 70, 71, 2, 0]])
    more = {"decoder_input_ids": ids_BT[:, :3]} if module.config.is_encoder_decoder and "Conditional" in _name(module) else {}
    made = module(input_ids=ids_BT, attention_mask=(ids_BT != 0).long(), **more)
    found: torch.Tensor = made.logits if hasattr(made, "logits") else made.last_hidden_state
    return found[:, -5:].float().numpy()


def _name(module: Any) -> str:
    return type(module.get_base_model() if hasattr(module, "get_base_model") else module).__name__


def plain(made: Any, head: str) -> Any:
    """The saved result by transformers and peft alone, as their documentation says."""
    import transformers
    from peft import PeftModel

    folder = made.payload if isinstance(made, Model) else made.base.payload
    labels = made.manifest.facts.get("labels")
    module = getattr(transformers, HEADS[head]).from_pretrained(
        folder, dtype=torch.float32, **({"num_labels": len(labels)} if labels else {})
    )
    module.config.pad_token_id = 0
    return (module if isinstance(made, Model) else PeftModel.from_pretrained(module, str(made.payload))).eval()
