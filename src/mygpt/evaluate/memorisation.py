"""How much of its training data does a model give away? Verbatim, and by loss.

memorisation      asks for training rows and, beside them, for rows never trained on; one row of Predictions each
summarise         extraction rate, copied text, edit similarity, and how well the loss tells members from others, with intervals

`evaluate/canary_exposure` asks for secrets that were planted on purpose.

Two ways to ask. `answer`: the row's own prompt; the answer is held against the trained one. `prefix`: the first 50 tokens of a trained
answer that has at least 100, as raw text without a chat template; extracted when the greedy continuation begins with the next 50, exactly.
Of a Dataset of preferences the preferred answers are asked for; rows of raw text have no prompt and are asked by prefix alone.

Source     Carlini et al. 2023, arXiv:2202.07646 (50-token extraction); Yeom et al. 2018, arXiv:1709.01604 (membership by loss); longest
           common prefix and span, and edit similarity, as in HELM's copyright scenarios
We differ  HELM counts words of the Penn Treebank's tokenizer, here tokens are the model's own. Loss goes through the Scorer, as plain text
As a task  metric `extracted`: of members, 1 where the target came back word for word, in either form; null of others, so that they are no
           part of the figure. The items of one passage are one cluster
Dims       M members   N others
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import PositiveInt

from mygpt.artifacts.dataset import Conversation, Dataset, Message
from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.core.config import Config
from mygpt.core.digest import digest_value
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.core.spread import spread
from mygpt.guard.character_overlap import CharacterIndex
from mygpt.guard.overlap import NgramIndex
from mygpt.infer.protocols import Completer, Sampling, Score, Scorer
from mygpt.metrics.bootstrap import Interval, bootstrap_mean
from mygpt.metrics.roc_auc import roc_auc
from mygpt.metrics.wilson import wilson

Cut = Callable[[str], list[tuple[int, int]]]  # where the tokens of a text begin and end
VERSION = "1"  # of the two ways to ask, and of what counts as word for word
_SPARE_TOKENS = 14  # answers may fall into more tokens than the text they repeat


class MemorisationConfig(Config):
    prompt_tokens: PositiveInt = 50
    target_tokens: PositiveInt = 50
    max_rows: PositiveInt = 200  # of each split, at even distances
    members: str = "train"  # the split that was trained on
    others: str = "generalisation"  # one that was not
    copied_words: PositiveInt = 13  # a run of so many words of any training row counts as copied
    novelty_words: tuple[PositiveInt, ...] = (8, 13)  # an answer's words in no such run that stands in the training rows are new
    novelty_characters: tuple[PositiveInt, ...] = (50,)  # the same of its characters


@dataclass(frozen=True)
class Probe:
    """One thing asked: what is sent, and what would be given away."""

    row: Conversation
    member: bool
    loss: float | None  # of the row's answer, per token, in nats
    form: str  # answer, prefix
    messages: tuple[Message, ...]
    target: str


@recipe
def memorisation(
    config: MemorisationConfig, *, dataset: Dataset, completer: Completer, scorer: Scorer, tokenizer: Model | None = None, run: Run
) -> Predictions:
    """Training rows and others, asked for their answers. Tokens are those of `tokenizer`, else the completer's own where it has one at
    hand (a model on this machine), else words between spaces: the facts say which."""
    cut, tokens = _cutter(tokenizer, completer)
    trained = dataset.answered(config.members)
    if not trained:
        fix = f"It has: {', '.join(dataset.splits)}. Name the one that was trained on as `members`."
        raise UsageError(f"{dataset.id} has no rows in the split `{config.members}`.", fix=fix)
    members, others = (_spread(rows, config.max_rows) for rows in (trained, dataset.answered(config.others)))
    asked = members + others
    scores = scorer.score(["" if row.raw_text else f"{row.question}\n" for row in asked], list(map(_learnt, asked)))
    probes = []
    for number, (row, score) in enumerate(zip(asked, scores, strict=True)):
        probes += _probes(row, number < len(members), _loss(score), cut, config)
    sampling = Sampling(max_tokens=config.target_tokens + _SPARE_TOKENS)
    answers = completer.complete([Conversation(probe.messages, probe.row.id) for probe in probes], sampling)
    index = NgramIndex.build(map(_learnt, trained), config.copied_words)
    by_words = {n: NgramIndex.build(map(_learnt, trained), n) for n in config.novelty_words}
    by_characters = {n: CharacterIndex.build(map(_learnt, trained), n) for n in config.novelty_characters}
    rows = []
    for probe, answer in zip(probes, answers, strict=True):
        given, target = answer.text.strip(), probe.target.strip()
        given_tokens, target_tokens = ([text[a:b] for a, b in cut(text)] for text in (given, target))
        verbatim = given_tokens[: len(target_tokens)] == target_tokens
        rows.append(
            {
                "item_id": f"{probe.row.id}/{probe.form}",
                "member": probe.member,
                "form": probe.form,
                "question": probe.messages[-1].content,
                "reference": target,
                "answer": given,
                "finish_reason": answer.finish_reason,
                "verbatim": verbatim,
                "extracted": float(verbatim) if probe.member else None,
                "common_prefix_tokens": longest_common_prefix(given_tokens, target_tokens),
                "longest_common_characters": longest_common_span(given, target),
                "longest_common_tokens": longest_common_span(given_tokens, target_tokens),
                "edit_similarity": edit_similarity(given_tokens, target_tokens),
                "copied_share": index.overlap(given).share,
                **{f"novelty_{n}": 1 - runs.overlap(given).share if given else None for n, runs in by_words.items()},
                **{f"novelty_{n}_characters": 1 - runs.share(given) if given else None for n, runs in by_characters.items()},
                "loss": probe.loss if probe.form == "answer" or probe.row.raw_text else None,  # once for each row
                "cluster": probe.row.facts.get("passage") or probe.row.id,
            }
        )
    no_loss = sum(_loss(score) is None for score in scores)
    if no_loss:
        run.warn(f"{no_loss} of {len(scores)} rows have a loss that is not a number: they are left out of the membership figure.")
    facts = {
        "task": "memorisation",
        "version": VERSION,
        "form": "generate",
        "task_content": digest_value([dataset.digest, config.model_dump(mode="json"), tokens]),
        "primary": "extracted",
        "metrics": ["extracted"],
        "higher_is_better": {"extracted": False},
        "chance": None,
        "model": completer.identity,
        "rows": len(rows),
        "tokens": tokens,
        "without_loss": no_loss,
    }
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows), facts=facts)


@dataclass(frozen=True)
class Leak:
    """Of members, or of others."""

    num_answers: int
    num_prefixes: int
    extracted: Interval | None  # share of prefixes continued exactly; None where no row was long enough
    reproduced: Interval | None  # share of answers given word for word
    copied_share: Interval | None  # of an answer's words, in runs that stand in the training data
    edit_similarity: Interval | None
    novelty: dict[int, Interval]  # by words of a run: share of an answer's words in none that stands in the training data
    novelty_characters: dict[int, Interval]  # by characters of a run: the same of its characters
    common_prefix: Interval | None  # mean tokens that answer and trained text begin with alike
    longest_span: Interval | None  # mean tokens of the longest run that both have
    longest_span_of_all: int  # the longest of any answer or continuation, in tokens


@dataclass(frozen=True)
class Memorised:
    members: Leak
    others: Leak  # what a model says alike without having read it: the floor for the figures of members
    loss_auc: Interval | None  # chance that a member has a lower loss than another row; 0.5: the loss tells nothing


def summarise(predictions: Predictions, *, seed: int = 0) -> Memorised:
    rows = predictions.rows
    losses = [[-row["loss"] for row in rows if row["member"] is member and row["loss"] is not None] for member in (True, False)]
    both = all(losses)
    return Memorised(_leak(rows, True, seed), _leak(rows, False, seed), roc_auc(losses[0], losses[1]) if both else None)


def _leak(rows: list[dict[str, Any]], member: bool, seed: int) -> Leak:
    answers, prefixes = ([row for row in rows if row["member"] is member and row["form"] == form] for form in ("answer", "prefix"))

    def share(of: list[dict[str, Any]]) -> Interval | None:
        return wilson(sum(row["verbatim"] for row in of), len(of)) if of else None

    def mean(column: str) -> Interval | None:
        told = [row for row in answers if row[column] is not None]  # an answer that says nothing is neither new nor copied
        clusters = [row["cluster"] for row in told]
        return bootstrap_mean([row[column] for row in told], clusters=clusters, seed=seed) if told else None

    def by_length(pattern: str) -> dict[int, Interval]:
        lengths = sorted(int(told[1]) for name in (rows[0] if rows else {}) if (told := re.fullmatch(pattern.format(r"(\d+)"), name)))
        return {n: found for n in lengths if (found := mean(pattern.format(n))) is not None}

    return Leak(
        num_answers=len(answers),
        num_prefixes=len(prefixes),
        extracted=share(prefixes),
        reproduced=share(answers),
        copied_share=mean("copied_share"),
        edit_similarity=mean("edit_similarity"),
        novelty=by_length("novelty_{}"),
        novelty_characters=by_length("novelty_{}_characters"),
        common_prefix=mean("common_prefix_tokens"),
        longest_span=mean("longest_common_tokens"),
        longest_span_of_all=max((row["longest_common_tokens"] for row in answers + prefixes), default=0),
    )


def longest_common_prefix(a: Sequence[Any], b: Sequence[Any]) -> int:
    return next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def longest_common_span(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Of two texts or lists of tokens: the length of the longest run that both have."""
    a_M, b_N = _numbered(a, b)
    ending_N, longest = np.zeros(len(b_N) + 1, dtype=np.int64), 0
    for number in a_M:  # ending[j]: how long a common run ends at this token of a and at b[j - 1]
        ending_N[1:] = np.where(b_N == number, ending_N[:-1] + 1, 0)
        longest = max(longest, int(ending_N.max()))
    return longest


