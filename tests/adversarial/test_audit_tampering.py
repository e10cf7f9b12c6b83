"""Who can write the log's folder changes it in every way we know. Each change is found; an untouched log raises no alarm.

What is not found without help is a state that was valid once: see the tests of ``--earlier`` and ``--receipt`` in
tests/unit/audit/test_audit_verifier.py, and docs/log-format.md, "What this log does not show".
"""

import random
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from secure_embed.audit import AuditLog, PosixLogStorage, leaf_hash
from secure_embed.audit.merkle import CompactRange
from secure_embed.types import Receipt
from tests.audit_logs import SIGNER, STRANGER, Asked, call, extended_head, new_log, verify

SEEDS = range(14)
SIZE = 602  # two full bundles and a partial one


@dataclass(frozen=True)
class Logs:
    rest: Path  # at rest
    live: Path  # 302 entries published, the others in the journal
    last: Receipt  # the last entry of the live log


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Logs:
    folder = tmp_path_factory.mktemp("tampering")
    log = new_log(folder / "rest")
    for i in range(150):
        call(log, f"request-{i}")
    log.publish()
    for i in range(150, 300):
        last = call(log, f"request-{i}")
    shutil.copytree(folder / "rest", folder / "live")
    log.close()
    return Logs(folder / "rest", folder / "live", last)


def read_bundle(path: Path) -> list[bytes]:
    data, entries, at = path.read_bytes(), [], 0
    while at < len(data):
        (length,) = struct.unpack_from(">H", data, at)
        entries.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    return entries


def write_bundle(path: Path, entries: list[bytes]) -> None:
    path.write_bytes(b"".join(struct.pack(">H", len(entry)) + entry for entry in entries))


def bundle_paths(folder: Path) -> list[Path]:
    return [folder / "tile/entries/000", folder / "tile/entries/001", folder / "tile/entries/002.p/90"]


def tile_paths(folder: Path) -> list[Path]:
    return [folder / "tile/0/000", folder / "tile/0/001", folder / "tile/0/002.p/90", folder / "tile/1/000.p/2"]


def one_entry(folder: Path, chance: random.Random) -> tuple[Path, list[bytes], int, int]:
    """A bundle, its entries, a place in it, and the index of that place in the log."""
    number = chance.randrange(3)
    path = bundle_paths(folder)[number]
    entries = read_bundle(path)
    at = chance.randrange(len(entries))
    return path, entries, at, 256 * number + at


# --- changes to entries: the report names exactly these -------------------------------------------------------------


def flip_in_entry(folder: Path, chance: random.Random) -> set[int]:
    path, entries, at, index = one_entry(folder, chance)
    raw = bytearray(entries[at])
    raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    entries[at] = bytes(raw)
    write_bundle(path, entries)
    return {index}


def rewrite_entry(folder: Path, chance: random.Random) -> set[int]:
    path, entries, at, index = one_entry(folder, chance)
    entries[at] = entries[at].replace(b'"v":1', b'"v":1,"x":1')
    write_bundle(path, entries)
    return {index}


def drop_entry(folder: Path, chance: random.Random) -> set[int]:
    path, entries, at, index = one_entry(folder, chance)
    del entries[at]
    write_bundle(path, entries)
    return {index}


def insert_entry(folder: Path, chance: random.Random) -> set[int]:
    path, entries, at, index = one_entry(folder, chance)
    entries.insert(at, b'{"v":1}')
    write_bundle(path, entries)
    return {index}


def swap_entries(folder: Path, chance: random.Random) -> set[int]:
    path, entries, at, index = one_entry(folder, chance)
    other = (at + 1 + chance.randrange(len(entries) - 1)) % len(entries)
    entries[at], entries[other] = entries[other], entries[at]
    write_bundle(path, entries)
    return {index, index - at + other}


def copy_entry_over_another(folder: Path, chance: random.Random) -> set[int]:
    path, entries, at, index = one_entry(folder, chance)
    other = (at + 1 + chance.randrange(len(entries) - 1)) % len(entries)
    entries[at] = entries[other]
    write_bundle(path, entries)
    return {index}


EXACT = [flip_in_entry, rewrite_entry, drop_entry, insert_entry, swap_entries, copy_entry_over_another]


