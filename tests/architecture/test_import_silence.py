"""Importing any module does nothing: no environment, no logging set-up, no threads, no files, no connections."""

import json
import os
import subprocess
import sys
from typing import Any

PROBE = """
import importlib, json, logging, os, sys, threading, warnings

warnings.simplefilter("ignore")
third_party, modules = json.loads(sys.stdin.read())
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
for dotted in third_party:  # what other people's packages do when imported is theirs
    module, _, name = dotted.rpartition(".")
    try:
        importlib.import_module(dotted)
    except ModuleNotFoundError:
        getattr(importlib.import_module(module), name)
del os.environ["HF_HUB_DISABLE_TELEMETRY"]

def handlers():
    loggers = [logging.getLogger(), *(l for l in map(logging.getLogger, logging.Logger.manager.loggerDict) if l.name.startswith("mygpt"))]
    return {l.name: [repr(l.handlers), l.level, l.disabled] for l in loggers}

def descriptors():
    return sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}"))

def state():
    return {
        "environment": dict(os.environ),
        "handlers": handlers(),
        "threads": sorted(t.name for t in threading.enumerate()),
        "descriptors": descriptors() if os.path.isdir("/proc/self/fd") else [],
        "folder": os.getcwd(),
        "umask_and_hooks": [repr(sys.excepthook), repr(threading.excepthook), repr(sys.stdout), repr(sys.stderr)],
        "filters": len(warnings.filters),
    }

acts, importing = [], [""]
def hook(event, arguments):
    if not importing[0]:
        return
    writes = event == "open" and ((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR) or set(str(arguments[1] or "")) & set("wax+"))
    if writes or event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen",
                           "os.system", "os.mkdir", "os.remove", "os.rename", "sqlite3.connect", "os.putenv", "os.unsetenv"):
        acts.append([importing[0], event, repr(arguments)[:200]])
sys.addaudithook(hook)

changes = []
for name in modules:
    before = state()
    importing[0] = name
    importlib.import_module(name)
    importing[0] = ""
    after = state()
    changes += [[name, key, repr(before[key])[:500], repr(after[key])[:500]] for key in before if before[key] != after[key]]
json.dump({"changes": changes, "acts": acts, "imported": len(modules)}, sys.__stdout__)
"""


def _probe(third_party: list[str], modules: list[str], extra_path: str = "") -> dict[str, Any]:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": extra_path, "OMP_NUM_THREADS": "1"}
    given = json.dumps([third_party, modules])
    done = subprocess.run([sys.executable, "-c", PROBE], input=given, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_importing_does_nothing(modules: list[Any]) -> None:
    third_party = {
        name for module in modules for name, _ in module.imports(top_level_only=True) if name.split(".")[0] not in ("mygpt", "__future__")
    }
    names = [module.name for module in modules if not module.name.endswith("__main__")]
    found = _probe(sorted(third_party), names)
    assert found == {"changes": [], "acts": [], "imported": len(names)}


def test_the_probe_notices(tmp_path: Any) -> None:
    """Each thing that a module might do at import, done."""
    (tmp_path / "loud.py").write_text(
        "import logging, os, socket, threading, time\n"
        "os.environ['LOUD'] = '1'\n"
        "logging.basicConfig()\n"
        "threading.Thread(target=time.sleep, args=(5,), daemon=True, name='loud').start()\n"
        f"kept = open({str(tmp_path / 'written')!r}, 'w')\n"
        "listening = socket.socket()\n"
        "listening.bind(('127.0.0.1', 0))\n"
    )
    found = _probe(["logging", "socket", "threading"], ["loud"], extra_path=str(tmp_path))
    assert {change[1] for change in found["changes"]} == {"environment", "handlers", "threads", "descriptors"}
    assert {act[1] for act in found["acts"]} == {"os.putenv", "open", "socket.bind"}
