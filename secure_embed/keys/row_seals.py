"""The rows of a SQLCipher file, sealed as sets: who holds the file's key can take rows away, move them and put older ones
back, and is found out. The key of the hashes is another (``keys.catalogue.rows_key``). Why so: docs/decisions/0018.

Which blocks a transaction touches is told by triggers of the connection that writes, so no write can forget it. A block is
compared with its hash before it counts for anything: at the start, at the first reading of its owner, and, in the state of
the last commit, before its hash is made anew.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from sqlcipher3.dbapi2 import Connection

from secure_embed.errors import IntegrityFailure
from secure_embed.keys.locked import Held
from secure_embed.keys.row_tree import Leaf, Owner, RowMacs, RowTree, Value
from secure_embed.keys.sealed_table import Row, SealedTable, SealedTables, block_of, place_of

__all__ = ["RowSeals"]

run_blocks = 64  # read at a time: under 1 MiB

_tables = (
    """CREATE TABLE row_seals (
        name TEXT NOT NULL, owner INTEGER NOT NULL, block INTEGER NOT NULL, mac BLOB NOT NULL,
        PRIMARY KEY (name, owner, block)
    ) STRICT, WITHOUT ROWID""",
    "CREATE TABLE file_seal (one INTEGER PRIMARY KEY CHECK (one = 1), mac BLOB NOT NULL) STRICT",
)
_schema = Leaf(Owner("sqlite_schema", 0), 0)
_schema_rows = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"

Read = Callable[[str, Sequence[Value]], list[Row]]


def _altered(file: str, table: str, where: str = "") -> IntegrityFailure:
    return IntegrityFailure(f"rows of {file}, {table}{where}, are not as they were written", code="rows_altered")


class RowSeals:
    """Of one open file. Its database's lock is held by who calls; :meth:`rows` says whether it is."""

    def __init__(self, sealed: SealedTables, key: Held) -> None:
        self._file = sealed.file
        self._tables = {table.name: table for table in sealed.tables}
        self._key = key
        self._macs = RowMacs(sealed.file, key)
        self._tree: RowTree | None = None  # None: to be read
        self._schema_version: int | None = None  # of which the hash is known
        self._touched: set[Leaf] = set()
        self._sure: set[Leaf] = set()  # compared since the file was opened
        self._whole: set[Owner] = set()  # owners whose blocks all were

    # --- opening ---------------------------------------------------------------------------------------------------

    def is_new(self, read: Read) -> bool:
        """Whether nothing is in the file yet. An emptied one would be sealed as it is: where there is anything, the hashes
        have to be there, and hold."""
        if not read("SELECT 1 FROM sqlite_schema", ()):
            return True
        self._read_tree(read)
        return False

    def create(self, run: Connection) -> None:
        """In a new file."""
        for statement in _tables:
            run.execute(statement)
        self._tree = RowTree({})

    def watch(self, run: Connection) -> None:
        """``run``: a connection that will write. What its triggers tell counts for :meth:`seal`."""
        run.create_function("row_touched", 3, self._touch)
        for table in self._tables.values():
            for statement in table.triggers():
                run.execute(statement)

    def _touch(self, name: str, owner: int, key: int | bytes) -> None:
        if isinstance(key, bytes):
            owner, block = place_of(key)
        else:
            block = block_of(key)
        self._touched.add(Leaf(Owner(name, owner), block))

    def load(self, read: Read) -> None:
        """Read the hashes, compare them with the file's own, and the small tables with theirs.

        Raises ``IntegrityFailure``: ``rows_altered``, ``database_unreadable``.
        """
        tree = self._read_tree(read)
        # A changed schema would change rows while we write: triggers, cascades.
        if tree.find(_schema) != self._macs.leaf(_schema, read(_schema_rows, ())):
            raise _altered(self._file, "the schema")
        ((self._schema_version,),) = read("PRAGMA schema_version", ())
        for table in self._tables.values():
            if table.at_start:
                self._load_table(read, table)

    def _read_tree(self, read: Read) -> RowTree:
        if len(read("SELECT 1 FROM sqlite_schema WHERE name IN ('row_seals', 'file_seal')", ())) != len(_tables):
            raise _altered(self._file, "the schema")
        leaves = read("SELECT name, owner, block, mac FROM row_seals", ())
        tree = RowTree.of(self._macs, ((Leaf(Owner(n, o), b), mac) for n, o, b, mac in leaves))
        generations, tops = read("SELECT number FROM file_generation", ()), read("SELECT mac FROM file_seal", ())
        if len(generations) != 1:
            raise IntegrityFailure(f"{self._file} does not count its changes", code="database_unreadable")
        if tops != [(tree.top(self._macs, generations[0][0]),)]:
            raise _altered(self._file, "the list of its tables")
        self._tree = tree
        return tree

    def _load_table(self, read: Read, table: SealedTable) -> None:
        # Rows are found through indexes, and an index can be made to lack one: it is compared with its table.
        if read(f"PRAGMA integrity_check({table.name})", ()) != [("ok",)]:
            raise _altered(self._file, f"an index of {table.name}")
        rows = read(table.select("TRUE"), ())
        tree = self._now(read)
        owners = {owner.number for owner in tree.owners(table.name)}
        if found := self._unlike(tree, table, rows, owners=owners):
            raise self._altered(found)

    # --- comparing -------------------------------------------------------------------------------------------------

    def rows(self, read: Read, name: str, owner: int, *, locked: bool) -> list[Row] | None:
        """All rows of an owner, compared the first time. None: they are not alike, and a commit may have fallen in
        between; who is ``locked`` against that gets ``IntegrityFailure`` (``rows_altered``)."""
        table, of = self._tables[name], Owner(name, owner)
        tree, rows = self._now(read), read(*table.of_owner(owner))
        if table.at_start or of in self._whole:
            return rows
        if found := self._unlike(tree, table, rows, owners={owner}):
            if locked:
                raise self._altered(found)
            return None
        self._whole.add(of)
        return rows

    def require_keys(self, read: Read, name: str, owner: int, first: int, last: int) -> None:
        """:meth:`require` for the blocks of keys ``first`` to ``last``."""
        self.require(read, name, owner, range(block_of(first), block_of(last) + 1))

    def require(self, read: Read, name: str, owner: int, blocks: Iterable[int]) -> None:
        """Raise ``IntegrityFailure`` unless these blocks are as sealed in the last commit. Each is compared once."""
        table, of = self._tables[name], Owner(name, owner)
        if table.at_start or of in self._whole:
            return
        tree = self._now(read)
        fresh = sorted(block for block in set(blocks) if Leaf(of, block) not in self._sure)
        for first, end in _runs(fresh):
            found = dict(self._grouped(table, read(*table.between(owner, first, end))))
            for block in range(first, end):
                leaf = Leaf(of, block)
                rows = found.get(leaf, ())
                if tree.find(leaf) != (self._macs.leaf(leaf, rows) if rows else None):
                    raise self._altered(leaf)
                self._sure.add(leaf)

    def _unlike(self, tree: RowTree, table: SealedTable, rows: Iterable[Row], *, owners: set[int]) -> Leaf | None:
        """The first block that is not as sealed; ``rows``: all of these owners."""
        missing = {
            Leaf(of, block) for number in owners for of in [Owner(table.name, number)] for block in tree.blocks(of)
        }
        for leaf, of_block in self._grouped(table, rows):
            if self._macs.leaf(leaf, of_block) != tree.find(leaf):
                return leaf
            missing.discard(leaf)
        return min(missing, default=None)

    def _grouped(self, table: SealedTable, rows: Iterable[Row]) -> Iterator[tuple[Leaf, list[Row]]]:
        try:
            for leaf, of_block in groupby(rows, table.leaf):
                yield leaf, list(of_block)
        except (struct.error, TypeError):
            raise _altered(self._file, table.name) from None

    def _altered(self, leaf: Leaf) -> IntegrityFailure:
        of_owner = f" of {leaf.owner.number}" if leaf.owner.number else ""
        return _altered(self._file, leaf.owner.table, f"{of_owner}, block {leaf.block}")

    def _now(self, read: Read) -> RowTree:
        return self._tree if self._tree is not None else self._read_tree(read)

    # --- writing ---------------------------------------------------------------------------------------------------

    def schema_changed(self, run: Connection) -> bool:
        """That is no change of a row to SQLite."""
        return bool(run.execute("PRAGMA schema_version").fetchone() != (self._schema_version,))

    def seal(self, run: Connection, committed: Read, generation: int) -> RowTree:
        """At the end of a transaction: new hashes for all blocks that it touched, written within it. ``committed`` reads
        the state before it, ``run`` the one after. Give the answer to :meth:`took` when it is committed."""
        tree = self._now(committed)
        changes: dict[Leaf, bytes | None] = {}
        by_owner: dict[Owner, list[int]] = {}
        for leaf in self._touched:
            by_owner.setdefault(leaf.owner, []).append(leaf.block)
        for of, blocks in by_owner.items():
            self.require(committed, of.table, of.number, blocks)
            table = self._tables[of.table]
            for first, end in _runs(sorted(blocks)):
                changes.update({Leaf(of, block): None for block in range(first, end)})
                rows = run.execute(*table.between(of.number, first, end))
                changes.update((leaf, self._macs.leaf(leaf, some)) for leaf, some in self._grouped(table, rows))
        if self.schema_changed(run):
            changes[_schema] = self._macs.leaf(_schema, run.execute(_schema_rows))
            (self._schema_version,) = run.execute("PRAGMA schema_version").fetchone()
        tree = tree.replacing(self._macs, changes)
        run.executemany(
            "DELETE FROM row_seals WHERE name = ? AND owner = ? AND block = ?",
            [(*leaf.owner, leaf.block) for leaf, mac in changes.items() if mac is None],
        )
        run.executemany(
            "INSERT OR REPLACE INTO row_seals VALUES (?, ?, ?, ?)",
            [(*leaf.owner, leaf.block, mac) for leaf, mac in changes.items() if mac is not None],
        )
        run.execute("INSERT OR REPLACE INTO file_seal VALUES (1, ?)", (tree.top(self._macs, generation),))
        return tree

    def took(self, tree: RowTree) -> None:
        self._tree = tree
        self._sure |= {leaf for leaf in self._touched if leaf.owner not in self._whole}
        self._touched.clear()

    def undone(self, *, sure: bool) -> None:
        """The transaction was rolled back; unless that is ``sure``, what is committed is read again."""
        if not sure:
            self._tree = None
        self._touched.clear()

    def close(self) -> None:
        self._key.wipe()


def _runs(blocks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(first, end) of blocks that follow each other, at most ``run_blocks`` of them."""
    at = 0
    while at < len(blocks):
        end = at + 1
        while end < len(blocks) and end - at < run_blocks and blocks[end] == blocks[at] + end - at:
            end += 1
        yield blocks[at], blocks[end - 1] + 1
        at = end
