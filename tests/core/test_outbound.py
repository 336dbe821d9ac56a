"""Which addresses are this machine, and what is refused before anything leaves it."""

import pytest

from mygpt.core import outbound
from mygpt.core.errors import Refused, Unreachable


@pytest.mark.parametrize(
    "address",
    [
        "http://localhost:8000/v1",
        "https://LOCALHOST",
        "localhost:11434",
        "localhost",
        "http://127.0.0.1:8000",
        "127.0.0.1",
        "127.9.9.9:80",
        "http://[::1]:8000/v1",
        "http://user:secret@localhost:8000",
    ],
)
def test_this_machine(address: str) -> None:
    assert outbound.is_this_machine(address)


@pytest.mark.parametrize(
    "address",
    [
        "https://api.example.org/v1",
        "http://192.168.1.5:8000",
        "http://0.0.0.0:8000",
        "http://localhost.example.org",
        "http://127.0.0.1.example.org",
        "http://localhost@example.org",
        "http://example.org#@localhost",
        "http://example.org/http://localhost",
        "http://example.org?localhost",
        "http://example.org\\@localhost",
        "http://example.org \n@localhost",
        "http://2130706433",
        "http://[::1",
        "my-laptop",
        "",
    ],
)
def test_not_this_machine(address: str) -> None:
    """A name is not resolved: what it means could change between the check and the connection."""
    assert not outbound.is_this_machine(address)


def test_documents_leave_only_when_allowed() -> None:
    outbound.require_sharing("http://localhost:8000", num_passages=12, allowed=False)
    outbound.require_sharing("https://api.example.org", num_passages=12, allowed=True)
    with pytest.raises(Refused) as refused:
        outbound.require_sharing("https://api.example.org", num_passages=12, allowed=False)
    assert "12 passages of your documents to https://api.example.org" in refused.value.what
    assert "--share-documents" in refused.value.fix and refused.value.exit_code == 3


def test_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MYGPT_OFFLINE", raising=False)
    outbound.require_online("Fetching a model")
    monkeypatch.setenv("MYGPT_OFFLINE", "0")
    assert not outbound.is_offline()
    outbound.go_offline()
    with pytest.raises(Unreachable, match="Fetching a model needs a connection, and `--offline` is on"):
        outbound.require_online("Fetching a model")


def test_the_hub_is_silenced_whatever_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("MYGPT_OFFLINE", "1")
    outbound.silence_hub()
    import os

    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1" and os.environ["HF_HUB_OFFLINE"] == "1"
