"""Replay: the base model's own answers to general questions, learnt again beside the new ones, so that it keeps what it can do.

The questions are ours (`replay_prompts.txt`), none of them in the general set that measures forgetting. The answers are the base's own, so
nothing new is taught: they hold the model where it was.

Source  self-generated rehearsal: Huang et al. 2024, arXiv:2403.01244
"""

from importlib.resources import files

from mygpt.artifacts.dataset import Conversation, Dataset, Dropped, Message, conversation_facts, write_conversations
from mygpt.artifacts.recipe import publish, recipe, safe_name
from mygpt.core.config import Config
from mygpt.core.digest import digest_value
from mygpt.core.run import Run
from mygpt.infer.protocols import Completer, Sampling


class ReplayConfig(Config):
    prompts: int = 90  # of the list, from its beginning; 0: no replay
    max_tokens: int = 64  # longer answers are left out: a cut answer would not teach how to end


@recipe
def replay(config: ReplayConfig, *, completer: Completer, run: Run) -> Dataset:
    """Split `train`: the completer's greedy answers to general questions."""
    questions = load_prompts()[: config.prompts]
    asked = [Conversation((Message("user", question),)) for question in questions]
    answers = completer.complete(asked, Sampling(max_tokens=config.max_tokens)) if asked else []
    rows, dropped = [], []
    for question, answer in zip(questions, answers, strict=True):
        identity = digest_value([question, answer.text])[:16]
        row = Conversation((Message("user", question), Message("assistant", answer.text)), identity, facts={"made": "replay"})
        if answer.finish_reason == "length" or not answer.text:
            dropped.append(Dropped("answer too long" if answer.text else "no answer", row))
        else:
            rows.append(row)
    splits = {"train": rows}
    facts = conversation_facts(splits, dropped)
    return publish(
        Dataset, run, lambda folder: write_conversations(folder, splits, dropped), facts=facts, name=safe_name(f"{run.name}-replay")
    )


def load_prompts() -> list[str]:
    text = (files("mygpt.data") / "replay_prompts.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line]
