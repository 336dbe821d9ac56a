"""One Task, one model, one row per item: what was asked, what came, how it was read, and every metric.

`Predictions` holds the rows; the manifest's facts hold the task's version, the metrics and what could not be read. Whatever is computed is
cached at once by model, settings and prompt: a run that broke off, or whose server stopped answering, goes on where it stood.

Source: Gao et al., Language Model Evaluation Harness v0.4.13 (forms of a task, and its rolling log-likelihood: every token scored once,
the first from the beginning-of-text token; the perplexity of continuations: exp of minus the mean log-probability of an item).
We differ: choices are scored with plain text, answers are asked for through the chat template unless the task says `chat: false`; a text
longer than a window is cut between words and its pieces are scored apart, where the harness cuts between tokens and keeps one token of
context.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from mygpt.artifacts.dataset import Conversation
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.artifacts.task import Item, Task, TaskSettings, metrics_of
from mygpt.core.config import Config
from mygpt.core.digest import digest_value
from mygpt.core.errors import MygptError, UsageError
from mygpt.core.run import Run
from mygpt.core.spread import spread
from mygpt.evaluate.forgetting import pieces
from mygpt.evaluate.parity import check_prompt_ids, check_stop_ids, engine_of, prompt_ids, prompt_sha256, scored_ids, tokenizer_facts
from mygpt.evaluate.program_scoring import PRELOADED, pass_at_k_of, scored_program
from mygpt.evaluate.prompts import continuations, conversation, text_prompt
from mygpt.evaluate.scoring import Scored, scored_answer, scored_choice, scored_continuation, scored_text, similarities
from mygpt.guard.sandbox import Sandbox
from mygpt.infer.cached_completer import CachedCompleter
from mygpt.infer.cached_scorer import CachedScorer
from mygpt.infer.protocols import Answer, Completer, Embedder, Sampling, Score, Scorer
from mygpt.metrics.bits_per_byte import bits_per_byte
from mygpt.metrics.bleu import corpus_bleu
from mygpt.metrics.chrf import corpus_chrf
from mygpt.metrics.perplexity import byte_perplexity, word_perplexity
from mygpt.metrics.rouge import UNICODE, signature

_EMBEDDED_AT_ONCE = 256


class RunTaskConfig(Config):
    max_items: int | None = None  # at even distances; all by default
    temperature: float = 0.0  # of `generate` tasks
    samples: int = 1  # answers drawn to each item of a `generate` task: rows `ID/0`, `ID/1`, ... in the item's cluster
    window_characters: int = 4_000  # of `rolling` tasks: about a thousand tokens, which fits every model's window
    cached: bool = True  # keep what is computed, and use what was kept


@recipe
def run_task(
    config: RunTaskConfig,
    *,
    task: Task,
    completer: Completer | None = None,
    scorer: Scorer | None = None,
    embedder: Embedder | None = None,
    run: Run,
) -> Predictions:
    """Forms `choice`, `continuation` and `rolling` need a scorer, `generate` needs a completer. With an embedder, summaries are also
    compared by meaning."""
    settings, items = task.settings, _spread(task.items, config.max_items)
    _check_samples(settings, config)
    if embedder is not None and (settings.form, settings.answer) != ("generate", "summary"):
        raise UsageError(f"The task `{settings.name}` asks for no summaries, which an embedder could compare.", fix="Leave it out.")
    cache = run.home / "cache"
    facts: dict[str, Any] = {"template": None}
    if settings.form == "generate":
        if completer is None:
            raise _needs(task, "completer", "asks for answers")
        tool: Any = completer
        asked = [conversation(settings, item) for item in items]
        facts |= {"template": _checked_template(completer, asked), "samples": config.samples, "temperature": config.temperature}
        answering = CachedCompleter(completer, cache / "answers.sqlite") if config.cached else completer
        answers = _answers(settings, asked, answering, config, run)
        told = [prompt_ids(completer, one) for one in asked]
        with _scoring(settings, run) as score:
            rows = _generated(items, asked, told, answers, score, config.samples)
    else:
        if scorer is None:
            raise _needs(task, "scorer", "compares log-probabilities")
        tool = scorer
        scoring = CachedScorer(scorer, cache / "scores.sqlite") if config.cached else scorer
        if settings.form == "rolling":
            rows = _rolled(items, scorer, scoring, config)
        else:
            rows = (_chosen if settings.form == "choice" else _continued)(settings, items, scorer, scoring)
    facts["hashed"] = sorted({row.pop("hashed") for row in rows})
    asked_of = [item for item in items for _ in range(config.samples)]
    rows = [_row(task, item, row) for item, row in zip(asked_of, rows, strict=True)]
    metrics = metrics_of(settings, items)
    if embedder is not None:
        _compare_meaning(asked_of, rows, embedder, run)
        metrics["similarity"] = True
        facts["embedder"] = embedder.identity
    facts |= {**_facts(task, asked_of, rows), "items": len(items), "metrics": list(metrics), "higher_is_better": metrics}
    facts |= {"model": tool.identity}
    _warn_of_silence(facts, len(rows), run)
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows), facts=facts)


def task_prompts(task: Task) -> list[str]:
    """What the items put to the model, for people and for contamination checks."""
    return [text_prompt(task.settings, item) for item in task.items]


# -- the four forms ------------------------------------------------------------------------------------------------------


def _chosen(settings: TaskSettings, items: Sequence[Item], telling: Scorer, scorer: Scorer) -> list[dict[str, Any]]:
    """All choices of all items in one call: the engine shares what they begin with. `telling` is the scorer itself, without its cache."""
    asked = [text_prompt(settings, item) for item in items]
    choices = [continuations(settings, item) for item in items]
    fed = [_fed(telling, prompt, own) for prompt, own in zip(asked, choices, strict=True)]
    scores = _score(scorer, [(prompt, choice) for prompt, own in zip(asked, choices, strict=True) for choice in own])
    bare: list[Score] = []
    if settings.mutual_information:
        bare = _score(scorer, [(settings.bare_prompt.rstrip(), choice) for own in choices for choice in own])
    rows, start = [], 0
    for item, prompts, own in zip(items, fed, choices, strict=True):
        end = start + len(own)
        made = scored_choice(item, scores[start:end], bare[start:end] or None)
        rows.append({**prompts, **_columns(made), "scored_tokens": sum(s.num_tokens for s in scores[start:end])})
        start = end
    return rows


def _continued(settings: TaskSettings, items: Sequence[Item], telling: Scorer, scorer: Scorer) -> list[dict[str, Any]]:
    asked = [(text_prompt(settings, item), continuations(settings, item)[0]) for item in items]
    fed = [_fed(telling, prompt, [continuation]) for prompt, continuation in asked]
    made = [scored_continuation(item, score) for item, score in zip(items, _score(scorer, asked), strict=True)]
    return [{**prompts, **_columns(one)} for prompts, one in zip(fed, made, strict=True)]


def _answers(
    settings: TaskSettings, asked: Sequence[Conversation], completer: Completer, config: RunTaskConfig, run: Run
) -> list[Answer]:
    """`samples` of each, beside each other. Equal conversations of one call are different draws: that is for completers to see to."""
    seed = run.seed_for("answers") >> 31 if config.temperature > 0 else 0  # greedy answers are the same under every seed
    sampling = Sampling(max_tokens=settings.max_tokens, temperature=config.temperature, seed=seed, stop=settings.stop)
    wanted = [one for one in asked for _ in range(config.samples)]
    answers: list[Answer] = completer.complete(wanted, sampling)
    if len(answers) != len(wanted):
        raise MygptError(f"{len(wanted)} questions were asked and {len(answers)} answers came.", fix="The completer is at fault.")
    return answers


def _generated(
    items: Sequence[Item],
    asked: Sequence[Conversation],
    told: Sequence[tuple[int, ...] | None],
    answers: Sequence[Answer],
    score: Callable[[Item, str], Scored],
    samples: int,
) -> list[dict[str, Any]]:
    """`told`: the ids of each prompt, where the completer shows them before it answers. `score` reads one answer to one item."""
    rows = []
    for number, answer in enumerate(answers):
        item, one, ids = items[number // samples], asked[number // samples], told[number // samples]
        digest = answer.prompt_sha256 or prompt_sha256("\n\n".join(f"{m.role}: {m.content}" for m in one.messages), ids)
        rows.append(
            {
                "prompt_sha256": digest,
                "hashed": "ids" if answer.prompt_sha256 or ids is not None else "text",
                "prompt_tokens": answer.prompt_tokens or (None if ids is None else len(ids)),
                **({"item_id": f"{item.id}/{number % samples}", "sampled_from": item.id} if samples > 1 else {}),
                **_columns(score(item, answer.text)),
                "finish_reason": answer.finish_reason,
                "answer_tokens": len(answer.token_ids) or None,  # not every engine tells
                **({"passages": list(answer.passages)} if answer.passages else {}),  # what `groundedness` holds the answer against
            }
        )
    return rows


def _compare_meaning(items: Sequence[Item], rows: Sequence[dict[str, Any]], embedder: Embedder, run: Run) -> None:
    """The column `similarity`, beside those of shared words. `items`: of each row."""
    progress = run.progress(len(rows), "summaries compared")
    for start in range(0, len(rows), _EMBEDDED_AT_ONCE):
        part = rows[start : start + _EMBEDDED_AT_ONCE]
        references = [item.references for item in items[start : start + len(part)]]
        for row, similarity in zip(part, similarities(embedder, [row["read_flexible"] or "" for row in part], references), strict=True):
            row["similarity"] = similarity
        progress.advance(len(part))


def _rolled(items: Sequence[Item], telling: Scorer, scorer: Scorer, config: RunTaskConfig) -> list[dict[str, Any]]:
    windows = [list(pieces(item.question, config.window_characters)) for item in items]
    fed = [_fed(telling, "", own, text=item.question) for item, own in zip(items, windows, strict=True)]
    scores = _score(scorer, [("", window) for own in windows for window in own])
    rows, start = [], 0
    for item, prompts, own in zip(items, fed, windows, strict=True):
        end = start + len(own)
        rows.append({**prompts, "prompt_tokens": None, **_columns(scored_text(item, scores[start:end])), "windows": len(own)})
        start = end
    return rows


@contextmanager
def _scoring(settings: TaskSettings, run: Run) -> Iterator[Callable[[Item, str], Scored]]:
    """What reads and scores one answer; programs run in a sandbox that stays warm for all of them."""
    if settings.answer != "program":
        yield partial(scored_answer, settings)
        return
    with Sandbox(preload=PRELOADED) as sandbox:
        run.note("Running the programs against their unit tests, in the sandbox")
        yield partial(scored_program, settings, sandbox)


def _fed(scorer: Scorer, prompt: str, own: Sequence[str], *, text: str = "") -> dict[str, Any]:
    """The hash of all ids that are scored for one item; of the text where the scorer does not tell them."""
    ids = scored_ids(scorer, prompt, own)
    if ids is None:
        return {"prompt_sha256": prompt_sha256(prompt or text, None), "hashed": "text", "prompt_tokens": None}
    return {"prompt_sha256": digest_value([list(one) for one, _ in ids]), "hashed": "ids", "prompt_tokens": ids[0][1]}


def _score(scorer: Scorer, pairs: Sequence[tuple[str, str]]) -> list[Score]:
    scores = scorer.score([prompt for prompt, _ in pairs], [text for _, text in pairs])
    if len(scores) != len(pairs):
        raise MygptError(f"{len(pairs)} texts were given and {len(scores)} scores came.", fix="The scorer is at fault.")
    return scores


# -- what is written down -------------------------------------------------------------------------------------------------


def _columns(made: Scored) -> dict[str, Any]:
    return {"answer": made.answer, "reference": made.reference, "parsed": made.parsed, **made.shown, **made.metrics}


def _row(task: Task, item: Item, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "item_id": item.id,
        "task": task.settings.name,
        "version": task.version,
        "form": task.form,
        "question": item.question,
        "finish_reason": None,
        "cluster": item.cluster,
        **({"slice": item.facts["slice"]} if "slice" in item.facts else {}),
        **row,
    }


def _facts(task: Task, items: Sequence[Item], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`items`: of each row."""
    facts: dict[str, Any] = {
        "task": task.settings.name,
        "version": task.version,
        "form": task.form,
        "primary": task.primary,
        "variant_of": task.settings.variant_of,
        "chance": task.settings.chance,
        "commonest_label": task.manifest.facts.get("commonest_label"),
        "task_content": task.manifest.content,  # equal for equal items and settings, whoever read them
        "prompts": digest_value([row["prompt_sha256"] for row in rows]),
    }
    if task.form == "generate":
        facts |= {
            "answer": task.settings.answer,
            "unparsed": sum(row["parsed"] is False for row in rows),
            "empty": sum(not row["answer"].strip() for row in rows),
            "cut": sum(row["finish_reason"] == "length" for row in rows),
        }
    if task.form == "generate" and task.settings.answer in ("number", "label"):
        facts["read"] = {way: sum(row.get(f"read_{way}") is not None for row in rows) for way in ("strict", "flexible", "number")}
    if task.form == "generate" and task.settings.answer == "program":
        facts["pass_at_k"] = pass_at_k_of(rows)
    if task.form == "generate" and task.settings.answer == "summary":
        answers, references = [row["answer"].strip() for row in rows], [item.references for item in items]
        bleu, chrf = corpus_bleu(answers, references), corpus_chrf(answers, references)
        facts["corpus"] = {"bleu": bleu.score, "chrf": chrf.score}
        facts["signatures"] = {"bleu": bleu.signature, "chrf": chrf.signature, "rouge": signature("*", UNICODE)}
    if task.form == "continuation":
        logprobs = [row["logprob"] for row in rows]
        perplexity = math.exp(-math.fsum(logprobs) / len(rows))
        facts["corpus"] = {"perplexity": perplexity, "bits_per_byte": bits_per_byte(logprobs, [row["num_bytes"] for row in rows])}
    if task.form == "rolling":
        logprob, num_bytes = math.fsum(row["logprob"] for row in rows), sum(row["num_bytes"] for row in rows)
        facts["corpus"] = {
            "bits_per_byte": bits_per_byte([logprob], [num_bytes]),
            "byte_perplexity": byte_perplexity([logprob], [num_bytes]),
            "word_perplexity": word_perplexity([row["logprob"] for row in rows], [row["question"] for row in rows]),
        }
    return facts


