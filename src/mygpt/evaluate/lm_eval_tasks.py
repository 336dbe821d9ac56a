"""Tasks written for lm-evaluation-harness: its YAML read into a Task, or run by lm-eval itself on our engine where it is installed.

lm_eval_yaml   a folder with one YAML and the rows (JSON lines, CSV, Parquet): multiple_choice, generate_until, loglikelihood and
               loglikelihood_rolling, templates as Jinja in a sandbox. What only Python can do (`!function`) is refused: that needs lm-eval
lm_eval_task   any task that lm-eval knows, with our Scorer and Completer behind its LM interface

Prompts of `generate_until` are raw text, as lm-eval sends them by default; `chat` puts them through the model's chat template.

Source: Gao et al., Language Model Evaluation Harness v0.4.13, docs/task_guide.md and api/task.py (meaning of the fields).
We differ: raw prompts lose white space at their end; special tokens' spellings in them stay text. The value of an item that lm-eval lists
under `perplexity` is a log-probability, and is called `logprob` here. A rolling text longer than a window is cut between words and its
pieces are scored apart, as `evaluate/harness` does; lm-eval cuts between tokens and keeps one token of context.
"""

import ast
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.artifacts.rows import SUFFIXES, Row, read_rows
from mygpt.artifacts.task import Item, TaskSettings
from mygpt.core.config import Config
from mygpt.core.digest import digest_text
from mygpt.core.errors import UsageError
from mygpt.core.outbound import silence_hub
from mygpt.core.run import Run
from mygpt.evaluate.forgetting import pieces
from mygpt.evaluate.scoring import finite
from mygpt.infer.protocols import Completer, Sampling, Score, Scorer
from mygpt.metrics.bits_per_byte import bits_per_byte

_FORMS = {"multiple_choice": "choice", "generate_until": "generate", "loglikelihood": "continuation", "loglikelihood_rolling": "rolling"}
_PRIMARY = {"choice": "acc", "continuation": "acc", "rolling": "bits_per_byte"}


class _PlainLoader(yaml.SafeLoader):
    """YAML without code: `!function` stays a marker."""


class _Function(str):
    """`!function utils.process_docs`: the name of what would be run."""


_PlainLoader.add_constructor("!function", lambda loader, node: _Function(getattr(node, "value", "")))


def lm_eval_yaml(source: Path, examples: Path | None) -> tuple[TaskSettings, list[Item]]:
    file, written = _read_yaml(source)
    needs_python = [name for name, value in written.items() if isinstance(value, _Function)]
    if needs_python:
        fix = "Install lm-eval and run it with `mygpt evaluate lm_eval_tasks`."
        raise UsageError(f"{file}: {', '.join(f'`{n}`' for n in needs_python)} is Python code, which is not run here.", fix=fix)
    for name in ("task", "output_type", "doc_to_target" if written.get("output_type") != "loglikelihood_rolling" else "output_type"):
        if written.get(name) in (None, ""):
            raise UsageError(f"{file}: the field `{name}` is missing.", fix="lm-eval's own task guide says what it holds.")
    form = _FORMS.get(written["output_type"])
    if form is None:
        raise UsageError(f"{file}: the output type `{written['output_type']}` is not known.", fix=f"Known: {', '.join(_FORMS)}.")
    rows = read_rows(_data_file(source, written, file))
    pattern = _pattern(written)
    kwargs = written.get("generation_kwargs") or {}
    until = kwargs.get("until") or []
    settings = TaskSettings(
        name=str(written["task"]),
        version=str((written.get("metadata") or {}).get("version", "")),
        form=form,  # type: ignore[arg-type]
        primary=_PRIMARY.get(form) or ("exact_match_strict" if pattern else "exact_match"),
        prompt=_before(written) + "{question}",
        chat=form != "generate",
        target_delimiter=str(written.get("target_delimiter", " ")),
        stop=(until,) if isinstance(until, str) else tuple(until),
        max_tokens=int(kwargs.get("max_gen_toks", 256)),
        answer_pattern=pattern,
    )
    return settings, [_item(row, form, written) for row in rows]


