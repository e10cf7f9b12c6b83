"""The unlocked keys of one collection: sealing, opening, keyed hashes, rotation. Formats: docs/formats.md.

Record keys lie wrapped in memory and are unwrapped one at a time, for one value. What is held open, in locked memory:
the collection key, the index key, the lookup key and the codes key. Wiping is best effort: CPython and OpenSSL make
copies that cannot be reached.
Sources: RFC 3394 (AES key wrap), NIST SP 800-38D (GCM).
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from threading import Lock
from uuid import UUID

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from secure_embed.errors import Conflict, SealedValueUnreadable, SecureEmbedError, Unavailable
from secure_embed.keys.keyring import Keyring, NewKey
from secure_embed.keys.locked import Held
from secure_embed.keys.protocol import KeyStore, WrappedCollection, WrappedKey
from secure_embed.keys.record_keys import RecordKeys, load_table
from secure_embed.keys.rewrapping import Rewrapping
from secure_embed.keys.sealing import IndexValue, Place, key_bytes, open_bound, open_bound_into, seal_bound
from secure_embed.keys.tags import TagKind, tag
from secure_embed.keys.wrapped_table import WrappedTable
from secure_embed.keys.wrapping import unwrap_key, wrap_collection
from secure_embed.types import Field, Position, Positions

__all__ = ["CollectionKeys"]

first_version = 1


class CollectionKeys:
    """Readers (open, seal, tag) run in several threads at once. What writes takes a lock here; its caller lets one
    write to a collection happen at a time, key store included."""

    def __init__(
        self,
        uuid: UUID,
        keyring: Keyring,
        state: RecordKeys,
        *,
        index_key: Held,
        lookup_key: Held,
        codes_key: Held | None,
    ) -> None:
        self.uuid = uuid
        self._keyring = keyring
        self._place = Place(uuid)
        self._state: RecordKeys | None = state
        self._index_key = index_key
        self._lookup_key = lookup_key
        self._codes_key = codes_key
        self._epoch = 0
        self._writing = Lock()

    # --- life ------------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, keyring: Keyring, key_store: KeyStore, uuid: UUID) -> "CollectionKeys":
        """Make a collection's keys and put them durable. Raises ``Conflict`` when it has keys already."""
        index_key, lookup_key = os.urandom(key_bytes), os.urandom(key_bytes)

        def put(new: NewKey) -> None:
            key_store.create_collection(
                wrap_collection(uuid, first_version, new, index_key=index_key, lookup_key=lookup_key)
            )

        new = _put_new_key(keyring, key_store, uuid, first_version, put)
        hold = keyring.memory.hold
        state = RecordKeys(version=first_version, key=hold(new.key), table=WrappedTable(0))
        return cls(uuid, keyring, state, index_key=hold(index_key), lookup_key=hold(lookup_key), codes_key=None)

    @classmethod
    def unlock(cls, keyring: Keyring, key_store: KeyStore, uuid: UUID) -> "CollectionKeys":
        """Open a collection's keys and load its wrapped record keys (41 bytes each), offers included.

        Raises ``NotFound``, and ``SealedValueUnreadable`` when its keys were wrapped by another root or elsewhere.
        """
        stored, key = _collection_key(keyring, key_store, uuid)
        index_key = unwrap_key(key, stored.index_key, where="index key")
        lookup_key = unwrap_key(key, stored.lookup_key, where="lookup key")
        codes_key = None if stored.codes_key is None else unwrap_key(key, stored.codes_key, where="codes key")
        table = load_table(key_store, uuid, version=stored.version)
        offered = {each.position: each.wrapped for each in key_store.offered(uuid)}
        hold = keyring.memory.hold
        return cls(
            uuid,
            keyring,
            RecordKeys(version=stored.version, key=hold(key), table=table, offered=offered),
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

    def seal_codes(self, chunk: int, last: bool, plaintext: bytes | memoryview) -> bytes:
        """``chunk`` counts from 0. Raises ``Conflict`` (``codes_key_missing``) when an erasure or a rotation has ended
        the key: the codes have to be saved anew then."""
        held = self._codes_key
        if held is None:
            raise Conflict("the codes' key was ended meanwhile", code="codes_key_missing")
        return seal_bound(held.copy(), plaintext, self._place.codes(chunk, last=last))

    def open_codes_into(self, chunk: int, last: bool, sealed: memoryview, out: memoryview) -> int:
        """Open a chunk into a buffer that the caller uses again and wipes; gives how much of it is filled.

        No copy is left behind, and a chunk that does not open leaves zeros. Raises ``SealedValueUnreadable`` for codes
        of another place, of an older saving, or from before an erasure.
        """
        held = self._codes_key
        if held is None:
            raise SealedValueUnreadable("codes")
        return open_bound_into(held.copy(), sealed, self._place.codes(chunk, last=last), out, where="codes")

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
        positions = [Position(first_position + offset) for offset in range(len(fields_rows))]
        state, key = self._taken()
        return state.seal(self._place, key, positions, subject_tags, fields_rows, space_digest)

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
            table = state.table.holding([key.position for key in fresh], [key.wrapped for key in fresh])
            self._state = replace(state, table=table)

    def open(self, position: Position, field: Field, sealed: bytes, space_digest: bytes) -> bytes | None:
        """The plaintext, or None when the record's key is gone: it was erased, or never admitted.

        Raises ``SealedValueUnreadable`` for a wrong, moved or damaged value.
        """
        state, key = self._taken()
        plaintext = state.open(self._place, key, position, field, sealed, space_digest)
        self._unlocked()  # close() empties the table: that is no answer of "absent"
        return plaintext

    def open_vectors_into(
        self,
        positions: Positions,
        sealed: npt.NDArray[np.uint8],
        out: npt.NDArray[np.float16],
        space_digest: bytes,
    ) -> npt.NDArray[np.bool_]:
        """Open n sealed vectors, (n, 33 + 2d) uint8, into ``out`` (n, d) float16, both C-contiguous; no other copy of
        them is made.

        The (n,) answer says which have a key: a row without is False and zeroed. Raises ``SealedValueUnreadable`` for
        one that does not open, and then zeroes all of ``out``.
        """
        state, key = self._taken()
        present = state.open_vectors_into(self._place, key, positions, sealed, out, space_digest)
        self._unlocked()  # as in open()
        return present

    def discard(self, positions: Iterable[Position]) -> None:
        """Forget keys that were shredded. Idempotent. A reader that began before may finish with them."""
        with self._writing:
            self._drop_codes_key()  # they hold codes of what is gone; the key store has ended this key too
            state, at = self._unlocked(), set(positions)
            if not at.isdisjoint(state.offered):
                self._state = replace(state, offered=_without(state.offered, at))
            state.table.drop(np.fromiter(at, dtype=np.int64))

    # --- sealing again under new record keys ---------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """Counts how often keys took the place of others. Who reads a row, and cannot open it, reads it again when this
        has changed since before the reading: the row may have been of the time before."""
        return self._epoch

    @property
    def offered(self) -> tuple[Position, ...]:
        """Records whose next key is on offer. After a restart their rows may be of either key: see :meth:`settle`."""
        return tuple(Position(position) for position in sorted(self._unlocked().offered))

    def seal_again(
        self, positions: Sequence[Position], fields_rows: Sequence[Mapping[Field, bytes]], space_digest: bytes
    ) -> tuple[list[WrappedKey], list[dict[Field, bytes]]]:
        """Seal n records under new keys, as :meth:`seal_records`. Then: :meth:`offer` the keys, replace the rows in the
        store, :meth:`promote` the keys. A crash at any point leaves rows that open, and :meth:`settle` ends it."""
        state, key = self._taken()
        return state.seal(self._place, key, positions, [None] * len(positions), fields_rows, space_digest)

    def offer(self, key_store: KeyStore, keys: Sequence[WrappedKey]) -> None:
        """Durable on return; from here on a row of either key opens. Raises as ``KeyStore.offer``."""
        with self._writing:
            state = self._unlocked()
            key_store.offer(self.uuid, keys)
            self._state = replace(state, offered={**state.offered, **{key.position: key.wrapped for key in keys}})

    def promote(self, key_store: KeyStore, positions: Sequence[Position]) -> None:
        """The offered keys count from now on, and the old ones are gone. Only when the rows are replaced, durable."""
        with self._writing:
            self._unlocked()
            try:
                key_store.promote(self.uuid, positions)
            finally:  # it may have failed after its commit, at emptying the write-ahead log
                self._follow_offers(key_store, promoted=set(positions))

    def withdraw(self, key_store: KeyStore, positions: Sequence[Position]) -> None:
        """The offered keys are gone. Only where no row was sealed under them."""
        with self._writing:
            self._unlocked()
            try:
                key_store.withdraw(self.uuid, positions)
            finally:
                self._follow_offers(key_store, promoted=set())

    def settle(
        self, key_store: KeyStore, what: Field, sealed: Mapping[Position, bytes], space_digest: bytes
    ) -> tuple[list[Position], list[Position]]:
        """End every offer that a crash has left: promote it where it opens the row, else withdraw it. Gives both lists.

        ``sealed`` holds the field ``what`` of every row at :attr:`offered` that there is. Raises
        ``SealedValueUnreadable`` for a row that neither key opens; nothing has changed then.
        """
        state, key = self._taken()
        promoted: list[Position] = []
        withdrawn: list[Position] = []
        for position in self.offered:
            opens = position in sealed and state.offer_opens(
                self._place, key, position, what, sealed[position], space_digest
            )
            if not opens and position in sealed:
                self.open(position, what, sealed[position], space_digest)
            (promoted if opens else withdrawn).append(position)
        if promoted:
            self.promote(key_store, promoted)
        if withdrawn:
            self.withdraw(key_store, withdrawn)
        return promoted, withdrawn

    # --- rotation --------------------------------------------------------------------------------------------------

    def rotate(self, key_store: KeyStore) -> int:
        """Make a new version of the collection key, wrap everything below it again, replace the old. Returns it.

        Readers go on meanwhile. All or nothing in the key store: a crash leaves the old version or the new one. In
        memory a second table (41 bytes a record) is filled meanwhile. Raises ``Conflict`` when the key store has
        another version or root than we know; nothing has changed then.
        """
        with self._writing:
            old, old_key = self._taken()
            version = old.version + 1

            def put(new: NewKey) -> None:
                wrapped = wrap_collection(
                    self.uuid, version, new, index_key=self._index_key.copy(), lookup_key=self._lookup_key.copy()
                )
                rewrapping = Rewrapping(old_key, new.key, capacity=old.table.capacity)
                try:
                    key_store.replace_version(wrapped, rewrapping)
                except SecureEmbedError:
                    # It may have failed after the commit, at emptying the write-ahead log: memory follows the store.
                    if key_store.collection(self.uuid).index_key == wrapped.index_key:
                        self._replace(old, version, new.key, rewrapping)
                    raise
                self._replace(old, version, new.key, rewrapping)

            _put_new_key(self._keyring, key_store, self.uuid, version, put)
            return version

    # --- inside ----------------------------------------------------------------------------------------------------

    def _unlocked(self) -> RecordKeys:
        state = self._state
        if state is None:
            raise Unavailable("the collection's keys are closed", code="keys_closed")
        return state

    def _taken(self) -> tuple[RecordKeys, bytes]:
        """The state and a copy of its collection key that no wipe has touched."""
        while True:
            state = self._unlocked()
            try:
                return state, state.key.copy()
            except Unavailable:  # wiped: by a rotation, which replaces the state first, or for good
                if state is self._state:
                    raise

    def _replace(self, old: RecordKeys, version: int, key: bytes, rewrapping: Rewrapping) -> None:
        held = self._keyring.memory.hold(key)
        self._state = RecordKeys(version=version, key=held, table=rewrapping.table, offered=rewrapping.offered)
        old.key.wipe()
        self._drop_codes_key()

    def _follow_offers(self, key_store: KeyStore, *, promoted: Collection[Position]) -> None:
        """What the key store has no longer on offer is a key now where it was promoted, and nothing elsewhere.

        The order matters to readers without a lock. A reader that took its row before the rows were replaced finds the
        epoch changed once the old key fails. One that took it after finds the new key on offer, in the state it took,
        until the new key is whole in the table.
        """
        state = self._unlocked()
        still = {key.position for key in key_store.offered(self.uuid)}
        ended = {position: wrapped for position, wrapped in state.offered.items() if position not in still}
        fresh = [position for position in ended if position in promoted and state.table.has(position)]
        if fresh:
            self._epoch += 1
            state.table.overwrite(fresh, [ended[position] for position in fresh])
        self._state = replace(state, offered=_without(state.offered, ended))

    def _drop_codes_key(self) -> None:
        held, self._codes_key = self._codes_key, None
        if held is not None:
            held.wipe()


def _put_new_key(
    keyring: Keyring, key_store: KeyStore, uuid: UUID, version: int, put: Callable[[NewKey], None]
) -> NewKey:
    """Wrapped by the root that the key store names. Made twice where that one was replaced between asking and putting;
    a third root would take another whole rotation meanwhile."""
    for _ in range(2):
        new = keyring.new_collection_key(uuid, version, root_key_id=key_store.root_key_id())
        try:
            put(new)
        except Conflict as meanwhile:
            if meanwhile.code != "root_key_stale":
                raise
            continue
        return new
    raise Conflict("the root key was rotated meanwhile", code="root_key_stale")


def _collection_key(keyring: Keyring, key_store: KeyStore, uuid: UUID) -> tuple[WrappedCollection, bytes]:
    """Asked twice where a root rotation ended between the reading and the unwrapping."""
    for _ in range(2):
        stored = key_store.collection(uuid)
        try:
            key = keyring.unwrap_collection_key(
                stored.collection_key, uuid, stored.version, root_key_id=stored.root_key_id
            )
        except Conflict:
            continue
        return stored, key
    raise SealedValueUnreadable("collection key")


def _without(offered: Mapping[Position, bytes], gone: Collection[Position]) -> dict[Position, bytes]:
    return {position: wrapped for position, wrapped in offered.items() if position not in gone}
