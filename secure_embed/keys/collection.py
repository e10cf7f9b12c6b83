"""The unlocked keys of one collection: sealing, opening, keyed hashes, rotation. Formats: docs/formats.md.

Record keys lie wrapped in memory and are unwrapped one at a time, for one value. What is held open, in locked memory:
the collection key, the index key, the lookup key and the codes key. Wiping is best effort: CPython and OpenSSL make
copies that cannot be reached.
Sources: RFC 3394 (AES key wrap), NIST SP 800-38D (GCM).
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from uuid import UUID

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from secure_embed.errors import Conflict, SealedValueUnreadable, SecureEmbedError, Unavailable
from secure_embed.keys.keyring import Keyring
from secure_embed.keys.locked import Held
from secure_embed.keys.protocol import KeyStore, WrappedKey
from secure_embed.keys.sealing import (
    HEADER,
    IndexValue,
    Place,
    key_bytes,
    nonce_bytes,
    open_bound,
    prefix_bytes,
    seal_bound,
    sealed_overhead_bytes,
    vector_bytes,
)
from secure_embed.keys.tags import TagKind, tag
from secure_embed.keys.wrapped_table import WrappedTable
from secure_embed.keys.wrapping import rewrap, unwrap_key, wrap_collection, wrapped_bytes
from secure_embed.types import Field, Position, Positions

__all__ = ["CollectionKeys"]

first_version = 1
load_batch_keys = 10_000


@dataclass(slots=True, eq=False, repr=False)
class _Unlocked:
    """What rotation replaces as a whole; a reader takes one reference and works with it to the end."""

    version: int
    key: Held
    table: WrappedTable


class CollectionKeys:
    """Readers (open, seal, tag) run in several threads at once. ``admit``, ``discard`` and ``rotate`` take a lock
    among themselves; their caller lets one write to a collection happen at a time, key store included."""

    def __init__(
        self,
        uuid: UUID,
        keyring: Keyring,
        state: _Unlocked,
        *,
        index_key: Held,
        lookup_key: Held,
        codes_key: Held | None,
    ) -> None:
        self.uuid = uuid
        self._keyring = keyring
        self._place = Place(uuid)
        self._state: _Unlocked | None = state
        self._index_key = index_key
        self._lookup_key = lookup_key
        self._codes_key = codes_key
        self._writing = Lock()

    # --- life ------------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, keyring: Keyring, key_store: KeyStore, uuid: UUID) -> "CollectionKeys":
        """Make a collection's keys and put them durable. Raises ``Conflict`` when it has keys already."""
        key, index_key, lookup_key = (os.urandom(key_bytes) for _ in range(3))
        wrapped = wrap_collection(keyring, uuid, first_version, key=key, index_key=index_key, lookup_key=lookup_key)
        key_store.create_collection(wrapped)
        hold = keyring.memory.hold
        state = _Unlocked(version=first_version, key=hold(key), table=WrappedTable(0))
        return cls(uuid, keyring, state, index_key=hold(index_key), lookup_key=hold(lookup_key), codes_key=None)

    @classmethod
    def unlock(cls, keyring: Keyring, key_store: KeyStore, uuid: UUID) -> "CollectionKeys":
        """Open a collection's keys and load its wrapped record keys (41 bytes each).

        Raises ``NotFound``, and ``SealedValueUnreadable`` when its keys were wrapped by another root or elsewhere.
        """
        stored = key_store.collection(uuid)
        key = keyring.unwrap_collection_key(stored.collection_key, uuid, stored.version)
        index_key = unwrap_key(key, stored.index_key, where="index key")
        lookup_key = unwrap_key(key, stored.lookup_key, where="lookup key")
        codes_key = None if stored.codes_key is None else unwrap_key(key, stored.codes_key, where="codes key")
        table = WrappedTable(key_store.next_position(uuid))
        for batch in _batches(key_store.wrapped(uuid)):
            if any(record_key.version != stored.version for record_key in batch):
                raise Conflict("the collection's key was rotated meanwhile", code="key_version_stale")
            table = table.holding(batch)
        hold = keyring.memory.hold
        return cls(
            uuid,
            keyring,
            _Unlocked(version=stored.version, key=hold(key), table=table),
            index_key=hold(index_key),
            lookup_key=hold(lookup_key),
            codes_key=None if codes_key is None else hold(codes_key),
        )

    def close(self) -> None:
        """Drop the keys, overwriting what can be. Later calls raise ``Unavailable`` (``keys_closed``)."""
        with self._writing:
            state, self._state = self._state, None
            self._index_key.wipe()
            self._lookup_key.wipe()
            self._drop_codes_key()
            if state is not None:
                state.key.wipe()
                state.table.wipe()

    @property
    def version(self) -> int:
        """Of the collection key."""
        return self._unlocked().version

    @property
    def records(self) -> int:
        """Record keys held now."""
        return self._unlocked().table.count

    # --- keyed hashes and values under the index key ---------------------------------------------------------------

    def tag(self, kind: TagKind, *parts: str | bytes) -> bytes:
        """32 bytes under the lookup key, which outlives rotations; kinds and their parts are in :class:`TagKind`."""
        return tag(self._lookup_key.copy(), kind, *parts)

    def seal_index(self, value: IndexValue, plaintext: bytes) -> bytes:
        return seal_bound(self._index_key.copy(), plaintext, self._place.other(value))

    def open_index(self, value: IndexValue, sealed: bytes) -> bytes:
        """Raises ``SealedValueUnreadable``."""
        return open_bound(self._index_key.copy(), sealed, self._place.other(value), where=value.name.lower())

    # --- saved codes -----------------------------------------------------------------------------------------------

    @property
    def has_codes_key(self) -> bool:
        """Whether codes that were saved may open. An erasure or a rotation ends them."""
        return self._codes_key is not None

    def renew_codes_key(self, key_store: KeyStore) -> None:
        """Draw a key for codes that are about to be saved, durable on return; what was saved before never opens again.

        The codes are copied after this, with no erasure in between: one that comes later ends the key.
        """
        with self._writing:
            state, key = self._taken()
            self._drop_codes_key()
            fresh = os.urandom(key_bytes)
            key_store.put_codes_key(self.uuid, aes_key_wrap(key, fresh), version=state.version)
            self._codes_key = self._keyring.memory.hold(fresh)

    def seal_codes(self, chunk: int, last: bool, plaintext: bytes) -> bytes:
        """``chunk`` counts from 0. Raises ``Conflict`` (``codes_key_missing``) when an erasure or a rotation has ended
        the key: the codes have to be saved anew then."""
        held = self._codes_key
        if held is None:
            raise Conflict("the codes' key was ended meanwhile", code="codes_key_missing")
        return seal_bound(held.copy(), plaintext, self._place.codes(chunk, last=last))

    def open_codes(self, chunk: int, last: bool, sealed: bytes) -> bytes:
        """Raises ``SealedValueUnreadable`` for codes of another place, of an older saving, or from before an erasure."""
        held = self._codes_key
        if held is None:
            raise SealedValueUnreadable("codes")
        return open_bound(held.copy(), sealed, self._place.codes(chunk, last=last), where="codes")

    # --- records ---------------------------------------------------------------------------------------------------

    def seal_records(
        self,
        first_position: Position,
        subject_tags: Sequence[bytes | None],
        fields_rows: Sequence[Mapping[Field, bytes]],
        space_digest: bytes,
    ) -> tuple[list[WrappedKey], list[dict[Field, bytes]]]:
        """Seal n records at ``first_position`` and the n-1 after it, each under a new key of its own.

        The keys are not known here until :meth:`admit`: put them in the key store first. ``space_digest`` (32
        bytes) binds the vectors. Vectors are binary16, little endian.
        """
        if len(subject_tags) != len(fields_rows):
            raise ValueError("one subject tag, or None, for each record")
        state, key = self._taken()
        keys: list[WrappedKey] = []
        rows: list[dict[Field, bytes]] = []
        for offset, (subject_tag, fields) in enumerate(zip(subject_tags, fields_rows, strict=True)):
            position = Position(first_position + offset)
            drawn = os.urandom(key_bytes + nonce_bytes * len(fields))
            record_key = drawn[:key_bytes]
            cipher = AESGCM(record_key)
            row: dict[Field, bytes] = {}
            for number, (field, plaintext) in enumerate(fields.items()):
                nonce = drawn[key_bytes + nonce_bytes * number : key_bytes + nonce_bytes * (number + 1)]
                additional = self._place.record(position, field, space_digest)
                row[field] = b"".join((HEADER, nonce, cipher.encrypt(nonce, plaintext, additional)))
            rows.append(row)
            wrapped = aes_key_wrap(key, record_key)
            keys.append(WrappedKey(position=position, version=state.version, subject_tag=subject_tag, wrapped=wrapped))
        return keys, rows

    def admit(self, keys: Sequence[WrappedKey]) -> None:
        """Take up keys that the key store has made durable. Idempotent.

        Raises ``Conflict`` (``key_version_stale``) for keys of an older version that no rotation took along.
        """
        with self._writing:
            state = self._unlocked()
            fresh = [key for key in keys if key.version == state.version]
            # A rotation between put and admit re-wrapped what it found in the key store, these keys included.
            if any(not state.table.has(key.position) for key in keys if key.version != state.version):
                raise Conflict("the collection's key was rotated meanwhile", code="key_version_stale")
            self._state = _Unlocked(version=state.version, key=state.key, table=state.table.holding(fresh))

    def open(self, position: Position, field: Field, sealed: bytes, space_digest: bytes) -> bytes | None:
        """The plaintext, or None when the record's key is gone: it was erased, or never admitted.

        Raises ``SealedValueUnreadable`` for a wrong, moved or damaged value.
        """
        state, key = self._taken()
        wrapped, present = self._wrapped(state, np.array([position], dtype=np.int64))
        if not present[0]:
            return None
        record_key = unwrap_key(key, wrapped, where=field)
        return open_bound(record_key, sealed, self._place.record(position, field, space_digest), where=field)

    def open_vectors_into(
        self,
        positions: Positions,
        sealed: Sequence[bytes | None],
        out: npt.NDArray[np.float16],
        space_digest: bytes,
    ) -> npt.NDArray[np.bool_]:
        """Open n sealed vectors into ``out`` (n, d) float16, C-contiguous; no other copy of them is made.

        The (n,) answer says which were there: a row without key or sealed value is False and zeroed. Raises
        ``SealedValueUnreadable`` for one that does not open, and then zeroes all of ``out``.
        """
        if out.dtype != np.dtype("<f2") or out.shape[:1] != positions.shape or len(sealed) != len(positions):
            raise ValueError("positions (n,), sealed n and out (n, d) float16 belong together")
        state, key = self._taken()
        wrapped, present = self._wrapped(state, positions)
        if not present.any():
            out[:] = 0
            return present
        size = vector_bytes(out.shape[1])
        length = sealed_overhead_bytes + size
        place, into = self._place.record, out.data.cast("B")
        try:
            for row, (position, value) in enumerate(zip(positions.tolist(), sealed, strict=True)):
                if value is None or not present[row]:
                    present[row] = False
                    out[row] = 0
                    continue
                if len(value) != length or not value.startswith(HEADER):
                    raise SealedValueUnreadable(Field.VECTOR)
                its_wrap = wrapped[wrapped_bytes * row : wrapped_bytes * (row + 1)]
                record_key = unwrap_key(key, its_wrap, where=Field.VECTOR)
                AESGCM(record_key).decrypt_into(
                    value[len(HEADER) : prefix_bytes],
                    memoryview(value)[prefix_bytes:],
                    place(position, Field.VECTOR, space_digest),
                    into[size * row : size * (row + 1)],
                )
        except (InvalidTag, SealedValueUnreadable):
            out[:] = 0  # what opened before the bad one, and what GCM wrote before it found out
            raise SealedValueUnreadable(Field.VECTOR) from None
        return present

    def discard(self, positions: Iterable[Position]) -> None:
        """Forget keys that were shredded. Idempotent. A reader that began before may finish with them."""
        with self._writing:
            self._drop_codes_key()  # they hold codes of what is gone; the key store has ended this key too
            self._unlocked().table.drop(np.fromiter(positions, dtype=np.int64))

    # --- rotation --------------------------------------------------------------------------------------------------

    def rotate(self, key_store: KeyStore) -> int:
        """Make a new version of the collection key, wrap everything below it again, replace the old. Returns it.

        Readers go on meanwhile. All or nothing in the key store: a crash leaves the old version or the new one.
        Raises ``Conflict`` when the key store's keys changed meanwhile; nothing has changed then.
        """
        with self._writing:
            old, old_key = self._taken()
            key, version = os.urandom(key_bytes), old.version + 1
            new = wrap_collection(
                self._keyring,
                self.uuid,
                version,
                key=key,
                index_key=self._index_key.copy(),
                lookup_key=self._lookup_key.copy(),
            )
            keys = rewrap(key_store.wrapped(self.uuid), old=old_key, new=key, version=version)
            state = _Unlocked(version=version, key=self._keyring.memory.hold(key), table=WrappedTable(0).holding(keys))
            try:
                key_store.replace_version(new, keys)
            except SecureEmbedError:
                # It may have failed after the commit, at emptying the write-ahead log: memory follows the store.
                if key_store.collection(self.uuid).version == version:
                    self._replace(old, state)
                raise
            self._replace(old, state)
            return version

    # --- inside ----------------------------------------------------------------------------------------------------

    def _unlocked(self) -> _Unlocked:
        state = self._state
        if state is None:
            raise Unavailable("the collection's keys are closed", code="keys_closed")
        return state

    def _taken(self) -> tuple[_Unlocked, bytes]:
        """The state and a copy of its collection key that no wipe has touched."""
        while True:
            state = self._unlocked()
            try:
                return state, state.key.copy()
            except Unavailable:  # wiped: by a rotation, which replaces the state first, or for good
                if state is self._state:
                    raise

    def _wrapped(self, state: _Unlocked, at: Positions) -> tuple[bytes, npt.NDArray[np.bool_]]:
        taken = state.table.take(at)
        self._unlocked()  # close() empties the table: that is no answer of "absent"
        return taken

    def _replace(self, old: _Unlocked, new: _Unlocked) -> None:
        self._state = new
        old.key.wipe()
        self._drop_codes_key()

    def _drop_codes_key(self) -> None:
        held, self._codes_key = self._codes_key, None
        if held is not None:
            held.wipe()


def _batches(keys: Iterator[WrappedKey]) -> Iterator[list[WrappedKey]]:
    while batch := list(islice(keys, load_batch_keys)):
        yield batch
