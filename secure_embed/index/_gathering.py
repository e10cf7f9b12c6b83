"""Callers who ask at the same time, answered in few threads: each takes what waits along, and who is alone waits for nobody.

Threads that each do a query of their own hand the interpreter's lock to and fro at every array operation that lets go of
it, and two cores answer less than one (docs/decisions/0024). So only a few lead; who comes meanwhile waits, and the next
to lead answers for all who wait. Where several are being answered at a time, who leads gives them a moment to come.
"""

from collections import deque
from collections.abc import Callable, Sequence
from threading import Lock
from time import sleep
from typing import Generic, TypeVar

__all__ = ["Gathering"]

crowd_s = 200e-6  # about as long as it takes three callers to come back with their next

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")
Work = Callable[[Sequence[Ask]], Sequence[Answer | None]]


class _Place(Generic[Ask, Answer]):
    """One caller's. ``turn`` is held until it is answered, or is to lead."""

    __slots__ = ("answer", "ask", "leads", "turn")

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.answer: Answer | None = None
        self.leads = False
        self.turn = Lock()


class Gathering(Generic[Ask, Answer]):
    def __init__(self, *, lanes: int, together_max: int) -> None:
        """At most ``lanes`` threads work at a time, and each on ``together_max`` asks at most."""
        self._together_max = together_max
        self._lanes = self._free = lanes
        self._answering = 0
        self._waiting: deque[_Place[Ask, Answer]] = deque()
        self._lock = Lock()

    def __call__(self, ask: Ask, work: Work[Ask, Answer]) -> Answer:
        """``work`` is the same for all who ask, and is not kept. It answers several at once, None for one that has to be
        asked alone; it raises for one that is alone, and for several when it cannot tell whose the fault is."""
        mine: _Place[Ask, Answer] = _Place(ask)
        with self._lock:
            if self._free:
                self._free -= 1
                mine.leads = True
            else:
                mine.turn.acquire()
                self._waiting.append(mine)
        if not mine.leads:
            mine.turn.acquire()
        if mine.leads:
            self._lead(mine, work)
        if mine.answer is None:  # what is wrong with it, if anything, is nobody else's matter
            mine.answer = work([ask])[0]
        assert mine.answer is not None
        return mine.answer

    def _crowded(self) -> bool:
        """Whether others are being answered several at a time, and more are on their way than wait."""
        with self._lock:
            leading = self._lanes - self._free - 1
            return self._answering > leading and len(self._waiting) < self._together_max - 1

    def _lead(self, mine: _Place[Ask, Answer], work: Work[Ask, Answer]) -> None:
        others: list[_Place[Ask, Answer]] = []
        try:
            if self._crowded():
                sleep(crowd_s)
            with self._lock:
                while self._waiting and len(others) < self._together_max - 1:
                    others.append(self._waiting.popleft())
                self._answering += 1 + len(others)
            together = [mine, *others]
            for place, answer in zip(together, work([place.ask for place in together]), strict=True):
                place.answer = answer
        except Exception:
            if not others:
                raise
        finally:
            with self._lock:
                self._answering -= 1 + len(others)
                following = self._waiting.popleft() if self._waiting else None
                if following is None:
                    self._free += 1
                else:
                    following.leads = True
            if following is not None:
                following.turn.release()
            for place in others:
                place.turn.release()
