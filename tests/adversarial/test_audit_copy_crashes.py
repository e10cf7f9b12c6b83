"""A copy for a backup that is killed at any moment: what lies there is the older copy, or one that does not open; the next
run makes it whole."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from secure_embed.audit import AuditLog, PosixLogStorage, verify_folder
from secure_embed.audit.merkle import CompactRange
from secure_embed.errors import IntegrityFailure
from tests.audit_logs import SIGNER, extended_head, verify

ROOT = Path(__file__).parents[2]
STAMP = b'{"phase":"SYSTEM","time":"2026-01-01T00:00:00.000Z","time_ms":1,"v":1}'

# It kills itself before the n-th file that it opens, renames or removes in the copy, so that where it ends does not hang on
# how fast the machine is.
COPIER = """
import os, signal, sys
from pathlib import Path
from secure_embed.audit import AuditLog, PosixLogStorage
from tests.audit_logs import SIGNER
log = AuditLog(PosixLogStorage(Path(sys.argv[1])), SIGNER)
left = int(sys.argv[3])
def killing(event, args):
    global left
    if event in ("open", "os.rename", "os.remove", "os.mkdir"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(killing)
log.snapshot_to(Path(sys.argv[2]))
os.write(1, b"%d" % (int(sys.argv[3]) - left))
"""
FIRST_COPY_STEPS_MIN = 60  # 9 tiles of entries, 35 of hashes, each opened and renamed, and the folders


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


def killed_copy(folder: Path, copy: Path, at_step: int) -> int | None:
    """How many steps it took, or None where it was killed at that step."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    command = [sys.executable, "-c", COPIER, str(folder), str(copy), str(at_step)]
    child = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, env={**env, "PYTHONPATH": str(ROOT)}, check=False)
    assert child.returncode in (0, -9)
    return int(child.stdout) if child.returncode == 0 else None


def test_a_copy_that_is_killed_is_the_older_one_or_none(tmp_path: Path) -> None:
    folder, copy, whole = tmp_path / "log", tmp_path / "copy", tmp_path / "whole"
    grow(folder, 9_000)
    steps = killed_copy(folder, whole, 0)
    assert steps is not None
    assert steps >= FIRST_COPY_STEPS_MIN
    held, cut_off = 0, 0
    # The first copy, killed again and again; then copies of what has been added since, of fewer steps.
    for at_step in (1, steps // 2, steps - 2, 0, 1, 4, 9, 16, 25, 0):
        cut_off += killed_copy(folder, copy, at_step) is None
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
        if held:
            grow(folder, 700)
    assert cut_off >= 5
    log = AuditLog(PosixLogStorage(folder), SIGNER)
    head = log.snapshot_to(copy)
    log.close()
    report = verify(copy)
    assert (report.intact, report.size) == (True, head.size), report.as_text()
    assert not any("no part of this log" in note for note in report.notes)
    assert not list(copy.rglob("*.new"))