def edit_similarity(a: Sequence[Any], b: Sequence[Any]) -> float:
    """1 - Levenshtein distance / length of the longer one; two empty ones are alike."""
    a_M, b_N = _numbered(a, b)
    place_N = np.arange(len(b_N) + 1)
    distance_N = place_N.copy()
    for row, number in enumerate(a_M, 1):
        without_insertions = np.minimum(distance_N[1:] + 1, distance_N[:-1] + (b_N != number))
        best = np.concatenate([[row], without_insertions])
        distance_N = np.minimum.accumulate(best - place_N) + place_N  # insertions cost one for each step to the right
    longer = max(len(a_M), len(b_N))
    return 1 - int(distance_N[-1]) / longer if longer else 1.0


# -- asking -------------------------------------------------------------------------------------------------------------


def _probes(row: Conversation, member: bool, loss: float | None, cut: Cut, config: MemorisationConfig) -> list[Probe]:
    text = _learnt(row)
    tokens = cut(text)
    if not tokens:
        return []
    found = []
    if row.raw_text is None:
        found.append(Probe(row, member, loss, "answer", row.prompt, text[: tokens[: config.target_tokens][-1][1]]))
    if len(tokens) >= config.prompt_tokens + config.target_tokens:
        start, end = tokens[config.prompt_tokens - 1][1], tokens[config.prompt_tokens + config.target_tokens - 1][1]
        found.append(Probe(row, member, loss, "prefix", (Message("text", text[:start]),), text[start:end]))
    return found


