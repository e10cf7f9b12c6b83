"""What a model is: a manifest that names every file with its length and SHA-256.

The manifest's own digest is part of the embedding space, so two models that differ in one byte of one file have two
spaces. Parsing refuses what it does not know. No model is read here (see ``verify.py``), and nothing is downloaded.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Literal, NoReturn, Self, cast

from secure_embed.errors import ConfigurationError, NotFound
from secure_embed.types import Space

__all__ = ["FileDigest", "ModelManifest", "manifest", "manifests", "read_manifest", "write_manifest"]

Pooling = Literal["mean", "cls"]

manifest_bytes_max = 1024 * 1024
manifest_files_max = 256
file_bytes_max = 1 << 40
prefix_characters_max = 1_000

_FORMAT = 1
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?\Z")
_LABEL = re.compile(r"[!-~](?:[ -~]{0,198}[!-~])?\Z")  # printable ASCII, no blanks at the ends
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_PATH_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,126}\Z")  # so neither "", "." nor "..", and nothing hidden
# Data only. A model that needs its own code (.py) or an open pickle (.pkl) cannot be written down, so not loaded.
_SUFFIXES = frozenset({".bin", ".json", ".model", ".pt", ".safetensors", ".txt"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDigest:
    """A file's length in bytes and its SHA-256 (64 lower-case hex digits)."""

    length: int
    sha256: str

    def __post_init__(self) -> None:
        if not _is_int(self.length, 1, file_bytes_max) or not _matches(_SHA256, self.sha256):
            _refuse("a file's length or digest is malformed")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelManifest:
    """A model's identity. ``files`` maps a path relative to the model's folder ("/" between its parts) to its digest.

    Raises ``ConfigurationError`` (``manifest_invalid``) for what is malformed.
    """

    name: str  # the short name that settings use
    source: str  # where the files come from
    revision: str
    licence: str
    dimension: int
    tokens_max: int
    pooling: Pooling
    query_prefix: str = ""
    document_prefix: str = ""
    files: Mapping[str, FileDigest]

    def __post_init__(self) -> None:
        if not _matches(_NAME, self.name):
            _refuse("a name is 1 to 63 of a-z, 0-9, '.', '_' and '-'")
        if not all(_matches(_LABEL, label) for label in (self.source, self.revision, self.licence)):
            _refuse("source, revision and licence are 1 to 200 printable ASCII characters")
        if not _is_int(self.dimension, 1, 65_535) or not _is_int(self.tokens_max, 3, 131_072):
            _refuse("dimension or tokens_max is out of range")
        if self.pooling not in ("mean", "cls"):
            _refuse("pooling is mean or cls")
        if not all(_is_prefix(prefix) for prefix in (self.query_prefix, self.document_prefix)):
            _refuse(f"a prefix is text of up to {prefix_characters_max} characters")
        _ensure_paths(self.files)
        object.__setattr__(self, "files", MappingProxyType(dict(self.files)))

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read a manifest's JSON. Raises ``ConfigurationError`` (``manifest_invalid``); unknown members are refused."""
        if len(raw) > manifest_bytes_max:
            _refuse(f"it is longer than {manifest_bytes_max} bytes")
        try:
            value = json.loads(raw.decode(), object_pairs_hook=_without_repeats)
        except (ValueError, RecursionError):
            _refuse("it is not JSON")
        members = _object(value, _MEMBERS)
        if members.pop("format") != _FORMAT:
            _refuse("its format is not known")
        files = members.pop("files")
        if not isinstance(files, dict):
            _refuse("files is not an object")
        digests = {}
        for path, entry in files.items():
            parts = _object(entry, {"bytes", "sha256"})
            digests[path] = FileDigest(length=parts["bytes"], sha256=parts["sha256"])
        return cls(files=digests, **members)

    def canonical(self) -> bytes:
        """The one encoding that is hashed: RFC 8785 (sorted members, no blanks, UTF-8); no numbers but integers."""
        return json.dumps(self._members(), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the canonical encoding."""
        return hashlib.sha256(self.canonical()).hexdigest()

    @property
    def space(self) -> Space:
        """The embedding space of this model's vectors."""
        return Space(
            model=self.name,
            revision=self.revision,
            manifest_sha256=self.sha256,
            pooling=self.pooling,
            dimension=self.dimension,
        )

    def _members(self) -> dict[str, object]:
        members: dict[str, object] = {name: getattr(self, name) for name in _MEMBERS - {"files", "format"}}
        members["format"] = _FORMAT
        members["files"] = {path: {"bytes": f.length, "sha256": f.sha256} for path, f in self.files.items()}
        return members


_MEMBERS = frozenset({"format", *ModelManifest.__dataclass_fields__})


def manifests() -> Mapping[str, ModelManifest]:
    """The models that this project lists, by name."""
    folder = resources.files(__package__) / "manifests"
    found = [ModelManifest.parse(f.read_bytes()) for f in folder.iterdir() if f.name.endswith(".json")]
    return {m.name: m for m in sorted(found, key=lambda m: m.name)}


def manifest(name: str) -> ModelManifest:
    """The listed model of this name. Raises ``NotFound`` (``model_unknown``)."""
    listed = manifests()
    if name not in listed:
        raise NotFound(f"no such model is listed; there are {', '.join(listed)}", code="model_unknown")
    return listed[name]


def read_manifest(path: Path) -> ModelManifest:
    """A manifest of one's own, from a file. Raises ``ConfigurationError`` (``manifest_missing``, ``manifest_invalid``)."""
    try:
        with path.open("rb") as file:
            raw = file.read(manifest_bytes_max + 1)
    except OSError:
        raise ConfigurationError("the model's manifest cannot be read", code="manifest_missing") from None
    return ModelManifest.parse(raw)


def write_manifest(manifest: ModelManifest, path: Path) -> None:
    """Write the manifest, indented for people; a failure leaves no half-written file behind."""
    raw = json.dumps(manifest._members(), sort_keys=True, indent=2, ensure_ascii=False).encode() + b"\n"
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".manifest-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fchmod(handle, 0o644)  # no secret, and the service is seldom the user who measured
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _ensure_paths(files: Mapping[str, FileDigest]) -> None:
    if not 1 <= len(files) <= manifest_files_max:
        _refuse(f"it names 1 to {manifest_files_max} files")
    for path in files:
        parts = path.split("/")
        if len(parts) > 4 or not all(_matches(_PATH_PART, part) for part in parts):
            _refuse("a file's path is not a plain relative path")
        if PurePosixPath(path).suffix not in _SUFFIXES:
            _refuse("a file is not of a kind that holds data only")
        if any("/".join(parts[:n]) in files for n in range(1, len(parts))):
            _refuse("a path is both a file and a folder")
    if len({path.lower() for path in files}) != len(files):
        _refuse("two paths differ in case only")


def _object(value: object, members: set[str] | frozenset[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != members:
        _refuse("members are missing or unknown")
    return cast("dict[str, Any]", value)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError
    return value


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.match(value) is not None


def _is_int(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_prefix(value: object) -> bool:
    if not isinstance(value, str) or len(value) > prefix_characters_max:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)  # a lone surrogate has no UTF-8


def _refuse(why: str) -> NoReturn:
    raise ConfigurationError(f"the model's manifest is refused: {why}", code="manifest_invalid")
