"""Completers, embedders and rewards made again from their recorded identities (`mygpt rerun`)."""

from collections.abc import Callable
from typing import Any

from mygpt.align.classifier_reward import ClassifierReward
from mygpt.align.direct_feedback import DirectFeedback
from mygpt.align.model_reward import ModelReward
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.search_index import SearchIndex
from mygpt.artifacts.store import Store
from mygpt.core.digest import digest_value
from mygpt.core.errors import Refused
from mygpt.core.outbound import require_sharing
from mygpt.core.run import Run
from mygpt.infer.few_shot import FewShot
from mygpt.infer.judge import ModelJudge, Wording
from mygpt.infer.remote import RemoteCompleter
from mygpt.infer.remote_scorer import RemoteScorer
from mygpt.infer.torch_classifier import TorchClassifier
from mygpt.infer.torch_embedder import TorchEmbedder
from mygpt.infer.torch_engine import TorchEngine
from mygpt.infer.torch_seq2seq import Seq2SeqCompleter
from mygpt.rag.answer import AnswerConfig, RetrievalCompleter
from mygpt.rag.search import open_search


def rebuild_tool(store: Store, run: Run, *, num_passages: int, share_documents: bool) -> Callable[[str, Any], Any]:
    """A function from (argument, identity) to a tool with that identity.

    One at another address gets none of the `num_passages` passages unless they may be shared: that it had them once is no leave to
    send them again.
    """

    def rebuild(argument: str, identity: Any) -> Any:
        if identity.get("wrapper") == "few_shot":
            return FewShot.of_messages(rebuild(argument, identity["completer"]), identity["messages"])
        if identity.get("reward") in ("model", "classifier"):
            return rebuilt_reward(store, identity)
        if identity.get("reward") == "direct_feedback":
            return rebuilt_feedback(identity, rebuild)
        if identity.get("engine") == "retrieval":
            search = open_search(SearchIndex.of(store, identity["index"]), rebuild(argument, identity["embedder"]))
            return RetrievalCompleter(rebuild(argument, identity["completer"]), search, AnswerConfig.model_validate(identity["settings"]))
        if identity.get("engine") == "remote":
            address = f"{identity['address']}#{identity['name']}"
            require_sharing(address, num_passages=num_passages, allowed=share_documents)
            run.note(f"Up to {num_passages} passages of your documents go to {address}.")
            remote = RemoteScorer if argument in ("scorer", "judge") else RemoteCompleter
            return remote(address, run=run)
        if identity.get("engine") in ("torch", "torch-seq2seq"):
            model = Model.of(store, identity["model"])
            adapter = Adapter.of(store, identity["adapter"]) if identity.get("adapter") else None
            if identity.get("pooling"):
                return TorchEmbedder(model, adapter=adapter)
            if identity["engine"] == "torch-seq2seq":
                return Seq2SeqCompleter(model, adapter=adapter)
            return TorchEngine(model, adapter=adapter, run=run)
        raise Refused(f"The tool `{argument}` cannot be made again from its record: {identity}.", fix="Run the recipe with a tool at hand.")

    return rebuild


def rebuilt_reward(store: Store, identity: Any) -> Any:
    """A reward model, or a classifier's label."""
    weights = identity["classifier"] if identity["reward"] == "classifier" else identity
    model = Model.of(store, weights["model"])
    adapter = Adapter.of(store, weights["adapter"]) if weights.get("adapter") else None
    if identity["reward"] == "model":
        normalised = (identity["mean"], identity["std"]) != (0.0, 1.0)
        return ModelReward(model, adapter=adapter, normalised=normalised, unfinished=identity["unfinished"])
    classifier = TorchClassifier(model, adapter=adapter, cut_tokens=weights["cut_tokens"])
    return ClassifierReward(classifier, **{name: identity[name] for name in ("label", "minus", "with_prompt")})


def rebuilt_feedback(identity: Any, rebuild: Callable[[str, Any], Any]) -> DirectFeedback:
    """A judge that grades: one wording for each principle, all of them asked of one model, which is opened once."""
    opened: dict[str, Any] = {}
    judges = []
    for one in identity["judges"]:
        kind = "scorer" if "scorer" in one else "completer"
        if (key := digest_value(one[kind])) not in opened:
            opened[key] = rebuild(kind, one[kind])
        said: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in one["wording"].items()}
        more = {"max_tokens": one["max_tokens"]} if "max_tokens" in one else {}
        judges.append(ModelJudge(**{kind: opened[key]}, wording=Wording(**said), **more))
    return DirectFeedback(*judges, scale=identity["scale"])
