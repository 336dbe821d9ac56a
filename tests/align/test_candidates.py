"""Several answers to each prompt: what is merged and left out, by hand; and the whole way, from prompts over the real page to pairs."""

import itertools
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mygpt.align.candidates import CandidatesConfig, candidates, shown_prompt
from mygpt.artifacts.dataset import Conversation, Dataset, Message
from mygpt.artifacts.report import Predictions
from mygpt.artifacts.store import Store
from mygpt.cli import recipe_call
from mygpt.cli.main import main
from mygpt.core.errors import MygptError, UsageError
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer, Sampling
from mygpt.infer.scripted import ScriptedCompleter
from mygpt.infer.torch_engine import TorchEngine
from mygpt.studio.rating_box import items_of
from tests.align.sites import PreferencesConfig, PromptsConfig, preferences, prompts
from tests.infer.tiny_models import engine_of, tiny_module
from tests.studio.test_annotate import AnswersConfig, answers


class Writer(ScriptedCompleter):
    """Answers `says(question, temperature, draw)`; remembers what it was asked."""

    def __init__(self, says: Callable[[str, float, int], str | Answer], *, name: str = "writer"):
        super().__init__(lambda conversation: "", name=name)
        self._says = says
        self.asked: list[tuple[float, int, int]] = []

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        self.asked.append((sampling.temperature, sampling.seed, len(conversations)))
        answers = []
        for _, same in itertools.groupby(conversations, key=lambda c: c.messages):
            for draw, conversation in enumerate(same, 1):
                said = self._says(conversation.question, sampling.temperature, draw)
                answers.append(said if isinstance(said, Answer) else Answer(said))
        return answers


def made(run: Run, *completers: Any, of: Dataset | None = None, **settings: Any) -> Predictions:
    return candidates(CandidatesConfig(**settings), prompts=of or prompts(PromptsConfig(), run=run), completers=completers, run=run)


def test_by_hand(run: Run) -> None:
    """Two models, greedy and two draws at 0.8. Both say "Hm." greedily: one candidate. Five texts; all may stay."""
    a = Writer(lambda q, t, d: "Hm." if not t else f"a says {q[:4]} {d}", name="a")
    b = Writer(lambda q, t, d: "Hm. " if not t else f"b says {q[:4]} {d}", name="b")
    found = made(run, a, b, temperatures=(0, 0.8), samples=2, answers_per_prompt=9)
    assert [row["item_id"] for row in found.rows] == ["prompt-0", "prompt-1", "prompt-2", "prompt-3"]
    first = found.rows[0]
    assert first["question"] == "Who founded the museum?"
    assert first["messages"] == [{"role": "user", "content": "Who founded the museum?"}]
    assert [(x["system"], x["text"], x["also"]) for x in first["answers"]] == [
        ("a t=0 #1", "Hm.", ["b t=0 #1"]),
        ("a t=0.8 #1", "a says Who  1", []), ("a t=0.8 #2", "a says Who  2", []),
        ("b t=0.8 #1", "b says Who  1", []), ("b t=0.8 #2", "b says Who  2", []),
    ]  # fmt: skip
    facts = found.manifest.facts
    assert (facts["prompts"], facts["answers"], facts["merged"], facts["left_out"], facts["prompts_left_out"]) == (4, 20, 4, {}, 0)
    assert facts["completers"] == {"a": a.identity, "b": b.identity}
    assert [(t, n) for t, _, n in a.asked] == [(0, 4), (0.8, 8)]  # greedy once
    assert a.asked[0][1] == 0 and a.asked[1][1] != b.asked[1][1]  # two models do not share their draws


