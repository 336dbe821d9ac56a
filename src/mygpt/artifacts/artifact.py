"""What every noun shares: a manifest, and the store that holds its payload."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

from mygpt.artifacts.manifest import SHORT, Manifest
from mygpt.artifacts.store import Store
from mygpt.core.errors import UsageError


@dataclass(frozen=True)
class Artifact:
    manifest: Manifest
    store: Store

    kind: ClassVar[str] = ""

    @classmethod
    def open(cls: type["A"], store: Store, reference: str) -> "A":
        """By name, `name:tag`, id or digest. Raises UsageError when there is none."""
        return cls(store.find(reference, kind=cls.kind), store)

    @classmethod
    def of(cls: type["A"], store: Store, digest: str) -> "A":
        """By full digest, as manifests and tool identities hold it."""
        manifest = store.get(digest)
        if manifest is None or manifest.kind != cls.kind:
            fix = "It was removed, or made in another home: see `--home`."
            raise UsageError(f"The {cls.kind} {digest[:SHORT]} is not in {store.home}.", fix=fix)
        return cls(manifest, store)

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def payload(self) -> Path:
        """The folder with the payload's files, verified once per process."""
        return self.store.payload(self.manifest)


A = TypeVar("A", bound=Artifact)
