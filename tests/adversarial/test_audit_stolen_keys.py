"""Who holds one of the log's signing keys and can write its folder: how far that goes, key by key.

Forged logs are written whole, with every tile fitting, and signed with what the thief has. Single hand-overs that do not
hold: tests/vectors/log-keys.json.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from secure_embed.audit import AuditLog, HandOver, NoteSigner, PosixLogStorage, open_view, verify_folder
from secure_embed.audit.merkle import CompactRange, leaf_hash
from secure_embed.errors import IntegrityFailure
from secure_embed.types import Receipt
from tests.audit_logs import ORIGIN, SIGNER, STRANGER, Asked, call, extended_head, new_log, verify

SECOND = NoteSigner(ORIGIN, bytes(32))


@dataclass(frozen=True)
class Made:
    folder: Path
    entries: list[bytes]
    at: int  # of the hand-over from SIGNER to SECOND
    last: Receipt


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("stolen") / "log"
    log = new_log(folder)
    for i in range(20):
        call(log, f"r{i}")
    at = log.rotate(SECOND).index
    for i in range(20):
        last = call(log, f"s{i}")
    log.close()
    view = open_view(folder)
    return Made(folder, list(view.entries(0, view.head().size)), at, last)


def written(folder: Path, entries: list[bytes], signer: NoteSigner) -> Path:
    """A log at rest of these entries, signed by this key alone."""
    storage = PosixLogStorage(folder, create=True)
    storage.commit(storage.head(), entries, extended_head(CompactRange(), entries, signer))
    storage.close()
    return folder


def handover(made: Made, entries: list[bytes], by: NoteSigner, to: NoteSigner) -> bytes:
    """The log's own hand-over entry, with a note made for these entries."""
    grown = CompactRange()
    for entry in entries:
        grown.append(leaf_hash(entry))
    event = json.loads(made.entries[made.at])
    event["handover"] = HandOver.sign(by, to.verifier, size=grown.size, root=grown.root())
    return json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def changed_before(made: Made) -> list[bytes]:
    entries = list(made.entries)
    entries[3] = entries[3].replace(b'"request":"r1"', b'"request":"r7"')
    assert entries[3] != made.entries[3]
    return entries


def with_the_new_key() -> dict[str, Callable[[Made], list[bytes]]]:
    """SECOND is stolen: the past under SIGNER cannot be changed, nor can the hand-over."""

    def change_the_past(m: Made) -> list[bytes]:
        return changed_before(m)

    def change_the_past_and_hand_over_to_itself(m: Made) -> list[bytes]:
        entries = changed_before(m)
        entries[m.at] = handover(m, entries[: m.at], SECOND, SECOND)
        return entries

    def forge_the_hand_over(m: Made) -> list[bytes]:
        before = changed_before(m)[: m.at]
        grown = CompactRange()
        for entry in before:
            grown.append(leaf_hash(entry))
        real = HandOver.sign(SIGNER, SECOND.verifier, size=grown.size, root=grown.root())
        forged = SECOND.sign(real.split("\n\n")[0] + "\n")  # says what SIGNER would say, signed by the new key
        event = json.loads(m.entries[m.at]) | {"handover": forged}
        return [*before, json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()]

    def move_the_hand_over_to_the_front(m: Made) -> list[bytes]:
        return [m.entries[m.at], *m.entries[: m.at]]

    def drop_the_hand_over(m: Made) -> list[bytes]:
        return [*m.entries[: m.at], *m.entries[m.at + 1 :]]

    def drop_an_entry_before_it(m: Made) -> list[bytes]:
        return [*m.entries[:5], *m.entries[6:]]

    def add_an_entry_before_it(m: Made) -> list[bytes]:
        return [*m.entries[: m.at], m.entries[0], *m.entries[m.at :]]

    return {
        f.__name__: f
        for f in (
            change_the_past,
            change_the_past_and_hand_over_to_itself,
            forge_the_hand_over,
            move_the_hand_over_to_the_front,
            drop_the_hand_over,
            drop_an_entry_before_it,
            add_an_entry_before_it,
        )
    }


