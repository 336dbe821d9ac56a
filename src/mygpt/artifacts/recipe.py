"""A recipe's signature is its lineage.

    @recipe
    def sft(config: SFTConfig, *, model: Model, dataset: Dataset, run: Run) -> Adapter: ...

Arguments are artefacts, paths (sources outside the store, addressed by content), tools (anything with an `identity`), None, or
the run. From them the decorator derives the request digest; when the store already holds the answer, the function is not called.
`publish` is how a recipe hands back what it made: it fills the manifest from the same signature.
"""

import functools
import importlib
import importlib.metadata
import inspect
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import mygpt
from mygpt.artifacts.artifact import A, Artifact
from mygpt.artifacts.kinds import noun
from mygpt.artifacts.manifest import FileRecord, Input, Manifest, identity_digest, request_digest
from mygpt.artifacts.store import Store
from mygpt.core.config import Config
from mygpt.core.digest import canonical_json, digest_file, digest_value
from mygpt.core.errors import UsageError
from mygpt.core.run import Run

R = TypeVar("R", bound=Callable[..., Artifact])
_PACKAGES_RECORDED = (
    *("torch", "transformers", "tokenizers", "safetensors", "peft", "bitsandbytes", "gguf", "sentencepiece"),
    *("numpy", "pyarrow", "pydantic", "pypdfium2", "mammoth", "python-pptx", "openpyxl", "trafilatura", "py3langid"),
)
_NAME_CHARACTERS = 80  # a file name holds 255 bytes: name, dash and digest must fit


@dataclass
class Making:
    """The artefact under way: what the signature says of it, and when it began."""

    recipe: str
    config: dict[str, Any]
    inputs: dict[str, list[Input]]
    tools: dict[str, Any]
    seed: int
    request: str
    started: float = field(default_factory=time.perf_counter)


def recipe(function: R) -> R:
    """Derive lineage from the signature, and reuse what the store already holds (unless `run.fresh`)."""

    @functools.wraps(function)
    def made(*args: Any, **kwargs: Any) -> Artifact:
        config, arguments, run, making = _called(function, args, kwargs)
        store = Store(run.home)
        known = None if run.fresh else store.made(making.request, kinds=_kinds_made(function))
        if known is not None:
            artifact = noun(known, store)
            run.emit("step_cached", step=run.current_step, artifact=artifact.id)
            store.touch(known)
            return artifact
        inner = run.within(making)
        with inner.at_end:
            result: Artifact = function(config, **arguments, run=inner)
        return result

    made.is_recipe = True  # type: ignore[attr-defined]
    return made  # type: ignore[return-value]


def already_made(function: Callable[..., Artifact], *args: Any, **kwargs: Any) -> bool:
    """Whether calling this recipe so would do no work."""
    plain = inspect.unwrap(function)
    _, _, run, making = _called(plain, args, kwargs)
    return not run.fresh and Store(run.home).made(making.request, kinds=_kinds_made(plain)) is not None


def _called(function: Callable[..., Artifact], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Config, dict[str, Any], Run, Making]:
    """A call of a recipe: its config, its inputs and tools by name, its run, and what it would make."""
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    arguments = dict(bound.arguments)
    config, run = arguments.pop("config"), arguments.pop("run")
    return config, arguments, run, _making(f"{function.__module__}:{function.__name__}", config, arguments, run)


def _kinds_made(function: Callable[..., Artifact]) -> set[str]:
    """A recipe may publish more than it returns: only what it promises answers a request for it."""
    promised = get_type_hints(function)["return"]
    return {noun_type.kind for noun_type in get_args(promised) or (promised,)}


