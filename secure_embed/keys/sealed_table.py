"""Which tables of a file are sealed as sets of rows, how their rows fall into blocks, and what tells that one is touched."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from secure_embed.keys.row_tree import Leaf, Owner, Value

__all__ = ["Row", "SealedTable", "SealedTables", "block_of", "place", "place_of"]

rows_shift = 6  # 64 keys to a block: a write reads and hashes what else is in it

_place = struct.Struct(">qq")

Row = tuple[Any, ...]


def place(owner: int, block: int) -> bytes:
    """16 bytes, in the order of owners and blocks; numbers in columns of their own would change a row's size."""
    return _place.pack(owner, block)


def place_of(stored: bytes) -> tuple[int, int]:
    return _place.unpack(stored)


def block_of(key: int) -> int:
    return key >> rows_shift


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedTable:
    """``columns``: all of them. ``key``: the integer that names a row; of its owner, where the column ``owner`` says whose
    it is. Or ``place``: the column holds owner and block, as :func:`place` packs them. ``at_start``: small, compared when
    the file is opened; otherwise its reader calls for it."""

    name: str
    columns: tuple[str, ...]
    key: str
    owner: str | None = None
    packed: bool = False
    at_start: bool = True

    @property
    def order(self) -> str:
        return self.key if self.owner is None else f"{self.owner}, {self.key}"

    def select(self, where: str) -> str:
        return f"SELECT {', '.join(self.columns)} FROM {self.name} WHERE {where} ORDER BY {self.order}"

    def between(self, owner: int, first: int, end: int) -> tuple[str, Sequence[Value]]:
        """Blocks ``first`` to ``end``, not included."""
        if self.packed:
            return self.select(f"{self.key} >= ? AND {self.key} < ?"), (place(owner, first), place(owner, end))
        keys = (first << rows_shift, (end << rows_shift) - 1)
        if self.owner is None:
            return self.select(f"{self.key} BETWEEN ? AND ?"), keys
        return self.select(f"{self.owner} = ? AND {self.key} BETWEEN ? AND ?"), (owner, *keys)

    def of_owner(self, owner: int) -> tuple[str, Sequence[Value]]:
        if self.packed:
            return self.select(f"{self.key} >= ? AND {self.key} < ?"), (place(owner, 0), place(owner + 1, 0))
        return self.select("TRUE" if self.owner is None else f"{self.owner} = ?"), (owner,) if self.owner else ()

    def leaf(self, row: Row) -> Leaf:
        key = row[self.columns.index(self.key)]
        if self.packed:
            owner, block = place_of(key)
            return Leaf(Owner(self.name, owner), block)
        owner = 0 if self.owner is None else row[self.columns.index(self.owner)]
        return Leaf(Owner(self.name, owner), block_of(key))

    def triggers(self) -> Iterator[str]:
        owner = "0" if self.owner is None else f"{{row}}.{self.owner}"
        touched = f"SELECT row_touched('{self.name}', {owner}, {{row}}.{self.key})"
        for event, rows in (("INSERT", ("NEW",)), ("UPDATE", ("OLD", "NEW")), ("DELETE", ("OLD",))):
            body = " ".join(f"{touched.format(row=row)};" for row in rows)
            yield f"CREATE TEMP TRIGGER {self.name}_{event} AFTER {event} ON main.{self.name} BEGIN {body} END"


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedTables:
    """Which tables of a file are sealed, and what the file is called in their hashes."""

    file: str
    tables: tuple[SealedTable, ...]
