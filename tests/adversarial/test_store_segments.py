"""Segments that are missing, cut, changed, swapped or too many: noticed at start or at first touch, with the place named."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pytest

from secure_embed.errors import IntegrityFailure, SealedValueUnreadable
from secure_embed.keys import CollectionKeys, Keyring, PassphraseProvider, SqlcipherKeyStore
from secure_embed.store import SealedRow, SqlcipherRecordStore
from secure_embed.types import Field, Position
from tests.sealed_store import batch, erase_ticket, new_collection, segments, vector_bytes

pytestmark = pytest.mark.usefixtures("each_way_to_open")

key = bytes(range(32))
rows = batch(0, 4_200)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.db"


@pytest.fixture
def c(path: Path) -> UUID:
    store, sealed = SqlcipherRecordStore(path, key, rows_key=bytes(32)), new_collection()
    store.create_collection(sealed)
    store.append(sealed.uuid, rows, request=None)
    store.close()
    return sealed.uuid


def cut_one_byte(segment: Path) -> None:
    os.truncate(segment, segment.stat().st_size - 1)


def put_elsewhere(segment: Path) -> None:
    segment.rename(segment.with_name("4096.1"))


def link(segment: Path) -> None:
    segment.rename(segment.parent.parent / "moved")
    segment.symlink_to(segment.parent.parent / "moved")


def make_folder(segment: Path) -> None:
    segment.unlink()
    segment.mkdir()


damages: dict[str, Callable[[Path], None]] = {
    "missing": Path.unlink,
    "empty": lambda segment: os.truncate(segment, 0),
    "one byte short": cut_one_byte,
    "another name": put_elsewhere,
    "a link": link,
    "a folder": make_folder,
}


@pytest.mark.parametrize("damage", damages)
def test_a_segment_that_is_not_whole_is_noticed_at_start(path: Path, c: UUID, damage: str) -> None:
    """And nothing is harmed by the refused start: with the segment back, all is there."""
    intact = path.parent / "intact"
    shutil.copytree(path.with_name("segments"), intact)
    damages[damage](segments(path)[1])
    for _ in range(2):
        with pytest.raises(IntegrityFailure) as refused:
            SqlcipherRecordStore(path, key, rows_key=bytes(32))
        assert refused.value.code == "segment_damaged"
        assert refused.value.detail == "the segment of positions 4096 to 4199 is missing or not as it was written"
    shutil.rmtree(path.with_name("segments"))
    intact.rename(path.with_name("segments"))
    store = SqlcipherRecordStore(path, key, rows_key=bytes(32))
    assert list(store.scan(c, set(Field), after=Position(-1), limit=9_999)) == rows
    store.close()


@pytest.mark.parametrize("damage", ["missing", "empty", "one byte short", "a link"])
def test_a_segment_that_is_cut_under_a_running_store_fails_at_first_touch_and_no_other(
    path: Path, c: UUID, damage: str
) -> None:
    store = SqlcipherRecordStore(path, key, rows_key=bytes(32))
    damages[damage](segments(path)[1])
    last = Position(4_199)
    touches: list[Callable[[], object]] = [
        lambda: store.fetch(c, [last], {Field.VECTOR}),
        lambda: store.scan(c, {Field.VECTOR}, after=Position(4_000), limit=999),
        lambda: store.vectors(c, np.array([3, last], np.int64)),
        lambda: store.replace(c, [rows[last]]),
    ]
    for touch in touches:
        with pytest.raises(IntegrityFailure) as refused:
            touch()
        assert refused.value.code == "segment_damaged"
        assert "4096 to 4199" in refused.value.detail
    assert store.fetch(c, [Position(4_095)], set(Field)) == {4_095: rows[4_095]}
    assert store.fetch(c, [last], {Field.TEXT, Field.META}).keys() == {last}
    store.close()


def test_a_slot_that_was_changed_swapped_or_zeroed_does_not_open(tmp_path: Path) -> None:
    """The store gives what lies there; the sealed value names its position, so it opens nowhere else."""
    passphrase = tmp_path / "passphrase"
    passphrase.write_bytes(b"correct horse battery staple\n")
    passphrase.chmod(0o600)
    keyring = Keyring.create(tmp_path / "keyring.json", PassphraseProvider.create(tmp_path / "root.json", passphrase))
    key_store = SqlcipherKeyStore(tmp_path / "keys.db", key, rows_key=bytes(32))
    store, sealed, space = (
        SqlcipherRecordStore(tmp_path / "data.db", key, rows_key=bytes(32)),
        new_collection(),
        bytes(32),
    )
    keys = CollectionKeys.create(keyring, key_store, sealed.uuid)
    plain = np.arange(4 * 64, dtype="<f2").reshape(4, 64)
    fields = [{Field.VECTOR: vector.tobytes(), Field.TEXT: b"t", Field.META: b"m"} for vector in plain]
    wrapped, values = keys.seal_records(Position(0), [None] * 4, fields, space)
    key_store.put(sealed.uuid, wrapped)
    keys.admit(wrapped)
    store.create_collection(sealed)
    store.append(
        sealed.uuid,
        [SealedRow(position=Position(n), id_tag=os.urandom(32), fields=value) for n, value in enumerate(values)],
        request=None,
    )
    at = np.arange(4, dtype=np.int64)
    (segment,) = segments(tmp_path / "data.db")
    whole = segment.read_bytes()
    size = len(whole) // 4

    def opened() -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
        slots, present = store.vectors(sealed.uuid, at)
        assert present.all()
        out = np.empty((4, 64), np.float16)
        keys.open_vectors_into(at, slots, out, space)
        return out

    assert (opened() == plain).all()
    flips = [whole[:n] + bytes([whole[n] ^ 4]) + whole[n + 1 :] for n in range(2, len(whole), 29)]
    swapped = whole[size : 2 * size] + whole[:size] + whole[2 * size :]
    zeroed = bytes(size) + whole[size:]
    for changed in [*flips, swapped, zeroed, bytes(len(whole))]:
        segment.write_bytes(changed)
        with pytest.raises(SealedValueUnreadable):
            opened()
    segment.write_bytes(whole)
    assert (opened() == plain).all()
    store.close()
    key_store.close()


@pytest.mark.parametrize("first_write", ["append", "erase", "replace", "erase_collection"])
def test_what_no_commit_names_stays_until_the_next_write_and_is_gone_then(
    path: Path, c: UUID, first_write: str
) -> None:
    """Until then nothing is lost if the database is an older copy that an operator put back by mistake."""
    folder = path.with_name("segments")
    stray = [folder / str(c) / "0.1", folder / str(c) / "8192.0", folder / str(uuid4()) / "0.0"]
    stray[2].parent.mkdir()
    for file in stray:
        file.write_bytes(os.urandom(5_000))
    last = folder / str(c) / "4096.0"
    with last.open("ab") as behind:
        behind.write(os.urandom(3 * vector_bytes))
    held = [os.open(file, os.O_RDONLY) for file in stray]
    store = SqlcipherRecordStore(path, key, rows_key=bytes(32))
    assert list(store.scan(c, set(Field), after=Position(-1), limit=9_999)) == rows
    vectors, present = store.vectors(c, np.arange(4_198, 4_204, dtype=np.int64))
    assert present.tolist() == [True, True, False, False, False, False]
    assert not vectors[2:].any()
    assert all(file.exists() for file in stray)
    more = batch(4_201, 1)
    writes: dict[str, Callable[[], object]] = {
        "append": lambda: store.append(c, more, request=None),
        "erase": lambda: store.erase(c, [Position(9)], ticket=erase_ticket()),
        "replace": lambda: store.replace(c, rows[4_100:4_110]),
        "erase_collection": lambda: store.erase_collection(c, ticket=erase_ticket()),
    }
    writes[first_write]()
    assert not any(file.exists() for file in stray)
    assert {os.pread(descriptor, 9_999, 0) for descriptor in held} == {bytes(5_000)}  # overwritten, then unlinked
    if first_write == "append":
        assert last.read_bytes()[104 * vector_bytes :] == bytes(vector_bytes) + more[0].fields[Field.VECTOR]
    store.close()
    for descriptor in held:
        os.close(descriptor)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_more_segments_than_are_held_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secure_embed.store._open_files.open_files_max", 2)
    store, sealed = SqlcipherRecordStore(path, key, rows_key=bytes(32)), new_collection()
    store.create_collection(sealed)
    few = [row for n in range(7) for row in batch(n * 5_000, 3)]
    for n in range(7):
        store.append(sealed.uuid, few[3 * n : 3 * n + 3], request=None)
    open_before = open_files()
    for _ in range(3):
        assert list(store.scan(sealed.uuid, set(Field), after=Position(-1), limit=99)) == few
    assert open_files() <= open_before + 2
    store.erase(sealed.uuid, [row.position for row in few[1::3]], ticket=erase_ticket())
    left = list(store.scan(sealed.uuid, set(Field), after=Position(-1), limit=99))
    assert left == [row for n, row in enumerate(few) if n % 3 != 1]
    store.close()
