"""The log's signing key is replaced while the log is written: who may sign what, before, at and after the hand-over."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from audit.verify.cli import main
from secure_embed.audit import (
    AuditEvent,
    AuditLog,
    Checkpoint,
    NoteSigner,
    Phase,
    PosixLogStorage,
    end_key,
    parse_verifiers,
    verify_folder,
    verify_note,
)
from secure_embed.errors import ConfigurationError, Conflict, IntegrityFailure, SecureEmbedError
from secure_embed.types import Receipt
from tests.audit_logs import ORIGIN, SIGNER, STRANGER, Asked, call, intent, new_log, outcome, verify

SECOND, THIRD = (NoteSigner(ORIGIN, bytes([n]) * 32) for n in (2, 3))


def reopen(folder: Path, signer: NoteSigner) -> AuditLog:
    return AuditLog(PosixLogStorage(folder), signer)


def refused_code(folder: Path, signer: NoteSigner) -> str:
    with pytest.raises(IntegrityFailure) as refused:
        reopen(folder, signer)
    return refused.value.code


def rotated(folder: Path) -> list[Receipt]:
    """Two hand-overs with calls around them, partly published. The receipts of the calls."""
    log = new_log(folder)
    receipts = [call(log, f"a{i}") for i in range(130)]
    log.rotate(SECOND)
    receipts += [call(log, f"b{i}") for i in range(3)]
    log.publish()
    receipts += [call(log, f"c{i}") for i in range(130)]
    log.rotate(THIRD)
    receipts.append(call(log, "d"))
    log.close()
    return receipts


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Receipt]]:
    folder = tmp_path_factory.mktemp("rotation") / "log"
    return folder, rotated(folder)


def test_with_the_first_key_alone_every_key_is_found(made: tuple[Path, list[Receipt]]) -> None:
    folder, receipts = made
    report = verify(folder, Asked(receipts=tuple(receipts)))
    assert report.intact, report.as_text()
    ends = [261, 261 + 1 + 6 + 260, report.size]
    first, second, third = report.keys
    assert first == (SIGNER.vkey, 0, ends[0])
    assert second == (SECOND.vkey, ends[0], ends[1])
    assert third == (THIRD.vkey, ends[1], ends[2])
    ours = verify_folder(folder, [SIGNER.verifier])
    assert [(str(s.verifier), s.first) for s in ours.keys] == [(key, start) for key, start, _ in report.keys]


def test_every_receipt_and_entry_survives_the_hand_over(made: tuple[Path, list[Receipt]]) -> None:
    """Nothing but log.key entries is new between calls: the hand-over loses none and repeats none."""
    indexes = [receipt.index for receipt in made[1]]
    assert {b - a for a, b in pairwise(indexes)} == {2, 3}
    assert sum(b - a == 3 for a, b in pairwise(indexes)) == 2


@pytest.mark.parametrize(
    ("known", "intact"),
    [
        ([SIGNER, SECOND, THIRD], True),
        ([SIGNER, SECOND], True),
        ([SIGNER, THIRD], False),
        ([SECOND], False),
        ([SIGNER, SECOND, THIRD, STRANGER], False),
    ],
    ids=["all", "two", "one left out", "without the first", "one more"],
)
def test_several_known_keys(
    made: tuple[Path, list[Receipt]], tmp_path: Path, known: list[NoteSigner], intact: bool
) -> None:
    text = "".join(f"{signer.vkey}\n" for signer in known)
    (tmp_path / "keys").write_text(text)
    assert main([str(made[0]), "--key", str(tmp_path / "keys")]) == (0 if intact else 1)
    if intact:
        verify_folder(made[0], parse_verifiers(text))
    else:
        with pytest.raises(IntegrityFailure):
            verify_folder(made[0], parse_verifiers(text))


@pytest.mark.parametrize("text", ["", "\n", "x\n", f"{SIGNER.vkey}\n{SIGNER.vkey}\n"])
def test_a_file_of_keys_that_is_none(made: tuple[Path, list[Receipt]], tmp_path: Path, text: str) -> None:
    (tmp_path / "keys").write_text(text)
    assert main([str(made[0]), "--key", str(tmp_path / "keys")]) == 2
    with pytest.raises(ConfigurationError):
        parse_verifiers(text)


def test_the_commit_of_a_hand_over_is_signed_by_both_and_the_next_by_the_new_key(log: AuditLog) -> None:
    log.rotate(SECOND)
    for signer in (SIGNER, SECOND):
        assert Checkpoint.verified(log.checkpoint(), signer.verifier).size == log.head().size
    call(log, "r")
    Checkpoint.verified(log.checkpoint(), SECOND.verifier)
    with pytest.raises(IntegrityFailure):
        Checkpoint.verified(log.checkpoint(), SIGNER.verifier)
    assert log.newest_key() == SECOND.verifier
    assert [(span.verifier, span.first, span.end) for span in log.key_spans()] == [
        (SIGNER.verifier, 0, 1),
        (SECOND.verifier, 1, None),
    ]
    log.verify_self()


def test_the_receipt_names_the_hand_over(log: AuditLog) -> None:
    receipt = log.rotate(SECOND)
    event = json.loads(log.entries(receipt.index, 1)[0])
    assert (event["phase"], event["action"]) == ("SYSTEM", "log.key")
    said = verify_note(SIGNER.verifier, event["handover"], kind="log-key").splitlines()
    assert said[0] == str(receipt.index)
    assert said[2:] == [SIGNER.vkey, SECOND.vkey]


@pytest.mark.parametrize("at", [1, 255, 256, 257, 512])
def test_a_hand_over_stands_anywhere_in_a_bundle(folder: Path, at: int) -> None:
    log = new_log(folder)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: log.system(AuditEvent(phase=Phase.SYSTEM, action="a")), range(at - 1)))
    assert log.rotate(SECOND).index == at
    call(log, "r")
    log.close()
    report = verify(folder)
    assert report.intact, report.as_text()
    assert [first for _, first, _ in report.keys] == [0, at]


def test_calls_go_on_while_the_key_is_replaced(folder: Path) -> None:
    log = new_log(folder)
    signers = [NoteSigner(ORIGIN, bytes([n]) * 32) for n in range(40, 52)]
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(call, log, f"r{i}") for i in range(300)]
        for signer in signers:
            log.rotate(signer)
        receipts = [done.result() for done in calls]
    log.close()
    report = verify(folder, Asked(receipts=tuple(receipts)))
    assert report.intact, report.as_text()
    assert [key for key, _, _ in report.keys] == [SIGNER.vkey, *(signer.vkey for signer in signers)]


def test_an_open_intent_is_ended_under_the_next_key(log: AuditLog) -> None:
    ticket = intent(log, "r")
    log.rotate(SECOND)
    outcome(log, "r", ticket)


@pytest.mark.parametrize(
    ("new", "code"),
    [
        (NoteSigner("secure-embed.local/other", bytes(32)), "log_signer_invalid"),
        (SIGNER, "log_key_reused"),
        (SECOND, "log_key_reused"),
    ],
    ids=["another name", "the first key again", "the key in force"],
)
def test_what_is_not_handed_over_to(log: AuditLog, new: NoteSigner, code: str) -> None:
    log.rotate(SECOND)
    size = log.head().size
    with pytest.raises((ConfigurationError, Conflict)) as refused:
        log.rotate(new)
    assert refused.value.code == code
    assert log.head().size == size
    call(log, "goes-on")


def test_nobody_writes_a_hand_over_but_rotate(log: AuditLog) -> None:
    receipt = log.rotate(SECOND)
    note = json.loads(log.entries(receipt.index, 1)[0])["handover"]
    with pytest.raises(SecureEmbedError):
        log.system(AuditEvent(phase=Phase.SYSTEM, action="log.key", handover=note))


def test_a_restart_goes_on_with_the_newest_key_and_knows_the_older_ones(folder: Path) -> None:
    rotated(folder)
    for _ in range(2):
        log = reopen(folder, THIRD)
        assert [span.verifier for span in log.key_spans()] == [s.verifier for s in (SIGNER, SECOND, THIRD)]
        log.verify_self()
        log.close()
    assert verify(folder).intact


@pytest.mark.parametrize("stopped", ["cleanly", "at the hand-over", "later"])
def test_a_start_with_the_wrong_key_says_so(folder: Path, stopped: str) -> None:
    """A crash between the hand-over and the keyring's own switch, both ways."""
    log = new_log(folder)
    call(log, "r")
    before = folder.with_name("before")
    shutil.copytree(folder, before)
    log.rotate(SECOND)
    if stopped == "later":
        call(log, "r2")
    after = folder.with_name("after")
    shutil.copytree(folder, after)
    log.close()
    after = folder if stopped == "cleanly" else after
    both = [SIGNER.verifier, SECOND.verifier]
    assert end_key(before, both) == end_key(before, both[::-1]) == SIGNER.verifier
    assert end_key(after, both) == end_key(after, both[::-1]) == SECOND.verifier
    assert refused_code(before, SECOND) == refused_code(after, SIGNER) == "log_key_mismatch"
    for place in (before, after):
        with pytest.raises(IntegrityFailure) as refused:
            end_key(place, [STRANGER.verifier])
        assert refused.value.code == "log_key_mismatch"
    reopen(before, SIGNER).close()
    reopen(after, SECOND).close()
    assert verify(before).intact
    assert verify(after).intact


