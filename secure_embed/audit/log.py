"""The audit log: events in, receipts and proofs out. Joins the pure parts (events, tree, notes) to a storage and a key.

An INTENT is durable before anything is opened, an OUTCOME before the answer leaves. Each commit carries a signed checkpoint,
so no acknowledged event is without one. When the log cannot be written, everything here raises ``AuditUnavailable`` until
the service is started anew. What may not be in here: files, and what an action does.
"""

import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import TypeVar
from uuid import UUID

from secure_embed.audit.check import check_head, verify_reader
from secure_embed.audit.events import AuditEvent, Phase, orphans_max
from secure_embed.audit.export import export_static
from secure_embed.audit.merkle import CompactRange, leaf_hash
from secure_embed.audit.note import Checkpoint, NoteSigner
from secure_embed.audit.orphans import Unfinished, unfinished
from secure_embed.audit.protocol import Head, LogStorage
from secure_embed.audit.tiles import pack_entries
from secure_embed.audit.tree import Tree, tile_width
from secure_embed.audit.writer import GroupWriter
from secure_embed.errors import AuditUnavailable, SecureEmbedError
from secure_embed.types import Action, Receipt, Ticket

__all__ = ["AuditLog"]

T = TypeVar("T")
commit_wait_s = 30.0  # a medium that hangs longer counts as one that cannot be written


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class _Written:
    index: int
    leaf: bytes


