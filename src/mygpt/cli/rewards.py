"""A reward as it is named on the command line.

    NAME[+ADAPTER]                    a reward model
    NAME[+ADAPTER]@LABEL              a classifier; LABEL is wanted (@-LABEL: unwanted)
    judge:NAME[+ADAPTER]@CONSTITUTION a language model that grades by the principles of an included constitution; NAME may be an address
"""

from typing import Any

from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.store import Store
from mygpt.core.outbound import require_sharing
from mygpt.core.run import Run

_JUDGE = "judge:"
_CONSTITUTION = "harmless_and_helpful"


def open_reward(store: Store, run: Run, reference: str, *, num_passages: int, share_documents: bool) -> Any:
    """Raises UsageError for what is no reward, Refused where private text would go to another machine without leave."""
    if reference.startswith(_JUDGE):
        return _judge(store, run, reference.removeprefix(_JUDGE), num_passages=num_passages, share_documents=share_documents)
    from mygpt.align.classifier_reward import ClassifierReward
    from mygpt.align.model_reward import ModelReward
    from mygpt.infer.torch_classifier import TorchClassifier

    named, _, label = reference.partition("@")
    model, adapter = _opened(store, run, named)
    if not label:
        return ModelReward(model, adapter=adapter)
    return ClassifierReward(TorchClassifier(model, adapter=adapter), label=label.removeprefix("-"), minus=label.startswith("-"))


def _judge(store: Store, run: Run, reference: str, *, num_passages: int, share_documents: bool) -> Any:
    from mygpt.align.constitution import open_constitution
    from mygpt.align.direct_feedback import constitutional_feedback
    from mygpt.infer.remote_scorer import RemoteScorer
    from mygpt.infer.torch_engine import TorchEngine

    named, _, constitution = reference.rpartition("@") if "@" in reference else (reference, "", _CONSTITUTION)
    principles = open_constitution(constitution)
    if named.startswith(("http://", "https://")):
        require_sharing(named, num_passages=num_passages, allowed=share_documents)
        run.note(f"Prompts and sampled answers go to {named}.")
        return constitutional_feedback(principles, RemoteScorer(named, run=run))
    model, adapter = _opened(store, run, named)
    return constitutional_feedback(principles, TorchEngine(model, adapter=adapter))


def _opened(store: Store, run: Run, named: str) -> tuple[Model, Adapter | None]:
    from mygpt.lm.sources import obtain

    model, _, adapter = named.partition("+")
    return obtain(model, run=run), Adapter.open(store, adapter) if adapter else None
