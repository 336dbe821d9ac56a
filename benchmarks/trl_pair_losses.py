"""Asks trl for its value of every loss of preferences, and keeps the answer where the tests read it (tests/align/trl_pair_losses.json).

    python -m benchmarks.trl_pair_losses
"""

import json
from pathlib import Path

from benchmarks.rivals import rival

_HERE = Path(__file__).parent
FIXTURE = _HERE.parent / "tests" / "align" / "trl_pair_losses.json"


def main() -> None:
    found = rival("trl").run(_HERE / "trl_pair_losses_side.py", [])
    FIXTURE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
