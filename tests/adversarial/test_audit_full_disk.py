"""A disk that is really full: what does not fit is refused with 507, nothing that was acknowledged is lost, and the log goes
on, without a restart, once there is space.

The file system is a small one of its own, mounted where only the child sees it (a mount namespace ends with its process).
"""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from secure_embed.audit import AuditLog, LogFull, NoteSigner, PosixLogStorage
from secure_embed.audit import posix as posix_module
from secure_embed.audit import static_files as static_module
from secure_embed.errors import AuditUnavailable
from tests.audit_logs import ORIGIN, SIGNER, Asked, call, intent, new_log, outcome, verify

ROOT = Path(__file__).parents[2]

CHILD = """
import json, os, random, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from secure_embed.audit import AuditLog, LogFull, NoteSigner, PosixLogStorage, posix
from tests.audit_logs import ORIGIN, SIGNER, Asked, call, verify

place, journal_max, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
posix.journal_bytes_max = journal_max
chance = random.Random(seed)
log, kept, refused, statuses = AuditLog(PosixLogStorage(place / "log", create=True), SIGNER), [], 0, set()

def fill():
    fd = os.open(place / "ballast", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        while os.write(fd, b"x" * 4096):
            pass
    except OSError:
        os.ftruncate(fd, max(0, os.fstat(fd).st_size - chance.randrange(60_000)))
    os.close(fd)

def one(name):
    try:
        return call(log, name)
    except LogFull as full:
        statuses.add((full.status, full.code))
        return None

for round_ in range(4):
    fill()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(one, [f"f{round_}-{i}" for i in range(250)]))
    kept += [receipt for receipt in results if receipt]
    refused += results.count(None)
    (place / "ballast").unlink()
    kept += [call(log, f"s{round_}-{i}") for i in range(20)]  # space is back: every call succeeds
    assert verify(place / "log", Asked(receipts=tuple(kept))).intact
log.rotate(NoteSigner(ORIGIN, bytes(32)))
log.close()
report = verify(place / "log", Asked(receipts=tuple(kept)))
print(json.dumps({"intact": report.intact, "text": report.as_text(), "kept": len(kept), "refused": refused,
    "statuses": sorted(statuses), "left": [str(p) for p in (place / "log").rglob("*.new")]}))
"""


