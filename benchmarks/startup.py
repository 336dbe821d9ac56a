"""How long until something happens: `import mygpt`, `mygpt --help`, and the first token of a chat after start-up.

python -m benchmarks.startup --home .mygpt --json --keep       (a home that holds the sample handbook)
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.record import arguments, finish
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.core.home import find_home
from mygpt.core.run import Run
from mygpt.infer.protocols import Sampling
from mygpt.lm.sources import obtain
from mygpt.pipelines.deployment import open_deployment, recorded_embedder, warm_up
from mygpt.pipelines.newest import newest_deployment
from mygpt.pipelines.serving import suggestions


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--home", type=Path)
    parser.add_argument("--name")
    options = parser.parse_args()
    finish(
        "startup",
        {
            "import_ms": median_ms([sys.executable, "-c", "import mygpt"], less=[sys.executable, "-c", "pass"]),
            "help_ms": median_ms([sys.executable, "-m", "mygpt", "--help"]),
            **first_token(find_home(options.home), options.name),
        },
        options,
    )


def median_ms(command: list[str], *, less: list[str] | None = None, runs: int = 7) -> float:
    """Whole-process wall time, median; minus that of `less` (the bare interpreter) where given."""

    def once(words: list[str]) -> float:
        started = time.perf_counter()
        subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - started

    taken = [once(command) - (once(less) if less else 0.0) for _ in range(runs)]
    return round(1000 * statistics.median(taken), 1)


def first_token(home: Path, name: str | None) -> dict[str, float]:
    """From question to first piece of text, with retrieval, once the server is up."""
    deployment = newest_deployment(home, name)
    run = Run(home, name=deployment.name)
    opened = open_deployment(deployment, embedder=recorded_embedder(deployment) or obtain("minilm", run=run), run=run)
    started = time.perf_counter()
    warm_up(opened)
    warm = time.perf_counter() - started
    taken = []
    for question in suggestions(deployment, 8):
        started = time.perf_counter()
        stream = opened.completer.stream(Conversation((Message("user", question),)), Sampling(max_tokens=4))
        next(stream)
        taken.append(time.perf_counter() - started)
        for _ in stream:
            pass
    return {
        "warm_up_seconds": round(warm, 2),
        "first_token_ms": round(1000 * statistics.median(taken)),
        "first_token_ms_worst": round(1000 * max(taken)),
    }


if __name__ == "__main__":
    main()
