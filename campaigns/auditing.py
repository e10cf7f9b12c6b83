"""The auditors' own verifier on a log's folder, with what the campaign holds against it."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from audit.verify.check import LogCheck, NotALog, Questions, Receipt
from audit.verify.notes import Key

__all__ = ["findings", "keys_of"]


def keys_of(root: Path) -> list[str]:
    """The log's verifier keys, as the deployment published them: one a line, the first one first."""
    return [line.strip() for line in (root / "log-verifier.key").read_text().splitlines() if line.strip()]


def findings(
    log: Path,
    keys: Sequence[str],
    *,
    receipts: Iterable[tuple[int, str]],
    earlier: Sequence[str] = (),
    erasure_receipts: Sequence[str] = (),
) -> list[str]:
    """What is wrong, one sentence each; a log that cannot be read at all is one too."""
    questions = Questions(
        receipts=[Receipt(index, bytes.fromhex(leaf)) for index, leaf in receipts],
        earlier=list(earlier),
        erasure_receipts=list(erasure_receipts),
        journal_required=True,
    )
    try:
        report = LogCheck(log, [Key.parse(key) for key in keys], questions).run()
    except (NotALog, OSError) as fault:
        return [f"cannot be read: {fault}"]
    return [str(finding) for finding in report.findings]
