"""The one way to open a SQLCipher file: what it sets, what it refuses, how faults reach the caller."""

import os
import stat
from pathlib import Path

import pytest
from sqlcipher3 import dbapi2 as sqlcipher

from secure_embed.errors import ConfigurationError, IntegrityFailure, Unavailable
from secure_embed.keys import SealedDatabase

schema = "CREATE TABLE notes (text TEXT NOT NULL UNIQUE) STRICT"
key = bytes(range(32))


def opened(path: Path, *, with_key: bytes = key, migrations: tuple[str, ...] = (schema,)) -> SealedDatabase:
    return SealedDatabase(path, with_key, migrations=migrations)


@pytest.mark.parametrize(
    ("pragma", "value"),
    [
        ("journal_mode", "wal"),
        ("synchronous", 2),  # FULL
        ("secure_delete", 1),
        ("temp_store", 2),  # MEMORY
        ("foreign_keys", 1),
        ("trusted_schema", 0),
        ("cipher_page_size", "4096"),
        ("cipher_hmac_algorithm", "HMAC_SHA512"),
        ("cipher_use_hmac", "1"),
    ],
)
def test_settings_are_in_force(tmp_path: Path, pragma: str, value: object) -> None:
    assert opened(tmp_path / "notes.db").rows(f"PRAGMA {pragma}") == [(value,)]


def test_no_file_holds_what_was_written_or_the_schema(tmp_path: Path) -> None:
    database = opened(tmp_path / "notes.db")
    with database.transaction() as run:
        run.execute("INSERT INTO notes VALUES ('unmistakable content')")
    files = [path.read_bytes() for path in tmp_path.iterdir()]
    assert len(files) >= 2  # the database and its write-ahead log
    for secret in (b"unmistakable", b"CREATE TABLE", b"SQLite format", key):
        assert not any(secret in raw for raw in files)


def test_files_are_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        database = opened(tmp_path / "notes.db")
        with database.transaction() as run:
            run.execute("INSERT INTO notes VALUES ('x')")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o600}, modes


@pytest.mark.parametrize("wrong", [bytes(32), key[::-1]])
def test_a_wrong_key_is_refused(tmp_path: Path, wrong: bytes) -> None:
    opened(tmp_path / "notes.db").close()
    with pytest.raises(IntegrityFailure) as refused:
        opened(tmp_path / "notes.db", with_key=wrong)
    assert refused.value.code == "database_unreadable"


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_key_of_another_size_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(ConfigurationError) as refused:
        opened(tmp_path / "notes.db", with_key=bytes(size))
    assert refused.value.code == "database_key_invalid"


@pytest.mark.parametrize("offset", [0, 20, 4_000, 2 * 4_096 + 100])
def test_a_changed_byte_is_noticed(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "notes.db"
    opened(path).close()
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1
    path.write_bytes(raw)
    with pytest.raises(IntegrityFailure):
        opened(path).rows("SELECT * FROM notes")


def test_migrations_run_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    opened(path).close()
    both = (schema, "ALTER TABLE notes ADD COLUMN author TEXT; CREATE INDEX by_author ON notes (author)")
    opened(path, migrations=both).close()
    assert opened(path, migrations=both).rows("SELECT text, author FROM notes") == []


def test_a_migration_that_fails_leaves_nothing_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    with pytest.raises(Unavailable):
        opened(path, migrations=(schema, "CREATE TABLE half (a INTEGER) STRICT; NONSENSE"))
    database = opened(path)
    assert database.rows("SELECT name FROM sqlite_master WHERE name = 'half'") == []


def test_a_file_from_the_future_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    opened(path, migrations=(schema, "CREATE TABLE later (a INTEGER) STRICT")).close()
    with pytest.raises(ConfigurationError) as refused:
        opened(path)
    assert refused.value.code == "database_too_new"


def test_a_transaction_that_raises_leaves_nothing(tmp_path: Path) -> None:
    database = opened(tmp_path / "notes.db")
    for refusable, kind in ((True, sqlcipher.IntegrityError), (False, IntegrityFailure)):
        with pytest.raises(kind), database.transaction(refusable=refusable) as run:  # noqa: PT012  (both belong to it)
            run.execute("INSERT INTO notes VALUES ('a')")
            run.execute("INSERT INTO notes VALUES ('a')")
        assert database.rows("SELECT * FROM notes") == []
    with database.transaction() as run:
        run.execute("INSERT INTO notes VALUES ('b')")
    assert database.rows("SELECT * FROM notes") == [("b",)]


def test_emptying_the_write_ahead_log_truncates_it(tmp_path: Path) -> None:
    database = opened(tmp_path / "notes.db")
    with database.transaction() as run:
        run.execute("INSERT INTO notes VALUES ('a')")
    log = tmp_path / "notes.db-wal"
    assert log.stat().st_size > 0
    database.empty_write_ahead_log()
    assert log.stat().st_size == 0


def test_after_close_it_is_unavailable(tmp_path: Path) -> None:
    database = opened(tmp_path / "notes.db")
    database.close()
    database.close()
    with pytest.raises(Unavailable):
        database.rows("SELECT 1")
    with pytest.raises(Unavailable), database.transaction():
        pass


def test_plain_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    monkeypatch.setattr("secure_embed.keys.database.sqlcipher.connect", sqlite3.connect)
    with pytest.raises(ConfigurationError) as refused:
        opened(tmp_path / "notes.db")
    assert refused.value.code == "sqlcipher_missing"
    assert (tmp_path / "notes.db").read_bytes() == b""


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [("PRAGMA max_page_count = 1", "storage_full", 507), ("PRAGMA query_only = ON", "storage_read_only", 507)],
)
def test_a_medium_that_takes_no_more_is_unavailable_and_loses_nothing(
    tmp_path: Path, fault: str, code: str, status: int
) -> None:
    database = opened(tmp_path / "notes.db")
    with database.transaction() as run:
        run.execute("INSERT INTO notes VALUES ('kept')")
    database._connection.execute(fault)
    with pytest.raises(Unavailable) as refused, database.transaction() as run:  # noqa: PT012  (both belong to it)
        for number in range(100):
            run.execute("INSERT INTO notes VALUES (?)", (f"{number} " * 1_000,))
    assert (refused.value.code, refused.value.status) == (code, status)
    assert database.rows("SELECT text FROM notes") == [("kept",)]


