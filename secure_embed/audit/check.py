"""The service's own full check of a log: every entry hashed again, every leaf hash, the root, the signature.

For doubts about the medium. An auditor uses audit/verify instead, which shares no code with this package.
"""

from pathlib import Path

from secure_embed.audit.merkle import CompactRange, empty_root, leaf_hash
from secure_embed.audit.note import Checkpoint, NoteVerifier
from secure_embed.audit.protocol import Head, LogReader
from secure_embed.audit.tree import tile_width
from secure_embed.audit.view import open_view
from secure_embed.errors import IntegrityFailure

__all__ = ["verify_folder", "verify_reader"]


def verify_folder(folder: Path, verifier: NoteVerifier) -> Head:
    """Check the log that lies in a folder, without the writer's lock. Raises as :func:`verify_reader`."""
    return verify_reader(open_view(folder), verifier)


def verify_reader(log: LogReader, verifier: NoteVerifier) -> Head:
    """The head that was verified. Raises ``IntegrityFailure``: ``log_damaged``, with the entry's number in the member
    ``index`` where one entry is to blame; ``note_invalid`` for the checkpoint."""
    head = log.head()
    grown = CompactRange()
    for start in range(0, head.size, tile_width):
        count = min(tile_width, head.size - start)
        pairs = zip(log.entries(start, count), log.leaf_hashes(start, count), strict=True)
        for index, (entry, stored) in enumerate(pairs, start=start):
            if leaf_hash(entry) != stored:
                raise IntegrityFailure("an entry is not what was logged", code="log_damaged", members={"index": index})
            grown.append(stored)
    check_head(head, grown.root(), verifier)
    return head


def check_head(head: Head, root: bytes, verifier: NoteVerifier) -> None:
    """That the head is signed and says this root. Raises ``IntegrityFailure``."""
    if head.size == 0:
        if head.checkpoint or root != empty_root:
            raise IntegrityFailure("the log's head is malformed", code="log_damaged")
        return
    said = Checkpoint.verified(head.checkpoint, verifier)
    if (said.size, said.root, head.root) != (head.size, root, root):
        raise IntegrityFailure("the log's entries do not give the signed root", code="log_damaged")