def test_a_log_without_entries_ends_with_no_key(folder: Path) -> None:
    PosixLogStorage(folder, create=True).close()
    assert end_key(folder, [SIGNER.verifier]) is None


def receipt_by(signer: NoteSigner, receipt: Receipt) -> str:
    from secure_embed.audit import sign_note

    body = {"log_index": receipt.index, "log_leaf_hash": receipt.leaf_hash}
    return sign_note(signer, kind="erasure-receipt", text=json.dumps(body) + "\n")


def test_erasure_receipts_of_every_key_hold_for_what_lies_before_its_end(made: tuple[Path, list[Receipt]]) -> None:
    folder, receipts = made
    early, middle, late = receipts[0], receipts[131], receipts[-1]
    good = [receipt_by(SIGNER, early), receipt_by(SECOND, early), receipt_by(SECOND, middle), receipt_by(THIRD, late)]
    report = verify(folder, Asked(erasure_receipts=tuple(good)))
    assert report.intact, report.as_text()
    for signer, receipt in ((SIGNER, middle), (SECOND, late), (STRANGER, early)):
        report = verify(folder, Asked(erasure_receipts=(receipt_by(signer, receipt),)))
        assert [f.where for f in report.findings] == ["erasure-receipt"]


def test_a_statement_of_a_replaced_key_that_names_no_entry_is_noted(made: tuple[Path, list[Receipt]]) -> None:
    from secure_embed.audit import sign_note

    report = verify(
        made[0], Asked(erasure_receipts=(sign_note(SIGNER, kind="erasure-receipt", text='{"erasure":"e"}\n'),))
    )
    assert report.intact
    assert any("it cannot be told when" in note for note in report.notes)


