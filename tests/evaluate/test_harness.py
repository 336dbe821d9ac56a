"""The harness on scripted models, worked by hand; then on SmolLM2: one call for all choices equals choices scored one by one."""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions
from mygpt.artifacts.task import Example, Item, Task, TaskSettings, write_task
from mygpt.core.config import Config
from mygpt.core.errors import MygptError, Unreachable, UsageError
from mygpt.core.run import Run
from mygpt.evaluate import harness
from mygpt.evaluate.compare_models import CompareConfig, compare_models
from mygpt.evaluate.harness import RunTaskConfig, run_task, task_prompts
from mygpt.evaluate.paired_difference import Resampling, difference, has_headroom, mean, score
from mygpt.evaluate.parity import ids_digest
from mygpt.evaluate.same_items import join
from mygpt.infer import cached_completer
from mygpt.infer.protocols import Answer, Identity, Sampling, Score
from mygpt.infer.repeats import occurrences
from mygpt.infer.scripted import ScriptedCompleter
from mygpt.metrics.bootstrap import bootstrap_mean
from mygpt.metrics.wilson import wilson


class MadeTaskConfig(Config):
    settings: TaskSettings
    items: tuple[dict[str, Any], ...]


@recipe
def made_task(config: MadeTaskConfig, *, run: Run) -> Task:
    return publish(Task, run, lambda folder: write_task(folder, [Item(**item) for item in config.items], config.settings))


def task_of(run: Run, items: Sequence[Item], **settings: Any) -> Task:
    made = TaskSettings(**{"name": "made", "version": "1", "primary": "acc", "form": "choice", **settings})
    rows = tuple({**vars(i), "facts": dict(i.facts)} for i in items)
    found = made_task(MadeTaskConfig(settings=made, items=rows), run=run)
    assert isinstance(found, Task)
    return found


class Table:
    """Log-probabilities by (prompt, continuation)."""

    def __init__(self, logprobs: Mapping[tuple[str, str], float]):
        self.logprobs = dict(logprobs)
        self.calls = 0

    @property
    def identity(self) -> Identity:
        return {"engine": "table"}

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        self.calls += 1
        return [Score(self.logprobs[p, c], 1, len(c.encode()), is_greedy=False) for p, c in zip(prompts, continuations, strict=True)]


COLOURS = [Item("sky", "The sky is", ("blue", "a very deep grün"), 0), Item("leaf", "A leaf is", ("red", "green"), 1)]
#                      log p      per character      per byte
# sky   blue           -4.0       -1.000             -1.000
#       a very ...     -4.8       -0.300 (16)        -0.282 (17: ü has two)
# leaf  red / green    -2.0, -1.0
LOGPROBS = {
    ("The sky is", " blue"): -4.0,
    ("The sky is", " a very deep grün"): -4.8,
    ("A leaf is", " red"): -2.0,
    ("A leaf is", " green"): -1.0,
}


def warnings_of(run: Run) -> list[str]:
    said: list[str] = []
    run.listeners.append(lambda event: said.append(event["text"]) if event["event"] == "warning" else None)
    return said


# -- choice ---------------------------------------------------------------------------------------------------------------


def test_choices_by_hand(run: Run) -> None:
    table = Table(LOGPROBS)
    made = run_task(RunTaskConfig(), task=task_of(run, COLOURS, chance=0.5), scorer=table, run=run)
    assert isinstance(made, Predictions)
    sky, leaf = made.rows
    assert [sky["acc"], sky["acc_norm"], sky["acc_bytes"]] == [1.0, 0.0, 0.0]  # the longer text is likelier per character
    assert [leaf["acc"], leaf["acc_norm"], leaf["acc_bytes"]] == [1.0, 1.0, 1.0]  # green: -0.2 against -0.667
    assert sky["confidence"] == pytest.approx(math.exp(-4.0) / (math.exp(-4.0) + math.exp(-4.8)))
    assert (sky["answer"], sky["reference"], sky["parsed"], sky["cluster"]) == ("blue", "blue", None, "sky")
    assert sky["choice_logprobs"] == [-4.0, -4.8]
    assert table.calls == 1
    facts = made.manifest.facts
    assert {k: facts[k] for k in ("task", "version", "form", "primary", "chance", "items")} == {
        "task": "made",
        "version": "1",
        "form": "choice",
        "primary": "acc",
        "chance": 0.5,
        "items": 2,
    }
    assert facts["metrics"] == ["acc", "acc_norm", "acc_bytes"]
    assert facts["higher_is_better"] == {"acc": True, "acc_norm": True, "acc_bytes": True}
    assert facts["model"] == {"engine": "table"}


