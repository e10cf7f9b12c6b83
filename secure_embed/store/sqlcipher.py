"""``RecordStore`` in one SQLCipher file. Settings of the file: ``keys.database``; its tables: ``_schema``.

What the data version, the erasure epoch and the next position say stands in one row of the collection, written in the
transaction of the change itself, so that they never disagree with the rows.
"""

from collections.abc import Collection as AnyCollection
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlcipher3.dbapi2 import Connection, IntegrityError

from secure_embed.errors import Conflict, NotFound, SecureEmbedError
from secure_embed.keys import SealedDatabase
from secure_embed.store import _rows
from secure_embed.store._schema import migrations, place_of, position_limit
from secure_embed.store.protocol import (
    Appended,
    Change,
    RequestKey,
    SealedCollection,
    SealedRow,
    StateKind,
    Versions,
)
from secure_embed.types import Action, Field, Position, Ticket

__all__ = ["SqlcipherRecordStore"]

page_cache_kib = 64 * 1024  # vectors of 60,000 records at 384 dimensions; the pages hold sealed values

tag_bytes = 32

Row = tuple[Any, ...]  # what SQLite gives; each use names the columns it asked for


class SqlcipherRecordStore:
    """Safe to call from several threads. A second store on the same file, in this process or another, is refused."""

    def __init__(self, path: Path, key: bytes) -> None:
        """Open or create ``path``; ``key``: 32 bytes. Raises what :class:`SealedDatabase` raises."""
        self._database = SealedDatabase(path, key, migrations=migrations, page_cache_kib=page_cache_kib)
        try:
            self._database.empty_write_ahead_log()  # an erasure cut short by a crash has left its rows there
            found: list[Row] = self._database.rows("SELECT uuid, number FROM collection")
        except BaseException:
            self._database.close()
            raise
        self._numbers = {UUID(bytes=uuid): int(number) for uuid, number in found}  # a number is never changed

    # --- collections ---

    def create_collection(self, sealed: SealedCollection) -> None:
        _ensure_tags(sealed.name_tag)
        sql = "INSERT INTO collection (uuid, name_tag, descriptor) VALUES (?, ?, ?)"
        try:
            with self._database.transaction() as run:
                number = run.execute(sql, (sealed.uuid.bytes, sealed.name_tag, sealed.descriptor)).lastrowid
        except IntegrityError:
            raise Conflict("a collection of this name exists", code="collection_exists") from None
        self._numbers[sealed.uuid] = int(number)

    def collections(self) -> Sequence[SealedCollection]:
        found: list[Row] = self._database.rows("SELECT uuid, name_tag, descriptor FROM collection ORDER BY number")
        return [SealedCollection(uuid=UUID(bytes=u), name_tag=tag, descriptor=sealed) for u, tag, sealed in found]

    def versions(self, c: UUID) -> Versions:
        sql = """SELECT data_version, erasure_epoch, coalesce(version, 0), next_position, record_count
            FROM collection LEFT JOIN codebook ON collection = number WHERE number = ?"""
        found: list[Row] = self._database.rows(sql, (self._number(c),))
        ((data, erasure, codebook, following, records),) = found
        return Versions(data=data, erasure=erasure, codebook=codebook, next_position=following, records=records)

    def _number(self, c: UUID) -> int:
        if (number := self._numbers.get(c)) is None:
            raise NotFound("there is no such collection", code="collection_not_found")
        return number

    # --- records ---

    def append(
        self, c: UUID, rows: Sequence[SealedRow], *, request: RequestKey | None, mark: bytes | None = None
    ) -> Appended:
        number = self._number(c)
        _ensure_batch(rows, request)
        with self._database.transaction() as run:
            if request is not None and (earlier := self._earlier(number, request)) is not None:
                return earlier
            data, following = run.execute(
                "SELECT data_version, next_position FROM collection WHERE number = ?", (number,)
            ).fetchone()
            first, count = rows[0].position, len(rows)
            if first < following:
                raise Conflict("a position was used before", code="position_used")
            _rows.insert(run, number, rows)
            run.execute("INSERT INTO change VALUES (?, ?, 0, ?, ?)", (number, data + 1, first, count))
            if request is not None:
                _rows.remember(run, number, request, (first, count, data + 1))
            run.execute(
                """UPDATE collection SET data_version = ?, next_position = ?, record_count = record_count + ?
                WHERE number = ?""",
                (data + 1, first + count, count, number),
            )
            _put_mark(run, mark)
        return Appended(first=first, count=count, data_version=data + 1, replayed=False)

    def replay(self, c: UUID, request: RequestKey) -> Appended | None:
        return self._earlier(self._number(c), request)

    def _earlier(self, number: int, request: RequestKey) -> Appended | None:
        sql = "SELECT body_tag, first, count, data_version FROM request WHERE collection = ? AND tag = ?"
        found: list[Row] = self._database.rows(sql, (number, request.tag))
        if not found:
            return None
        ((body_tag, first, count, version),) = found
        if body_tag != request.body_tag:
            raise Conflict("this idempotency key came with another body", code="request_mismatch")
        return Appended(first=first, count=count, data_version=version, replayed=True)

    def fetch(self, c: UUID, at: Sequence[Position], fields: AnyCollection[Field]) -> Mapping[Position, SealedRow]:
        reading = _rows.Reading(fields)
        found = self._database.rows(reading.at_places, (_rows.places(self._number(c), at),))
        return {row.position: row for row in map(reading.row, found)}

    def scan(self, c: UUID, fields: AnyCollection[Field], *, after: Position, limit: int) -> Sequence[SealedRow]:
        number = self._number(c)
        reading = _rows.Reading(fields)
        start = min(max(after + 1, 0), position_limit)
        bounds = (place_of(number, start), place_of(number + 1, 0), max(limit, 0))
        return [reading.row(found) for found in self._database.rows(reading.in_order, bounds)]

    def locate(self, c: UUID, id_tags: Sequence[bytes]) -> Mapping[bytes, Position]:
        return _rows.locate(self._database, self._number(c), id_tags)

    def changes(self, c: UUID, *, since: int, limit: int) -> Sequence[Change]:
        sql = """SELECT sequence, erased, first, count FROM change
            WHERE collection = ? AND sequence > ? ORDER BY sequence LIMIT ?"""
        found: list[Row] = self._database.rows(sql, (self._number(c), since, max(limit, 0)))
        return [
            Change(sequence=sequence, kind="erased" if erased else "added", first=first, count=count)
            for sequence, erased, first, count in found
        ]

    def erase(self, c: UUID, at: Sequence[Position], *, ticket: Ticket, mark: bytes | None = None) -> int:
        ticket.require(Action.RECORD_ERASE)
        number = self._number(c)
        with self._database.transaction() as run:
            epoch = self._erase(run, number, at)
            _put_mark(run, mark)
        # Also when nothing was there: an earlier call may have been cut off between its commit and this line.
        self._database.empty_write_ahead_log()
        return epoch

    def _erase(self, run: Connection, number: int, at: Sequence[Position]) -> int:
        data, epoch = run.execute(
            "SELECT data_version, erasure_epoch FROM collection WHERE number = ?", (number,)
        ).fetchone()
        gone = _rows.delete(run, number, at)
        if not gone:
            return int(epoch)
        changes = [(number, sequence, position) for sequence, position in enumerate(gone, start=data + 1)]
        run.executemany("INSERT INTO change VALUES (?, ?, 1, ?, 1)", changes)
        run.execute(
            """UPDATE collection SET data_version = data_version + :n, record_count = record_count - :n,
            erasure_epoch = erasure_epoch + 1 WHERE number = :c""",
            {"n": len(gone), "c": number},
        )
        return int(epoch) + 1

    # --- codebooks, states and the mark ---

    def put_codebook(self, c: UUID, version: int, sealed: bytes) -> None:
        number = self._number(c)
        with self._database.transaction() as run:
            stored = run.execute("SELECT version FROM codebook WHERE collection = ?", (number,)).fetchone()
            if version != (stored[0] if stored else 0) + 1:
                raise Conflict("the codebook's version does not follow the stored one", code="codebook_version")
            run.execute("INSERT OR REPLACE INTO codebook VALUES (?, ?, ?)", (number, version, sealed))

    def codebook(self, c: UUID) -> tuple[int, bytes] | None:
        sql = "SELECT version, sealed FROM codebook WHERE collection = ?"
        found: list[Row] = self._database.rows(sql, (self._number(c),))
        return (found[0][0], found[0][1]) if found else None

    def put_state(self, kind: StateKind, uuid: UUID, sealed: bytes) -> None:
        with self._database.transaction() as run:
            run.execute("INSERT OR REPLACE INTO state VALUES (?, ?, ?)", (kind, uuid.bytes, sealed))

    def state(self, kind: StateKind, uuid: UUID) -> bytes:
        found: list[Row] = self._database.rows(
            "SELECT sealed FROM state WHERE kind = ? AND uuid = ?", (kind, uuid.bytes)
        )
        if not found:
            raise _absent(kind)
        return bytes(found[0][0])

    def states(self, kind: StateKind) -> Sequence[tuple[UUID, bytes]]:
        found: list[Row] = self._database.rows("SELECT uuid, sealed FROM state WHERE kind = ? ORDER BY uuid", (kind,))
        return [(UUID(bytes=uuid), sealed) for uuid, sealed in found]

    def drop_state(self, kind: StateKind, uuid: UUID) -> None:
        with self._database.transaction() as run:
            run.execute("DELETE FROM state WHERE kind = ? AND uuid = ?", (kind, uuid.bytes))

    def mark(self, sealed: bytes) -> None:
        with self._database.transaction() as run:
            _put_mark(run, sealed)

    def marked(self) -> bytes | None:
        found: list[Row] = self._database.rows("SELECT sealed FROM mark")
        return bytes(found[0][0]) if found else None

    def close(self) -> None:
        """Idempotent. Later calls raise ``Unavailable``."""
        self._database.close()


