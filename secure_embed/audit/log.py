"""The audit log: events in, receipts and proofs out. Joins the pure parts (events, tree, notes) to a storage and a key.

An INTENT is durable before anything is opened, an OUTCOME before the answer leaves. Each commit carries a signed checkpoint,
so no acknowledged event is without one. When the log cannot be written, everything here raises ``AuditUnavailable`` until
the service is started anew; a medium that is full refuses what does not fit (``LogFull``) and nothing else. What may not be in here: files, and what an action does.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import TypeVar
from uuid import UUID

from secure_embed.audit.check import check_head, read_events, require_key, verify_reader
from secure_embed.audit.events import AuditEvent, Phase, orphans_max
from secure_embed.audit.export import copy_log, export_static
from secure_embed.audit.handover import ACTION as HANDOVER_ACTION
from secure_embed.audit.handover import HandOver, KeySpan, key_history, require_new, spans_of
from secure_embed.audit.merkle import CompactRange, leaf_hash
from secure_embed.audit.note import Checkpoint, NoteSigner, NoteVerifier, sign_note
from secure_embed.audit.orphans import Unfinished, unfinished
from secure_embed.audit.protocol import Head, LogFull, LogStorage
from secure_embed.audit.tiles import pack_entries
from secure_embed.audit.tree import Tree, require_root, tile_width
from secure_embed.audit.writer import GroupWriter
from secure_embed.errors import AuditUnavailable, NotFound, SecureEmbedError
from secure_embed.types import Action, Receipt, Ticket

__all__ = ["AuditLog"]

T = TypeVar("T")
# What the service does of itself under a ticket of this action.
_own_work = {Action.RECORD_ERASE: "retention.sweep", Action.COLLECTION_TUNE: "collection.tuned"}
commit_wait_s = 30.0  # a medium that hangs longer counts as one that cannot be written


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class _Written:
    index: int
    leaf: bytes


@dataclass(frozen=True, slots=True)
class _Rotation:
    """Takes the place of an event: what it says is known only where it is written."""

    new: NoteSigner


class AuditLog:
    """Safe to call from several threads. One for a storage; it owns the storage and closes it."""

    def __init__(self, storage: LogStorage, signer: NoteSigner, clock: Callable[[], int] = _now_ms) -> None:
        """``clock``: unix time in ms. Derives the tree again from the stored leaf hashes, checks it against the signed
        head, names what the last run left unfinished and logs the start.

        Raises ``IntegrityFailure`` (``log_damaged``, ``note_invalid``; ``log_key_mismatch`` where the log ends with another
        key) and ``AuditUnavailable``; the storage is closed then.
        """
        self._storage = storage
        self._signer = signer
        self._clock = clock
        self._lock = Lock()  # of the open intents
        self._rotating = Lock()
        self._open_intents: dict[int, tuple[str, str]] = {}
        self._tree = Tree(storage.leaf_hashes)
        self._closed = False
        self._writer: GroupWriter[AuditEvent | _Rotation, _Written] = GroupWriter(self._commit, storage.settle)
        try:
            self._head = storage.head()
            self._range = self._derive(self._head)
            left = unfinished(storage)
            self._spans = self._check_keys(left.key_at)
            self._log_start(left)
        except BaseException:
            self._writer.close()
            with suppress(SecureEmbedError):  # what went wrong first is what counts
                storage.close()
            raise

    def _derive(self, head: Head) -> CompactRange:
        grown = CompactRange()
        for start in range(0, head.size, tile_width):
            completed: list[tuple[int, bytes]] = []
            hashes = self._storage.leaf_hashes(start, min(tile_width, head.size - start))
            for leaf in hashes:
                grown.append(leaf, completed)
            self._tree.extend(len(hashes), completed)
        return grown

    def _check_keys(self, key_at: int | None) -> list[KeySpan]:
        if self._head.size:
            require_key(self._storage, self._tree, key_at, [self._signer.verifier])
        check_head(self._head, self._range.root(), self._signer.verifier)
        return spans_of(key_history(self._storage, self._tree, key_at), self._signer.verifier)

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
        _require(event.phase is Phase.INTENT and event.action in (action, _own_work.get(action)))
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
                open_intent = self._open_intents.pop(event.intent)
        try:
            return self._write(event)
        except LogFull:
            if event.intent is not None:  # nothing was written: it can still be ended
                with self._lock:
                    self._open_intents[event.intent] = open_intent
            raise

    def system(self, event: AuditEvent) -> Receipt:
        """Write an event of the service itself; durable on return. A hand-over is written by :meth:`rotate` alone."""
        _require(event.phase is Phase.SYSTEM and event.action != HANDOVER_ACTION)
        return self._write(event)

    def rotate(self, new: NoteSigner) -> Receipt:
        """Hand over to another signing key; durable on return, and signed by it from there on. The caller keeps both keys
        until this returned, and asks :func:`end_key` at its next start where it did not.

        Raises ``ConfigurationError`` (``log_signer_invalid``), ``Conflict`` (``log_key_reused``), ``AuditUnavailable``.
        """
        with self._rotating:
            require_new(new.verifier, self._spans)
            return self._write(_Rotation(new))

    def sign(self, *, kind: str, text: str) -> str:
        """A statement (:func:`sign_note`) by the key in force now. Sign after the entry that it names is durable: a key
        cannot vouch for what was logged after its time."""
        return sign_note(self._signer, kind=kind, text=text)

    def _write(self, event: AuditEvent | _Rotation) -> Receipt:
        written = self.wait(self._writer.submit(event))
        return Receipt(origin=self._signer.name, index=written.index, leaf_hash=written.leaf.hex())

    def _commit(self, items: Sequence[AuditEvent | _Rotation]) -> Sequence[_Written]:
        grown = self._range.copy()
        completed: list[tuple[int, bytes]] = []
        entries: list[bytes] = []
        written: list[_Written] = []
        spans, signers = list(self._spans), [self._signer]
        for item in items:
            if isinstance(item, _Rotation):
                event = self._handover(item.new, signers, grown, spans)
            elif item.action in ("log.start", "log.stop"):
                event = replace(item, key_at=_key_at(spans))
            else:
                event = item
            entry = self._stamp(event)
            entries.append(entry)
            written.append(_Written(grown.size, leaf_hash(entry)))
            grown.append(written[-1].leaf, completed)
        root = grown.root()
        text = Checkpoint(origin=self._signer.name, size=grown.size, root=root).text
        note = signers[-1].sign(text) + "".join(old.signature(text) for old in signers[:-1])
        new = Head(size=grown.size, root=root, checkpoint=note)
        self._storage.commit(self._head, entries, new)
        self._tree.extend(len(entries), completed)
        self._range, self._head = grown, new
        self._spans, self._signer = spans, signers[-1]
        with self._lock:
            for item, place in zip(items, written, strict=True):
                if isinstance(item, AuditEvent) and item.phase is Phase.INTENT:
                    self._open_intents[place.index] = (item.request, str(item.action))
        return written

    def _handover(
        self, new: NoteSigner, signers: list[NoteSigner], grown: CompactRange, spans: list[KeySpan]
    ) -> AuditEvent:
        """The event that stands at ``grown.size``; ``signers`` and ``spans`` go on with the new key."""
        at = grown.size
        note = HandOver.sign(signers[-1], new.verifier, size=at, root=grown.root())
        event = AuditEvent(phase=Phase.SYSTEM, action=HANDOVER_ACTION, key_at=_key_at(spans), handover=note)
        spans[-1] = replace(spans[-1], end=at)
        spans.append(KeySpan(new.verifier, at))
        signers.append(new)
        return event

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

    def newest_key(self) -> NoteVerifier:
        """The verifier key that is in force."""
        return self._spans[-1].verifier

    def key_spans(self) -> Sequence[KeySpan]:
        """Every verifier key that the log has had, oldest first, as its hand-overs say."""
        return tuple(self._spans)

    def root_at(self, size: int) -> bytes:
        """The root when the log had ``size`` entries. Raises ``NotFound`` (``size_not_found``)."""
        self.require_available()
        return self._tree.root(size)

    def require_head(self, size: int, root: bytes) -> None:
        """That the log goes on from where somebody else saw it. Raises ``IntegrityFailure`` (``log_rolled_back``)."""
        self.require_available()
        require_root(self._tree, size, root)

    def events_since(self, size: int) -> "Iterator[tuple[int, Mapping[str, object]]]":
        """Index and content of each entry from ``size`` up to the present head, each compared with its leaf hash; 256
        are in memory at a time. Raises ``NotFound`` (``size_not_found``), ``IntegrityFailure`` (``log_damaged``)."""
        head = self.head()
        if not 0 <= size <= head.size:
            raise NotFound("the log had no such size", code="size_not_found")
        return read_events(self._storage, size, head.size)

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
        return verify_reader(self._storage, [self._spans[0].verifier]).head

    # --- copies and the end ----------------------------------------------------------------------------------------

    def export(self, folder: Path) -> Head:
        """Write a copy for an auditor into an empty folder; the head that it has."""
        head = self.head()
        export_static(self._storage, self._tree, head, folder)
        return head

    def snapshot_to(self, folder: Path) -> Head:
        """Write a copy for a backup, or bring an older copy of this log there up to the present head; the head that it
        has. Durable on return; a copy that was cut off is still the older one. It opens as a log of its own.

        Raises ``Conflict`` (``export_target_not_empty``: something else lies there; ``snapshot_target_differs``: a copy of
        another log or of a later state), ``ConfigurationError`` (``log_in_use``), ``Unavailable``.
        """
        head = self.head()
        copy_log(self._storage, self._tree, head, folder)
        return head

    def publish(self) -> None:
        """Bring the folder's public form (C2SP static log) up to the head; durable on return."""
        self.require_available()
        try:
            self._storage.publish()
        except LogFull:
            raise
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


def _key_at(spans: Sequence[KeySpan]) -> int | None:
    """Index of the newest hand-over."""
    return spans[-1].first if len(spans) > 1 else None