def test_mutual_information(run: Run) -> None:
    """log p(choice | prompt) - log p(choice | "It is"): blue -4 + 7 = 3, the other -4.8 + 5 = 0.2; red 0, green 1."""
    bare = {("It is", " blue"): -7.0, ("It is", " a very deep grün"): -5.0, ("It is", " red"): -2.0, ("It is", " green"): -2.0}
    task = task_of(run, COLOURS, mutual_information=True, bare_prompt="It is ", primary="acc_mutual_info")
    rows = run_task(RunTaskConfig(), task=task, scorer=Table({**LOGPROBS, **bare}), run=run).rows
    assert [row["acc_mutual_info"] for row in rows] == [1.0, 1.0]


def test_mc2_is_the_share_of_the_true_ones(run: Run) -> None:
    """p = 0.5, 0.2, 0.2 of choices 0 to 2, true are 0 and 2: (0.5 + 0.2) / 0.9."""
    items = [Item(i, "Q", ("a", "b", "c"), 0, facts={"true_choices": "0 2"}) for i in "xy"]
    table = Table({("Q", f" {c}"): math.log(p) for c, p in zip("abc", (0.5, 0.2, 0.2), strict=True)})
    rows = run_task(RunTaskConfig(), task=task_of(run, items, primary="mc2"), scorer=table, run=run).rows
    assert rows[0]["mc2"] == pytest.approx(0.7 / 0.9)


def test_white_space_goes_over_the_seam_and_examples_come_first(run: Run) -> None:
    items = [Item("a", "One?", ("yes", "no"), 0), Item("b", "Two?", ("yes", "no"), 0)]
    task = task_of(run, items, prompt="Q: {question}\nA: ", examples=(Example(question="Nil?", answer="no"),), target_delimiter="")
    shown = "Q: Nil?\nA:no\n\nQ: One?\nA:"
    assert task_prompts(task)[0] == shown
    table = Table({(p, f" {c}"): -1.0 for p in task_prompts(task) for c in ("yes", "no")})
    assert run_task(RunTaskConfig(), task=task, scorer=table, run=run).rows[0]["tied"]


@pytest.mark.parametrize("bad", [math.nan, -math.inf, math.inf])
def test_a_logprob_that_is_no_number_names_the_item(run: Run, bad: float) -> None:
    table = Table({**LOGPROBS, ("A leaf is", " red"): bad})
    with pytest.raises(MygptError, match=f"Item `leaf`: the model gives {bad} as log-probability of choice or window 0."):
        run_task(RunTaskConfig(), task=task_of(run, COLOURS), scorer=table, run=run)


def test_the_tool_a_form_needs(run: Run) -> None:
    with pytest.raises(UsageError, match="`made` compares log-probabilities, and there is no scorer"):
        run_task(RunTaskConfig(), task=task_of(run, COLOURS), completer=ScriptedCompleter(lambda c: ""), run=run)
    with pytest.raises(UsageError, match="`made` asks for answers, and there is no completer"):
        run_task(RunTaskConfig(), task=sums(run), scorer=Table({}), run=run)


# -- generate -------------------------------------------------------------------------------------------------------------


