"""A recipe called from the command line, its options derived from its signature.

    an artefact                     --dataset NAME[:TAG] or digest
    a path                          --sources DIR; one file of a data set on the hub as hub:OWNER/NAME[@REVISION]/FILE
    a completer, scorer, embedder   --completer MODEL[+ADAPTER]; a completer or scorer also as an OpenAI-compatible address
    a reward                        --reward MODEL[+ADAPTER]; a classifier's label, a judge: see `rewards`
    several of one                  the option, repeated
    settings                        --set key=value
"""

import difflib
import inspect
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from mygpt.artifacts.artifact import Artifact
from mygpt.artifacts.corpus import Corpus
from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.kinds import KINDS
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import config_type, recipe_function
from mygpt.artifacts.report import Predictions
from mygpt.artifacts.store import Store
from mygpt.artifacts.task import Task
from mygpt.catalog import Technique
from mygpt.cli.foresee import foresee
from mygpt.cli.options import home_of, progress_view, show
from mygpt.cli.rewards import open_reward
from mygpt.core.config import Config, choices, parse_settings, resolve
from mygpt.core.errors import UsageError
from mygpt.core.outbound import require_sharing
from mygpt.core.run import Alone, Run

_COMMON = ("home", "name", "seed", "set", "usd_per_hour")
_FLAGS = ("json", "dry-run", "offline", "fresh", "resume", "share-documents", "help")
_PROTOCOLS = ("Completer", "Scorer", "Embedder", "Judge", "Supporter", "Distributions", "Entailer", "Reward")
_ANYWHERE = ("Completer", "Scorer", "Judge")  # may be an address
_FOUND_HERE = "Tesseract"  # a program of this machine: looked for, not named


