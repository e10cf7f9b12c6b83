"""A database file as a whole: a new key while it answers, a copy while it is written to, a check of every page."""

import os
import resource
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from secure_embed.errors import ConfigurationError, IntegrityFailure, Unavailable
from secure_embed.keys import SealedDatabase

schema = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text BLOB NOT NULL) STRICT"
key, new_key = bytes(range(32)), bytes(range(32, 64))


def opened(path: Path, with_key: bytes = key) -> SealedDatabase:
    return SealedDatabase(path, with_key, migrations=(schema,))


def add(database: SealedDatabase, count: int, size: int = 1_000) -> None:
    with database.transaction() as run:
        run.executemany("INSERT INTO notes (text) VALUES (?)", [(os.urandom(size),) for _ in range(count)])


def notes(database: SealedDatabase) -> list[tuple[object, ...]]:
    return database.rows("SELECT id, text FROM notes ORDER BY id")  # type: ignore[return-value]  # ints and bytes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "notes.db"


# --- a new key ---------------------------------------------------------------------------------------------------


def test_a_new_key_opens_what_was_there_and_the_old_one_nothing(path: Path) -> None:
    database = opened(path)
    add(database, 300)
    before, generation = notes(database), database.generation
    database.rekey(new_key)
    assert notes(database) == before
    assert (database.key_is(new_key), database.key_is(key), database.generation) == (True, False, generation)
    assert path.with_name("notes.db-wal").stat().st_size == 0
    add(database, 3)
    after = notes(database)
    database.close()
    with pytest.raises(IntegrityFailure):
        opened(path)
    again = opened(path, new_key)
    assert notes(again) == after
    again.check()
    again.close()


def test_no_page_is_left_under_the_old_key(path: Path) -> None:
    """Free pages too: a page that kept its bytes could be opened by who has the old key."""
    database = opened(path)
    add(database, 2_000)
    with database.transaction() as run:
        run.execute("DELETE FROM notes WHERE id > 1000")
    database.empty_write_ahead_log()
    raw = path.read_bytes()
    database.rekey(new_key)
    fresh = path.read_bytes()
    assert len(fresh) == len(raw) > 1_000_000
    for at in range(0, len(raw), 4_096):
        assert raw[at + 16 : at + 4_096] != fresh[at + 16 : at + 4_096]
    database.check()


def test_readers_are_answered_while_the_key_changes_and_writers_wait(path: Path) -> None:
    database = opened(path)
    add(database, 10_000)
    before, during = notes(database), threading.Event()
    done = threading.Event()

    def read() -> int:
        reads = 0
        while not done.is_set():
            ((count,),) = database.rows("SELECT count(*) FROM notes")
            assert count in {10_000, 10_001}
            reads += during.is_set()
            time.sleep(0.001)  # a lock that is let go of and taken again at once is not handed over
        return reads

    def write() -> None:
        during.wait()
        with database.transaction() as run:
            run.execute("INSERT INTO notes (text) VALUES (x'00')")

    with ThreadPoolExecutor(3) as pool:
        readers, writer = [pool.submit(read) for _ in range(2)], pool.submit(write)
        try:
            during.set()
            database.rekey(new_key)
        finally:
            done.set()
        writer.result()
        assert sum(reader.result() for reader in readers) > 2
    assert notes(database)[: len(before)] == before
    assert len(notes(database)) == len(before) + 1


def test_a_new_key_that_is_not_taken_leaves_the_old_one_in_force(path: Path) -> None:
    """A medium without space: SQLite says nothing, and would go on writing under the key that was not taken."""
    database = opened(path)
    add(database, 500)
    database.empty_write_ahead_log()
    before = notes(database)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, limits[1]))
    try:
        with pytest.raises(Unavailable):
            database.rekey(new_key)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert database.key_is(key)
    assert notes(database) == before
    add(database, 2)
    database.check()
    database.close()
    again = opened(path)
    assert notes(again)[:500] == before
    again.rekey(new_key)
    assert again.key_is(new_key)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_new_key_of_another_size_is_refused(path: Path, size: int) -> None:
    database = opened(path)
    with pytest.raises(ConfigurationError):
        database.rekey(bytes(size))
    assert database.key_is(key)


