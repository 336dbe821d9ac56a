"""A model from the model hub, pinned to the commit it had when it was fetched. This module connects, through huggingface_hub."""

import fcntl
import os
import shutil
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.digest import digest_file
from mygpt.core.errors import Damaged, Unreachable, UsageError, from_os_error
from mygpt.core.outbound import require_online, silence_hub
from mygpt.core.run import Run
from mygpt.lm.checkpoint import copy_checkpoint, facts_of, require_safe_weights, wanted_files
from mygpt.lm.package_index import downloads, watched

PROBE_SECONDS = 3.0


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


def answers(repository: str) -> bool:
    """One question to the hub, without retries, at most PROBE_SECONDS in all (looking up its name included)."""
    silence_hub()
    from huggingface_hub import constants

    url = f"{constants.ENDPOINT}/api/models/{repository}"
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


def _asked(repository: str, ask: Any) -> Any:
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
            f"The hub has no model `{repository}` that you may read.", fix="Check owner, name and revision, or log in with `hf auth login`."
        ) from error
    except (transport_error, OSError, RuntimeError) as error:  # RuntimeError: the hub's accelerated transfer (hf_xet)
        raise Unreachable(
            f"The hub stopped answering for {repository}: {type(error).__name__}.",
            fix="Run the same command again: it goes on where it stopped.",
        ) from error


def _licence(info: Any) -> str:
    card = info.card_data
    return str((card.get("license") if card else None) or "not stated")