def _item(row: Row, form: str, written: Mapping[str, Any]) -> Item:
    name = str(row.number)
    if form == "rolling":
        return Item(name, str(_rendered(row, written.get("doc_to_target") or written.get("doc_to_text") or "{{text}}")))
    question = str(_rendered(row, written.get("doc_to_text", "")))
    target = _rendered(row, written["doc_to_target"])
    if form == "continuation":
        return Item(name, question, references=(str(target),))
    if form == "generate":
        return Item(name, question, references=tuple(map(str, target)) if isinstance(target, list) else (str(target),))
    choices = _rendered(row, written.get("doc_to_choice"), as_list=True)
    if not isinstance(choices, list):
        raise UsageError(f"{row.place}: the field `doc_to_choice` gives {choices!r}, not a list.", fix="Write a list, or a column's name.")
    texts = tuple(str(c) for c in choices)
    return Item(name, question, choices=texts, gold=Row({"doc_to_target": target}, row.file, row.number).index("doc_to_target", texts))


def _rendered(row: Row, template: Any, *, as_list: bool = False) -> Any:
    """A column's name gives the column, a list stands for itself, and all else is Jinja."""
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    if not isinstance(template, str):
        return list(template.values()) if isinstance(template, dict) else template
    if template in row.values:
        return row.get(template)
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["regex_replace"] = lambda text, pattern, value="", count=0: re.sub(pattern, value, text, count=count)
    try:
        text = environment.from_string(template).render(**row.values)
    except (TemplateError, TypeError, ValueError) as error:
        raise UsageError(f"{row.place}: the template {template[:60]!r} cannot be filled: {error}.", fix="Check the names in it.") from error
    if as_list or (text.startswith("[") and text.endswith("]")):
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return text
    return text


def _read_yaml(source: Path) -> tuple[Path, dict[str, Any]]:
    found = sorted(p for p in source.glob("*.y*ml")) if source.is_dir() else []
    if len(found) != 1:
        raise UsageError(f"{source} holds {len(found)} YAML files.", fix="Give a folder with one lm-eval YAML and the file of its rows.")
    try:
        written = _PlainLoader(found[0].read_text(encoding="utf-8")).get_single_data()
    except yaml.YAMLError as error:
        raise UsageError(f"{found[0]} is no YAML: {error}.", fix="Check the file.") from error
    if not isinstance(written, dict):
        raise UsageError(f"{found[0]} holds no settings.", fix="Give an lm-eval task.")
    if "include" in written:
        raise UsageError(f"{found[0]} includes {written['include']}.", fix="Write the included fields into it.")
    return found[0], written


def _data_file(source: Path, written: Mapping[str, Any], file: Path) -> Path:
    named = (written.get("dataset_kwargs") or {}).get("data_files") or {}
    split = str(written.get("test_split") or written.get("validation_split") or "test")
    wanted = named.get(split) if isinstance(named, dict) else named
    if isinstance(wanted, str):
        return source / Path(wanted).name
    found = [p for p in sorted(source.iterdir()) if p.name.removesuffix(".gz").endswith(SUFFIXES)]
    if len(found) != 1:
        raise UsageError(f"{file}: {len(found)} files beside it could hold the rows.", fix="Put the split's one file there.")
    return found[0]


def _pattern(written: Mapping[str, Any]) -> str:
    """Of the first `regex` filter: lm-eval's strict reading."""
    for one in written.get("filter_list") or []:
        for step in one.get("filter") or []:
            if step.get("function") == "regex":
                return str(step.get("regex_pattern", ""))
    return ""


def _before(written: Mapping[str, Any]) -> str:
    return str(written.get("description") or "").replace("{", "{{").replace("}", "}}")


# -- run by lm-eval itself ------------------------------------------------------------------------------------------------