def _warn_of_silence(facts: dict[str, Any], num_answers: int, run: Run) -> None:
    if facts.get("empty") == num_answers:
        run.warn(f"The model returned nothing for all {facts['items']} items of `{facts['task']}`: the scores say nothing about it.")
    elif facts.get("unparsed"):
        run.warn(f"{facts['unparsed']} of {num_answers} answers to `{facts['task']}` could not be read; they score 0 and are marked.")


def _checked_template(completer: Completer, asked: Sequence[Conversation]) -> str | None:
    """The digest of the chat template that the prompts go through. Refuses the slips of `evaluate/parity`."""
    engine = engine_of(completer)
    known = tokenizer_facts(engine)
    if known is None:
        return getattr(engine, "template_digest", None)
    for one in asked:
        check_prompt_ids(prompt_ids(engine, one) or (), known)
    if (stops := getattr(engine, "stop_token_ids", None)) is not None:
        check_stop_ids(stops, known)
    return known.template_digest


def _check_samples(settings: TaskSettings, config: RunTaskConfig) -> None:
    if config.samples < 1:
        raise UsageError(f"{config.samples} samples of each item were asked for.", fix="Take at least 1.")
    if config.samples > 1 and settings.form != "generate":
        what = f"The task `{settings.name}` is of the form `{settings.form}`: nothing is drawn, and {config.samples} samples would be one."
        raise UsageError(what, fix="Leave `samples` out.")
    if config.samples > 1 and config.temperature <= 0:
        what = f"{config.samples} samples of each item were asked for at temperature {config.temperature}: they would be one answer copied."
        raise UsageError(what, fix="Set a temperature above 0, `--set temperature=0.7` say.")


def _spread(items: list[Item], most: int | None) -> list[Item]:
    if most is not None and most < 2:
        raise UsageError(f"{most} items were asked for.", fix="Take at least 2: of one item there is no spread.")
    return spread(items, most)


def _needs(task: Task, tool: str, why: str) -> UsageError:
    return UsageError(f"The task `{task.settings.name}` {why}, and there is no {tool}.", fix=f"Give one with `--{tool} MODEL`.")
