"""Which deployment a name means."""

from pathlib import Path

from mygpt.artifacts.deployment import Deployment
from mygpt.artifacts.store import Store
from mygpt.core.errors import UsageError


def newest_deployment(home: Path, name: str | None) -> Deployment:
    """By name, tag or digest; without one the newest of this home."""
    store = Store(home)
    if name is not None:
        return Deployment.open(store, name)
    made = [m for m in store.manifests() if m.kind == Deployment.kind]
    if not made:
        raise UsageError(f"Nothing was made in {home} yet.", fix="Begin with `mygpt up DIR`.")
    newest = made[-1].name  # the latest of the name that was worked on last: `latest` may be an older artefact that fits again
    return Deployment.open(store, newest)
