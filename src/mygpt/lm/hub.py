"""A model, or one file of a data set, from the model hub, pinned to the commit it had when it was fetched.

This module connects, through huggingface_hub.
"""

import difflib
import fcntl
import os
import re
import shutil
import threading
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.digest import digest_file
from mygpt.core.errors import Damaged, Unreachable, UsageError, from_os_error
from mygpt.core.home import model_cache
from mygpt.core.outbound import require_online, silence_hub
from mygpt.core.run import Run
from mygpt.lm.checkpoint import copy_checkpoint, facts_of, require_safe_weights, wanted_files
from mygpt.lm.package_index import downloads, watched

PROBE_SECONDS = 3.0
DATA_FILE = "hub:"  # what a reference to a file of a data set begins with
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[\w.-]+")


class HubConfig(Config):
    name: str  # of the Model
    repository: str  # "owner/name"
    commit: str


@recipe
def from_hub(config: HubConfig, *, run: Run) -> Model:
    """The safetensors, tokenizer, configuration and template of one commit; an interrupted download goes on where it stopped."""
    require_online(f"Fetching {config.repository}")
    silence_hub()
    from huggingface_hub import HfApi

    info = _asked(config.repository, lambda: HfApi().model_info(config.repository, revision=config.commit, files_metadata=True))
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    digests = {file.rfilename: file.lfs.sha256 for file in info.siblings or [] if file.lfs}
    require_safe_weights(sizes, where=f"The hub's {config.repository}")
    names = wanted_files(sizes)
    partial = downloads() / f"hub-{config.repository.replace('/', '--')}-{config.commit[:12]}"
    with watched(partial, sum(sizes[name] for name in names), run=run):
        for name in names:
            _fetch(config, name, partial / name, num_bytes=sizes[name] or None, sha256=digests.get(name))
    provenance = {"source": "model hub", "repository": config.repository, "commit": config.commit, "licence": _licence(info)}
    facts: dict[str, Any] = {}

    def write(folder: Path) -> None:
        copy_checkpoint(partial, folder, names)
        facts.update(facts_of(folder), source="model hub")

    model = publish(Model, run, write, facts=facts, provenance=provenance, name=config.name)
    shutil.rmtree(partial, ignore_errors=True)
    return model


