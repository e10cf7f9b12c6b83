"""Calls into another's code that may hang, one after the other, and nobody waits for one longer than said.

A thread of its own runs them: a call into a C library, or a socket that gets a byte now and then, cannot be broken off.
Nothing is known here of keys.
"""

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

__all__ = ["Bounded", "TookTooLong"]

T = TypeVar("T")


class TookTooLong(Exception):
    """Given up waiting. A call that had begun may still run; one that had not will not begin any more."""


class Bounded:
    """Safe to call from several threads; the thread does not keep the process alive."""

    def __init__(self, name: str) -> None:
        self._waiting: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        Thread(target=self._run, name=name, daemon=True).start()

    def call(self, work: Callable[[], T], *, seconds: float) -> T:
        """What ``work`` returns or raises. Raises :class:`TookTooLong` when it did not end within ``seconds``."""
        promised: Future[T] = Future()
        self._waiting.put(lambda: _keep(promised, work))
        try:
            return promised.result(seconds)
        except TimeoutError:
            if promised.cancel() or not promised.done():
                raise TookTooLong from None
            return promised.result()  # it ended meanwhile, or it is the work itself that raised this

    def end(self) -> None:
        """The thread ends behind the calls that wait already."""
        self._waiting.put(None)

    def _run(self) -> None:
        while (step := self._waiting.get()) is not None:
            step()
            del step  # it holds what it was called with, keys among it, and the next one may be long in coming


def _keep(promised: Future[T], work: Callable[[], T]) -> None:
    if not promised.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as fault:  # noqa: BLE001 - it is raised again, in the thread that waits
        promised.set_exception(fault)
    else:
        promised.set_result(result)
