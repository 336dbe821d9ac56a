"""Who may open a connection. No other module does; `--offline` closes all of these.

A dependency that reports to its makers is silenced where it is imported: call `silence_hub` first, import it after, inside the function.
"""

import ipaddress
import logging
import os
import sys
from urllib.parse import urlsplit

from mygpt.core.errors import Refused, Unreachable

MODULES_THAT_CONNECT = {
    "mygpt.lm.hub": "the model hub, only when a model, or a data file named as `hub:...`, is not at hand",
    "mygpt.lm.package_index": "the package index, through pip, only when a model is not at hand",
    "mygpt.infer.remote": "the address of a completer or scorer that the user named",
    "mygpt.training.distributed": "the other ranks of one training, where torchrun says",
    "mygpt.serve.server": "listens; 127.0.0.1 unless told otherwise",
}


def is_offline() -> bool:
    return os.environ.get("MYGPT_OFFLINE", "") not in ("", "0")


def go_offline() -> None:
    """Close every outbound module for this process and its children (`--offline`)."""
    os.environ["MYGPT_OFFLINE"] = "1"


def require_online(what: str) -> None:
    if is_offline():
        fix = "Run once without `--offline`, or name a local folder or file."
        raise Unreachable(f"{what} needs a connection, and `--offline` is on.", fix=fix)


def is_this_machine(address: str) -> bool:
    """True for loopback URLs. A name is not resolved: only `localhost` and literal loopback addresses count."""
    if any(c == "\\" or c.isspace() or not c.isprintable() for c in address):
        return False  # programs do not agree on which host such an address names
    try:
        host = urlsplit(address if "//" in address else f"//{address}").hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_sharing(address: str, *, num_passages: int, allowed: bool) -> None:
    """Private text leaves this machine only after the user said so."""
    if is_this_machine(address) or allowed:
        return
    raise Refused(
        f"This would send {num_passages} passages of your documents to {address}, which is not this machine.",
        fix="Add `--share-documents` if you want that, or name a model on this machine.",
    )


def silence_hub() -> None:
    """Call before importing huggingface_hub or transformers."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]  # through it bitsandbytes would fetch code from the hub on import
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # and would say that it could not
    if is_offline():
        os.environ["HF_HUB_OFFLINE"] = "1"
