"""Who holds the store's file, with or without its key: what it shows, and what a change to it does.

``pages`` decrypts every page of the file and of its write-ahead log as SQLCipher 4 wrote them (AES-256-CBC, IV in the
last 80 bytes of a page, raw key), so a test sees free pages, slack and log, where no SELECT looks.
"""

import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from secure_embed.errors import IntegrityFailure
from secure_embed.keys import SealedDatabase
from secure_embed.store import RequestKey, SealedCollection, SealedRow, SqlcipherRecordStore, StateKind
from secure_embed.store._schema import migrations
from secure_embed.types import Action, Field, Position, Ticket

page_bytes = 4_096
usable_bytes = page_bytes - 80
wal_header_bytes, frame_header_bytes = 32, 24


def decrypted(key: bytes, page: bytes, *, first: bool) -> bytes:
    start = 16 if first else 0  # the file begins with its salt, in the clear
    iv = page[usable_bytes : usable_bytes + 16]
    opening = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    return opening.update(page[start:usable_bytes]) + opening.finalize()


def pages(path: Path, key: bytes) -> Iterator[bytes]:
    raw = path.read_bytes()
    for at in range(0, len(raw), page_bytes):
        yield decrypted(key, raw[at : at + page_bytes], first=at == 0)
    log = path.with_name(f"{path.name}-wal")
    raw = log.read_bytes() if log.exists() else b""
    for at in range(wal_header_bytes, len(raw), frame_header_bytes + page_bytes):
        (number,) = struct.unpack_from(">I", raw, at)
        yield decrypted(key, raw[at + frame_header_bytes :][:page_bytes], first=number == 1)


def found_in_pages(path: Path, key: bytes, needles: list[bytes]) -> int:
    content = b"".join(pages(path, key))
    return sum(needle in content for needle in needles)


def batch(first: int, count: int, text_bytes: int = 533) -> list[SealedRow]:
    sizes = {Field.VECTOR: 801, Field.TEXT: text_bytes, Field.META: 333}
    return [
        SealedRow(
            position=Position(first + i),
            id_tag=os.urandom(32),
            fields={field: os.urandom(size) for field, size in sizes.items()},
        )
        for i in range(count)
    ]


def marks(rows: list[SealedRow]) -> list[bytes]:
    """Bytes of each row that lie on one page: the id's tag and the beginning of each value."""
    return [mark for row in rows for mark in (row.id_tag, *(value[:32] for value in row.fields.values()))]


def erase_ticket() -> Ticket:
    return Ticket(
        intent_index=0, action=Action.RECORD_ERASE, openings_max=0, expires_monotonic=time.monotonic() + 3_600
    )


