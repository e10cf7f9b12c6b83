"""One signing key hands over to the next, in the log itself. Format and rules: docs/log-format.md, "Another signing key".

Pure but for the reader it is given. :class:`KeyChain` follows the hand-overs forward and believes nothing but its first
key; :func:`key_history` reads them back from the end, for who has checked the end already.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import orjson

from secure_embed.audit.events import Phase
from secure_embed.audit.merkle import CompactRange, leaf_hash
from secure_embed.audit.note import Checkpoint, NoteSigner, NoteVerifier, note_text, sign_note, verify_note
from secure_embed.audit.protocol import LogReader
from secure_embed.audit.tree import Tree
from secure_embed.errors import ConfigurationError, Conflict, IntegrityFailure

__all__ = ["HandOver", "KeyChain", "KeySpan", "key_history", "parse_verifiers"]

KIND = "log-key"
ACTION = "log.key"
keys_max = 10_000  # hand-overs that a log may hold
_MARK = b'"action":"log.'  # in canonical JSON no string can hold it: its quotes would be escaped
_POINTING = (ACTION, "log.start", "log.stop")


@dataclass(frozen=True, slots=True)
class KeySpan:
    """Which entries a key stands for: from ``first`` up to, not including, ``end``; None: it is in force."""

    verifier: NoteVerifier
    first: int
    end: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOver:
    """What a hand-over says. :meth:`read` checks its form and that its own old key signed it; the place it stands at,
    and that this old key was in force, is for :class:`KeyChain`."""

    size: int
    root: bytes
    old: NoteVerifier
    new: NoteVerifier

    @staticmethod
    def sign(signer: NoteSigner, new: NoteVerifier, *, size: int, root: bytes) -> str:
        """The note for the entry at index ``size``."""
        text = f"{size}\n{base64.b64encode(root).decode()}\n{signer.vkey}\n{new}\n"
        return sign_note(signer, kind=KIND, text=text)

    @classmethod
    def read(cls, note: str) -> Self:
        """Raises ``IntegrityFailure`` (``log_key_mismatch``)."""
        try:
            header, size, root, old, new, end = note_text(note).split("\n")
            place = Checkpoint.parse(f"{header}\n{size}\n{root}\n{end}")
            said = cls(size=place.size, root=place.root, old=NoteVerifier.parse(old), new=NoteVerifier.parse(new))
            verify_note(said.old, note, kind=KIND)
        except (ValueError, ConfigurationError, IntegrityFailure):
            raise _mismatch("a hand-over is malformed or its signature wrong") from None
        if said.new.name != said.old.name:
            raise _mismatch("a hand-over names a key of another log")
        return said


class KeyChain:
    """The keys of a log, from the first on. ``known``: verifier keys from outside, oldest first; the log must use these, in
    this order, and may go on with more."""

    def __init__(self, known: Sequence[NoteVerifier]) -> None:
        if not known:
            raise ConfigurationError("a verifier key is needed", code="verifier_key_invalid")
        self._known = tuple(known)
        self.spans = [KeySpan(known[0], 0)]

    @property
    def newest(self) -> NoteVerifier:
        return self.spans[-1].verifier

    def follow(self, entry: bytes, grown: CompactRange) -> None:
        """``grown``: the entries before it. Passes over what concerns no key. Raises ``IntegrityFailure``
        (``log_key_mismatch``) with the member ``index``."""
        if _MARK not in entry:
            return
        event = parse_event(entry)
        if event.get("phase") != Phase.SYSTEM or event.get("action") not in _POINTING:
            return
        newest_at = self.spans[-1].first if len(self.spans) > 1 else None
        if event.get("key_at") != newest_at or isinstance(event.get("key_at"), bool):
            raise _mismatch("an entry names another hand-over than the newest one", {"index": grown.size})
        note = handover_of(entry)
        if note is not None:
            self._take(note, grown.size, grown.root())

    def _take(self, note: str, index: int, root: bytes) -> None:
        said = HandOver.read(note)
        at = {"index": index}
        if said.old != self.newest:
            raise _mismatch("a hand-over is not by the key that was in force", at)
        if (said.size, said.root) != (index, root):
            raise _mismatch("a hand-over belongs to another place or another log", at)
        if any(span.verifier == said.new for span in self.spans):
            raise _mismatch("a hand-over names a key that was in force before", at)
        if len(self._known) > len(self.spans) and self._known[len(self.spans)] != said.new:
            raise _mismatch("a hand-over names another key than the known one", at)
        self.spans[-1] = KeySpan(self.newest, self.spans[-1].first, index)
        self.spans.append(KeySpan(said.new, index))

    def require_complete(self) -> None:
        """That every known key was handed over to. Raises ``IntegrityFailure`` (``log_key_mismatch``)."""
        if len(self.spans) < len(self._known):
            raise _mismatch("the log holds no hand-over to the newest known key: it is an older state, or another log")


def handover_of(entry: bytes) -> str | None:
    """The note in an entry that is a hand-over; None for every other entry. Raises ``IntegrityFailure``."""
    if _MARK not in entry:
        return None
    event = parse_event(entry)
    if event.get("action") != ACTION or event.get("phase") != Phase.SYSTEM:
        return None
    note = event.get("handover")
    if not isinstance(note, str):
        raise _mismatch("an entry should be a hand-over and is none")
    return note


def parse_event(entry: bytes) -> dict[str, object]:
    """Raises ``IntegrityFailure`` (``log_damaged``)."""
    try:
        event = orjson.loads(entry)
    except orjson.JSONDecodeError:
        event = None
    if not isinstance(event, dict):
        raise IntegrityFailure("the log is damaged: an entry is no event", code="log_damaged")
    return event


def key_history(log: LogReader, tree: Tree, newest_at: int | None) -> list[tuple[int, HandOver]]:
    """The hand-overs, oldest first, read back from the newest one's index by what each says of the one before it. Each
    is compared with its leaf hash and its place. Raises ``IntegrityFailure``."""
    found: list[tuple[int, HandOver]] = []
    at, end = newest_at, log.head().size
    while at is not None:
        if not 0 <= at < end or len(found) >= keys_max:
            raise _mismatch("a hand-over is not where an entry says")
        (entry,), (leaf,) = log.entries(at, 1), log.leaf_hashes(at, 1)
        note = handover_of(entry)
        if leaf_hash(entry) != leaf or note is None:
            raise _mismatch("a hand-over is not where an entry says", {"index": at})
        said = HandOver.read(note)
        if (said.size, said.root) != (at, tree.root(at)) or (found and found[-1][1].old != said.new):
            raise _mismatch("a hand-over does not fit its place", {"index": at})
        found.append((at, said))
        before = parse_event(entry).get("key_at")
        end, at = at, before if isinstance(before, int) else None
    return found[::-1]


def spans_of(history: Sequence[tuple[int, HandOver]], first: NoteVerifier) -> list[KeySpan]:
    """``first``: the key where there was no hand-over."""
    if not history:
        return [KeySpan(first, 0)]
    starts = [(history[0][1].old, 0), *((said.new, at) for at, said in history)]
    ends = [*(at for at, _ in history), None]
    return [KeySpan(key, start, end) for (key, start), end in zip(starts, ends, strict=True)]


def parse_verifiers(text: str) -> tuple[NoteVerifier, ...]:
    """Verifier keys of one log, one a line, oldest first. Raises ``ConfigurationError`` (``verifier_key_invalid``)."""
    keys = tuple(NoteVerifier.parse(line.strip()) for line in text.splitlines() if line.strip())
    if not keys or len({key.name for key in keys}) > 1 or len({str(key) for key in keys}) < len(keys):
        raise ConfigurationError("verifier keys are one a line, of one log, each once", code="verifier_key_invalid")
    return keys


def _mismatch(what: str, members: dict[str, int] | None = None) -> IntegrityFailure:
    return IntegrityFailure(f"the log's signing keys do not fit: {what}", code="log_key_mismatch", members=members)


def require_new(new: NoteVerifier, spans: Sequence[KeySpan]) -> None:
    """That a log may be handed over to this key. Raises ``ConfigurationError`` (``log_signer_invalid``) for a key of another
    log, ``Conflict`` (``log_key_reused``) for one that was in force."""
    if new.name != spans[0].verifier.name:
        raise ConfigurationError("a log keeps its name when its key changes", code="log_signer_invalid")
    if any(span.verifier == new for span in spans):
        raise Conflict("a signing key that was in force before cannot be used again", code="log_key_reused")
