"""Records as rows of their collection's tables: inserted, read, found, and overwritten. Runs inside the driver's
transactions; vectors lie elsewhere (``_segments``).

Lists of positions travel as one JSON array of numbers into ``json_each``: one statement for any length, so SQLite
compiles it once. A list of 200 takes 0.3 ms that way, 1.0 ms as 200 statements (docs/decisions/0004).
"""

import json
from collections.abc import Collection as AnyCollection
from collections.abc import Iterable, Sequence
from typing import Any

from sqlcipher3.dbapi2 import Connection

from secure_embed.errors import Conflict
from secure_embed.keys import SealedDatabase
from secure_embed.store._schema import position_limit, row_tables
from secure_embed.store._segments import Segment
from secure_embed.store.protocol import SealedRow
from secure_embed.types import Field, Position

__all__ = [
    "Columns",
    "Row",
    "change",
    "counters",
    "ensure_new",
    "insert",
    "matching",
    "numbers",
    "overwrite",
    "put_segments",
    "replace",
    "there",
]

Row = tuple[Any, ...]  # what SQLite gives; each use names the columns it asked for

_columns = {Field.META: "meta", Field.TEXT: "text"}
# zeroblob() of the same length: a row of the same size is written over the old one, in its place, on all its pages.
_zeros = {
    "record": "erased = 1, id_tag = zeroblob(32)",
    "meta": "meta = zeroblob(length(meta))",
    "text": "text = zeroblob(length(text))",
}


class Columns:
    """Which columns answer a request for ``fields``. Pages of texts are read only when texts are asked for."""

    def __init__(self, number: int, fields: AnyCollection[Field]) -> None:
        self._fields = [field for field in _columns if field in fields]
        columns = ", ".join(["r.position, r.id_tag, e.expires_unix", *(_columns[field] for field in self._fields)])
        joins = " ".join(f"JOIN {_columns[field]}_{number} USING (position)" for field in self._fields)
        select = f"SELECT {columns} FROM record_{number} r {joins} LEFT JOIN expiry_{number} e USING (position)"
        self.at_positions = f"{select} WHERE r.position IN (SELECT value FROM json_each(?)) AND NOT r.erased"
        self.in_order = f"{select} WHERE r.position >= ? AND NOT r.erased ORDER BY r.position LIMIT ?"

    def row(self, found: Row, vector: bytes | None) -> SealedRow:
        position, id_tag, expires_unix, *values = found
        fields = dict(zip(self._fields, values, strict=True))
        if vector is not None:
            fields[Field.VECTOR] = vector
        return SealedRow(position=Position(position), id_tag=id_tag, fields=fields, expires_unix=expires_unix)


def numbers(at: Iterable[int]) -> str:
    """JSON of those that can be positions: SQLite's integers end at 64 bits, Python's do not."""
    return json.dumps([int(position) for position in at if 0 <= position < position_limit])


def ensure_new(run: Connection, number: int, tags: Sequence[bytes], candidates: Iterable[int]) -> None:
    """Raises ``Conflict`` (``record_exists``) when an id's tag is taken, also by a row of the same batch."""
    sql = f"SELECT id_tag FROM record_{number} WHERE position IN (SELECT value FROM json_each(?)) AND NOT erased"
    taken = {tag for (tag,) in run.execute(sql, (numbers(candidates),))}
    fresh = set(tags)
    if len(fresh) < len(tags) or not fresh.isdisjoint(taken):
        raise Conflict("a record with this id exists", code="record_exists")


def insert(run: Connection, number: int, rows: Sequence[SealedRow]) -> None:
    run.executemany(
        f"INSERT INTO record_{number} (position, id_tag) VALUES (?, ?)", [(row.position, row.id_tag) for row in rows]
    )
    for field, column in _columns.items():
        run.executemany(
            f"INSERT INTO {column}_{number} VALUES (?, ?)", [(row.position, row.fields[field]) for row in rows]
        )
    ending = [(row.position, row.expires_unix) for row in rows if row.expires_unix is not None]
    if ending:
        run.executemany(f"INSERT INTO expiry_{number} VALUES (?, ?)", ending)


def matching(database: SealedDatabase, number: int, candidates: Iterable[int]) -> dict[bytes, Position]:
    """Tags of these positions, those that are there."""
    sql = f"SELECT id_tag, position FROM record_{number} WHERE position IN (SELECT value FROM json_each(?)) AND NOT erased"
    found: list[Row] = database.rows(sql, (numbers(candidates),))
    return {tag: Position(position) for tag, position in found}


def there(run: Connection, number: int, at: Iterable[int]) -> list[int]:
    """Which of these positions hold a record, ascending."""
    sql = f"SELECT position FROM record_{number} WHERE position IN (SELECT value FROM json_each(?)) AND NOT erased"
    return sorted(position for (position,) in run.execute(sql, (numbers(at),)))


def overwrite(run: Connection, number: int, at: Iterable[int]) -> None:
    """Zeros in place of tags and sealed values; the rows stay as long as they were."""
    positions = (numbers(at),)
    for table in row_tables:
        sql = f"UPDATE {table}_{number} SET {_zeros[table]} WHERE position IN (SELECT value FROM json_each(?))"
        run.execute(sql, positions)
    run.execute(f"DELETE FROM expiry_{number} WHERE position IN (SELECT value FROM json_each(?))", positions)


def replace(run: Connection, number: int, rows: Sequence[SealedRow]) -> None:
    """New metas and texts in place of the old. Raises ``Conflict`` (``rows_changed``) unless each row is there, under
    the same tag, and each value has the length of the one it replaces: a longer or shorter one would move."""
    at = {row.position: row.id_tag for row in rows}
    sql = f"SELECT position, id_tag FROM record_{number} WHERE position IN (SELECT value FROM json_each(?)) AND NOT erased"
    same = dict(run.execute(sql, (numbers(at),)).fetchall()) == at
    for field, column in _columns.items():
        changed = run.executemany(
            f"UPDATE {column}_{number} SET {column} = ?1 WHERE position = ?2 AND length({column}) = length(?1)",
            [(row.fields[field], row.position) for row in rows],
        )
        same = same and changed.rowcount == len(rows)
    if not same:
        raise Conflict("the rows to be replaced are not those that are there", code="rows_changed")


def counters(run: Connection, number: int) -> tuple[int, int]:
    """Data version and next position."""
    data, following = run.execute(
        "SELECT data_version, next_position FROM collection WHERE number = ?", (number,)
    ).fetchone()
    return int(data), int(following)


def change(run: Connection, number: int, sequence: int, kind: int, first: int, count: int) -> None:
    run.execute("INSERT INTO change VALUES (?, ?, ?, ?, ?)", (number, sequence, kind, first, count))


def put_segments(run: Connection, number: int, changed: Iterable[Segment]) -> None:
    values = [(number, segment.first, segment.generation, segment.slots) for segment in changed]
    run.executemany("INSERT OR REPLACE INTO segment VALUES (?, ?, ?, ?)", values)
