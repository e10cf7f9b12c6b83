"""Files held open for reading, the least used closed first, and the slots that are read from them.

A slot is read with pread: a mapped file that a fault of the medium or a foreign hand cuts short ends the process with
SIGBUS (docs/decisions/0013).
"""

import errno
import os
import resource
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from secure_embed import bulk

__all__ = ["FileTable", "NotThere", "OpenFiles"]

_read_flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_no_descriptors = np.zeros(0, np.int32)

Numbers = npt.NDArray[np.int64]

# Segments held open at once: half of what the process may have, 4,096 under the unit's limit.
open_files_max = max(256, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)


class NotThere(Exception):
    """``number`` is that of a file which is not there, or is a link, or ends too soon."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _ReadOnly:
    """Closed when its last reader lets go of it, so that evicting it disturbs none."""

    __slots__ = ("descriptor",)

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, _read_flags)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


class OpenFiles:
    """Safe to call from several threads."""

    def __init__(self) -> None:
        self._held: OrderedDict[Path, _ReadOnly] = OrderedDict()
        self._tables: WeakSet[FileTable] = WeakSet()
        self.lock = Lock()

    def join(self, table: "FileTable") -> None:
        with self.lock:
            self._tables.add(table)

    def file(self, path: Path) -> _ReadOnly | None:
        """None for one that is not there, or is a link. The caller holds the lock."""
        file = self._held.get(path)
        if file is not None:
            self._held.move_to_end(path)
            return file
        try:
            file = self._held[path] = _ReadOnly(path)
        except OSError as fault:
            if fault.errno in {errno.ENOENT, errno.ELOOP, errno.ENOTDIR}:
                return None
            raise
        if len(self._held) > open_files_max:
            self._held.popitem(last=False)
            self._let_go()  # what is closed must be in no table
        return file

    def forget(self, path: Path) -> None:
        with self.lock:
            self._held.pop(path, None)
            self._let_go()

    def close(self) -> None:
        with self.lock:
            self._held.clear()
            self._let_go()

    def _let_go(self) -> None:
        for table in self._tables:
            table.let_go()


class FileTable:
    """Of one collection: descriptors by its files' numbers, so that reading looks nothing up for each slot."""

    def __init__(self, files: OpenFiles, path_of: Callable[[int], Path]) -> None:
        """``path_of`` gives a number's path as it is now, and may raise."""
        self._files = files
        self._path_of = path_of
        self._now: tuple[npt.NDArray[np.int32], dict[int, _ReadOnly]] = (_no_descriptors, {})
        files.join(self)

    def read(self, numbers: Numbers, offsets: Numbers, out: npt.NDArray[np.uint8]) -> None:
        """Fill the n rows of ``out`` (n, bytes), from the files ``numbers`` (n,) at ``offsets`` (n,). Raises ``NotThere``,
        ``OSError``, and what ``path_of`` raises."""
        descriptors, held = self._now
        of_rows = descriptors.take(numbers, mode="clip") if len(descriptors) else _no_descriptors
        if int(numbers.max()) >= len(descriptors) or int(of_rows.min()) < 0:
            descriptors, held = self._opened(set(numbers.tolist()))
            of_rows = descriptors[numbers]
        for row in range(bulk.read_slots(of_rows, offsets, out), len(numbers)):
            if not _read_whole(int(of_rows[row]), int(offsets[row]), out[row].data):
                raise NotThere(int(numbers[row]))
        del held  # not before the last read

    def _opened(self, numbers: set[int]) -> tuple[npt.NDArray[np.int32], dict[int, _ReadOnly]]:
        with self._files.lock:
            files: dict[int, _ReadOnly] = {}
            for number in numbers:
                file = self._files.file(self._path_of(number))
                if file is None:
                    raise NotThere(number)
                files[number] = file
            files = self._now[1] | files  # after opening: what had to be closed for it is in no table any more
            descriptors = np.full(max(files) + 1, -1, np.int32)
            descriptors[list(files)] = [file.descriptor for file in files.values()]
            opened = (descriptors, files)
            if len(files) <= open_files_max:  # else some of them were closed again on the way, but for this reader
                self._now = opened
            return opened

    def let_go(self) -> None:
        """The files' lock is held. A reader that began before keeps what it reads from."""
        self._now = (_no_descriptors, {})

    def renewed(self) -> None:
        """Some number's path is another now."""
        with self._files.lock:
            self.let_go()


def _read_whole(descriptor: int, offset: int, into: memoryview) -> bool:
    """False when the file ends before ``into`` is full."""
    while into:
        read = os.preadv(descriptor, [into], offset)
        if not read:
            return False
        into, offset = into[read:], offset + read
    return True
