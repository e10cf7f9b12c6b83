"""One place in memory for unlocked keys: pages of our own, locked, left out of core dumps, emptied in a forked child.

Secrets share pages, so that thousands of collections do not need thousands of pages of a limit that is usually 8 MiB.
Locking is asked for page by page and may be refused (RLIMIT_MEMLOCK); the secret is held all the same, and
:attr:`LockedMemory.unlocked_bytes` says so. What leaves through :meth:`Held.copy` is an ordinary object of CPython: its
memory is freed, not wiped. Sources: mlock(2), madvise(2).
"""

import ctypes
import mmap
import os
from threading import Lock
from types import TracebackType
from typing import Self

from secure_embed.errors import Unavailable

__all__ = ["Held", "LockedMemory", "secret_bytes_max"]

secret_bytes_max = 32  # a slot
page_bytes = mmap.PAGESIZE
MADV_WIPEONFORK = 18  # Linux 4.14; Python's mmap does not name it

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mlock.argtypes = _libc.munlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class _Page:
    """An anonymous page of 128 slots. ``memory`` is zero wherever no secret is held."""

    __slots__ = ("free", "locked", "memory")

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, page_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for advice in (mmap.MADV_DONTDUMP, MADV_WIPEONFORK):
            _advise(self.memory, advice)
        self.locked: bool = _libc.mlock(_address(self.memory), page_bytes) == 0
        self.free = list(range(0, page_bytes, secret_bytes_max))

    def close(self) -> None:
        self.memory[:] = bytes(page_bytes)
        self.memory.close()  # unmapping unlocks


class Held:
    """One secret in locked memory. Neither ``repr`` nor equality touches it."""

    __slots__ = ("_at", "_length", "_owner", "_page")

    def __init__(self, owner: "LockedMemory", page: _Page, at: int, length: int) -> None:
        self._owner = owner
        self._page: _Page | None = page
        self._at = at
        self._length = length

    def __len__(self) -> int:
        return self._length

    def copy(self) -> bytes:
        """The secret, whole: never one that is being wiped. Raises ``Unavailable`` (``keys_closed``) after that.

        The copy is the caller's to drop at once.
        """
        with self._owner._changing:
            page = self._usable()
            return page.memory[self._at : self._at + self._length]

    def wipe(self) -> None:
        """Overwrite the secret and give its place back. Idempotent."""
        with self._owner._changing:
            page, self._page = self._page, None
            if page is not None and not page.memory.closed:
                page.memory[self._at : self._at + secret_bytes_max] = bytes(secret_bytes_max)
                page.free.append(self._at)

    def _usable(self) -> _Page:
        page = self._page
        # A forked child has zeros where the secrets were: a key of zeros must not be used.
        if page is None or page.memory.closed or self._owner.process != os.getpid():
            raise Unavailable("the keys are closed", code="keys_closed")
        return page


class LockedMemory:
    """Holds secrets of up to ``secret_bytes_max`` bytes until they are wiped or all of it is closed. Thread safe."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self._changing = Lock()
        self._pages: list[_Page] = []
        self._closed = False

    def hold(self, secret: bytes | bytearray) -> Held:
        """Copy ``secret`` (1 to 32 bytes) in; a ``bytearray`` is the caller's to overwrite then.

        Raises ``Unavailable`` (``keys_closed``) after :meth:`close`.
        """
        if not 1 <= len(secret) <= secret_bytes_max:
            raise ValueError(f"a held secret has 1 to {secret_bytes_max} bytes")
        with self._changing:
            if self._closed or self.process != os.getpid():
                raise Unavailable("the keys are closed", code="keys_closed")
            page = next((page for page in reversed(self._pages) if page.free), None)
            if page is None:
                page = _Page()
                self._pages.append(page)
            at = page.free.pop()
            page.memory[at : at + len(secret)] = secret
            return Held(self, page, at, len(secret))

    @property
    def locked(self) -> bool:
        """Whether no page of secrets can be swapped out."""
        return self.unlocked_bytes == 0

    @property
    def held_bytes(self) -> int:
        """Of all pages, locked or not."""
        with self._changing:
            return page_bytes * len(self._pages)

    @property
    def unlocked_bytes(self) -> int:
        """Of the pages whose lock the limit did not allow."""
        with self._changing:
            return page_bytes * sum(not page.locked for page in self._pages)

    def close(self) -> None:
        """Overwrite every secret and give the pages back. Idempotent."""
        with self._changing:
            self._closed = True
            pages, self._pages = self._pages, []
            for page in pages:
                page.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _advise(memory: mmap.mmap, advice: int) -> None:
    try:
        memory.madvise(advice)
    except OSError:  # a kernel without it: the pages are held without this protection, as without a lock
        return
