"""What others remember of the log, compared with it: its root at any size, and what was logged since."""

import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from secure_embed.audit import AuditLog, PosixLogStorage, leaf_hash, open_view, require_root
from secure_embed.audit.merkle import CompactRange
from secure_embed.errors import IntegrityFailure, NotFound
from tests.audit_logs import SIGNER, call, extended_head, new_log


def test_the_root_at_every_size(log: AuditLog) -> None:
    for i in range(140):
        call(log, f"r{i}")
    grown = CompactRange()
    for index, entry in enumerate(log.entries(0, log.head().size)):
        assert log.root_at(index) == grown.root()
        log.require_head(index, grown.root())
        grown.append(leaf_hash(entry))
    assert log.root_at(log.head().size) == log.head().root == grown.root()


@pytest.mark.parametrize("size", [-1, 4])
def test_no_root_at_a_size_that_never_was(log: AuditLog, size: int) -> None:
    call(log, "r")
    for read in (log.root_at, log.events_since):
        with pytest.raises(NotFound) as refused:
            read(size)
        assert refused.value.code == "size_not_found"


def rolled_back() -> dict[str, Callable[[Path, Path], None]]:
    def older(folder: Path, before: Path) -> None:
        shutil.rmtree(folder)
        shutil.copytree(before, folder)

    def older_and_gone_on(folder: Path, before: Path) -> None:
        older(folder, before)
        log = AuditLog(PosixLogStorage(folder), SIGNER)
        for i in range(50):
            call(log, f"other{i}")
        log.close()

    def begun_anew(folder: Path, _: Path) -> None:
        shutil.rmtree(folder)
        new_log(folder).close()

    return {"older": older, "older, gone on": older_and_gone_on, "begun anew": begun_anew}


@pytest.mark.parametrize("change", rolled_back().values(), ids=rolled_back().keys())
def test_a_log_put_back_behind_what_was_seen_is_noticed(folder: Path, change: Callable[[Path, Path], None]) -> None:
    log = new_log(folder)
    call(log, "a")
    log.close()
    before = folder.with_name("before")
    shutil.copytree(folder, before)
    log = AuditLog(PosixLogStorage(folder), SIGNER)
    call(log, "b")
    seen = log.head()
    log.close()
    require_root(open_view(folder).tree, seen.size, seen.root)  # before anything is written
    change(folder, before)
    with pytest.raises(IntegrityFailure) as refused:
        require_root(open_view(folder).tree, seen.size, seen.root)
    assert refused.value.code == "log_rolled_back"
    log = AuditLog(PosixLogStorage(folder), SIGNER)
    with pytest.raises(IntegrityFailure) as refused:
        log.require_head(seen.size, seen.root)
    assert refused.value.code == "log_rolled_back"
    log.close()


def test_what_was_logged_since(log: AuditLog) -> None:
    for i in range(130):
        call(log, f"r{i}")
    seen = log.head().size
    log.publish()
    for i in range(130):
        call(log, f"s{i}")
    found = list(log.events_since(seen))
    assert [index for index, _ in found] == list(range(seen, log.head().size))
    assert [event["request"] for _, event in found] == [f"s{i}" for i in range(130) for _ in range(2)]
    assert list(log.events_since(log.head().size)) == []


def test_what_was_logged_since_is_compared_with_its_hashes(folder: Path) -> None:
    log = new_log(folder)
    for i in range(150):
        call(log, f"r{i}")
    log.publish()
    bundle = folder / "tile/entries/000"
    bundle.write_bytes(bundle.read_bytes().replace(b'"request":"r70"', b'"request":"r71"', 1))
    with pytest.raises(IntegrityFailure) as found:
        list(log.events_since(0))
    assert found.value.members["index"] == 1 + 2 * 70
    log.close()


def test_reading_what_was_logged_since_holds_one_bundle_at_a_time(folder: Path) -> None:
    storage = PosixLogStorage(folder, create=True)
    grown = CompactRange()
    entry = b'{"action":"a","phase":"SYSTEM","x":"' + b"x" * 3_000 + b'"}'
    for _ in range(8):
        entries = [entry] * 1_024
        storage.commit(storage.head(), entries, extended_head(grown, entries))
        storage.settle()
    storage.close()
    log = AuditLog(PosixLogStorage(folder), SIGNER)
    tracemalloc.start()
    assert sum(1 for _ in log.events_since(0)) > 8_192
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    log.close()
    assert peak < 6_000_000 < 8 * 1_024 * len(entry)
