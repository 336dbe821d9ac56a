"""Several answers to each prompt, for people or a judge to rank: of several models, at several temperatures, several draws of each.

Answers of equal text are one candidate, however many made it. Where there are more than `answers_per_prompt`, those that stay are drawn, so
that no model is preferred by its place in a list. Empty answers are left out, and those that the token limit cut: nobody ranked how they
would have gone on. A prompt with fewer than two answers left is left out, and counted.

    mygpt align candidates --prompts questions --completers base --completers base+tuned --set temperatures=[0.7,1.0] --name trial
    mygpt studio annotate trial --name trial-ratings
    mygpt data preferences_from_ratings --ratings trial-ratings --candidates trial

Out come Predictions, a row for each prompt: `item_id`, `question` (what people are shown), `messages` (the prompt itself), and `answers`,
each with its `system` (model, temperature, draw), `text`, and `also`: the systems that wrote the same. The page shuffles them for each
rater and shows no system.

Source: Ouyang et al. 2022, arXiv:2203.02155, section 3.4 (4 to 9 answers to a prompt, ranked together)
"""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from mygpt.artifacts.dataset import Conversation, Dataset, Message
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.core.config import Config
from mygpt.core.errors import MygptError, UsageError
from mygpt.core.run import Run
from mygpt.infer.cached_completer import CachedCompleter
from mygpt.infer.protocols import Answer, Completer, Sampling

MOST_ANSWERS = 9  # that the annotation page shows
_FEWEST = 2


class CandidatesConfig(Config):
    split: str = "train"  # of the dataset with the prompts: schema `sft`, `preference`, or `text` (each text a request)
    max_prompts: Annotated[int, Field(ge=1)] | None = None  # drawn; default: all
    temperatures: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (0.7, 1.0)
    samples: Annotated[int, Field(ge=1)] = 1  # draws of each model at each temperature above 0
    answers_per_prompt: Annotated[int, Field(ge=_FEWEST, le=MOST_ANSWERS)] = 4
    names: tuple[str, ...] = ()  # what to call the completers; default: a, b, c, ...
    max_tokens: int = 256
    top_p: float = 1.0
    at_once: Annotated[int, Field(ge=1)] = 64  # prompts handed to a completer together: between them progress is shown


@recipe
def candidates(config: CandidatesConfig, *, prompts: Dataset, completers: tuple[Completer, ...], run: Run) -> Predictions:
    """A row for each prompt, with the different answers to it: what people or a judge rank next (`mygpt studio annotate NAME`)."""
    asked = prompts_of(prompts, config, run)
    names = config.names or tuple("abcdefghijklmnopqrstuvwxyz"[: len(completers)])
    if len(names) != len(completers) or len(set(names)) != len(names):
        what = f"{len(completers)} completers have {len(names)} names: {', '.join(names)}."
        raise UsageError(what, fix="Give each its own, in the order of `--completers`.")
    written: list[dict[str, str]] = [{} for _ in asked]  # of each prompt: system -> answer
    left_out: Counter[str] = Counter()
    plan = [(name, one, t) for name, one in zip(names, completers, strict=True) for t in dict.fromkeys(config.temperatures)]
    progress = run.progress(len(asked) * len(plan), "prompts")
    for name, completer, temperature in plan:
        draws = config.samples if temperature > 0 else 1
        seed = run.seed_for(f"{name} at {temperature}") >> 31 if temperature > 0 else 0  # greedy answers are the same under every seed
        answering = CachedCompleter(completer, run.home / "cache" / "answers.sqlite")  # interrupted work goes on where it stopped
        sampling = Sampling(max_tokens=config.max_tokens, temperature=temperature, top_p=config.top_p, seed=seed)
        for start in range(0, len(asked), config.at_once):
            part = asked[start : start + config.at_once]
            answers = drawn(answering, part, draws, sampling)
            for number, answer in enumerate(answers):
                place, draw = start + number // draws, number % draws + 1
                fault = "empty" if not answer.text.strip() else "cut by the token limit" if answer.finish_reason == "length" else ""
                if fault:
                    left_out[fault] += 1
                else:
                    written[place][f"{name} t={temperature:g} #{draw}"] = answer.text.strip()
            progress.advance(len(part))
    merged = [merge(answers) for answers in written]
    rows = [
        row_of(one, chosen_of(found, config.answers_per_prompt, run, one.id))
        for one, found in zip(asked, merged, strict=True)
        if len(found) >= _FEWEST
    ]
    facts = {
        "candidates": True,
        "prompts": len(rows),
        "prompts_left_out": len(asked) - len(rows),
        "answers": sum(len(row["answers"]) for row in rows),
        "merged": sum(map(len, written)) - sum(map(len, merged)),
        "left_out": dict(sorted(left_out.items())),
        "completers": dict(zip(names, (completer.identity for completer in completers), strict=True)),
    }
    if not rows:
        what = f"None of the {len(asked)} prompts has two different answers ({dict(left_out)} were left out, {facts['merged']} merged)."
        raise UsageError(what, fix="Raise `temperatures`, `samples` or `max_tokens`, or ask more models.")
    if left_out or len(rows) < len(asked):
        told = ", ".join(f"{number} answers {what}" for what, number in sorted(left_out.items())) or "answers were alike"
        run.warn(f"{len(asked) - len(rows)} of {len(asked)} prompts have fewer than two different answers and are left out ({told}).")
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows), facts=facts)


