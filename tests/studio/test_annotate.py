"""The annotation page: blind, shuffled, saved at once, taken up again, published; and in a real browser with the keyboard."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient

from mygpt.artifacts.ratings import Ratings
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.artifacts.store import Store
from mygpt.core.config import Config
from mygpt.core.errors import MygptError, Refused, UsageError
from mygpt.core.run import Run
from mygpt.studio.annotate import create_app
from mygpt.studio.rating_box import RatedItem, RatingBox, RatingsConfig, items_of, record_ratings
from tests.serve.live_site import running

SYSTEMS = ("secret-base", "secret-rag", "secret-tuned")
ITEMS = [RatedItem(f"q{n}", f"Question {n}?", {s: f"{s[7:]} answers {n}" for s in SYSTEMS}) for n in range(4)]
JSON = {"content-type": "application/json"}


def site(home: Path, items: list[RatedItem] = ITEMS, **settings: Any) -> TestClient:
    settings = {"home": home, "name": "trial", "title": "Trial", **settings}
    return TestClient(create_app(items, **settings), base_url="http://127.0.0.1:8081")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with site(tmp_path) as opened:
        yield opened


def task(client: TestClient, rater: str, **more: Any) -> dict[str, Any]:
    answer = client.get("/api/task", params={"rater": rater, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def body(told: dict[str, Any], choice: str, ranks: list[int], **more: Any) -> dict[str, Any]:
    item = told["item"]
    return {"rater": told["rater"], "item_id": item["id"], "shown": item["shown"], "choice": choice, "ranks": ranks, "seconds": 2.5, **more}


def rate(client: TestClient, told: dict[str, Any], choice: str = "ranking", ranks: tuple[int, ...] = (1, 2, 3)) -> dict[str, Any]:
    answer = client.post("/api/ratings", json=body(told, choice, list(ranks)))
    assert answer.status_code == 200, answer.text
    return answer.json()


def log(home: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (home / "ratings" / "trial.jsonl").read_text().splitlines()]


# -- what raters see ------------------------------------------------------------------------------------------------------


def test_nothing_sent_names_a_system(client: TestClient) -> None:
    sent = [client.get("/").text, client.get("/static/annotate.js").text]
    told = task(client, "Ann")
    while told["item"]:
        sent.append(json.dumps(told))
        told = rate(client, told)
    sent.append(json.dumps(told))
    assert len(sent) == 7 and not any(system in text for text in sent for system in SYSTEMS)


def test_every_rater_has_an_order_of_their_own_and_keeps_it(tmp_path: Path) -> None:
    many = [RatedItem(f"q{n:03}", "?", {s: s for s in SYSTEMS}) for n in range(120)]
    box = RatingBox(many, home=tmp_path, name="order")
    firsts = Counter(box.shown("Ann", item)[0].system for item in many)
    assert sorted(firsts) == sorted(SYSTEMS) and min(firsts.values()) > 24  # 40 each; 24 is over three standard deviations off
    ann, bo = [i.id for i in box.order("Ann")], [i.id for i in box.order("Bo")]
    assert sorted(ann) == sorted(bo) == [i.id for i in many] and ann != bo and ann != sorted(ann)
    again = RatingBox(many, home=tmp_path, name="order")
    assert [i.id for i in again.order("ann")] == ann and again.shown("Ann", many[3]) == box.shown("Ann", many[3])
    other = RatingBox(many, home=tmp_path, name="order", seed=1)
    assert [i.id for i in other.order("Ann")] != ann and other.token("Ann", many[3]) != box.token("Ann", many[3])


def test_the_title_is_text(tmp_path: Path) -> None:
    with site(tmp_path, title='<script>alert(1)</script>"&') as client:
        page = client.get("/").text
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&amp;" in page


# -- saving, resuming, publishing -------------------------------------------------------------------------------------------


def test_ranks_come_back_to_the_systems_that_were_shown(client: TestClient, tmp_path: Path) -> None:
    """The rater always prefers `tuned`, ties the rest, and says so by place on the page."""
    told = task(client, "Ann")
    for _ in ITEMS:
        told = rate(client, told, ranks=tuple(1 if text.startswith("tuned") else 2 for text in told["item"]["answers"]))
    made = client.post("/api/finish", json={}).json()
    ratings = Ratings.open(Store(tmp_path), "trial")
    assert made["artifact"] == ratings.id and made["facts"]["ratings"] == 4
    assert ratings.preferences("secret-tuned", "secret-base") == {f"q{n}": [1.0] for n in range(4)}
    assert ratings.preferences("secret-rag", "secret-base") == {f"q{n}": [0.5] for n in range(4)}
    assert {tuple(a.system for a in row.answers) for row in ratings.rows} != {SYSTEMS}  # the order shown is kept
    row = ratings.rows[0]
    assert (row.rater, row.choice, row.seconds) == ("Ann", "ranking", 2.5) and row.created.endswith("+00:00")
    assert ratings.manifest.recipe == "mygpt.studio.rating_box:record_ratings"


def test_a_rating_is_on_disk_before_it_is_confirmed(client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr("mygpt.studio.rating_box.os.fsync", lambda fd: synced.append(len(log(tmp_path))))
    rate(client, rate(client, task(client, "Ann")))
    assert synced == [1, 2]


def test_resuming_shows_only_what_is_left_to_each(tmp_path: Path) -> None:
    with site(tmp_path) as client:
        told = rate(client, task(client, "Ann"))
        told = rate(client, told, "best", (2, 1, 2))
        assert (told["done"], told["total"]) == (2, 4)
        seen = {row["item_id"] for row in log(tmp_path)}
        assert task(client, "Bo")["done"] == 0
    with site(tmp_path) as client:
        told = task(client, "  ann ")
        assert (told["rater"], told["done"]) == ("Ann", 2) and told["item"]["id"] not in seen
        told = rate(client, rate(client, told, "cannot judge", ()))
        assert (told["done"], told["item"], told["number"]) == (4, None, None)
        assert Counter(row["choice"] for row in log(tmp_path)) == {"ranking": 2, "best": 1, "cannot judge": 1}


def test_going_back_replaces_a_rating(client: TestClient, tmp_path: Path) -> None:
    first = task(client, "Ann")
    rate(client, rate(client, first))
    back = task(client, "Ann", number=0)
    assert back["item"]["id"] == first["item"]["id"] and back["rating"] == {"choice": "ranking", "ranks": [1, 2, 3]}
    assert rate(client, back, "cannot judge", ())["number"] == 2
    made = client.post("/api/finish", json={}).json()
    counts = {"ratings": 2, "items": 2, "raters": 1, "cannot_judge": 1, "replaced": 1, "damaged_lines": 0}
    assert made["facts"] == {**counts, "systems": list(SYSTEMS)}
    assert len(log(tmp_path)) == 3


def test_stopping_publishes_what_was_not(tmp_path: Path) -> None:
    with site(tmp_path) as client:
        rate(client, task(client, "Ann"))
        assert not list(Store(tmp_path).manifests())
    assert len(Ratings.open(Store(tmp_path), "trial").rows) == 1
    with site(tmp_path):
        pass
    assert len(list(Store(tmp_path).manifests())) == 1


def test_a_line_cut_by_a_crash_spoils_no_other(tmp_path: Path) -> None:
    with site(tmp_path) as client:
        rate(client, task(client, "Ann"))
    file = tmp_path / "ratings" / "trial.jsonl"
    whole = file.read_text()
    file.write_text(whole + whole[: whole.index("}") + 1])  # cut behind a brace: still no JSON
    with site(tmp_path) as client:
        rate(client, task(client, "Ann"))
        facts = client.post("/api/finish", json={}).json()["facts"]
    assert (facts["ratings"], facts["damaged_lines"]) == (2, 1)


def test_two_servers_in_one_home(tmp_path: Path) -> None:
    with site(tmp_path) as one, site(tmp_path) as two:
        told = rate(one, task(one, "Ann"))
        assert task(two, "Ann") == told
        rate(two, told)
        assert task(one, "Ann")["done"] == 2


# -- what is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"ranks": [1, 2]}, 400, "each answer needs a place"),
        ({"ranks": [1, 2, 4]}, 400, "without a gap"),
        ({"choice": "best"}, 400, "the best is 1, all others 2"),
        ({"choice": "maybe"}, 400, "`choice`"),
        ({"ranks": [1, 2, "3"]}, 400, "`ranks`"),
        ({"seconds": -1.0}, 400, "`seconds`"),
        ({"item_id": "q9"}, 400, "There is no item `q9`"),
        ({"rater": " "}, 400, "cannot be a rater's name"),
        ({"rater": "x" * 81}, 400, "cannot be a rater's name"),
        ({"rater": "Bo"}, 409, "shown in another order"),
        ({"shown": "0" * 16}, 409, "shown in another order"),
        ({"system": "secret-base"}, 400, "`system`"),
    ],
)
def test_wrong_ratings_change_nothing(client: TestClient, tmp_path: Path, change: dict[str, Any], status: int, words: str) -> None:
    answer = client.post("/api/ratings", json={**body(task(client, "Ann"), "ranking", [1, 2, 3]), **change})
    assert answer.status_code == status and words in answer.json()["error"]["message"], answer.text
    assert not (tmp_path / "ratings" / "trial.jsonl").exists()


def test_other_requests_that_make_no_sense(client: TestClient) -> None:
    for number in ("4", "-1", "x", "99999999999", "²"):
        assert client.get("/api/task", params={"rater": "Ann", "number": number}).status_code == 400
    assert client.get("/api/task").status_code == 400
    assert client.get("/static/annotate.html.jinja").status_code == 404 == client.get("/docs").status_code
    assert client.post("/api/ratings", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    assert client.post("/api/ratings", content=b"{", headers=JSON).status_code == 400
    assert client.post("/api/ratings", content=b" " * 200_000, headers=JSON).status_code == 413
    nobody = client.post("/api/finish", json={})
    assert nobody.status_code == 400 and "Nobody has rated anything yet" in nobody.json()["error"]["message"]


def test_the_guard_stands_around_it(client: TestClient) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "trusted-types 'none'" in policy
    assert client.get("/", headers={"host": "evil.example"}).status_code == 421
    assert client.post("/api/finish", json={}, headers={"origin": "http://evil.example"}).status_code == 403
    assert client.get("/api/task?rater=Ann", headers={"sec-fetch-site": "cross-site"}).status_code == 403


def test_a_log_of_other_answers_is_refused(tmp_path: Path) -> None:
    with site(tmp_path) as client:
        rate(client, task(client, "Ann"))
    rated = log(tmp_path)[0]["item_id"]
    edited = [RatedItem(i.id, i.prompt, {**i.answers, "secret-base": "edited"} if i.id == rated else i.answers) for i in ITEMS]
    with pytest.raises(Refused, match=f"a rating by Ann of item `{rated}` with another prompt or other answers"):
        create_app(edited, home=tmp_path, name="trial")


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([], "0 items"),
        ([ITEMS[0], ITEMS[0]], "2 items with 1 ids"),
        ([RatedItem("q", "?", {"a": "x"})], "Item `q` has 1 answers"),
        ([RatedItem("q", "?", {str(n): "x" for n in range(10)})], "has 10 answers; 2 to 9"),
    ],
)
def test_items_that_cannot_be_rated(tmp_path: Path, items: list[RatedItem], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        create_app(items, home=tmp_path, name="trial")


# -- files and predictions --------------------------------------------------------------------------------------------------


def test_a_file_made_elsewhere_becomes_an_artefact(run: Run, tmp_path: Path) -> None:
    with site(tmp_path / "elsewhere") as client:
        rate(client, task(client, "Ann"))
    file = tmp_path / "elsewhere" / "ratings" / "trial.jsonl"
    made = record_ratings(RatingsConfig(), log=file, run=run)
    assert made.name == "trial" and made.rows[0].rater == "Ann"
    file.write_text(file.read_text() + json.dumps({**json.loads(file.read_text()), "ranks": [1]}) + "\n")
    with pytest.raises(MygptError, match=r"trial.jsonl, line 2: `ranks` \[1\] of 3 answers"):
        record_ratings(RatingsConfig(), log=file, run=run)


class AnswersConfig(Config):
    answer: str


@recipe
def answers(config: AnswersConfig, *, run: Run) -> Predictions:
    rows = [{"item_id": f"i{n}", "question": f"q{n}", "answer": f"{config.answer} {n}"} for n in range(2)]
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows))


def test_items_of_predictions(run: Run) -> None:
    given = {name: answers(AnswersConfig(answer=name), run=run) for name in ("base", "tuned")}
    assert items_of(given) == [
        RatedItem("i0", "q0", {"base": "base 0", "tuned": "tuned 0"}),
        RatedItem("i1", "q1", {"base": "base 1", "tuned": "tuned 1"}),
    ]


# -- in a browser ---------------------------------------------------------------------------------------------------------

EVIL = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
WATCH = "window.violations = []; document.addEventListener('securitypolicyviolation', (e) => window.violations.push(e.blockedURI));"


def test_the_page_by_keyboard_and_by_mouse(tmp_path: Path, in_browser: Callable[[Callable[[Any], None]], None]) -> None:
    items = [RatedItem(f"q{n}", EVIL, {"a": EVIL, "b": "short", "c": ""}) for n in range(5)]

    def rated(browser: Any) -> None:
        with running(create_app(items, home=tmp_path, name="trial", title="Trial"), tmp_path) as live:
            context = browser.new_context(viewport={"width": 380, "height": 800}, reduced_motion="reduce")
            context.add_init_script(WATCH)
            page = context.new_page()
            page.set_default_timeout(10_000)
            asked: list[str] = []
            errors: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(live.address)
            page.fill("#name", "Ann")
            page.keyboard.press("Enter")
            page.get_by_text("0 of 5 rated").wait_for()
            assert page.inner_text("#prompt") == EVIL
            assert sorted(page.locator(".candidate .body").all_inner_texts()) == sorted([EVIL, "short", "(nothing)"])
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

            for key in "2=31":
                page.keyboard.press(key)
            assert page.inner_text("#said") == "Best first: 2 = 3 > 1"
            page.keyboard.press("Enter")
            page.get_by_text("1 of 5 rated").wait_for()
            page.keyboard.press("3")
            assert page.inner_text("#said") == "Answer 3 is the best"
            page.keyboard.press("Enter")
            page.get_by_text("2 of 5 rated").wait_for()
            page.keyboard.press("1")
            page.keyboard.press("2")
            assert page.locator("#save").is_disabled() and "every answer" in page.inner_text("#said")
            page.keyboard.press("Escape")
            page.keyboard.down("0")
            page.get_by_text("3 of 5 rated").wait_for()
            page.keyboard.down("0")  # held: not one item after another
            page.keyboard.up("0")

            page.reload()  # what was rated stays rated
            page.fill("#name", "Ann")
            page.click("text=Start")
            page.get_by_text("3 of 5 rated").wait_for()
            for answer, place in ((1, "3rd"), (2, "1st"), (3, "2nd")):
                page.get_by_label(f"Answer {answer}: {place}").check()
            page.click("#save")
            page.get_by_text("4 of 5 rated").wait_for()
            page.click("#back")
            page.locator("#said", has_text="Best first: 2 > 3 > 1").wait_for()
            page.get_by_label("Answer 1: 1st").check()  # 1 and 2 tie, 3 follows
            page.click("#save")
            page.get_by_text("4 of 5 rated").wait_for()
            page.click("#cannot")
            page.get_by_text("All done. Thank you.").wait_for()
            page.click("#finish")
            page.get_by_text("5 ratings of 5 items by 1 people").wait_for()
            assert page.evaluate("[window.hacked, window.violations]") == [None, []] and errors == []
            assert {urlsplit(url).netloc for url in asked} == {urlsplit(live.address).netloc}

    in_browser(rated)
    kept = Ratings.open(Store(tmp_path), "trial").rows
    assert [(r.choice, r.ranks) for r in kept] == [
        ("ranking", (2, 1, 1)),
        ("best", (2, 2, 1)),
        ("cannot judge", ()),
        ("ranking", (1, 1, 2)),
        ("cannot judge", ()),
    ]
    assert all(0 <= r.seconds < 60 for r in kept) and sum(r.seconds for r in kept) > 0