def test_the_answers_that_stay_are_drawn(run: Run) -> None:
    """Of 12 different answers to each of 30 prompts 4 stay: no model's are preferred, and the same seed draws the same."""
    def says(q: str, t: float, d: int) -> str:
        return f"{q} {t} {d}"

    questions = PromptsConfig(questions=tuple(f"Question {n}?" for n in range(30)))
    writers = [Writer(lambda q, t, d, name=name: name + says(q, t, d), name=name) for name in "xy"]
    of = prompts(questions, run=run)
    found = made(run, *writers, of=of, temperatures=(0.5, 1), samples=3)
    assert all(len(row["answers"]) == 4 for row in found.rows)
    kept = [a["system"] for row in found.rows for a in row["answers"]]
    assert 40 < sum(system.startswith("a ") for system in kept) < 80 and len(set(kept)) == 12
    assert made(run, *writers, of=of, temperatures=(0.5, 1), samples=3).digest == found.digest


def test_what_is_left_out(run: Run) -> None:
    said = {
        "Who founded the museum?": ["", "Clara Voss."],
        "What does a ticket cost?": [Answer("It costs 24 eu", "length"), "24 euros."],
        "Where are the logs?": ["On the server.", "On the server."],
        "When does it open?": ["At 8.", "At 9."],
    }
    found = made(run, Writer(lambda q, t, d: said[q][d - 1]), temperatures=(1.0,), samples=2)
    assert [row["question"] for row in found.rows] == ["When does it open?"]
    facts = found.manifest.facts
    assert facts["left_out"] == {"cut by the token limit": 1, "empty": 1}
    assert (facts["prompts_left_out"], facts["merged"]) == (3, 1)


def test_prompts_of_pairs_and_of_raw_texts(run: Run) -> None:
    writer = Writer(lambda q, t, d: f"{q} {d}")
    of_pairs = made(run, writer, of=preferences(PreferencesConfig(), run=run), temperatures=(1.0,), samples=2)
    assert [row["item_id"] for row in of_pairs.rows] == [f"pair-{n}" for n in range(4)]
    some = made(run, writer, temperatures=(1.0,), samples=2, max_prompts=2, names=("tuned",))
    assert len(some.rows) == 2 and some.rows[0]["answers"][0]["system"] == "tuned t=1 #1"
    turns = (Message("user", "Hello."), Message("assistant", "Yes?"), Message("user", "Which?"))
    assert shown_prompt(turns) == "User: Hello.\n\nAssistant: Yes?\n\nUser: Which?" and shown_prompt(turns[:1]) == "Hello."


def test_refused(run: Run) -> None:
    same = Writer(lambda q, t, d: "No.")
    with pytest.raises(UsageError, match="None of the 4 prompts has two different answers"):
        made(run, same)
    with pytest.raises(UsageError, match="2 completers have 1 names: a"):
        made(run, same, same, names=("a",))
    with pytest.raises(UsageError, match=r"The split `test` of .* has no prompts"):
        made(run, same, split="test")
    with pytest.raises(UsageError, match="has one answer to each prompt: there is nothing to compare it with"):
        items_of({"base": answers(AnswersConfig(answer="x"), run=run)})
    short = Writer(lambda q, t, d: "No.")
    short.complete = lambda conversations, sampling: [Answer("No.")]  # type: ignore[method-assign]
    with pytest.raises((MygptError, ValueError)):
        made(run, short, samples=2)


def test_a_real_engine_draws_different_answers(run: Run) -> None:
    """A small random model: equal prompts of one call are different draws, and the same seed makes the same again."""
    engine = engine_of(tiny_module("llama"))
    assert isinstance(engine, TorchEngine)
    settings = {"temperatures": (1.5,), "samples": 3, "max_tokens": 12, "answers_per_prompt": 3}
    found = made(run, _Unlimited(engine), **settings)
    assert all(len({a["text"] for a in row["answers"]}) == len(row["answers"]) >= 2 for row in found.rows)


class _Unlimited:
    """A random model rarely ends its turn: what the limit cut passes for whole here."""

    def __init__(self, engine: TorchEngine):
        self._engine = engine

    @property
    def identity(self) -> dict[str, Any]:
        return {"engine": "tiny"}

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        return [Answer(a.text or "(nothing)") for a in self._engine.complete(conversations, sampling)]


