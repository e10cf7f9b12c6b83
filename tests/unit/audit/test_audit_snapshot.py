"""Copies of a running log for backups: a copy opens as a log, goes on from an older copy, and is never half of one."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from secure_embed.audit import AuditLog, PosixLogStorage, leaf_hash, verify_folder
from secure_embed.audit import static_files as static_module
from secure_embed.audit.merkle import CompactRange
from secure_embed.audit.tiles import unpack_entries
from secure_embed.errors import ConfigurationError, Conflict, Unavailable
from tests.audit_logs import SIGNER, STRANGER, Asked, call, extended_head, new_log, verify


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "copy"


def test_a_copy_of_a_running_log_opens_as_a_log_and_verifies(folder: Path, copy: Path, tmp_path: Path) -> None:
    log = new_log(folder)
    receipts = [call(log, f"r{i}") for i in range(140)]
    head = log.snapshot_to(copy)
    assert head == log.head()
    log.export(tmp_path / "export")
    assert files_of(copy) == files_of(tmp_path / "export")
    call(log, "later")
    log.close()
    report = verify(copy, Asked(receipts=tuple(receipts), journal_required=True))
    assert report.intact, report.as_text()
    assert report.notes == []
    again = AuditLog(PosixLogStorage(copy), SIGNER)
    assert again.entries(0, head.size) == log_entries(folder, head.size)
    again.close()


def log_entries(folder: Path, count: int) -> list[bytes]:
    storage = PosixLogStorage(folder)
    entries = list(storage.entries(0, count))
    storage.close()
    return entries


@pytest.mark.parametrize("steps", [[1, 1], [1, 130, 1], [127, 1, 1, 300], [0, 200, 0]])
def test_each_next_copy_is_the_log_of_its_time(folder: Path, copy: Path, tmp_path: Path, steps: list[int]) -> None:
    log = new_log(folder)
    for number, step in enumerate(steps):
        for i in range(step):
            call(log, f"s{number}-{i}")
        head = log.snapshot_to(copy)
        fresh = tmp_path / f"fresh{number}"
        log.export(fresh)
        assert files_of(copy) == files_of(fresh)
        assert verify_folder(copy, [SIGNER.verifier]).head == head
    log.close()


def test_full_tiles_that_are_there_are_not_written_again(
    folder: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = new_log(folder)
    for i in range(260):
        call(log, f"r{i}")
    log.snapshot_to(copy)
    inodes = {path: (copy / path).stat().st_ino for path in ("tile/entries/000", "tile/0/001")}
    written: list[str] = []
    write = static_module.StaticFiles.write
    monkeypatch.setattr(
        static_module.StaticFiles, "write", lambda self, path, data: (written.append(path), write(self, path, data))[1]
    )
    for i in range(130):
        call(log, f"s{i}")
    log.publish()
    written.clear()
    log.snapshot_to(copy)
    assert set(written) == {
        *("tile/entries/002", "tile/0/002", "tile/entries/003.p/13", "tile/0/003.p/13", "tile/1/000.p/3"),
        "checkpoint",
    }
    assert inodes == {path: (copy / path).stat().st_ino for path in inodes}
    assert all((copy / path).stat().st_ino != (folder / path).stat().st_ino for path in inodes)  # no hard link
    log.close()


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of two full bundles and its copy. Only read."""
    place = tmp_path_factory.mktemp("copied")
    log = new_log(place / "log")
    for i in range(260):
        call(log, f"r{i}")
    log.close()
    log = AuditLog(PosixLogStorage(place / "log"), SIGNER)
    log.snapshot_to(place / "copy")
    log.close()
    return place