def sums(run: Run, **settings: Any) -> Task:
    items = [Item("a", "2 + 2?", references=("4",)), Item("b", "9 + 9?", references=("18",)), Item("c", "500 + 500?", references=("1000",))]
    items.append(Item("d", "1 + 1?", references=("2",)))
    return task_of(run, items, **{"form": "generate", "answer": "number", "primary": "numeric", "chance": 0.0, **settings})


REPLIES = {"2 + 2?": "2 + 2 = 4\n#### 4", "9 + 9?": "That makes 18...", "500 + 500?": "$1,000.00 in all.", "1 + 1?": "I cannot say."}


def test_numbers_three_ways(run: Run) -> None:
    said = warnings_of(run)
    made = run_task(RunTaskConfig(), task=sums(run), completer=ScriptedCompleter(lambda c: REPLIES[c.question]), run=run)
    columns = ("exact_match_strict", "exact_match_flexible", "numeric", "parsed")
    assert [[row[c] for c in columns] for row in made.rows] == [
        [1.0, 1.0, 1.0, True],
        [0.0, 0.0, 1.0, True],  # "18..": text is not equal, the number is
        [0.0, 0.0, 1.0, True],  # 1000.00
        [0.0, 0.0, 0.0, False],
    ]
    facts = made.manifest.facts
    assert (facts["unparsed"], facts["empty"], facts["cut"]) == (1, 0, 0)
    assert facts["read"] == {"strict": 1, "flexible": 3, "number": 3}
    assert said == ["1 of 4 answers to `made` could not be read; they score 0 and are marked."]


def test_a_model_that_returns_nothing(run: Run) -> None:
    said = warnings_of(run)
    made = run_task(RunTaskConfig(), task=sums(run), completer=ScriptedCompleter(lambda c: " "), run=run)
    assert made.manifest.facts["empty"] == made.manifest.facts["unparsed"] == 4
    assert said == ["The model returned nothing for all 4 items of `made`: the scores say nothing about it."]


def test_labels_and_texts(run: Run) -> None:
    labels = ("equivalent", "not equivalent")
    pairs = [Item("a", "1", labels, references=(labels[1],)), Item("b", "2", labels, references=(labels[0],))]
    replies = {"1": "They are not equivalent.", "2": "Both, in a way."}
    task = task_of(run, pairs, form="generate", answer="label")
    rows = run_task(RunTaskConfig(), task=task, completer=ScriptedCompleter(lambda c: replies[c.question]), run=run).rows
    assert [(r["acc"], r["acc_strict"], r["parsed"]) for r in rows] == [(1.0, 0.0, True), (0.0, 0.0, False)]

    texts = [Item("a", "3", references=("the cat", "a small dog")), Item("b", "4", references=("Oslo",))]
    task = task_of(run, texts, form="generate", primary="f1", name="texts")
    replies = {"3": "one dog", "4": "Oslo."}
    rows = run_task(RunTaskConfig(), task=task, completer=ScriptedCompleter(lambda c: replies[c.question]), run=run).rows
    assert [r["exact_match"] for r in rows] == [0.0, 1.0]
    assert rows[0]["f1"] == pytest.approx(0.5)  # of the better reference: 2 * 1 / (2 + 2), the article set aside
    assert rows[0]["reference"] == "the cat | a small dog"


def test_summaries_say_that_they_are(run: Run) -> None:
    """Two of four words, and of the reference's three: F1 4/7. It counts shared words, as ROUGE does."""
    items = [Item("a", "Tea?", references=("They have tea.",)), Item("b", "Milk?", references=("No milk.",))]
    task = task_of(run, items, form="generate", answer="summary", primary="f1")
    replies = {"Tea?": "They all drink tea.", "Milk?": "No milk."}
    made = run_task(RunTaskConfig(), task=task, completer=ScriptedCompleter(lambda c: replies[c.question]), run=run)
    assert [row["f1"] for row in made.rows] == pytest.approx([4 / 7, 1.0])
    (joined,) = join([made])
    assert joined.answer == "summary" and joined.is_overlap("f1")