# -- from prompts to pairs, as docs/align/preferences.md walks it -----------------------------------------------------------------

WISH = {"short": 0, "polite": 1, "rude": 2}


def call(home: Path, *words: Any, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words), "--home", str(home), "--json"])
    shown = capsys.readouterr()
    assert ended.value.code == 0, shown.err
    return json.loads(shown.out)


def test_from_prompts_over_the_page_to_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ann and Bo want it short, then polite; Con the opposite. Made up are the models; commands, server and the page's API are real."""
    home = tmp_path / "home"
    (tmp_path / "questions.txt").write_text("\n\n".join(f"May I come on day {n}?" for n in range(6)))
    call(home, "data", "texts", "--source", tmp_path / "questions.txt", "--set", "held_out_share=0", "--name", "questions", capsys=capsys)
    monkeypatch.setattr(recipe_call, "_tool", lambda store, run, protocol, name, *_, **__: named(name))
    models = [word for name in WISH for word in ("--completers", name)]
    asking = ("--prompts", "questions", *models, "--set", "temperatures=[0.7]", "--name", "trial")
    trial = call(home, "align", "candidates", *asking, capsys=capsys)
    assert trial["facts"]["prompts"] == 6 and trial["facts"]["answers"] == 18

    command = [sys.executable, "-m", "mygpt", "studio", "annotate", "trial", "--name", "trial-ratings", "--home", str(home), "--port", "0"]
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None and process.stdout is not None
        try:
            address = process.stderr.readline().split()[1]
            for rater, sign in (("Ann", 1), ("Bo", 1), ("Con", -1)):
                rate_all(address, rater, sign)
            os.kill(process.pid, signal.SIGINT)
            result = json.loads(process.stdout.read())
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
    assert result["items"] == 6 and result["systems"] == ["a t=0.7 #1", "b t=0.7 #1", "c t=0.7 #1"]

    pairs = ("data", "preferences_from_ratings", "--ratings", "trial-ratings", "--candidates", "trial")
    told = call(home, *pairs, "--set", "disagreement=soft", "--name", "soft", capsys=capsys)
    assert told["facts"]["rows"] == {"train": 18} and told["facts"]["annotators"]["Con"]["reliability"] < 0.3
    walk = (Path(__file__).resolve().parents[2] / "docs" / "align" / "preferences.md").read_text(encoding="utf-8")
    assert "\n".join(told["facts"]["sentences"]) in walk
    rows = Dataset.open(Store(home), "soft").preferences("train")
    order = {(row.chosen.partition(":")[0], row.rejected.partition(":")[0]) for row in rows}
    assert order == {("short", "polite"), ("short", "rude"), ("polite", "rude")}
    assert all((row.facts["agreement"], row.facts["annotators"]) == ("0.6667", "3") for row in rows)
    assert all(float(row.facts["probability"]) > 0.9 for row in rows)
    assert call(home, *pairs, "--name", "each", capsys=capsys)["facts"]["rows"] == {"train": 54}


def named(name: str) -> Writer:
    return Writer(lambda q, t, d: f"{name}: {q}", name=name)


def rate_all(address: str, rater: str, sign: int) -> None:
    """As the page does it: the places of the answers as shown, by their texts alone."""
    told = asked(f"{address}/api/task?rater={rater}")
    while told["item"] is not None:
        assert not any(mark in json.dumps(told) for mark in ("t=0.7", "#1"))  # no system is sent
        wished = [sign * WISH[text.partition(":")[0]] for text in told["item"]["answers"]]
        body = {"rater": told["rater"], "item_id": told["item"]["id"], "shown": told["item"]["shown"], "choice": "ranking", "seconds": 1.0}
        told = asked(f"{address}/api/ratings", {**body, "ranks": [sorted(wished).index(wish) + 1 for wish in wished]})


def asked(address: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(address, data, {"content-type": "application/json"}), timeout=20) as answer:
        return json.load(answer)
