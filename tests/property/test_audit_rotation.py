"""Any order of calls, hand-overs, publications, copies and restarts gives a log that the first key alone verifies; any note
in the place of a hand-over is read the same way by the service and by the auditors' program."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import example, given, settings
from hypothesis import strategies as st

from audit.verify.check import LogCheck, Questions
from audit.verify.check import Receipt as Asked
from audit.verify.keys import HandOverInvalid, read_handover
from audit.verify.notes import Key
from secure_embed.audit import AuditLog, HandOver, NoteSigner, PosixLogStorage, end_key, verify_folder
from secure_embed.errors import IntegrityFailure
from secure_embed.types import Receipt
from tests.audit_logs import ORIGIN, SIGNER, STRANGER, call, new_log

SIGNERS = [SIGNER, *(NoteSigner(ORIGIN, bytes([n]) * 32) for n in range(100, 130))]
steps = st.lists(st.sampled_from(["call", "call", "rotate", "publish", "copy", "restart", "crash"]), max_size=25)


def assert_intact(folder: Path, keys: int, receipts: list[Receipt]) -> None:
    questions = Questions(receipts=[Asked(r.index, bytes.fromhex(r.leaf_hash)) for r in receipts])
    report = LogCheck(folder, [Key.parse(SIGNER.vkey)], questions).run()
    assert report.intact, report.as_text()
    assert [key for key, _, _ in report.keys] == [signer.vkey for signer in SIGNERS[:keys]]
    assert [end for _, _, end in report.keys][:-1] == [first for _, first, _ in report.keys][1:]
    ours = verify_folder(folder, [SIGNER.verifier])
    assert [(str(span.verifier), span.first) for span in ours.keys] == [(key, at) for key, at, _ in report.keys]
    assert end_key(folder, [signer.verifier for signer in SIGNERS]) == SIGNERS[keys - 1].verifier


@given(steps)
@settings(max_examples=30, deadline=None)
@example(["rotate", "rotate", "crash", "rotate", "call", "restart", "copy"])
def test_any_story_verifies_from_the_first_key(story: list[str]) -> None:
    with TemporaryDirectory() as temporary:
        folder, keys, receipts = Path(temporary) / "log", 1, []
        log = new_log(folder)
        for number, step in enumerate(story):
            if step == "call":
                receipts.append(call(log, f"r{number}"))
            elif step == "rotate":
                log.rotate(SIGNERS[keys])
                keys += 1
            elif step == "publish":
                log.publish()
            elif step == "copy":
                log.snapshot_to(Path(temporary) / "copy")
                assert_intact(Path(temporary) / "copy", keys, receipts)
            else:
                if step == "crash":
                    shutil.copytree(folder, Path(temporary) / f"crashed{number}")
                log.close()
                folder = Path(temporary) / f"crashed{number}" if step == "crash" else folder
                assert_intact(folder, keys, receipts)
                shutil.rmtree(Path(temporary) / "copy", ignore_errors=True)  # a copy of the closed log is a later state
                log = AuditLog(PosixLogStorage(folder), SIGNERS[keys - 1])
        assert len(log.key_spans()) == keys
        log.close()
        assert_intact(folder, keys, receipts)


REAL = HandOver.sign(SIGNER, STRANGER.verifier, size=7, root=bytes(range(32)))
changed = st.tuples(st.integers(0, len(REAL) - 1), st.characters(max_codepoint=0x2FFF)).map(
    lambda c: REAL[: c[0]] + c[1] + REAL[c[0] + 1 :]
)
lines = st.lists(st.sampled_from([*REAL.split("\n"), "", "8", ORIGIN]), max_size=9).map("\n".join)
resigned = lines.map(lambda text: SIGNER.sign(text + "\n"))


@given(st.just(REAL) | changed | lines | resigned | st.text(max_size=30))
@example(REAL)
@example(SIGNER.sign("\n".join(REAL.split("\n")[:5]) + "\n"))
@example(SIGNER.sign("\n".join(REAL.split("\n")[:5]) + "\nmore\n"))
def test_any_note_is_a_hand_over_or_refused_by_both(note: str) -> None:
    try:
        ours = HandOver.read(note)
    except IntegrityFailure:
        ours = None
    try:
        theirs = read_handover(note)
    except HandOverInvalid:
        theirs = None
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        assert (ours.size, ours.root) == (theirs.place.size, theirs.place.root)
        assert (str(ours.old), str(ours.new)) == (str(theirs.old), str(theirs.new))
        assert ours.old == SIGNER.verifier
