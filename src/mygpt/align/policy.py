"""The model that is aligned, and the frozen one that it is held to.

    policy_blueprint(model, config)                     the same before any weight is loaded: its module is on the meta device
    policy = open_policy(model, config, run=run)        `policy.module` has exactly what is trained requiring gradients
    with policy.reference() as frozen: ...              for log-probabilities of where it began; no gradients

With an adapter the reference is the base with the adapter switched off: no second copy. Where the model's own weights are trained, or
another reference was named, it is a copy of its own. A reference that is not the model itself must be an ancestor of it: a KL to
anything else means nothing.

Source  one copy for policy and reference: von Werra et al. 2020, TRL; Santacroce et al. 2023, arXiv:2309.00754 (Hydra-RLHF)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from mygpt.artifacts.lineage import FamilyTree, why
from mygpt.artifacts.model import Model
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.lm.adapters import methods
from mygpt.lm.chat import ChatRenderer
from mygpt.lm.load import Loaded, blueprint, load_lm, load_tokenizer
from mygpt.lm.virtual_tokens import num_virtual_tokens
from mygpt.training.recompute import recompute_layers
from mygpt.training.tuning import TuningConfig, dtype_of


@dataclass(frozen=True)
class Policy:
    loaded: Loaded
    module: Any  # with what is trained attached; eval mode: no dropout
    renderer: ChatRenderer
    copy: Any | None  # of the reference, where it has to be one of its own

    @property
    def device(self) -> torch.device:
        return self.loaded.device

    @property
    def padding_id(self) -> int:
        return int(self.loaded.tokenizer.pad_token_id or 0)

    @property
    def context_tokens(self) -> int | None:
        """The model's window, without an adapter's virtual tokens."""
        window = getattr(self.module.config.get_text_config(), "max_position_embeddings", None)
        return window and int(window) - num_virtual_tokens(self.module)

    @contextmanager
    def reference(self) -> Iterator[Any]:
        """The frozen module, without gradients."""
        with torch.no_grad():
            if self.copy is not None:
                yield self.copy
            else:
                with methods.switched_off(self.module):
                    yield self.module


def open_policy(model: Model, config: TuningConfig, *, reference: Model | None = None, with_reference: bool = True, run: Run) -> Policy:
    """`reference`: what to be held to; without, `model` as it is. Raises Refused for one that `model` does not come from, and for a model
    without a chat template."""
    if reference is not None:
        require_ancestor(reference, of=model)
    loaded = load_lm(model, dtype=dtype_of(config), weights=methods.base_weights(config.method))
    renderer = ChatRenderer(loaded.tokenizer)
    another = reference is not None and reference.digest != model.digest
    copy = None
    if with_reference and is_copied(model, config, reference):
        copy = load_lm(reference or model, dtype=dtype_of(config)).module.requires_grad_(False)
        run.note(f"The reference is a copy of its own ({(reference or model).id}): {'another model' if another else 'all weights move'}.")
    torch.manual_seed(run.seed_for("policy"))
    return Policy(loaded, _attached(loaded.module, config, loaded.tokenizer), renderer, copy)


def policy_blueprint(model: Model, config: TuningConfig) -> Policy:
    """Raises Refused for a model without a chat template."""
    tokenizer = load_tokenizer(model)
    with torch.device("meta"):
        module = _attached(blueprint(model, dtype_of(config)), config, tokenizer)
    return Policy(Loaded(module, tokenizer, model), module, ChatRenderer(tokenizer), None)


def _attached(module: Any, config: TuningConfig, tokenizer: Any) -> Any:
    policy = methods.attach(module, config.method, tokenizer=tokenizer).eval()
    return recompute_layers(policy) if config.recompute else policy


def is_copied(model: Model, config: TuningConfig, reference: Model | None) -> bool:
    """Whether the reference stands in memory beside the policy."""
    return methods.makes_a_model(config.method) or (reference is not None and reference.digest != model.digest)


def copy_bytes(model: Model, config: TuningConfig, reference: Model | None) -> int:
    """Of the reference, where it has to be one of its own."""
    if not is_copied(model, config, reference):
        return 0
    return sum(p.numel() * p.element_size() for p in blueprint(reference or model, dtype_of(config)).parameters())


def require_ancestor(reference: Model, *, of: Model) -> None:
    """Raises Refused, with the family tree, when `of` was not made from `reference`."""
    tree = why(of.store, of.manifest)
    if reference.digest in _digests(tree):
        return
    lineage = "\n".join(tree.lines())
    raise Refused(
        f"{reference.id} is not what {of.id} comes from, so staying near it means nothing. The policy's lineage:\n{lineage}",
        fix="Leave out `--reference` (the policy's own beginning is then the reference), or name one of the models above.",
    )


def _digests(tree: FamilyTree) -> set[str]:
    return {tree.digest}.union(*(_digests(child) for child in tree.children))
