"""Who holds the store's files, with or without the database's key: what they show, and what a change to them does.
What an erasure leaves in them is in test_store_residue.py."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from secure_embed.errors import IntegrityFailure
from secure_embed.store import RequestKey, SealedRow, SqlcipherRecordStore, StateKind
from secure_embed.types import Field, Position
from tests.sealed_store import (
    batch,
    erase_ticket,
    everything,
    filled,
    found,
    frame_header_bytes,
    marks,
    new_collection,
    page_bytes,
    pages,
    segments,
    wal_header_bytes,
)


@pytest.fixture
def key() -> bytes:
    return os.urandom(32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.db"


def test_without_the_key_sealed_vectors_are_all_that_is_seen(path: Path, key: bytes) -> None:
    rows = batch(0, 40)
    request = RequestKey(tag=os.urandom(32), body_tag=os.urandom(32))
    store = SqlcipherRecordStore(path, key, rows_key=bytes(32))
    sealed = new_collection()
    store.create_collection(sealed)
    store.append(sealed.uuid, rows, request=request)
    store.put_state(StateKind.HOLD, sealed.uuid, rows[0].fields[Field.TEXT])
    others = [*marks(rows, [Field.TEXT, Field.META]), request.tag, request.body_tag, sealed.name_tag, sealed.descriptor]
    files = {file: file.read_bytes() for file in path.parent.rglob("*") if file.is_file()}
    assert files[path.with_name("data.db-wal")]
    content = b"".join(files.values())
    assert found(content, [*others, sealed.uuid.bytes, key, key.hex().encode()]) == 0
    assert [word for word in (b"SQLite format 3", b"CREATE TABLE", b"id_tag") if word in content] == []
    (segment,) = segments(path)
    assert files[segment] == b"".join(row.fields[Field.VECTOR] for row in rows)
    assert found(everything(path, key), [*others, sealed.uuid.bytes]) == len(others) + 1  # with the key they are there
    store.close()


def test_files_are_readable_by_their_owner_only(path: Path, key: bytes) -> None:
    before = os.umask(0)
    try:
        store, sealed = SqlcipherRecordStore(path, key, rows_key=bytes(32)), new_collection()
        store.create_collection(sealed)
        store.append(sealed.uuid, batch(0, 2), request=None)
    finally:
        os.umask(before)
    modes = {file: file.stat().st_mode & 0o777 for file in path.parent.rglob("*")}
    assert {mode for file, mode in modes.items() if file.is_file()} == {0o600}
    assert {mode for file, mode in modes.items() if file.is_dir()} == {0o700}
    store.close()


def test_a_wrong_key_opens_nothing_and_harms_nothing(path: Path, key: bytes) -> None:
    rows = batch(0, 3)
    c = filled(path, key, rows)
    with pytest.raises(IntegrityFailure) as refused:
        SqlcipherRecordStore(path, os.urandom(32), rows_key=bytes(32))
    assert refused.value.code == "database_unreadable"
    store = SqlcipherRecordStore(path, key, rows_key=bytes(32))  # the refused opening let go of the lock
    assert list(store.scan(c, set(Field), after=Position(-1), limit=9)) == rows
    store.close()


def test_a_flipped_byte_in_any_page_is_noticed_and_never_read_as_data(path: Path, key: bytes) -> None:
    """One byte in each page in turn: what is read is what was written, or the read fails; some read always fails."""
    rows = batch(0, 60)
    c = filled(path, key, rows)
    whole = path.read_bytes()
    (segment,) = segments(path)
    slots = segment.read_bytes()
    assert len(whole) > 30 * page_bytes
    for page in range(len(whole) // page_bytes):
        at = page * page_bytes + 7 + (page * 613) % (page_bytes - 7)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :])
        segment.write_bytes(slots)
        assert read_or_fail(path, key, c, rows), f"page {page + 1}"


def read_or_fail(path: Path, key: bytes, c: UUID, rows: list[SealedRow]) -> bool:
    """Read everything that rows come from; True when something failed, and nothing that did not fail was wrong."""
    try:
        store = SqlcipherRecordStore(path, key, rows_key=bytes(32))
    except IntegrityFailure:
        return True
    failures = 0
    tags = [row.id_tag for row in rows]
    reads = [
        lambda: list(store.scan(c, set(Field), after=Position(-1), limit=99)) == rows,
        lambda: store.locate(c, tags) == {row.id_tag: row.position for row in rows},
        lambda: [change.count for change in store.changes(c, since=0, limit=9)] == [len(rows)],
        lambda: store.replay(c, RequestKey(tag=bytes(32), body_tag=bytes(32))) is None,
        lambda: [store.states(kind) for kind in StateKind] == [[]] * len(StateKind),
        lambda: store.marked() is None,
        lambda: store.codebook(c) is None,
        lambda: store.versions(c).records == len(rows),
        lambda: len(store.collections()) == 1,
        lambda: list(store.expired(c, 9, 9)) == [],
        lambda: store.generation > 0,
        lambda: store.erase(c, [Position(0)], ticket=erase_ticket()) == 1,
        # The indexes of collections are read when one is made.
        lambda: store.create_collection(new_collection()) is None,
        lambda: store.put_state(StateKind.TASK, c, b"sealed") is None,
        lambda: store.append(c, [replace(batch(60, 1)[0], expires_unix=9)], request=None).count == 1,
    ]
    for read in reads:
        try:
            assert read()
        except IntegrityFailure:
            failures += 1
    store.close()
    return failures > 0


def test_a_damaged_text_does_not_keep_vectors_from_being_read(path: Path, key: bytes) -> None:
    """Re-scoring and a cold start read no page of text: they work on a file whose pages of text are all damaged."""
    rows = batch(0, 20, text_bytes=20_000)
    c = filled(path, key, rows)
    raw = bytearray(path.read_bytes())
    texts = b"".join(row.fields[Field.TEXT] for row in rows)
    damaged = 0
    for number, page in enumerate(pages(path, key)):
        if page[100:140] in texts:  # inside an overflow page there is text and nothing else
            raw[number * page_bytes + 50] ^= 1
            damaged += 1
    assert damaged >= 60
    path.write_bytes(raw)
    store = SqlcipherRecordStore(path, key, rows_key=bytes(32))
    found = store.fetch(c, [row.position for row in rows], {Field.VECTOR, Field.META})
    assert [found[row.position].fields[Field.VECTOR] for row in rows] == [row.fields[Field.VECTOR] for row in rows]
    with pytest.raises(IntegrityFailure):
        store.fetch(c, [Position(3)], {Field.TEXT})
    store.close()


def test_a_damaged_write_ahead_log_loses_its_end_and_nothing_is_wrong(path: Path, key: bytes, tmp_path: Path) -> None:
    """A limit, shown: SQLite takes a damaged frame after a crash for the log's end. Whole batches are missing then, and
    only a look at the keys database or the audit log tells. What is there is right."""
    store = SqlcipherRecordStore(path, key, rows_key=bytes(32))
    sealed = new_collection()
    store.create_collection(sealed)
    rows: list[SealedRow] = []
    for number in range(6):
        rows += batch(number * 10, 10)
        store.append(sealed.uuid, rows[-10:], request=None)
    log = path.with_name("data.db-wal").read_bytes()
    frame_bytes = frame_header_bytes + page_bytes
    frames = (len(log) - wal_header_bytes) // frame_bytes
    versions = set()
    for frame in range(frames // 2, frames, 3):
        copied = tmp_path / f"copy-{frame}" / "data.db"
        copied.parent.mkdir()
        copied.write_bytes(path.read_bytes())
        at = wal_header_bytes + frame * frame_bytes + frame_header_bytes + 99
        shutil.copytree(path.with_name("segments"), copied.with_name("segments"))
        copied.with_name("data.db-wal").write_bytes(log[:at] + bytes([log[at] ^ 1]) + log[at + 1 :])
        cut = SqlcipherRecordStore(copied, key, rows_key=bytes(32))
        data = cut.versions(sealed.uuid).data
        assert list(cut.scan(sealed.uuid, set(Field), after=Position(-1), limit=99)) == rows[: data * 10]
        versions.add(data)
        cut.close()
    store.close()
    assert len(versions) > 1
    assert max(versions) < 6