def publish(
    kind: type[A],
    run: Run,
    write: Callable[[Path], Any],
    *,
    facts: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> A:
    """Store what `write(folder)` makes, as the answer to the recipe under way. Atomic: whole or not at all.

    Facts that are known only once it is written are what `write` returns, as a mapping.
    """
    making: Making = run.making
    if making is None:
        raise AssertionError("publish() is for recipes: call it inside a function marked @recipe")
    store = Store(run.home)
    if run.ranks.rank:  # the first of several ranks publishes, the others take what it made
        run.ranks.wait()
        made = store.made(making.request, kinds={kind.kind})
        assert made is not None
        return kind(made, store)

    def describe(*, files: dict[str, FileRecord], content: str, written: Any) -> Manifest:
        seconds = time.perf_counter() - making.started
        usd = None if run.usd_per_hour is None else round(seconds / 3600 * run.usd_per_hour, 6)
        return Manifest(
            kind=kind.kind,
            name=safe_name(name or run.name),
            digest=identity_digest(kind.kind, content, making.request),
            content=content,
            request=making.request,
            files=files,
            recipe=making.recipe,
            config=making.config,
            inputs=making.inputs,
            tools=making.tools,
            seed=making.seed,
            facts={**(facts or {}), **(written if isinstance(written, Mapping) else {})},
            provenance=dict(provenance or {}),
            code=_code(),
            packages=_packages(),
            hardware=_hardware(),
            cost={"seconds": round(seconds, 3), "tokens": run.counts.get("tokens"), "kwh": None, "usd": usd},
            created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )

    manifest = store.publish(kind.kind, safe_name(name or run.name), write, describe)
    run.emit("published", artifact=manifest.id, kind=manifest.kind, name=manifest.name)
    run.ranks.wait()
    return kind(manifest, store)


def recipe_function(dotted: str) -> Callable[..., Artifact]:
    """`"mygpt.finetune.sft:sft"` -> the function. Only recipes of this package: a manifest must not name arbitrary code."""
    module, _, name = dotted.partition(":")
    if not module.startswith("mygpt."):
        raise UsageError(f"The recipe `{dotted}` is not part of mygpt.", fix="Run it from the code that defined it.")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        fix = "It was renamed or removed since: install the version named under `code` in the manifest."
        raise UsageError(f"There is no recipe `{dotted}` in mygpt {mygpt.__version__}: {error}.", fix=fix) from error
    if not getattr(function, "is_recipe", False):
        raise UsageError(f"`{dotted}` is not a recipe.", fix="The manifest that names it was not written by mygpt.")
    found: Callable[..., Artifact] = function
    return found


def config_type(function: Callable[..., Artifact]) -> type[Config]:
    return get_type_hints(inspect.unwrap(function))["config"]


def safe_name(name: str) -> str:
    """Letters, digits, `.`, `_` and `-`, so that a name is a folder and a reference everywhere."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:_NAME_CHARACTERS].rstrip("-.") or "unnamed"


def source_digest(path: Path) -> str:
    """Of one file's bytes, or of all files below a folder (names and bytes). Links out of the folder are not followed."""
    if path.is_file():
        return digest_file(path)
    if not path.is_dir():
        raise UsageError(f"There is no file or folder {path}.", fix="Check the path.")
    root = path.resolve()
    files: dict[str, str] = {}
    for folder, subfolders, names in os.walk(path, followlinks=False):
        subfolders[:] = sorted(s for s in subfolders if not s.startswith("."))
        for name in sorted(names):
            file = Path(folder) / name
            if name.startswith(".") or not file.is_file():
                continue
            if file.is_symlink() and not file.resolve().is_relative_to(root):
                files[str(file.relative_to(path))] = "link out of the folder"
                continue
            try:
                files[str(file.relative_to(path))] = digest_file(file)
            except OSError as error:
                files[str(file.relative_to(path))] = f"unreadable: {error.errno}"
    return digest_value(files)


def _making(dotted: str, config: Config, arguments: Mapping[str, Any], run: Run) -> Making:
    inputs: dict[str, list[Input]] = {}
    tools: dict[str, Any] = {}
    for name, value in arguments.items():
        group = list(value) if isinstance(value, tuple) else [value]
        if value is None:
            continue
        if all(isinstance(v, Artifact) for v in group):
            inputs[name] = [Input(kind=v.kind, name=v.name, digest=v.digest) for v in group]
        elif all(isinstance(v, Path) for v in group):
            inputs[name] = [_source(v) for v in group]
        elif all(hasattr(v, "identity") for v in group):
            tools[name] = [v.identity for v in group] if isinstance(value, tuple) else value.identity
        else:
            raise AssertionError(f"{dotted}: argument `{name}` is neither an artefact, a path, nor a tool with an identity")
    settings = config.model_dump(mode="json")
    tools = json.loads(canonical_json(tools))  # as the manifest will hold them
    return Making(dotted, settings, inputs, tools, run.seed, request_digest(dotted, settings, inputs, tools, run.seed))


def _source(path: Path) -> Input:
    readable = [os.fsencode(text).decode("utf-8", "replace") for text in (path.absolute().name, str(path.absolute()))]
    return Input(kind="source", name=readable[0], digest=source_digest(path), path=readable[1])


@functools.cache
def _code() -> dict[str, str]:
    code = {"mygpt": mygpt.__version__}
    repository = Path(mygpt.__file__).parents[2]
    if (repository / ".git").exists():
        describe = ["git", "-C", str(repository), "describe", "--always", "--dirty", "--abbrev=12"]
        try:
            commit = subprocess.run(describe, capture_output=True, text=True)
        except OSError:  # no git here
            return code
        if commit.returncode == 0:
            code["commit"] = commit.stdout.strip()
    return code


@functools.cache
def _packages() -> dict[str, str]:
    found = {}
    for package in _PACKAGES_RECORDED:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def _hardware() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    found = {"processor": model, "cores": os.cpu_count(), "memory_bytes": memory, "system": platform.system()}
    return {**found, "python": platform.python_version(), "accelerators": _accelerators()}


def _accelerators() -> list[str]:
    """NVIDIA devices by the driver's own list, so that no import of torch is needed."""
    lines = [line for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")) for line in file.read_text().splitlines()]
    return [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