@pytest.fixture
def key() -> bytes:
    return os.urandom(32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.db"


def new_collection() -> SealedCollection:
    return SealedCollection(uuid=uuid4(), name_tag=os.urandom(32), descriptor=os.urandom(64))


def filled(path: Path, key: bytes, rows: list[SealedRow], request: RequestKey | None = None) -> UUID:
    store = SqlcipherRecordStore(path, key)
    sealed = new_collection()
    store.create_collection(sealed)
    store.append(sealed.uuid, rows, request=request)
    store.close()
    return sealed.uuid


def test_without_the_key_no_byte_of_what_was_given_is_in_any_file(path: Path, key: bytes) -> None:
    rows = batch(0, 40)
    request = RequestKey(tag=os.urandom(32), body_tag=os.urandom(32))
    store = SqlcipherRecordStore(path, key)
    sealed = new_collection()
    store.create_collection(sealed)
    store.append(sealed.uuid, rows, request=request)
    given = [*marks(rows), request.tag, request.body_tag, sealed.name_tag, sealed.descriptor, sealed.uuid.bytes, key]
    given += [key.hex().encode(), b"SQLite format 3", b"CREATE TABLE", b"id_tag"]
    files = [file for file in path.parent.iterdir() if file.stat().st_size]
    assert path.with_name("data.db-wal") in files
    content = b"".join(file.read_bytes() for file in files)
    assert [mark for mark in given if mark in content] == []
    assert found_in_pages(path, key, marks(rows)) == len(marks(rows))  # with the key they are there
    store.close()


def test_files_are_readable_by_their_owner_only(path: Path, key: bytes) -> None:
    before = os.umask(0)
    try:
        store = SqlcipherRecordStore(path, key)
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
    store.close()


@pytest.mark.parametrize("text_bytes", [533, 20_000])
def test_erased_bytes_are_in_no_page_and_in_no_log(path: Path, key: bytes, text_bytes: int) -> None:
    """Sealed values, tags and idempotency entries, on b-tree pages and on overflow pages."""
    rows = batch(0, 60, text_bytes)
    request = RequestKey(tag=os.urandom(32), body_tag=os.urandom(32))
    c = filled(path, key, rows, request)
    gone, kept = rows[5:35], rows[:5] + rows[35:]
    erased_marks = [*marks(gone), request.tag, request.body_tag]
    assert found_in_pages(path, key, erased_marks) == len(erased_marks)
    store = SqlcipherRecordStore(path, key)
    store.erase(c, [row.position for row in gone], ticket=erase_ticket())
    assert found_in_pages(path, key, erased_marks) == 0
    assert found_in_pages(path, key, marks(kept)) == len(marks(kept))
    store.close()


def test_the_search_of_pages_finds_what_a_delete_without_secure_delete_leaves(path: Path, key: bytes) -> None:
    """The control of the test above: with the setting off, the same search finds the deleted rows."""
    rows = batch(0, 60)
    filled(path, key, rows)
    database = SealedDatabase(path, key, migrations=migrations)
    with database.transaction() as run:
        assert run.execute("PRAGMA secure_delete = OFF").fetchone() == (0,)
        run.execute("DELETE FROM record")
        run.execute("DELETE FROM record_text")
    database.empty_write_ahead_log()
    assert found_in_pages(path, key, marks(rows)) > len(rows)
    database.close()


def test_a_wrong_key_opens_nothing_and_harms_nothing(path: Path, key: bytes) -> None:
    rows = batch(0, 3)
    c = filled(path, key, rows)
    with pytest.raises(IntegrityFailure) as refused:
        SqlcipherRecordStore(path, os.urandom(32))
    assert refused.value.code == "database_unreadable"
    store = SqlcipherRecordStore(path, key)  # the refused opening let go of the lock
    assert list(store.scan(c, set(Field), after=Position(-1), limit=9)) == rows
    store.close()


def test_a_flipped_byte_in_any_page_is_noticed_and_never_read_as_data(path: Path, key: bytes) -> None:
    """One byte in each page in turn: what is read is what was written, or the read fails; some read always fails."""
    rows = batch(0, 60)
    c = filled(path, key, rows)
    whole = path.read_bytes()
    assert len(whole) > 30 * page_bytes
    for page in range(len(whole) // page_bytes):
        at = page * page_bytes + 7 + (page * 613) % (page_bytes - 7)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :])
        assert read_or_fail(path, key, c, rows), f"page {page + 1}"


def read_or_fail(path: Path, key: bytes, c: UUID, rows: list[SealedRow]) -> bool:
    """Read everything that rows come from; True when something failed, and nothing that did not fail was wrong."""
    try:
        store = SqlcipherRecordStore(path, key)
    except IntegrityFailure:
        return True
    failures = 0
    tags = [row.id_tag for row in rows]
    reads = [
        lambda: list(store.scan(c, set(Field), after=Position(-1), limit=99)) == rows,
        lambda: store.locate(c, tags) == {row.id_tag: row.position for row in rows},
        lambda: [change.count for change in store.changes(c, since=0, limit=9)] == [len(rows)],
        lambda: store.replay(c, RequestKey(tag=bytes(32), body_tag=bytes(32))) is None,
        lambda: [store.states(kind) for kind in StateKind] == [[], [], []],
        lambda: store.marked() is None,
        lambda: store.codebook(c) is None,
        lambda: store.versions(c).records == len(rows),
        lambda: len(store.collections()) == 1,
        # The index by position is read when an erasure looks for the requests that name its rows.
        lambda: store.erase(c, [Position(0)], ticket=erase_ticket()) == 1,
        # The indexes of collections are read when one is made.
        lambda: store.create_collection(new_collection()) is None,
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
    store = SqlcipherRecordStore(path, key)
    found = store.fetch(c, [row.position for row in rows], {Field.VECTOR, Field.META})
    assert [found[row.position].fields[Field.VECTOR] for row in rows] == [row.fields[Field.VECTOR] for row in rows]
    with pytest.raises(IntegrityFailure):
        store.fetch(c, [Position(3)], {Field.TEXT})
    store.close()


def test_a_damaged_write_ahead_log_loses_its_end_and_nothing_is_wrong(path: Path, key: bytes, tmp_path: Path) -> None:
    """A limit, shown: SQLite takes a damaged frame after a crash for the log's end. Whole batches are missing then, and
    only a look at the keys database or the audit log tells. What is there is right."""
    store = SqlcipherRecordStore(path, key)
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
        copied.with_name("data.db-wal").write_bytes(log[:at] + bytes([log[at] ^ 1]) + log[at + 1 :])
        cut = SqlcipherRecordStore(copied, key)
        data = cut.versions(sealed.uuid).data
        assert list(cut.scan(sealed.uuid, set(Field), after=Position(-1), limit=99)) == rows[: data * 10]
        versions.add(data)
        cut.close()
    store.close()
    assert len(versions) > 1
    assert max(versions) < 6