def test_a_reader_that_holds_the_log_open_is_told_apart_from_an_emptied_log(tmp_path: Path) -> None:
    """A shred that could not empty the log must not say that it did."""
    database = opened(tmp_path / "notes.db")
    with database.transaction() as run:
        run.execute("INSERT INTO notes VALUES ('a')")
    database._connection.execute("PRAGMA busy_timeout = 0")
    database._reader.execute("BEGIN")
    database._reader.execute("SELECT * FROM notes").fetchall()
    with database.transaction() as run:
        run.execute("DELETE FROM notes")
    with pytest.raises(Unavailable):
        database.empty_write_ahead_log()
    database._reader.execute("COMMIT")
    database.empty_write_ahead_log()
    assert (tmp_path / "notes.db-wal").stat().st_size == 0


def test_a_file_is_open_once_at_a_time(tmp_path: Path) -> None:
    """In this process as in another: two openers would each think that they alone write."""
    first = opened(tmp_path / "notes.db")
    for _ in range(2):
        with pytest.raises(ConfigurationError) as refused:
            opened(tmp_path / "notes.db")
        assert refused.value.code == "store_in_use"
    with first.transaction() as run:
        run.execute("INSERT INTO notes VALUES ('the first goes on')")
    first.close()
    with pytest.raises(IntegrityFailure):
        opened(tmp_path / "notes.db", with_key=bytes(32))  # and lets go of the lock
    opened(tmp_path / "notes.db").close()


def test_a_folder_that_is_not_there_or_a_linked_lock_is_refused(tmp_path: Path) -> None:
    (tmp_path / "linked.lock").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "missing" / "notes.db", tmp_path / "linked"):
        with pytest.raises(ConfigurationError) as refused:
            opened(path)
        assert refused.value.code == "store_unusable"
    assert not (tmp_path / "elsewhere").exists()


def test_the_generation_counts_transactions_that_changed_a_row_and_outlives_a_restart(tmp_path: Path) -> None:
    database = opened(tmp_path / "notes.db")
    start = database.generation
    with database.transaction() as run:
        run.execute("INSERT INTO notes VALUES ('a'), ('b')")
    assert database.generation == start + 1
    with database.transaction() as run:
        run.execute("DELETE FROM notes WHERE text = 'not there'")
        assert database.rows("SELECT text FROM notes") == [("a",), ("b",)]
    with pytest.raises(IntegrityFailure), database.transaction() as run:
        run.execute("INSERT INTO notes VALUES ('a')")
    assert database.generation == start + 1
    database.close()
    again = opened(tmp_path / "notes.db")
    assert again.generation == start + 1
    again.close()


def test_an_older_file_put_back_shows_in_its_generation(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    opened(path).close()
    older = path.read_bytes()
    database = opened(path)
    with database.transaction() as run:
        run.execute("INSERT INTO notes VALUES ('a')")
    seen = database.generation
    database.close()
    path.write_bytes(older)
    assert opened(path).generation < seen
