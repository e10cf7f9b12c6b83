"""A backup, taken while the service answers. Writers wait while the databases are copied; queries do not.

Each backup is a folder of its own and complete. What has not changed since the last one beside it (full segments, full
tiles of the log) is linked, not copied. Nothing is in place before it was opened and read again.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from uuid import UUID, uuid4

from secure_embed.audit import AuditLog
from secure_embed.collection import Pause
from secure_embed.custody.backup.checking import records_opened
from secure_embed.custody.backup.manifest import Manifest, Part
from secure_embed.custody.backup.target import Target
from secure_embed.errors import Conflict, IntegrityFailure, InvalidRequest
from secure_embed.keys import Keyring

__all__ = ["BackupTaken", "Backups"]

Copy = Callable[[Path], None]
KEY_FILES = ("keys/root.json", "keys/keyring.json")
OPEN_FILES = ("secure-embed.toml", "log-verifier.key", "policies")
SEGMENTS, LOG = Path("data/segments"), Path("log")
wait_s = 20.0  # a root or log key takes less; databases of gigabytes take longer


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupTaken:
    id: UUID
    data: Path
    keys: Path
    records: int  # opened again in the copy
    log_size: int
    bytes_copied: int
    bytes_linked: int  # unchanged since the backup before


class Backups:
    """``copies``: path of a database below the deployment -> what copies it, consistently, to a new place. ``folders``: below which a backup may lie; others are refused.
    ``exclusive``: held while a backup is taken, checked and signed, and while keys of the whole deployment are replaced."""

    def __init__(
        self,
        *,
        root: Path,
        keyring: Keyring,
        copies: Mapping[str, Copy],
        log: AuditLog,
        pause: Pause,
        exclusive: Lock,
        folders: tuple[Path, ...],
    ) -> None:
        self._root = root
        self._keyring = keyring
        self._copies = copies
        self._log = log
        self._pause = pause
        self._folders = tuple(folder.resolve() for folder in folders)
        self._exclusive = exclusive

    def take(self, to: Path, keys_to: Path) -> BackupTaken:
        """Raises ``InvalidRequest`` (``backup_folder_refused``), ``Conflict`` (``backup_running``: another one, or root, log
        or database keys are being replaced and have not ended within ``wait_s``), and ``IntegrityFailure`` when what was written does not open; nothing is left behind then."""
        for folder in (to, keys_to):
            self._ensure_allowed(folder)
        if not self._exclusive.acquire(timeout=wait_s):
            raise Conflict("another backup is being taken, or keys are being replaced", code="backup_running")
        try:
            return self._take(to.resolve(), keys_to.resolve())
        finally:
            self._exclusive.release()

    def _ensure_allowed(self, folder: Path) -> None:
        resolved = folder.resolve()
        inside = any(resolved.is_relative_to(allowed) for allowed in self._folders)
        if not folder.is_absolute() or not inside or resolved.is_relative_to(self._root):
            raise InvalidRequest(
                "a backup lies below one of the folders that the setting backup.folders names, and outside of the deployment",
                code="backup_folder_refused",
            )

    def _take(self, to: Path, keys_to: Path) -> BackupTaken:
        identifier, now = uuid4(), datetime.now(UTC)
        name = f"{now:%Y%m%dT%H%M%SZ}-{identifier.hex[:8]}"
        data = Target(to / f"data-{name}", earlier=_latest(to, self._keyring.deployment_id))
        keys = Target(keys_to / f"keys-{name}", earlier=None)
        with ExitStack() as failed:
            failed.callback(data.discard)
            failed.callback(keys.discard)
            self._copy(data, keys)
            records = records_opened(data.partial, keys.partial, self._keyring)
            log_size = self._log.head().size
            for target, part in _parts(data, keys):
                Manifest(
                    backup=identifier,
                    part=part,
                    deployment=self._keyring.deployment_id,
                    taken=now.isoformat(timespec="seconds"),
                    log_size=log_size,
                    records=records,
                    files=target.files(),
                ).write(target.partial, self._log)
            keys.finish()  # first: data without keys is nothing, keys without data are harmless
            data.finish()
            failed.pop_all()
        return BackupTaken(
            id=identifier,
            data=data.place,
            keys=keys.place,
            records=records,
            log_size=log_size,
            bytes_copied=data.copied + keys.copied,
            bytes_linked=data.linked,
        )

    def _copy(self, data: Target, keys: Target) -> None:
        data.copy(self._root / SEGMENTS, SEGMENTS)  # the most of it, before anyone waits
        with self._pause.held():
            data.copy(self._root / SEGMENTS, SEGMENTS)
            for name, copy in self._copies.items():
                copy((keys if name.startswith("keys/") else data).made(Path(name)))
            for path in KEY_FILES:
                keys.copy(self._root / path, Path(path))
            self._log.snapshot_to(data.made(LOG))
        data.link_unchanged(LOG)
        for path in OPEN_FILES:
            data.copy(self._root / path, Path(path))


def _parts(data: Target, keys: Target) -> tuple[tuple[Target, Part], ...]:
    return (data, "data"), (keys, "keys")


def _latest(folder: Path, deployment: UUID) -> Path | None:
    """The newest data backup of this deployment in ``folder``."""
    for found in sorted(folder.glob("data-*"), reverse=True) if folder.is_dir() else ():
        try:
            if Manifest.read(found).deployment == deployment:
                return found
        except IntegrityFailure:
            continue
    return None
