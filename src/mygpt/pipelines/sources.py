"""Which files a name stands for: the folder given to `up`, and files given to `add`. Kept in `<home>/sources/<name>.json`."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from mygpt.artifacts.recipe import safe_name
from mygpt.core.digest import digest_text
from mygpt.core.errors import Damaged, UsageError, from_os_error

_NAME_CHARACTERS = 70  # with room for what tells two folders of one name apart


@dataclass(frozen=True)
class Sources:
    name: str
    paths: tuple[Path, ...]  # absolute; the folder first

    def with_file(self, file: Path) -> "Sources":
        """Also that file; nothing changes when it lies in the folder, which is read anyway. A link keeps its own name."""
        path = file.absolute().parent.resolve() / file.name
        for known in self.paths:
            if path.is_relative_to(known) and not any(part.startswith(".") for part in path.relative_to(known).parts):
                return self
        return Sources(self.name, (*self.paths, path))

    def save(self, home: Path) -> None:
        file = _file(home, self.name)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            beside = file.with_suffix(f".{os.getpid()}")
            beside.write_text(json.dumps([str(p) for p in self.paths], indent=1), encoding="utf-8")
            os.replace(beside, file)
        except OSError as error:
            raise from_os_error(error) from error


def sources_of_folder(home: Path, folder: Path, name: str | None) -> Sources:
    """The name's sources, with what was added earlier. Another folder of the same name gets a name of its own."""
    if not folder.exists():
        raise UsageError(f"{folder} does not exist.", fix="Name a folder of documents: `mygpt up DIR`.")
    path = folder.absolute().resolve()
    if not path.is_dir():
        raise UsageError(f"{folder} is a file.", fix="Name a folder of documents; single files are added later with `mygpt add FILE`.")
    chosen = safe_name((name or path.name)[:_NAME_CHARACTERS])
    known = load_sources(home, chosen)
    if known is None:
        return Sources(chosen, (path,))
    if known.paths[0] == path:
        return known
    if name is not None:
        raise UsageError(
            f"The name `{name}` belongs to {known.paths[0]} in this home.", fix="Choose another `--name`, or another `--home`."
        )
    own = f"{chosen}-{digest_text(str(path))[:6]}"
    return load_sources(home, own) or Sources(own, (path,))


def load_sources(home: Path, name: str) -> Sources | None:
    """None when there is no such name. Raises Damaged when its file is not as it was written."""
    file = _file(home, name)
    try:
        paths = tuple(Path(p) for p in json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise from_os_error(error) from error
    except (ValueError, TypeError) as error:
        raise _damaged(file, str(error)) from error
    if not paths or not all(p.is_absolute() for p in paths):
        raise _damaged(file, "it names no folder")
    return Sources(file.stem, paths)


def newest_sources(home: Path) -> Sources:
    """Of the last `up` in this home."""
    files = sorted((home / "sources").glob("*.json"), key=lambda f: f.stat().st_mtime)
    found = load_sources(home, files[-1].stem) if files else None
    if found is None:
        raise UsageError(f"Nothing was made in {home} yet.", fix="Begin with `mygpt up DIR`.")
    return found


def _file(home: Path, name: str) -> Path:
    return home / "sources" / f"{safe_name(name)}.json"


def _damaged(file: Path, reason: str) -> Damaged:
    return Damaged(f"{file} cannot be read: {reason}.", fix="Remove it, run `mygpt up DIR` again, and add again what was added.")