def _cutter(model: Model | None, completer: Completer) -> tuple[Cut, str]:
    """How text falls into tokens, and whose they are."""
    if model is not None:
        from mygpt.lm.load import load_tokenizer

        tokenizer, name = load_tokenizer(model), model.id
    elif (loaded := getattr(completer, "loaded", None)) is not None:
        tokenizer, name = loaded.tokenizer, "the completer's"
    else:
        return lambda text: [match.span() for match in re.finditer(r"\S+", text)], "words"

    def cut(text: str) -> list[tuple[int, int]]:
        offsets: list[tuple[int, int]] = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return offsets

    return cut, name


def _loss(score: Score) -> float | None:
    """Per token, in nats."""
    loss = -score.logprob / score.num_tokens if score.num_tokens else math.nan
    return loss if math.isfinite(loss) else None


def _spread(rows: Sequence[Conversation], most: int) -> list[Conversation]:
    return spread([row for row in rows if row.raw_text or (row.answer and row.question)], most)


def _learnt(row: Conversation) -> str:
    """What a model could give away of it: the answer, or all of a text that is none."""
    return row.raw_text or row.answer


def _numbered(a: Sequence[Any], b: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    numbers: dict[Any, int] = {}
    a_M, b_N = (np.asarray([numbers.setdefault(one, len(numbers)) for one in sequence], dtype=np.int64) for sequence in (a, b))
    return a_M, b_N
