"""A C file is compiled once for this machine, and never twice at once into one name."""

import shutil
from pathlib import Path

import pytest

from mygpt.lm.c_library import _compiled

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")


@pytest.mark.parametrize(
    ("file", "defined"),
    [
        ("layer.c", ()),
        ("token_choice.c", ()),
        ("decode_attention.c", ('NUMBERS="float32.h"',)),
        ("decode_layers.c", ('PRODUCTS="float_products.h"',)),
    ],
)
def test_it_is_compiled_once(file: str, defined: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYGPT_HOME", str(tmp_path))
    first = _compiled(file, defined)
    assert first is not None and first.name.startswith(Path(file).stem)
    made = first.stat().st_mtime_ns
    assert _compiled(file, defined) == first and first.stat().st_mtime_ns == made
    assert defined == () or _compiled(file, ()) is None  # the format is missing
    assert [p.name for p in first.parent.iterdir()] == [first.name]