class AuditLog:
    """Safe to call from several threads. One for a storage; it owns the storage and closes it."""

    def __init__(self, storage: LogStorage, signer: NoteSigner, clock: Callable[[], int] = _now_ms) -> None:
        """``clock``: unix time in ms. Derives the tree again from the stored leaf hashes, checks it against the signed
        head, names what the last run left unfinished and logs the start.

        Raises ``IntegrityFailure`` (``log_damaged``, ``note_invalid``) and ``AuditUnavailable``.
        """
        self._storage = storage
        self._signer = signer
        self._clock = clock
        self._lock = Lock()  # of the open intents
        self._open_intents: dict[int, tuple[str, str]] = {}
        self._tree = Tree(storage.leaf_hashes)
        self._range = self._derive(storage.head())
        self._head = storage.head()
        left = unfinished(storage)
        self._closed = False
        self._writer: GroupWriter[AuditEvent, _Written] = GroupWriter(self._commit, storage.settle)
        self._log_start(left)

    def _derive(self, head: Head) -> CompactRange:
        grown = CompactRange()
        for start in range(0, head.size, tile_width):
            completed: list[tuple[int, bytes]] = []
            hashes = self._storage.leaf_hashes(start, min(tile_width, head.size - start))
            for leaf in hashes:
                grown.append(leaf, completed)
            self._tree.extend(len(hashes), completed)
        check_head(head, grown.root(), self._signer.verifier)
        return grown

    def _log_start(self, left: Unfinished) -> None:
        if not left.clean or self._storage.torn_bytes:
            for at in range(0, max(len(left.orphans), 1), orphans_max):
                some = left.orphans[at : at + orphans_max]
                details = {"orphans_total": len(left.orphans), "torn_bytes": self._storage.torn_bytes}
                self.system(AuditEvent(phase=Phase.SYSTEM, action="log.recovery", orphans=some, details=details))
        self.system(AuditEvent(phase=Phase.SYSTEM, action="log.start"))

    # --- writing ---------------------------------------------------------------------------------------------------

    def submit_intent(
        self, event: AuditEvent, *, action: Action, openings_max: int, lifetime_s: float
    ) -> "Future[Ticket]":
        """Start writing an INTENT; the ticket comes once it is durable, and its lifetime counts from then.

        Wait with :meth:`wait`. The future fails with ``AuditUnavailable``; so does this call.
        """
        _require(event.phase is Phase.INTENT and event.action == action)
        ticket: Future[Ticket] = Future()
        ticket.set_running_or_notify_cancel()

        def mint(written: "Future[_Written]") -> None:
            error = written.exception()
            if error is not None:
                ticket.set_exception(error)
                return
            expires = time.monotonic() + lifetime_s
            index = written.result().index
            ticket.set_result(
                Ticket(intent_index=index, action=action, openings_max=openings_max, expires_monotonic=expires)
            )

        self._writer.submit(event).add_done_callback(mint)
        return ticket

    def wait(self, future: "Future[T]") -> T:
        """The future's result. A medium that does not answer in 30 s ends the log: ``AuditUnavailable``."""
        try:
            return future.result(timeout=commit_wait_s)
        except FutureTimeout:
            self._writer.fail()
            raise AuditUnavailable from None

    def outcome(self, event: AuditEvent) -> Receipt:
        """Write an OUTCOME; durable on return. Each INTENT has one outcome at most, with its request and action; a
        refusal before any INTENT names none."""
        _require(event.phase is Phase.OUTCOME)
        if event.intent is not None:
            with self._lock:
                _require(self._open_intents.get(event.intent) == (event.request, str(event.action)))
                del self._open_intents[event.intent]
        return self._write(event)

    def system(self, event: AuditEvent) -> Receipt:
        """Write an event of the service itself; durable on return."""
        _require(event.phase is Phase.SYSTEM)
        return self._write(event)

    def _write(self, event: AuditEvent) -> Receipt:
        written = self.wait(self._writer.submit(event))
        return Receipt(origin=self._signer.name, index=written.index, leaf_hash=written.leaf.hex())

    def _commit(self, events: Sequence[AuditEvent]) -> Sequence[_Written]:
        grown = self._range.copy()
        completed: list[tuple[int, bytes]] = []
        entries: list[bytes] = []
        written: list[_Written] = []
        for event in events:
            entry = self._stamp(event)
            entries.append(entry)
            written.append(_Written(grown.size, leaf_hash(entry)))
            grown.append(written[-1].leaf, completed)
        root = grown.root()
        note = self._signer.sign(Checkpoint(origin=self._signer.name, size=grown.size, root=root).text)
        new = Head(size=grown.size, root=root, checkpoint=note)
        self._storage.commit(self._head, entries, new)
        self._tree.extend(len(entries), completed)
        self._range, self._head = grown, new
        with self._lock:
            for event, place in zip(events, written, strict=True):
                if event.phase is Phase.INTENT:
                    self._open_intents[place.index] = (event.request, str(event.action))
        return written

    def _stamp(self, event: AuditEvent) -> bytes:
        """Time and uid (UUIDv7, RFC 9562 section 5.7) are given in the order of the log."""
        now_ms = self._clock()
        chance = int.from_bytes(secrets.token_bytes(10))
        low = 0b10 << 62 | chance & (1 << 62) - 1
        uid = UUID(int=(now_ms & (1 << 48) - 1) << 80 | 7 << 76 | (chance >> 62 & 0xFFF) << 64 | low)
        utc = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds")
        return event.to_bytes(uid=str(uid), time=utc.replace("+00:00", "Z"), time_ms=now_ms)

    # --- reading ---------------------------------------------------------------------------------------------------

    def require_available(self) -> None:
        """Raise ``AuditUnavailable`` when nothing can be logged: readiness asks this."""
        if self._writer.failed or self._closed:
            raise AuditUnavailable

    def head(self) -> Head:
        self.require_available()
        return self._head

    def checkpoint(self) -> str:
        """The signed note of the present head."""
        return self.head().checkpoint

    def tile(self, level: int, index: int, width: int = tile_width) -> bytes:
        """A hash tile (C2SP tlog-tiles). Raises ``NotFound`` (``tile_not_found``)."""
        self.require_available()
        return self._tree.tile(level, index, width)

    def bundle(self, index: int, width: int = tile_width) -> bytes:
        """An entry bundle (C2SP tlog-tiles). Raises ``NotFound``."""
        self.tile(0, index, width)  # the same bounds
        return pack_entries(self.entries(index * tile_width, width))

    def entries(self, start: int, count: int) -> Sequence[bytes]:
        """Raises ``NotFound`` (``entry_not_found``) unless all of them are there."""
        self.require_available()
        return self._storage.entries(start, count)

    def inclusion_proof(self, index: int, size: int) -> tuple[bytes, ...]:
        """RFC 6962 section 2.1.1. Raises ``NotFound``."""
        self.require_available()
        return self._tree.inclusion_proof(index, size)

    def consistency_proof(self, old_size: int, size: int) -> tuple[bytes, ...]:
        """RFC 6962 section 2.1.2. Raises ``NotFound``."""
        self.require_available()
        return self._tree.consistency_proof(old_size, size)

    def verify_self(self) -> Head:
        """Hash everything again, while the log goes on. Raises ``IntegrityFailure``."""
        self.require_available()
        return verify_reader(self._storage, self._signer.verifier)

    # --- copies and the end ----------------------------------------------------------------------------------------

    def export(self, folder: Path) -> Head:
        """Write a copy for an auditor into an empty folder; the head that it has."""
        head = self.head()
        export_static(self._storage, self._tree, head, folder)
        return head

    def publish(self) -> None:
        """Bring the folder's public form (C2SP static log) up to the head; durable on return."""
        self.require_available()
        try:
            self._storage.publish()
        except AuditUnavailable:
            self._writer.fail()
            raise

    def close(self) -> None:
        """Log the stop, naming intents without outcome; write what waits; publish. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        try:
            if not self._writer.failed:
                self._log_stop()
        finally:
            self._writer.close()
            self._storage.close()

    def _log_stop(self) -> None:
        with self._lock:
            orphans = tuple(sorted(self._open_intents))
        details = {"orphans_total": len(orphans)}
        some = orphans[:orphans_max]
        self.system(AuditEvent(phase=Phase.SYSTEM, action="log.stop", orphans=some, details=details))


def _require(fits: bool) -> None:
    if not fits:
        raise SecureEmbedError("an audit event does not fit where it is written", code="audit_event_invalid")