# --- a copy ------------------------------------------------------------------------------------------------------


def test_a_copy_opens_under_the_same_key_and_is_private_and_whole(path: Path, tmp_path: Path) -> None:
    database = opened(path)
    add(database, 300)
    before = os.umask(0)
    try:
        database.copy_to(tmp_path / "copy.db")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
    assert {p.name for p in tmp_path.iterdir()} == {
        "copy.db", "notes.db", "notes.db-shm", "notes.db-wal", "notes.db.lock",
    }  # fmt: skip
    copy = opened(tmp_path / "copy.db")
    copy.check()
    assert notes(copy) == notes(database)
    assert copy.generation == database.generation
    copy.close()
    with pytest.raises(IntegrityFailure):
        opened(tmp_path / "copy.db", new_key)


def test_a_copy_overwrites_nothing_and_leaves_nothing_when_it_fails(path: Path, tmp_path: Path) -> None:
    database = opened(path)
    add(database, 3)
    (tmp_path / "copy.db").write_bytes(b"somebody's")
    with pytest.raises(ConfigurationError) as refused:
        database.copy_to(tmp_path / "copy.db")
    assert refused.value.code == "backup_exists"
    assert (tmp_path / "copy.db").read_bytes() == b"somebody's"
    database.close()
    with pytest.raises(Unavailable):
        database.copy_to(tmp_path / "late.db")
    assert not [p for p in tmp_path.iterdir() if "late" in p.name]


def test_a_copy_is_one_moment_while_others_write_and_they_go_on(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each transaction adds one row and counts one up: a torn copy would show rows and count of different moments."""
    monkeypatch.setattr("secure_embed.keys.database.copy_step_pages", 20)
    database = opened(path)
    add(database, 2_000)
    written, done = 0, threading.Event()

    def write() -> int:
        count = 0
        while not done.is_set() or count == 0:
            with database.transaction() as run:
                run.execute("INSERT INTO notes (text) VALUES (?)", (os.urandom(1_000),))
                run.execute("UPDATE notes SET text = ? WHERE id = ?", (os.urandom(1_000), 1 + count % 2_000))
            if count % 10 == 0:
                database.empty_write_ahead_log()  # as an erasure does, which must not fail meanwhile
            count += 1
        return count

    start = database.generation
    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        try:
            for number in range(3):
                database.copy_to(tmp_path / f"copy{number}.db")
        finally:
            done.set()
        written = writer.result()
    assert written > 3
    for number in range(3):
        copy = opened(tmp_path / f"copy{number}.db")
        copy.check()
        assert len(notes(copy)) == 2_000 + copy.generation - start
        copy.close()


# --- a check -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [1, 5, 40, -1])
def test_a_check_finds_a_changed_byte_in_any_page(path: Path, page: int) -> None:
    database = opened(path)
    add(database, 300)
    database.check()
    database.empty_write_ahead_log()
    with path.open("r+b") as file:
        file.seek(page * 4_096 + 1_000, os.SEEK_END if page < 0 else os.SEEK_SET)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(IntegrityFailure) as refused:
        database.check()
    assert refused.value.code == "database_unreadable"


def test_a_check_finds_an_older_page_put_back(path: Path) -> None:
    """Every page is authentic; the structure no longer holds together."""
    database = opened(path)
    add(database, 300)
    database.empty_write_ahead_log()
    older = path.read_bytes()
    add(database, 3_000)
    database.close()
    root = slice(2 * 4_096, 3 * 4_096)  # after the schema and the generation
    with path.open("r+b") as file:
        file.seek(root.start)
        file.write(older[root])
    with pytest.raises(IntegrityFailure):
        opened(path).check()


def test_after_close_nothing_is_copied_checked_or_rekeyed(path: Path, tmp_path: Path) -> None:
    database = opened(path)
    database.close()
    for use in (lambda: database.rekey(new_key), lambda: database.copy_to(tmp_path / "copy.db"), database.check):
        with pytest.raises(Unavailable):
            use()
