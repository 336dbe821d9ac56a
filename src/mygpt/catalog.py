"""Every technique: where its code, its paper and its page are. Strings only: reading this table imports nothing.

One row is one technique, one file, one test (`tests/STAGE/test_FILE.py`), one page. A test holds each row to that.
"""

import difflib
from dataclasses import dataclass

from mygpt.core.errors import UsageError


@dataclass(frozen=True)
class Technique:
    name: str  # `mygpt where NAME`
    stage: str  # the folder: "data", "finetune", ...
    path: str  # "mygpt.finetune.sft:sft"
    paper: str  # that it follows, or "ours"
    page: str  # "docs/finetune/sft.md"


TECHNIQUES: tuple[Technique, ...] = (
    Technique("ingest", "data", "mygpt.data.ingest:ingest", "ours", "docs/data/ingest.md"),
    Technique(
        "question_answer",
        "data",
        "mygpt.data.question_answer:question_answer",
        "Alberti et al. 2019, arXiv:1906.05416 (answer first, then its question, then a second reading)",
        "docs/data/question_answer.md",
    ),
    Technique("replay", "data", "mygpt.data.replay:replay", "Huang et al. 2024, arXiv:2403.01244", "docs/data/replay.md"),
    Technique(
        "sft",
        "finetune",
        "mygpt.finetune.sft:sft",
        "Ouyang et al. 2022, arXiv:2203.02155, section 3.5; adapters: Hu et al. 2021, arXiv:2106.09685",
        "docs/finetune/sft.md",
    ),
    Technique(
        "before_after",
        "evaluate",
        "mygpt.evaluate.before_after:before_after",
        "Koehn 2004, Statistical significance tests for machine translation evaluation (paired bootstrap)",
        "docs/evaluate/before_after.md",
    ),
    Technique(
        "index",
        "rag",
        "mygpt.rag.index:build_index",
        "Cormack et al. 2009, Reciprocal rank fusion outperforms Condorcet (k = 60)",
        "docs/rag/index.md",
    ),
    Technique(
        "answer",
        "rag",
        "mygpt.rag.answer:RetrievalCompleter",
        "Lewis et al. 2020, arXiv:2005.11401; citations matched after generation: Gao et al. 2022, arXiv:2210.08726",
        "docs/rag/answer.md",
    ),
    Technique("api", "serve", "mygpt.serve.api:create_app", "ours", "docs/serve/api.md"),
    Technique("up", "pipelines", "mygpt.pipelines.up:up", "ours", "docs/pipelines/up.md"),
    Technique("sources", "lm", "mygpt.lm.sources:obtain", "ours", "docs/lm/sources.md"),
    Technique("chat", "lm", "mygpt.lm.chat:ChatRenderer", "ours", "docs/lm/chat.md"),
)


def where(name: str) -> Technique:
    """The row of one technique. Raises UsageError with the nearest names."""
    rows = {technique.name: technique for technique in TECHNIQUES}
    if name in rows:
        return rows[name]
    nearest = difflib.get_close_matches(name.lower(), rows, n=3)
    fix = f"Did you mean {', '.join(f'`{n}`' for n in nearest)}?" if nearest else f"Known: {', '.join(rows)}."
    raise UsageError(f"There is no technique `{name}`.", fix=fix)
