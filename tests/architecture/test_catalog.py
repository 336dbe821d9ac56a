"""Each technique has its module, its object, its test, its page; and the table is about techniques that exist."""

import ast
from pathlib import Path
from typing import Any

import pytest

from mygpt.catalog import TECHNIQUES, Technique, where
from mygpt.core.errors import UsageError


@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda t: t.name)
def test_code_test_and_page_exist(technique: Technique, modules: list[Any], repository: Path) -> None:
    dotted, _, name = technique.path.partition(":")
    module = next((m for m in modules if m.name == dotted), None)
    assert module is not None, f"{dotted} is missing"
    defined = {n.name for n in module.tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    assert name in defined, f"{dotted} defines no `{name}`"
    assert dotted.split(".")[1] == technique.stage
    stem = dotted.rsplit(".", 1)[1]
    tests = (repository / "tests" / technique.stage).glob("test_*.py")
    tested = [t.name for t in tests if t.name == f"test_{stem}.py" or f"from {dotted} import" in t.read_text(encoding="utf-8")]
    assert tested, f"no tests/{technique.stage}/test_{stem}.py, and no other test there imports {dotted}"
    if technique.stage == "metrics":  # one page for a family: what lies in the same way is read together
        assert technique.page.startswith("docs/evaluate/")
    elif dotted.startswith("mygpt.lm.adapters."):  # read where they are chosen
        assert technique.page == f"docs/finetune/{stem}.md"
    else:
        assert technique.page == f"docs/{technique.stage}/{stem}.md"
    page = repository / technique.page
    assert page.is_file(), f"{technique.page} is missing"
    assert page.read_text(encoding="utf-8").startswith("# ")


def test_rows_are_distinct_and_say_their_paper() -> None:
    assert len({t.name for t in TECHNIQUES}) == len({t.path for t in TECHNIQUES}) == len(TECHNIQUES)
    pages = [t.page for t in TECHNIQUES if t.stage != "metrics"]
    assert len(set(pages)) == len(pages)
    for technique in TECHNIQUES:
        assert technique.paper.startswith("ours") or any(year in technique.paper for year in map(str, range(1900, 2030))), technique.name


def test_where() -> None:
    assert where("sft").path == "mygpt.finetune.sft:sft"
    with pytest.raises(UsageError) as error:
        where("sfft")
    assert (error.value.what, error.value.fix) == ("There is no technique `sfft`.", "Did you mean `sft`?")
    with pytest.raises(UsageError, match="Known: ingest, question_answer, replay, preferences_from_ratings"):
        where("zzzzzz")
