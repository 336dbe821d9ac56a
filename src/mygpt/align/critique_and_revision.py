"""Constitutional AI, first phase: a model's answers to awkward requests, criticised and revised until they keep to the principles.

Each request is answered, sampled. Then, `rounds` times: one principle of the constitution is drawn from the seed, the critic says what the
answer gets wrong by it, and rewrites it. Every revision, of whatever depth, is a row to learn; its facts hold all critiques. An answer that
the critic finds nothing wrong with is a row as it is. What is no revision (empty, an echo, a copy of an example, cut off: `revisions`) is
dropped with its reason, and the round counts for nothing: the next principle meets the answer before it.

Harmless requests, answered and left alone, are mixed in, so that the model does not learn to turn everything down.

Source: Bai et al. 2022, arXiv:2212.08073, section 3 (there 4 rounds, 16 principles, all depths, mixed with helpful answers).
We differ: critic and answerer may be two models; critique and revision are asked in two chats, each shown its own kind of example (small
critics otherwise write the one for the other); both are greedy; no principle comes twice before all were drawn. With `reads_critique` off
the reviser is told the principle and not the critique (there section 3.5: direct revisions).
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveInt

from mygpt.align.constitution import Constitution, Principle, open_constitution
from mygpt.align.requests import dialogue, helpful_prompts, red_team_prompts, requests
from mygpt.align.revisions import needs_no_change, read_critique, read_revision, revision_fault
from mygpt.artifacts.dataset import Conversation, Dataset, Dropped, Message, conversation_facts, write_conversations
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.digest import digest_value
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.infer.cached_completer import CachedCompleter
from mygpt.infer.protocols import Answer, Completer, Sampling

_SYSTEM = Message("system", "You check answers by one rule at a time, and rewrite those that break it.")
_STOP = ("\nRequest:",)  # a small critic goes on with a request of its own


class CritiqueAndRevisionConfig(Config):
    constitution: str = "harmless_and_helpful"  # one that is included; a file of your own is the input `constitution_file`
    prompts: NonNegativeInt = 0  # at most so many requests; 0: all
    rounds: PositiveInt = 4
    reads_critique: bool = True  # whether the reviser does; false suits small critics, whose critiques lead their revisions astray
    helpful_prompts: NonNegativeInt = 48  # at most so many harmless requests beside them; 0: none
    temperature: Annotated[float, Field(ge=0)] = 1.0  # of the answers
    frequency_penalty: Annotated[float, Field(ge=0, le=2)] = 0.0  # of the critic: 0.3 keeps small ones out of loops
    max_answer_tokens: PositiveInt = 128
    max_critique_tokens: PositiveInt = 80


@dataclass
class Chain:
    """One request, the answer as it stands, and what the critic said so far."""

    request: Conversation
    principles: list[Principle]
    answer: str
    cut_off: bool
    depth: int = 0  # revisions that led to `answer`
    rounds: list[dict[str, str]] = field(default_factory=list)
    revised: list[tuple[str, dict[str, str]]] = field(default_factory=list)  # every revision, and its facts
    approved: bool = False  # the critic found nothing wrong with `answer` at least once


@recipe
def critique_and_revision(
    config: CritiqueAndRevisionConfig,
    *,
    completer: Completer,
    critic: Completer | None = None,
    prompts: Dataset | None = None,
    helpful: Dataset | None = None,
    constitution_file: Path | None = None,
    run: Run,
) -> Dataset:
    """Split `train`: requests, each with a revised answer. Without `critic` the answering model criticises itself.

    Without `prompts` and `helpful` our own requests are asked.
    """
    constitution = open_constitution(config.constitution, constitution_file)
    kept_answers = run.home / "cache" / "answers.sqlite"
    writer, checker = CachedCompleter(completer, kept_answers), CachedCompleter(critic or completer, kept_answers)
    asked = requests(prompts, red_team_prompts(), config.prompts or None)
    dropped: list[Dropped] = []

    chains = answered(config, asked, constitution, writer, run, dropped)
    progress = run.progress(config.rounds * len(chains), "critiques")
    for number in range(config.rounds):
        one_round(config, number, chains, constitution, checker, dropped)
        progress.advance(len(chains))
    rows = [row for chain in chains for row in rows_of(chain)]
    dropped += [Dropped("never approved and never revised", _row(c.request, c.answer, {})) for c in chains if not rows_of(c)]
    helpful_rows = helpful_answers(config, requests(helpful, helpful_prompts(), config.helpful_prompts), writer, run, dropped)
    if not rows:
        told = ", ".join(f"{count} {reason}" for reason, count in conversation_facts({}, dropped)["dropped"].items())
        raise UsageError(
            f"Of {len(chains)} answers none was revised or approved: {told}.",
            fix="Take a stronger critic (`--critic MODEL` or an address), or examples that it can follow.",
        )
    splits = {"train": rows + helpful_rows}
    facts = {**conversation_facts(splits, dropped), **_figures(chains, rows, helpful_rows), "constitution": constitution.told}
    run.note(f"{facts['revisions']} revisions and {facts['left_alone']} answers left alone, of {len(chains)} requests.")
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits, dropped), facts=facts)


def answered(
    config: CritiqueAndRevisionConfig,
    asked: Sequence[Conversation],
    constitution: Constitution,
    completer: Completer,
    run: Run,
    dropped: list[Dropped],
) -> list[Chain]:
    """The first answers, and the order in which the principles will meet each."""
    draw = run.random("critique_and_revision/principles")
    seed = run.seed_for("critique_and_revision/answers")
    answers = completer.complete(asked, answering(config, seed))
    chains = []
    for request, answer in zip(asked, answers, strict=True):
        order: list[Principle] = []
        while len(order) < config.rounds:
            order += draw.sample(constitution.principles, len(constitution.principles))
        if answer.text.strip():
            chains.append(Chain(request, order[: config.rounds], answer.text.strip(), answer.finish_reason == "length"))
        else:
            dropped.append(Dropped("no answer", _row(request, answer.text, {})))
    return chains


def one_round(
    config: CritiqueAndRevisionConfig,
    number: int,
    chains: Sequence[Chain],
    constitution: Constitution,
    critic: Completer,
    dropped: list[Dropped],
) -> None:
    """Every answer meets its next principle: critique, then revision where one is needed."""
    asked = [asking_critique(constitution, dialogue(c.request.messages), c.answer, c.principles[number]) for c in chains]
    said = critic.complete(asked, checking(config, config.max_critique_tokens))
    to_revise = []
    for chain, reply in zip(chains, said, strict=True):
        principle, critique = chain.principles[number], read_critique(reply.text)
        told = {"principle": principle.id, "critique": critique, "outcome": "no change needed"}
        chain.rounds.append(told)
        if needs_no_change(critique):
            chain.approved = chain.approved or not chain.cut_off
        elif not critique or critique.lower().startswith(principle.critique.lower()[:60]):
            told["outcome"] = "no critique"
            dropped.append(Dropped("no critique", _row(chain.request, chain.answer, {}), detail=reply.text))
        else:
            to_revise.append((chain, told))
    asked = []
    for chain, told in to_revise:
        critique_read = told["critique"] if config.reads_critique else None
        asked.append(asking_revision(constitution, dialogue(chain.request.messages), chain.answer, critique_read, chain.principles[number]))
    revisions = critic.complete(asked, checking(config, config.max_answer_tokens)) if asked else []
    for (chain, told), reply in zip(to_revise, revisions, strict=True):
        told["outcome"] = revise(chain, chain.principles[number], told["critique"], reply, constitution) or "revised"
        if told["outcome"] != "revised":
            dropped.append(Dropped(told["outcome"], _row(chain.request, reply.text, told), detail=told["critique"]))


def revise(chain: Chain, principle: Principle, critique: str, reply: Answer, constitution: Constitution) -> str:
    """Put the revision in the answer's place; or say why not."""
    text, cut_off = read_revision(reply.text), reply.finish_reason == "length"
    known = {"request": chain.request.question, "before": chain.answer, "critique": critique}
    fault = revision_fault(text, **known, cut_off=cut_off, principle=principle, constitution=constitution)
    if not fault:
        chain.depth += 1
        made = {"depth": str(chain.depth), "principle": principle.id, "before": chain.answer}
        chain.answer, chain.cut_off, chain.approved = text, False, False
        chain.revised.append((text, made))
    return fault


