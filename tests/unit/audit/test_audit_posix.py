"""The folder: what lies in it, what a crash may leave there, and what is not taken for a crash."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from secure_embed.audit import AuditLog, PosixLogStorage, export_folder, open_view, verify_folder
from secure_embed.audit import posix as posix_module
from secure_embed.audit.merkle import CompactRange
from secure_embed.errors import AuditUnavailable, ConfigurationError, Conflict, IntegrityFailure
from tests.audit_logs import SIGNER, call, extended_head, intent, new_log, verify


def reopen(folder: Path) -> AuditLog:
    return AuditLog(PosixLogStorage(folder), SIGNER)


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_at_rest_the_folder_is_a_static_log_beside_an_empty_journal(folder: Path) -> None:
    log = new_log(folder)
    for i in range(150):
        call(log, f"r{i}")
    log.publish()
    call(log, "last")
    log.close()
    assert (folder / "journal").read_bytes() == b""
    assert files_of(folder) == {
        *("checkpoint", "journal", "tile/0/000", "tile/entries/000", "tile/1/000.p/1"),
        *("tile/0/001.p/48", "tile/entries/001.p/48"),
    }


def test_files_are_their_owners_alone(folder: Path) -> None:
    log = new_log(folder)
    call(log, "r")
    log.close()
    for path in (folder, *folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_tree_of_three_levels_is_published_and_verified(folder: Path) -> None:
    storage = PosixLogStorage(folder, create=True)
    stamp = b'"phase":"SYSTEM","time":"2026-01-01T00:00:00.000Z","time_ms":1,"v":1}'
    size, grown = 65_536 + 3, CompactRange()
    for first in range(0, size, 8_192):
        entries = [b'{"n":%d,%s' % (i, stamp) for i in range(first, min(first + 8_192, size))]
        storage.commit(storage.head(), entries, extended_head(grown, entries))
        storage.settle()
    storage.close()
    assert (folder / "tile/2/000.p/1").stat().st_size == 32
    assert (folder / "tile/1/000").stat().st_size == 8_192
    report = verify(folder)
    assert report.intact
    assert report.size == size
    assert PosixLogStorage(folder).head() == storage.head()


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_torn_write_is_dropped_and_the_recovery_is_logged(folder: Path, cut: int) -> None:
    log = new_log(folder)
    kept = call(log, "kept")
    journal = (folder / "journal").read_bytes()
    intent(log, "torn")
    torn = (folder / "journal").read_bytes()[len(journal) : -cut]
    crashed = folder.with_name("crashed")
    shutil.copytree(folder, crashed)
    (crashed / "journal").write_bytes(journal + torn)
    entries = log.entries(0, kept.index + 1)
    log.close()
    after = reopen(crashed)
    assert after.entries(0, kept.index + 1) == entries
    assert f'"torn_bytes":{len(torn)}'.encode() in after.entries(kept.index + 1, 1)[0]
    after.close()
    assert verify(crashed).intact


def test_damage_before_a_whole_frame_is_not_taken_for_a_crash(folder: Path) -> None:
    log = new_log(folder)
    for i in range(3):
        call(log, f"r{i}")
    crashed = folder.with_name("crashed")
    shutil.copytree(folder, crashed)
    log.close()
    journal = bytearray((crashed / "journal").read_bytes())
    journal[100] ^= 1
    (crashed / "journal").write_bytes(journal)
    with pytest.raises(IntegrityFailure) as refused:
        PosixLogStorage(crashed)
    assert refused.value.code == "log_damaged"
    assert (crashed / "journal").read_bytes() == journal


@pytest.mark.parametrize("lost", ["journal", "checkpoint", "tile/0/000.p/1", "tile/entries/000.p/1"])
def test_a_log_that_lost_a_file_is_not_opened(folder: Path, lost: str) -> None:
    new_log(folder).close()  # start and stop: two entries
    (folder / lost.replace(".p/1", ".p/2")).unlink()
    with pytest.raises(IntegrityFailure):
        reopen(folder)


def test_a_log_that_has_gone_is_not_begun_anew_unasked(folder: Path) -> None:
    with pytest.raises(IntegrityFailure):
        PosixLogStorage(folder)
    assert not folder.exists()


def test_creating_where_a_log_is_opens_that_log(folder: Path) -> None:
    log = new_log(folder)
    receipt = call(log, "r")
    log.close()
    storage = PosixLogStorage(folder, create=True)
    assert storage.head().size == receipt.index + 2
    storage.close()


def test_removing_a_file_lets_no_second_writer_in(folder: Path) -> None:
    log = new_log(folder)
    for path in list(folder.iterdir()):
        path.unlink()
    with pytest.raises(ConfigurationError) as refused:
        PosixLogStorage(folder, create=True)
    assert refused.value.code == "log_in_use"
    with pytest.raises(AuditUnavailable):
        log.close()


@pytest.mark.parametrize("crash_at", ["sync", "put_checkpoint", "drop"])
def test_a_crash_while_publishing_loses_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, crash_at: str) -> None:
    log = new_log(folder)
    for i in range(100):
        call(log, f"a{i}")
    log.publish()
    receipts = [call(log, f"b{i}") for i in range(100)]
    images: list[Path] = []

    def copy_first(self: object, *arguments: object) -> None:
        images.append(folder.with_name(f"image{len(images)}"))
        shutil.copytree(folder, images[-1])
        real(self, *arguments)

    real = getattr(posix_module.StaticFiles, crash_at)
    monkeypatch.setattr(posix_module.StaticFiles, crash_at, copy_first)
    log.publish()
    monkeypatch.undo()
    log.close()
    assert images
    for image in images:
        reopen(image).close()
        report = verify(image)
        assert report.intact, report.as_text()
        assert report.notes == [] or "no part of this log" not in " ".join(report.notes)
        assert report.size > receipts[-1].index


def test_the_journal_is_emptied_when_it_has_grown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix_module, "journal_bytes_max", 20_000)
    log = new_log(folder)
    for i in range(100):
        call(log, f"r{i}")
    assert (folder / "journal").stat().st_size < 25_000
    assert (folder / "checkpoint").exists()
    log.close()
    assert verify(folder).intact


def test_a_reader_needs_no_lock(folder: Path) -> None:
    log = new_log(folder)
    receipt = call(log, "r")
    view = open_view(folder)
    assert view.head() == log.head()
    assert verify_folder(folder, [SIGNER.verifier]).head.size == receipt.index + 1
    log.close()


def test_an_export_of_a_running_log_is_a_log(folder: Path, tmp_path: Path) -> None:
    log = new_log(folder)
    for i in range(140):
        call(log, f"r{i}")
    head = export_folder(folder, tmp_path / "copy")
    assert head == log.head() == log.export(tmp_path / "copy2")
    assert files_of(tmp_path / "copy") == files_of(tmp_path / "copy2")
    assert verify(tmp_path / "copy").intact
    with pytest.raises(Conflict):
        log.export(tmp_path / "copy")
    log.close()
    reopen(tmp_path / "copy").close()


def test_an_empty_log_can_be_exported(folder: Path, tmp_path: Path) -> None:
    PosixLogStorage(folder, create=True).close()
    assert export_folder(folder, tmp_path / "copy").size == 0
    assert verify(tmp_path / "copy").intact


def test_the_journal_is_not_shared_with_children(folder: Path) -> None:
    storage = PosixLogStorage(folder, create=True)
    assert not os.get_inheritable(storage._fd)
    assert not os.get_inheritable(storage._folder_fd)
    storage.close()
