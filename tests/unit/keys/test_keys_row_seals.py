"""Rows sealed as sets: what the mechanism owes, on a small file of its own."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event, Thread

import pytest
import sqlcipher3.dbapi2 as sqlcipher

from secure_embed.errors import Conflict, IntegrityFailure, Unavailable
from secure_embed.keys import BlockTable, SealedDatabase, SealedTable, SealedTables, block_positions

key, rows_key = bytes(range(32)), bytes(range(1, 33))
bytes_table = BlockTable("bytes", {"value": 1})
migrations = (
    f"""
    CREATE TABLE small (id INTEGER PRIMARY KEY, text TEXT UNIQUE, content BLOB) STRICT;
    CREATE TABLE event (owner INTEGER NOT NULL, number INTEGER NOT NULL, kind INTEGER NOT NULL,
                        PRIMARY KEY (owner, number)) STRICT, WITHOUT ROWID;
    {bytes_table.statement};
    CREATE TABLE free (id INTEGER PRIMARY KEY) STRICT
    """,
)
tables = SealedTables(
    file="some.db",
    tables=(
        SealedTable(name="small", columns=("id", "text", "content"), key="id"),
        SealedTable(name="event", columns=("owner", "number", "kind"), owner="owner", key="number", at_start=False),
        bytes_table.sealed,
    ),
)

tables_none = SealedTables(file="some.db", tables=())


def database(path: Path) -> SealedDatabase:
    return SealedDatabase(path, key, migrations=migrations, sealed=(tables, rows_key))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = database(tmp_path / "some.db")
    with made.transaction() as run:
        run.executemany("INSERT INTO small VALUES (?, ?, ?)", [(n, f"t{n}", bytes([n])) for n in range(5)])
        run.executemany("INSERT INTO event VALUES (?, ?, 0)", [(1, n) for n in range(600)] + [(2, n) for n in range(9)])
        run.execute("INSERT INTO free VALUES (1)")
        bytes_table.put(run, 1, {n: [bytes([n + 1]) * block_positions] for n in range(3)})
    made.close()
    return tmp_path / "some.db"


def attack(path: Path, *statements: str) -> None:
    run = sqlcipher.connect(str(path), isolation_level=None)
    run.execute(f"PRAGMA key = \"x'{key.hex()}'\"")
    for statement in statements:
        run.execute(statement)
    run.close()


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(IntegrityFailure) as failure:
        call()
    assert failure.value.code == "rows_altered"
    return failure.value.detail


def events(of: SealedDatabase, owner: int) -> Sequence[int]:
    return [number for _, number, _ in of.sealed_rows("event", owner)]


@pytest.fixture
def opened(path: Path) -> Iterator[SealedDatabase]:
    made = database(path)
    yield made
    made.close()


def test_what_was_written_is_read_after_a_restart(opened: SealedDatabase) -> None:
    assert events(opened, 1) == [*range(600)]
    assert events(opened, 2) == [*range(9)]
    assert events(opened, 3) == []
    assert [block for block, _ in bytes_table.all(opened, 1)] == [0, 1, 2]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM small WHERE id = 3",
        "INSERT INTO small VALUES (9, NULL, NULL)",
        "INSERT INTO small VALUES (9000, NULL, NULL)",
        "UPDATE small SET text = 't' WHERE id = 0",
        "UPDATE small SET text = NULL WHERE id = 0",
        "UPDATE small SET id = 7 WHERE id = 0",
        "DELETE FROM row_seals WHERE name = 'event'",
        "DELETE FROM row_seals",
        "DELETE FROM file_seal",
        "DROP TABLE file_seal",
        "UPDATE file_generation SET number = number - 1",
        "CREATE TRIGGER t AFTER INSERT ON event BEGIN DELETE FROM event WHERE number = NEW.number - 1; END",
        "CREATE VIEW v AS SELECT * FROM event",
        "CREATE TABLE more (owner INTEGER, number INTEGER, FOREIGN KEY (owner, number) REFERENCES event ON DELETE CASCADE)",
        "DROP TABLE free",
        "PRAGMA user_version = 0; DELETE FROM row_seals",
        "PRAGMA user_version = 0; DROP TABLE file_seal; DROP TABLE row_seals; DROP TABLE event; DROP TABLE small",
    ],
)
def test_a_small_table_the_hashes_and_the_schema_are_looked_at_when_the_file_is_opened(
    path: Path, statement: str
) -> None:
    attack(path, *statement.split(";") if statement.startswith("PRAGMA") else [statement])
    for _ in range(2):  # a start that is refused has sealed nothing
        refused(lambda: database(path))


def test_an_index_that_was_made_to_lack_a_row_is_noticed(path: Path) -> None:
    """The row is there and as it was; who looks for it by its text would be told that it is not."""
    run = sqlcipher.connect(str(path), isolation_level=None)
    run.execute(f"PRAGMA key = \"x'{key.hex()}'\"")
    run.execute("UPDATE small SET text = 'elsewhere' WHERE id = 2")
    (before,) = run.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_small_1'").fetchone()
    run.execute("PRAGMA writable_schema = ON")
    # The index of another table's shape in its place while the text is put back: the right one is not kept up.
    run.execute("CREATE TABLE spare (id INTEGER PRIMARY KEY, text TEXT UNIQUE)")
    run.execute("INSERT INTO spare SELECT id, text FROM small")
    (spare,) = run.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_spare_1'").fetchone()
    swap = "UPDATE sqlite_schema SET rootpage = ? WHERE name = 'sqlite_autoindex_small_1'"
    run.execute(swap, (spare,))
    run.execute("UPDATE sqlite_schema SET rootpage = ? WHERE name = 'sqlite_autoindex_spare_1'", (before,))
    run.close()
    run = sqlcipher.connect(str(path), isolation_level=None)
    run.execute(f"PRAGMA key = \"x'{key.hex()}'\"")
    run.execute("UPDATE small SET text = 't2' WHERE id = 2")
    run.execute("PRAGMA writable_schema = ON")
    run.execute(swap, (before,))
    run.execute("UPDATE sqlite_schema SET rootpage = ? WHERE name = 'sqlite_autoindex_spare_1'", (spare,))
    run.close()
    run = sqlcipher.connect(str(path), isolation_level=None)
    run.execute(f"PRAGMA key = \"x'{key.hex()}'\"")
    run.execute("DROP TABLE spare")
    assert run.execute("SELECT text FROM small WHERE id = 2").fetchone() == ("t2",)
    assert run.execute("SELECT id FROM small WHERE text = 't2'").fetchone() is None
    run.close()
    assert "an index of small" in refused(lambda: database(path))


def test_an_emptied_file_is_not_sealed_as_a_new_one(path: Path) -> None:
    """Its count of changes kept, so that it would not look older than it is."""
    names = ("small", "event", "bytes", "free", "row_seals", "file_seal")
    attack(path, "PRAGMA user_version = 0", *(f"DROP TABLE {name}" for name in names))
    for _ in range(2):
        refused(lambda: database(path))


def test_a_file_whose_making_was_cut_off_is_made(tmp_path: Path) -> None:
    """The crash comes between the hashes and the first migration."""
    path = tmp_path / "some.db"
    SealedDatabase(path, key, migrations=(), sealed=(tables_none, rows_key)).close()
    made = database(path)
    with made.transaction() as run:
        run.execute("INSERT INTO event VALUES (1, 1, 0)")
    made.close()
    again = database(path)
    assert events(again, 1) == [1]
    again.close()


def test_another_key_of_the_rows_opens_nothing(path: Path) -> None:
    refused(lambda: SealedDatabase(path, key, migrations=migrations, sealed=(tables, bytes(32))))
    database(path).close()  # the refused opening let go of the file


def test_a_table_that_is_not_sealed_is_the_files_own_matter(path: Path) -> None:
    attack(path, "DELETE FROM free")
    database(path).close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM event WHERE owner = 1 AND number = 300",
        "DELETE FROM event WHERE owner = 1",
        "UPDATE event SET kind = 1 WHERE owner = 1 AND number = 300",
        "INSERT INTO event VALUES (1, 600, 0)",
        "INSERT INTO event VALUES (1, 70000, 0)",
        "INSERT INTO event VALUES (1, -1, 0)",
    ],
)
def test_an_owners_rows_are_compared_when_they_are_read_first(path: Path, statement: str) -> None:
    attack(path, statement)
    made = database(path)
    for _ in range(2):
        detail = refused(lambda: events(made, 1))
        assert detail.startswith("rows of some.db, event of 1, block ")
    assert events(made, 2) == [*range(9)]
    made.close()


def test_blocks_alone_are_compared_when_they_alone_are_asked_for(path: Path) -> None:
    attack(path, "DELETE FROM event WHERE owner = 1 AND number = 300")
    made = database(path)
    made.require_sealed("event", 1, 0, 255)
    made.require_sealed("event", 1, 512, 9_999)
    assert "block 4," in refused(lambda: made.require_sealed("event", 1, 200, 256))
    made.close()


def test_a_row_in_a_block_that_was_never_written_is_noticed(path: Path) -> None:
    attack(path, "INSERT INTO event VALUES (1, 5000, 0)")
    made = database(path)
    assert f"block {5_000 // 64}," in refused(lambda: made.require_sealed("event", 1, 0, 5_100))
    made.close()


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO event VALUES (1, 599 + 1, 0)",
        "UPDATE event SET kind = 2 WHERE owner = 1 AND number = 599",
        "DELETE FROM event WHERE owner = 1 AND number = 599",
        "DELETE FROM event WHERE owner = 1",
        "INSERT OR REPLACE INTO event VALUES (1, 599, 2)",
    ],
)
def test_a_block_that_was_altered_is_not_sealed_anew_by_a_write_that_never_read_it(path: Path, statement: str) -> None:
    attack(path, "DELETE FROM event WHERE owner = 1 AND number = 598")
    made = database(path)

    def write() -> None:
        with made.transaction() as run:
            run.execute(statement)

    before = made.rows("SELECT count(*) FROM event")
    refused(write)
    assert made.rows("SELECT count(*) FROM event") == before
    refused(write)
    made.close()
    made = database(path)
    refused(lambda: events(made, 1))
    made.close()


def test_a_transaction_that_is_rolled_back_leaves_what_was_sealed(opened: SealedDatabase, path: Path) -> None:
    def write() -> None:
        with opened.transaction() as run:
            run.execute("DELETE FROM event")
            run.execute("DELETE FROM small")
            raise Conflict("no", code="test")

    with pytest.raises(Conflict):
        write()
    assert events(opened, 1) == [*range(600)]
    with opened.transaction() as run:
        run.execute("DELETE FROM event WHERE number = 5")
    assert len(events(opened, 1)) == 599
    opened.close()
    again = database(path)
    assert len(events(again, 1)) == 599
    again.close()


def test_a_commit_that_fails_is_followed_by_one_that_does_not(opened: SealedDatabase, path: Path) -> None:
    with opened.transaction() as run:
        (pages,) = run.execute("PRAGMA page_count").fetchone()
        run.execute(f"PRAGMA max_page_count = {pages}")

    def write(count: int) -> None:
        with opened.transaction() as run:
            run.executemany("INSERT INTO small VALUES (?, NULL, zeroblob(3000))", [(100 + n,) for n in range(count)])

    with pytest.raises(Unavailable) as full:
        write(500)
    assert full.value.code == "storage_full"
    with opened.transaction() as run:
        run.execute(f"PRAGMA max_page_count = {pages + 1_000}")
    write(3)
    opened.close()
    database(path).close()


def test_a_new_key_of_the_file_changes_no_hash_and_later_writes_are_sealed(path: Path) -> None:
    made, other = database(path), bytes(range(7, 39))
    made.rekey(other)
    with made.transaction() as run:
        run.execute("INSERT INTO event VALUES (1, 600, 0)")
        run.execute("UPDATE small SET text = 'other' WHERE id = 1")
    made.close()
    again = SealedDatabase(path, other, migrations=migrations, sealed=(tables, rows_key))
    assert events(again, 1) == [*range(601)]
    again.close()


def test_a_copy_is_sealed_as_the_file_is(opened: SealedDatabase, path: Path) -> None:
    opened.copy_to(path.with_name("copy.db"))
    copied = database(path.with_name("copy.db"))
    assert events(copied, 1) == [*range(600)]
    copied.close()


def test_a_block_of_an_owner_that_ended_is_zeros_and_used_again(opened: SealedDatabase) -> None:
    with opened.transaction() as run:
        assert bytes_table.end(run, 1, 2) == 2
    with opened.transaction() as run:
        assert bytes_table.end(run, 1, 2) == 1
        assert run.execute("SELECT sum(value <> zeroblob(256)) FROM bytes").fetchone() == (0,)
        bytes_table.put(run, 2, {7: [b"x" * block_positions]})
        assert run.execute("SELECT count(*) FROM bytes").fetchone() == (3,)
    assert bytes_table.all(opened, 1) == []
    assert bytes_table.all(opened, 2) == [(7, [b"x" * block_positions])]


def test_a_first_reading_beside_a_writer_is_no_false_alarm(path: Path) -> None:
    """Commits fall between the look at the hashes and the look at the rows."""
    stop, failures = Event(), list[BaseException]()
    for _ in range(15):
        made = database(path)

        def write(made: SealedDatabase = made) -> None:
            try:
                while not stop.is_set():
                    with made.transaction() as run:
                        run.execute("UPDATE event SET kind = kind + 1 WHERE owner = 1 AND number % 64 = 3")
            except BaseException as failure:  # noqa: BLE001
                failures.append(failure)

        stop.clear()
        writer = Thread(target=write)
        writer.start()
        try:
            assert len(events(made, 1)) == 600
            made.require_sealed("event", 2, 0, 9)
        finally:
            stop.set()
            writer.join()
            made.close()
    assert failures == []