@pytest.mark.parametrize("change", EXACT, ids=lambda c: c.__name__)
def test_changed_entries_are_named_exactly(
    logs: Logs, tmp_path: Path, change: Callable[[Path, random.Random], set[int]]
) -> None:
    for seed in SEEDS:
        copy = tmp_path / str(seed)
        shutil.copytree(logs.rest, copy)
        wrong = change(copy, random.Random(f"{change.__name__} {seed}"))
        report = verify(copy)
        assert not report.intact, seed
        named = {finding.index for finding in report.findings if finding.where == "entry"}
        if change is swap_entries:  # what lies between two swapped neighbours may be described as what moved
            assert report.first_wrong_entry == min(wrong), (seed, report.as_text())
            assert named & wrong
        else:
            assert named == wrong, (seed, report.as_text())
        assert {finding.where for finding in report.findings} == {"entry"}


# --- changes to files: found, whatever they are ---------------------------------------------------------------------


def any_file(folder: Path, chance: random.Random) -> Path:
    return chance.choice([folder / "checkpoint", *bundle_paths(folder), *tile_paths(folder)])


def flip_in_file(folder: Path, chance: random.Random) -> None:
    path = any_file(folder, chance)
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def cut_file(folder: Path, chance: random.Random) -> None:
    path = any_file(folder, chance)
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])


def remove_file(folder: Path, chance: random.Random) -> None:
    any_file(folder, chance).unlink()


def append_to_file(folder: Path, chance: random.Random) -> None:
    with any_file(folder, chance).open("ab") as file:
        file.write(chance.randbytes(1 + chance.randrange(40)))


def swap_bundles(folder: Path, chance: random.Random) -> None:
    first, second, _ = bundle_paths(folder)
    tiles = tile_paths(folder)
    pairs = [(first, second)] + ([(tiles[0], tiles[1])] if chance.random() < 0.5 else [])
    for one, other in pairs:
        data = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(data)