class Angles:
    """A word is a direction, in degrees."""

    def __init__(self, **degrees: float):
        self.degrees = degrees

    identity: Identity = {"engine": "angles"}  # noqa: RUF012
    dimensions = 2

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        angles_N = np.radians([self.degrees[text.strip(".").lower() or "nothing"] for text in texts])
        return np.stack([np.cos(angles_N), np.sin(angles_N)], axis=1).astype(np.float32)


def test_summaries_are_compared_by_meaning_where_there_is_an_embedder(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """60 degrees to the one reference and 30 to the other: cos 30 is the nearer; the same; and a blank answer has nothing to compare."""
    monkeypatch.setattr(harness, "_EMBEDDED_AT_ONCE", 2)
    references = {"Tea?": ("milk", "cake"), "Milk?": ("milk",), "Cake?": ("cake",)}
    items = [Item(question, question, references=own) for question, own in references.items()]
    replies = {"Tea?": "Tea.", "Milk?": "Milk.", "Cake?": " "}
    task = task_of(run, items, form="generate", answer="summary", primary="rouge_l")
    angles = Angles(tea=60, milk=0, cake=90, nothing=90)
    tools: Any = {"completer": ScriptedCompleter(lambda c: replies[c.question]), "embedder": angles, "run": run}
    made = run_task(RunTaskConfig(), task=task, **tools)
    assert [row["similarity"] for row in made.rows] == pytest.approx([math.cos(math.radians(30)), 1.0, 0.0], abs=1e-6)
    assert [row["rouge_l"] for row in made.rows] == [0.0, 1.0, 0.0]
    assert made.manifest.facts["embedder"] == {"engine": "angles"} and made.manifest.facts["higher_is_better"]["similarity"] is True
    (joined,) = join([made])
    assert joined.metrics[-1] == "similarity" and not joined.is_overlap("similarity")
    texts = task_of(run, items, form="generate", primary="f1", name="texts")
    with pytest.raises(UsageError, match="The task `texts` asks for no summaries, which an embedder could compare"):
        run_task(RunTaskConfig(), task=texts, **tools)


def test_examples_as_turns_and_what_is_asked_for(run: Run) -> None:
    seen: list[tuple[Conversation, Sampling]] = []

    class Watching(ScriptedCompleter):
        def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
            seen.extend((c, sampling) for c in conversations)
            return [Answer("4", "length", (7, 8), (), 12) for _ in conversations]

    task = sums(
        run, examples=(Example(question="0 + 1?", answer="1"),), examples_as_turns=True, system="Be brief.", stop=("\n",), max_tokens=9
    )
    rows = run_task(RunTaskConfig(), task=task, completer=Watching(lambda c: ""), run=run).rows
    assert [(m.role, m.content) for m in seen[0][0].messages] == [
        ("system", "Be brief."),
        ("user", "0 + 1?"),
        ("assistant", "1"),
        ("user", "2 + 2?"),
    ]
    assert seen[0][1] == Sampling(max_tokens=9, stop=("\n",))
    assert (rows[0]["finish_reason"], rows[0]["prompt_tokens"], rows[0]["answer_tokens"]) == ("length", 12, 2)


def test_an_endpoint_that_breaks_off_is_resumed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third call fails as a server that answers 500 does after its attempts; the run afterwards asks only what is missing."""
    monkeypatch.setattr(cached_completer, "_KEPT_AT_ONCE", 1)

    class Failing(ScriptedCompleter):
        asked: list[str] = []  # noqa: RUF012
        broken = True

        def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
            if self.broken and len(self.asked) == 2:
                raise Unreachable("host did not answer after 4 attempts (status 500).", fix="Check that the server runs.")
            self.asked.extend(c.question for c in conversations)
            return super().complete(conversations, sampling)

    tool = Failing(lambda c: REPLIES[c.question])
    task = sums(run)
    with pytest.raises(Unreachable):
        run_task(RunTaskConfig(), task=task, completer=tool, run=run)
    tool.broken = False
    resumed = run_task(RunTaskConfig(), task=task, completer=tool, run=run)
    assert tool.asked == [*REPLIES]  # each once
    whole = run_task(RunTaskConfig(cached=False), task=task, completer=ScriptedCompleter(lambda c: REPLIES[c.question]), run=run)
    assert resumed.rows == whole.rows


def test_fewer_answers_than_questions(run: Run) -> None:
    class Losing(ScriptedCompleter):
        def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
            return super().complete(conversations, sampling)[1:]

    with pytest.raises(MygptError, match="4 questions were asked and 3 answers came"):
        run_task(RunTaskConfig(cached=False), task=sums(run), completer=Losing(lambda c: ""), run=run)


class Drawing:
    """The n-th draw of a question is right where the table says so; the seed is part of the answer's text."""

    def __init__(self, right: Mapping[str, Sequence[bool]], name: str = "drawing"):
        self._right, self._name, self.asked = right, name, 0

    @property
    def identity(self) -> Identity:
        return {"engine": "drawing", "name": self._name}

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        self.asked += len(conversations)
        draws = occurrences(c.question for c in conversations)
        return [Answer(f"{int(self._right[c.question][n])}", prompt_tokens=n) for c, n in zip(conversations, draws, strict=True)]


def coins(run: Run, number: int) -> Task:
    boxes = [{"cluster": f"box {n // 2}"} if n < 4 else {} for n in range(number)]
    items = [Item(f"i{n:02}", f"Coin {n:02}", references=("1",), facts=box) for n, box in enumerate(boxes)]
    return task_of(run, items, form="generate", answer="number", primary="numeric", chance=0.5, name="coins")


def test_several_samples_of_an_item_share_its_cluster(run: Run) -> None:
    right = {f"Coin {n:02}": (True, n % 2 == 0, False) for n in range(6)}
    config = RunTaskConfig(samples=3, temperature=0.8)
    made = run_task(config, task=coins(run, 6), completer=Drawing(right), run=run)
    assert [row["item_id"] for row in made.rows[:4]] == ["i00/0", "i00/1", "i00/2", "i01/0"]
    assert [row["numeric"] for row in made.rows[:6]] == [1.0, 1.0, 0.0, 1.0, 0.0, 0.0]  # each another draw
    assert [row["cluster"] for row in made.rows[::3]] == ["box 0", "box 0", "box 1", "box 1", "i04", "i05"]
    assert {row["sampled_from"] for row in made.rows[3:6]} == {"i01"}
    facts = made.manifest.facts
    assert (facts["items"], facts["samples"], facts["temperature"], len(made.rows)) == (6, 3, 0.8, 18)
    again = Drawing(right)
    run.fresh = True
    assert run_task(config, task=coins(run, 6), completer=again, run=run).rows == made.rows and again.asked == 0  # kept, draw by draw


def test_samples_need_a_draw(run: Run) -> None:
    with pytest.raises(UsageError, match=r"3 samples of each item were asked for at temperature 0\.0: they would be one answer copied"):
        run_task(RunTaskConfig(samples=3), task=sums(run), completer=ScriptedCompleter(lambda c: "1"), run=run)
    with pytest.raises(UsageError, match="`made` is of the form `choice`: nothing is drawn"):
        run_task(RunTaskConfig(samples=2, temperature=1.0), task=task_of(run, COLOURS), scorer=Table(LOGPROBS), run=run)
    with pytest.raises(UsageError, match="0 samples"):
        run_task(RunTaskConfig(samples=0), task=sums(run), completer=ScriptedCompleter(lambda c: "1"), run=run)


def test_intervals_of_samples_are_those_of_whole_items(run: Run) -> None:
    """40 items, five samples each, mostly alike within an item. By hand: resample items, not answers."""
    draw = random.Random(7)
    shares = [draw.choice((0.0, 0.2, 0.8, 1.0)) for _ in range(40)]
    base = {f"Coin {n:02}": [draw.random() < share for _ in range(5)] for n, share in enumerate(shares)}
    tuned = {question: [right or draw.random() < 0.3 for right in draws] for question, draws in base.items()}
    items = [Item(f"i{n:02}", f"Coin {n:02}", references=("1",)) for n in range(40)]
    task = task_of(run, items, form="generate", answer="number", primary="numeric", chance=0.5, name="coins")
    config = RunTaskConfig(samples=5, temperature=1.0)
    one, two = (run_task(config, task=task, completer=Drawing(r, name), run=run) for name, r in (("base", base), ("tuned", tuned)))
    (joined,) = join([one, two], ["base", "tuned"])
    found = difference(joined, "tuned", "base", "numeric", Resampling(num_resamples=2_000))
    moved_N = np.asarray([np.mean(tuned[q]) - np.mean(base[q]) for q in base])
    assert (found.num_items, found.num_clusters, found.test) == (200, 40, "randomisation over 40 clusters")
    assert found.interval.estimate == pytest.approx(moved_N.mean())
    whole = bootstrap_mean(moved_N.tolist(), num_resamples=2_000)  # of 40 means, one an item
    assert (found.interval.low, found.interval.high) == pytest.approx((whole.low, whole.high))
    drawn_RN = np.random.default_rng(1).integers(0, 40, size=(4_000, 40))
    spread = 2.0227 * math.sqrt(40 / 39) * moved_N[drawn_RN].mean(axis=1).std()  # t of 39 degrees of freedom, n - 1 for n
    assert found.interval.low <= moved_N.mean() - 0.9 * spread and found.interval.high >= moved_N.mean() + 0.9 * spread
    assert found.interval.high - found.interval.low == pytest.approx(2 * spread, rel=0.12)

    answers = score(joined, "base", "numeric", Resampling(num_resamples=2_000))
    assert answers.method == "bootstrap over 40 clusters"
    as_if_alone = wilson(sum(map(sum, base.values())), 200)  # what 200 answers of 200 items would promise
    assert answers.interval.high - answers.interval.low > 1.5 * (as_if_alone.high - as_if_alone.low)
    made = compare_models(CompareConfig(labels=("base", "tuned"), num_resamples=500), predictions=(one, two), run=run)
    assert (made.figures["tasks"][0]["items"], made.figures["tasks"][0]["clusters"]) == (200, 40)


def test_passages_that_an_answer_was_read_from_stay_with_it(run: Run) -> None:
    class Reading(ScriptedCompleter):
        def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
            return [Answer("4", passages=("Two and two are four.",), prompt_sha256="e" * 64), *(Answer("4") for _ in conversations[1:])]

    made = run_task(RunTaskConfig(cached=False), task=sums(run), completer=Reading(lambda c: ""), run=run)
    assert [row["passages"] for row in made.rows] == [["Two and two are four."], None, None, None]
    assert made.rows[0]["prompt_sha256"] == "e" * 64 and made.manifest.facts["hashed"] == ["ids", "text"]


def test_max_items_are_spread(run: Run) -> None:
    made = run_task(RunTaskConfig(max_items=2), task=sums(run), completer=ScriptedCompleter(lambda c: "1"), run=run)
    assert [row["item_id"] for row in made.rows] == ["a", "c"]
    with pytest.raises(UsageError, match="1 items were asked for"):
        run_task(RunTaskConfig(max_items=1), task=sums(run), completer=ScriptedCompleter(lambda c: "1"), run=run)


# -- continuation ---------------------------------------------------------------------------------------------------------


def test_bits_per_byte_of_right_answers_by_hand(run: Run) -> None:
    """ " blue" has 5 bytes with its space and costs 10 bits, " grün" 6 and 3: 2.0 and 0.5, and 13/11 over both, weighted by bytes."""
    items = [Item("sky", "The sky is", references=("blue",)), Item("leaf", "Ein Blatt ist", references=("grün",))]
    table = Table({("The sky is", " blue"): -10 * math.log(2), ("Ein Blatt ist", " grün"): -3 * math.log(2)})
    task = task_of(run, items, form="continuation", primary="bits_per_byte")
    made = run_task(RunTaskConfig(), task=task, scorer=table, run=run)
    assert [row["bits_per_byte"] for row in made.rows] == pytest.approx([2.0, 0.5])
    assert [(row["reference"], row["num_bytes"]) for row in made.rows] == [("blue", 5), ("grün", 6)]
    facts = made.manifest.facts
    assert facts["corpus"]["bits_per_byte"] == pytest.approx(13 / 11)
    assert facts["corpus"]["perplexity"] == pytest.approx(2**6.5)  # of an item: 13 bits over two
    assert (facts["primary"], facts["higher_is_better"]["bits_per_byte"]) == ("bits_per_byte", False)
    (joined,) = join([made], ["base"])
    assert mean(joined, "base", "bits_per_byte") == pytest.approx(13 / 11)
    assert has_headroom(joined, "base", "bits_per_byte") is None  # neither chance nor ceiling


# -- rolling --------------------------------------------------------------------------------------------------------------


def test_rolling_by_hand(run: Run) -> None:
    """ "ab cd" in windows of 3: "ab " and "cd", 8 bits over 5 bytes; "é" has 2 bytes and 4 bits. Corpus: 12 bits, 7 bytes, 3 words."""
    bits = {("", "ab "): 5, ("", "cd"): 3, ("", "é"): 4}
    table = Table({pair: -b * math.log(2) for pair, b in bits.items()})
    task = task_of(run, [Item("a", "ab cd"), Item("b", "é")], form="rolling", primary="bits_per_byte")
    made = run_task(RunTaskConfig(window_characters=3), task=task, scorer=table, run=run)
    assert [row["bits_per_byte"] for row in made.rows] == pytest.approx([8 / 5, 2.0])
    assert [(row["windows"], row["num_bytes"]) for row in made.rows] == [(2, 5), (1, 2)]
    corpus = made.manifest.facts["corpus"]
    assert corpus["bits_per_byte"] == pytest.approx(12 / 7)
    assert corpus["byte_perplexity"] == pytest.approx(2 ** (12 / 7))
    assert corpus["word_perplexity"] == pytest.approx(2 ** (12 / 3))
    assert made.manifest.facts["higher_is_better"] == {"bits_per_byte": False}


# -- with a real model ----------------------------------------------------------------------------------------------------


def test_with_smollm2(run: Run, smollm2: Model) -> None:
    """Choices in one call = one call each; and the prompt's hash is of the ids that the engine is fed."""
    import torch

    from mygpt.infer.torch_engine import TorchEngine
    from mygpt.lm.load import load_lm

    engine = TorchEngine(smollm2, loaded=load_lm(smollm2, dtype=torch.float32))
    items = [
        Item("a", "The capital of France is", ("Paris", "London", "Rome"), 0),
        Item("b", "Water freezes at a temperature of zero degrees", ("Celsius", "Kelvin"), 0),
    ]
    task = task_of(run, items, chance=0.4)
    rows = run_task(RunTaskConfig(cached=False), task=task, scorer=engine, run=run).rows
    alone = [engine.score([items[0].question], [f" {choice}"])[0].logprob for choice in items[0].choices]
    assert rows[0]["choice_logprobs"] == pytest.approx(alone, abs=1e-3)
    assert [row["acc"] for row in rows] == [1.0, 1.0]

    words = [Item(word, f"Say {word}.", references=(word,)) for word in ("yes", "no")]
    asked = task_of(run, words, form="generate", primary="f1", max_tokens=2)
    made = run_task(RunTaskConfig(), task=asked, completer=engine, run=run)
    assert made.manifest.facts["template"] == engine.renderer.template_digest
    answered = made.rows
    ids = engine.renderer.prompt(Conversation((Message("user", "Say yes."),)))
    assert (answered[0]["prompt_sha256"], answered[0]["prompt_tokens"]) == (ids_digest(ids), len(ids))
