"""The record of how an artefact came to be. Manifests are the truth; the catalogue is rebuilt from them.

Two things hold a record together. `digest` is computed from kind, content and request, and `request` from recipe, settings, the digests
of all inputs, tools and seed: who knows a digest can check the whole family tree. `seal` is the digest of everything else that is
written down (facts, provenance, cost, ...), so that no part of the record changes unnoticed.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from mygpt.core.digest import digest_value

FORMAT = 1
SHORT = 12  # characters of a digest shown to people and used in folder names
_NAMES_AN_ARTEFACT = ("model", "adapter", "index")


class FileRecord(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    sha256: str
    bytes: int


class Input(BaseModel):
    """One argument of a recipe: an artefact (by digest) or a source outside the store (by content)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: str  # an artefact's kind, or "source"
    name: str
    digest: str
    path: str | None = None  # sources only: where it was read from


class Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = FORMAT
    kind: str
    name: str
    digest: str  # of kind, content and request: the artefact's identity
    content: str  # of the payload files alone: equal for equal bytes, whoever made them
    request: str  # of recipe, settings, inputs, tools and seed: equal requests need not be made twice
    files: dict[str, FileRecord]
    recipe: str  # "mygpt.finetune.sft:sft"
    config: dict[str, Any]
    inputs: dict[str, list[Input]]  # by argument name
    tools: dict[str, Any]  # by argument name: the identity of each completer, embedder, ... used
    seed: int
    facts: dict[str, Any]  # what the kind promises: schema, head, counts, licence of the data
    provenance: dict[str, Any]  # licence, address, checksums of what came from outside
    code: dict[str, str]
    packages: dict[str, str]
    hardware: dict[str, Any]
    cost: dict[str, float | None]
    created: str  # ISO 8601, UTC
    seal: str = ""  # of all of the above; set by `write_record`

    @property
    def id(self) -> str:
        return f"{self.kind}/{self.name}-{self.digest[:SHORT]}"

    @property
    def parents(self) -> list[str]:
        own = {i.digest for group in self.inputs.values() for i in group if i.kind != "source"}
        return sorted(own | {digest for _, digest in tool_parents(self.tools)})


def write_record(manifest: Manifest) -> str:
    """The text of manifest.json, sealed."""
    record = json.loads(manifest.model_dump_json())
    return json.dumps({**record, "seal": _seal(record)}, ensure_ascii=False, indent=1)


def read_record(text: str) -> Manifest:
    """Raises ValueError when the text is not a manifest, or not as it was written."""
    record = json.loads(text)
    if not isinstance(record, dict) or record.get("seal") != _seal(record):
        raise ValueError("it is not as it was written")
    return Manifest.model_validate(record)


def _seal(record: dict[str, Any]) -> str:
    return digest_value({key: value for key, value in record.items() if key != "seal"})


def request_digest(recipe: str, config: Mapping[str, Any], inputs: Mapping[str, list[Input]], tools: Mapping[str, Any], seed: int) -> str:
    """The same inputs by digest are the same request, whatever they are called and wherever they lie."""
    digests = {name: [i.digest for i in group] for name, group in inputs.items()}
    return digest_value({"recipe": recipe, "config": config, "inputs": digests, "tools": tools, "seed": seed})


def content_digest(files: dict[str, FileRecord]) -> str:
    return digest_value({path: record.sha256 for path, record in files.items()})


def identity_digest(kind: str, content: str, request: str) -> str:
    return digest_value([kind, content, request])


def tool_parents(tools: Any, *, place: str = "") -> list[tuple[str, str]]:
    """(place, digest) of the artefacts that tools' identities name under `model`, `adapter`, `index`: ("completer.model", "b94d...")."""
    if isinstance(tools, Mapping):
        found = []
        for key, value in tools.items():
            here = f"{place}.{key}" if place else str(key)
            if key in _NAMES_AN_ARTEFACT and isinstance(value, str) and is_digest(value):
                found.append((here, value))
            else:
                found += tool_parents(value, place=here)
        return found
    if isinstance(tools, (list, tuple)):
        return [pair for number, value in enumerate(tools) for pair in tool_parents(value, place=f"{place}.{number}")]
    return []


def is_digest(text: str) -> bool:
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)
