"""A process that dies at each single step of a change: before every write, sync, unlink, checkpoint and commit, and after
each commit. What is there afterwards is the state before or the state after; the change can be made again, and then
nothing of what it ended is in any file.
"""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from secure_embed.errors import NotFound
from secure_embed.keys import SealedDatabase
from secure_embed.store import RequestKey, SealedRow, SqlcipherRecordStore
from secure_embed.types import Field, Position
from tests.sealed_store import batch, erase_ticket, everything, found, marks, new_collection, segments

key = bytes(range(32))
old_rows = batch(0, 4_100)
new_rows = batch(4_100, 4_200)
request = RequestKey(tag=os.urandom(32), body_tag=os.urandom(32))
gone = [row for row in old_rows if row.position in {5, 77, 4_095, 4_097}]
kept = [row for row in old_rows if row not in gone]
anew = [
    replace(row, fields={f: b"\x01" + os.urandom(len(v) - 1) for f, v in row.fields.items()})
    for row in old_rows[:4_096]
]


def die_at(step: int) -> None:
    """From now on this process counts its steps and kills itself at the given one."""
    left = step

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            count()
            return function(*arguments, **named)

        return call

    for name in ("pwrite", "fdatasync", "fsync", "ftruncate", "unlink", "rmdir", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))
    begun, emptied = SealedDatabase.transaction, SealedDatabase.empty_write_ahead_log

    @contextmanager
    def transaction(self: SealedDatabase) -> Iterator[Any]:
        with begun(self) as run:
            yield run
            count()  # everything is written but the commit
        count()

    SealedDatabase.transaction = transaction  # type: ignore[method-assign]  # in this process only, which ends
    SealedDatabase.empty_write_ahead_log = counted(emptied)  # type: ignore[method-assign]


@dataclass(frozen=True)
class Change:
    make: Callable[[SqlcipherRecordStore, UUID], object]
    after: list[SealedRow]  # what is there when it is through; empty: the collection is not
    ended: list[bytes]  # what is nowhere then
    steps_min: int
    segments: int  # that are left


changes = {
    "append": Change(
        make=lambda store, c: store.append(c, new_rows, request=request, mark=b"after"),
        after=old_rows + new_rows,
        ended=[],
        steps_min=6,
        segments=3,
    ),
    "erase": Change(
        make=lambda store, c: store.erase(c, [row.position for row in gone], ticket=erase_ticket(), mark=b"after"),
        after=kept,
        ended=marks(gone),
        steps_min=10,
        segments=2,
    ),
    "replace": Change(
        make=lambda store, c: store.replace(c, anew, mark=b"after"),
        after=anew + old_rows[4_096:],
        ended=[value[:32] for row in old_rows[:4_096] for value in row.fields.values()],
        steps_min=10,
        segments=2,
    ),
    "erase_collection": Change(
        make=lambda store, c: store.erase_collection(c, ticket=erase_ticket()),
        after=[],
        ended=marks(old_rows),
        steps_min=60,
        segments=0,
    ),
}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, UUID]:
    """A folder to copy, with one collection beside another."""
    folder = tmp_path_factory.mktemp("before")
    store, sealed, other = (
        SqlcipherRecordStore(folder / "data.db", key, rows_key=bytes(32)),
        new_collection(),
        new_collection(),
    )
    for made in (other, sealed):
        store.create_collection(made)
    store.append(sealed.uuid, old_rows, request=None)
    store.append(other.uuid, gone[:1] and batch(0, 30), request=None)
    store.mark(b"before")
    store.close()
    return folder, sealed.uuid


def contents(store: SqlcipherRecordStore, c: UUID) -> list[SealedRow]:
    """As rows and as an array, which have to agree; nothing where the collection is not."""
    try:
        rows = list(store.scan(c, set(Field), after=Position(-1), limit=99_999))
    except NotFound:
        return []
    vectors, present = store.vectors(c, np.arange(9_000, dtype=np.int64))
    assert np.flatnonzero(present).tolist() == [row.position for row in rows]
    assert all(vectors[row.position].tobytes() == row.fields[Field.VECTOR] for row in rows)
    assert store.locate(c, [row.id_tag for row in rows]) == {row.id_tag: row.position for row in rows}
    return rows


def killed_at(step: int, path: Path, c: UUID, change: Change) -> bool:
    """Whether a child that makes the change dies at this step; False when it is through before."""
    child = os.fork()
    if child == 0:
        try:
            store = SqlcipherRecordStore(path, key, rows_key=bytes(32))
            store.versions(c)
            die_at(step)
            change.make(store, c)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("name", changes)
def test_after_a_death_at_any_step_it_is_before_or_after(before: tuple[Path, UUID], tmp_path: Path, name: str) -> None:
    folder, c = before
    change, step, seen = changes[name], 1, set()
    stride = 1 if name != "erase_collection" else 7  # many of its steps are alike
    path = tmp_path / "data.db"
    while True:
        shutil.rmtree(tmp_path)
        shutil.copytree(folder, tmp_path)
        if not killed_at(step, path, c, change):
            break
        store = SqlcipherRecordStore(path, key, rows_key=bytes(32))
        rows = contents(store, c)
        through = rows == change.after
        assert through or rows == old_rows
        if name != "erase_collection":
            assert store.marked() == (b"after" if through else b"before")
            assert (store.replay(c, request) is not None) == (through and name == "append")
        if through and name == "erase":  # the start finished it
            slots = b"".join(file.read_bytes() for file in segments(path))
            assert found(slots, [row.fields[Field.VECTOR] for row in gone]) == 0
        seen.add(through)
        change.make(store, c)
        assert contents(store, c) == change.after
        if step % 5 == 1:  # the search costs most of this test's time
            assert not change.ended or found(everything(path, key), change.ended) == 0
        names = {path.name for path in segments(path)}
        assert names <= {"0.0", "0.1", "0.2", "4096.0", "8192.0"}
        assert len(names & {"4096.0", "8192.0"}) == max(change.segments - 1, 0)
        assert len(segments(path)) == 1 + change.segments  # the other collection's, and these
        store.close()
        step += stride
    assert step > change.steps_min
    assert seen == {True, False}
