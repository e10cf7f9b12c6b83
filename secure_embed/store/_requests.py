"""Idempotency entries: rows of one size, overwritten in their place and used again; found through memory.

An entry's tag is a keyed hash of the caller's Idempotency-Key, its body tag one of what was asked. When something of
its batch is erased the body tag is overwritten and the rest stays: the same key then answers as it did, whatever body
comes with it, and writes nothing.
"""

import struct
from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

from sqlcipher3.dbapi2 import Connection

from secure_embed.errors import Conflict
from secure_embed.keys import SealedDatabase
from secure_embed.store.protocol import Appended, RequestKey
from secure_embed.types import Position

__all__ = ["Requests", "request_lifetime_s"]

request_lifetime_s = 24 * 60 * 60

_answer = struct.Struct(">qqqqq")  # collection, first position, count, data version, written at (Unix time)
_forgotten = bytes(32)
_free = "UPDATE request SET tag = zeroblob(32), body_tag = zeroblob(32), answer = zeroblob(40) WHERE id = ?"


class _Entry(NamedTuple):
    id: int
    first: int
    length: int
    written_unix: int


class Requests:
    """One writer at a time, within a transaction: what it changed counts here after the commit (``learn``, ``ended``)."""

    def __init__(self, database: SealedDatabase) -> None:
        self._database = database
        self._entries: dict[tuple[int, bytes], _Entry] = {}
        self._unused: list[int] = []
        for identifier, tag, answer in database.rows("SELECT id, tag, answer FROM request"):
            assert isinstance(identifier, int)
            assert isinstance(tag, bytes)
            assert isinstance(answer, bytes)
            collection, first, count, _, written = _answer.unpack(answer)
            if collection:
                self._entries[collection, tag] = _Entry(identifier, first, count, written)
            else:
                self._unused.append(identifier)

    def earlier(self, collection: int, request: RequestKey) -> Appended | None:
        """Raises ``Conflict`` (``request_mismatch``)."""
        entry = self._entries.get((collection, request.tag))
        if entry is None:
            return None
        found = self._database.rows("SELECT tag, body_tag, answer FROM request WHERE id = ?", (entry.id,))
        if not found or found[0][0] != request.tag:  # it ended between the two looks
            return None
        _, body_tag, answer = found[0]
        assert isinstance(answer, bytes)
        if body_tag not in (request.body_tag, _forgotten):
            raise Conflict("this idempotency key came with another body", code="request_mismatch")
        _, first, count, data_version, _ = _answer.unpack(answer)
        return Appended(first=Position(first), count=count, data_version=data_version, replayed=True)

    def write(self, run: Connection, collection: int, request: RequestKey, answer: Appended, now: int) -> _Entry:
        """Within the append's transaction; :meth:`learn` the entry after it."""
        packed = _answer.pack(collection, answer.first, answer.count, answer.data_version, now)
        values = (request.tag, request.body_tag, packed)
        if self._unused:
            identifier = self._unused[-1]
            run.execute("UPDATE request SET tag = ?, body_tag = ?, answer = ? WHERE id = ?", (*values, identifier))
        else:
            identifier = run.execute("INSERT INTO request (tag, body_tag, answer) VALUES (?, ?, ?)", values).lastrowid
        return _Entry(int(identifier), answer.first, answer.count, now)

    def learn(self, collection: int, request: RequestKey, entry: _Entry) -> None:
        if self._unused and self._unused[-1] == entry.id:
            self._unused.pop()
        self._entries[collection, request.tag] = entry

    def forget_bodies(self, run: Connection, collection: int, at: Iterable[int]) -> None:
        """Overwrite the body tags of entries whose batches hold one of these positions."""
        positions = sorted(at)
        touched = [
            (entry.id,)
            for (number, _), entry in self._entries.items()
            if number == collection and _any_within(positions, entry.first, entry.first + entry.length)
        ]
        run.executemany("UPDATE request SET body_tag = zeroblob(32) WHERE id = ?", touched)

    def end(self, run: Connection, ending: Iterable[tuple[int, bytes]]) -> None:
        """Overwrite whole entries; :meth:`ended` after the transaction."""
        run.executemany(_free, [(self._entries[key].id,) for key in ending])

    def ended(self, ending: Iterable[tuple[int, bytes]]) -> None:
        self._unused.extend(self._entries.pop(key).id for key in ending)

    def of(self, collection: int) -> list[tuple[int, bytes]]:
        return [key for key in self._entries if key[0] == collection]

    def older_than(self, moment_unix: int) -> list[tuple[int, bytes]]:
        return [key for key, entry in self._entries.items() if entry.written_unix <= moment_unix]


def _any_within(positions: list[int], first: int, end: int) -> bool:
    at = bisect_left(positions, first)
    return at < len(positions) and positions[at] < end
