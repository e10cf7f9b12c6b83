"""Real logs in a folder, and the auditors' verifier run on them. Used by the tests of the audit room."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from audit.verify.check import LogCheck, Questions
from audit.verify.notes import Key
from audit.verify.report import Report
from secure_embed.audit import AuditEvent, AuditLog, Head, NoteSigner, Phase, PosixLogStorage, leaf_hash
from secure_embed.audit.merkle import CompactRange
from secure_embed.audit.note import Checkpoint
from secure_embed.types import Action, Receipt, Ticket

ORIGIN = "secure-embed.local/test"
SIGNER = NoteSigner(ORIGIN, bytes(range(32)))
STRANGER = NoteSigner(ORIGIN, bytes(range(1, 33)))


def new_log(folder: Path) -> AuditLog:
    return AuditLog(PosixLogStorage(folder, create=True), SIGNER)


def intent(log: AuditLog, request: str) -> Ticket:
    event = AuditEvent(phase=Phase.INTENT, action=Action.QUERY, request=request, openings_max=5)
    return log.wait(log.submit_intent(event, action=Action.QUERY, openings_max=5, lifetime_s=60))


def outcome(log: AuditLog, request: str, ticket: Ticket) -> Receipt:
    at = ticket.intent_index
    event = AuditEvent(
        phase=Phase.OUTCOME, action=Action.QUERY, request=request, intent=at, decision="allowed", results=3
    )
    return log.outcome(event)


def call(log: AuditLog, request: str) -> Receipt:
    return outcome(log, request, intent(log, request))


def head_after(old: Head, leaves: Sequence[bytes], entries: Sequence[bytes]) -> Head:
    """The signed head once ``entries`` are appended to a log whose leaf hashes are ``leaves``."""
    assert len(leaves) == old.size
    grown = CompactRange()
    for leaf in leaves:
        grown.append(leaf)
    return extended_head(grown, entries)


def extended_head(grown: CompactRange, entries: Sequence[bytes], signer: NoteSigner = SIGNER) -> Head:
    """Grows the range by the entries, and signs it."""
    for entry in entries:
        grown.append(leaf_hash(entry))
    note = signer.sign(Checkpoint(origin=signer.name, size=grown.size, root=grown.root()).text)
    return Head(size=grown.size, root=grown.root(), checkpoint=note)


@dataclass(frozen=True)
class Asked:
    receipts: tuple[Receipt, ...] = ()
    earlier: tuple[str, ...] = ()
    erasure_receipts: tuple[str, ...] = ()
    journal_required: bool = False


def verify(folder: Path, asked: Asked | None = None, *, vkeys: Sequence[str] = (SIGNER.vkey,)) -> Report:
    """What the independent verifier says of a folder."""
    from audit.verify.check import Receipt as AskedReceipt

    asked = asked or Asked()
    questions = Questions(
        receipts=[AskedReceipt(r.index, bytes.fromhex(r.leaf_hash)) for r in asked.receipts],
        earlier=list(asked.earlier),
        erasure_receipts=list(asked.erasure_receipts),
        journal_required=asked.journal_required,
    )
    return LogCheck(folder, [Key.parse(vkey) for vkey in vkeys], questions).run()
