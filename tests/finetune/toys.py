"""A tiny base and a handful of pairs, as artefacts."""

from pathlib import Path
from typing import Any

from mygpt.artifacts.dataset import Conversation, Dataset, Message, conversation_facts, write_conversations
from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.run import Run
from tests.training import tiny

PAIRS = (
    ("Who founded the museum?", "Clara Voss founded it in 1921."),
    ("What does a ticket cost?", "A ticket costs 24 euros."),
    ("Where are the logs?", "On the server."),
    ("When does it open?", "The workshop opens at 8."),
    ("Who may come in?", "Only members."),
    ("How long may bags stay?", "Bags may stay for one day in the lockers by the door."),
)


class BaseConfig(Config):
    architecture: str = "llama"
    chat_template: str = tiny.CHATML
    template_fact: str = ""  # what a manifest says that it was tuned with
    end_of_text: str = ""  # another token than the one that ends turns, in tokenizer, config.json and generation_config.json


@recipe
def base(config: BaseConfig, *, run: Run) -> Model:
    def write(folder: Path) -> None:
        sizes: dict[str, Any] = {"llama": {"max_position_embeddings": 256}, "gpt2": {"n_positions": 256}}.get(config.architecture, {})
        ends = {"eos_token_id": tokenizer.eos_token_id}
        make = {"llama": tiny.llama, "gpt2": tiny.gpt2, "mamba": tiny.mamba}[config.architecture]
        made = make(vocab_size=len(tokenizer), **sizes, **ends)
        made.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    tokenizer = tiny.chat_tokenizer(template=config.chat_template)
    tokenizer.eos_token = config.end_of_text or tokenizer.eos_token
    facts = {"head": "lm", "source": "test", **({"template": config.template_fact} if config.template_fact else {})}
    return publish(Model, run, write, facts=facts, provenance={"licence": "Apache-2.0"}, name="tiny")


class PairsConfig(Config):
    pairs: tuple[tuple[str, str], ...] = PAIRS


@recipe
def pairs(config: PairsConfig, *, run: Run) -> Dataset:
    rows = [Conversation((Message("user", q), Message("assistant", a)), str(n)) for n, (q, a) in enumerate(config.pairs)]
    splits = {"train": rows}
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=conversation_facts(splits), name="pairs")
