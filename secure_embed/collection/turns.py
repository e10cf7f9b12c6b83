"""Writers of one collection, one after the other, in the order in which they came.

A lock of the standard library goes to whoever asks at the right moment: work in the background that takes it again and
again, a batch at a time, would keep an erasure out for as long as it likes.
"""

from collections import deque
from threading import Lock, get_ident
from types import TracebackType

__all__ = ["Turns"]


class Turns:
    """Used as ``with turns:``; a thread may enter again within itself."""

    def __init__(self) -> None:
        self._mutex = Lock()
        self._waiting: deque[tuple[int, Lock]] = deque()
        self._owner: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        me = get_ident()
        with self._mutex:
            if self._owner in {None, me}:
                self._owner, self._depth = me, self._depth + 1
                return
            mine = Lock()
            mine.acquire()
            self._waiting.append((me, mine))
        mine.acquire()  # until it is handed over

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._mutex:
            self._depth -= 1
            if self._depth:
                return
            self._owner = None
            if self._waiting:
                self._owner, theirs = self._waiting.popleft()
                self._depth = 1
                theirs.release()
