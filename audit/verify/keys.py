"""The signing keys of a log, from the first on (docs/log-format.md, "Another signing key").

Only the first key is believed. Each next one is in force because the one before it signed it into the log, at that place
of that log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .notes import (
    Checkpoint,
    Key,
    KeyInvalid,
    NoteInvalid,
    open_checkpoint,
    open_note,
    open_statement,
    read_checkpoint,
    split_note,
)

KIND = "log-key"
KEYS_MAX = 10_000


class HandOverInvalid(Exception):
    """The message says what is wrong."""


@dataclass
class Span:
    key: Key
    first: int  # the first entry it stands for
    end: int | None = None  # the entry with its successor's hand-over; None: it is in force


@dataclass(frozen=True)
class HandOver:
    place: Checkpoint
    old: Key
    new: Key


def read_handover(note: str) -> HandOver:
    """What it says; its signature is checked by the old key that it names. Raises HandOverInvalid."""
    try:
        lines = split_note(note)[0].split("\n")
        if len(lines) != 6 or lines[5]:
            raise HandOverInvalid("its hand-over has another form")
        place = read_checkpoint("\n".join([*lines[:3], ""]))
        old, new = Key.parse(lines[3]), Key.parse(lines[4])
        open_statement(note, old, KIND)
    except (NoteInvalid, KeyInvalid) as fault:
        raise HandOverInvalid(f"its hand-over does not hold: {fault}") from None
    return HandOver(place, old, new)


class Chain:
    def __init__(self, known: Sequence[Key]) -> None:
        """``known``: from outside, oldest first. The log must have had these, in this order, and may have had more since."""
        self._known = list(known)
        self.spans = [Span(known[0], 0)]

    @property
    def newest_at(self) -> int | None:
        """Index of the newest hand-over."""
        return self.spans[-1].first if len(self.spans) > 1 else None

    def take(self, index: int, note: object, root: bytes | None) -> None:
        """The hand-over in entry ``index``; ``root``: of the entries before it, None where it cannot be derived. Raises
        HandOverInvalid; then nothing was handed over."""
        if not isinstance(note, str):
            raise HandOverInvalid("it holds no hand-over")
        said = read_handover(note)
        if said.old != self.spans[-1].key:
            raise HandOverInvalid("its hand-over is not by the key that was in force")
        if said.place.size != index or root is None or said.place.root != root:
            raise HandOverInvalid("its hand-over belongs to another place or another log")
        if said.new.name != said.old.name:
            raise HandOverInvalid("its hand-over is to a key of another name")
        if len(self.spans) > KEYS_MAX:
            raise HandOverInvalid("the log holds too many hand-overs")
        if any(said.new == span.key for span in self.spans):
            raise HandOverInvalid("its hand-over is to a key that was in force before")
        if len(self._known) > len(self.spans) and self._known[len(self.spans)] != said.new:
            raise HandOverInvalid("its hand-over is to another key than the given one")
        self.spans[-1].end = index
        self.spans.append(Span(said.new, index))

    def missing(self) -> int:
        """How many of the given keys the log does not hand over to."""
        return max(len(self._known) - len(self.spans), 0)

    def key_at(self, size: int) -> Key:
        """The key in force once the entries before ``size`` are read."""
        return next(span.key for span in reversed(self.spans) if span.first < size or span is self.spans[0])

    def open_checkpoint(self, note: str) -> Checkpoint:
        """Raises NoteInvalid unless the key signed it that was in force at its size."""
        said = read_checkpoint(split_note(note)[0])
        try:
            return open_checkpoint(note, self.key_at(said.size))
        except NoteInvalid as fault:
            if any(_opens(note, span.key) for span in self.spans):
                raise NoteInvalid("it is signed by a key that was not in force at its size") from None
            raise NoteInvalid(str(fault)) from None

    def open_statement(self, note: str, kind: str) -> tuple[str, Span]:
        """The text, and the newest key that signed it. Raises NoteInvalid."""
        for span in reversed(self.spans[1:]):
            if _opens(note, span.key):
                return open_statement(note, span.key, kind), span
        return open_statement(note, self.spans[0].key, kind), self.spans[0]


def _opens(note: str, key: Key) -> bool:
    try:
        open_note(note, key)
    except NoteInvalid:
        return False
    return True


def parse_keys(text: str) -> list[Key]:
    """The keys of one log, one a line, oldest first. Raises KeyInvalid."""
    keys = [Key.parse(line.strip()) for line in text.splitlines() if line.strip()]
    if not keys or len({key.name for key in keys}) > 1 or len(set(keys)) < len(keys):
        raise KeyInvalid("the file does not hold the keys of one log, one a line, each once")
    return keys
