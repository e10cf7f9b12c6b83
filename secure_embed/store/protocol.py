"""The door of store/: records at rest. Every value arrives sealed; a driver never sees plaintext.

One conformance suite runs against every driver (tests/unit/store/). Now: SQLCipher. Later: PostgreSQL.
"""

from collections.abc import Collection as AnyCollection
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, Protocol
from uuid import UUID

from secure_embed.types import Field, Position, Ticket

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
    kind: Literal["added", "erased"]
    first: Position
    count: int  # added: the positions first .. first+count-1; erased: exactly one position


class StateKind(IntEnum):
    """Whose small sealed state it is. The numbers are stored."""

    ERASURE = 1
    HOLD = 2
    TASK = 3


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

        Raises ``Conflict`` with code ``record_exists`` when an id's tag is taken, ``request_mismatch`` when the same
        request tag came with another body.
        """
        ...

    def replay(self, c: UUID, request: RequestKey) -> Appended | None:
        """What an earlier append under this request answered, or None. Raises ``Conflict`` (``request_mismatch``)."""
        ...

    def fetch(self, c: UUID, at: Sequence[Position], fields: AnyCollection[Field]) -> Mapping[Position, SealedRow]:
        """One round trip; erased and unknown positions are absent from the answer."""
        ...

    def scan(self, c: UUID, fields: AnyCollection[Field], *, after: Position, limit: int) -> Sequence[SealedRow]:
        """The next ``limit`` rows past ``after`` (-1: from the start), in the order of positions."""
        ...

    def locate(self, c: UUID, id_tags: Sequence[bytes]) -> Mapping[bytes, Position]:
        """Positions of the ids that are there."""
        ...

    def changes(self, c: UUID, *, since: int, limit: int) -> Sequence[Change]:
        """Those with a sequence past ``since`` (0: from the start), ascending, at most ``limit``."""
        ...

    def versions(self, c: UUID) -> Versions:
        """One consistent read. Raises ``NotFound``."""
        ...

    def erase(self, c: UUID, at: Sequence[Position], *, ticket: Ticket, mark: bytes | None = None) -> int:
        """Delete the rows in one transaction (secure_delete, then the write-ahead log is emptied), with what
        idempotency entries say of them, and write the ``mark``. Idempotent. Returns the erasure epoch."""
        ...

    def put_codebook(self, c: UUID, version: int, sealed: bytes) -> None:
        """Codebooks are immutable: raises ``Conflict`` unless ``version`` is one more than what is stored. Older
        versions are deleted."""
        ...

    def codebook(self, c: UUID) -> tuple[int, bytes] | None: ...

    def put_state(self, kind: StateKind, uuid: UUID, sealed: bytes) -> None:
        """Insert or replace a sealed state: an erasure with its receipt, a hold, a task that goes on after a crash."""
        ...

    def state(self, kind: StateKind, uuid: UUID) -> bytes:
        """Raises ``NotFound`` (``erasure_not_found``, ``hold_not_found``, ``task_not_found``)."""
        ...

    def states(self, kind: StateKind) -> Sequence[tuple[UUID, bytes]]:
        """All of one kind, in the order of uuids, so that what a crash cut off can be finished."""
        ...

    def drop_state(self, kind: StateKind, uuid: UUID) -> None:
        """Idempotent."""
        ...

    def mark(self, sealed: bytes) -> None:
        """Put the store's one mark in place of the one before: what the audit log's head was at the last write."""
        ...

    def marked(self) -> bytes | None: ...

    def close(self) -> None: ...
