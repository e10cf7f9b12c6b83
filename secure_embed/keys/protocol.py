"""The doors of keys/: where root keys come from, and where wrapped record keys lie.

One conformance suite for each protocol runs against every driver (tests/unit/keys/).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import numpy as np
import numpy.typing as npt

from secure_embed.types import Position, Ticket

__all__ = [
    "KeyBatch",
    "KeyBlock",
    "KeyProvider",
    "KeyStore",
    "ProviderDescription",
    "Shredded",
    "WrappedCollection",
    "WrappedKey",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderDescription:
    kind: str  # "passphrase", "pkcs11" or "vault", as keys.provider in the settings
    key_id: str  # names the root key; reveals nothing of it
    parameters: dict[str, int | str]
    lacks: tuple[str, ...]  # what this provider cannot promise, for `doctor` and docs


class KeyProvider(Protocol):
    """Holds the root key and never hands it out. Safe to call from several threads.

    While the place where the root key lies is away, :meth:`wrap`, :meth:`unwrap`, :meth:`generate` and :meth:`check`
    raise ``Unavailable`` (``key_provider_unavailable``) within the seconds that the settings say; they work again,
    without a restart, once it is back.
    """

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """Seal ``key`` (32 bytes) under the root key, bound to ``context``."""
        ...

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Open what :meth:`wrap` gave. Raises ``SealedValueUnreadable`` for a wrong root key, context or byte."""
        ...

    def generate(self, context: bytes) -> tuple[bytes, bytes]:
        """A new random key (32 bytes), and the same as :meth:`wrap` gives it; made where the root key lies when that
        place makes keys."""
        ...

    def check(self) -> None:
        """Use the root key once. Returns when it can be used now, and raises as above when it cannot."""
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
    root_key_id: str  # of the root that wrapped ``collection_key``
    collection_key: bytes
    index_key: bytes
    lookup_key: bytes  # keyed hashes of identifiers; outlives every rotation of the collection key
    codes_key: bytes | None = None  # of the codes saved last; None when none are saved, or they were ended


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyBatch:
    """At most 10,000 wrapped keys of a collection, in the order of positions, that are about to be wrapped anew."""

    positions: Sequence[Position]
    wrapped: Sequence[bytes]
    offered: bool  # whether they are keys on offer, or those that count


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class KeyBlock:
    """Record keys of positions side by side, as :class:`WrappedKey`, without an object for each."""

    first: Position
    version: int
    present: npt.NDArray[np.bool_]  # (n,)
    wrapped: npt.NDArray[np.uint8]  # (n, 40); zeros where there is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Shredded:
    positions: tuple[Position, ...]  # keys that existed and are gone; ascending
    key_version: int  # the version of the collection key that had wrapped them


class KeyStore(Protocol):
    """The keys database. All changes are durable on return, all or nothing. Put before append, shred before erase."""

    def create_collection(self, wrapped: WrappedCollection) -> None:
        """The first one says which root it is. Raises ``Conflict``: ``collection_exists``, and ``root_key_stale``
        for a key that another root wrapped than the store's."""
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

    def blocks(self, uuid: UUID) -> Sequence[KeyBlock]:
        """What :meth:`wrapped` gives, in one consistent view, in the order of positions; none of them twice."""
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

    def offer(self, uuid: UUID, keys: Sequence[WrappedKey]) -> None:
        """Put a next key beside the present one, for records that are about to be sealed again. Nothing else changes.

        Raises ``Conflict``: ``key_version_stale`` as :meth:`put`, ``record_keys_changed`` for a position without a
        key, ``key_offered`` for one that has an offer: which key its row opens with has to be settled first.
        """
        ...

    def offered(self, uuid: UUID) -> Sequence[WrappedKey]:
        """In the order of positions."""
        ...

    def promote(self, uuid: UUID, at: Sequence[Position]) -> tuple[Position, ...]:
        """Put the offered keys in place of the old ones, which are in no part of the files then. Returns where;
        positions without an offer are passed over."""
        ...

    def withdraw(self, uuid: UUID, at: Sequence[Position]) -> tuple[Position, ...]:
        """End the offered keys; as :meth:`promote`."""
        ...

    def replace_version(self, new: WrappedCollection, rewrap: Callable[[KeyBatch], Sequence[bytes]]) -> None:
        """Put the new version of a collection's key in place of the old, all keys below it wrapped anew by ``rewrap``.

        One transaction, in which ``rewrap`` sees every key once, offers included; it runs in bounded memory.
        The codes key is ended. Raises ``Conflict``: ``key_version_stale`` unless ``new.version`` is one more than
        what is stored, ``root_key_stale`` as :meth:`create_collection`. What ``rewrap`` raises changes nothing.
        """
        ...

    def root_key_id(self) -> str | None:
        """The root that wraps the collection keys. None before the first collection."""
        ...

    def mark(self, sealed: bytes) -> None:
        """Keep a sealed value about the moment: what the log's head was, so that older data and log are noticed."""
        ...

    def marked(self) -> bytes | None:
        """The last one."""
        ...

    def rewrap_root(self, new_root_key_id: str, rewrap: Callable[[UUID, int, bytes], bytes]) -> int:
        """Put every collection key, wrapped anew by ``rewrap(uuid, version, old)``, in place of the old; all or none.

        Returns how many. It may be asked twice for a collection. What the old root wrapped is in no part of the
        files then.
        """
        ...

    @property
    def generation(self) -> int:
        """A durable count of changes: a store that counts less than was seen before is an older one put back."""
        ...

    def drop_collection(self, uuid: UUID, *, ticket: Ticket) -> None: ...

    def close(self) -> None: ...