@pytest.mark.parametrize("forge", with_the_new_key().values(), ids=with_the_new_key().keys())
def test_the_new_key_alone_changes_nothing_before_the_hand_over(
    made: Made, tmp_path: Path, forge: Callable[[Made], list[bytes]]
) -> None:
    folder = written(tmp_path / "log", forge(made), SECOND)
    report = verify(folder)
    assert not report.intact
    assert {finding.where for finding in report.findings} <= {"entry", "checkpoint"}
    with pytest.raises(IntegrityFailure):
        verify_folder(folder, [SIGNER.verifier])


def test_a_thief_of_the_new_key_can_rewrite_its_own_time_only_unless_someone_holds_more(
    made: Made, tmp_path: Path
) -> None:
    """The limit that docs/log-format.md states: that is what a signing key can do. A receipt notices it."""
    entries = list(made.entries)
    entries[made.at + 1] = entries[made.at + 1].replace(b'"request":"s0"', b'"request":"s9"')
    entries[made.at + 2] = entries[made.at + 2].replace(b'"request":"s0"', b'"request":"s9"')
    folder = written(tmp_path / "log", entries, SECOND)
    assert verify(folder).intact
    at = made.at + 2
    held = Receipt(origin=ORIGIN, index=at, leaf_hash=leaf_hash(made.entries[at]).hex())
    assert not verify(folder, Asked(receipts=(held,))).intact


def test_the_old_key_cannot_go_on_behind_the_hand_over(made: Made, tmp_path: Path) -> None:
    folder = written(tmp_path / "log", made.entries, SIGNER)
    assert [finding.where for finding in verify(folder).findings] == ["checkpoint"]
    with pytest.raises(IntegrityFailure):
        verify_folder(folder, [SIGNER.verifier])
    with pytest.raises(IntegrityFailure) as refused:
        AuditLog(PosixLogStorage(folder), SIGNER)
    assert refused.value.code == "log_key_mismatch"


def test_the_old_key_can_write_another_end_that_who_knows_the_new_key_notices(made: Made, tmp_path: Path) -> None:
    """A rollback to before the hand-over, gone on with the stolen key: valid in itself, as the format's text says."""
    entries = [*made.entries[: made.at], handover(made, made.entries[: made.at], SIGNER, STRANGER)]
    folder = written(tmp_path / "log", entries, STRANGER)
    assert verify(folder).intact
    report = verify(folder, vkeys=[SIGNER.vkey, SECOND.vkey])
    assert not report.intact
    assert [f.index for f in report.findings if f.where == "entry"] == [made.at]
    cut = written(tmp_path / "cut", made.entries[: made.at], SIGNER)
    assert verify(cut).intact
    assert [f.where for f in verify(cut, vkeys=[SIGNER.vkey, SECOND.vkey]).findings] == ["key"]
    assert not verify(cut, Asked(receipts=(made.last,))).intact
    with pytest.raises(IntegrityFailure):
        AuditLog(PosixLogStorage(cut), SECOND)


def test_a_changed_hand_over_in_the_folder_is_named(made: Made, tmp_path: Path) -> None:
    copy = tmp_path / "log"
    shutil.copytree(made.folder, copy)
    (bundle,) = (copy / "tile/entries").rglob("*.p/*")
    data = bundle.read_bytes().replace(SECOND.vkey.encode(), STRANGER.vkey.encode())
    assert data != bundle.read_bytes()
    bundle.write_bytes(data)
    report = verify(copy)
    assert report.first_wrong_entry == made.at
    assert not report.intact


def test_a_changed_tile_leaves_the_hand_over_in_force(made: Made, tmp_path: Path) -> None:
    """The hand-over proves itself; the tile's damage is all that is named."""
    copy = tmp_path / "log"
    shutil.copytree(made.folder, copy)
    (tile,) = (copy / "tile/0").rglob("*.p/*")
    data = bytearray(tile.read_bytes())
    data[32 * made.at] ^= 1
    tile.write_bytes(data)
    assert [finding.where for finding in verify(copy).findings] == ["tile"]
