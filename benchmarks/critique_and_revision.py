"""What a small model yields as its own critic: of the answers to our requests, how many it revises, and why other revisions are dropped.

    python -m benchmarks.critique_and_revision --json --keep

It counts what is kept, and says nothing of whether a revision is better: read the rows (`--rows`).
"""

import sys
import tempfile
from pathlib import Path

from benchmarks.record import arguments, finish
from mygpt.align.critique_and_revision import CritiqueAndRevisionConfig, critique_and_revision
from mygpt.core.run import Run
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.sources import obtain
from mygpt.metrics.wilson import wilson

MODEL = "smollm2-135m-q4_1"
CONFIG = CritiqueAndRevisionConfig(
    prompts=30,
    rounds=2,
    helpful_prompts=20,
    temperature=0.5,
    frequency_penalty=0.3,
    reads_critique=False,
    max_answer_tokens=96,
    max_critique_tokens=48,
)


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--home", type=Path, help="where answers are kept, so that a broken run goes on; default: a new folder")
    parser.add_argument("--rows", action="store_true", help="print every revision on stderr")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as fresh, Run(options.home or Path(fresh), name="benchmark") as run:
        made = critique_and_revision(CONFIG, completer=TorchEngine(obtain(MODEL, run=run)), run=run)
        facts, rows = made.manifest.facts, made.split("train")
        if options.rows:
            for row in rows:
                before = row.facts.get("before", "")
                sys.stderr.write(f"\n{row.question}\n  before: {before}\n  {row.facts.get('principle', 'harmless')}: {row.answer}\n")
    names = ("requests", "critiques", "no_change_needed", "revisions", "requests_revised", "left_alone", "helpful_rows", "rows_by_depth")
    revised = wilson(facts["requests_revised"], facts["requests"])
    share = {"estimate": round(revised.estimate, 3), "low": round(revised.low, 3), "high": round(revised.high, 3)}
    settings = {"model": MODEL, "settings": CONFIG.model_dump(mode="json"), "constitution": facts["constitution"]}
    finish("critique_and_revision", {**settings, **{name: facts[name] for name in (*names, "dropped")}, "share_revised": share}, options)


if __name__ == "__main__":
    main()
