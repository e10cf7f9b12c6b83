"""``RecordStore`` in one SQLCipher file and, for vectors, files of slots beside it. Settings of the file:
``keys.database``; its tables: ``_schema``; the slots: ``_segments``. Why so: docs/decisions/0013.

What the data version, the erasure epoch and the next position say stands in one row of the collection, written in the
transaction of the change itself, so that they never disagree with the rows. Slots are durable before that transaction
commits, and are overwritten after the one that erases.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Collection as AnyCollection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import Literal
from uuid import UUID

import numpy as np
import numpy.typing as npt
from sqlcipher3.dbapi2 import Connection, IntegrityError

from secure_embed.errors import Conflict, IntegrityFailure, SecureEmbedError
from secure_embed.keys import SealedDatabase
from secure_embed.store import _batches, _rows, _states
from secure_embed.store._ending import end_collection, gone
from secure_embed.store._held import ADDED, ERASED, RESEALED, Held, no_collection
from secure_embed.store._open_files import OpenFiles
from secure_embed.store._requests import Requests, request_lifetime_s
from secure_embed.store._rows import Row
from secure_embed.store._schema import collection_tables, migrations, sealed_tables
from secure_embed.store._segment_files import faults, files_below, overwrite_and_unlink
from secure_embed.store._segments import Segment, Segments
from secure_embed.store.protocol import (
    Appended,
    Change,
    RequestKey,
    SealedCollection,
    SealedRow,
    StateKind,
    Versions,
)
from secure_embed.types import Action, Field, Position, Positions, Ticket

__all__ = ["SqlcipherRecordStore"]

uuid_bytes = 16

page_cache_kib = 64 * 1024  # the pages hold sealed values
_kinds: tuple[Literal["added", "erased", "resealed"], ...] = ("added", "erased", "resealed")


class SqlcipherRecordStore:
    """Safe to call from several threads. A second store on the same file, in this process or another, is refused."""

    def __init__(self, path: Path, key: bytes, rows_key: bytes, *, clock: Callable[[], float] = time.time) -> None:
        """Open or create ``path`` and the folder ``segments`` beside it. ``key``: of the file; ``rows_key``: of the hashes
        over its rows; 32 bytes each. ``clock``: Unix time.

        Finishes erasures that a crash cut off. What other writes left that were cut off goes before the next write,
        not now: if ``path`` is an older copy put back, its segments are not yet lost. Raises what
        :class:`SealedDatabase` raises, and ``IntegrityFailure`` (``segment_damaged``) for a missing or short segment.
        """
        self._folder = path.with_name("segments")
        self._clock = clock
        self._files = OpenFiles()
        self._writing = RLock()  # taken before the database's own
        self._clean = False
        # Public: rotation of its key, backups and its generation are the database's own doors.
        self.database = SealedDatabase(
            path, key, migrations=migrations, page_cache_kib=page_cache_kib, sealed=(sealed_tables, rows_key)
        )
        try:
            self._held: dict[UUID, Held] = {}
            self._ending: dict[UUID, Held] = {}
            self._load()
            self._requests = Requests(self.database)
            for held in self._held.values():
                held.segments.ensure_whole()
                self._scrub(held)
            self.database.empty_write_ahead_log()  # an erasure cut short by a crash has left its rows there
        except BaseException:
            self.database.close()
            raise
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="segments")

    def _load(self) -> None:
        segments: dict[int, list[Segment]] = {}
        for number, *of_segment in self._rows("SELECT collection, first, generation, slots FROM segment"):
            segments.setdefault(number, []).append(Segment(*of_segment))
        for number, raw, ended, slot_bytes in self._rows("SELECT number, uuid, ended, slot_bytes FROM collection"):
            if ended != gone:
                uuid = _uuid(raw)
                known = segments.get(number, ())
                held = self._made(number, uuid, slot_bytes, known)
                (self._ending if ended else self._held)[uuid] = held

    def _made(self, number: int, uuid: UUID, slot_bytes: int, known: Iterable[Segment]) -> Held:
        segments = Segments(self._folder / str(uuid), self._files, slot_bytes, known)
        return Held(self.database, self._writing, number, uuid, segments)

    def _rows(self, sql: str, parameters: Sequence[int | bytes | str | None] = ()) -> list[Row]:
        found: list[Row] = self.database.rows(sql, parameters)
        return found

    # --- collections -----------------------------------------------------------------------------------------------

    def create_collection(self, sealed: SealedCollection) -> None:
        _batches.ensure_tags(sealed.name_tag)
        taken = Conflict("a collection of this name exists", code="collection_exists")
        sql = "INSERT INTO collection (uuid, name_tag, descriptor) VALUES (?, ?, ?)"
        with self._writing:
            try:
                with self.database.transaction(refusable=True) as run:
                    same = "SELECT 1 FROM collection WHERE name_tag = ? AND ended <> ?"
                    if run.execute(same, (sealed.name_tag, gone)).fetchone():
                        raise taken
                    number = run.execute(sql, (sealed.uuid.bytes, sealed.name_tag, sealed.descriptor)).lastrowid
                    for statement in collection_tables(int(number)):
                        run.execute(statement)
            except IntegrityError:
                raise taken from None
            self._held[sealed.uuid] = self._made(int(number), sealed.uuid, 0, ())

    def collections(self) -> Sequence[SealedCollection]:
        found = self._rows("SELECT uuid, name_tag, descriptor FROM collection WHERE ended = 0 ORDER BY number")
        return [SealedCollection(uuid=UUID(bytes=u), name_tag=tag, descriptor=sealed) for u, tag, sealed in found]

    def versions(self, c: UUID) -> Versions:
        sql = """SELECT data_version, erasure_epoch, codebook_version, next_position, record_count
            FROM collection WHERE number = ?"""
        ((data, erasure, codebook, following, records),) = self._rows(sql, (self._of(c).number,))
        return Versions(data=data, erasure=erasure, codebook=codebook, next_position=following, records=records)

    def erase_collection(self, c: UUID, *, ticket: Ticket) -> None:
        ticket.require(Action.COLLECTION_ERASE, Action.RECORD_ERASE)
        with self._writing:
            self._clean_up()
            if c in self._held:
                self._ending[c] = self._held.pop(c)
                self._ending[c].ended = True
            if c in self._ending:
                end_collection(self.database, self._ending[c], self._requests)
                del self._ending[c]
            elif not self._rows("SELECT 1 FROM collection WHERE uuid = ?", (c.bytes,)):
                raise no_collection()
            self.database.empty_write_ahead_log()

    def _of(self, c: UUID) -> Held:
        if (held := self._held.get(c)) is None:
            raise no_collection()
        return held

    # --- writing ---------------------------------------------------------------------------------------------------

    def append(
        self, c: UUID, rows: Sequence[SealedRow], *, request: RequestKey | None, mark: bytes | None = None
    ) -> Appended:
        with self._writing:
            held = self._of(c)
            slot_bytes = _batches.ensure(rows, request, held.segments.slot_bytes)
            if request is not None and (earlier := self._requests.earlier(held.number, request)) is not None:
                return earlier
            self._clean_up()
            return self._append(held, rows, slot_bytes, request, mark)

    def _append(
        self, held: Held, rows: Sequence[SealedRow], slot_bytes: int, request: RequestKey | None, mark: bytes | None
    ) -> Appended:
        number, segments, tags = held.number, held.segments, [row.id_tag for row in rows]
        first, count = rows[0].position, len(rows)
        index, presence, ends = held.tags(), held.presence(), held.ends()
        sealed_before = segments.slot_bytes
        slots: Future[list[Segment]] | None = None
        committing = False
        try:
            with self.database.transaction() as run:
                data, following = _rows.counters(run, number)
                if first < following:
                    raise Conflict("a position was used before", code="position_used")
                if len(set(tags)) < len(tags) or held.locate(tags):
                    raise Conflict("a record with this id exists", code="record_exists")
                segments.slot_bytes = slot_bytes
                # The medium takes the slots while SQLite encrypts the rows: both let go of the interpreter's lock.
                slots = self._beside.submit(segments.write, first, [row.fields[Field.VECTOR] for row in rows])
                appended = Appended(first=first, count=count, data_version=data + 1, replayed=False)
                _rows.insert(run, number, rows)
                _rows.change(run, number, data + 1, ADDED, first, count)
                entry = self._requests.write(run, number, request, appended, int(self._clock())) if request else None
                run.execute(
                    """UPDATE collection SET data_version = ?, next_position = ?, record_count = record_count + ?,
                    slot_bytes = ? WHERE number = ?""",
                    (data + 1, first + count, count, slot_bytes, number),
                )
                _states.put_mark(run, mark)
                changed = slots.result()
                _rows.put_segments(run, number, changed)
                committing = True
        except BaseException:
            if slots is not None and not committing:  # a commit that failed may still be found after a crash
                with suppress(SecureEmbedError):
                    slots.result()
                segments.cut(segments.after(first, count))
                segments.slot_bytes = sealed_before
            raise
        segments.learn(changed)
        ends.put(first, [row.expires_unix for row in rows])
        presence.add(first, tags)
        at = np.arange(first, first + count, dtype=np.int64)
        index.add(at, presence.tags(at))
        if request is not None and entry is not None:
            self._requests.learn(number, request, entry)
        return appended

    def erase(self, c: UUID, at: Sequence[Position], *, ticket: Ticket, mark: bytes | None = None) -> int:
        ticket.require(Action.RECORD_ERASE)
        with self._writing:
            held = self._of(c)
            self._clean_up()  # a file that was left of an earlier generation holds these records too
            presence, tags, ends = held.presence(), held.tags(), held.ends()
            with self.database.transaction() as run:
                epoch, found = self._erase(run, held.number, at)
                _states.put_mark(run, mark)
            presence.drop(found)
            tags.drop(found)
            ends.drop(found)
            # Also when nothing was there: an earlier call may have been cut off between its commit and these lines.
            self._scrub(held)
            self.database.empty_write_ahead_log()
            return epoch

    def _erase(self, run: Connection, number: int, at: Iterable[int]) -> tuple[int, list[int]]:
        """The epoch after it, and which of the positions held a record."""
        data, _ = _rows.counters(run, number)
        found = _rows.overwrite(run, number, at)
        ((epoch,),) = run.execute("SELECT erasure_epoch FROM collection WHERE number = ?", (number,)).fetchall()
        if not found:
            return int(epoch), []
        self._requests.forget_bodies(run, number, found)
        run.executemany("INSERT INTO scrub VALUES (?, ?)", [(number, position) for position in found])
        for sequence, position in enumerate(found, start=data + 1):
            _rows.change(run, number, sequence, ERASED, position, 1)
        run.execute(
            """UPDATE collection SET data_version = data_version + :n, record_count = record_count - :n,
            erasure_epoch = erasure_epoch + 1 WHERE number = :c""",
            {"n": len(found), "c": number},
        )
        return int(epoch) + 1, found

    def _scrub(self, held: Held) -> None:
        """Overwrite the slots of records whose rows are erased; the list outlives a crash."""
        pending = [at for (at,) in self._rows("SELECT position FROM scrub WHERE collection = ?", (held.number,))]
        if pending:
            held.segments.overwrite(pending)
            with self.database.transaction() as run:
                run.execute("DELETE FROM scrub WHERE collection = ?", (held.number,))

    def replace(self, c: UUID, rows: Sequence[SealedRow], *, mark: bytes | None = None) -> None:
        with self._writing:
            held = self._of(c)
            first = _batches.ensure_of_one_segment(rows, held.segments)
            self._clean_up()
            (old,) = [segment for segment in held.segments.known() if segment.first == first]
            at = [int(row.position) for row in rows]
            if any(held.locate([row.id_tag]).get(row.id_tag) != row.position for row in rows):
                raise _rows.changed_rows()
            new = Segment(old.first, old.generation + 1, old.slots)
            try:
                held.segments.rewrite(old, new, at, [row.fields[Field.VECTOR] for row in rows])
                with self.database.transaction() as run:
                    _rows.replace(run, held.number, rows)
                    data, _ = _rows.counters(run, held.number)
                    _rows.change(run, held.number, data + 1, RESEALED, at[0], at[-1] - at[0] + 1)
                    run.execute(
                        "UPDATE collection SET data_version = data_version + 1 WHERE number = ?", (held.number,)
                    )
                    _rows.put_segments(run, held.number, [new])
                    _states.put_mark(run, mark)
                    held.flips += 1
                held.segments.learn([new])
            except BaseException:
                if not held.flips % 2:  # a commit that failed may still be found after a crash
                    with suppress(SecureEmbedError):
                        held.segments.discard([new])
                self._clean = False
                raise
            finally:
                held.flips += held.flips % 2
            # First the log: were its end lost after that, the database would name the file that is gone by then.
            self.database.empty_write_ahead_log()
            held.segments.discard([old])

    def _clean_up(self) -> None:
        """Once, before the first write: files that the database does not name."""
        if self._clean:
            return
        named = set[Path]().union(*(h.segments.paths() for h in (*self._held.values(), *self._ending.values())))
        with faults:
            for path in files_below(self._folder):
                if path not in named:
                    self._files.forget(path)
                    overwrite_and_unlink(path)
        self._clean = True

    # --- reading ---------------------------------------------------------------------------------------------------

    def replay(self, c: UUID, request: RequestKey) -> Appended | None:
        return self._requests.earlier(self._of(c).number, request)

    def expire_requests(self, now_unix: int) -> int:
        with self._writing:
            ending = self._requests.older_than(now_unix - request_lifetime_s)
            with self.database.transaction() as run:
                self._requests.end(run, ending)
            self._requests.ended(ending)
            if ending:
                self.database.empty_write_ahead_log()
            return len(ending)

    def fetch(self, c: UUID, at: Sequence[Position], fields: AnyCollection[Field]) -> Mapping[Position, SealedRow]:
        return self._of(c).fetch(at, fields)

    def scan(self, c: UUID, fields: AnyCollection[Field], *, after: Position, limit: int) -> Sequence[SealedRow]:
        return self._of(c).scan(fields, after, limit)

    def vectors(self, c: UUID, at: Positions) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        return self._of(c).vectors(at)

    def locate(self, c: UUID, id_tags: Sequence[bytes]) -> Mapping[bytes, Position]:
        return self._of(c).locate(id_tags)

    def expired(self, c: UUID, now_unix: int, limit: int) -> Sequence[Position]:
        return [Position(position) for position in self._of(c).ends().until(now_unix, max(limit, 0))]

    def segment_bounds(self, c: UUID) -> Sequence[tuple[Position, Position]]:
        return [(Position(segment.first), Position(segment.end)) for segment in self._of(c).segments.known()]

    def changes(self, c: UUID, *, since: int, limit: int) -> Sequence[Change]:
        number, last = self._of(c).number, min(since + max(limit, 0), self.versions(c).data)
        if last <= since:
            return []
        self.database.require_sealed("change", number, since + 1, last)
        sql = """SELECT sequence, kind, first, count FROM change
            WHERE collection = ? AND sequence BETWEEN ? AND ? ORDER BY sequence"""
        found = self._rows(sql, (number, since + 1, last))
        return [
            Change(sequence=sequence, kind=_kinds[kind], first=first, count=count)
            for sequence, kind, first, count in found
        ]

    # --- codebooks, states and the mark ----------------------------------------------------------------------------

    def put_codebook(self, c: UUID, version: int, sealed: bytes) -> None:
        number = self._of(c).number
        with self.database.transaction() as run:
            (stored,) = run.execute("SELECT codebook_version FROM collection WHERE number = ?", (number,)).fetchone()
            if version != stored + 1:
                raise Conflict("the codebook's version does not follow the stored one", code="codebook_version")
            run.execute("UPDATE collection SET codebook_version = ? WHERE number = ?", (version, number))
            run.execute("INSERT OR REPLACE INTO codebook VALUES (?, ?, ?)", (number, version, sealed))

    def codebook(self, c: UUID) -> tuple[int, bytes] | None:
        found = self.database.sealed_rows("codebook", self._of(c).number)
        return (found[0][1], found[0][2]) if found else None

    def put_state(self, kind: StateKind, uuid: UUID, sealed: bytes) -> None:
        with self.database.transaction() as run:
            _states.put_state(run, kind, uuid, sealed)

    def state(self, kind: StateKind, uuid: UUID) -> bytes:
        return _states.state(self.database, kind, uuid)

    def states(self, kind: StateKind) -> Sequence[tuple[UUID, bytes]]:
        return _states.states(self.database, kind)

    def drop_state(self, kind: StateKind, uuid: UUID) -> None:
        with self.database.transaction() as run:
            _states.drop_state(run, kind, uuid)
        self.database.empty_write_ahead_log()

    def mark(self, sealed: bytes) -> None:
        with self.database.transaction() as run:
            _states.put_mark(run, sealed)

    def marked(self) -> bytes | None:
        return _states.marked(self.database)

    def let_go(self, c: UUID) -> None:
        if (held := self._held.get(c)) is not None:
            held.let_go()

    @property
    def generation(self) -> int:
        return self.database.generation

    def close(self) -> None:
        """Idempotent. Later calls raise ``Unavailable``."""
        with self._writing:
            self._beside.shutdown()
            self._files.close()
            self.database.close()


def _uuid(raw: bytes) -> UUID:
    if len(raw) != uuid_bytes:
        raise IntegrityFailure("rows of data.db contradict each other", code="database_inconsistent")
    return UUID(bytes=raw)
