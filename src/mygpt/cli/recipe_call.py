"""A recipe called from the command line, its options derived from its signature.

    artefact        --dataset NAME[:TAG]          several: repeat the option
    path            --sources DIR
    completer, scorer, embedder    --completer MODEL[+ADAPTER] or an OpenAI-compatible address
    settings        --set key=value
"""

import difflib
import inspect
import types
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from mygpt.artifacts.artifact import Artifact
from mygpt.artifacts.kinds import KINDS
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import config_type, recipe_function
from mygpt.artifacts.store import Store
from mygpt.catalog import Technique
from mygpt.cli.options import home_of, progress_view, show
from mygpt.core.config import Config, parse_settings, resolve
from mygpt.core.errors import UsageError
from mygpt.core.run import Run

_COMMON = ("home", "name", "seed", "set")
_FLAGS = ("json", "dry-run", "offline", "fresh", "help")


def call_recipe(technique: Technique, arguments: list[str]) -> None:
    function = recipe_function(technique.path)
    inputs = recipe_inputs(function)
    if "--help" in arguments or "-h" in arguments:
        show(None, as_json=False, picture=lambda: help_text(technique, function, inputs))
        return
    given, flags = parse(arguments, known=(*_COMMON, *inputs))
    home = home_of(Path(given["home"][0]) if "home" in given else None, offline="offline" in flags)
    config = resolve(config_type(function), parse_settings(given.get("set", [])))
    missing = [name for name, (_, optional) in inputs.items() if not optional and name not in given]
    if missing:
        raise UsageError(f"`mygpt {technique.stage} {technique.name}` needs {', '.join(f'--{m}' for m in missing)}.", fix="`--help` shows the options.")
    store = Store(home)
    name = given.get("name", [given[next(iter(inputs))][0].partition(":")[0].rpartition("/")[2]])[0]
    if "dry-run" in flags:
        resolved = {n: [_described(store, inputs[n][0], v) for v in given[n]] for n in inputs if n in given}
        show({"recipe": technique.path, "config": config.model_dump(mode="json"), "inputs": resolved, "name": name}, as_json=True)
        return
    with store.exclusive(f"mygpt {technique.stage} {technique.name}"):
        seed = int(given.get("seed", ["0"])[0])
        run = Run(home, name=name, seed=seed, listeners=(progress_view(),), fresh="fresh" in flags)
        try:
            with run.step(technique.name):
                opened = {n: _opened(store, run, hint, given[n]) for n, (hint, _) in inputs.items() if n in given}
                made = function(config, **opened, run=run)
        finally:
            run.close()
    shown = {"id": made.id, "digest": made.digest, "facts": made.manifest.facts, "cost": made.manifest.cost}
    show(shown, as_json="json" in flags, picture=lambda: f"Made {made.id}")


def recipe_inputs(function: Any) -> dict[str, tuple[Any, bool]]:
    """Argument name -> (type hint, may be left out)."""
    plain = inspect.unwrap(function)
    hints = get_type_hints(plain)
    parameters = inspect.signature(plain).parameters.values()
    return {p.name: (hints[p.name], p.default is not inspect.Parameter.empty) for p in parameters if p.name not in ("config", "run")}


def parse(arguments: list[str], *, known: tuple[str, ...]) -> tuple[dict[str, list[str]], set[str]]:
    given: dict[str, list[str]] = {}
    flags: set[str] = set()
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_") if name.replace("-", "_") in known else name
        if word.startswith("--") and name in _FLAGS:
            flags.add(name)
        elif word.startswith("--") and name in known and (equals or rest):
            given.setdefault(name, []).append(value if equals else rest.pop(0))
        else:
            nearest = difflib.get_close_matches(name, [*known, *_FLAGS], n=1)
            raise UsageError(f"Unknown option `{word}`.", fix=f"Did you mean `--{nearest[0]}`?" if nearest else "`--help` shows the options.")
    return given, flags


def help_text(technique: Technique, function: Any, inputs: dict[str, tuple[Any, bool]]) -> str:
    lines = [f"mygpt {technique.stage} {technique.name}", "", inspect.getdoc(function) or technique.paper, "", "Inputs:"]
    lines += [f"  --{name.replace('_', '-'):<22}{_words(hint)}{' (optional)' if optional else ''}" for name, (hint, optional) in inputs.items()]
    lines += ["", "Settings (--set key=value):", *_settings_lines(config_type(function))]
    lines += ["", "Also: --home DIR  --name NAME  --seed N  --json  --dry-run  --offline  --fresh (make it even if the store holds it)"]
    required = " ".join(f"--{n.replace('_', '-')} {'NAME' if _artifact_type(h) else 'MODEL' if not _is_path(h) else 'DIR'}" for n, (h, o) in inputs.items() if not o)
    lines += ["", f"Example: mygpt {technique.stage} {technique.name} {required}", f"Source:  {technique.paper}", f"Page:    {technique.page}"]
    return "\n".join(lines)


def _settings_lines(config: type[Config], prefix: str = "") -> list[str]:
    lines = []
    for name, field in config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Config):
            lines += _settings_lines(field.annotation, f"{prefix}{name}.")
        else:
            lines.append(f"  {prefix + name:<30}{field.default!r}")
    return lines


def _opened(store: Store, run: Run, hint: Any, values: list[str]) -> Any:
    several = any(get_origin(part) is tuple for part in (hint, *get_args(hint)))
    if kind := _artifact_type(hint):
        opened: list[Any] = [_artifact(store, run, kind, v) for v in values]
    elif _is_path(hint):
        opened = [Path(v) for v in values]
    else:
        opened = [_tool(store, run, v, embedder="Embedder" in str(hint)) for v in values]
    return tuple(opened) if several else opened[-1]


def _artifact(store: Store, run: Run, kind: type[Artifact], reference: str) -> Artifact:
    if kind is Model:
        from mygpt.lm.sources import obtain

        return obtain(reference, run=run)
    return kind.open(store, reference)


def _tool(store: Store, run: Run, reference: str, *, embedder: bool) -> Any:
    from mygpt.infer.remote import RemoteCompleter
    from mygpt.infer.torch_embedder import TorchEmbedder
    from mygpt.infer.torch_engine import TorchEngine
    from mygpt.lm.sources import obtain

    if reference.startswith(("http://", "https://")):
        return RemoteCompleter(reference, run=run)
    model, _, adapter = reference.partition("+")
    if embedder:
        return TorchEmbedder(obtain(model, run=run))
    return TorchEngine(obtain(model, run=run), adapter=Adapter.open(store, adapter) if adapter else None, run=run)


def _described(store: Store, hint: Any, value: str) -> str:
    kind = _artifact_type(hint)
    return store.find(value, kind=kind.kind).id if kind and kind is not Model else value


def _artifact_type(hint: Any) -> type[Artifact] | None:
    for part in _parts(hint):
        if isinstance(part, type) and part in KINDS.values():
            return part
    return None


def _is_path(hint: Any) -> bool:
    return Path in _parts(hint)


def _parts(hint: Any) -> list[Any]:
    if get_origin(hint) in (Union, types.UnionType, tuple):
        return [p for arg in get_args(hint) for p in _parts(arg)]
    return [hint]


def _words(hint: Any) -> str:
    kind = _artifact_type(hint)
    if kind:
        return f"{kind.kind} (NAME[:TAG] or digest)"
    return "file or folder" if _is_path(hint) else f"{getattr(hint, '__name__', 'tool').lower()} (MODEL[+ADAPTER] or address)"
