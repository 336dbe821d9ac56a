"""Tasks that come with mygpt, and your own: a data set's file in, a Task out.

No data ships: each reader takes the file as its makers publish it, from this disk or, named `hub:OWNER/NAME[@REVISION]/FILE` on the command
line, from the hub (`lm/hub.data_file`), pinned to its commit. The table holds strings only, so that a name can be
looked up without importing a reader.
"""

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.task import Item, Task, TaskSettings, write_task
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.core.spread import spread

Reader = Callable[[Path | None, Path | None], tuple[TaskSettings, list[Item]]]


@dataclass(frozen=True)
class BuiltinTask:
    name: str
    path: str  # of its reader: "mygpt.evaluate.tasks.gsm8k:five_shot"
    file: str  # what the file is; "" for a task that needs none
    about: str

    @property
    def reader(self) -> Reader:
        module, _, name = self.path.partition(":")
        found: Reader = getattr(importlib.import_module(module), name)
        return found


_HERE = "mygpt.evaluate.tasks"
BUILTIN: tuple[BuiltinTask, ...] = (
    BuiltinTask("gsm8k", f"{_HERE}.gsm8k:five_shot", "question, answer", "word problems, five solved before each"),
    BuiltinTask("gsm8k_chat", f"{_HERE}.gsm8k:chat", "question, answer", "word problems, asked alone"),
    BuiltinTask("hellaswag", f"{_HERE}.hellaswag:hellaswag", "activity_label, ctx_a, ctx_b, endings, label", "which ending follows"),
    BuiltinTask("arc", f"{_HERE}.arc:arc", "id, question, choices, answerKey", "school science, easy and challenge"),
    BuiltinTask("mmlu", f"{_HERE}.mmlu:mmlu", "question, choices, answer", "57 subjects, letters"),
    BuiltinTask("truthfulqa_mc1", f"{_HERE}.truthfulqa:mc1", "question, mc1_targets", "one true choice"),
    BuiltinTask("truthfulqa_mc2", f"{_HERE}.truthfulqa:mc2", "question, mc2_targets", "share of probability on true choices"),
    BuiltinTask("boolq", f"{_HERE}.glue:boolq", "passage, question, answer", "yes or no"),
    BuiltinTask("rte", f"{_HERE}.glue:rte", "sentence1, sentence2, label", "does the first entail the second"),
    BuiltinTask("mrpc", f"{_HERE}.glue:mrpc", "sentence1, sentence2, label", "same meaning or not"),
    BuiltinTask("sst2", f"{_HERE}.glue:sst2", "sentence, label", "sentiment"),
    BuiltinTask("squad", f"{_HERE}.squad:squad", "context, question, answers; or the official JSON", "reading, short answers"),
    BuiltinTask("summaries", f"{_HERE}.summaries:summaries", "document or dialogue or article, summary or highlights", "summarisation"),
    BuiltinTask("bbh", f"{_HERE}.bbh:bbh", "input, target", "BIG-bench hard, one of its tasks"),
    BuiltinTask("ifeval", f"{_HERE}.ifeval:ifeval", "key, prompt, instruction_id_list, kwargs", "instructions a program checks"),
    BuiltinTask("humaneval", f"{_HERE}.humaneval:humaneval", "task_id, prompt, entry_point, test", "functions continued, unit tests"),
    BuiltinTask("humaneval_chat", f"{_HERE}.humaneval:chat", "task_id, prompt, entry_point, test", "the same, asked for in a chat"),
    BuiltinTask("t0_ag_news", f"{_HERE}.t0:ag_news", "prompt, completion", "news sections"),
    BuiltinTask("t0_imdb", f"{_HERE}.t0:imdb", "prompt, completion", "sentiment of reviews"),
    BuiltinTask("t0_paws", f"{_HERE}.t0:paws", "prompt, completion", "paraphrase or not"),
    BuiltinTask("t0_mrpc", f"{_HERE}.t0:mrpc", "prompt, completion", "equivalent or not"),
    BuiltinTask("t0_trec", f"{_HERE}.t0:trec", "prompt, completion", "kinds of questions"),
    BuiltinTask("t0_qasc", f"{_HERE}.t0:qasc", "prompt, completion", "eight options, two facts given"),
    BuiltinTask("t0_cosmos_qa", f"{_HERE}.t0:cosmos_qa", "prompt, completion", "reading between the lines, four options"),
    BuiltinTask("t0_samsum", f"{_HERE}.t0:samsum", "prompt, completion", "summaries of dialogues"),
    BuiltinTask("arithmetic_1_digit", f"{_HERE}.arithmetic:one_digit", "", "sums of one digit"),
    BuiltinTask("arithmetic_2_digit", f"{_HERE}.arithmetic:two_digit", "", "sums of two digits"),
    BuiltinTask("arithmetic_choice", f"{_HERE}.arithmetic:choice", "", "sums of one digit, four choices"),
    BuiltinTask("text", f"{_HERE}.text:text", "a text file, or rows with `text`", "rolling perplexity and bits per byte"),
    BuiltinTask("lm_eval", "mygpt.evaluate.lm_eval_tasks:lm_eval_yaml", "a folder: lm-eval's YAML and the rows", "a plain lm-eval task"),
)


class ReadTaskConfig(Config):
    builtin: str = ""  # one of the table; without it `source` is a task of your own
    max_items: int | None = None  # at even distances
    version: str = ""  # your own, in place of the reader's
    chat: bool | None = None  # through the chat template or as raw text, in place of what the reader says


def builtin_task(name: str) -> BuiltinTask:
    """The row of one task. Raises UsageError with the nearest names."""
    rows = {task.name: task for task in BUILTIN}
    if name in rows:
        return rows[name]
    nearest = difflib.get_close_matches(name.lower(), rows, n=3) or [known for known in rows if name.lower() in known][:3]
    fix = f"Did you mean {', '.join(f'`{n}`' for n in nearest)}?" if nearest else f"Known: {', '.join(rows)}."
    raise UsageError(f"There is no built-in task `{name}`.", fix=fix)


@recipe
def read_task(config: ReadTaskConfig, *, source: Path | None = None, examples: Path | None = None, run: Run) -> Task:
    """`examples`: a file of the same layout whose first rows are shown solved, for built-in tasks that show some."""
    if config.builtin:
        task = builtin_task(config.builtin)
        if source is None and task.file:
            raise UsageError(f"The task `{task.name}` needs its file ({task.file}).", fix="Name it with `--source FILE`.")
        settings, items = task.reader(source, examples)
    else:
        if source is None:
            raise UsageError("No task was named.", fix="Give `--source FOLDER`, or `--set builtin=NAME`.")
        from mygpt.evaluate.tasks.own import read_own

        settings, items = read_own(source)
    if config.version:
        settings = settings.model_copy(update={"version": config.version})
    if config.chat is not None:
        settings = settings.model_copy(update={"chat": config.chat})
    chosen = spread(items, config.max_items)
    return publish(Task, run, lambda folder: write_task(folder, chosen, settings), name=settings.name)
