"""The pages of the metrics: their examples run, and print what the page says."""

import doctest
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "evaluate" / "metrics"
PAGES = (
    *("rouge", "bleu_chrf", "answers", "similarity", "likelihood", "pass_at_k", "calibration"),
    *("agreement", "ranking", "ratings", "raters"),
)


@pytest.mark.parametrize("name", PAGES)
def test_examples_of_the_page(name: str) -> None:
    if name == "bleu_chrf":
        pytest.importorskip("sacrebleu")
    text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    examples = "\n".join(re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL))
    test = doctest.DocTestParser().get_doctest(examples, {}, name, str(FOLDER / f"{name}.md"), 0)
    assert len(test.examples) >= 2
    said: list[str] = []
    result = doctest.DocTestRunner().run(test, out=said.append)
    assert result.failed == 0, "".join(said)


@pytest.mark.parametrize("name", PAGES)
def test_pages_have_one_shape(name: str) -> None:
    text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert text.startswith("# ")
    for part in ("**What", "**Formula and source.**", "## Example", "## When", "lie", "**Limits.**"):
        assert part in text, part
    for target in re.findall(r"\]\(([^)#]+\.md)\)", text):
        assert (FOLDER / target).is_file(), target