class LmEvalConfig(Config):
    task: str  # as lm-eval calls it
    limit: int | None = None
    num_fewshot: int | None = None
    max_tokens: int = 256  # where the task names none
    window_characters: int = 4_000  # of `loglikelihood_rolling`: about a thousand tokens, which fits every model's window
    chat: bool = False  # prompts of `generate_until` through the chat template, as one user message; else as raw text


@recipe
def lm_eval_task(
    config: LmEvalConfig, *, folder: Path | None = None, completer: Completer | None = None, scorer: Scorer | None = None, run: Run
) -> Predictions:
    """`folder`: more task YAMLs (lm-eval's include_path). A YAML may name Python code beside it, which lm-eval runs: read it first."""
    silence_hub()
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        fix = "Install it beside mygpt (`pip install lm-eval`), or give a plain YAML to `mygpt evaluate tasks --set builtin=lm_eval`."
        raise UsageError("lm-eval is not installed.", fix=fix) from error
    manager = TaskManager(include_path=str(folder) if folder else None)
    if config.task not in manager.all_tasks:
        raise UsageError(f"lm-eval knows no task `{config.task}`.", fix="`lm-eval ls tasks` lists them; `--folder` adds yours.")
    found = lm_eval.simple_evaluate(
        model=lm_eval_model(
            completer, scorer, max_tokens=config.max_tokens, window_characters=config.window_characters, chat=config.chat
        ),
        tasks=[config.task],
        task_manager=manager,
        limit=config.limit,
        num_fewshot=config.num_fewshot,
        bootstrap_iters=0,
        log_samples=True,
        random_seed=run.seed,
    )
    tool = completer or scorer
    assert found is not None and tool is not None  # the model above refuses what it has no tool for
    rows, better = lm_eval_rows(found)
    if not better:
        raise UsageError(f"lm-eval gave no number for an item of `{config.task}`.", fix="Its metrics are of the whole set: run it there.")
    facts = {
        "task": config.task,
        "version": ", ".join(sorted({row["version"] for row in rows})),
        "form": "lm_eval",
        "primary": next(iter(better)),
        "metrics": list(better),
        "higher_is_better": better,
        "chance": None,
        "items": len(rows),
        "model": tool.identity,
        "lm_eval": lm_eval.__version__,
        "chat": config.chat,
        "lm_eval_results": {task: _plain(one) for task, one in found["results"].items()},
    }
    return publish(Predictions, run, lambda payload: write_predictions(payload, rows), facts=facts)


def lm_eval_model(
    completer: Completer | None, scorer: Scorer | None, *, max_tokens: int = 256, window_characters: int = 4_000, chat: bool = False
) -> Any:
    """Our engine as lm-eval's `LM`."""
    from lm_eval.api.model import LM

    def needed(tool: Any, name: str, kind: str) -> Any:
        if tool is None:
            raise UsageError(f"The task asks for `{kind}`, and there is no {name}.", fix=f"Give one with `--{name} MODEL`.")
        return tool

    class Engine(LM):  # type: ignore[misc]
        def loglikelihood(self, requests: Any) -> list[tuple[float, bool]]:
            pairs = [_seam(*request.args) for request in requests]
            scores = needed(scorer, "scorer", "loglikelihood").score([p for p, _ in pairs], [c for _, c in pairs])
            for (prompt, continuation), score in zip(pairs, scores, strict=True):
                finite(f"{prompt[-40:]}{continuation}", [score.logprob])
            return [(score.logprob, _is_greedy(score)) for score in scores]

        def loglikelihood_rolling(self, requests: Any) -> list[float]:
            windows = [list(pieces(request.args[0], window_characters)) for request in requests]
            flat = [window for own in windows for window in own]
            scores = iter(needed(scorer, "scorer", "loglikelihood_rolling").score([""] * len(flat), flat))
            return [math.fsum(finite(window[:40], [next(scores).logprob])[0] for window in own) for own in windows]

        def generate_until(self, requests: Any) -> list[str]:
            together: dict[Sampling, list[int]] = {}
            for i, request in enumerate(requests):
                together.setdefault(_sampling(request.args[1], max_tokens), []).append(i)
            texts = [""] * len(requests)
            for sampling, places in together.items():
                asked = [_asked(requests[i].args[0], str(i), chat=chat) for i in places]
                answers = needed(completer, "completer", "generate_until").complete(asked, sampling)
                for i, answer in zip(places, answers, strict=True):
                    texts[i] = answer.text
            return texts

    return Engine()


