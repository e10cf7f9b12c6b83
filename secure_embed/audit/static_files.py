"""The log as plain files: a C2SP static log (``checkpoint``, ``tile/...``) that foreign tools read.

Knows files, names and durability; no tree, no key. A file appears whole or not at all (written aside, then renamed), and
the checkpoint last, after everything it speaks of is durable.
"""

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from secure_embed.errors import IntegrityFailure

__all__ = ["NoSpace", "StaticFiles", "is_full"]

checkpoint_name = "checkpoint"
aside_suffix = ".new"


def is_full(fault: OSError) -> bool:
    """Whether there was no space: on the medium, in the quota, or under the limit of a file's size."""
    return fault.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NoSpace(OSError):
    """A file could not be written for want of space. Nothing has changed, and nothing that was synced is in doubt."""


class StaticFiles:
    """Raises ``OSError`` when it cannot write: its owner decides what that ends. ``NoSpace`` says that it ends nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unsynced: set[str] = set()

    def read_checkpoint(self) -> str | None:
        try:
            return (self._folder / checkpoint_name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError):
            raise IntegrityFailure("the log's checkpoint cannot be read", code="log_damaged") from None

    def has_tiles(self) -> bool:
        return (self._folder / "tile").exists()

    def read(self, path: str) -> bytes:
        try:
            return (self._folder / path).read_bytes()
        except OSError:
            raise IntegrityFailure("a file of the log cannot be read", code="log_damaged") from None

    def write(self, path: str, data: bytes) -> None:
        """Durable only after :meth:`sync`."""
        target = self._folder / path
        aside = target.with_name(target.name + aside_suffix)
        try:
            for parent in reversed(Path(path).parents):  # one by one: ``parents=True`` would not apply the mode to all
                (self._folder / parent).mkdir(exist_ok=True, mode=0o700)
            fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
            aside.replace(target)
        except OSError as fault:
            if not is_full(fault):
                raise
            aside.unlink(missing_ok=True)
            raise NoSpace(fault.errno, "no space") from None
        self._unsynced.add(path)

    def keep(self, paths: Iterable[str]) -> None:
        """Count files that are there as written now."""
        self._unsynced.update(paths)

    def sync(self) -> None:
        """Make everything written so far durable: the files, then the folders that name them."""
        folders = {self._folder}
        for path in self._unsynced:
            _sync(self._folder / path)
            folders.update(self._folder / parent for parent in Path(path).parents)
        for folder in sorted(folders, key=lambda f: len(f.parts), reverse=True):
            _sync(folder)
        self._unsynced.clear()

    def put_checkpoint(self, note: str) -> None:
        """Durable on return, with everything written before it."""
        self.sync()
        self.write(checkpoint_name, note.encode())
        self.sync()

    def drop(self, paths: Iterable[str]) -> None:
        """Delete partial tiles and bundles whose place wider ones have taken."""
        for path in paths:
            (self._folder / path).unlink(missing_ok=True)
            with suppress(OSError):  # another width is still there
                (self._folder / path).parent.rmdir()

    def partials(self) -> set[str]:
        """Every partial tile and bundle that is there: after a crash, not all of them need be current."""
        return {str(p.relative_to(self._folder)) for p in (self._folder / "tile").rglob("*.p/*")}

    def drop_asides(self) -> None:
        """Delete what a write left that was cut off before its file had its name."""
        for path in list(self._folder.rglob("*" + aside_suffix)):
            path.unlink()


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
