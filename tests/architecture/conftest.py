"""The source as syntax trees: these tests read the code, they do not run it."""

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = REPOSITORY / "src"


@dataclass(frozen=True)
class Module:
    name: str  # "mygpt.finetune.sft"
    path: Path
    tree: ast.Module

    def at(self, node: ast.AST) -> str:
        return f"{self.path.relative_to(REPOSITORY)}:{getattr(node, 'lineno', 1)}"

    def imports(self, *, top_level_only: bool = False) -> list[tuple[str, ast.stmt]]:
        """(dotted name, statement): `import a.b` gives a.b, `from a.b import c` gives a.b.c."""
        found: list[tuple[str, ast.stmt]] = []
        for node in self._top_level() if top_level_only else ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [(alias.name, node) for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found += [(f"{node.module}.{alias.name}", node) for alias in node.names]
        return found

    def _top_level(self) -> list[ast.AST]:
        """What runs when the module is imported: everything outside functions."""
        found: list[ast.AST] = []
        to_visit: list[ast.AST] = list(self.tree.body)
        while to_visit:
            node = to_visit.pop(0)
            found.append(node)
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                to_visit += list(ast.iter_child_nodes(node))
        return found


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def modules() -> list[Module]:
    found = []
    for path in sorted((SOURCE / "mygpt").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Module(name, path, ast.parse(path.read_text(encoding="utf-8"), filename=str(path))))
    assert len(found) > 20
    return found
