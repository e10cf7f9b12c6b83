"""Python threads that take turns of half a millisecond while one works in the background on sealed values.

A query gives the interpreter away some ten times and asks for it again: each time it waits for a turn of the thread
beside it, 5 ms unless told otherwise. Measured in docs/decisions/0011 and 0019. The length of a turn is the process's,
so it is counted who wants it short.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

__all__ = ["short_turns"]

turn_s = 0.000_5


class _ShortTurns:
    def __init__(self) -> None:
        self._lock = Lock()
        self._wanted = 0
        self._before = 0.0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._wanted:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(turn_s)
            self._wanted += 1
        try:
            yield
        finally:
            with self._lock:
                self._wanted -= 1
                if not self._wanted:
                    sys.setswitchinterval(self._before)


short_turns = _ShortTurns()
