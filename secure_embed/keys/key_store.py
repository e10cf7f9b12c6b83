"""The keys database: wrapped keys in one SQLCipher file. Implements ``KeyStore``; sees no key unwrapped.

Keys end by being overwritten where they lie; no row is ever deleted or moved. SQLite's secure_delete is not enough: a
page that splits or merges leaves copies of cells behind that no later delete finds; docs/decisions/0002-key-tree.md.
So rows are of one size for life, are appended in the order of ``id``, and no index holds a key or a tag.

Every record key is wrapped by its collection's current key: ``put`` refuses another version, so no version is stored
beside each key.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlcipher3.dbapi2 import IntegrityError

from secure_embed.errors import Conflict, NotFound
from secure_embed.keys.database import SealedDatabase
from secure_embed.keys.protocol import Shredded, WrappedCollection, WrappedKey
from secure_embed.types import Action, Position, Ticket

__all__ = ["SqlcipherKeyStore"]

batch_rows = 10_000
first_position = Position(0)
none = bytes(40)  # a wrapped key that is not there

_migrations = (
    """
    CREATE TABLE collections (
        id INTEGER PRIMARY KEY,
        uuid BLOB NOT NULL UNIQUE CHECK (length(uuid) = 16),
        dropped INTEGER NOT NULL DEFAULT 0 CHECK (dropped IN (0, 1)),
        version INTEGER NOT NULL CHECK (version >= 1),
        next_position INTEGER NOT NULL DEFAULT 0,
        collection_key BLOB NOT NULL,
        index_key BLOB NOT NULL CHECK (length(index_key) = 40),
        lookup_key BLOB NOT NULL CHECK (length(lookup_key) = 40),
        codes_key BLOB NOT NULL DEFAULT (zeroblob(40)) CHECK (length(codes_key) = 40)
    ) STRICT;
    CREATE TABLE record_keys (
        id INTEGER PRIMARY KEY,
        collection INTEGER NOT NULL REFERENCES collections (id),
        position INTEGER NOT NULL CHECK (position >= 0),
        shredded INTEGER NOT NULL DEFAULT 0 CHECK (shredded IN (0, 1)),
        wrapped BLOB NOT NULL CHECK (length(wrapped) = 40),
        subject_tag BLOB CHECK (length(subject_tag) = 32)
    ) STRICT;
    CREATE UNIQUE INDEX record_keys_by_position ON record_keys (collection, position)
    """,
)

# zeroblob() of the same length: a row of the same size is written over the old one, in its place.
_shred = (
    "UPDATE record_keys SET shredded = 1, wrapped = zeroblob(40),"
    " subject_tag = CASE WHEN subject_tag IS NULL THEN NULL ELSE zeroblob(32) END"
    " WHERE collection = ? AND shredded = 0"
)

Row = tuple[Any, ...]  # what SQLite gives; each use names the columns it asked for


class SqlcipherKeyStore:
    """``KeyStore`` in one file. Safe to call from several threads; one process only."""

    def __init__(self, path: Path, key: bytes) -> None:
        """``key``: 32 bytes. Raises what :class:`SealedDatabase` raises."""
        self._database = SealedDatabase(path, key, migrations=_migrations)

    def create_collection(self, wrapped: WrappedCollection) -> None:
        sql = "INSERT INTO collections (uuid, version, collection_key, index_key, lookup_key) VALUES (?, ?, ?, ?, ?)"
        keys = (wrapped.collection_key, wrapped.index_key, wrapped.lookup_key)
        try:
            with self._database.transaction() as run:
                run.execute(sql, (wrapped.uuid.bytes, wrapped.version, *keys))
        except IntegrityError:
            raise Conflict("the collection has keys already", code="collection_exists") from None

    def collection(self, uuid: UUID) -> WrappedCollection:
        _, version, _, collection_key, index_key, lookup_key, codes_key = self._row(uuid)
        return WrappedCollection(
            uuid=uuid,
            version=version,
            collection_key=collection_key,
            index_key=index_key,
            lookup_key=lookup_key,
            codes_key=None if codes_key == none else codes_key,
        )

    def put(self, uuid: UUID, keys: Sequence[WrappedKey]) -> None:
        """Raises ``Conflict``: ``position_taken`` for a position that has or ever had a key, ``key_version_stale``
        for keys wrapped by another version of the collection key than the stored one."""
        if not keys:
            return
        with self._database.transaction() as run:
            number, version, next_position, *_ = self._row(uuid)
            if any(key.version != version for key in keys):
                raise Conflict("the collection's key was rotated meanwhile", code="key_version_stale")
            positions = {key.position for key in keys}
            if len(positions) != len(keys) or min(positions) < next_position:
                raise Conflict("a position was used before", code="position_taken")
            run.executemany(
                "INSERT INTO record_keys (collection, position, wrapped, subject_tag) VALUES (?, ?, ?, ?)",
                [(number, key.position, key.wrapped, key.subject_tag) for key in keys],
            )
            run.execute("UPDATE collections SET next_position = ? WHERE id = ?", (max(positions) + 1, number))

    def wrapped(self, uuid: UUID, *, since: Position = first_position) -> Iterator[WrappedKey]:
        """Read in batches of 10,000, each one consistent view: a writer in between is seen in part."""
        sql = (
            "SELECT k.position, c.version, k.subject_tag, k.wrapped FROM record_keys k JOIN collections c"
            " ON c.id = k.collection WHERE c.uuid = ? AND k.position >= ? AND k.shredded = 0"
            " ORDER BY k.position LIMIT ?"
        )
        self._row(uuid)
        start: int = since
        while True:
            batch: list[Row] = self._database.rows(sql, (uuid.bytes, start, batch_rows))
            for position, version, subject_tag, wrapped in batch:
                yield WrappedKey(position=position, version=version, subject_tag=subject_tag, wrapped=wrapped)
            if len(batch) < batch_rows:
                return
            start = batch[-1][0] + 1

    def next_position(self, uuid: UUID) -> Position:
        return Position(self._row(uuid)[2])

    def positions_of_subject(self, uuid: UUID, subject_tag: bytes) -> tuple[Position, ...]:
        """Ascending. No index holds tags, so it reads every key of the collection: about 1 s a million."""
        sql = "SELECT position FROM record_keys WHERE collection = ? AND subject_tag = ? AND shredded = 0 ORDER BY position"
        found: list[Row] = self._database.rows(sql, (self._row(uuid)[0], subject_tag))
        return tuple(Position(position) for (position,) in found)

    def put_codes_key(self, uuid: UUID, wrapped: bytes, *, version: int) -> None:
        with self._database.transaction() as run:
            number, stored, *_ = self._row(uuid)
            if version != stored:
                raise Conflict("the collection's key was rotated meanwhile", code="key_version_stale")
            run.execute("UPDATE collections SET codes_key = ? WHERE id = ?", (wrapped, number))

    def shred(self, uuid: UUID, at: Sequence[Position], *, ticket: Ticket) -> Shredded:
        """Overwrites keys and subject tags in place, then empties the write-ahead log."""
        ticket.require(Action.RECORD_ERASE)
        sql = f"{_shred} AND position IN (SELECT value FROM json_each(?)) RETURNING position"
        with self._database.transaction() as run:
            number, version, *_ = self._row(uuid)
            gone = [position for (position,) in run.execute(sql, (number, json.dumps([int(p) for p in at])))]
            run.execute(
                "UPDATE collections SET codes_key = zeroblob(40) WHERE id = ? AND codes_key <> ?", (number, none)
            )
        # Always, not only when something was deleted now: an earlier call may have stopped between the two.
        self._database.empty_write_ahead_log()
        return Shredded(positions=tuple(sorted(gone)), key_version=version, version_destroyed=False)

    def replace_version(self, new: WrappedCollection, keys: Sequence[WrappedKey]) -> None:
        """The rows are overwritten in place, then the write-ahead log is emptied: the old version is in neither."""
        with self._database.transaction() as run:
            number, version, *_ = self._row(new.uuid)
            stored: list[Row] = self._database.rows(
                "SELECT position FROM record_keys WHERE collection = ? AND shredded = 0 ORDER BY position", (number,)
            )
            if new.version != version + 1 or any(key.version != new.version for key in keys):
                raise Conflict("the collection's key has another version", code="key_version_stale")
            if sorted(key.position for key in keys) != [position for (position,) in stored]:
                raise Conflict("the collection's records changed meanwhile", code="record_keys_changed")
            run.executemany(
                "UPDATE record_keys SET wrapped = ? WHERE collection = ? AND position = ?",
                [(key.wrapped, number, key.position) for key in keys],
            )
            run.execute(
                "UPDATE collections SET version = ?, collection_key = ?, index_key = ?, lookup_key = ?,"
                " codes_key = zeroblob(40) WHERE id = ?",
                (new.version, new.collection_key, new.index_key, new.lookup_key, number),
            )
        self._database.empty_write_ahead_log()

    def drop_collection(self, uuid: UUID, *, ticket: Ticket) -> None:
        """Idempotent. The uuid cannot be used again."""
        ticket.require(Action.RECORD_ERASE, Action.COLLECTION_ERASE)
        with self._database.transaction() as run:
            found = run.execute("SELECT id FROM collections WHERE uuid = ?", (uuid.bytes,)).fetchone()
            if found is not None:
                run.execute(_shred, found)
                run.execute(
                    "UPDATE collections SET dropped = 1, collection_key = zeroblob(length(collection_key)),"
                    " index_key = zeroblob(40), lookup_key = zeroblob(40), codes_key = zeroblob(40) WHERE id = ?",
                    found,
                )
        self._database.empty_write_ahead_log()

    @property
    def generation(self) -> int:
        """Of the file: see :attr:`SealedDatabase.generation`."""
        return self._database.generation

    def close(self) -> None:
        self._database.close()

    def _row(self, uuid: UUID) -> Row:
        """id, version, next_position, collection_key, index_key, lookup_key, codes_key. Raises ``NotFound``."""
        rows: list[Row] = self._database.rows(
            "SELECT id, version, next_position, collection_key, index_key, lookup_key, codes_key FROM collections"
            " WHERE uuid = ? AND dropped = 0",
            (uuid.bytes,),
        )
        if not rows:
            raise NotFound("the collection has no keys", code="collection_not_found")
        return rows[0]
