"""The door of store/: records at rest. Every value arrives sealed; a driver never sees plaintext.

What an erasure promises here: when it returns, the record's vector, text, metadata and id tag are in no part of the
store's files, and nothing of them is left in unused space. Copies that a file system, a snapshot or flash made are
beyond it; what they hold opens only with the record's key.

One conformance suite runs against every driver (tests/unit/store/). Now: SQLCipher. Later: PostgreSQL.
"""

from collections.abc import Collection as AnyCollection
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, Protocol
from uuid import UUID

import numpy as np
import numpy.typing as npt

from secure_embed.types import Field, Position, Positions, Ticket

__all__ = [
    "Appended",
    "Change",
    "RecordStore",
    "RequestKey",
    "SealedCollection",
    "SealedRow",
    "StateKind",
    "Versions",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedCollection:
    uuid: UUID
    name_tag: bytes  # 32 bytes, keyed hash of the name
    descriptor: bytes  # sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRow:
    position: Position
    id_tag: bytes  # 32 bytes, keyed hash of the record's id
    fields: Mapping[Field, bytes]  # sealed; absent fields were not asked for
    expires_unix: int | None = None  # when retention ends; plain at rest


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKey:
    """Makes a write idempotent: the keyed hash of the caller's Idempotency-Key, and of what was asked under it."""

    tag: bytes  # 32 bytes
    body_tag: bytes  # 32 bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    first: Position
    count: int
    data_version: int
    replayed: bool  # True: this request had been appended before, and nothing was written now


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    data: int  # number of changes committed so far
    erasure: int  # number of erasures committed so far
    codebook: int  # 0: none stored
    next_position: Position
    records: int  # that are there now


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    sequence: int  # 1, 2, 3, ... without a gap, in commit order
    kind: Literal["added", "erased", "resealed"]
    first: Position
    count: int  # the positions first .. first+count-1; erased: exactly one; resealed: those of them that are there


class StateKind(IntEnum):
    """Whose small sealed state it is. The numbers are stored."""

    ERASURE = 1
    HOLD = 2
    TASK = 3
    TUNING = 4


class RecordStore(Protocol):
    """All changes are durable on return, all or nothing. Safe to call from several threads; one process only."""

    def create_collection(self, sealed: SealedCollection) -> None:
        """Raises ``Conflict`` (``collection_exists``) when the name's tag or the uuid is taken."""
        ...

    def collections(self) -> Sequence[SealedCollection]: ...

    def append(
        self, c: UUID, rows: Sequence[SealedRow], *, request: RequestKey | None, mark: bytes | None = None
    ) -> Appended:
        """Write rows at the positions they carry (consecutive, at or past ``next_position``), all or nothing, and the
        ``mark`` with them; a replay writes neither.

        Sealed vectors of a collection have one length, which its first row sets. Raises ``Conflict`` with code
        ``record_exists`` when an id's tag is taken, ``request_mismatch`` when the same request tag came with another
        body; ``Unavailable`` (``storage_full``, ``storage_read_only``; 507).
        """
        ...

    def replay(self, c: UUID, request: RequestKey) -> Appended | None:
        """What an earlier append under this request answered, or None. Raises ``Conflict`` (``request_mismatch``).

        An entry outlives the erasure of what it wrote: the answer stays, and nothing is written anew. What the body
        was is forgotten with the first such erasure, so from then on any body is answered.
        """
        ...

    def expire_requests(self, now_unix: int) -> int:
        """End entries that were written 24 hours ago or earlier; how many. A request that comes after that is new."""
        ...

    def fetch(self, c: UUID, at: Sequence[Position], fields: AnyCollection[Field]) -> Mapping[Position, SealedRow]:
        """One round trip; erased and unknown positions are absent from the answer.

        Raises ``IntegrityFailure`` (``segment_damaged``) when vectors are asked for and their file is not whole.
        """
        ...

    def vectors(self, c: UUID, at: Positions) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """Sealed vectors without an object for each: (n, bytes of one) uint8, and (n,) bool saying which are there.

        ``at``: (n,) int64, in any order. Rows of erased and unknown positions are zeros. Raises as :meth:`fetch`.
        """
        ...

    def scan(self, c: UUID, fields: AnyCollection[Field], *, after: Position, limit: int) -> Sequence[SealedRow]:
        """The next ``limit`` rows past ``after`` (-1: from the start), in the order of positions."""
        ...

    def locate(self, c: UUID, id_tags: Sequence[bytes]) -> Mapping[bytes, Position]:
        """Positions of the ids that are there."""
        ...

    def expired(self, c: UUID, now_unix: int, limit: int) -> Sequence[Position]:
        """Records whose retention ended at ``now_unix`` or before, the earliest first."""
        ...

    def segment_bounds(self, c: UUID) -> Sequence[tuple[Position, Position]]:
        """Ranges (first, end), end not included, that one :meth:`replace` rewrites as a whole; together they cover
        every record. Ascending."""
        ...

    def changes(self, c: UUID, *, since: int, limit: int) -> Sequence[Change]:
        """Those with a sequence past ``since`` (0: from the start), ascending, at most ``limit``."""
        ...

    def versions(self, c: UUID) -> Versions:
        """One consistent read. Raises ``NotFound``."""
        ...

    def erase(self, c: UUID, at: Sequence[Position], *, ticket: Ticket, mark: bytes | None = None) -> int:
        """Erase the records, what idempotency entries say of their content included, and write the ``mark``.

        They are gone for readers in one transaction; their bytes are overwritten before it returns, and after a crash
        at the next start. Idempotent. Returns the erasure epoch.
        """
        ...

    def replace(self, c: UUID, rows: Sequence[SealedRow], *, mark: bytes | None = None) -> None:
        """Put sealed values in place of those of the same records, all or nothing, and write the ``mark``.

        For sealing anew under other record keys: every value has the length of the one it replaces. ``rows`` ascend
        and lie within one of :meth:`segment_bounds`; what they replace is in no file on return. The data version
        counts one ``resealed``. Raises ``Conflict`` (``rows_changed``) when one is not there, or not as long.
        """
        ...

    def erase_collection(self, c: UUID, *, ticket: Ticket) -> None:
        """Erase all of it; it answers nothing from the first moment on, and its name is free in the end.

        In many transactions: call it again after a crash, until it returns. Idempotent. The uuid stays taken.
        Raises ``NotFound`` for one that never was.
        """
        ...

    def put_codebook(self, c: UUID, version: int, sealed: bytes) -> None:
        """Codebooks are immutable: raises ``Conflict`` unless ``version`` is one more than what is stored. Older
        versions are deleted."""
        ...

    def codebook(self, c: UUID) -> tuple[int, bytes] | None: ...

    def put_state(self, kind: StateKind, uuid: UUID, sealed: bytes) -> None:
        """Insert or replace a sealed state: an erasure with its receipt, a hold, a task that goes on after a crash, what a
        collection's tuning found (its uuid is the collection's)."""
        ...

    def state(self, kind: StateKind, uuid: UUID) -> bytes:
        """Raises ``NotFound`` (``erasure_not_found``, ``hold_not_found``, ``task_not_found``, ``tuning_not_found``)."""
        ...

    def states(self, kind: StateKind) -> Sequence[tuple[UUID, bytes]]:
        """All of one kind, in the order of uuids, so that what a crash cut off can be finished."""
        ...

    def drop_state(self, kind: StateKind, uuid: UUID) -> None:
        """Idempotent. What the state was is in no file on return; of one that was replaced, after the next erasure."""
        ...

    def mark(self, sealed: bytes) -> None:
        """Put the store's one mark in place of the one before: what the audit log's head was at the last write."""
        ...

    def marked(self) -> bytes | None: ...

    def let_go(self, c: UUID) -> None:
        """Give back what is held in memory of a collection beside its file; the next use reads it again."""
        ...

    @property
    def generation(self) -> int:
        """Counts the transactions that changed something, over the store's whole life."""
        ...

    def close(self) -> None: ...
