"""One arm's answers to the held-out questions, scored: one row per question of `knowledge` and `generalisation`.

What answers is a Completer: closed book, with examples in the prompt, or with retrieval. This file does not know which. The facts are those
of a task, so that any two arms can be compared and gated like models on a task.
"""

from typing import Any

from mygpt.artifacts.dataset import Conversation, Dataset
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer, Completer, Sampling
from mygpt.metrics.exact_match import exact_match
from mygpt.metrics.rouge import rouge_l
from mygpt.metrics.token_f1 import token_f1

SETS = ("knowledge", "generalisation")
TASK = "held_out_questions"
_METRICS = ("f1", "rouge_l", "exact_match")


class AnswerSetsConfig(Config):
    max_tokens: int = 64
    max_items: int = 200  # of each set; more cost minutes per arm and narrow the interval little


@recipe
def answer_sets(config: AnswerSetsConfig, *, dataset: Dataset, completer: Completer, run: Run) -> Predictions:
    """Ask every held-out question greedily and score the answers against the references."""
    items = [(name, row) for name in SETS for row in spread(dataset.split(name), config.max_items)]
    asked = [Conversation(row.prompt, row.id) for _, row in items]
    answers = completer.complete(asked, Sampling(max_tokens=config.max_tokens)) if asked else []
    rows = [_scored(name, row, answer) for (name, row), answer in zip(items, answers, strict=True)]
    facts = {
        "items": {name: sum(row["set"] == name for row in rows) for name in SETS},
        "task": TASK,
        "version": "1",
        "form": "generate",
        "task_content": dataset.digest,
        "primary": "f1",
        "metrics": list(_METRICS),
        "higher_is_better": dict.fromkeys(_METRICS, True),
        "chance": None,
        "model": completer.identity,
    }
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows), facts=facts)


def spread(rows: list[Conversation], most: int) -> list[Conversation]:
    """All rows, or `most` of them at even distances."""
    return rows if len(rows) <= most else [rows[i * len(rows) // most] for i in range(most)]


def _scored(name: str, row: Conversation, answer: Answer) -> dict[str, Any]:
    passage = row.facts.get("passage") or row.id or row.question  # questions of one passage are not independent
    return {
        "item_id": row.id or row.question,
        "set": name,
        "passage": passage,
        "cluster": passage,
        "question": row.question,
        "reference": row.answer,
        "answer": answer.text,
        "finish_reason": answer.finish_reason,
        "num_tokens": len(answer.token_ids) or None,  # not every engine tells
        "passages": list(answer.passages) or None,  # what `groundedness` checks the answer against
        "f1": token_f1(answer.text, row.answer),
        "rouge_l": rouge_l(answer.text, row.answer).f,
        "exact_match": exact_match(answer.text, row.answer),
    }
