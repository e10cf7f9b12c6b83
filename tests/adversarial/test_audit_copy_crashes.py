"""A copy for a backup that is killed at any moment: what lies there is the older copy, or one that does not open; the next
run makes it whole."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from secure_embed.audit import AuditLog, PosixLogStorage, verify_folder
from secure_embed.audit.merkle import CompactRange
from secure_embed.errors import IntegrityFailure
from tests.audit_logs import SIGNER, extended_head, verify

ROOT = Path(__file__).parents[2]
STAMP = b'{"phase":"SYSTEM","time":"2026-01-01T00:00:00.000Z","time_ms":1,"v":1}'

COPIER = """
import os, sys
from pathlib import Path
from secure_embed.audit import AuditLog, PosixLogStorage
from tests.audit_logs import SIGNER
log = AuditLog(PosixLogStorage(Path(sys.argv[1])), SIGNER)
os.write(1, b"copying\\n")
log.snapshot_to(Path(sys.argv[2]))
os.write(1, b"done\\n")
"""


def grow(folder: Path, entries: int) -> None:
    storage = PosixLogStorage(folder, create=True)
    grown = CompactRange()
    for leaf in storage.leaf_hashes(0, storage.head().size):
        grown.append(leaf)
    for start in range(0, entries, 1_000):
        more = [STAMP] * min(1_000, entries - start)
        storage.commit(storage.head(), more, extended_head(grown, more))
        storage.settle()
    storage.close()


def killed_copy(folder: Path, copy: Path, after_s: float) -> bool:
    """Whether it was done before it was killed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    command = [sys.executable, "-c", COPIER, str(folder), str(copy)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env={**env, "PYTHONPATH": str(ROOT)})
    assert child.stdout is not None
    assert child.stdout.readline() == b"copying\n"
    time.sleep(after_s)
    child.send_signal(signal.SIGKILL)
    said = child.stdout.read()
    child.wait()
    child.stdout.close()
    return said == b"done\n"


def test_a_copy_that_is_killed_is_the_older_one_or_none(tmp_path: Path) -> None:
    chance = random.Random(4)
    folder, copy = tmp_path / "log", tmp_path / "copy"
    grow(folder, 9_000)
    held, cut_off = 0, 0
    for _ in range(10):
        done = killed_copy(folder, copy, chance.uniform(0, 0.12))
        cut_off += not done
        if (copy / "checkpoint").exists():
            size = verify_folder(copy, [SIGNER.verifier]).head.size
            assert size >= held
            held = size
            opened = tmp_path / "opened"
            shutil.copytree(copy, opened)
            AuditLog(PosixLogStorage(opened), SIGNER).close()
            assert verify(opened).intact
            shutil.rmtree(opened)
        else:  # the first copy, before its checkpoint
            assert held == 0
            with pytest.raises(IntegrityFailure):
                PosixLogStorage(copy)
        grow(folder, 700)
    assert cut_off >= 3
    log = AuditLog(PosixLogStorage(folder), SIGNER)
    head = log.snapshot_to(copy)
    log.close()
    report = verify(copy)
    assert (report.intact, report.size) == (True, head.size), report.as_text()
    assert not any("no part of this log" in note for note in report.notes)
    assert not list(copy.rglob("*.new"))
