"""Damage by who holds a database's key and writes into its tables: cells and rows, swapped, replayed, removed, brought back."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlcipher3.dbapi2 as sqlcipher

from campaigns.damage_files import Apply, Damage

__all__ = ["table_damages"]

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    key: tuple[str, ...]  # columns that name a row
    columns: tuple[str, ...]

    def rows(self, run: Any) -> list[Row]:
        """(key..., columns...) of each row."""
        named = ", ".join(f'"{name}"' for name in (*self.key, *self.columns))
        return list(run.execute(f'SELECT {named} FROM "{self.name}" ORDER BY {", ".join(map(_quoted, self.key))}'))

    def put(self, run: Any, row: Row, column: str, value: Any) -> None:
        where = " AND ".join(f"{_quoted(name)} IS ?" for name in self.key)
        run.execute(f'UPDATE "{self.name}" SET {_quoted(column)} = ? WHERE {where}', (value, *row[: len(self.key)]))

    def value(self, row: Row, column: str) -> Any:
        return row[len(self.key) + self.columns.index(column)]


def _quoted(name: str) -> str:
    return f'"{name}"'


@contextmanager
def _opened(path: Path, key: bytes) -> Iterator[Any]:
    with closing(sqlcipher.connect(str(path), isolation_level=None)) as run:
        run.execute(f"PRAGMA key = \"x'{key.hex()}'\"")
        run.execute("PRAGMA cipher_compatibility = 4")
        run.execute("PRAGMA ignore_check_constraints = ON")
        run.execute("PRAGMA foreign_keys = OFF")
        yield run


def _tables(run: Any) -> list[_Table]:
    names = [
        name
        for (name,) in run.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    ]
    found = []
    for name in sorted(names):
        info = list(run.execute(f'PRAGMA table_info("{name}")'))
        key = tuple(column[1] for column in sorted(info, key=lambda c: c[5]) if column[5]) or ("rowid",)
        found.append(_Table(name, key, tuple(column[1] for column in info)))
    return found


Change = Callable[[Any, _Table, random.Random, list[Row]], bool]  # connection, table, chance, the older state's rows


def _swap_cells(column: str) -> Change:
    def change(run: Any, table: _Table, chance: random.Random, _: list[Row]) -> bool:
        rows = table.rows(run)
        if len(rows) < 2:
            return False
        one, other = chance.sample(rows, 2)
        first, second = table.value(one, column), table.value(other, column)
        if first == second or column in table.key:
            return False
        spare = _spare(first, chance)
        table.put(run, one, column, spare)  # a unique column never holds the same twice
        table.put(run, other, column, first)
        table.put(run, one, column, second)
        return True

    return change


def _spare(value: Any, chance: random.Random) -> Any:
    if isinstance(value, bytes):
        return chance.randbytes(len(value))
    return "spare" if isinstance(value, str) else -chance.randrange(2**40)


def _alter_cell(column: str) -> Change:
    def change(run: Any, table: _Table, chance: random.Random, _: list[Row]) -> bool:
        rows = table.rows(run)
        if not rows:
            return False
        row = chance.choice(rows)
        before = table.value(row, column)
        after = _altered(before, chance)
        table.put(run, row, column, after)
        return bool(after != before)

    return change


def _altered(value: Any, chance: random.Random) -> Any:
    if isinstance(value, bytes) and value:
        changed = bytearray(value)
        kind = chance.choice(["flip", "flip", "zero", "cut"])
        if kind == "flip":
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        elif kind == "zero":
            changed = bytearray(len(changed))
        else:
            del changed[-1]
        return bytes(changed)
    if isinstance(value, int):
        return value + chance.choice([-1, 1, 7, 2**33])
    return (value or "") + "x" if not isinstance(value, bytes) else b"\x00"


def _replay_cell(column: str) -> Change:
    def change(run: Any, table: _Table, chance: random.Random, older: list[Row]) -> bool:
        then = {row[: len(table.key)]: row for row in older}
        rows = [
            row
            for row in table.rows(run)
            if row[: len(table.key)] in then
            and table.value(then[row[: len(table.key)]], column) != table.value(row, column)
        ]
        if not rows or column in table.key:
            return False
        row = chance.choice(rows)
        table.put(run, row, column, table.value(then[row[: len(table.key)]], column))
        return True

    return change


def _swap_rows(run: Any, table: _Table, chance: random.Random, _: list[Row]) -> bool:
    rows = table.rows(run)
    if len(rows) < 2:
        return False
    one, other = chance.sample(rows, 2)
    moved = [column for column in table.columns if column not in table.key]
    spare = {column: _spare(table.value(one, column), chance) for column in moved}
    for row, values in (
        (one, spare),
        (other, {c: table.value(one, c) for c in moved}),
        (one, {c: table.value(other, c) for c in moved}),
    ):
        for column, value in values.items():
            table.put(run, row, column, value)
    return bool(moved)


def _delete_row(run: Any, table: _Table, chance: random.Random, _: list[Row]) -> bool:
    rows = table.rows(run)
    if not rows:
        return False
    where = " AND ".join(f"{_quoted(name)} IS ?" for name in table.key)
    run.execute(f'DELETE FROM "{table.name}" WHERE {where}', chance.choice(rows)[: len(table.key)])
    return True


def _bring_back(run: Any, table: _Table, chance: random.Random, older: list[Row]) -> bool:
    """A row that was there once, or is there with other values."""
    now = set(table.rows(run))
    gone = [row for row in older if row not in now]
    if not gone:
        return False
    values = chance.choice(gone)[len(table.key) :]
    marks = ", ".join("?" * len(values))
    run.execute(
        f'INSERT OR REPLACE INTO "{table.name}" ({", ".join(map(_quoted, table.columns))}) VALUES ({marks})', values
    )
    return True


def _drop_table(run: Any, table: _Table, _: random.Random, older: list[Row]) -> bool:
    del older
    run.execute(f'DELETE FROM "{table.name}"')
    return True


_ON_CELLS: Mapping[str, Callable[[str], Change]] = {
    "swap cells": _swap_cells,
    "alter a cell": _alter_cell,
    "older cell": _replay_cell,
}
_ON_ROWS: Mapping[str, Change] = {
    "swap rows": _swap_rows,
    "delete a row": _delete_row,
    "older row": _bring_back,
    "delete all rows": _drop_table,
}


def table_damages(
    root: Path, older: Path, keys: Mapping[str, bytes], older_keys: Mapping[str, bytes]
) -> Iterator[Damage]:
    """Of every column and table of every database. ``keys``: by the file's name. Both roots are opened: give it copies."""
    for name, key in keys.items():
        (path,) = root.rglob(name)
        relative = path.relative_to(root)
        with _opened(path, key) as run:
            tables = _tables(run)
        for table in tables:
            before = _Older(older / relative, older_keys[name])
            for what, make in _ON_CELLS.items():
                for column in table.columns:
                    apply = _on_table(relative, key, table, make(column), before)
                    yield Damage("tables", what, f"{name} {table.name}.{column}", apply)
            for what, change in _ON_ROWS.items():
                yield Damage("tables", what, f"{name} {table.name}", _on_table(relative, key, table, change, before))


class _Older:
    """The rows of an older state, read once for each table."""

    def __init__(self, path: Path, key: bytes) -> None:
        self._path, self._key = path, key
        self._read: dict[str, list[Row]] = {}

    def rows(self, table: _Table) -> list[Row]:
        if table.name not in self._read:
            with _opened(self._path, self._key) as run:
                there = table.name in {found.name for found in _tables(run)}
                self._read[table.name] = table.rows(run) if there else []
        return self._read[table.name]


def _on_table(relative: Path, key: bytes, table: _Table, change: Change, before: _Older) -> Apply:
    def apply(root: Path, chance: random.Random) -> bool:
        older = before.rows(table)
        with _opened(root / relative, key) as run:
            run.execute("BEGIN")
            try:
                changed = change(run, table, chance, older)
            except sqlcipher.IntegrityError:  # a rule of the schema stands in the way: not a case
                run.execute("ROLLBACK")
                return False
            run.execute("COMMIT")
            return changed

    return apply
