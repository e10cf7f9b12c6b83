"""The service's own full check of a log: every entry hashed again, every leaf hash, the root, the signature.

For doubts about the medium. An auditor uses audit/verify instead, which shares no code with this package.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from secure_embed.audit.handover import KeyChain, KeySpan, key_history, parse_event
from secure_embed.audit.merkle import CompactRange, empty_root, leaf_hash
from secure_embed.audit.note import Checkpoint, NoteVerifier
from secure_embed.audit.orphans import unfinished
from secure_embed.audit.protocol import Head, LogReader
from secure_embed.audit.tree import Tree, tile_width
from secure_embed.audit.view import open_view
from secure_embed.errors import IntegrityFailure

__all__ = ["Verified", "check_head", "end_key", "read_events", "require_key", "verify_folder", "verify_reader"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    head: Head
    keys: Sequence[KeySpan]  # oldest first


def verify_folder(folder: Path, known: Sequence[NoteVerifier]) -> Verified:
    """Check the log that lies in a folder, without the writer's lock. Raises as :func:`verify_reader`."""
    return verify_reader(open_view(folder), known)


def verify_reader(log: LogReader, known: Sequence[NoteVerifier]) -> Verified:
    """``known``: the log's verifier keys, oldest first; the first is enough, the log names the others.

    Raises ``IntegrityFailure``: ``log_damaged``, with the entry's number in the member ``index`` where one entry is to
    blame; ``log_key_mismatch`` for a hand-over; ``note_invalid`` for the checkpoint.
    """
    head = log.head()
    grown, chain = CompactRange(), KeyChain(known)
    for start in range(0, head.size, tile_width):
        count = min(tile_width, head.size - start)
        pairs = zip(log.entries(start, count), log.leaf_hashes(start, count), strict=True)
        for index, (entry, stored) in enumerate(pairs, start=start):
            if leaf_hash(entry) != stored:
                raise _changed(index)
            chain.follow(entry, grown)
            grown.append(stored)
    chain.require_complete()
    check_head(head, grown.root(), chain.newest)
    return Verified(head=head, keys=tuple(chain.spans))


def end_key(folder: Path, known: Sequence[NoteVerifier]) -> NoteVerifier | None:
    """Which of ``known`` the log of a stopped service ends with, its signature checked; None: nothing is signed yet. A
    start asks this when it may hold an old and a new key. Raises ``IntegrityFailure`` (``log_key_mismatch``,
    ``note_invalid``, ``log_damaged``)."""
    view = open_view(folder)
    head = view.head()
    if head.size == 0:
        return None
    newest = require_key(view, view.tree, unfinished(view).key_at, known)
    check_head(head, view.tree.root(head.size), newest)
    return newest


def require_key(log: LogReader, tree: Tree, key_at: int | None, known: Sequence[NoteVerifier]) -> NoteVerifier:
    """The one of ``known`` that is in force at the log's end, as the log says; nothing is verified. Raises
    ``IntegrityFailure`` (``log_key_mismatch``)."""
    history = key_history(log, tree, key_at)
    for key in known:
        if history[-1][1].new == key if history else key.signed(log.head().checkpoint):
            return key
    named = {"key_id": history[-1][1].new.key_id} if history else {}
    raise IntegrityFailure("the log ends with another signing key", code="log_key_mismatch", members=named)


def read_events(log: LogReader, start: int, end: int) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Index and content of entries ``start`` to ``end`` - 1, each compared with its leaf hash. Raises ``IntegrityFailure``
    (``log_damaged``)."""
    while start < end:
        count = min(tile_width - start % tile_width, end - start)
        pairs = zip(log.entries(start, count), log.leaf_hashes(start, count), strict=True)
        for index, (entry, leaf) in enumerate(pairs, start):
            if leaf_hash(entry) != leaf:
                raise _changed(index)
            yield index, parse_event(entry)
        start += count


def check_head(head: Head, root: bytes, verifier: NoteVerifier) -> None:
    """That the head is signed and says this root. Raises ``IntegrityFailure``."""
    if head.size == 0:
        if head.checkpoint or root != empty_root:
            raise IntegrityFailure("the log's head is malformed", code="log_damaged")
        return
    said = Checkpoint.verified(head.checkpoint, verifier)
    if (said.size, said.root, head.root) != (head.size, root, root):
        raise IntegrityFailure("the log's entries do not give the signed root", code="log_damaged")


def _changed(index: int) -> IntegrityFailure:
    return IntegrityFailure("an entry is not what was logged", code="log_damaged", members={"index": index})
