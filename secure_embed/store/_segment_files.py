"""Files of slots: written and overwritten, and the faults of the file system in our taxonomy.

Nothing is known here of collections or rows. Reading is in ``_open_files``.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secure_embed.errors import IntegrityFailure, SecureEmbedError, Unavailable

__all__ = [
    "damaged",
    "faults",
    "files_below",
    "overwrite_and_unlink",
    "sync_folder",
    "write_all",
    "writing",
]

zeros = bytes(1 << 20)

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


class _Faults:
    """Every read of a query goes through it: an object costs a third of what a generator does."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: object) -> None:
        if isinstance(fault, OSError):
            raise _unavailable(fault) from None


faults = _Faults()


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