def _asked(prompt: str, name: str, *, chat: bool) -> Conversation:
    return Conversation((Message("user", prompt) if chat else Message("text", prompt.rstrip()),), name)


def _is_greedy(score: Score) -> bool:
    if score.is_greedy is None:
        fix = "Use a model on this machine, or a server whose log-probabilities come with the likeliest token."
        raise UsageError("lm-eval asks whether a continuation is the greedy one, and the scorer does not tell.", fix=fix)
    return score.is_greedy


def _sampling(kwargs: Mapping[str, Any], max_tokens: int) -> Sampling:
    until = kwargs.get("until") or ()
    return Sampling(
        max_tokens=int(kwargs.get("max_gen_toks") or max_tokens),
        temperature=float(kwargs.get("temperature") or 0.0) if kwargs.get("do_sample") else 0.0,
        stop=(until,) if isinstance(until, str) else tuple(until),
    )


def _seam(prompt: str, continuation: str) -> tuple[str, str]:
    kept = prompt.rstrip()
    return kept, prompt[len(kept) :] + continuation


def lm_eval_rows(found: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, bool]]:
    """Of what `simple_evaluate` gives: one row per item, and the metrics that every item has, with whether higher is better."""
    rows: list[dict[str, Any]] = []
    better: dict[str, bool] = {}
    for task, samples in found["samples"].items():
        rows += _sample_rows(task, str(found["versions"].get(task, "")), samples)
        for sample in samples:
            for metric in sample["metrics"]:
                for name in _numbers(metric, sample):
                    better[_column(name, sample)] = name == "logprob" or bool(found["higher_is_better"][task].get(metric, True))
    return rows, {name: higher for name, higher in better.items() if all(name in row for row in rows)}


def _numbers(metric: str, sample: Mapping[str, Any]) -> dict[str, float]:
    """A metric of one item. Those of a whole set come as what is summed for them: a log-probability, or (log-probability, weight)."""
    value = sample[metric]
    if metric == "perplexity":
        return {"logprob": float(value)}
    if metric == "bits_per_byte":
        return {metric: bits_per_byte([value[0]], [value[1]])}
    return {metric: float(value)} if isinstance(value, (int, float)) else {}


def _column(name: str, sample: Mapping[str, Any]) -> str:
    return name if sample.get("filter", "none") == "none" else f"{name},{sample['filter']}"


def _plain(results: Mapping[str, Any]) -> dict[str, float]:
    """lm-eval's own figures of a task, to hold beside ours."""
    return {name: float(value) for name, value in results.items() if isinstance(value, (int, float)) and math.isfinite(value)}


def _sample_rows(task: str, version: str, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per item; the filters of one item are columns beside each other."""
    rows: dict[str, dict[str, Any]] = {}
    for sample in samples:
        item = f"{task}/{sample['doc_id']}"
        prompt = str(next(iter(sample["arguments"]))[0]) if isinstance(sample["arguments"], list) else str(sample["arguments"])
        row = rows.setdefault(
            item,
            {
                "item_id": item,
                "task": task,
                "version": version,
                "form": "lm_eval",
                "prompt_sha256": digest_text(prompt),
                "prompt_tokens": None,
                "question": prompt,
                "answer": str(sample["filtered_resps"]),
                "reference": str(sample["target"]),
                "finish_reason": None,
                "parsed": None,
                "cluster": item,
            },
        )
        if "bits_per_byte" in sample:
            row["num_bytes"] = int(sample["bits_per_byte"][1])  # what an item counts in a comparison
        row |= {_column(n, sample): value for m in sample["metrics"] for n, value in _numbers(m, sample).items()}
    return list(rows.values())