def prompts_of(prompts: Dataset, config: CandidatesConfig, run: Run) -> list[Conversation]:
    """Each once, in the dataset's order. Of an sft row the answer is left out; of two rows with one prompt the first stays."""
    if prompts.schema == "preference":
        listed = [Conversation(row.prompt, row.id) for row in prompts.preferences(config.split)]
    elif prompts.schema == "text":
        listed = [Conversation((Message("user", text),)) for text in prompts.texts(config.split)]
    else:
        listed = [Conversation(row.prompt, row.id) for row in prompts.split(config.split)]
    distinct = list({one.messages: one for one in reversed(listed) if one.messages and one.messages[-1].role != "assistant"}.values())[::-1]
    if not distinct:
        fix = f"Name another with `--set split=NAME`; it has: {', '.join(prompts.splits)}."
        raise UsageError(f"The split `{config.split}` of {prompts.id} has no prompts.", fix=fix)
    if config.max_prompts is not None and config.max_prompts < len(distinct):
        kept = set(run.random("prompts").sample(range(len(distinct)), config.max_prompts))
        distinct = [one for number, one in enumerate(distinct) if number in kept]
    often = Counter(one.id for one in distinct)
    return [one if one.id and often[one.id] == 1 else Conversation(one.messages, f"prompt-{n}") for n, one in enumerate(distinct, 1)]


def drawn(completer: Completer, asked: Sequence[Conversation], draws: int, sampling: Sampling) -> list[Answer]:
    """Those of one prompt beside each other. Equal conversations of one call are different draws: that is for completers to see to."""
    wanted = [one for one in asked for _ in range(draws)]
    answers = completer.complete(wanted, sampling)
    if len(answers) != len(wanted):
        raise MygptError(f"{len(wanted)} answers were asked for and {len(answers)} came.", fix="The completer is at fault.")
    return answers


def merge(answers: dict[str, str]) -> list[tuple[str, list[str]]]:
    """(text, the systems that wrote it), in the order in which texts came first."""
    found: dict[str, list[str]] = {}
    for system, text in answers.items():
        found.setdefault(text, []).append(system)
    return list(found.items())


def chosen_of(found: list[tuple[str, list[str]]], most: int, run: Run, item: str) -> list[tuple[str, list[str]]]:
    return found if len(found) <= most else run.random(f"answers of {item}").sample(found, most)


def row_of(prompt: Conversation, found: Sequence[tuple[str, list[str]]]) -> dict[str, Any]:
    return {
        "item_id": prompt.id,
        "question": shown_prompt(prompt.messages),
        "messages": [{"role": m.role, "content": m.content} for m in prompt.messages],
        "answers": [{"system": systems[0], "text": text, "also": systems[1:]} for text, systems in found],
    }


def shown_prompt(messages: Sequence[Message]) -> str:
    """What people read: a single request as it stands, several turns each under its role."""
    if [m.role for m in messages] == ["user"]:
        return messages[0].content
    return "\n\n".join(f"{m.role.capitalize()}: {m.content}" for m in messages)
