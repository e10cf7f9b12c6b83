"""Restoring: a backup's two parts into an empty place, opened once before it is there under its name.

What is put back is an older state. That is written into the restored log, so that an auditor finds it there.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from secure_embed.audit import AuditEvent, Phase
from secure_embed.core import Core
from secure_embed.custody import Manifest
from secure_embed.errors import ConfigurationError, IntegrityFailure
from secure_embed.settings import Settings

__all__ = ["Restored", "acknowledge_rollback", "restore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    backup: str
    taken: str
    records: int
    log_size: int


def restore(data: Path, keys: Path, root: Path, *, passphrase_file: Path | None) -> Restored:
    """Put a backup in place at ``root``, which is absent or empty. ``keys``: a backup's keys part, or the ``keys`` folder
    of today: what was erased since then stays erased.

    ``passphrase_file``: copied to where the settings expect it inside of the deployment. Raises ``ConfigurationError``
    (``deployment_exists``), ``IntegrityFailure`` (``backup_damaged``, or whatever does not open).
    """
    root = root.absolute()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ConfigurationError(f"{root} is not empty", code="deployment_exists")
    manifest = Manifest.read(data)
    if manifest.part != "data":
        raise IntegrityFailure("the backup is damaged: this is not its data", code="backup_damaged")
    manifest.require_files(data)
    root.parent.mkdir(parents=True, exist_ok=True)
    before = os.umask(0o077)
    try:
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as made_in:
            made = Path(made_in) / "deployment"
            _lay_out(data, manifest, keys, made)
            restored = _open_once(
                data, manifest, made, passphrase_file, keys_of_today=not (keys / "backup.json").exists()
            )
            if root.exists():
                root.rmdir()
            made.rename(root)
    finally:
        os.umask(before)
    return restored


def _lay_out(data: Path, manifest: Manifest, keys: Path, made: Path) -> None:
    for path in manifest.files:
        _copy(data / path, made / path)
    for folder in ("tls", "secrets", "data", "log"):
        (made / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
    if (keys / "backup.json").exists():
        of_keys = Manifest.read(keys)
        if of_keys.part != "keys" or of_keys.deployment != manifest.deployment:
            raise IntegrityFailure("the backup is damaged: these are not its keys", code="backup_damaged")
        of_keys.require_files(keys)
        keys = keys / "keys"
    for name in ("root.json", "keyring.json", "keys.db"):
        if not (keys / name).is_file():
            raise IntegrityFailure(f"the backup is damaged: {name} is not there", code="backup_damaged")
        _copy(keys / name, made / "keys" / name)
    if (keys / "keys.db-wal").exists():  # a folder of today, of a service that did not stop by itself
        _copy(keys / "keys.db-wal", made / "keys" / "keys.db-wal")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.copyfile(source, target)
    target.chmod(0o600)


def _open_once(
    data: Path, manifest: Manifest, made: Path, passphrase_file: Path | None, *, keys_of_today: bool
) -> Restored:
    """``keys_of_today``: they know a later log than the backup's, and the log will say so."""
    settings = Settings.load(made, dev=True)
    expected = settings.path(settings.keys.passphrase_file)
    if passphrase_file is not None and expected.is_relative_to(made.resolve()):
        _copy(passphrase_file, expected)
    with Core(settings, acknowledge_rollback=keys_of_today) as core:
        manifest.require_signed(data, [span.verifier for span in core.log.key_spans()])
        records = sum(_opened(core, name) for name in core.holdings.names())
        details: dict[str, str | int | bool] = {
            "backup": str(manifest.backup),
            "records": records,
            "log_size": manifest.log_size,
        }
        core.log.system(AuditEvent(phase=Phase.SYSTEM, action="store.restored", details=details))
        core.rollback.remember()
        size = core.log.head().size
    return Restored(backup=str(manifest.backup), taken=manifest.taken, records=records, log_size=size)


def _opened(core: Core, name: str) -> int:
    with core.holdings.using(name) as holding:
        return holding.open_all()


def acknowledge_rollback(settings: Settings) -> str | None:
    """Open a deployment in which an older state was put back, and write that it is meant. Gives the code of what was
    found, or None where nothing is older than it should be."""
    with Core(settings, acknowledge_rollback=True) as core:
        return core.rolled_back
