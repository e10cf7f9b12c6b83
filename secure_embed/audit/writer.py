"""One thread that writes, many that wait: what arrives while a commit is on its way shares the next one.

Knows batches and who waits; no entry, no tree, no file. After a fault nothing is accepted any more, and all who wait are
told; where there was no space only those of that commit are, and the next one is tried. Two commits are never on their way at once.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Condition, Thread
from typing import Generic, TypeVar

from secure_embed.audit.protocol import LogFull
from secure_embed.errors import AuditUnavailable

__all__ = ["GroupWriter"]

Item = TypeVar("Item")
Answer = TypeVar("Answer")
batch_max = 1_024  # items a commit
waiting_max = 8_192  # past this the log does not keep up, and callers are told so


class GroupWriter(Generic[Item, Answer]):
    """``commit`` takes a batch and returns one answer each, once all are durable; ``settle`` runs after they were
    handed out. Either raising is the end of this writer, but for ``commit`` raising :class:`LogFull`."""

    def __init__(self, commit: Callable[[Sequence[Item]], Sequence[Answer]], settle: Callable[[], None]) -> None:
        self._commit = commit
        self._settle = settle
        self._waiting: deque[tuple[Item, Future[Answer]]] = deque()
        self._changed = Condition()
        self._failed = False
        self._closing = False
        self._thread = Thread(target=self._run, name="audit-log-writer", daemon=True)
        self._thread.start()

    @property
    def failed(self) -> bool:
        return self._failed

    def submit(self, item: Item) -> "Future[Answer]":
        """Raises ``AuditUnavailable`` when nothing can be written, or too much waits already."""
        answer: Future[Answer] = Future()
        answer.set_running_or_notify_cancel()  # what is queued will be written: it cannot be cancelled
        with self._changed:
            if self._failed or self._closing or len(self._waiting) >= waiting_max:
                raise AuditUnavailable
            self._waiting.append((item, answer))
            self._changed.notify()
        return answer

    def fail(self) -> None:
        """Accept nothing any more."""
        with self._changed:
            self._failed = True
            self._changed.notify()

    def close(self) -> None:
        """Write what waits, then end the thread. Idempotent."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        batch = self._next()
        while batch:
            if not self._write(batch):
                return
            batch = self._next()

    def _next(self) -> list[tuple[Item, "Future[Answer]"]]:
        """The next batch; empty when it is over."""
        with self._changed:
            while not (self._waiting or self._closing or self._failed):
                self._changed.wait()
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), batch_max))]

    def _write(self, batch: list[tuple[Item, "Future[Answer]"]]) -> bool:
        try:
            if self._failed:
                raise AuditUnavailable
            for (_, future), answer in zip(batch, self._commit([item for item, _ in batch]), strict=True):
                future.set_result(answer)
            self._settle()
        except LogFull:
            for _, future in batch:
                future.set_exception(LogFull())
        except BaseException:  # noqa: BLE001 - whatever happened, no later event may be taken for written
            self._end(batch)
            return False
        return True

    def _end(self, batch: list[tuple[Item, "Future[Answer]"]]) -> None:
        with self._changed:
            self._failed = True
            rest = [future for _, future in (*batch, *self._waiting) if not future.done()]
            self._waiting.clear()
        for future in rest:
            future.set_exception(AuditUnavailable())