@pytest.mark.parametrize("path", ["tile/entries/000", "tile/0/001", "tile/entries/001", "tile/0/000"])
@pytest.mark.parametrize("how", ["flip", "cut", "remove", "swap"])
def test_a_damaged_older_copy_is_repaired(copied: Path, tmp_path: Path, path: str, how: str) -> None:
    folder, copy = tmp_path / "log", tmp_path / "copy"
    shutil.copytree(copied / "log", folder)
    shutil.copytree(copied / "copy", copy)
    good = files_of(copy)
    data = bytearray(good[path])
    if how == "flip":
        data[len(data) // 2] ^= 1
    elif how == "cut":
        del data[-1]
    elif how == "swap":
        data = bytearray(good[path.replace("000", "x").replace("001", "000").replace("x", "001")])
    (copy / path).write_bytes(data)
    if how == "remove":
        (copy / path).unlink()
    assert_repaired(folder, copy, good)


def test_an_entry_that_was_changed_with_its_tile_is_repaired_too(copied: Path, tmp_path: Path) -> None:
    folder, copy = tmp_path / "log", tmp_path / "copy"
    shutil.copytree(copied / "log", folder)
    shutil.copytree(copied / "copy", copy)
    good = files_of(copy)
    bundle = bytearray(good["tile/entries/001"])
    bundle[-3] ^= 1
    (copy / "tile/entries/001").write_bytes(bundle)
    leaf = leaf_hash(unpack_entries(bytes(bundle), 256)[-1])
    (copy / "tile/0/001").write_bytes(good["tile/0/001"][:-32] + leaf)
    assert_repaired(folder, copy, good)


def assert_repaired(folder: Path, copy: Path, good: dict[str, bytes]) -> None:
    log = AuditLog(PosixLogStorage(folder), SIGNER)
    log.snapshot_to(copy)
    log.close()
    full = {path: data for path, data in good.items() if ".p/" not in path and path.startswith("tile/")}
    there = files_of(copy)
    assert {path: there[path] for path in full} == full
    assert verify(copy).intact


def foreign() -> dict[str, Callable[[Path, Path], None]]:
    def later_state(log_folder: Path, copy: Path) -> None:
        shutil.copytree(log_folder, copy)
        longer = AuditLog(PosixLogStorage(copy), SIGNER)
        call(longer, "later")
        longer.close()

    def another_log(_: Path, copy: Path) -> None:
        storage = PosixLogStorage(copy, create=True)
        entries = [b'{"a":1}']
        storage.commit(storage.head(), entries, extended_head(CompactRange(), entries, STRANGER))
        storage.close()

    def a_broken_checkpoint(_: Path, copy: Path) -> None:
        copy.mkdir()
        (copy / "checkpoint").write_text("x")

    def another_file(_: Path, copy: Path) -> None:
        copy.mkdir()
        (copy / "notes.txt").write_text("x")

    def a_log_that_was_not_closed(_: Path, copy: Path) -> None:
        copy.mkdir()
        (copy / "journal").write_bytes(b"x")

    found = {later_state, another_log, a_broken_checkpoint, another_file, a_log_that_was_not_closed}
    return {make.__name__: make for make in sorted(found, key=lambda f: f.__name__)}


@pytest.mark.parametrize("make", foreign().values(), ids=foreign().keys())
def test_what_is_no_older_copy_is_left_alone(folder: Path, copy: Path, make: Callable[[Path, Path], None]) -> None:
    """A log that was put back must not take the better copies with it."""
    log = new_log(folder)
    log.close()
    make(folder, copy)
    before = files_of(copy)
    log = AuditLog(PosixLogStorage(folder), SIGNER)
    with pytest.raises(Conflict) as refused:
        log.snapshot_to(copy)
    assert refused.value.code in ("snapshot_target_differs", "export_target_not_empty")
    assert files_of(copy) == before
    log.close()


def test_a_folder_that_is_in_use_is_refused(folder: Path, log: AuditLog, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        log.snapshot_to(folder)
    other = new_log(tmp_path / "other")
    with pytest.raises(ConfigurationError):
        log.snapshot_to(tmp_path / "other")
    other.close()


def test_what_a_cut_off_copy_left_is_synced_before_its_checkpoint(
    folder: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of an interrupted copy are kept for their content, and may be in memory only."""
    log = new_log(folder)
    for i in range(260):
        call(log, f"r{i}")
    with monkeypatch.context() as cut:
        cut.setattr(static_module.StaticFiles, "put_checkpoint", fail)
        with pytest.raises(Unavailable):
            log.snapshot_to(copy)
    assert not (copy / "checkpoint").exists()
    synced: list[str] = []
    sync = static_module._sync
    monkeypatch.setattr(
        static_module, "_sync", lambda path: (synced.append(str(path.relative_to(copy))), sync(path))[1]
    )
    log.snapshot_to(copy)
    assert {"tile/entries/000", "tile/0/000", "tile/entries/001", "tile/0/001"} <= set(synced)
    assert synced.index("tile/0/000") < synced.index("checkpoint")
    synced.clear()
    log.snapshot_to(copy)
    assert not {"tile/entries/000", "tile/0/000"} & set(synced)
    monkeypatch.undo()
    log.close()


def fail(*_: object) -> None:
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize("left", ["journal.new", "checkpoint.new"])
def test_half_written_files_of_a_cut_off_copy_are_cleared_away(log: AuditLog, copy: Path, left: str) -> None:
    copy.mkdir(mode=0o700)
    (copy / left).write_bytes(b"x")
    log.snapshot_to(copy)
    assert not list(copy.rglob("*.new"))
    assert verify(copy).intact


def test_files_of_a_copy_are_their_owners_alone(log: AuditLog, copy: Path) -> None:
    old = os.umask(0)
    try:
        log.snapshot_to(copy)
    finally:
        os.umask(old)
    assert all(path.stat().st_mode & 0o077 == 0 for path in (copy, *copy.rglob("*")))


def test_an_empty_log_can_be_copied(folder: Path, copy: Path) -> None:
    from secure_embed.audit.export import copy_log
    from secure_embed.audit.tree import Tree

    storage = PosixLogStorage(folder, create=True)
    copy_log(storage, Tree(storage.leaf_hashes), storage.head(), copy)
    storage.close()
    PosixLogStorage(copy).close()