def _absent(kind: StateKind) -> NotFound:
    match kind:
        case StateKind.ERASURE:
            return NotFound("there is no such erasure", code="erasure_not_found")
        case StateKind.HOLD:
            return NotFound("there is no such hold", code="hold_not_found")
        case StateKind.TASK:
            return NotFound("there is no such task", code="task_not_found")


def _put_mark(run: Connection, mark: bytes | None) -> None:
    if mark is not None:
        run.execute("INSERT OR REPLACE INTO mark VALUES (1, ?)", (mark,))


def _ensure_tags(*tags: bytes) -> None:
    if any(len(tag) != tag_bytes for tag in tags):
        raise SecureEmbedError("a keyed hash has 32 bytes", code="tag_malformed")


def _ensure_batch(rows: Sequence[SealedRow], request: RequestKey | None) -> None:
    """The vault builds batches; one that breaks their rules is a fault of ours and is not written."""
    if request is not None:
        _ensure_tags(request.tag, request.body_tag)
    _ensure_tags(*(row.id_tag for row in rows))
    if (
        not rows
        or not 0 <= rows[0].position <= position_limit - len(rows)
        or any(after.position != before.position + 1 for before, after in pairwise(rows))
        or any(row.fields.keys() != _rows.fields_stored for row in rows)
    ):
        raise SecureEmbedError("a batch of sealed rows is malformed", code="batch_malformed")