def rows_of(chain: Chain) -> list[Conversation]:
    """Every revision; or the first answer, where nothing was changed and the critic found nothing wrong with it."""
    common = {"made": "critique and revision", "critiques": json.dumps(chain.rounds, ensure_ascii=False)}
    if chain.revised:
        return [_row(chain.request, text, {**made, **common}) for text, made in chain.revised]
    return [_row(chain.request, chain.answer, {"depth": "0", **common})] if chain.approved else []


def helpful_answers(
    config: CritiqueAndRevisionConfig, asked: Sequence[Conversation], completer: Completer, run: Run, dropped: list[Dropped]
) -> list[Conversation]:
    """Harmless requests with the model's own whole answers."""
    if not asked:
        return []
    seed = run.seed_for("critique_and_revision/helpful")
    answers = completer.complete(asked, answering(config, seed))
    rows = []
    for request, answer in zip(asked, answers, strict=True):
        row = _row(request, answer.text.strip(), {"made": "helpful answer"})
        if answer.finish_reason == "length" or not answer.text.strip():
            dropped.append(Dropped("answer too long" if answer.text.strip() else "no answer", row))
        else:
            rows.append(row)
    return rows


# -- what the critic reads ----------------------------------------------------------------------------------------------------


def asking_critique(constitution: Constitution, request: str, answer: str, principle: Principle) -> Conversation:
    """All turns of the critic that it is shown are critiques. They are the same before every question, so they are computed once."""
    shown: list[Message] = []
    for one in constitution.examples:
        asked = _critique_asked(one.request, one.answer, constitution.principle(one.principle))
        shown += [Message("user", asked), Message("assistant", one.critique)]
    return Conversation((_SYSTEM, *shown, Message("user", _critique_asked(request, answer, principle))))


