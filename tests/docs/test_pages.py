"""Every page of what measures has one shape: what it does, formula or source, an example, when it lies, limits."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "evaluate"
PAGES = sorted(FOLDER.rglob("*.md"))
PARTS = {
    "what it does or measures": r"^\*\*What",
    "a source": r"(?im)^(## .*|\*\*.*)\bsource|^\|.*\bsource\b.*\|$|^source:",
    "an example": r"^## Examples?\b",
    "when it lies": r"^## When (it lies|they lie)",
    "limits": r"^## .*[Ll]imits|\*\*Limits",
}


def missing(text: str) -> list[str]:
    return [part for part, pattern in PARTS.items() if not re.search(pattern, text, flags=re.MULTILINE)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(FOLDER)))
def test_one_shape(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert missing(text) == []


def test_a_page_without_a_part_is_noticed() -> None:
    whole = "# T\n\n**What it does.** x\n\n## Formula and source\n\n## Example\n\n## When it lies\n\n**Limits.** y\n"
    assert len(PAGES) >= 20 and missing(whole) == []
    assert missing(whole.replace("## When it lies", "## Notes").replace("and source", "")) == ["a source", "when it lies"]
    assert missing(whole.replace("## Example\n", "**Example.** One.\n")) == ["an example"]
