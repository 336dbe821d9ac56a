"""The whole job on the sample handbook with its defaults: does tuning teach, and what does it cost?"""

from pathlib import Path
from typing import Any

import pytest

from tests.pipelines.conftest import HANDBOOK, mygpt


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_handbook_is_learnt_without_forgetting(tmp_path: Path, obtained: Any) -> None:
    code, made = mygpt("up", str(HANDBOOK), "--home", str(tmp_path / "home"), "--model", "smollm2-135m-q4_1")
    assert code == 0, made
    assert (made["documents"], made["skipped"]) == (18, [])
    assert (made["pairs_train"] >= 120, made["pairs_knowledge"] >= 60, made["pairs_generalisation"] >= 30) == (True, True, True)
    assert made["f1_ci"][0] > 0, made["f1_ci"]
    assert made["forgetting_bpb"] <= 0.05
    assert made["general_right"]["items"] >= 60
    assert made["general_right"]["base"] >= made["general_right"]["items"] / 2
    assert made["verdict"]["outcome"] in ("learnt the content", "learnt the style, not the content")
    assert sum(s for step, s in made["seconds"].items() if step != "up") < 900