def test_statements_are_signed_by_the_key_in_force(log: AuditLog) -> None:
    before = log.sign(kind="erasure-receipt", text="{}\n")
    log.rotate(SECOND)
    after = log.sign(kind="erasure-receipt", text="{}\n")
    verify_note(SIGNER.verifier, before, kind="erasure-receipt")
    verify_note(SECOND.verifier, after, kind="erasure-receipt")
    with pytest.raises(IntegrityFailure):
        verify_note(SIGNER.verifier, after, kind="erasure-receipt")


def test_checkpoints_kept_from_the_time_of_an_older_key(folder: Path) -> None:
    log = new_log(folder)
    call(log, "r")
    first = log.checkpoint()
    log.rotate(SECOND)
    at = log.checkpoint()
    call(log, "r2")
    second = log.checkpoint()
    size, root = log.head().size, log.root_at(log.head().size)
    log.close()
    assert verify(folder, Asked(earlier=(first, at, second))).intact
    by_the_old_key = SIGNER.sign(Checkpoint(origin=ORIGIN, size=size, root=root).text)
    report = verify(folder, Asked(earlier=(by_the_old_key,)))
    assert ["was not in force" in f.what for f in report.findings] == [True]


def test_the_journal_is_followed_too(folder: Path) -> None:
    log = new_log(folder)
    call(log, "r")
    log.publish()
    log.rotate(SECOND)
    call(log, "r2")
    log.rotate(THIRD)
    call(log, "r3")
    shutil.copytree(folder, folder.with_name("live"))
    log.publish()
    shutil.copyfile(folder.with_name("live") / "journal", folder.with_name("journal"))
    shutil.copytree(folder, folder.with_name("both"))
    log.close()
    shutil.copyfile(folder.with_name("journal"), folder.with_name("both") / "journal")  # published, and not yet emptied
    for name in ("live", "both"):
        report = verify(folder.with_name(name))
        assert report.intact, report.as_text()
        assert [first for _, first, _ in report.keys] == [0, 3, 6]


def test_the_command_line_names_every_key(made: tuple[Path, list[Receipt]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(made[0]), "--key", SIGNER.vkey]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"Key       {SIGNER.vkey} for entries 0 to 260" in lines
    assert sum(line.startswith("Key  ") for line in lines) == 3
    assert main([str(made[0]), "--key", SIGNER.vkey, "--json"]) == 0
    assert [key["key"] for key in json.loads(capsys.readouterr().out)["keys"]] == [
        SIGNER.vkey,
        SECOND.vkey,
        THIRD.vkey,
    ]


def test_the_services_own_command_names_every_key_too(made: tuple[Path, list[Receipt]], tmp_path: Path) -> None:
    from click.testing import CliRunner

    from secure_embed.cli.audit import audit

    shutil.copytree(made[0], tmp_path / "log")
    for known in ([SIGNER], [SIGNER, SECOND, THIRD]):
        (tmp_path / "log-verifier.key").write_text("".join(f"{signer.vkey}\n" for signer in known))
        shown = CliRunner().invoke(audit, ["verify", "--root", str(tmp_path), "--json"])
        assert shown.exit_code == 0, shown.output
        assert [key["key"] for key in json.loads(shown.output)["keys"]] == [s.vkey for s in (SIGNER, SECOND, THIRD)]
    shown = CliRunner().invoke(audit, ["show", "--root", str(tmp_path), "--start", "261", "--count", "1", "--json"])
    assert json.loads(shown.output)[0]["handover"].count(ORIGIN) >= 4
    (tmp_path / "log-verifier.key").write_text(f"{STRANGER.vkey}\n")
    refused = CliRunner().invoke(audit, ["verify", "--root", str(tmp_path)])
    assert isinstance(refused.exception, IntegrityFailure)
