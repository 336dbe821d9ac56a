"""The main job, measured: `mygpt up` on a real product's documentation, in a fresh home, then once more unchanged, then one file added.

    python -m benchmarks.up --documents ../shared/data/httpx_docs --json --keep

The models must be in the local store already (their download is the demo's time). Rival: the base model, with and without
examples in its prompt, in the same run (`f1_ci`, `f1_ci_fewshot`).
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import arguments, finish

_NEW_FACT = "# Support desk\n\nThe support desk for the Walrus edition is open from 06:15 to 22:45 and is led by Ottoline Farrow.\n"
_QUESTION = "Who leads the support desk for the Walrus edition?"


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--documents", type=Path, default=Path("../shared/data/httpx_docs"))
    parser.add_argument("--home", type=Path, help="a new home to use and leave; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = options.home or Path(folder) / "home"
        first, first_seconds, peak_bytes = mygpt("up", str(options.documents), "--home", str(home))
        _, second_seconds, _ = mygpt("up", str(options.documents), "--home", str(home))
        note = Path(folder) / "support.md"
        note.write_text(_NEW_FACT, encoding="utf-8")
        _, add_seconds, _ = mygpt("add", str(note), "--home", str(home))
        answer, answer_seconds, _ = mygpt("chat", "--home", str(home), "-q", _QUESTION)
        cited = any(c["path"] == "support.md" for c in answer["citations"])
    kept = (
        "seconds",
        "tokens_per_second",
        "f1_base",
        "f1_fewshot",
        "f1_retrieval",
        "f1_tuned",
        "f1_tuned_retrieval",
        "f1_ci",
        "f1_ci_fewshot",
    )
    kept += ("forgetting_bpb", "pairs_train", "pairs_knowledge", "pairs_generalisation", "documents", "passages", "verdict")
    figures = {
        "documents_name": options.documents.name,
        "wall_seconds": round(first_seconds, 1),
        "peak_memory_gib": round(peak_bytes / 2**30, 2),
        "unchanged_seconds": round(second_seconds, 1),
        "add_seconds": round(add_seconds, 1),
        "add_and_cited_answer_seconds": round(add_seconds + answer_seconds, 1),
        "added_file_cited": cited,
        "answer_about_added_file": answer["answer"],
        "up": {key: first[key] for key in kept},
    }
    finish("up", figures, options)


def mygpt(*words: str) -> tuple[dict[str, Any], float, int]:
    """(result, wall seconds, peak resident bytes of the largest process)."""
    measured = "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
    measured += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); sys.exit(code)"
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", measured, sys.executable, "-m", "mygpt", *words, "--json"],
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"mygpt {' '.join(words)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout), seconds, int(done.stderr.split()[-1]) * 1024


if __name__ == "__main__":
    main()
