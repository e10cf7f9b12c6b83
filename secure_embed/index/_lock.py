"""A readers-writer lock: queries side by side, a change alone. No fairness among readers; a waiting writer goes first,
so that a stream of queries cannot hold up an erasure."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

__all__ = ["ReadersWriterLock"]


class _Reading:
    """``with`` it, among the readers. Every query does: an object costs a third of what a generator does."""

    __slots__ = ("_lock",)

    def __init__(self, lock: "ReadersWriterLock") -> None:
        self._lock = lock

    def __enter__(self) -> None:
        self._lock._enter()

    def __exit__(self, *fault: object) -> None:
        self._lock._leave()


class ReadersWriterLock:
    """Not reentrant: a thread that holds it must not ask for it again."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._readers = 0
        self._writers_waiting = 0
        self._writing = False
        self._reader = _Reading(self)

    def reading(self) -> _Reading:
        return self._reader

    def _enter(self) -> None:
        with self._changed:
            while self._writing or self._writers_waiting:
                self._changed.wait()
            self._readers += 1

    def _leave(self) -> None:
        with self._changed:
            self._readers -= 1
            if not self._readers and self._writers_waiting:
                self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._changed:
            self._writers_waiting += 1
            try:
                self._changed.wait_for(lambda: not self._writing and not self._readers)
                self._writing = True
            finally:
                self._writers_waiting -= 1
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
