"""Killed at any moment, out of space at any byte: what was acknowledged is there afterwards, and the log is intact."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from secure_embed.audit import AuditLog, PosixLogStorage
from secure_embed.types import Receipt
from tests.audit_logs import SIGNER, Asked, verify

ROOT = Path(__file__).parents[2]

# Writes calls from several threads and says each receipt once it has it: one short write to a pipe is atomic.
WRITER = """
import json, os, sys, threading
from pathlib import Path
from secure_embed.audit import AuditLog, PosixLogStorage
from secure_embed.audit import posix
from secure_embed.errors import AuditUnavailable
from tests.audit_logs import SIGNER, call

folder, threads, journal_max, file_max = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
posix.journal_bytes_max = journal_max
if file_max:
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_max, file_max))

def write(name):
    for i in range(100_000):
        receipt = call(log, f"{name}-{i}")
        os.write(1, (json.dumps([receipt.index, receipt.leaf_hash]) + "\\n").encode())

def until_refused(name):
    try:
        write(name)
    except AuditUnavailable:
        pass

try:
    log = AuditLog(PosixLogStorage(folder, create=True), SIGNER)
    workers = [threading.Thread(target=until_refused, args=(f"t{n}",)) for n in range(threads)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
except AuditUnavailable:
    pass
os.write(1, b"refused\\n")
"""


def start(folder: Path, *, threads: int, journal_max: int, file_max: int = 0) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", WRITER, str(folder), str(threads), str(journal_max), str(file_max)]
    # Without coverage in the child: its own file would not fit under the limit either.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env={**env, "PYTHONPATH": str(ROOT)})


def receipts_in(said: bytes) -> list[Receipt]:
    lines = said.split(b"\n")[:-1]  # what is not ended by a newline was cut off with the process
    return [
        Receipt(origin=SIGNER.name, index=i, leaf_hash=h) for i, h in (json.loads(x) for x in lines if x[:1] == b"[")
    ]


def test_every_acknowledged_receipt_survives_sigkill(tmp_path: Path) -> None:
    """One log, killed again and again: each time while it writes, publishes, or has just been opened."""
    chance = random.Random(9)
    folder = tmp_path / "log"
    kept: list[Receipt] = []
    for life in range(12):
        child = start(folder, threads=1 + life % 8, journal_max=chance.choice([3_000, 30_000, 10**9]))
        assert child.stdout is not None
        first = b"".join(child.stdout.readline() for _ in range(10))  # it writes now
        time.sleep(chance.uniform(0, 0.15))
        child.send_signal(signal.SIGKILL)
        said = first + child.stdout.read()
        child.wait()
        child.stdout.close()
        kept += receipts_in(said)
        asked = Asked(receipts=tuple(kept))
        crashed = verify(folder, asked)  # as it lies there, before anyone repairs it
        assert crashed.intact, (life, crashed.as_text())
    AuditLog(PosixLogStorage(folder), SIGNER).close()
    after = verify(folder, Asked(receipts=tuple(kept)))
    assert after.intact, after.as_text()
    assert len(kept) > 100


@pytest.mark.parametrize("file_max", [1_000, 9_000, 40_001, 100_003])
def test_a_full_medium_refuses_and_loses_nothing(tmp_path: Path, file_max: int) -> None:
    """The kernel refuses to let a file grow: commits are cut in the middle of a frame, or tiles cannot be written."""
    folder = tmp_path / "log"
    child = start(folder, threads=4, journal_max=10**9, file_max=file_max)
    said, _ = child.communicate(timeout=60)
    assert said.endswith(b"refused\n")
    assert child.returncode == 0
    kept = receipts_in(said)
    assert len(kept) == 0 if file_max < 1_500 else len(kept) > 3
    asked = Asked(receipts=tuple(kept))
    assert verify(folder, asked).intact
    AuditLog(PosixLogStorage(folder), SIGNER).close()
    after = verify(folder, asked)
    assert after.intact, after.as_text()
