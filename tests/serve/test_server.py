"""Where it listens, and where it refuses to."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from mygpt.core.errors import MygptError, Refused, UsageError
from mygpt.infer.scripted import ScriptedCompleter
from mygpt.serve.server import address_of, listen, serve
from tests.serve.live_site import app_of


def app(tmp_path, **settings):
    return app_of(ScriptedCompleter(lambda c: "x"), home=tmp_path, **settings)


@pytest.fixture
def no_binding(monkeypatch):
    """The refusals come before any socket is made."""
    monkeypatch.setattr("mygpt.serve.server.listen", lambda host, port: pytest.fail(f"bound {host}"))


def test_a_port_in_use_is_named_and_a_free_one_offered(tmp_path):
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MygptError, match=f"Port {port} on 127.0.0.1 is in use") as refused:
            serve(app(tmp_path), port=port)
        offered = int(refused.value.fix.split("`--port ")[1].split("`")[0])
        assert refused.value.exit_code == 1 and offered != port
        with listen("127.0.0.1", offered) as free:
            assert address_of(free) == f"http://127.0.0.1:{offered}"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "myserver.lan", "", "127.0.0.1.evil.example"])
def test_other_machines_are_refused_without_a_key(tmp_path, no_binding, host):
    with pytest.raises(Refused, match="without a key") as refused:
        serve(app(tmp_path), host=host)
    assert refused.value.exit_code == 3 and "--api-key" in refused.value.fix


def test_a_key_alone_is_not_enough_where_no_name_is_allowed(tmp_path, no_binding):
    with pytest.raises(UsageError, match="no name is allowed"):
        serve(app(tmp_path, api_key="k" * 16), host="0.0.0.0")


@pytest.mark.parametrize("key", ["", "k" * 15, "k k" * 8, "ä" * 20])
def test_weak_keys_are_refused(tmp_path, key):
    with pytest.raises(UsageError, match="at least 16"):
        app(tmp_path, api_key=key)


def test_with_key_and_name_it_would_listen(tmp_path, monkeypatch):
    class Enough(Exception):
        pass

    def refuse(host, port):
        raise Enough(host)

    monkeypatch.setattr("mygpt.serve.server.listen", refuse)
    with pytest.raises(Enough, match=r"0\.0\.0\.0"):
        serve(app(tmp_path, api_key="k" * 16, allowed_hosts=("myserver.lan",)), host="0.0.0.0")


def test_impossible_ports_and_addresses():
    with pytest.raises(UsageError, match="no port 70000"):
        listen("127.0.0.1", 70000)
    with pytest.raises(MygptError, match=r"Cannot listen on 203\.0\.113\.7"):  # TEST-NET-3: on no machine, so that nothing is bound
        listen("203.0.113.7", 8080)


def test_localhost_is_this_machine_whatever_a_name_server_says(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: pytest.fail("a name was looked up"))
    with listen("localhost", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_fastapi_reports_to_nobody(site_of, monkeypatch, caplog):
    """FastAPI exports requests and exceptions to a collector where the environment says so; ours does not."""
    with listen("127.0.0.1", 0) as collector:
        collector.settimeout(0.2)
        monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address_of(collector))
        site = site_of(ScriptedCompleter(lambda c: "x"))
        assert site.request("GET", "/health")[0] == 200
        with pytest.raises(TimeoutError):
            collector.accept()
    assert "telemetry" not in caplog.text  # without the exporters installed FastAPI would warn that it cannot


SCRIPT = """
import sys
from pathlib import Path
from mygpt.infer.scripted import ScriptedCompleter
from mygpt.serve.api import create_app
from mygpt.serve.served import Served
from mygpt.serve.server import serve
models = [Served("handbook", ScriptedCompleter(lambda c: "x"), 100, lambda c: 1)]
app = create_app(models, source_passage=lambda d, s, e: None, home=Path(sys.argv[1]), title="T")
serve(app, port=0, on_ready=lambda address: print(address, flush=True))
print("stopped in order", sorted(name for name in sys.modules if name in ("torch", "transformers", "mygpt.rag", "mygpt.lm")))
"""


def test_ctrl_c_stops_it_in_order_and_torch_is_never_imported(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{address}/health", timeout=10) as response:  # accepted from the moment it is printed
            assert response.status == 200
        started = time.monotonic()
        os.kill(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=10)
        assert (process.returncode, rest) == (0, "stopped in order []\n") and time.monotonic() - started < 8
    finally:
        process.kill()
