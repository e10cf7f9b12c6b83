"""A keyring that is to take the place of the present one: one mechanism for a new root, log key or database keys.

It is made durable beside the present keyring first, then what depends on it is changed (collection keys wrapped anew, a
database under its new key), then it is renamed over the present one. A crash leaves the present keyring, with or
without a successor beside it, or the successor in its place. Which of the two counts is for the caller to say, by
evidence: the root that the keys database names, the key that opens a database, the newest key of the log.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import UUID

from secure_embed.errors import Unavailable
from secure_embed.keys.keyring_file import KeyringFile, Purpose, Secret, next_path
from secure_embed.keys.locked import Held, LockedMemory
from secure_embed.keys.private_files import erase_file, sync_folder
from secure_embed.keys.protocol import KeyProvider
from secure_embed.keys.root import Root

__all__ = ["LeftOver", "Successor"]


class Successor:
    """The secrets of ``keyring.next.json``, unlocked. It ends with :meth:`commit` or :meth:`abandon`."""

    def __init__(
        self,
        path: Path,
        purpose: Purpose,
        root: Root,
        secrets: Mapping[Secret, Held],
        ended: Callable[["Successor", bool], None] | None = None,
    ) -> None:
        """``path``: of the present keyring. ``ended(self, committed)`` is told once, and owns the secrets from then."""
        self._path = path
        self.purpose = purpose
        self.root = root
        self.secrets = secrets
        self._ended = ended

    def secret(self, name: Secret) -> bytes:
        """32 bytes; the copy is the caller's to drop."""
        return self.secrets[name].copy()

    @property
    def root_key_id(self) -> str:
        return self.root.key_id

    def wrap_collection_key(self, key: bytes, uuid: UUID, version: int) -> bytes:
        """Under the successor's root."""
        return self.root.wrap_collection_key(key, uuid, version)

    def commit(self) -> None:
        """Put it in the present keyring's place, durable on return; the live keyring takes over its secrets and root.

        The bytes of the present file are overwritten, as far as the file system does that in place. Raises
        ``Unavailable`` (``storage_unavailable``): memory follows what the folder shows, and the next start decides.
        """
        try:
            old = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            raise _unavailable(self._path) from None
        try:
            next_path(self._path).replace(self._path)
            self._end(committed=True)
            sync_folder(self._path.parent)
            _overwrite(old)
        except OSError:
            raise _unavailable(self._path) from None
        finally:
            os.close(old)

    def abandon(self) -> None:
        """Remove the file and wipe the secrets."""
        _remove(next_path(self._path))
        self._end(committed=False)

    def close(self) -> None:
        """Wipe the secrets and leave the file: the next start finds it."""
        self._end(committed=False)

    def _end(self, *, committed: bool) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self, committed)
        if ended is None or not committed:
            for held in self.secrets.values():
                held.wipe()


class LeftOver:
    """A ``keyring.next.json`` that a start finds. Not unlocked yet: its root may be another than the present one's."""

    def __init__(self, path: Path) -> None:
        """``path``: of the present keyring. Raises as :meth:`KeyringFile.read`."""
        self._path = path
        self._file = KeyringFile.read(next_path(path))

    @property
    def purpose(self) -> Purpose:
        return self._file.purpose

    @property
    def provider(self) -> str:
        """The kind of the provider that wrapped it."""
        return self._file.provider

    @property
    def key_id(self) -> str:
        """Of the root key that wrapped it."""
        return self._file.key_id

    def open(self, provider: KeyProvider, memory: LockedMemory | None = None) -> Successor:
        """Raises ``ConfigurationError`` (``root_key_mismatch``) and ``SealedValueUnreadable``."""
        root, memory = Root(provider, self._file.deployment_id), memory or LockedMemory()
        opened = root.opened(self._file, name=next_path(self._path).name)
        held = {name: memory.hold(secret) for name, secret in opened.items()}
        return Successor(self._path, self._file.purpose, root, held)

    def abandon(self) -> None:
        _remove(next_path(self._path))


def _remove(path: Path) -> None:
    try:
        erase_file(path)
    except OSError:
        raise _unavailable(path) from None


def _overwrite(descriptor: int) -> None:
    status = os.fstat(descriptor)
    if status.st_nlink == 0:  # another name of it is somebody's backup
        os.pwrite(descriptor, bytes(status.st_size), 0)
        os.fsync(descriptor)


def _unavailable(path: Path) -> Unavailable:
    return Unavailable(f"{path.name} cannot be replaced now", code="storage_unavailable")