def change_entry_and_its_tile(folder: Path, chance: random.Random) -> None:
    path, entries, at, index = one_entry(folder, chance)
    entries[at] = entries[at].replace(b'"v":1', b'"v":1,"x":1')
    write_bundle(path, entries)
    tile = tile_paths(folder)[index // 256]
    data = bytearray(tile.read_bytes())
    data[32 * at : 32 * at + 32] = leaf_hash(entries[at])
    tile.write_bytes(data)


def write_whole_log_again(folder: Path, chance: random.Random) -> None:
    """Everything made to fit the changed entry, except the signature, for which the key is needed."""
    entries = [entry for path in bundle_paths(folder) for entry in read_bundle(path)]
    at = chance.randrange(len(entries))
    entries[at] = entries[at].replace(b'"v":1', b'"v":1,"x":1')
    checkpoint = (folder / "checkpoint").read_bytes()
    forge(folder, entries)
    (folder / "checkpoint").write_bytes(checkpoint)


def sign_with_another_key(folder: Path, chance: random.Random) -> None:
    entries = [entry for path in bundle_paths(folder) for entry in read_bundle(path)]
    del entries[chance.randrange(len(entries))]
    forge(folder, entries)


def forge(folder: Path, entries: list[bytes]) -> None:
    shutil.rmtree(folder)
    storage = PosixLogStorage(folder, create=True)
    storage.commit(storage.head(), entries, extended_head(CompactRange(), entries, STRANGER))
    storage.close()


def change_size_in_checkpoint(folder: Path, chance: random.Random) -> None:
    path = folder / "checkpoint"
    size = chance.choice([0, 1, 601, 603, 10**6, 10**18])
    path.write_text(path.read_text().replace(f"\n{SIZE}\n", f"\n{size}\n"))


ANY = [
    *(flip_in_file, cut_file, remove_file, append_to_file, swap_bundles, change_entry_and_its_tile),
    *(write_whole_log_again, sign_with_another_key, change_size_in_checkpoint),
]


@pytest.mark.parametrize("change", ANY, ids=lambda c: c.__name__)
def test_every_change_is_found(logs: Logs, tmp_path: Path, change: Callable[[Path, random.Random], None]) -> None:
    for seed in SEEDS:
        copy = tmp_path / str(seed)
        shutil.copytree(logs.rest, copy)
        change(copy, random.Random(f"{change.__name__} {seed}"))
        assert not verify(copy).intact, seed


def test_an_entry_changed_with_its_tile_is_narrowed_down_to_its_bundle(logs: Logs, tmp_path: Path) -> None:
    copy = tmp_path / "log"
    shutil.copytree(logs.rest, copy)
    path = bundle_paths(copy)[1]
    entries = read_bundle(path)
    entries[44] = entries[44].replace(b'"v":1', b'"v":1,"x":1')
    write_bundle(path, entries)
    tile = bytearray(tile_paths(copy)[1].read_bytes())
    tile[32 * 44 : 32 * 45] = leaf_hash(entries[44])
    tile_paths(copy)[1].write_bytes(tile)
    places = [(f.where, f.index, f.last) for f in verify(copy).findings]
    assert places == [("checkpoint", None, None), ("entry", 256, 511)]


def test_a_changed_tile_does_not_blame_the_entries(logs: Logs, tmp_path: Path) -> None:
    for number, path in enumerate(tile_paths(tmp_path / "x")):
        copy = tmp_path / str(number)
        shutil.copytree(logs.rest, copy)
        tile = copy / path.relative_to(tmp_path / "x")
        data = bytearray(tile.read_bytes())
        data[40] ^= 1
        tile.write_bytes(data)
        (finding,) = verify(copy).findings
        assert (finding.where, str(tile.relative_to(copy)) in finding.what) == ("tile", True)
        assert "wrong hashes at 1" in finding.what


# --- the journal -----------------------------------------------------------------------------------------------------


def flip_in_journal(journal: bytearray, chance: random.Random) -> bytearray:
    journal[chance.randrange(len(journal))] ^= 1 << chance.randrange(8)
    return journal


def cut_in_journal(journal: bytearray, chance: random.Random) -> bytearray:
    at = chance.randrange(len(journal) - 1)
    del journal[at : at + 1 + chance.randrange(min(2_000, len(journal) - at - 1))]
    return journal


def insert_in_journal(journal: bytearray, chance: random.Random) -> bytearray:
    at = chance.randrange(len(journal))
    journal[at:at] = chance.randbytes(1 + chance.randrange(50))
    return journal


def drop_a_commit(journal: bytearray, chance: random.Random) -> bytearray:
    commits = bytes(journal).split(b"\xffSEJ")[1:]
    del commits[chance.randrange(len(commits))]
    return bytearray(b"".join(b"\xffSEJ" + commit for commit in commits))


def swap_commits(journal: bytearray, chance: random.Random) -> bytearray:
    commits = bytes(journal).split(b"\xffSEJ")[1:]
    at = chance.randrange(len(commits) - 1)
    commits[at], commits[at + 1] = commits[at + 1], commits[at]
    return bytearray(b"".join(b"\xffSEJ" + commit for commit in commits))


def empty_the_journal(_journal: bytearray, _chance: random.Random) -> bytearray:
    return bytearray()


JOURNAL = [flip_in_journal, cut_in_journal, insert_in_journal, drop_a_commit, swap_commits, empty_the_journal]


@pytest.mark.parametrize("change", JOURNAL, ids=lambda c: c.__name__)
def test_every_change_of_the_journal_is_found(
    logs: Logs, tmp_path: Path, change: Callable[[bytearray, random.Random], bytearray]
) -> None:
    """With the receipt of the last entry: a journal whose end is cut off is an older state, and valid."""
    for seed in SEEDS:
        copy = tmp_path / str(seed)
        shutil.copytree(logs.live, copy)
        journal = bytearray((copy / "journal").read_bytes())
        (copy / "journal").write_bytes(change(journal, random.Random(f"{change.__name__} {seed}")))
        assert not verify(copy, Asked(receipts=(logs.last,))).intact, seed


def test_a_changed_entry_in_the_journal_is_named(logs: Logs, tmp_path: Path) -> None:
    copy = tmp_path / "log"
    shutil.copytree(logs.live, copy)
    journal = (copy / "journal").read_bytes()
    (copy / "journal").write_bytes(journal.replace(b'"request":"request-200"', b'"request":"request-201"', 1))
    report = verify(copy)
    assert [(f.where, f.index) for f in report.findings] == [("entry", 1 + 2 * 200)]


# --- no false alarm --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("calls", [0, 1, 2, 126, 127, 128, 129, 255])
def test_untouched_logs_raise_no_alarm(tmp_path: Path, calls: int) -> None:
    log = new_log(tmp_path / "log")
    receipts = []
    for i in range(calls):
        receipts.append(call(log, f"r{i}"))
        if i % 50 == 20:
            log.publish()
            shutil.copytree(tmp_path / "log", tmp_path / f"at{i}")
            assert verify(tmp_path / f"at{i}", Asked(receipts=tuple(receipts))).intact
    shutil.copytree(tmp_path / "log", tmp_path / "live")
    assert verify(tmp_path / "live", Asked(receipts=tuple(receipts))).intact
    log.close()
    report = verify(tmp_path / "log", Asked(receipts=tuple(receipts)))
    assert report.intact, report.as_text()
    assert report.notes == []
    AuditLog(PosixLogStorage(tmp_path / "live"), SIGNER).close()
    assert verify(tmp_path / "live", Asked(receipts=tuple(receipts))).intact
