"""Where work is kept: `--home`, else $MYGPT_HOME, else the nearest `.mygpt/` upward, else `~/.mygpt`."""

import os
from pathlib import Path


def find_home(given: Path | None = None, *, start: Path | None = None) -> Path:
    if given is not None:
        return given.expanduser().absolute()
    if os.environ.get("MYGPT_HOME"):
        return Path(os.environ["MYGPT_HOME"]).expanduser().absolute()
    here = (start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        if (folder / ".mygpt").is_dir():
            return folder / ".mygpt"
    return Path.home() / ".mygpt"


def model_cache() -> Path:
    """Downloaded models live once per user, or under $MYGPT_HOME where that is set."""
    if os.environ.get("MYGPT_HOME"):
        return Path(os.environ["MYGPT_HOME"]).expanduser().absolute() / "models"
    return Path.home() / ".cache" / "mygpt"
