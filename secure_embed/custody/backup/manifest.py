"""What a backup says of itself: ``backup.json``, and a note signed by the log's key over its digest (docs/formats.md).

A backup has two parts, each with a manifest of its own, so that they can be kept apart: ``data`` (sealed values, budgets,
the log, settings, policies) and ``keys`` (root parameters, keyring, wrapped keys). Neither holds the root key.
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal
from uuid import UUID

import orjson

from secure_embed.audit import AuditLog, NoteVerifier, verify_note
from secure_embed.errors import IntegrityFailure

__all__ = ["Manifest", "Part", "digest"]

Part = Literal["data", "keys"]
_KIND = "backup"
_manifest_name, _note_name = "backup.json", "backup.note"
manifest_bytes_max = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """``files``: path below the part's folder -> (bytes, hex SHA-256)."""

    backup: UUID
    part: Part
    deployment: UUID
    taken: str  # RFC 3339, UTC
    log_size: int
    records: int
    files: dict[str, tuple[int, str]]

    def write(self, folder: Path, log: AuditLog) -> None:
        raw = orjson.dumps({"format": "secure_embed/backup/v1", **asdict(self)}, option=orjson.OPT_SORT_KEYS)
        note = log.sign(kind=_KIND, text=hashlib.sha256(raw).hexdigest() + "\n")
        (folder / _manifest_name).write_bytes(raw)
        (folder / _note_name).write_text(note)

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Not verified yet. Raises ``IntegrityFailure`` (``backup_damaged``)."""
        try:
            raw = orjson.loads(_bounded(folder / _manifest_name))
            if raw.pop("format") != "secure_embed/backup/v1" or raw["part"] not in {"data", "keys"}:
                raise ValueError
            files = {str(path): (int(size), str(sha256)) for path, (size, sha256) in raw.pop("files").items()}
            if any(Path(path).is_absolute() or ".." in Path(path).parts for path in files):
                raise ValueError
            return cls(**{**raw, "backup": UUID(raw["backup"]), "deployment": UUID(raw["deployment"])}, files=files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise _damaged("its manifest cannot be read") from None

    def require_files(self, folder: Path) -> None:
        """Each file is there as it was written. Raises ``IntegrityFailure`` (``backup_damaged``) naming the first."""
        for path, (size, sha256) in self.files.items():
            file = folder / path
            if file.is_symlink() or not file.is_file() or file.stat().st_size != size or digest(file) != sha256:
                raise _damaged(f"{path} is not what was written")

    @staticmethod
    def require_signed(folder: Path, verifiers: list[NoteVerifier]) -> None:
        """One of the log's keys signed this manifest. Raises ``IntegrityFailure`` (``backup_damaged``)."""
        try:
            note = (folder / _note_name).read_text()
            expected = hashlib.sha256(_bounded(folder / _manifest_name)).hexdigest() + "\n"
        except (OSError, ValueError):
            raise _damaged("its signature cannot be read") from None
        for verifier in verifiers:
            try:
                if verify_note(verifier, note, kind=_KIND) == expected:
                    return
            except IntegrityFailure:
                continue
        raise _damaged("its signature is not of this deployment's log")


def digest(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        raw = file.read(manifest_bytes_max + 1)
    if len(raw) > manifest_bytes_max:
        raise ValueError
    return raw


def _damaged(what: str) -> IntegrityFailure:
    return IntegrityFailure(f"the backup is damaged: {what}", code="backup_damaged")
