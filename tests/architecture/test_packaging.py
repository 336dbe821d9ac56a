"""What can be installed on its own: an extra per stage that has packages of its own, and `all` of them."""

import re
import tomllib
from pathlib import Path

EXTRAS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


def test_all_is_every_other_extra() -> None:
    (everything,) = EXTRAS["all"]
    named = re.fullmatch(r"mygpt\[(.*)\]", everything)
    assert named is not None
    assert set(named[1].split(",")) == EXTRAS.keys() - {"all"}
    assert {"lm", "data", "train", "evaluate", "serve", "rag", "studio"} <= EXTRAS.keys()


def test_extras_build_on_extras_that_exist() -> None:
    built_on = {name for needs in EXTRAS.values() for need in needs for name in re.findall(r"^mygpt\[(.*)\]", need)}
    assert {name for group in built_on for name in group.split(",")} <= EXTRAS.keys()
