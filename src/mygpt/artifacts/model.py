"""Model: a checkpoint folder as transformers saves it. Adapter: what was learnt on top of one.

Payload  Model    config.json, model*.safetensors, tokenizer.json, tokenizer_config.json, chat_template.jinja, ...
         Adapter  adapter_config.json, adapter_model.safetensors (peft's; bottleneck adapters have names of their own)
Facts    Model    head ("lm", "seq2seq_lm", "masked_lm", "classifier", "reward", "tagger", "embedder": lm/heads), parameters, labels (of
                  the heads that have some), source (how it was obtained)
         Adapter  base (digest of the Model), method ("lora", "prefix", ...), trainable (parameters), weights ("nf4" if so trained), head
                  (what it makes of the base; else "lm"), labels; of a learnt prompt nearest_words and tightness
"""

from dataclasses import dataclass
from typing import ClassVar

from mygpt.artifacts.artifact import Artifact


@dataclass(frozen=True)
class Model(Artifact):
    kind: ClassVar[str] = "model"

    @property
    def head(self) -> str:
        return str(self.manifest.facts.get("head", "lm"))


@dataclass(frozen=True)
class Adapter(Artifact):
    kind: ClassVar[str] = "adapter"

    @property
    def base(self) -> Model:
        return Model.of(self.store, self.manifest.facts["base"])
