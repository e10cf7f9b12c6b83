"""Files of slots: opened, read, written, overwritten, and the faults of the file system in our taxonomy.

Nothing is known here of collections or rows. Slots are read with pread: a mapped file that a fault of the medium or a
foreign hand cuts short ends the process with SIGBUS (docs/decisions/0013).
"""

import errno
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from secure_embed.errors import IntegrityFailure, SecureEmbedError, Unavailable

__all__ = [
    "OpenFiles",
    "ReadOnly",
    "damaged",
    "faults",
    "files_below",
    "overwrite_and_unlink",
    "sync_folder",
    "write_all",
    "writing",
]

open_files_max = 256  # segments held open for reading
zeros = bytes(1 << 20)

_read_flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_write_flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


def damaged(first: int, end: int) -> IntegrityFailure:
    """Names the positions that the file holds, ``first`` to ``end`` - 1."""
    return IntegrityFailure(
        f"the segment of positions {first} to {end - 1} is missing or not as it was written", code="segment_damaged"
    )


def _unavailable(fault: OSError) -> SecureEmbedError:
    if fault.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return Unavailable("there is no space left to write", code="storage_full", http_status=507)
    if fault.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return Unavailable("the storage is read-only", code="storage_read_only", http_status=507)
    return Unavailable("the segments cannot be used now", code="storage_unavailable")


@contextmanager
def faults() -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        raise _unavailable(fault) from None


class ReadOnly:
    """A file to read from, closed when its last reader lets go of it, so that evicting it disturbs none."""

    __slots__ = ("_descriptor",)

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        self._descriptor = os.open(path, _read_flags)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read_into(self, offset: int, into: memoryview) -> bool:
        """False when the file ends before ``into`` is full."""
        read = os.preadv(self._descriptor, [into], offset)
        while 0 < read < len(into):
            more = os.preadv(self._descriptor, [into[read:]], offset + read)
            if not more:
                return False
            read += more
        return read == len(into)


class OpenFiles:
    """Files held open for reading, the least used closed first. Safe to call from several threads."""

    def __init__(self) -> None:
        self._held: OrderedDict[Path, ReadOnly] = OrderedDict()
        self._lock = Lock()

    def several(self, paths: Iterable[Path]) -> list[ReadOnly | None]:
        """None for one that is not there, or is a link."""
        with self._lock:
            return [self._file(path) for path in paths]

    def _file(self, path: Path) -> ReadOnly | None:
        file = self._held.get(path)
        if file is not None:
            self._held.move_to_end(path)
            return file
        try:
            file = self._held[path] = ReadOnly(path)
        except OSError as fault:
            if fault.errno in {errno.ENOENT, errno.ELOOP, errno.ENOTDIR}:
                return None
            raise
        if len(self._held) > open_files_max:
            self._held.popitem(last=False)
        return file

    def forget(self, path: Path) -> None:
        with self._lock:
            self._held.pop(path, None)

    def close(self) -> None:
        with self._lock:
            self._held.clear()


@contextmanager
def writing(path: Path, *, new: bool = False) -> Iterator[int]:
    """A descriptor to write with. ``new``: the file is made, or emptied where a write that was cut off left one."""
    descriptor = os.open(path, _write_flags | (os.O_CREAT | os.O_TRUNC if new else 0), 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: memoryview, offset: int) -> None:
    while content:
        written = os.pwrite(descriptor, content, offset)
        content, offset = content[written:], offset + written


def overwrite_and_unlink(path: Path) -> None:
    """Zeros over the whole file, durable, then its name goes. Idempotent. The caller syncs the folder."""
    try:
        with writing(path) as descriptor:
            size = os.fstat(descriptor).st_size
            for offset in range(0, size, len(zeros)):
                write_all(descriptor, memoryview(zeros)[: size - offset], offset)
            os.fdatasync(descriptor)
    except FileNotFoundError:
        return
    path.unlink()


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def files_below(folder: Path) -> Iterator[Path]:
    """Files in the folders of ``folder``; nothing when it is not there."""
    if folder.is_dir():
        for inner in sorted(folder.iterdir()):
            if inner.is_dir() and not inner.is_symlink():
                yield from sorted(inner.iterdir())
