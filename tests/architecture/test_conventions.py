"""Rules that can be read off the syntax tree. Each checker is also shown a sinner, so that it cannot pass by blindness."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mygpt.artifacts.kinds import KINDS
from mygpt.core.outbound import MODULES_THAT_CONNECT

Finding = tuple[ast.AST, str]

_FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
_FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__", "print", "breakpoint"}
_RUNS_TEXT = "mygpt.guard.inside.worker"  # the sandbox's other side, and the only place that does
_PAIRS_ONLY = {"mygpt.guard.sandbox"}  # pairs of sockets between processes of its own
_CONNECTING_CALLS = {"connect", "connect_ex", "bind", "listen", "create_connection", "create_server", "socket", "getaddrinfo", "sendto"}
_FORBIDDEN_CALLS = {"os.system", "os.popen", "torch.load", "torch.save", "yaml.load", "yaml.unsafe_load"}
_CONNECTING_MODULES = {
    *("socket", "ssl", "http.client", "http.server", "urllib.request", "ftplib", "smtplib", "socketserver", "xmlrpc"),
    *("httpx", "httpx2", "requests", "urllib3", "aiohttp", "websockets", "openai", "huggingface_hub", "fsspec", "uvicorn", "pip"),
}
_REPORT_HOME = {"transformers", "peft", "huggingface_hub", "datasets", "accelerate"}  # unless silenced before they are imported
_MYGPT_ERRORS = {"MygptError", "UsageError", "Refused", "Damaged", "Unreachable"}


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def _below(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


# -- the rules ----------------------------------------------------------------------------------------------------------


def forbidden_calls(module: Any) -> Iterator[Finding]:
    for name, node in module.imports():
        if _below(name, _FORBIDDEN_MODULES):
            yield node, f"imports {name}"
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        called = _dotted(node.func)
        in_cli = module.name.startswith("mygpt.cli")
        if called in _FORBIDDEN_NAMES and not (called == "print" and in_cli) and module.name != _RUNS_TEXT:
            yield node, f"calls {called}()"
        keywords = {k.arg: k.value for k in node.keywords}
        is_off = {k: isinstance(v, ast.Constant) and v.value is False for k, v in keywords.items()}
        if called in ("np.load", "numpy.load"):
            if not is_off.get("allow_pickle"):
                yield node, "np.load without allow_pickle=False"
        elif called in _FORBIDDEN_CALLS:
            yield node, f"calls {called}()"
        for keyword in ("shell", "trust_remote_code", "allow_pickle"):
            if keyword in keywords and not is_off[keyword]:
                yield node, f"{keyword} is not False"


def connections(module: Any) -> Iterator[Finding]:
    """Only the modules of core/outbound may import what opens connections, or call pip."""
    if module.name in MODULES_THAT_CONNECT:
        return
    if module.name in _PAIRS_ONLY:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CONNECTING_CALLS:
                yield node, f"calls {node.func.attr}(), and may only make pairs of sockets"
        return
    for name, node in module.imports():
        if _below(name, _CONNECTING_MODULES):
            yield node, f"imports {name}, and is not in core.outbound.MODULES_THAT_CONNECT"
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.List, ast.Tuple)):
            words = [e.value for e in node.elts if isinstance(e, ast.Constant)]
            if "-m" in words and "pip" in words:
                yield node, "runs pip, and is not in core.outbound.MODULES_THAT_CONNECT"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "from_pretrained":
            keywords = {k.arg for k in node.keywords}
            if not keywords & {"local_files_only", "gguf_file"} and _dotted(node.func) != "PeftModel.from_pretrained":
                yield node, "from_pretrained without local_files_only=True may ask the hub"


def silenced(module: Any) -> Iterator[Finding]:
    """Packages that report to their makers are imported inside functions, after `silence_hub()`."""
    for name, node in module.imports(top_level_only=True):
        if _below(name, _REPORT_HOME):
            yield node, f"imports {name} when it is itself imported: call silence_hub() in the function, then import there"


def names(module: Any) -> Iterator[Finding]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Trainer", "Manager", "Utils", "Helper", "Mixin")):
            yield node, f"class {node.name}"
    if re.search(r"(^|[._])(utils?|helpers?|misc|common)$", module.name):
        yield module.tree, f"module {module.name}"


def errors_without_fix(module: Any) -> Iterator[Finding]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and _dotted(node.func).rsplit(".", 1)[-1] in _MYGPT_ERRORS and module.name != "mygpt.core.errors":
            keywords = {k.arg: k.value for k in node.keywords}
            if not node.args or "fix" not in keywords:
                yield node, f"{_dotted(node.func)} without what happened or without fix="
            elif isinstance(keywords["fix"], ast.Constant) and not str(keywords["fix"].value).strip():
                yield node, "an empty fix"


def recipe_signatures(module: Any) -> Iterator[Finding]:
    """`def sft(config: SFTConfig, *, model: Model, dataset: Dataset, run: Run) -> Adapter`, at module level, so that its name resolves."""
    nouns = {noun.__name__ for noun in KINDS.values()}
    at_module_level = set(map(id, module.tree.body))
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.FunctionDef) or "recipe" not in map(_dotted, node.decorator_list):
            continue
        if id(node) not in at_module_level:
            yield node, f"recipe {node.name} is not at module level"
        arguments = node.args
        if [a.arg for a in [*arguments.posonlyargs, *arguments.args]] != ["config"] or arguments.vararg or arguments.kwarg:
            yield node, f"recipe {node.name}: `config` comes first, all else is keyword-only"
        if "run" not in [a.arg for a in arguments.kwonlyargs]:
            yield node, f"recipe {node.name} takes no `run`"
        if any(a.annotation is None for a in [*arguments.args, *arguments.kwonlyargs]):
            yield node, f"recipe {node.name}: an argument without type"
        for default in [*arguments.defaults, *(d for d in arguments.kw_defaults if d is not None)]:
            if not (isinstance(default, ast.Constant) and default.value is None):
                yield node, f"recipe {node.name}: an input may default to None and to nothing else; settings belong in the config"
        returned = {n.id for n in ast.walk(node.returns) if isinstance(n, ast.Name)} if node.returns else set()
        if not returned or not returned <= nouns:
            yield node, f"recipe {node.name} returns {returned or 'nothing'}, not a noun"
        if node.name.startswith("_"):
            yield node, f"recipe {node.name} has a private name: manifests name it"


# -- each rule over the source, and over a sinner -------------------------------------------------------------------------

SINNERS: dict[Callable[[Any], Iterator[Finding]], list[str]] = {
    forbidden_calls: [
        "import pickle",
        "from joblib import load",
        "eval('1')",
        "print('x')",
        "subprocess.run('ls', shell=True)",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
        "AutoModel.from_pretrained('x', trust_remote_code=config.trust)",
        "torch.load('x')",
        "np.load('x')",
        "np.load('x', allow_pickle=True)",
        "os.system('ls')",
    ],
    connections: [
        "import socket",
        "def f():\n    from urllib.request import urlopen",
        "from urllib import request",
        "import httpx",
        "import http.client",
        "subprocess.run([sys.executable, '-m', 'pip', 'install', 'x'])",
        "AutoModel.from_pretrained(name)",
    ],
    silenced: ["import transformers", "from peft import LoraConfig", "try:\n    import huggingface_hub\nexcept ImportError:\n    pass"],
    names: ["class SFTTrainer: ...", "class RunManager: ..."],
    errors_without_fix: ["raise UsageError('x')", "raise Refused('x', fix='')", "error = Damaged(fix='y')"],
    recipe_signatures: [
        "@recipe\ndef f(config: C, model: Model, *, run: Run) -> Adapter: ...",
        "@recipe\ndef f(config: C, *, model: Model) -> Adapter: ...",
        "@recipe\ndef f(config: C, *, model, run: Run) -> Adapter: ...",
        "@recipe\ndef f(config: C, *, model: Model, run: Run) -> dict: ...",
        "@recipe\ndef f(config: C, *, model: Model, run: Run): ...",
        "@recipe\ndef f(config: C, *, rank: int = 8, run: Run) -> Adapter: ...",
        "def g():\n    @recipe\n    def f(config: C, *, run: Run) -> Adapter: ...",
    ],
}


@pytest.mark.parametrize("rule", SINNERS, ids=lambda rule: rule.__name__)
def test_rule_holds(rule: Callable[[Any], Iterator[Finding]], modules: list[Any]) -> None:
    broken = [f"{module.at(node)}: {what}" for module in modules for node, what in rule(module)]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(("rule", "code"), [(rule, code) for rule, sinners in SINNERS.items() for code in sinners])
def test_rule_notices(rule: Callable[[Any], Iterator[Finding]], code: str, modules: list[Any]) -> None:
    sinner = type(modules[0])("mygpt.data.sinner", Path("sinner.py"), ast.parse(code))
    assert list(rule(sinner))


def test_pairs_of_sockets_only(modules: list[Any]) -> None:
    """What may make pairs of sockets may not connect one; what may run text is one module."""
    for code in ("import socket\nsocket.create_connection(('a', 1))", "import socket\none.connect('a')"):
        assert list(connections(type(modules[0])("mygpt.guard.sandbox", Path("sinner.py"), ast.parse(code))))
    assert {_RUNS_TEXT, *_PAIRS_ONLY} <= {m.name for m in modules}


def test_modules_that_connect_exist(modules: list[Any]) -> None:
    assert set(MODULES_THAT_CONNECT) <= {m.name for m in modules}


def test_nothing_is_left_for_later(modules: list[Any]) -> None:
    words = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    lines = [(m.path, number, line) for m in modules for number, line in enumerate(m.path.read_text(encoding="utf-8").splitlines(), 1)]
    assert [f"{path}:{number}" for path, number, line in lines if words.search(line)] == []


def test_every_module_says_what_it_is(modules: list[Any]) -> None:
    assert [m.name for m in modules if not ast.get_docstring(m.tree)] == []
