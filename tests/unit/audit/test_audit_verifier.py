"""The auditors' program as an auditor runs it: exit status, output, and that it needs nothing of ours."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from audit.verify.cli import main
from secure_embed.audit import AuditEvent, AuditLog, Phase, PosixLogStorage, leaf_hash, sign_note
from secure_embed.audit.journal import Frame
from secure_embed.audit.merkle import CompactRange
from secure_embed.types import Action, Receipt
from tests.audit_logs import SIGNER, STRANGER, Asked, call, extended_head, new_log, verify

PROGRAM = Path(__file__).parents[3] / "audit" / "verify"
KEY = SIGNER.vkey


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Receipt], str]:
    """A log at rest of 302 entries, its receipts, and a checkpoint from when it was shorter. Only read."""
    folder = tmp_path_factory.mktemp("verifier") / "log"
    log = new_log(folder)
    receipts = [call(log, f"r{i}") for i in range(50)]
    early = log.checkpoint()
    receipts += [call(log, f"s{i}") for i in range(100)]
    log.close()
    return folder, receipts, early


def changed(made: tuple[Path, list[Receipt], str], tmp_path: Path) -> Path:
    copy = tmp_path / "log"
    shutil.copytree(made[0], copy)
    bundle = copy / "tile/entries/000"
    bundle.write_bytes(bundle.read_bytes().replace(b'"request":"r7"', b'"request":"r8"', 1))
    return copy


def test_an_intact_log_is_0(made: tuple[Path, list[Receipt], str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(made[0]), "--key", KEY]) == 0
    shown = capsys.readouterr().out
    assert "Entries   302" in shown
    assert "150 INTENT, 150 OUTCOME, 2 SYSTEM" in shown
    assert "INTACT" in shown.splitlines()[-1]


def test_a_changed_entry_is_1_and_is_named(
    made: tuple[Path, list[Receipt], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = changed(made, tmp_path)
    assert main([str(copy), "--key", KEY]) == 1
    assert "WRONG     entry 15: its bytes are not those that were logged" in capsys.readouterr().out
    assert main([str(copy), "--key", KEY, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["result"], report["first_wrong_entry"], report["wrong_entries"]) == ("tampered", 15, [15])


@pytest.mark.parametrize(
    "arguments",
    [
        ["{log}"],
        ["--key", KEY],
        ["{log}", "--key", "nonsense"],
        ["{log}", "--key", KEY[:-1]],
        ["{log}", "--key", "{log}/checkpoint"],
        ["{log}", "--key", "a\0b"],
        ["{log}/tile", "--key", KEY],
        ["{log}/nowhere", "--key", KEY],
        ["{log}/checkpoint", "--key", KEY],
        ["{log}", "--key", KEY, "--receipt", "x"],
        ["{log}", "--key", KEY, "--receipt", f"-1:{'00' * 32}"],
        ["{log}", "--key", KEY, "--receipt", "1:zz"],
        ["{log}", "--key", KEY, "--receipt", f"1:{'zz' * 32}"],
        ["{log}", "--key", KEY, "--earlier", "{log}/nowhere"],
        ["--vectors", "{log}/nowhere/at/all"],
        ["{log}", "--key", KEY, "--what"],
    ],
    ids=lambda a: " ".join(a[:4])[:60],
)
def test_usage_and_unreadable_are_2(made: tuple[Path, list[Receipt], str], arguments: list[str]) -> None:
    given = [argument.replace("{log}", str(made[0])) for argument in arguments]
    try:
        status = main(given)
    except SystemExit as left:
        status = int(left.code or 0)
    assert status == (1 if "--vectors" in given else 2)


def test_the_key_may_be_a_file(made: tuple[Path, list[Receipt], str], tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    assert main([str(made[0]), "--key", str(tmp_path / "key")]) == 0
    assert main([str(made[0]), "--key", STRANGER.vkey]) == 1


def test_it_runs_from_a_copy_without_the_service(made: tuple[Path, list[Receipt], str], tmp_path: Path) -> None:
    """Another folder name, another working directory, and no module of ours to be found."""
    shutil.copytree(PROGRAM, tmp_path / "check_it", ignore=shutil.ignore_patterns("__pycache__"))
    arguments = [str(tmp_path / "check_it"), str(made[0]), "--key", KEY]
    code = "import sys, runpy; sys.path[:] = [p for p in sys.path if 'site-packages' in p or '/lib' in p]\n"
    code += f"sys.argv = {arguments!r}\n"
    code += "try: runpy.run_path(sys.argv[0], run_name='__main__')\nexcept SystemExit as e: status = e.code\n"
    code += "ours = [m for m in sys.modules if m.split('.')[0] in ('secure_embed', 'audit', 'numpy', 'orjson')]\n"
    code += "print('modules', ours); sys.exit(status)"
    run = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert run.returncode == 0, run.stderr
    assert "INTACT" in run.stdout
    assert "modules []" in run.stdout


@pytest.mark.parametrize("way", [[str(PROGRAM)], ["-m", "audit.verify"]])
def test_it_runs_as_a_folder_and_as_a_module(made: tuple[Path, list[Receipt], str], way: list[str]) -> None:
    command = [sys.executable, *way, str(made[0]), "--key", KEY]
    run = subprocess.run(command, cwd=PROGRAM.parents[1], capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr


def test_receipts(made: tuple[Path, list[Receipt], str]) -> None:
    folder, receipts, _ = made
    assert verify(folder, Asked(receipts=tuple(receipts))).intact
    one = receipts[40]
    moved = Receipt(origin=one.origin, index=one.index + 1, leaf_hash=one.leaf_hash)
    missing = Receipt(origin=one.origin, index=302, leaf_hash=one.leaf_hash)
    for wrong in (moved, missing):
        report = verify(folder, Asked(receipts=(wrong,)))
        assert [(f.where, f.index) for f in report.findings] == [("receipt", wrong.index)]


def test_receipts_of_entries_in_the_journal(tmp_path: Path) -> None:
    log = new_log(tmp_path / "log")
    receipts = [call(log, f"r{i}") for i in range(5)]
    log.publish()
    receipts += [call(log, f"s{i}") for i in range(5)]
    shutil.copytree(tmp_path / "log", tmp_path / "copy")
    log.close()
    report = verify(tmp_path / "copy", Asked(receipts=tuple(receipts), journal_required=True))
    assert report.intact, report.as_text()
    assert report.journal_entries == 10
    (tmp_path / "copy/journal").unlink()
    report = verify(tmp_path / "copy", Asked(receipts=tuple(receipts), journal_required=True))
    assert {f.where for f in report.findings} == {"journal", "receipt"}


def test_an_earlier_checkpoint_notices_a_log_that_was_put_back(
    made: tuple[Path, list[Receipt], str], tmp_path: Path
) -> None:
    folder, receipts, early = made
    assert verify(folder, Asked(earlier=(early,))).intact
    log = new_log(tmp_path / "short")
    call(log, "r0")
    log.close()
    short = verify(tmp_path / "short")
    assert short.intact  # valid in itself: that is the limit that docs/log-format.md states
    late = (folder / "checkpoint").read_text()
    assert not verify(tmp_path / "short", Asked(earlier=(late,))).intact
    assert not verify(tmp_path / "short", Asked(receipts=(receipts[-1],))).intact
    other = new_log(tmp_path / "other")
    for i in range(60):
        call(other, f"x{i}")
    other.close()
    report = verify(tmp_path / "other", Asked(earlier=(early,)))
    assert ["not those of that time" in f.what for f in report.findings] == [True]
    assert not verify(folder, Asked(earlier=("no checkpoint\n",))).intact


def test_an_earlier_checkpoint_of_the_journals_time(tmp_path: Path) -> None:
    log = new_log(tmp_path / "log")
    call(log, "r0")
    log.publish()
    call(log, "r1")
    early = log.checkpoint()
    call(log, "r2")
    shutil.copytree(tmp_path / "log", tmp_path / "live")
    log.close()
    assert verify(tmp_path / "live", Asked(earlier=(early,))).intact
    assert verify(tmp_path / "log", Asked(earlier=(early,))).intact
    journal = (tmp_path / "live/journal").read_bytes()
    (tmp_path / "live/journal").write_bytes(b"")
    assert not verify(tmp_path / "live", Asked(earlier=(early,))).intact
    (tmp_path / "live/journal").write_bytes(journal)


def test_a_journal_that_is_published_already_must_say_the_same(tmp_path: Path) -> None:
    """A crash before the journal was emptied leaves entries in both."""
    log = new_log(tmp_path / "log")
    for i in range(5):
        call(log, f"r{i}")
    journal = (tmp_path / "log/journal").read_bytes()
    log.publish()
    shutil.copytree(tmp_path / "log", tmp_path / "copy")
    log.close()
    (tmp_path / "copy/journal").write_bytes(journal)
    assert verify(tmp_path / "copy").intact
    first = json.dumps(STAMP | {"phase": "SYSTEM"}, sort_keys=True, separators=(",", ":")).encode()
    head = extended_head(CompactRange(), [first])
    forged = Frame(first=0, entries=[first], leaf_hashes=[leaf_hash(first)], checkpoint=head.checkpoint)
    (tmp_path / "copy/journal").write_bytes(forged.to_bytes())
    assert [(f.where, f.index) for f in verify(tmp_path / "copy").findings] == [("entry", 0)]


def test_a_signed_entry_in_the_journal_that_makes_no_sense_is_named(tmp_path: Path) -> None:
    entry = json.dumps(STAMP | {"phase": "OUTCOME", "intent": 7}, sort_keys=True, separators=(",", ":")).encode()
    storage = PosixLogStorage(tmp_path / "log", create=True)
    storage.commit(storage.head(), [entry], extended_head(CompactRange(), [entry]))
    shutil.copytree(tmp_path / "log", tmp_path / "live")
    storage.close()
    report = verify(tmp_path / "live")
    assert [(f.where, f.index) for f in report.findings] == [("entry", 0)]
    assert report.journal_entries == 1


def erasure(receipt: Receipt, **changes: object) -> str:
    body = {"erasure": "e1", "log_index": receipt.index, "log_leaf_hash": receipt.leaf_hash} | changes
    return sign_note(SIGNER, kind="erasure-receipt", text=json.dumps(body) + "\n")


def bad_erasures() -> dict[str, Callable[[Receipt], str]]:
    return {
        "of another entry": lambda r: erasure(r, log_index=r.index - 1),
        "past the end": lambda r: erasure(r, log_index=10_000),
        "hash is no hex": lambda r: erasure(r, log_leaf_hash="zz"),
        "changed": lambda r: erasure(r).replace('"e1"', '"e2"'),
        "changed to another entry": lambda r: erasure(r).replace(r.leaf_hash, "ab" * 32),
        "of another kind": lambda _: sign_note(SIGNER, kind="review", text="{}\n"),
        "signed by another": lambda _: sign_note(STRANGER, kind="erasure-receipt", text="{}\n"),
        "not JSON": lambda _: sign_note(SIGNER, kind="erasure-receipt", text="erased\n"),
        "empty": lambda _: "",
    }


def test_erasure_receipts(made: tuple[Path, list[Receipt], str]) -> None:
    report = verify(made[0], Asked(erasure_receipts=(erasure(made[1][3]),)))
    assert report.intact, report.as_text()
    assert any("erasure receipt, signed" in line for line in report.checked)


@pytest.mark.parametrize("bad", bad_erasures().values(), ids=bad_erasures().keys())
def test_erasure_receipts_that_do_not_hold(
    made: tuple[Path, list[Receipt], str], bad: Callable[[Receipt], str]
) -> None:
    report = verify(made[0], Asked(erasure_receipts=(bad(made[1][3]),)))
    assert [f.where for f in report.findings] == ["erasure-receipt"]


STAMP = {"v": 1, "time": "2026-01-01T00:00:00.000Z", "time_ms": 1}


@pytest.mark.parametrize(
    ("story", "wrong"),
    [
        ([{"phase": "INTENT", "request": "a"}, {"phase": "OUTCOME", "request": "a", "intent": 0}], []),
        ([{"phase": "OUTCOME", "decision": "allowed"}], [0]),
        ([{"phase": "OUTCOME", "decision": "refused"}], []),
        ([{"phase": "OUTCOME", "intent": 0}], [0]),
        ([{"phase": "OUTCOME", "intent": 1}, {"phase": "INTENT"}], [0]),
        ([{"phase": "SYSTEM"}, {"phase": "OUTCOME", "intent": 0}], [1]),
        ([{"phase": "INTENT"}, {"phase": "OUTCOME", "intent": 0}, {"phase": "OUTCOME", "intent": 0}], [2]),
        ([{"phase": "INTENT", "request": "a"}, {"phase": "OUTCOME", "request": "b", "intent": 0}], [1]),
        ([{"phase": "INTENT", "action": "query"}, {"phase": "OUTCOME", "action": "erase", "intent": 0}], [1]),
        ([{"phase": "INTENT"}, {"phase": "OUTCOME", "intent": True}], [1]),
        ([{"phase": "INTENT"}, {"phase": "OUTCOME", "intent": "0"}], [1]),
        ([{"phase": "OTHER"}], [0]),
        ([{"phase": "SYSTEM", "v": 2}], [0]),
        ([{"phase": "SYSTEM", "time_ms": "x"}], [0]),
        ([{"phase": "SYSTEM", "orphans": 5}], [0]),
        ([{"phase": "INTENT"}, {"phase": "SYSTEM", "orphans": [0, "x"]}], []),
    ],
    ids=str,
)
def test_signed_entries_that_make_no_sense_are_named(
    tmp_path: Path, story: list[dict[str, object]], wrong: list[int]
) -> None:
    """The service would not write them; a changed service, or another one with the key, could."""
    entries = [json.dumps(STAMP | event, sort_keys=True, separators=(",", ":")).encode() for event in story]
    storage = PosixLogStorage(tmp_path / "log", create=True)
    storage.commit(storage.head(), entries, extended_head(CompactRange(), entries))
    storage.close()
    assert [finding.index for finding in verify(tmp_path / "log").findings] == wrong


def test_an_intent_without_outcome_is_a_note_and_no_finding(tmp_path: Path) -> None:
    log = new_log(tmp_path / "log")
    event = AuditEvent(phase=Phase.INTENT, action=Action.QUERY, request="r")
    log.wait(log.submit_intent(event, action=Action.QUERY, openings_max=1, lifetime_s=1))
    shutil.copytree(tmp_path / "log", tmp_path / "copy")
    log.close()
    report = verify(tmp_path / "copy")
    assert report.intact
    assert report.notes == ["1 INTENT without an OUTCOME (first: entry 1): cut off, or still running"]


def test_a_clock_that_went_back_is_a_note(tmp_path: Path) -> None:
    times = iter([10, 9, 11, 12])
    log = AuditLog(PosixLogStorage(tmp_path / "log", create=True), SIGNER, clock=lambda: next(times))
    log.close()
    report = verify(tmp_path / "log")
    assert report.intact
    assert report.notes == ["the clock went back before entry 1"]


def test_files_that_do_not_belong_are_noted(made: tuple[Path, list[Receipt], str], tmp_path: Path) -> None:
    copy = tmp_path / "log"
    shutil.copytree(made[0], copy)
    (copy / "tile/0/007").write_bytes(b"x")
    report = verify(copy)
    assert report.intact
    assert report.notes == ["1 file under tile/ no part of this log, for example 'tile/0/007'"]