def on_a_small_disk(tmp_path: Path, file_system: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs CHILD on a file system of 2 MB. Skips where none can be mounted."""
    place, image = tmp_path / "disk", tmp_path / "image"
    place.mkdir()
    if file_system == "tmpfs":
        mount = f"mount -t tmpfs -o size=2m,mode=700 none {place}"
    else:
        image.write_bytes(b"")
        os.truncate(image, 2 * 1024 * 1024)
        mount = f"mkfs.ext4 -q -F -m 0 {image} && mount -o loop {image} {place}"
    script = f'PATH=$PATH:/usr/sbin:/sbin; ({mount}) || exit 77; exec {sys.executable} -c "$CHILD" {place} $ARGUMENTS'
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    env |= {"PYTHONPATH": str(ROOT), "CHILD": CHILD, "ARGUMENTS": " ".join(arguments)}
    command = ["unshare", "--mount", "sh", "-c", script]
    if shutil.which("unshare") is None:
        pytest.skip("no unshare(1) here")
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=120)
    if run.returncode == 77 or "unshare" in run.stderr:
        pytest.skip(f"no {file_system} can be mounted here")
    return run


@pytest.mark.parametrize("file_system", ["tmpfs", "ext4"])
@pytest.mark.parametrize("journal_max", [10**9, 20_000], ids=["journal full", "tiles full"])
def test_a_full_disk_refuses_loses_nothing_and_recovers(tmp_path: Path, file_system: str, journal_max: int) -> None:
    run = on_a_small_disk(tmp_path, file_system, str(journal_max), "7")
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    assert said["intact"], said["text"]
    assert said["statuses"] == [[507, "storage_full"]]
    assert said["refused"] > 100
    assert said["kept"] >= 80
    assert said["left"] == []


# --- injected, so that they run everywhere ----------------------------------------------------------------------------


class Full:
    """os.write of a disk that is full after so many bytes, as ext4 behaves: it writes what fits, then refuses."""

    def __init__(self, room: int, number: int = errno.ENOSPC) -> None:
        self.room, self.number, self.real = room, number, os.write

    def __call__(self, fd: int, data: bytes) -> int:
        if self.room <= 0:
            raise OSError(self.number, "no space")
        written = self.real(fd, bytes(data[: self.room]))
        self.room -= written
        return written


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("room", [0, 1, 30, 400])
def test_a_frame_that_does_not_fit_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, number: int
) -> None:
    folder = tmp_path / "log"
    log = new_log(folder)
    kept = [call(log, "kept")]
    ticket = intent(log, "open")
    journal = (folder / "journal").read_bytes()
    with monkeypatch.context() as full:
        full.setattr(posix_module.os, "write", Full(room, number))
        for _ in range(2):
            with pytest.raises(LogFull) as refused:
                outcome(log, "open", ticket)
            full.setattr(posix_module.os, "write", Full(room, number))
        assert (refused.value.status, refused.value.code) == (507, "storage_full")
        with pytest.raises(LogFull):
            log.rotate(NoteSigner(ORIGIN, bytes(32)))
        assert (folder / "journal").read_bytes() == journal
        log.require_available()
        assert log.newest_key() == SIGNER.verifier
    kept += [outcome(log, "open", ticket), call(log, "after")]
    shutil.copytree(folder, tmp_path / "live")
    log.close()
    for place in (folder, tmp_path / "live"):
        report = verify(place, Asked(receipts=tuple(kept)))
        assert report.intact, report.as_text()
        assert not any("INTENT" in note or "unfinished" in note for note in report.notes)


@pytest.mark.parametrize("broken", ["ftruncate", "fdatasync"])
def test_where_it_cannot_be_taken_back_the_log_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """What the medium holds is unknown then: nothing more is acknowledged."""
    log = new_log(tmp_path / "log")
    kept = call(log, "kept")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "a fault")

    with monkeypatch.context() as full:
        full.setattr(posix_module.os, "write", Full(30))
        full.setattr(posix_module.os, broken, fail)
        with pytest.raises(AuditUnavailable) as refused:
            call(log, "lost")
    assert refused.value.code == "audit_unavailable"
    with pytest.raises(AuditUnavailable) as refused:
        call(log, "later")
    assert refused.value.code == "audit_unavailable"
    log.close()
    AuditLog(PosixLogStorage(tmp_path / "log"), SIGNER).close()
    assert verify(tmp_path / "log", Asked(receipts=(kept,))).intact


FILES_OF_A_PUBLICATION = 4  # partial bundle, its tile, the tile above, checkpoint; full ones are written before


@pytest.mark.parametrize("nth", range(FILES_OF_A_PUBLICATION + 1))
def test_a_publication_without_space_is_put_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    """Whichever of its files does not fit: the journal holds everything, and the next publication has them all."""
    folder = tmp_path / "log"
    log = new_log(folder)
    kept = [call(log, f"r{i}") for i in range(100)]
    log.publish()
    kept += [call(log, f"s{i}") for i in range(40)]
    real, left = static_module.os.open, [nth]

    def full(path: object, flags: int, *arguments: int, **named: int) -> int:
        if str(path).endswith(".new"):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "no space")
        return real(path, flags, *arguments, **named)  # type: ignore[arg-type]  # passed on as it came

    with monkeypatch.context() as disk:
        disk.setattr(static_module.os, "open", full)
        if nth < FILES_OF_A_PUBLICATION:
            with pytest.raises(LogFull):
                log.publish()
        else:
            log.publish()
        shutil.copytree(folder, tmp_path / "then")
    kept += [call(log, f"t{i}") for i in range(130)]
    log.publish()
    log.close()
    for place in (tmp_path / "then", folder):
        AuditLog(PosixLogStorage(place), SIGNER).close()
    report = verify(folder, Asked(receipts=tuple(kept)))
    assert report.intact, report.as_text()
    assert report.notes == []
    assert verify(tmp_path / "then", Asked(receipts=tuple(kept[:140]))).intact
    assert not list(folder.rglob("*.new"))


def test_upper_tiles_that_found_no_space_are_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A level 1 tile completes once in 65,536 entries: the moment must not be missed for good."""
    from secure_embed.audit.merkle import CompactRange
    from tests.audit_logs import extended_head

    storage, grown = PosixLogStorage(tmp_path / "log", create=True), CompactRange()
    stamp = b'{"phase":"SYSTEM","time":"2026-01-01T00:00:00.000Z","time_ms":1,"v":1}'
    write = static_module.StaticFiles.write

    def no_room(self: static_module.StaticFiles, path: str, data: bytes) -> None:
        if path == "tile/1/000":
            raise static_module.NoSpace(errno.ENOSPC, "no space")
        write(self, path, data)

    with monkeypatch.context() as disk:
        disk.setattr(static_module.StaticFiles, "write", no_room)
        for _ in range(8):
            entries = [stamp] * 8_192
            storage.commit(storage.head(), entries, extended_head(grown, entries))
            storage.settle()
        assert not (tmp_path / "log/tile/1/000").exists()
        assert storage.entries(65_535, 1) == [stamp]
    storage.settle()
    storage.close()
    assert (tmp_path / "log/tile/1/000").stat().st_size == 8_192
    assert verify(tmp_path / "log").intact