def asking_revision(
    constitution: Constitution, request: str, answer: str, critique: str | None, principle: Principle
) -> Conversation:
    """All turns of the critic that it is shown are revisions. Without a critique it is told the principle instead.

    The request stands last: small models answer what they read last.
    """
    shown: list[Message] = []
    for one in constitution.examples:
        if one.revision is not None:
            given = None if critique is None else one.critique
            asked = _revision_asked(one.request, one.answer, given, constitution.principle(one.principle))
            shown += [Message("user", asked), Message("assistant", one.revision)]
    return Conversation((_SYSTEM, *shown, Message("user", _revision_asked(request, answer, critique, principle))))


def _critique_asked(request: str, answer: str, principle: Principle) -> str:
    return f"Request: {request}\nAnswer: {answer}\n\n{principle.critique}"


def _revision_asked(request: str, answer: str, critique: str | None, principle: Principle) -> str:
    if critique is None:
        return f"Rule: The answer {principle.better}.\nBad answer: {answer}\n\nRequest: {request}\nGood answer:"
    return f"Bad answer: {answer}\nCritique: {critique}\n\n{principle.revision}\n\nRequest: {request}\nGood answer:"


def answering(config: CritiqueAndRevisionConfig, seed: int) -> Sampling:
    return Sampling(max_tokens=config.max_answer_tokens, temperature=config.temperature, seed=seed % 2**31)


def checking(config: CritiqueAndRevisionConfig, max_tokens: int) -> Sampling:
    return Sampling(max_tokens=max_tokens, frequency_penalty=config.frequency_penalty, stop=_STOP)


def _row(request: Conversation, answer: str, facts: dict[str, str]) -> Conversation:
    messages = (*request.messages, Message("assistant", answer))
    return Conversation(messages, digest_value([[m.role, m.content] for m in messages])[:16], facts={"request": request.id, **facts})


def _figures(chains: Sequence[Chain], rows: Sequence[Conversation], helpful_rows: Sequence[Conversation]) -> dict[str, Any]:
    outcomes = [told["outcome"] for chain in chains for told in chain.rounds]
    return {
        "requests": len(chains),
        "critiques": len(outcomes),
        "no_change_needed": outcomes.count("no change needed"),
        "revisions": outcomes.count("revised"),
        "requests_revised": sum(chain.depth > 0 for chain in chains),
        "left_alone": sum(row.facts["depth"] == "0" for row in rows),
        "helpful_rows": len(helpful_rows),
        "rows_by_depth": dict(sorted(Counter(row.facts["depth"] for row in rows).items())),
    }
