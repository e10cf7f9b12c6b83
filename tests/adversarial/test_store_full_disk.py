"""No space left: the write is refused with 507, nothing of it is there, and the store goes on when there is space."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from secure_embed.errors import Unavailable
from secure_embed.store import RequestKey, SealedCollection, SealedRow, SqlcipherRecordStore, Versions
from secure_embed.types import Field, Position

key = bytes(range(32))


def batch(first: int, count: int) -> list[SealedRow]:
    return [
        SealedRow(position=Position(p), id_tag=os.urandom(32), fields={f: os.urandom(600) for f in Field})
        for p in range(first, first + count)
    ]


def new_store(path: Path) -> tuple[SqlcipherRecordStore, UUID]:
    store, c = SqlcipherRecordStore(path, key, rows_key=bytes(32)), uuid4()
    store.create_collection(SealedCollection(uuid=c, name_tag=os.urandom(32), descriptor=b"sealed"))
    return store, c


def limit_pages(store: SqlcipherRecordStore, pages: int) -> None:
    with store.database.transaction() as run:
        run.execute(f"PRAGMA max_page_count = {pages}")


@pytest.mark.parametrize("pages_free", [1, 7, 40, 90])
def test_a_batch_that_does_not_fit_leaves_nothing_behind(tmp_path: Path, pages_free: int) -> None:
    store, c = new_store(tmp_path / "data.db")
    rows = batch(0, 20)
    store.append(c, rows, request=None)
    with store.database.transaction() as run:
        (pages,) = run.execute("PRAGMA page_count").fetchone()
    limit_pages(store, pages + pages_free)
    request = RequestKey(tag=os.urandom(32), body_tag=os.urandom(32))
    large = batch(20, 300)
    with pytest.raises(Unavailable) as refused:
        store.append(c, large, request=request)
    assert (refused.value.code, refused.value.status) == ("storage_full", 507)
    assert store.versions(c) == Versions(data=1, erasure=0, codebook=0, next_position=Position(20), records=20)
    assert list(store.scan(c, set(Field), after=Position(-1), limit=999)) == rows
    assert store.replay(c, request) is None
    limit_pages(store, 2**30)
    assert store.append(c, large, request=request).replayed is False
    assert list(store.scan(c, set(Field), after=Position(-1), limit=999)) == rows + large
    store.close()


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        (errno.ENOSPC, "storage_full", 507),
        (errno.EDQUOT, "storage_full", 507),
        (errno.EROFS, "storage_read_only", 507),
        (errno.EIO, "storage_unavailable", 503),
    ],
)
@pytest.mark.parametrize("call", ["pwrite", "fdatasync", "fsync", "open"])
def test_a_segment_that_cannot_be_written_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int, code: str, status: int, call: str
) -> None:
    """The first segment, then one that grows and one that is new, then one that is sealed anew."""
    store, c = new_store(tmp_path / "data.db")
    rows = batch(0, 4_090)
    changes = [lambda: store.append(c, rows, request=None), lambda: store.append(c, batch(4_090, 20), request=None)]
    changes.append(lambda: store.replace(c, rows[:30]))
    expected: list[SealedRow] = []
    for change in changes:
        with monkeypatch.context() as patched:

            def refuse(*_: object, **__: object) -> None:
                raise OSError(fault, "refused")

            patched.setattr(os, call, refuse)
            with pytest.raises(Unavailable) as refused:
                change()
        assert (refused.value.code, refused.value.status) == (code, status)
        assert list(store.scan(c, set(Field), after=Position(-1), limit=9_999)) == expected
        change()
        expected = list(store.scan(c, set(Field), after=Position(-1), limit=9_999))
    assert len(expected) == 4_110
    names = sorted(file.name for file in (tmp_path / "segments" / str(c)).iterdir())
    assert names in (["0.1", "4096.0"], ["0.2", "4096.0"])
    store.close()
    store = SqlcipherRecordStore(tmp_path / "data.db", key, rows_key=bytes(32))
    assert list(store.scan(c, set(Field), after=Position(-1), limit=9_999)) == expected
    store.close()


child = """
import os, resource, sys
from pathlib import Path
from uuid import UUID
from secure_embed.errors import Unavailable
from secure_embed.store import SealedRow, SqlcipherRecordStore
from secure_embed.types import Field, Position
store, c = SqlcipherRecordStore(Path(sys.argv[1]), bytes(range(32)), rows_key=bytes(32)), UUID(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
done = 0
try:
    while True:
        rows = [SealedRow(position=Position(done + i), id_tag=os.urandom(32), fields={f: os.urandom(600) for f in Field})
                for i in range(25)]
        store.append(c, rows, request=None)
        done += 25
except Unavailable as refused:
    print(done, refused.status, store.versions(c).records, flush=True)
os._exit(0)
"""


def test_a_real_write_that_the_kernel_refuses_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """A limit on the size of files makes the kernel refuse a write of the log (EFBIG) in the middle of an append."""
    store, c = new_store(tmp_path / "data.db")
    store.close()
    ran = subprocess.run(
        [sys.executable, "-c", child, str(tmp_path / "data.db"), str(c)], capture_output=True, text=True, check=True
    )
    done, status, records = map(int, ran.stdout.split())
    assert done >= 25
    assert status in {503, 507}
    assert records == done
    store = SqlcipherRecordStore(tmp_path / "data.db", key, rows_key=bytes(32))
    assert store.versions(c).records == len(store.scan(c, set(Field), after=Position(-1), limit=9_999)) == done
    store.append(c, batch(done, 25), request=None)
    store.close()
