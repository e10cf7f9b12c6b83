"""Whichever page of a database is damaged, and whenever that is found: an error of ours that names the file."""

import os
from pathlib import Path

import pytest

from secure_embed.errors import IntegrityFailure, SecureEmbedError
from secure_embed.keys import SealedDatabase
from secure_embed.keys.connections import faults

key = bytes(range(32))
page_bytes = 4_096
migrations = ("CREATE TABLE row (id INTEGER PRIMARY KEY, tag BLOB NOT NULL UNIQUE, value BLOB NOT NULL)",)


def fill(database: SealedDatabase, count: int) -> None:
    with database.transaction() as run:
        run.executemany(
            "INSERT INTO row (tag, value) VALUES (?, ?)", [(os.urandom(32), os.urandom(200)) for _ in range(count)]
        )


def test_each_page_damaged_in_turn(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    database = SealedDatabase(path, key, migrations=migrations)
    for _ in range(20):
        fill(database, 20)
    database.close()
    whole = path.read_bytes()
    told: list[SecureEmbedError] = []
    for page in range(len(whole) // page_bytes):
        damaged = bytearray(whole)
        damaged[page * page_bytes + 100] ^= 1
        path.write_bytes(damaged)
        try:
            opened = SealedDatabase(path, key, migrations=migrations)
            try:
                for _ in range(3):
                    fill(opened, 20)
                    opened.rows("SELECT value FROM row ORDER BY tag")
            finally:
                opened.close()
        except SecureEmbedError as refused:
            told.append(refused)
        else:
            pytest.fail(f"page {page} was not missed")
    assert all(refused.detail.startswith("some.db") for refused in told)
    assert "database_unreadable" in {refused.code for refused in told}


def test_memory_that_sqlcipher_says_it_lacks_is_a_named_fault() -> None:
    """Its answer to a page that does not open while a transaction is committed."""
    with pytest.raises(SecureEmbedError) as refused, faults("some.db"):
        raise MemoryError
    assert (refused.value.code, refused.value.detail) == ("storage_unavailable", "some.db cannot be used now")


def test_a_file_that_has_lost_its_count_of_changes_is_refused(tmp_path: Path) -> None:
    database = SealedDatabase(tmp_path / "some.db", key, migrations=migrations)
    with database.transaction() as run:
        run.execute("DELETE FROM file_generation")
    with pytest.raises(IntegrityFailure):
        _ = database.generation
    database.close()
