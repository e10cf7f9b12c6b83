"""Records as rows: how they are inserted, read, found and deleted. Runs inside the driver's transactions.

Lists of positions travel as one JSON array of numbers into ``json_each``: one statement for any length, so SQLite
compiles it once. A list of 200 takes 0.3 ms that way, 1.0 ms as 200 statements (docs/decisions/0004).
"""

import json
from collections.abc import Collection as AnyCollection
from collections.abc import Mapping, Sequence
from typing import Any

from sqlcipher3.dbapi2 import Connection, IntegrityError

from secure_embed.errors import Conflict
from secure_embed.keys import SealedDatabase
from secure_embed.store._schema import place_of, position_limit, position_of
from secure_embed.store.protocol import RequestKey, SealedRow
from secure_embed.types import Field, Position

__all__ = ["Reading", "delete", "fields_stored", "insert", "locate", "places", "remember"]

_columns = {Field.VECTOR: "record.vector", Field.META: "record.meta", Field.TEXT: "record_text.text"}
fields_stored = frozenset(_columns)


class Reading:
    """Which columns answer a request for ``fields``. Pages of texts are read only when texts are asked for."""

    def __init__(self, fields: AnyCollection[Field]) -> None:
        self._fields = [field for field in _columns if field in fields]
        columns = ", ".join(["record.place", "record.id_tag", *(_columns[field] for field in self._fields)])
        texts = "JOIN record_text ON record_text.place = record.place" if Field.TEXT in self._fields else ""
        select = f"SELECT {columns} FROM record {texts} WHERE record.place"
        self.at_places = f"{select} IN (SELECT value FROM json_each(?))"
        self.in_order = f"{select} >= ? AND record.place < ? ORDER BY record.place LIMIT ?"

    def row(self, found: Sequence[Any]) -> SealedRow:
        place, id_tag, *values = found
        return SealedRow(
            position=Position(position_of(place)), id_tag=id_tag, fields=dict(zip(self._fields, values, strict=True))
        )


def places(number: int, at: Sequence[Position]) -> str:
    """JSON. A position out of range names no record, and must not become a place of another collection."""
    return json.dumps([place_of(number, int(position)) for position in at if 0 <= position < position_limit])


def insert(run: Connection, number: int, rows: Sequence[SealedRow]) -> None:
    """Raises ``Conflict`` (``record_exists``) when an id's tag is taken, also by a row of the same batch."""
    placed = [(place_of(number, row.position), row) for row in rows]
    try:
        run.executemany(
            "INSERT INTO record VALUES (?, ?, ?, ?, ?)",
            [(place, number, row.id_tag, row.fields[Field.VECTOR], row.fields[Field.META]) for place, row in placed],
        )
    except IntegrityError:
        raise Conflict("a record with this id exists", code="record_exists") from None
    run.executemany("INSERT INTO record_text VALUES (?, ?)", [(place, row.fields[Field.TEXT]) for place, row in placed])


def remember(run: Connection, number: int, request: RequestKey, answer: tuple[int, int, int]) -> None:
    """``answer``: first position, count, data version."""
    run.execute("INSERT INTO request VALUES (?, ?, ?, ?, ?, ?)", (number, request.tag, request.body_tag, *answer))


def locate(database: SealedDatabase, number: int, id_tags: Sequence[bytes]) -> Mapping[bytes, Position]:
    sql = """SELECT id_tag, place FROM record
        WHERE collection = ? AND id_tag IN (SELECT unhex(value) FROM json_each(?))"""
    found: list[tuple[Any, ...]] = database.rows(sql, (number, json.dumps([tag.hex() for tag in id_tags])))
    return {tag: Position(position_of(place)) for tag, place in found}


def delete(run: Connection, number: int, at: Sequence[Position]) -> list[Position]:
    """Delete the rows that are there and the idempotency entries that name them; gives those rows' positions.

    An entry's ranges never overlap, so the one with the greatest first position at or before a row is its own.
    """
    sql = "SELECT place FROM record WHERE place IN (SELECT value FROM json_each(?)) ORDER BY place"
    found = [place for (place,) in run.execute(sql, (places(number, at),))]
    gone = [Position(position_of(place)) for place in found]
    for table in ("record", "record_text"):
        run.execute(f"DELETE FROM {table} WHERE place IN (SELECT value FROM json_each(?))", (json.dumps(found),))
    run.executemany(
        """DELETE FROM request WHERE collection = :c AND first + count > :p
        AND first = (SELECT max(first) FROM request WHERE collection = :c AND first <= :p)""",
        [{"c": number, "p": position} for position in gone],
    )
    return gone
