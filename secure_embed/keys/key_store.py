"""The keys database: wrapped keys in one SQLCipher file. Implements ``KeyStore``; sees no key unwrapped.

Keys end by being overwritten where they lie; no row is ever deleted or moved: ``key_tables`` says how that is seen to.
Rows are appended in the order of ``id``, and no index holds a key or a tag. Each table is sealed as a set of rows.

Every record key is wrapped by its collection's current key: ``put`` refuses another version, so no version is stored
beside each key. Every collection key is wrapped by the one root that ``root`` names.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from sqlcipher3.dbapi2 import Connection, IntegrityError

from secure_embed.errors import Conflict, NotFound
from secure_embed.keys import key_blocks
from secure_embed.keys.database import SealedDatabase
from secure_embed.keys.key_tables import column, migrations, none, position_of, sealed_tables, uncolumn
from secure_embed.keys.locked import LockedMemory
from secure_embed.keys.protocol import KeyBatch, KeyBlock, Shredded, WrappedCollection, WrappedKey
from secure_embed.keys.sealed_table import place
from secure_embed.types import Action, Position, Ticket

__all__ = ["SqlcipherKeyStore"]

batch_rows = 10_000
first_position = Position(0)

# zeroblob() of the same length: a row of the same size is written over the old one, in its place.
_end_offer = "UPDATE offers SET used = 0, place = zeroblob(16), wrapped = zeroblob(40) WHERE used = 1 AND place = ?"
_end_codes = "UPDATE collections SET codes_key = zeroblob(40) WHERE id = ? AND codes_key <> zeroblob(40)"
_collection = (
    "SELECT id, version, next_position, collection_key, index_key, lookup_key, codes_key"
    " FROM collections JOIN counters ON collection = id WHERE dropped = 0"
)

Row = tuple[Any, ...]  # what SQLite gives; each use names the columns it asked for


class SqlcipherKeyStore:
    """``KeyStore`` in one file. Safe to call from several threads; one process only."""

    def __init__(self, path: Path, key: bytes, rows_key: bytes, memory: LockedMemory | None = None) -> None:
        """``key``: of the file; ``rows_key``: of the hashes over its rows (``catalogue.rows_key``); 32 bytes each. Raises
        what :class:`SealedDatabase` raises."""
        self.database = SealedDatabase(
            path, key, migrations=migrations, memory=memory, sealed=(sealed_tables, rows_key)
        )
        try:
            self.database.empty_write_ahead_log()  # an erasure or a rotation cut short by a crash has left keys there
        except BaseException:
            self.database.close()
            raise

    # --- collections -----------------------------------------------------------------------------------------------

    def create_collection(self, wrapped: WrappedCollection) -> None:
        sql = "INSERT INTO collections (uuid, collection_key, index_key, lookup_key) VALUES (?, ?, ?, ?)"
        keys = (column(wrapped.collection_key), wrapped.index_key, wrapped.lookup_key)
        try:
            with self.database.transaction(refusable=True) as run:
                run.execute("INSERT OR IGNORE INTO root VALUES (1, ?)", (wrapped.root_key_id,))
                self._ensure_root(wrapped)
                number = run.execute(sql, (wrapped.uuid.bytes, *keys)).lastrowid
                run.execute("INSERT INTO counters (collection, version) VALUES (?, ?)", (number, wrapped.version))
        except IntegrityError:
            raise Conflict("the collection has keys already", code="collection_exists") from None

    def collection(self, uuid: UUID) -> WrappedCollection:
        sql = f"SELECT found.*, key_id FROM ({_collection} AND uuid = ?) AS found, root"
        _, version, _, collection_key, index_key, lookup_key, codes_key, root = self._one(sql, uuid)
        return WrappedCollection(
            uuid=uuid,
            version=version,
            root_key_id=root,
            collection_key=uncolumn(collection_key),
            index_key=index_key,
            lookup_key=lookup_key,
            codes_key=None if codes_key == none else codes_key,
        )

    def put_codes_key(self, uuid: UUID, wrapped: bytes, *, version: int) -> None:
        with self.database.transaction() as run:
            number, stored, *_ = self._row(uuid)
            if version != stored:
                raise Conflict("the collection's key was rotated meanwhile", code="key_version_stale")
            run.execute("UPDATE collections SET codes_key = ? WHERE id = ?", (wrapped, number))

    def drop_collection(self, uuid: UUID, *, ticket: Ticket) -> None:
        """Idempotent. The uuid cannot be used again."""
        ticket.require(Action.RECORD_ERASE, Action.COLLECTION_ERASE)
        with self.database.transaction() as run:
            found = run.execute("SELECT id FROM collections WHERE uuid = ?", (uuid.bytes,)).fetchone()
            if found is not None:
                key_blocks.end(run, found[0])
                run.executemany(_end_offer, [(at,) for at, _ in self._offers(found[0])])
                run.execute(
                    "UPDATE collections SET dropped = 1, collection_key = zeroblob(512), index_key = zeroblob(40),"
                    " lookup_key = zeroblob(40), codes_key = zeroblob(40) WHERE id = ?",
                    found,
                )
        self.database.empty_write_ahead_log()

    # --- record keys -----------------------------------------------------------------------------------------------

    def put(self, uuid: UUID, keys: Sequence[WrappedKey]) -> None:
        """Raises ``Conflict``: ``position_taken`` for a position that has or ever had a key, ``key_version_stale``
        for keys wrapped by another version of the collection key than the stored one."""
        if not keys:
            return
        with self.database.transaction() as run:
            number, version, next_position, *_ = self._row(uuid)
            _ensure_version(keys, version)
            positions = {key.position for key in keys}
            if len(positions) != len(keys) or min(positions) < next_position:
                raise Conflict("a position was used before", code="position_taken")
            key_blocks.put(run, number, keys)
            run.execute("UPDATE counters SET next_position = ? WHERE collection = ?", (max(positions) + 1, number))

    def wrapped(self, uuid: UUID, *, since: Position = first_position) -> Iterator[WrappedKey]:
        number, *_ = self._row(uuid)
        tags = key_blocks.tags(self.database, number)
        for block in self.blocks(uuid):
            for slot in np.flatnonzero(block.present).tolist():
                position = Position(block.first + slot)
                if position >= since:
                    yield WrappedKey(
                        position=position,
                        version=block.version,
                        subject_tag=tags.get(position),
                        wrapped=block.wrapped[slot].tobytes(),
                    )

    def blocks(self, uuid: UUID) -> Sequence[KeyBlock]:
        while True:
            number, version, *_ = self._row(uuid)
            found = key_blocks.read(self.database, number, version)
            if self._row(uuid)[1] == version:  # no rotation in between
                return found

    def next_position(self, uuid: UUID) -> Position:
        return Position(self._row(uuid)[2])

    def positions_of_subject(self, uuid: UUID, subject_tag: bytes) -> tuple[Position, ...]:
        """Ascending. No index holds tags, so it reads every tag of the collection."""
        return key_blocks.of_subject(self.database, self._row(uuid)[0], subject_tag)

    def shred(self, uuid: UUID, at: Sequence[Position], *, ticket: Ticket) -> Shredded:
        """Overwrites keys, offers and subject tags in place, then empties the write-ahead log."""
        ticket.require(Action.RECORD_ERASE)
        with self.database.transaction() as run:
            number, version, next_position, *_ = self._row(uuid)
            gone = key_blocks.shred(run, number, [position for position in at if 0 <= position < next_position])
            run.executemany(_end_offer, [(place(number, position),) for position in gone])
            run.execute(_end_codes, (number,))
        # Always, not only when something was deleted now: an earlier call may have stopped between the two.
        self.database.empty_write_ahead_log()
        return Shredded(positions=tuple(gone), key_version=version)

    # --- offers ----------------------------------------------------------------------------------------------------

    def offer(self, uuid: UUID, keys: Sequence[WrappedKey]) -> None:
        """Into rows of earlier offers where there are any: the table stays as small as the largest batch."""
        with self.database.transaction() as run:
            number, version, *_ = self._row(uuid)
            _ensure_version(keys, version)
            if not key_blocks.all_live(run, number, [key.position for key in keys]):
                raise Conflict("the collection's records changed meanwhile", code="record_keys_changed")
            free: list[Row] = self.database.rows("SELECT id FROM offers WHERE used = 0 LIMIT ?", (len(keys),))
            rows = [(place(number, key.position), key.wrapped) for key in keys]
            try:
                run.executemany(
                    "UPDATE offers SET used = 1, place = ?, wrapped = ? WHERE id = ?",
                    [(*row, slot) for row, (slot,) in zip(rows, free, strict=False)],
                )
                run.executemany("INSERT INTO offers (used, place, wrapped) VALUES (1, ?, ?)", rows[len(free) :])
            except IntegrityError:
                raise Conflict("a record has an offered key already", code="key_offered") from None

    def offered(self, uuid: UUID) -> Sequence[WrappedKey]:
        number, version, *_ = self._row(uuid)
        return [
            WrappedKey(position=position_of(at), version=version, subject_tag=None, wrapped=wrapped)
            for at, wrapped in self._offers(number)
        ]

    def promote(self, uuid: UUID, at: Sequence[Position]) -> tuple[Position, ...]:
        """Overwrites the old keys and the offers in place, then empties the write-ahead log."""
        return self._settle(uuid, at, promote=True)

    def withdraw(self, uuid: UUID, at: Sequence[Position]) -> tuple[Position, ...]:
        return self._settle(uuid, at, promote=False)

    def _settle(self, uuid: UUID, at: Sequence[Position], *, promote: bool) -> tuple[Position, ...]:
        wanted = set(at)
        with self.database.transaction() as run:
            number, *_ = self._row(uuid)
            found = [(position_of(where), where, wrapped) for where, wrapped in self._offers(number)]
            settled = [row for row in found if row[0] in wanted]
            if promote:
                key_blocks.replace(run, number, {position: wrapped for position, _, wrapped in settled})
            run.executemany(_end_offer, [(where,) for _, where, _ in settled])
        self.database.empty_write_ahead_log()
        return tuple(position for position, _, _ in settled)

    def _offers(self, number: int) -> list[Row]:
        """place, wrapped; in the order of positions."""
        sql = "SELECT place, wrapped FROM offers WHERE used = 1 AND place >= ? AND place < ? ORDER BY place"
        return self.database.rows(sql, (place(number, 0), place(number + 1, 0)))

    # --- rotation --------------------------------------------------------------------------------------------------

    def replace_version(self, new: WrappedCollection, rewrap: Callable[[KeyBatch], Sequence[bytes]]) -> None:
        """The rows are overwritten in place, then the write-ahead log is emptied: the old version is in neither."""
        with self.database.transaction() as run:
            number, version, *_ = self._row(new.uuid)
            self._ensure_root(new)
            if new.version != version + 1:
                raise Conflict("the collection's key has another version", code="key_version_stale")
            key_blocks.rewrap(run, number, rewrap)
            self._rewrap_offers(run, number, rewrap)
            run.execute("UPDATE counters SET version = ? WHERE collection = ?", (new.version, number))
            run.execute(
                "UPDATE collections SET collection_key = ?, index_key = ?, lookup_key = ?, codes_key = zeroblob(40)"
                " WHERE id = ?",
                (column(new.collection_key), new.index_key, new.lookup_key, number),
            )
        self.database.empty_write_ahead_log()

    def _rewrap_offers(self, run: Connection, number: int, rewrap: Callable[[KeyBatch], Sequence[bytes]]) -> None:
        offers = self._offers(number)
        for start in range(0, len(offers), batch_rows):
            places, wrapped = zip(*offers[start : start + batch_rows], strict=True)
            fresh = rewrap(KeyBatch(positions=[*map(position_of, places)], wrapped=wrapped, offered=True))
            sql = "UPDATE offers SET wrapped = ? WHERE used = 1 AND place = ?"
            run.executemany(sql, zip(fresh, places, strict=True))

    def root_key_id(self) -> str | None:
        found: list[Row] = self.database.rows("SELECT key_id FROM root")
        return str(found[0][0]) if found else None

    def mark(self, sealed: bytes) -> None:
        with self.database.transaction() as run:
            run.execute("INSERT OR REPLACE INTO mark VALUES (1, ?)", (sealed,))

    def marked(self) -> bytes | None:
        found: list[Row] = self.database.rows("SELECT sealed FROM mark")
        return bytes(found[0][0]) if found else None

    def rewrap_root(self, new_root_key_id: str, rewrap: Callable[[UUID, int, bytes], bytes]) -> int:
        """``rewrap`` may ask a provider across a network: it is called before the transaction, and again within it only
        for what changed meanwhile. Rows are overwritten in place, then the write-ahead log is emptied."""
        before = {row[:4]: column(_rewrapped(row, rewrap)) for row in self._wrapped_by_root()}
        with self.database.transaction() as run:
            fresh = [
                (before.get(row[:4]) or column(_rewrapped(row, rewrap)), row[0]) for row in self._wrapped_by_root()
            ]
            run.executemany("UPDATE collections SET collection_key = ? WHERE id = ?", fresh)
            run.execute("INSERT OR REPLACE INTO root VALUES (1, ?)", (new_root_key_id,))
        self.database.empty_write_ahead_log()
        return len(fresh)

    def _wrapped_by_root(self) -> list[Row]:
        """id, uuid, version, collection_key."""
        return self.database.rows(
            "SELECT id, uuid, version, collection_key FROM collections JOIN counters ON collection = id WHERE dropped = 0"
        )

    # --- the file --------------------------------------------------------------------------------------------------

    @property
    def generation(self) -> int:
        """Of the file: see :attr:`SealedDatabase.generation`."""
        return self.database.generation

    def close(self) -> None:
        self.database.close()

    def _ensure_root(self, wrapped: WrappedCollection) -> None:
        if self.root_key_id() != wrapped.root_key_id:
            raise Conflict("the root key was rotated meanwhile", code="root_key_stale")

    def _row(self, uuid: UUID) -> Row:
        """id, version, next_position and keys. Raises ``NotFound``."""
        return self._one(f"{_collection} AND uuid = ?", uuid)

    def _one(self, sql: str, uuid: UUID) -> Row:
        rows: list[Row] = self.database.rows(sql, (uuid.bytes,))
        if not rows:
            raise NotFound("the collection has no keys", code="collection_not_found")
        return rows[0]


def _ensure_version(keys: Sequence[WrappedKey], version: int) -> None:
    if any(key.version != version for key in keys):
        raise Conflict("the collection's key was rotated meanwhile", code="key_version_stale")


def _rewrapped(row: Row, rewrap: Callable[[UUID, int, bytes], bytes]) -> bytes:
    _, uuid, version, stored = row
    return rewrap(UUID(bytes=uuid), version, uncolumn(stored))
