"""One process has a database file open: an advisory lock (flock(2)) on a file beside it, held as long as it is open.

The kernel lets go of it when the process ends, however it ends. The file stays: removing it would let two processes
hold locks on two files of one name. It is no protection from who may write the folder.
"""

import fcntl
import os
import weakref
from pathlib import Path

from secure_embed.errors import ConfigurationError

__all__ = ["FileLock"]


class FileLock:
    def __init__(self, path: Path) -> None:
        """Raises ``ConfigurationError``: ``store_in_use`` when someone holds it, this process included, and
        ``store_unusable`` when it cannot be made (no folder, no permission, a link)."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            raise ConfigurationError(f"{path.name} cannot be opened for writing", code="store_unusable") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # held, or a file system that cannot lock: in both cases two could write
            os.close(descriptor)
            raise ConfigurationError(f"{path.name} is held by another opener", code="store_in_use") from None
        self._release = weakref.finalize(self, os.close, descriptor)

    def release(self) -> None:
        """Idempotent."""
        self._release()
