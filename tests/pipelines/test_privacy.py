"""Nothing leaves the machine: a whole `up` under an audit hook on sockets, and once more with the network cut."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines.conftest import QUICK, SmallUp

_WATCHED = """
import sys
attempts = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendmsg"):
        attempts.append((event, [str(a) for a in arguments[-2:]]))
sys.addaudithook(watch)
from mygpt.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    code = ended.code or 0
sys.stderr.write("ATTEMPTS " + __import__("json").dumps(attempts) + "\\n")
sys.exit(code)
"""


@pytest.mark.slow
def test_a_whole_up_opens_no_connection_and_looks_up_no_name(small_up: SmallUp, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WATCHED, "up", str(small_up.folder), "--home", str(tmp_path / "home"), "--offline", "--json", *QUICK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    attempts = json.loads(done.stderr.split("ATTEMPTS ")[1].splitlines()[0])
    assert attempts == []
    assert json.loads(done.stdout)["pairs_train"] >= 8


@pytest.mark.slow
def test_a_whole_up_with_the_network_cut(small_up: SmallUp, tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode:
        pytest.skip("this machine does not allow network namespaces")
    up = [sys.executable, "-m", "mygpt", "up", str(small_up.folder), "--home", str(tmp_path / "home"), "--json", *QUICK]
    done = subprocess.run(
        ["unshare", "-rn", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", *up], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["model"] == small_up.result["model"], "the same model, byte for byte, without a network"
