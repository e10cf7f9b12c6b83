"""Small private files: written whole or not at all, read with a bound. No format and no key is known here."""

import os
import secrets
import stat
from pathlib import Path

from secure_embed.errors import ConfigurationError

__all__ = ["erase_file", "read_bounded", "read_credential", "read_passphrase", "replace", "sync_folder", "write_new"]

secret_bytes_max = 4_096
key_file_bytes_max = 64 * 1024


def write_new(path: Path, content: bytes) -> None:
    """Create ``path`` (mode 0600), durable on return. Raises ``ConfigurationError`` (``key_file_exists``)."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # A link, not a rename: it fails where a file exists, and a root key that is overwritten is lost.
        os.link(temporary, path)
    except FileExistsError:
        raise ConfigurationError(f"{path.name} exists and is not overwritten", code="key_file_exists") from None
    finally:
        temporary.unlink()
    sync_folder(path.parent)


def replace(path: Path, content: bytes) -> None:
    """Put other content in place of a file that is there, in one step, durable on return."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    write_new(temporary, content)
    temporary.replace(path)
    sync_folder(path.parent)


def read_bounded(path: Path) -> bytes:
    """Raises ``ConfigurationError``: ``key_file_missing``, or ``key_file_invalid`` for one that is far too large."""
    try:
        with path.open("rb") as file:
            content = file.read(key_file_bytes_max + 1)
    except OSError:
        raise ConfigurationError(f"{path.name} cannot be read", code="key_file_missing") from None
    if len(content) > key_file_bytes_max:
        raise ConfigurationError(f"{path.name} is not a key file", code="key_file_invalid")
    return content


def read_passphrase(path: Path) -> bytearray:
    """The passphrase file's content without one final line end.

    Raises ``ConfigurationError``: ``passphrase_file_missing``, ``passphrase_file_permissions`` unless only its owner
    can read it and that is us, ``passphrase_invalid`` for an empty or very long one.
    """
    return _read_private(
        path,
        missing=ConfigurationError("the passphrase file cannot be read", code="passphrase_file_missing"),
        reachable=ConfigurationError(
            "the passphrase file must be ours and closed to everyone else (mode 0600 or stricter)",
            code="passphrase_file_permissions",
        ),
        invalid=ConfigurationError("the passphrase is empty or too long", code="passphrase_invalid"),
    )


def read_credential(path: Path, what: str) -> bytearray:
    """As :func:`read_passphrase`, for what lets us in elsewhere: ``what`` is "token PIN" or "Vault credential".

    Raises ``ConfigurationError``: ``credential_file_missing``, ``credential_file_permissions``, ``credential_invalid``.
    """
    return _read_private(
        path,
        missing=ConfigurationError(f"the file of the {what} cannot be read", code="credential_file_missing"),
        reachable=ConfigurationError(
            f"the file of the {what} must be ours and closed to everyone else (mode 0600 or stricter)",
            code="credential_file_permissions",
        ),
        invalid=ConfigurationError(f"the {what} is empty or too long", code="credential_invalid"),
    )


def erase_file(path: Path) -> None:
    """Overwrite ``path`` with zeros and remove it, durable on return; one that is gone already is fine.

    It reaches the file, not the medium: copies in a file system's journal, snapshots or flash stay.
    """
    try:
        with path.open("r+b") as file:
            file.write(bytes(os.fstat(file.fileno()).st_size))
            file.flush()
            os.fsync(file.fileno())
    except FileNotFoundError:
        return
    path.unlink()
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read_private(
    path: Path, *, missing: ConfigurationError, reachable: ConfigurationError, invalid: ConfigurationError
) -> bytearray:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not hang the start
    except OSError:
        raise missing from None
    with os.fdopen(descriptor, "rb") as file:
        if not _private(os.fstat(file.fileno())):
            raise reachable
        content = bytearray(file.read(secret_bytes_max + 1))
    if content.endswith(b"\n"):
        del content[-1]
        if content.endswith(b"\r"):
            del content[-1]
    if not 1 <= len(content) <= secret_bytes_max:
        raise invalid
    return content


def _private(status: os.stat_result) -> bool:
    """Asked of the open file, so that what was checked is what is read.

    systemd hands a service its credential as root's file, readable through an ACL whose mask shows as the group's
    read bit; root's own group gains nothing by it.
    """
    if not stat.S_ISREG(status.st_mode):
        return False
    if status.st_uid == os.geteuid():
        return not status.st_mode & 0o077
    return status.st_uid == 0 and status.st_gid == 0 and not status.st_mode & 0o037
