"""SIGKILL at any moment: what was acknowledged is there, whole; what was not is there whole or not at all.

A killed process keeps what the kernel holds; a power cut does not. That ``synchronous`` is FULL is tested in
tests/unit/store/test_store_sqlcipher_file.py; no test here pulls the plug.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pytest

from secure_embed.errors import ConfigurationError
from secure_embed.store import RequestKey, SealedCollection, SealedRow, SqlcipherRecordStore
from secure_embed.types import Field, Position

batch_rows = 50
key = bytes(range(32))

child_common = """
import hashlib, os, signal, sys, time
from pathlib import Path
from uuid import UUID
from secure_embed.keys import SealedDatabase
from secure_embed.store import RequestKey, SealedRow, SqlcipherRecordStore
from secure_embed.types import Action, Field, Position, Ticket
path, c = Path(sys.argv[1]), UUID(sys.argv[2])
store = SqlcipherRecordStore(path, bytes(range(32)), rows_key=bytes(32))
"""

child_appends = (
    child_common
    + """
number = store.versions(c).data
while True:
    first = number * 50
    value = lambda p, field: hashlib.sha256(f"{p} {field}".encode()).digest() * 20
    rows = [SealedRow(position=Position(p), id_tag=hashlib.sha256(b"id%d" % p).digest(),
                      fields={f: value(p, f) for f in Field}) for p in range(first, first + 50)]
    tag = hashlib.sha256(b"request%d" % number).digest()
    store.append(c, rows, request=RequestKey(tag=tag, body_tag=tag))
    number += 1
    print(number, flush=True)
"""
)

child_erases = (
    child_common
    + """
SealedDatabase.empty_write_ahead_log = lambda self: os.kill(os.getpid(), signal.SIGKILL)
store.erase(c, [Position(3)], ticket=Ticket(intent_index=0, action=Action.RECORD_ERASE, openings_max=0,
                                            expires_monotonic=time.monotonic() + 60))
"""
)

child_holds = child_common + "print('open', flush=True)\ntime.sleep(60)\n"


def value(position: int, field: Field) -> bytes:
    """What the child writes."""
    return hashlib.sha256(f"{position} {field}".encode()).digest() * 20


def start(script: str, path: Path, c: UUID) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(path), str(c)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.db"


@pytest.fixture
def c(path: Path) -> UUID:
    store = SqlcipherRecordStore(path, key, rows_key=bytes(32))
    uuid = uuid4()
    store.create_collection(SealedCollection(uuid=uuid, name_tag=os.urandom(32), descriptor=b"sealed"))
    store.close()
    return uuid


def test_every_acknowledged_batch_is_whole_after_a_kill(path: Path, c: UUID) -> None:
    chance = random.Random(9)
    acknowledged = 0
    for _ in range(6):
        child = start(child_appends, path, c)
        assert child.stdout is not None
        said = [child.stdout.readline(), child.stdout.readline()]  # it has begun: now the kill falls into an append
        time.sleep(chance.uniform(0, 0.15))
        child.kill()
        said += child.stdout.read().split("\n")
        assert child.wait() == -signal.SIGKILL
        acknowledged = max(int(line) for line in said if line.strip())
        store = SqlcipherRecordStore(path, key, rows_key=bytes(32))
        versions = store.versions(c)
        assert versions.data in {acknowledged, acknowledged + 1}
        assert versions.records == versions.next_position == versions.data * batch_rows
        rows = store.scan(c, set(Field), after=Position(-1), limit=1_000_000)
        assert [row.position for row in rows] == list(range(versions.records))
        assert all(row.fields == {f: value(row.position, f) for f in Field} for row in rows)
        assert [change.sequence for change in store.changes(c, since=0, limit=10_000)] == list(
            range(1, versions.data + 1)
        )
        numbers = np.arange(versions.next_position, dtype=np.int64)
        vectors, present = store.vectors(c, numbers)
        assert present.all()
        assert all(row.tobytes() == value(p, Field.VECTOR) for p, row in enumerate(vectors))
        store.close()
    assert acknowledged > 6


def test_an_erasure_killed_before_its_log_is_emptied_is_finished_by_the_next_start(path: Path, c: UUID) -> None:
    store = SqlcipherRecordStore(path, key, rows_key=bytes(32))
    rows = [
        SealedRow(position=Position(p), id_tag=os.urandom(32), fields={f: os.urandom(300) for f in Field})
        for p in range(6)
    ]
    tag = os.urandom(32)
    store.append(c, rows, request=RequestKey(tag=tag, body_tag=tag))
    store.close()
    child = start(child_erases, path, c)
    assert child.wait(timeout=30) == -signal.SIGKILL
    log = path.with_name("data.db-wal")
    assert log.stat().st_size > 0
    store = SqlcipherRecordStore(path, key, rows_key=bytes(32))
    assert log.stat().st_size == 0
    assert store.versions(c).erasure == 1
    assert store.fetch(c, [Position(3)], set(Field)) == {}
    store.close()


def test_another_process_is_refused_until_the_first_is_dead(path: Path, c: UUID) -> None:
    child = start(child_holds, path, c)
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    with pytest.raises(ConfigurationError) as refused:
        SqlcipherRecordStore(path, key, rows_key=bytes(32))
    assert refused.value.code == "store_in_use"
    child.kill()
    child.wait()
    SqlcipherRecordStore(path, key, rows_key=bytes(32)).close()