def _fetch(config: HubConfig, name: str, target: Path, *, num_bytes: int | None, sha256: str | None) -> None:
    """One file into `target`. What came before a kill lies in `target.partial`, and only the rest is asked for.

    We differ: the hub's own `snapshot_download` (2.4) begins a file anew in every process.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    url, arriving = hf_hub_url(config.repository, name, revision=config.commit), target.with_name(f"{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(arriving, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # against a second process that fetches the same
            if target.exists():
                return
            there = file.tell()
            _asked(
                config.repository, lambda: http_get(url, file, resume_size=there, headers=build_hf_headers(), expected_size=num_bytes)
            )
            file.flush()
            if sha256 and digest_file(arriving) != sha256:
                arriving.unlink()
                raise Damaged(
                    f"The hub gave {name} of {config.repository} with another SHA-256 than it lists ({sha256}). It was not used.",
                    fix="Run the same command again.",
                )
            os.replace(arriving, target)
    except OSError as error:
        raise from_os_error(error) from error


@dataclass(frozen=True)
class DataFile:
    """`hub:OWNER/NAME[@REVISION]/PATH`; a slash in a revision is written `%2F`."""

    repository: str
    revision: str | None  # a branch, a tag or a commit; None: the default branch
    path: str

    @classmethod
    def parse(cls, reference: str) -> "DataFile":
        owner, _, rest = reference.removeprefix(DATA_FILE).partition("/")
        called, _, path = rest.partition("/")
        name, _, revision = called.partition("@")
        parts = path.split("/")
        if not (_NAME.fullmatch(owner) and _NAME.fullmatch(name) and all(parts)) or {".", ".."} & {owner, name, *parts}:
            fix = "Write `hub:OWNER/NAME/PATH` or `hub:OWNER/NAME@REVISION/PATH`, `hub:openai/gsm8k/main/test-00000-of-00001.parquet` say."
            raise UsageError(f"`{reference}` names no file of a data set.", fix=fix)
        return cls(f"{owner}/{name}", urllib.parse.unquote(revision) or None, path)


def data_file(reference: str, *, run: Run) -> Path:
    """The file itself, in the user's cache under its repository and commit: whatever is made from it records both with its path.

    A file that is named by its whole commit and lies there needs no connection.
    """
    wanted = DataFile.parse(reference)
    kept = model_cache() / "data" / wanted.repository.replace("/", "--")
    if wanted.revision and _COMMIT.fullmatch(wanted.revision) and (file := kept / wanted.revision / wanted.path).is_file():
        return file
    require_online(f"Fetching {reference}")
    if not answers(wanted.repository, kind="datasets"):
        raise Unreachable(
            f"The hub gave no answer about {wanted.repository} within {PROBE_SECONDS:.0f} seconds.",
            fix="Fetch the file in another way and name it where it lies.",
        )
    silence_hub()
    from huggingface_hub import HfApi, hf_hub_download

    def ask() -> Any:
        return HfApi().dataset_info(wanted.repository, revision=wanted.revision, files_metadata=True)

    info = _asked(wanted.repository, ask, what="data set")
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    if wanted.path not in sizes:
        nearest = difflib.get_close_matches(wanted.path, sizes, n=3) or sorted(sizes)[:5]
        fix = f"It has: {', '.join(f'`{name}`' for name in nearest) or 'nothing'}."
        raise UsageError(f"The data set {wanted.repository} has no file `{wanted.path}` at {wanted.revision or 'its newest'}.", fix=fix)
    commit = str(info.sha)
    file = kept / commit / wanted.path
    if not file.is_file():
        partial = downloads() / f"data-{wanted.repository.replace('/', '--')}-{commit[:12]}"
        with watched(partial, sizes[wanted.path], run=run):
            got = _asked(
                wanted.repository,
                lambda: hf_hub_download(wanted.repository, wanted.path, repo_type="dataset", revision=commit, local_dir=partial),
                what="data set",
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        os.replace(got, file)
        shutil.rmtree(partial, ignore_errors=True)
    run.note(f"Data {wanted.repository}/{wanted.path} at commit {commit[:12]} (licence {_licence(info)}).")
    return file


def answers(repository: str, *, kind: str = "models") -> bool:
    """One question to the hub, without retries, at most PROBE_SECONDS in all (looking up its name included)."""
    silence_hub()
    from huggingface_hub import constants

    url = f"{constants.ENDPOINT}/api/{kind}/{repository}"
    answered = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS):
                answered.append(True)
        except urllib.error.HTTPError as error:
            answered.append(error.code in (401, 404, 429))  # the hub itself says so; a proxy that blocks says 403, 407 or 5xx
        except (OSError, ValueError):
            return

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PROBE_SECONDS)
    return bool(answered and answered[0])


def commit_of(repository: str, revision: str | None) -> str:
    silence_hub()
    from huggingface_hub import HfApi

    info = _asked(repository, lambda: HfApi().model_info(repository, revision=revision))
    return str(info.sha)


def _asked(repository: str, ask: Any, *, what: str = "model") -> Any:
    """The hub's answer, with its refusals in our words."""
    from huggingface_hub import errors

    transport_error: type[Exception] = errors.HfHubHTTPError.__bases__[0]  # of httpx or its successor, whichever this release uses
    try:
        return ask()
    except errors.GatedRepoError as error:
        raise UsageError(
            f"The hub gives {repository} only to people who accepted its terms.",
            fix="Accept them on its page and log in with `hf auth login`.",
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise UsageError(
            f"The hub has no {what} `{repository}` that you may read.",
            fix="Check owner, name and revision, or log in with `hf auth login`.",
        ) from error
    except (transport_error, OSError, RuntimeError) as error:  # RuntimeError: the hub's accelerated transfer (hf_xet)
        raise Unreachable(
            f"The hub stopped answering for {repository}: {type(error).__name__}.",
            fix="Run the same command again: it goes on where it stopped.",
        ) from error


def _licence(info: Any) -> str:
    card = info.card_data
    return str((card.get("license") if card else None) or "not stated")
