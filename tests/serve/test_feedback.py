"""Votes: on disk before they are thanked for, in an artefact, and never lost."""

import json

from mygpt.artifacts.feedback import Feedback
from mygpt.artifacts.store import Store
from mygpt.infer.scripted import ScriptedCompleter
from mygpt.serve import feedback
from mygpt.serve.feedback import FeedbackBox, Vote

VOTE = {"rating": 1, "question": "When?", "answer": "In March.\u2028 \U0001f389", "model": "handbook", "citations": [{"path": "a.md"}]}


def vote(number: int, rating: int = 1, model: str = "handbook") -> Vote:
    return Vote(rating=rating, question=f"q{number}", answer="a", model=model)  # type: ignore[arg-type]


def rows(home):
    return Feedback.open(Store(home), "handbook").rows


def test_a_vote_becomes_an_artefact(site_of):
    site = site_of(ScriptedCompleter(lambda c: "x"))
    status, answer = site.json("POST", "/v1/feedback", body=VOTE)
    made = Feedback.open(Store(site.home), "handbook")
    assert (status, answer) == (200, {"object": "feedback", "stored": True, "artifact": made.id})
    [row] = made.rows
    assert {k: row[k] for k in VOTE} == VOTE and row["comment"] == "" and row["time"].endswith("+00:00")
    assert made.manifest.facts == {"votes": 1, "up": 1, "down": 0, "damaged_lines": 0}
    assert made.manifest.recipe == "mygpt.serve.feedback:record_feedback"


def test_wrong_votes_are_refused_by_name(site_of):
    site = site_of(ScriptedCompleter(lambda c: "x"))
    for change, param in [
        ({"rating": 2}, "rating"),
        ({"rating": True}, "rating"),
        ({"question": None}, "question"),
        ({"extra": 1}, "extra"),
    ]:
        status, answer = site.json("POST", "/v1/feedback", body={**VOTE, **change})
        assert (status, answer["error"]["param"]) == (400, param)
    assert site.json("POST", "/v1/feedback", body={**VOTE, "model": "../../etc"})[0] == 404
    assert not (site.home / "feedback").exists()


def test_the_last_vote_on_an_answer_counts_and_the_log_keeps_all(tmp_path):
    box = FeedbackBox(tmp_path)
    for cast in (vote(1), vote(2), vote(1, -1)):
        box.add(cast)
    box.close()
    assert [(r["question"], r["rating"]) for r in rows(tmp_path)] == [("q2", 1), ("q1", -1)]
    assert len((tmp_path / "feedback" / "handbook.jsonl").read_text().splitlines()) == 3


def test_versions_grow_slower_than_votes_and_nothing_is_missing_at_the_end(tmp_path):
    box = FeedbackBox(tmp_path)
    made = [box.add(vote(number)) for number in range(60)]
    assert all(made[:20]) and sum(m is not None for m in made) < 40
    assert len((tmp_path / "feedback" / "handbook.jsonl").read_text().splitlines()) == 60
    box.close()
    assert [r["question"] for r in rows(tmp_path)] == [f"q{number}" for number in range(60)]


def test_a_crash_between_vote_and_artefact_loses_nothing(tmp_path, monkeypatch):
    box = FeedbackBox(tmp_path)
    box.add(vote(1))
    monkeypatch.setattr(feedback, "record_feedback", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "full")))
    assert box.add(vote(2)) is None  # stored, though the artefact could not be made
    monkeypatch.undo()
    assert [r["question"] for r in rows(tmp_path)] == ["q1"]
    FeedbackBox(tmp_path).publish_all()  # the next start of a server
    assert [r["question"] for r in rows(tmp_path)] == ["q1", "q2"]


def test_a_line_cut_by_a_crash_spoils_no_other(tmp_path):
    box = FeedbackBox(tmp_path)
    box.add(vote(1))
    log = tmp_path / "feedback" / "handbook.jsonl"
    log.write_text(log.read_text() + '{"rating": 1, "questi')
    made = box.add(vote(2))
    assert made is not None and [r["question"] for r in made.rows] == ["q1", "q2"] and made.manifest.facts["damaged_lines"] == 1


def test_publishing_again_makes_nothing_new(tmp_path):
    FeedbackBox(tmp_path).add(vote(1))
    before = [m.digest for m in Store(tmp_path).manifests()]
    FeedbackBox(tmp_path).publish_all()
    assert [m.digest for m in Store(tmp_path).manifests()] == before


def test_two_servers_in_one_home_keep_every_vote(tmp_path):
    first, second = FeedbackBox(tmp_path), FeedbackBox(tmp_path)
    for number in range(0, 10, 2):
        first.add(vote(number))
        second.add(vote(number + 1))
    assert sorted(r["question"] for r in rows(tmp_path)) == [f"q{number}" for number in range(10)]
    assert all(json.loads(line) for line in (tmp_path / "feedback" / "handbook.jsonl").read_text().splitlines())
