"""The log as the rest of the service sees it: tickets, receipts, proofs, what happens when it cannot be written."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from secure_embed.audit import (
    AuditEvent,
    AuditLog,
    Phase,
    PosixLogStorage,
    leaf_hash,
    sign_note,
    verify_consistency,
    verify_inclusion,
)
from secure_embed.audit import log as log_module
from secure_embed.audit import posix as posix_module
from secure_embed.errors import AuditUnavailable, IntegrityFailure, NotFound, SecureEmbedError
from secure_embed.types import Action
from tests.audit_logs import SIGNER, STRANGER, Asked, call, intent, new_log, outcome, verify


def events(log: AuditLog) -> list[dict[str, object]]:
    return [json.loads(entry) for entry in log.entries(0, log.head().size)]


def test_a_receipt_names_the_entry_that_was_written(log: AuditLog) -> None:
    receipt = call(log, "r1")
    (entry,) = log.entries(receipt.index, 1)
    assert receipt.leaf_hash == leaf_hash(entry).hex()
    assert receipt.origin == SIGNER.name
    assert (json.loads(entry)["request"], json.loads(entry)["phase"]) == ("r1", "OUTCOME")


def test_a_ticket_exists_only_once_its_intent_is_durable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = new_log(folder)
    reached, go = Event(), Event()
    sync = os.fdatasync

    def slow(fd: int) -> None:
        reached.set()
        assert go.wait(10)
        sync(fd)

    monkeypatch.setattr(posix_module.os, "fdatasync", slow)
    event = AuditEvent(phase=Phase.INTENT, action=Action.QUERY, request="r")
    ticket = log.submit_intent(event, action=Action.QUERY, openings_max=5, lifetime_s=60)
    assert reached.wait(10)
    assert not ticket.done()
    go.set()
    minted = log.wait(ticket)
    minted.require(Action.QUERY, openings=5)
    assert log.head().size == minted.intent_index + 1
    log.close()


def test_a_ticket_covers_what_was_asked_and_ends(log: AuditLog) -> None:
    ticket = intent(log, "r")
    for action, openings in ((Action.RECORD_ERASE, 0), (Action.QUERY, 6)):
        with pytest.raises(SecureEmbedError):
            ticket.require(action, openings=openings)
    event = AuditEvent(phase=Phase.INTENT, action=Action.QUERY, request="r2")
    spent = log.wait(log.submit_intent(event, action=Action.QUERY, openings_max=5, lifetime_s=0))
    with pytest.raises(SecureEmbedError):
        spent.require(Action.QUERY)


def wrong_outcomes() -> dict[str, Callable[[int], dict[str, object]]]:
    return {
        "of no intent": lambda at: {"intent": at + 1_000},
        "of the log's start": lambda _: {"intent": 0},
        "of another request": lambda at: {"intent": at, "request": "other"},
        "of another action": lambda at: {"intent": at, "action": Action.RECORD_READ},
    }


@pytest.mark.parametrize("wrong", wrong_outcomes().values(), ids=wrong_outcomes().keys())
def test_an_outcome_ends_its_own_intent(log: AuditLog, wrong: Callable[[int], dict[str, object]]) -> None:
    ticket = intent(log, "r")
    members: dict[str, object] = {"phase": Phase.OUTCOME, "action": Action.QUERY, "request": "r", "decision": "allowed"}
    with pytest.raises(SecureEmbedError) as refused:
        log.outcome(AuditEvent(**(members | wrong(ticket.intent_index))))  # type: ignore[arg-type]  # named cases
    assert refused.value.code == "audit_event_invalid"
    outcome(log, "r", ticket)
    with pytest.raises(SecureEmbedError):  # once
        outcome(log, "r", ticket)


def test_an_event_goes_where_its_phase_belongs(log: AuditLog) -> None:
    system = AuditEvent(phase=Phase.SYSTEM, action="keys.rotate")
    started = AuditEvent(phase=Phase.INTENT, action=Action.QUERY)
    for refused in (
        lambda: log.outcome(system),
        lambda: log.system(started),
        lambda: log.submit_intent(started, action=Action.RECORD_READ, openings_max=1, lifetime_s=1),
        lambda: log.submit_intent(system, action=Action.QUERY, openings_max=1, lifetime_s=1),
    ):
        with pytest.raises(SecureEmbedError):
            refused()


def test_a_refusal_before_any_intent_is_logged(log: AuditLog) -> None:
    event = AuditEvent(phase=Phase.OUTCOME, action=Action.QUERY, decision="refused", error="invalid_token")
    receipt = log.outcome(event)
    assert json.loads(log.entries(receipt.index, 1)[0])["error"] == "invalid_token"


def test_proofs_hold_at_every_size(log: AuditLog) -> None:
    heads = [log.head()]
    for i in range(20):
        call(log, f"r{i}")
        heads.append(log.head())
    log.publish()
    for head in heads:
        for index in range(head.size):
            leaf = leaf_hash(log.entries(index, 1)[0])
            proof = log.inclusion_proof(index, head.size)
            verify_inclusion(leaf=leaf, index=index, size=head.size, proof=proof, root=head.root)
    new = heads[-1]
    for old in heads:
        proof = log.consistency_proof(old.size, new.size)
        verify_consistency(old_size=old.size, old_root=old.root, size=new.size, root=new.root, proof=proof)
    for wrong in (lambda: log.inclusion_proof(new.size, new.size), lambda: log.consistency_proof(0, 1)):
        with pytest.raises(NotFound):
            wrong()


def test_tiles_and_bundles_of_any_width_are_served(log: AuditLog) -> None:
    for i in range(150):
        call(log, f"r{i}")
    hashes = b"".join(leaf_hash(entry) for entry in log.entries(0, 301))
    assert log.tile(0, 0) == hashes[: 256 * 32]
    assert log.tile(0, 0, 17) == hashes[: 17 * 32]
    assert log.tile(0, 1, 45) == hashes[256 * 32 :]
    assert len(log.tile(1, 0, 1)) == 32
    assert log.bundle(1, 1)[2:] == log.entries(256, 1)[0]
    for level, index, width in ((0, 1, 46), (0, 2, 1), (1, 0, 2), (1, 0, 256), (64, 0, 1), (0, 0, 0), (-1, 0, 1)):
        with pytest.raises(NotFound):
            log.tile(level, index, width)
    with pytest.raises(NotFound):
        log.bundle(1, 46)


def test_many_threads_share_commits_and_lose_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = []
    sync = os.fdatasync
    monkeypatch.setattr(posix_module.os, "fdatasync", lambda fd: (commits.append(fd), sync(fd))[1])
    log = new_log(folder)
    with ThreadPoolExecutor(16) as pool:
        receipts = list(pool.map(lambda i: call(log, f"r{i}"), range(400)))
    assert len({receipt.index for receipt in receipts}) == 400
    for receipt in receipts:
        assert leaf_hash(log.entries(receipt.index, 1)[0]).hex() == receipt.leaf_hash
    assert len(commits) < log.head().size
    log.verify_self()
    log.close()
    report = verify(folder, Asked(receipts=tuple(receipts)))
    assert report.intact, report.as_text()
    assert report.events == {"SYSTEM": 2, "INTENT": 400, "OUTCOME": 400}


def test_time_and_uid_follow_the_order_of_the_log(folder: Path) -> None:
    times = iter(range(1_700_000_000_000, 1_800_000_000_000, 1_500))
    log = AuditLog(PosixLogStorage(folder, create=True), SIGNER, clock=lambda: next(times))
    for i in range(10):
        call(log, f"r{i}")
    found = events(log)
    log.close()
    assert found[0]["time"] == "2023-11-14T22:13:20.000Z"
    assert found[1]["time"] == "2023-11-14T22:13:21.500Z"
    uids = [event["uid"] for event in found]
    assert uids == sorted(uids, key=str)
    assert len(set(map(str, uids))) == len(uids)


def test_what_a_crash_cut_off_is_named(folder: Path) -> None:
    log = new_log(folder)
    call(log, "done")
    cut_off = [intent(log, f"cut{i}").intent_index for i in range(3)]
    call(log, "done2")
    crashed = folder.with_name("crashed")
    shutil.copytree(folder, crashed)
    log.close()
    stop = json.loads(last_entry(folder))
    assert (stop["action"], stop["orphans"]) == ("log.stop", cut_off)
    again = AuditLog(PosixLogStorage(crashed), SIGNER)
    recovery, start = events(again)[-2:]
    assert (recovery["action"], recovery["orphans"]) == ("log.recovery", cut_off)
    assert start["action"] == "log.start"
    again.close()
    report = verify(crashed)
    assert report.intact
    assert "3 INTENTs named by the service as cut off" in report.notes


def last_entry(folder: Path) -> bytes:
    storage = PosixLogStorage(folder)
    (entry,) = storage.entries(storage.head().size - 1, 1)
    storage.close()
    return entry


def test_a_clean_restart_names_nothing(folder: Path) -> None:
    log = new_log(folder)
    call(log, "r")
    log.close()
    again = AuditLog(PosixLogStorage(folder), SIGNER)
    assert [event["action"] for event in events(again)][-2:] == ["log.stop", "log.start"]
    again.close()


@pytest.mark.parametrize(
    ("fault", "number"), [("write", errno.EIO), ("fdatasync", errno.EIO), ("fdatasync", errno.ENOSPC)]
)
def test_after_a_fault_everything_is_refused_until_a_restart(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fault: str, number: int
) -> None:
    log = new_log(folder)
    kept = call(log, "kept")
    ticket = intent(log, "open")

    def fail(*_: object) -> int:
        raise OSError(number, "a fault")

    monkeypatch.setattr(posix_module.os, fault, fail)
    with pytest.raises(AuditUnavailable):
        outcome(log, "open", ticket)
    monkeypatch.undo()  # the medium has recovered: too late, what it holds is unknown
    event = AuditEvent(phase=Phase.INTENT, action=Action.QUERY, request="r")
    for refused in (
        lambda: log.submit_intent(event, action=Action.QUERY, openings_max=1, lifetime_s=1),
        lambda: log.outcome(AuditEvent(phase=Phase.OUTCOME, action=Action.QUERY, decision="failed", error="x")),
        lambda: log.system(AuditEvent(phase=Phase.SYSTEM, action="keys.rotate")),
        log.head,
        log.checkpoint,
        log.publish,
        log.verify_self,
        log.require_available,
        lambda: log.entries(0, 1),
        lambda: log.tile(0, 0, 1),
        lambda: log.inclusion_proof(0, 1),
        lambda: log.export(folder.with_name("export")),
    ):
        with pytest.raises(AuditUnavailable):
            refused()
    log.close()
    again = AuditLog(PosixLogStorage(folder), SIGNER)
    assert leaf_hash(again.entries(kept.index, 1)[0]).hex() == kept.leaf_hash
    again.close()
    assert verify(folder, Asked(receipts=(kept,))).intact


@pytest.mark.parametrize("how", ["remove", "replace", "cut", "append"])
def test_a_journal_that_someone_touched_is_not_written_to(folder: Path, how: str) -> None:
    log = new_log(folder)
    call(log, "kept")
    journal = folder / "journal"
    if how == "remove":
        journal.unlink()
    elif how == "replace":
        journal.rename(folder / "elsewhere")
        shutil.copy(folder / "elsewhere", journal)
    elif how == "cut":
        os.truncate(journal, journal.stat().st_size - 1)
    else:
        with journal.open("ab") as file:
            file.write(b"x")
    with pytest.raises(AuditUnavailable):
        call(log, "lost")
    log.close()


def test_a_fault_while_publishing_ends_the_log(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = new_log(folder)
    receipt = call(log, "r")

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(posix_module.StaticFiles, "sync", fail)
    with pytest.raises(AuditUnavailable):
        log.publish()
    monkeypatch.undo()
    with pytest.raises(AuditUnavailable):
        call(log, "r2")
    log.close()
    AuditLog(PosixLogStorage(folder), SIGNER).close()
    assert verify(folder, Asked(receipts=(receipt,))).intact


def test_a_medium_that_hangs_counts_as_one_that_cannot_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = new_log(folder)
    go = Event()
    monkeypatch.setattr(log_module, "commit_wait_s", 0.05)
    monkeypatch.setattr(posix_module.os, "fdatasync", lambda _: go.wait(10))
    with pytest.raises(AuditUnavailable):
        log.system(AuditEvent(phase=Phase.SYSTEM, action="keys.rotate"))
    with pytest.raises(AuditUnavailable):
        log.head()
    go.set()
    log.close()


def test_waiting_callers_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from secure_embed.audit import writer as writer_module

    log = new_log(folder)
    reached, go = Event(), Event()
    monkeypatch.setattr(writer_module, "waiting_max", 3)
    sync = os.fdatasync
    monkeypatch.setattr(posix_module.os, "fdatasync", lambda fd: (reached.set(), go.wait(10), sync(fd))[2])
    event = AuditEvent(phase=Phase.INTENT, action=Action.QUERY, request="r")

    def submit() -> object:
        return log.submit_intent(event, action=Action.QUERY, openings_max=1, lifetime_s=1)

    futures = [submit()]
    assert reached.wait(10)
    futures += [submit() for _ in range(3)]
    with pytest.raises(AuditUnavailable):
        submit()
    go.set()
    assert len({log.wait(future).intent_index for future in futures}) == 4  # type: ignore[arg-type, attr-defined]  # object above
    log.close()


def test_another_key_does_not_open_the_log(folder: Path) -> None:
    new_log(folder).close()
    with pytest.raises(IntegrityFailure):
        AuditLog(PosixLogStorage(folder), STRANGER)


def test_verify_self_names_the_entry(folder: Path) -> None:
    log = new_log(folder)
    for i in range(150):
        call(log, f"r{i}")
    log.publish()
    bundle = folder / "tile/entries/000"
    data = bytearray(bundle.read_bytes())
    at = data.find(b'"request":"r70"')
    data[at + 12] ^= 1
    bundle.write_bytes(data)
    with pytest.raises(IntegrityFailure) as found:
        log.verify_self()
    index = found.value.members["index"]
    assert isinstance(index, int)
    assert b'"request":"r70"' not in log.entries(index, 1)[0]
    assert index in {1 + 2 * 70, 2 + 2 * 70}
    log.close()


def test_a_statement_is_not_a_checkpoint(log: AuditLog) -> None:
    receipt = call(log, "r")
    body = f'{{"log_index":{receipt.index},"log_leaf_hash":"{receipt.leaf_hash}"}}\n'
    for text in ("", "\n", "no newline", "tab\there\n"):
        with pytest.raises(IntegrityFailure):
            sign_note(SIGNER, kind="erasure-receipt", text=text)
    for kind in ("", "Bad", "a/b", "../x"):
        with pytest.raises(SecureEmbedError):
            sign_note(SIGNER, kind=kind, text=body)
    assert sign_note(SIGNER, kind="erasure-receipt", text=body).startswith(f"{SIGNER.name}/erasure-receipt/v1\n")
