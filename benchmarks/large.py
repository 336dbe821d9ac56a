"""A folder that is too large to learn whole: 2,000 files and 1 GB of text through `mygpt up`, then a question about one line of it.

    python -m benchmarks.large --texts ../shared/data --json --keep

The files are shuffled paragraphs of real text (documentation, encyclopaedia, web pages), each under headings of its own.
"""

import json
import random
import tempfile
from pathlib import Path

from benchmarks.record import arguments, finish
from benchmarks.up import mygpt

_FACT = "The spare key of the Walrus lighthouse hangs behind the barometer in Ottoline's pantry."
_QUESTION = "Where does the spare key of the Walrus lighthouse hang?"


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--texts", type=Path, default=Path("../shared/data"))
    parser.add_argument("--files", type=int, default=2_000)
    parser.add_argument("--megabytes", type=float, default=1_000)
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        documents, home = Path(folder) / "documents", Path(folder) / "home"
        written = write_documents(documents, paragraphs(options.texts), options.files, round(options.megabytes * 1e6))
        up, seconds, peak_bytes = mygpt("up", str(documents), "--home", str(home), "--minutes", str(options.minutes))
        answer, answer_seconds, _ = mygpt("chat", "--home", str(home), "-q", _QUESTION)
        _, second_seconds, _ = mygpt("up", str(documents), "--home", str(home), "--minutes", str(options.minutes))
        stored = sum(f.stat().st_size for f in home.rglob("*") if f.is_file())
    kept = ("seconds", "documents", "passages", "passages_asked_about", "pairs_train", "pairs_knowledge", "pairs_generalisation")
    figures = {
        "files": options.files,
        "megabytes": round(written / 1e6),
        "wall_seconds": round(seconds, 1),
        "peak_memory_gib": round(peak_bytes / 2**30, 2),
        "stored_gib": round(stored / 2**30, 2),
        "unchanged_seconds": round(second_seconds, 1),
        "answer_seconds": round(answer_seconds, 1),
        "planted_fact_cited": any(c["path"] == _planted_in(options.files) for c in answer["citations"]),
        "answer": answer["answer"],
        "up": {key: up[key] for key in kept},
    }
    finish("large", figures, options)


def paragraphs(texts: Path) -> list[str]:
    """Real paragraphs of 80 to 1,500 characters."""
    whole = [file.read_text(encoding="utf-8") for file in sorted((texts / "httpx_docs").rglob("*.md"))]
    whole.append((texts / "wiki_demo.txt").read_text(encoding="utf-8"))
    whole += [json.loads(line)["text"] for line in (texts / "c4_demo.jsonl").read_text(encoding="utf-8").splitlines()]
    pieces = [" ".join(piece.split()) for text in whole for line in text.split("\n\n") for piece in line.splitlines()]
    return [piece for piece in pieces if 80 <= len(piece) <= 1_500 and not piece.startswith("#")]


def write_documents(folder: Path, pool: list[str], files: int, size: int) -> int:
    """Bytes written. One of them holds the planted fact."""
    folder.mkdir()
    order = random.Random(0)
    written = 0
    for number in range(files):
        parts = [f"# Record {number}"]
        length = 0
        while length < size / files:
            section = [f"## Part {len(parts)}", *order.choices(pool, k=3)]
            length += sum(len(p.encode()) + 2 for p in section)
            parts += section
        name = f"record-{number:04d}.md"
        if name == _planted_in(files):
            parts.insert(len(parts) // 2, _FACT)
        written += (folder / name).write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return written


def _planted_in(files: int) -> str:
    return f"record-{files * 2 // 3:04d}.md"


if __name__ == "__main__":
    main()
