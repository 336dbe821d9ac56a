"""Which names of a deployment are served, and which of them take raw text; a tool at an address made again from its record."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.artifacts.store import Store
from mygpt.core.run import Run
from mygpt.infer.remote import RemoteCompleter
from mygpt.infer.remote_scorer import RemoteScorer
from mygpt.infer.scripted import ScriptedCompleter
from mygpt.pipelines.serving import served_models
from mygpt.pipelines.tools import rebuild_tool
from mygpt.serve.api import create_app
from tests.infer.tiny_models import engine_of, tiny_module
from tests.serve.live_site import running, source_passage

HI = Conversation((Message("user", "Hi"),))


def test_raw_text_is_for_the_name_without_documents() -> None:
    engine = engine_of(tiny_module("llama"))
    opened: Any = SimpleNamespace(engine=engine, completer=ScriptedCompleter(lambda c: "x"), search=object(), context_reserve=10)
    documents, closed = served_models("handbook", opened)
    assert (documents.name, documents.texts) == ("handbook", None)
    assert closed.name == "handbook-closed-book" and closed.texts is not None
    assert documents.count_tokens(HI) == closed.count_tokens(HI) + 10 and documents.turn_key == closed.turn_key
    alone: Any = SimpleNamespace(engine=engine, completer=engine, search=None, context_reserve=0)
    (only,) = served_models("handbook", alone)
    assert only.texts is not None and only.texts.score([(5, 6)])[0].logprobs


def test_a_scorer_at_an_address_is_made_again(run: Run, tmp_path: Path) -> None:
    engine = engine_of(tiny_module("llama"))
    alone: Any = SimpleNamespace(engine=engine, completer=engine, search=None, context_reserve=0)
    app = create_app(served_models("handbook", alone), source_passage=source_passage, home=tmp_path, title="t")
    with running(app, tmp_path) as site:
        rebuild = rebuild_tool(Store(run.home), run, num_passages=0, share_documents=False)
        identity = RemoteScorer(f"{site.address}/v1").identity
        scorer, completer = rebuild("scorer", identity), rebuild("completer", identity)
        assert isinstance(scorer, RemoteScorer) and isinstance(completer, RemoteCompleter)
        assert scorer.identity == identity
        assert abs(scorer.score(["a"], ["b"])[0].logprob - engine.score(["a"], ["b"])[0].logprob) < 1e-4
