"""The SQLCipher driver's file: settings in force, columns that give nothing away, one opener, migrations."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from uuid import UUID

import pytest

from secure_embed.errors import ConfigurationError
from secure_embed.keys import SealedDatabase
from secure_embed.store import RecordStore, SealedRow, SqlcipherRecordStore, _schema
from secure_embed.types import Field, Position

# Counted by this service itself, and the moments at which records end; SECURITY.md names them as what the file shows to who holds its key.
plain_numbers = {
    "collection": {
        "number",
        "ended",
        "slot_bytes",
        "data_version",
        "erasure_epoch",
        "codebook_version",
        "next_position",
        "record_count",
    },
    "codebook": {"collection", "version"},
    "meta_1": {"position"},
    "text_1": {"position"},
    "segment": {"collection", "first", "generation", "slots"},
    "scrub": {"collection", "position"},
    "change": {"collection", "sequence", "kind", "first", "count"},
    "request": {"id"},
    "state": {"id"},
    "mark": {"id"},
    "records": {"id"},
    "ends": {"id"},
}
# Sealed, keyed hashes or random uuids; of blocks also their places, and a byte and an end for each of their positions.
opaque = {
    "collection": {"uuid", "name_tag", "descriptor"},
    "codebook": {"sealed"},
    "meta_1": {"meta"},
    "text_1": {"text"},
    "segment": set(),
    "scrub": set(),
    "change": set(),
    "request": {"tag", "body_tag", "answer"},
    "state": {"name", "padded"},
    "mark": {"sealed"},
    "records": {"place", "state", "id_tags"},
    "ends": {"place", "expires_unix"},
}


def test_the_only_plain_columns_are_numbers_that_the_service_counts() -> None:
    plain = sqlite3.connect(":memory:")
    plain.executescript(";".join([*_schema.migrations, *_schema.collection_tables(1)]))
    tables = [name for (name,) in plain.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    columns = {t: [(name, kind) for _, name, kind, *_ in plain.execute(f"PRAGMA table_info({t})")] for t in tables}
    plain.close()
    assert {t: {name for name, kind in found if kind == "INTEGER"} for t, found in columns.items()} == plain_numbers
    assert {t: {name for name, kind in found if kind == "BLOB"} for t, found in columns.items()} == opaque
    assert {kind for found in columns.values() for _, kind in found} == {"INTEGER", "BLOB"}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("journal_mode", "wal"),
        ("synchronous", 2),
        ("secure_delete", 1),
        ("temp_store", 2),
        ("foreign_keys", 1),
        ("trusted_schema", 0),
        ("cipher_use_hmac", "1"),
        ("cipher_page_size", "4096"),
    ],
)
def test_settings_are_in_force(tmp_path: Path, setting: str, value: object) -> None:
    """Asked of the connection that writes: SQLite takes an unknown or refused setting without a word."""
    store = SqlcipherRecordStore(tmp_path / "data.db", os.urandom(32), rows_key=bytes(32))
    with store.database.transaction() as run:
        assert run.execute(f"PRAGMA {setting}").fetchone() == (value,)
    store.close()


def test_a_second_opener_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    key = os.urandom(32)
    first = SqlcipherRecordStore(tmp_path / "data.db", key, rows_key=bytes(32))
    for _ in range(2):
        with pytest.raises(ConfigurationError) as refused:
            SqlcipherRecordStore(tmp_path / "data.db", key, rows_key=bytes(32))
        assert refused.value.code == "store_in_use"
    assert list(first.collections()) == []
    first.close()
    SqlcipherRecordStore(tmp_path / "data.db", key, rows_key=bytes(32)).close()


def test_a_folder_that_is_not_there_or_a_linked_lock_is_refused(tmp_path: Path) -> None:
    (tmp_path / "linked.lock").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "missing" / "data.db", tmp_path / "linked"):
        with pytest.raises(ConfigurationError) as refused:
            SqlcipherRecordStore(path, os.urandom(32), rows_key=bytes(32))
        assert refused.value.code == "store_unusable"
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_of_a_newer_version_is_refused_and_let_go_of(tmp_path: Path) -> None:
    path, key = tmp_path / "data.db", os.urandom(32)
    SealedDatabase(path, key, migrations=(*_schema.migrations, "CREATE TABLE later (n INTEGER)")).close()
    for _ in range(2):
        with pytest.raises(ConfigurationError) as refused:
            SqlcipherRecordStore(path, key, rows_key=bytes(32))
        assert refused.value.code == "database_too_new"


def test_a_read_does_not_wait_for_a_write_and_sees_the_last_commit(
    tmp_path: Path, batch: Callable[[int, int], list[SealedRow]], new_collection: Callable[[RecordStore], UUID]
) -> None:
    """Another thread reads while a transaction is open; were it to wait, it would have seen nothing by then."""
    store = SqlcipherRecordStore(tmp_path / "data.db", os.urandom(32), rows_key=bytes(32))
    c, rows = new_collection(store), batch(0, 3)
    store.append(c, rows, request=None)
    seen: list[int] = []
    with store.database.transaction() as run:
        run.execute("UPDATE meta_1 SET meta = zeroblob(length(meta))")
        reader = Thread(target=lambda: seen.append(len(store.fetch(c, [Position(0), Position(1)], {Field.META}))))
        reader.start()
        reader.join(timeout=10)
        assert seen == [2]
    store.close()
