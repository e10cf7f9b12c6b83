"""Records as places in blocks and rows of their collection's tables: inserted, read and overwritten. Runs inside the driver's
transactions; vectors lie elsewhere (``_segments``).

Lists of positions travel as one JSON array of numbers into ``json_each``: one statement for any length, so SQLite
compiles it once. A list of 200 takes 0.3 ms that way, 1.0 ms as 200 statements (docs/decisions/0004).
"""

import json
import struct
from collections.abc import Collection as AnyCollection
from collections.abc import Iterable, Sequence
from typing import Any

from sqlcipher3.dbapi2 import Connection

from secure_embed.errors import Conflict
from secure_embed.keys import SealedDatabase, block_positions, by_block
from secure_embed.store._schema import ERASED, THERE, ends, position_limit, records
from secure_embed.store._segments import Segment
from secure_embed.store.protocol import SealedRow
from secure_embed.types import Field

__all__ = [
    "Row",
    "change",
    "changed_rows",
    "counters",
    "insert",
    "numbers",
    "overwrite",
    "put_segments",
    "replace",
    "values",
]

tag_bytes = 32

Row = tuple[Any, ...]  # what SQLite gives; each use names the columns it asked for

_end = struct.Struct("<q")
_columns = {Field.META: "meta", Field.TEXT: "text"}


def numbers(at: Iterable[int]) -> str:
    """JSON of those that can be positions: SQLite's integers end at 64 bits, Python's do not."""
    return json.dumps([int(position) for position in at if 0 <= position < position_limit])


def values(
    database: SealedDatabase, number: int, fields: AnyCollection[Field], at: Iterable[int]
) -> dict[int, dict[Field, bytes] | None]:
    """Sealed metas and texts. None: one is not there, or zeros where a record was erased."""
    asked = [field for field in _columns if field in fields]
    columns = "".join(f", {_columns[field]}" for field in asked)
    tables = (f"{_columns[field]}_{number}" for field in asked)
    joins = " ".join(f"LEFT JOIN {table} ON {table}.position = value" for table in tables)
    found: list[Row] = database.rows(f"SELECT value{columns} FROM json_each(?) {joins}", (numbers(at),))
    return {
        position: dict(zip(asked, sealed, strict=True)) if all(map(_is_value, sealed)) else None
        for position, *sealed in found
    }


def _is_value(sealed: bytes | None) -> bool:
    return sealed is not None and any(sealed)  # ends at its first byte, the algorithm


def insert(run: Connection, number: int, rows: Sequence[SealedRow]) -> None:
    by_position = {int(row.position): row for row in rows}
    kept, ending = {}, {}
    for block, slots in by_block(by_position):
        of_block = [by_position[block_positions * block + slot] for slot in slots]
        ((state, id_tags),) = records.some(run, number, [block]).values()
        begin, end = slots[0], slots[-1] + 1
        state[begin:end] = bytes([THERE]) * len(slots)
        id_tags[tag_bytes * begin : tag_bytes * end] = b"".join(row.id_tag for row in of_block)
        kept[block] = (state, id_tags)
        if any(row.expires_unix for row in of_block):
            ((unix,),) = ends.some(run, number, [block]).values()
            unix[_end.size * begin : _end.size * end] = b"".join(_end.pack(row.expires_unix or 0) for row in of_block)
            ending[block] = (unix,)
    records.put(run, number, kept)
    ends.put(run, number, ending)
    for field, column in _columns.items():
        run.executemany(
            f"INSERT INTO {column}_{number} VALUES (?, ?)", [(row.position, row.fields[field]) for row in rows]
        )


def overwrite(run: Connection, number: int, at: Iterable[int]) -> list[int]:
    """Zeros in place of tags, ends and sealed values; the rows stay as long as they were. Gives those of the positions
    that held a record, ascending."""
    found: list[int] = []
    for block, slots in by_block(sorted({position for position in at if 0 <= position < position_limit})):
        ((state, id_tags),) = records.some(run, number, [block]).values()
        there = [slot for slot in slots if state[slot] == THERE]
        if not there:
            continue
        ((unix,),) = ends.some(run, number, [block]).values()
        ended = any(unix)
        for slot in there:
            state[slot] = ERASED
            id_tags[tag_bytes * slot : tag_bytes * (slot + 1)] = bytes(tag_bytes)
            unix[_end.size * slot : _end.size * (slot + 1)] = bytes(_end.size)
        records.put(run, number, {block: (state, id_tags)})
        if ended:
            ends.put(run, number, {block: (unix,)})
        found += [block_positions * block + slot for slot in there]
    for column in _columns.values():
        run.execute(
            f"UPDATE {column}_{number} SET {column} = zeroblob(length({column}))"
            " WHERE position IN (SELECT value FROM json_each(?))",
            (numbers(found),),
        )
    return found


def replace(run: Connection, number: int, rows: Sequence[SealedRow]) -> None:
    """New metas and texts in place of the old. Raises ``Conflict`` (``rows_changed``) unless each value has the length of
    the one it replaces: a longer or shorter one would move."""
    same = True
    for field, column in _columns.items():
        changed = run.executemany(
            f"UPDATE {column}_{number} SET {column} = ?1 WHERE position = ?2 AND length({column}) = length(?1)",
            [(row.fields[field], row.position) for row in rows],
        )
        same = same and changed.rowcount == len(rows)
    if not same:
        raise changed_rows()


def changed_rows() -> Conflict:
    return Conflict("the rows to be replaced are not those that are there", code="rows_changed")


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