@dataclass(frozen=True)
class Argument:
    """One input of a recipe, as its type hint says."""

    name: str
    kinds: tuple[type[Artifact], ...]  # artefacts it may be
    is_path: bool
    protocol: str  # "Completer", ..., or "" for no tool
    several: bool
    optional: bool

    @property
    def option(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def is_data(self) -> bool:
        return self.is_path or any(kind not in (Model, Adapter) for kind in self.kinds)


def call_recipe(technique: Technique, arguments: list[str]) -> None:
    function = recipe_function(technique.path)
    inputs = recipe_inputs(function)
    if "--help" in arguments or "-h" in arguments:
        show(None, as_json=False, picture=lambda: help_text(technique, function, inputs))
        return
    given, flags = parse(arguments, known=(*_COMMON, *inputs))
    command = f"mygpt {technique.stage} {technique.name}"
    check(given, inputs, command=command)
    if "resume" in flags and "checkpoint_seconds" not in config_type(function).model_fields:
        raise UsageError(f"`{command}` does not train, so it has no checkpoint to resume.", fix="Leave out `--resume`.")
    home = home_of(Path(given["home"][0]) if "home" in given else None, offline="offline" in flags)
    config = resolve(config_type(function), parse_settings(given.get("set", [])))
    seed = _whole_number(given.get("seed", ["0"])[0])
    usd_per_hour = _rate(given.get("usd_per_hour", [None])[0])
    store = Store(home)
    described = {n: [_described(store, inputs[n], v) for v in given[n]] for n in inputs if n in given}
    name = given["name"][0] if "name" in given else default_name(store, inputs, given) or technique.name
    if "dry-run" in flags:
        foreseen = foresee(technique.path, config, store, {a: (inputs[a].kinds, v[0]) for a, v in given.items() if a in inputs})
        about = {"recipe": technique.path, "config": config.model_dump(mode="json"), "inputs": described, "name": name}
        show({**about, **({"forecast": foreseen} if foreseen else {})}, as_json=True)
        return
    asked: dict[str, Any] = {"fresh": "fresh" in flags, "resume": "resume" in flags, "usd_per_hour": usd_per_hour}
    with (
        _ranks(function, command) as ranks,
        nullcontext() if ranks.rank else store.exclusive(command),
        Run(home, name=name, seed=seed, listeners=(progress_view(),), ranks=ranks, **asked) as run,
        run.step(technique.name),
    ):
        if ranks.rank:
            ranks.wait()  # for the first rank, which may have to fetch something
        opened = open_inputs(store, run.alone(), inputs, given, share_documents="share-documents" in flags)
        if not ranks.rank:
            ranks.wait()
        made = function(config, **opened, **_found_here(function), run=run)
    if ranks.rank:
        return
    shown = {"id": made.id, "digest": made.digest, "facts": made.manifest.facts, "cost": made.manifest.cost}
    said = made.manifest.facts.get("sentences", ())  # what a report has to say, in words
    show(shown, as_json="json" in flags, picture=lambda: "\n".join([*said, f"Made {made.id}"]))


@contextmanager
def _ranks(function: Any, command: str) -> Iterator[Any]:
    """The processes that torchrun started, for a recipe that shares its work among them."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield Alone()
        return
    if not getattr(function, "on_ranks", False):
        what = f"`{command}` runs in one process, and torchrun started {os.environ['WORLD_SIZE']}."
        raise UsageError(what, fix="Start it without torchrun.")
    from mygpt.training.distributed import joined_ranks

    with joined_ranks() as ranks:
        yield ranks


def recipe_inputs(function: Any) -> dict[str, Argument]:
    """What the command line can give to this recipe, by name."""
    found = {}
    for name, (hint, optional) in _signature(function).items():
        parts = _parts(hint)
        kinds = tuple(part for part in parts if part in KINDS.values())
        protocol = next((p for p in _PROTOCOLS for part in parts if getattr(part, "__name__", "").endswith(p)), "")
        several = any(get_origin(part) is tuple for part in (hint, *get_args(hint)))
        if kinds or Path in parts or protocol:
            found[name] = Argument(name, kinds, Path in parts, protocol, several, optional)
    return found


def parse(arguments: list[str], *, known: tuple[str, ...]) -> tuple[dict[str, list[str]], set[str]]:
    """Values by option name, and flags. Raises UsageError with the nearest option."""
    given: dict[str, list[str]] = {}
    flags: set[str] = set()
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.removeprefix("--").partition("=")
        name = option.replace("-", "_")
        if not word.startswith("--"):
            raise UsageError(f"`{word}` has no option before it.", fix="Every value follows its option; `--help` shows them.")
        if option in _FLAGS and not equals:
            flags.add(option)
        elif name in known:
            if not equals and rest and not rest[0].startswith("--"):
                value = rest.pop(0)
            if not value:
                raise UsageError(f"`--{option}` needs a value.", fix="`--help` shows what it takes.")
            given.setdefault(name, []).append(value)
        elif option in _FLAGS:
            raise UsageError(f"`--{option}` takes no value.", fix=f"Write `--{option}` alone.")
        else:
            nearest = difflib.get_close_matches(option, [*(k.replace("_", "-") for k in known), *_FLAGS], n=1)
            fix = f"Did you mean `--{nearest[0]}`?" if nearest else "`--help` shows the options."
            raise UsageError(f"Unknown option `--{option}`.", fix=fix)
    return given, flags


def check(given: dict[str, list[str]], inputs: dict[str, Argument], *, command: str) -> None:
    """Raises UsageError for what is missing and for what was given too often."""
    missing = [argument.option for name, argument in inputs.items() if not argument.optional and name not in given]
    if missing:
        raise UsageError(f"`{command}` needs {', '.join(missing)}.", fix=f"See `{command} --help`.")
    for name, values in given.items():
        if len(values) > 1 and name != "set" and not (name in inputs and inputs[name].several):
            raise UsageError(f"`--{name.replace('_', '-')}` was given {len(values)} times.", fix="Give it once.")


def default_name(store: Store, inputs: dict[str, Argument], given: dict[str, list[str]]) -> str:
    """That of the data; where there is none, of the first input."""
    named = [argument for name, argument in inputs.items() if name in given]
    first = next((argument for argument in named if argument.is_data), named[0] if named else None)
    if first is None:
        return ""
    value = given[first.name][0]
    if first.is_path:
        return Path(value).resolve().name
    found = store.lookup(value) if first.is_data else None
    return found.name if found else Path(value.partition(":")[0]).name


def help_text(technique: Technique, function: Any, inputs: dict[str, Argument]) -> str:
    lines = [f"mygpt {technique.stage} {technique.name}", "", inspect.getdoc(function) or technique.paper, "", "Inputs:"]
    for argument in inputs.values():
        notes = " (optional)" * argument.optional + " (may be repeated)" * argument.several
        lines.append(f"  {argument.option:<24}{_words(argument)}{notes}")
    settings = _settings(config_type(function))
    width = max((len(name) for name, _ in settings), default=0)
    lines += ["", "Settings (--set key=value):", *(f"  {name:<{width}}  {default}" for name, default in settings)]
    lines += ["", "Also: --home DIR  --name NAME  --seed N  --json  --dry-run  --offline  --fresh (make it even if the store holds it)"]
    lines += ["      --usd-per-hour PRICE of this machine  --resume (go on from a checkpoint, or say what differs)"]
    if any(argument.protocol in _ANYWHERE for argument in inputs.values()):
        lines.append("      --share-documents (let text of your documents go to a completer that is not this machine)")
    required = " ".join(f"{a.option} {'NAME' if a.kinds else 'DIR' if a.is_path else 'MODEL'}" for a in inputs.values() if not a.optional)
    lines += ["", f"Example: mygpt {technique.stage} {technique.name} {required}"]
    lines += [f"Source:  {technique.paper}", f"Page:    {technique.page}"]
    return "\n".join(lines)


def open_inputs(
    store: Store, run: Run, inputs: dict[str, Argument], given: dict[str, list[str]], *, share_documents: bool
) -> dict[str, Any]:
    """Artefacts and paths first: how much text they hold decides whether a completer elsewhere may be asked."""
    opened: dict[str, list[Any]] = {}
    for name, argument in inputs.items():
        if name in given and argument.is_path:
            opened[name] = [_path(run, value) for value in given[name]]
        elif name in given and argument.kinds:
            opened[name] = [_artifact(store, run, argument.kinds, value) for value in given[name]]
    num_passages = sum(num_texts(artifact) for group in opened.values() for artifact in group)
    for name, argument in inputs.items():
        if name in given and argument.protocol:
            opened[name] = [_tool(store, run, argument.protocol, v, num_passages, share_documents=share_documents) for v in given[name]]
    return {name: tuple(values) if inputs[name].several else values[0] for name, values in opened.items()}


def _path(run: Run, value: str) -> Path:
    from mygpt.lm.hub import DATA_FILE, data_file

    return data_file(value, run=run) if value.startswith(DATA_FILE) else Path(value)


def _artifact(store: Store, run: Run, kinds: tuple[type[Artifact], ...], reference: str) -> Artifact:
    for kind in kinds:
        if kind is not Model and (len(kinds) == 1 or store.lookup(reference, kind=kind.kind)):
            return kind.open(store, reference)
    if Model not in kinds:
        return kinds[0].open(store, reference)
    from mygpt.lm.sources import obtain

    return obtain(reference, run=run)


def _tool(store: Store, run: Run, protocol: str, reference: str, num_passages: int, *, share_documents: bool) -> Any:
    from mygpt.evaluate.groundedness import WordSupporter
    from mygpt.infer.distributions import TorchDistributions
    from mygpt.infer.entailment import ClassifierEntailer, ScorerEntailer
    from mygpt.infer.judge import ModelJudge
    from mygpt.infer.remote import RemoteCompleter
    from mygpt.infer.remote_scorer import RemoteScorer
    from mygpt.infer.torch_embedder import TorchEmbedder
    from mygpt.infer.torch_engine import TorchEngine
    from mygpt.infer.torch_seq2seq import Seq2SeqCompleter
    from mygpt.lm.load import load_lm
    from mygpt.lm.sources import obtain

    if protocol == "Reward":
        return open_reward(store, run, reference, num_passages=num_passages, share_documents=share_documents)
    if reference.startswith(("http://", "https://")):
        if protocol not in _ANYWHERE:
            what = f"{reference} gives answers and log-probabilities only, so it cannot be the {protocol}."
            raise UsageError(what, fix="Name a model on this machine.")
        if num_passages:
            require_sharing(reference, num_passages=num_passages, allowed=share_documents)
            run.note(f"Up to {num_passages} passages of your documents go to {reference}.")
        if protocol == "Scorer":
            return RemoteScorer(reference, run=run)
        remote = RemoteCompleter(reference, run=run)
        return ModelJudge(completer=remote) if protocol == "Judge" else remote
    model, _, adapter = reference.partition("+")
    if protocol == "Embedder":
        return TorchEmbedder(obtain(model, run=run))
    if protocol == "Supporter":
        return WordSupporter(TorchEmbedder(obtain(model, run=run)))
    tuned = Adapter.open(store, adapter) if adapter else None
    if protocol == "Distributions":
        return TorchDistributions(load_lm(obtain(model, run=run), adapter=tuned))
    found = obtain(model, run=run)
    if protocol == "Entailer" and found.head == "classifier":
        return ClassifierEntailer(found)
    if protocol == "Completer" and "seq2seq_lm" in (found.head, tuned.manifest.facts.get("head") if tuned else ""):
        return Seq2SeqCompleter(found, adapter=tuned)
    engine = TorchEngine(found, adapter=tuned, run=run)
    if protocol == "Entailer":
        return ScorerEntailer(engine)
    return ModelJudge(scorer=engine) if protocol == "Judge" else engine


def num_texts(artifact: Any) -> int:
    """How many passages, rows or items of the user's text a completer that is given this may see. A file counts as one at least."""
    if isinstance(artifact, Path):
        return 1
    if isinstance(artifact, Corpus):
        return artifact.num_passages
    if isinstance(artifact, Predictions):
        return len(artifact.rows)
    if isinstance(artifact, Task):
        return len(artifact.items)
    return sum(artifact.manifest.facts.get("rows", {}).values()) if isinstance(artifact, Dataset) else 0


def _found_here(function: Any) -> dict[str, Any]:
    """Programs of this machine that the recipe can use."""
    from mygpt.data.readers.ocr import find_tesseract

    wanted = [n for n, (hint, _) in _signature(function).items() if _FOUND_HERE in [getattr(p, "__name__", "") for p in _parts(hint)]]
    return {name: find_tesseract() for name in wanted}


def _described(store: Store, argument: Argument, value: str) -> str:
    """What an input is, checked as far as nothing has to be fetched for it."""
    from mygpt.lm.hub import DATA_FILE, DataFile

    if argument.is_path and value.startswith(DATA_FILE):
        DataFile.parse(value)
        return value  # may still have to be fetched
    if argument.is_path and not Path(value).exists():
        raise UsageError(f"There is no file or folder {value}.", fix=f"Check the path after `{argument.option}`.")
    if not argument.kinds or Model in argument.kinds:
        return value  # a model may still have to be fetched
    known = next((kind for kind in argument.kinds if store.lookup(value, kind=kind.kind)), argument.kinds[0])
    return store.find(value, kind=known.kind).id


def _signature(function: Any) -> dict[str, tuple[Any, bool]]:
    """Argument name -> (type hint, may be left out)."""
    plain = inspect.unwrap(function)
    hints = get_type_hints(plain)
    parameters = inspect.signature(plain).parameters.values()
    return {p.name: (hints[p.name], p.default is not inspect.Parameter.empty) for p in parameters if p.name not in ("config", "run")}


def _parts(hint: Any) -> list[Any]:
    """The types that a union or a tuple names."""
    return [part for argument in get_args(hint) for part in _parts(argument)] if get_args(hint) else [hint]


def _settings(config: type[Config], prefix: str = "") -> list[tuple[str, str]]:
    """(name, default), those of a part under its name; of a part that is one of several, each with its own settings."""
    found: list[tuple[str, str]] = []
    for name, field in config.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if known := choices(field):
            found.append((prefix + name, f"{default.name}; one of {', '.join(known)}"))
            for choice, part in known.items():
                own = [(key, value) for key, value in _settings(part, f"{prefix}{name}.") if not key.endswith(f"{name}.name")]
                found += [(f"  {prefix}{name}={choice}", (part.__doc__ or "").partition("\n")[0])]
                found += [(f"    {key}", value) for key, value in own]
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Config):
            found += _settings(field.annotation, f"{prefix}{name}.")
        else:
            found.append((prefix + name, repr(default)))
    return found


def _words(argument: Argument) -> str:
    if argument.kinds:
        return f"{' or '.join(kind.kind for kind in argument.kinds)}: NAME[:TAG] or digest"
    if argument.is_path:
        return "file or folder, or hub:OWNER/NAME[@REVISION]/FILE"
    address = " or an OpenAI-compatible address" if argument.protocol in _ANYWHERE else ""
    if argument.protocol == "Reward":
        return "reward: MODEL[+ADAPTER][@LABEL of a classifier], or judge:MODEL[+ADAPTER][@CONSTITUTION], its MODEL an address too"
    return f"{argument.protocol.lower()}: MODEL[+ADAPTER]{address}"


def _rate(text: str | None) -> float | None:
    try:
        rate = None if text is None else float(text)
    except ValueError:
        rate = -1.0
    if rate is not None and not 0 <= rate < math.inf:
        raise UsageError(f"`--usd-per-hour {text}` is not a price.", fix="For example: `--usd-per-hour 2.50`.")
    return rate


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise UsageError(f"`--seed {text}` is not a whole number.", fix="For example: `--seed 1`.") from error
