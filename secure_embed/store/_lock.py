"""One process has a store open: an advisory lock (flock(2)) on a file beside it, held for the store's life.

The kernel lets go of it when the process ends, however it ends. The file stays: removing it would let two processes
hold locks on two files of one name. It is no protection from who may write the folder.
"""

import fcntl
import os
from pathlib import Path

from secure_embed.errors import ConfigurationError

__all__ = ["StoreLock"]


class StoreLock:
    def __init__(self, path: Path) -> None:
        """Raises ``ConfigurationError``: ``store_in_use`` when someone holds it, ``store_unusable`` when it cannot be
        made (no folder, no permission, a link)."""
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            raise ConfigurationError(f"{path.name} cannot be opened for writing", code="store_unusable") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # held, or a file system that cannot lock: in both cases two processes could write
            os.close(self._descriptor)
            raise ConfigurationError(f"another process holds {path.name}", code="store_in_use") from None

    def release(self) -> None:
        """Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
