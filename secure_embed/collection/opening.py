"""Codes on their way into memory: how far they are, who waits for them, and whom a fault is told.

One :class:`Opening` is one attempt. It ends with codes, or with the error that everyone who waited gets.
"""

import logging
import math
import time
from dataclasses import dataclass
from threading import Event
from typing import TypeVar

from secure_embed.errors import Unavailable
from secure_embed.index import RabitqShard

__all__ = ["Opening", "Progress", "Stopped", "again"]

retry_s_min, retry_s_max, retry_unknown_s = 1, 60, 5
said_every_s = 5.0

_progress = logging.getLogger("secure_embed.progress")  # `serve` shows it on its console

E = TypeVar("E", bound=BaseException)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Records coded so far; ``again``: codes of an older codebook answer meanwhile."""

    done: int
    total: int
    again: bool


class Stopped(Exception):
    """The collection is being closed, or a change could not be followed: what was built so far is dropped."""


class Opening:
    """``shard``: what is being filled, once it is to be told of changes. Whoever writes holds the collection's turn."""

    def __init__(self, name: str, *, again: bool = False) -> None:
        """``name``: the collection's, for who operates the service."""
        self.name = name
        self.again = again
        self.shard: RabitqShard | None = None
        self.done = 0
        self.total = 0
        self.error: BaseException | None = None
        self.finished = Event()  # codes or error are there
        self.ended = Event()  # and nothing of it runs any more
        self._stopping = Event()
        self._began = self._said = time.monotonic()

    @property
    def progress(self) -> Progress:
        return Progress(done=min(self.done, self.total), total=self.total, again=self.again)

    def stop(self) -> None:
        self._stopping.set()

    def go_on(self) -> None:
        """Raises :class:`Stopped`."""
        if self._stopping.is_set():
            raise Stopped

    def say(self, doing: str) -> None:
        """From time to time, how far it is."""
        now = time.monotonic()
        if now >= self._said + said_every_s:
            self._said = now
            _progress.info("%s %s: %d of %d records", doing, self.name, self.done, self.total)

    def say_end(self) -> None:
        """Only of one that was long enough to be seen."""
        if self._said > self._began:
            _progress.info("codes of %s: %d records in %.0f s", self.name, self.done, time.monotonic() - self._began)

    def wait(self, wait_s: float | None) -> None:
        """Raises ``Unavailable`` (``index_building``, with the seconds after which to ask again), or what ended it."""
        if not self.finished.wait(wait_s):
            raise Unavailable(
                "the collection's codes are being read or built anew; nothing is answered in part",
                code="index_building",
                members={"retry_after_s": self.left_s()},
            )
        if self.error is not None:
            raise again(self.error)

    def left_s(self) -> int:
        """Seconds until it is through, by how long it took so far; between 1 and 60."""
        if not self.done:
            return retry_unknown_s
        passed = time.monotonic() - self._began
        left = passed * (self.total - self.done) / self.done
        return min(max(math.ceil(left), retry_s_min), retry_s_max)


def again(error: E) -> E:
    """The same error for one more caller: each has a receipt of its own in the log."""
    copy = error.__class__.__new__(error.__class__)
    Exception.__init__(copy, *error.args)
    copy.__dict__.update(error.__dict__)
    return copy
