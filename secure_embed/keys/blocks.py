"""Tables of blocks: 256 positions of an owner side by side in one row of fixed size, so that a million of them are read,
compared and overwritten as contiguous memory. A row is of one size for life, is overwritten in place, never deleted, and
used again when its owner has ended (docs/decisions/0002, 0018).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from sqlcipher3.dbapi2 import Connection

from secure_embed.keys.database import SealedDatabase
from secure_embed.keys.sealed_table import SealedTable, place, place_of

__all__ = ["BlockTable", "block_positions", "by_block"]

block_positions = 256
free_owner = 0  # of rows whose owner has ended; their block is their id


class BlockTable:
    """``columns``: name and bytes of each position; a block that has no row is all zeros. The caller's transaction, and
    its care that owners are numbered from 1."""

    def __init__(self, name: str, columns: Mapping[str, int]) -> None:
        self.name = name
        self._sizes = {column: block_positions * size for column, size in columns.items()}

    @property
    def sealed(self) -> SealedTable:
        return SealedTable(name=self.name, columns=("place", *self._sizes), key="place", packed=True, at_start=False)

    @property
    def statement(self) -> str:
        columns = ", ".join(f"{c} BLOB NOT NULL CHECK (length({c}) = {size})" for c, size in self._sizes.items())
        return (
            f"CREATE TABLE {self.name} (id INTEGER PRIMARY KEY,"
            f" place BLOB NOT NULL UNIQUE CHECK (length(place) = 16), {columns}) STRICT"
        )

    def all(self, database: SealedDatabase, owner: int) -> list[tuple[int, Sequence[bytes]]]:
        """Block and content, ascending; compared with what was sealed. Not within a transaction."""
        return [(place_of(at)[1], content) for at, *content in database.sealed_rows(self.name, owner)]

    def some(self, run: Connection, owner: int, blocks: Iterable[int]) -> dict[int, list[bytearray]]:
        """To be changed and given back to :meth:`put`. What the last commit left is compared before that commits."""
        sql = f"SELECT {', '.join(self._sizes)} FROM {self.name} WHERE place = ?"
        found: dict[int, list[bytearray]] = {}
        for block in blocks:
            row = run.execute(sql, (place(owner, block),)).fetchone()
            found[block] = [bytearray(size) for size in self._sizes.values()] if row is None else [*map(bytearray, row)]
        return found

    def put(self, run: Connection, owner: int, blocks: Mapping[int, Sequence[bytes | bytearray]]) -> None:
        names = [*self._sizes]
        assign = ", ".join(f"{name} = ?" for name in names)
        for block, content in blocks.items():
            at, values = place(owner, block), [bytes(value) for value in content]
            if run.execute(f"UPDATE {self.name} SET {assign} WHERE place = ?", (*values, at)).rowcount:
                continue
            free = run.execute(f"SELECT id FROM {self.name} WHERE place < ? LIMIT 1", (place(free_owner + 1, 0),))
            if (row := free.fetchone()) is not None:
                run.execute(f"UPDATE {self.name} SET place = ?, {assign} WHERE id = ?", (at, *values, *row))
            else:
                marks = ", ".join("?" * len(names))
                run.execute(f"INSERT INTO {self.name} (place, {', '.join(names)}) VALUES (?, {marks})", (at, *values))

    def end(self, run: Connection, owner: int, limit: int) -> int:
        """Zeros over the owner's first ``limit`` rows, which are free then; how many."""
        sql = f"SELECT id FROM {self.name} WHERE place >= ? AND place < ? ORDER BY place LIMIT ?"
        ids = [row[0] for row in run.execute(sql, (place(owner, 0), place(owner + 1, 0), limit)).fetchall()]
        zeros = ", ".join(f"{name} = zeroblob({size})" for name, size in self._sizes.items())
        run.executemany(
            f"UPDATE {self.name} SET place = ?, {zeros} WHERE id = ?", [(place(free_owner, at), at) for at in ids]
        )
        return len(ids)


def by_block(positions: Iterable[int]) -> Iterator[tuple[int, list[int]]]:
    """Block, and where in it; ``positions`` ascend."""
    for block, of_block in groupby(positions, lambda position: position // block_positions):
        yield block, [position % block_positions for position in of_block]
