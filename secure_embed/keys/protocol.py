"""The doors of keys/: where root keys come from, and where wrapped record keys lie.

One conformance suite for each protocol runs against every driver (tests/unit/keys/).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from secure_embed.types import Position, Ticket

__all__ = ["KeyProvider", "KeyStore", "ProviderDescription", "Shredded", "WrappedCollection", "WrappedKey"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderDescription:
    kind: str  # "passphrase", later "pkcs11", "vault"
    key_id: str  # names the root key; reveals nothing of it
    parameters: dict[str, int | str]
    lacks: tuple[str, ...]  # what this provider cannot promise, for `doctor` and docs


class KeyProvider(Protocol):
    """Holds the root key and never hands it out."""

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """Seal ``key`` (32 bytes) under the root key, bound to ``context``."""
        ...

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Open what :meth:`wrap` gave. Raises ``SealedValueUnreadable`` for a wrong root key, context or byte."""
        ...

    def describe(self) -> ProviderDescription: ...

    def close(self) -> None:
        """Wipe what is held in memory, as far as CPython allows. Later calls raise."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedKey:
    """A record's key, AES key wrap (RFC 3394, 40 bytes) under version ``version`` of its collection's key."""

    position: Position
    version: int
    subject_tag: bytes | None  # 32 bytes, keyed hash of the data subject; None when the record names none
    wrapped: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedCollection:
    """A collection's keys: ``collection_key`` wrapped by the root, the others by the collection key."""

    uuid: UUID
    version: int  # of the collection key; starts at 1
    collection_key: bytes
    index_key: bytes
    lookup_key: bytes  # keyed hashes of identifiers; outlives every rotation of the collection key
    codes_key: bytes | None = None  # of the codes saved last; None when none are saved, or they were ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Shredded:
    positions: tuple[Position, ...]  # keys that existed and are gone; ascending
    key_version: int  # the version of the collection key that had wrapped them
    version_destroyed: bool  # whether that version itself is gone: then no copy of the rows opens without a copy of it


class KeyStore(Protocol):
    """The keys database. All changes are durable on return, all or nothing. Put before append, shred before erase."""

    def create_collection(self, wrapped: WrappedCollection) -> None:
        """Raises ``Conflict`` when the collection exists."""
        ...

    def collection(self, uuid: UUID) -> WrappedCollection:
        """Raises ``NotFound``."""
        ...

    def put(self, uuid: UUID, keys: Sequence[WrappedKey]) -> None:
        """Raises ``Conflict`` when a position already has a key: positions are never used twice."""
        ...

    def wrapped(self, uuid: UUID, *, since: Position = ...) -> Iterator[WrappedKey]:
        """Every key at ``since`` or later, in the order of positions."""
        ...

    def next_position(self, uuid: UUID) -> Position:
        """One past the highest position that ever had a key here."""
        ...

    def positions_of_subject(self, uuid: UUID, subject_tag: bytes) -> tuple[Position, ...]: ...

    def put_codes_key(self, uuid: UUID, wrapped: bytes, *, version: int) -> None:
        """In place of the codes key that is there, if any. Raises ``Conflict`` (``key_version_stale``) unless it was
        wrapped by the stored version of the collection key."""
        ...

    def shred(self, uuid: UUID, at: Sequence[Position], *, ticket: Ticket) -> Shredded:
        """End the keys and the codes key in one transaction; they are in no part of the files then. Idempotent."""
        ...

    def replace_version(self, new: WrappedCollection, keys: Sequence[WrappedKey]) -> None:
        """Put the re-wrapped keys of a whole collection in place of the old, and the new version for the old one.

        Raises ``Conflict`` unless ``new.version`` is one more than what is stored and ``keys`` covers exactly the
        positions that are stored.
        """
        ...

    def drop_collection(self, uuid: UUID, *, ticket: Ticket) -> None: ...

    def close(self) -> None: ...
