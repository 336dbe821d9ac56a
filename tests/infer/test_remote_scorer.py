"""The remote scorer against servers whose every token the test decides; against a real model: tests/serve/test_text_completions.py."""

from pathlib import Path
from typing import Any

import pytest

from mygpt.core.errors import MygptError, UsageError
from mygpt.infer.cached_scorer import CachedScorer
from mygpt.infer.protocols import Score
from mygpt.infer.remote_scorer import RemoteScorer
from tests.infer.test_remote import Reply, Site, site, waits  # noqa: F401


def echoed(*choices: tuple[list[str], list[float | None], list[dict[str, float] | None]]) -> Reply:
    found = []
    for index, (tokens, logprobs, top) in enumerate(choices):
        offsets = [len("".join(tokens[:i])) for i in range(len(tokens))]
        told = {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": top, "text_offset": offsets}
        found.append({"index": index, "text": "".join(tokens), "logprobs": told, "finish_reason": "length"})
    return 200, {"choices": found[::-1]}, {}  # in any order


def test_the_continuations_tokens_by_hand(site: Site) -> None:  # noqa: F811
    """-1.5 - 0.5 of " blue-ish"; the new token and those of the prompt do not count. "-ish" is not the likeliest."""
    site.reply = lambda path, body: echoed(
        (
            ["The", " sky", " blue", "-ish", "!"],
            [None, -9.0, -1.5, -0.5, -0.1],
            [None, {"x": -1.0}, {" blue": -1.5}, {"x": -0.4}, {"!": -0.1}],
        ),
        (["The", " sky", " red", "?"], [None, -9.0, -2.0, -0.1], [None, {"x": -1.0}, {" red": -2.0}, {"?": -0.1}]),
    )
    scores = RemoteScorer(f"{site.address}#one").score(["The sky"] * 2, [" blue-ish", " red"])
    assert scores == [Score(-2.0, 2, 9, False), Score(-2.0, 1, 4, True)]
    assert site.seen[0][1] == {
        "model": "one",
        "prompt": ["The sky blue-ish", "The sky red"],
        "echo": True,
        "logprobs": 1,
        "max_tokens": 1,
        "temperature": 0,
    }


def test_a_beginning_that_the_server_shows_moves_the_rest(site: Site) -> None:  # noqa: F811
    """As vLLM shows Llama's. With it the first token of a whole text has a log-probability."""
    tokens = ["<|begin|>", "A", " b", "!"]
    site.reply = lambda path, body: echoed((tokens, [None, -1.0, -2.0, -0.1], [None, {"A": -1.0}, {" b": -2.0}, {"!": -0.1}]))
    scorer = RemoteScorer(f"{site.address}#one")
    assert scorer.score([""], ["A b"]) == [Score(-3.0, 2, 3, True)]
    assert scorer.score(["A"], [" b"]) == [Score(-2.0, 1, 2, True)]
    assert [body.get("add_beginning") for _, body, _ in site.seen] == [True, None]


def test_a_whole_text_without_a_beginning_is_refused(site: Site) -> None:  # noqa: F811
    site.reply = lambda path, body: echoed((["A", " b", "!"], [None, -2.0, -0.1], [None, {" b": -2.0}, {"!": -0.1}]))
    with pytest.raises(MygptError, match="gives no log-probability for the first token of a text"):
        RemoteScorer(f"{site.address}#one").score([""], ["A b"])


@pytest.mark.parametrize("tokens", [["The", " skyblue", "!"], ["The", " sk", "ybl", "ue", "!"]])
def test_a_token_across_the_seam_is_an_error(site: Site, tokens: list[str]) -> None:  # noqa: F811
    site.reply = lambda path, body: echoed((tokens, [None, *[-1.0] * (len(tokens) - 1)], [None, *[{"x": -1.0}] * (len(tokens) - 1)]))
    with pytest.raises(UsageError, match="joins the end of 'The sky' and the beginning of 'blue' in one token"):
        RemoteScorer(f"{site.address}#one").score(["The sky"], ["blue"])


@pytest.mark.parametrize(
    "reply",
    [{"choices": [{"index": 0, "logprobs": None}]}, {"choices": []}, {}, {"choices": [{"index": 0, "logprobs": {"tokens": []}}]}],
)
def test_a_server_without_echo_is_named(site: Site, reply: dict[str, Any]) -> None:  # noqa: F811
    site.reply = lambda path, body: (200, reply, {})
    with pytest.raises(MygptError, match="/completions does not echo a prompt with log-probabilities"):
        RemoteScorer(f"{site.address}#one").score(["a"], [" b"])


def test_few_texts_a_request_and_order_kept(site: Site) -> None:  # noqa: F811
    def reply(path: str, body: dict[str, Any]) -> Reply:
        return echoed(*((["q", text[1:], "!"], [None, -float(text[3:]), 0.0], [None, {"x": 0.0}, {"!": 0.0}]) for text in body["prompt"]))

    site.reply = reply
    scores = RemoteScorer(f"{site.address}#one").score(["q"] * 20, [f" a{i}" for i in range(20)])
    assert [s.logprob for s in scores] == [-float(i) for i in range(20)]
    assert sorted(len(body["prompt"]) for _, body, _ in site.seen) == [4, 8, 8]


@pytest.mark.parametrize("parallel", [1, 4])
def test_an_endpoint_that_breaks_off_is_resumed(site: Site, tmp_path: Path, parallel: int) -> None:  # noqa: F811
    """The 97th text of 100 is answered with 400: what was scored is kept, and only the rest is asked for again."""
    broken = True

    def reply(path: str, body: dict[str, Any]) -> Reply:
        if path == "/v1/models":  # which model is it?
            return 404, {}, {}
        if broken and any(text.endswith(" a96") for text in body["prompt"]):
            return 400, {"error": {"message": "no"}}, {}
        return echoed(*((["q", text[1:], "!"], [None, -float(text[3:]), 0.0], [None, {"x": 0.0}, {"!": 0.0}]) for text in body["prompt"]))

    site.reply = reply
    cached = CachedScorer(RemoteScorer(f"{site.address}#one", parallel=parallel), tmp_path / "scores.sqlite")
    texts = [f" a{i}" for i in range(100)]
    with pytest.raises(MygptError, match="answered 400"):
        cached.score(["q"] * 100, texts)
    broken = False
    site.seen.clear()
    assert [score.logprob for score in cached.score(["q"] * 100, texts)] == [-float(i) for i in range(100)]
    assert [text for _, body, _ in site.seen for text in body.get("prompt", [])] == [f"q a{i}" for i in range(96, 100)]
