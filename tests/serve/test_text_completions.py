"""/v1/completions with the real client: what a text is worth, token by token, against a plain forward pass; raw text continued."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mygpt.infer.protocols import Sampling
from mygpt.infer.remote import RemoteCompleter
from mygpt.infer.remote_scorer import RemoteScorer
from mygpt.infer.scripted import ScriptedCompleter
from mygpt.infer.token_scores import TokenScorer
from mygpt.serve.api import create_app
from mygpt.serve.served import Served
from tests.infer.test_raw_text import raw
from tests.infer.tiny_models import byte_tokenizer, engine_of, tiny_module
from tests.serve.live_site import Site, running, source_passage

openai = pytest.importorskip("openai")

TEXT = "The ferry leaves at nine."
CHOICES = [("The ferry leaves at", word) for word in (" nine", " ten o'clock", " noon, für alle")]
WHOLE = [("", "The harbour is calm."), ("", "x")]


@pytest.fixture(scope="module")
def module() -> Any:
    return tiny_module("llama")


@pytest.fixture(scope="module")
def site(module: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home: Path = tmp_path_factory.mktemp("home")
    engine = engine_of(module)
    plain = Served("plain", engine, engine.context_tokens, engine.count_tokens, TokenScorer(engine), engine)
    documents = Served("documents", ScriptedCompleter(lambda c: "x"), 100, lambda c: 1)
    app = create_app([plain, documents], source_passage=source_passage, home=home, title="t")
    with running(app, home) as one:
        yield one


@pytest.fixture
def complete(site: Site) -> Callable[..., Any]:
    client = openai.OpenAI(base_url=f"{site.address}/v1", api_key="unused", max_retries=0)
    return lambda prompt, **settings: client.completions.create(**{"model": "plain", "prompt": prompt, **settings})


def expected_logprobs(module: Any, ids: list[int]) -> Any:
    with torch.no_grad():
        return module(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)


def test_echo_says_what_every_token_is_worth(complete: Callable[..., Any], module: Any) -> None:
    ids = byte_tokenizer().encode(TEXT)
    rows = expected_logprobs(module, ids)
    for prompt in (TEXT, ids):
        made = complete(prompt, echo=True, logprobs=2, max_tokens=0)
        (choice,) = made.choices
        told = choice.logprobs
        assert choice.text == TEXT and told.tokens == list(TEXT) and told.text_offset == list(range(len(TEXT)))
        assert told.token_logprobs[0] is None and told.top_logprobs[0] is None
        wanted = [float(rows[place, token]) for place, token in enumerate(ids[1:])]
        assert told.token_logprobs[1:] == pytest.approx(wanted, abs=1e-5)
        for place, top in enumerate(told.top_logprobs[1:]):
            assert max(top.values()) == pytest.approx(float(rows[place].max()), abs=1e-5)
            assert top[told.tokens[place + 1]] == told.token_logprobs[place + 1]
        assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (len(ids), 0)


def test_as_lm_eval_slices_it(complete: Callable[..., Any], module: Any) -> None:
    """`local-completions` sends ids with one new token and sums `token_logprobs[ctxlen:-1]`; greedy: each equals the highest beside it."""
    tokenizer = byte_tokenizer()
    asked = [tokenizer.encode(prompt + continuation) for prompt, continuation in CHOICES]
    made = complete(asked, echo=True, logprobs=1, max_tokens=1, temperature=0, seed=1234)
    scores = engine_of(module).score([p for p, _ in CHOICES], [c for _, c in CHOICES])
    for choice, (prompt, _), score in zip(made.choices, CHOICES, scores, strict=True):
        start = len(tokenizer.encode(prompt))
        values, tops = choice.logprobs.token_logprobs[start:-1], choice.logprobs.top_logprobs[start:-1]
        assert sum(values) == pytest.approx(score.logprob, abs=1e-4)
        assert all(v == max(top.values()) for v, top in zip(values, tops, strict=True)) is score.is_greedy
    rows = expected_logprobs(module, asked[0])
    assert made.choices[0].logprobs.token_logprobs[-1] == pytest.approx(float(rows[-1].max()), abs=1e-5)


def test_a_remote_scorer_equals_the_local_one(site: Site, module: Any) -> None:
    pairs = [*CHOICES, *WHOLE, *CHOICES[:1], *((f"question {i}", f" answer {i * 7}") for i in range(20))]
    prompts, continuations = [p for p, _ in pairs], [c for _, c in pairs]
    remote = RemoteScorer(f"{site.address}/v1")
    assert remote.identity.items() >= {"engine": "remote", "address": f"{site.address}/v1", "name": "plain"}.items()
    found, local = remote.score(prompts, continuations), engine_of(module).score(prompts, continuations)
    assert [s.logprob for s in found] == pytest.approx([s.logprob for s in local], abs=1e-4)
    assert [(s.num_tokens, s.num_bytes, s.is_greedy) for s in found] == [(s.num_tokens, s.num_bytes, s.is_greedy) for s in local]


def test_greedy_is_told_across_the_wire(site: Site, module: Any) -> None:
    letters = [chr(code) for code in range(32, 127)]
    prompts = [f"{start}{i}" for start in ("cold", "why") for i in range(3)]
    pairs = [(prompt, letter) for prompt in prompts for letter in letters]
    found, local = (
        tool.score([p for p, _ in pairs], [c for _, c in pairs]) for tool in (RemoteScorer(f"{site.address}/v1"), engine_of(module))
    )
    assert [s.is_greedy for s in found] == [s.is_greedy for s in local]
    assert any(s.is_greedy for s in found)


def test_raw_text_is_continued(complete: Callable[..., Any], site: Site, module: Any) -> None:
    (local,) = engine_of(module).complete([raw(TEXT)], Sampling(max_tokens=6))
    for prompt in (TEXT, byte_tokenizer().encode(TEXT)):
        made = complete(prompt, max_tokens=6)
        assert (made.choices[0].text, made.choices[0].finish_reason, made.usage.prompt_tokens) == (local.text, "length", len(TEXT))
    (remote,) = RemoteCompleter(f"{site.address}/v1#plain").complete([raw(TEXT)], Sampling(max_tokens=6))
    assert remote.text == local.text
    several = complete([TEXT, "x"], max_tokens=3)
    assert [c.index for c in several.choices] == [0, 1]
    assert several.choices[1].text == engine_of(module).complete([raw("x")], Sampling(max_tokens=3))[0].text


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"echo": True, "max_tokens": 2}, "max_tokens"),
        ({"echo": True, "max_tokens": 1, "temperature": 0.5}, "temperature"),
        ({"echo": True, "max_tokens": 1, "logprobs": 6}, "logprobs"),
        ({"logprobs": 1, "max_tokens": 4}, "logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"best_of": 3}, "best_of"),
        ({"suffix": "."}, "suffix"),
        ({"stream": True}, "stream"),
        ({"extra_body": {"eco": True}}, "eco"),
        ({"prompt": [[1, 999]], "echo": True, "max_tokens": 0}, "prompt"),
        ({"prompt": byte_tokenizer().encode("é")[:1], "max_tokens": 3}, "prompt"),  # half a character: no text
        ({"prompt": ["a"] * 65, "echo": True, "max_tokens": 0}, "prompt"),
        ({"prompt": [[]], "echo": True, "max_tokens": 0}, "prompt"),
        ({"prompt": "y" * 400, "echo": True, "max_tokens": 1}, "prompt"),
        ({"model": "documents"}, "model"),
    ],
)
def test_what_has_no_effect_is_refused_by_name(complete: Callable[..., Any], settings: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        complete(settings.pop("prompt", TEXT), **settings)
    assert refused.value.body["param"] == param


def test_characters_of_several_tokens_stay_whole(complete: Callable[..., Any]) -> None:
    """Bytes are tokens: the last of a character's has it, the others nothing, and offsets count characters."""
    (choice,) = complete("aé漢z", echo=True, logprobs=1, max_tokens=0).choices
    assert choice.logprobs.tokens == ["a", "", "é", "", "", "漢", "z"]
    assert choice.logprobs.text_offset == [0, 1, 1, 2, 2, 2, 3] and choice.text == "aé漢z"
    assert all(math.isfinite(value) for value in choice.logprobs.token_logprobs[1:])
