"""Work that no caller asks for: one thread, each job at its own interval, none of them able to end the others.

A job does a bounded amount and may be run again at any time, also after a crash; what it does is its own affair, and so
is what it writes into the log.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event, Thread

from secure_embed.errors import SecureEmbedError

__all__ = ["Job", "Upkeep"]

_logger = logging.getLogger(__name__)
join_s = 60.0


@dataclass(slots=True, kw_only=True)
class Job:
    """``next_due``: on the clock of ``time.monotonic``; the first run is one interval after the start."""

    name: str
    every_s: float
    run: Callable[[], object]
    next_due: float = field(default=0.0)


class Upkeep:
    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = list(jobs)
        self._stopping = Event()
        self._thread: Thread | None = None

    def start(self) -> None:
        for job in self._jobs:
            job.next_due = time.monotonic() + job.every_s
        self._thread = Thread(target=self._run, name="upkeep", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait for the job that runs, then end. Idempotent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(join_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            due = min(self._jobs, key=lambda job: job.next_due)
            if self._stopping.wait(max(0.0, due.next_due - time.monotonic())):
                return
            self.run(due)
            due.next_due = time.monotonic() + due.every_s

    @staticmethod
    def run(job: Job) -> None:
        """Do it once. What fails is named by its code and tried again at the next turn."""
        try:
            job.run()
        except SecureEmbedError as fault:
            _logger.warning("upkeep %s: %s", job.name, fault.code)
        except Exception as fault:  # noqa: BLE001 - the other jobs have to go on
            _logger.error("upkeep %s: %s", job.name, type(fault).__name__)
