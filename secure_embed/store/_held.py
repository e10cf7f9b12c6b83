"""One collection that is open: its numbers, its segments, and how it is read.

``writing`` is the store's lock for those who write. Readers take it only to build what is held in memory, and to wait
while a segment's next generation takes the place of the one before.
"""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Collection as AnyCollection
from threading import RLock
from typing import TypeVar
from uuid import UUID

import numpy as np
import numpy.typing as npt

from secure_embed.errors import IntegrityFailure, NotFound, SecureEmbedError
from secure_embed.keys import SealedDatabase
from secure_embed.store import _rows
from secure_embed.store._memory import Ends, Presence, TagIndex, tag_bytes
from secure_embed.store._schema import ends, position_limit, records
from secure_embed.store._segments import Segments
from secure_embed.store.protocol import SealedRow
from secure_embed.types import Field, Position, Positions

__all__ = ["ADDED", "ERASED", "RESEALED", "Held", "no_collection"]

ADDED, ERASED, RESEALED = range(3)  # change.kind

Answer = TypeVar("Answer")


def no_collection() -> NotFound:
    return NotFound("there is no such collection", code="collection_not_found")


class Held:
    """``flips`` is odd while a segment's next generation takes the place of the one before, and even otherwise.
    ``ended``: it answers nothing more."""

    def __init__(self, database: SealedDatabase, writing: RLock, number: int, uuid: UUID, segments: Segments) -> None:
        self.number = number
        self.uuid = uuid
        self.segments = segments
        self.flips = 0
        self.ended = False
        self._database = database
        self._writing = writing
        self._presence: Presence | None = None
        self._ends: Ends | None = None
        self._tags: TagIndex | None = None

    # --- what is held in memory --------------------------------------------------------------------------------------

    def presence(self) -> Presence:
        """Raises ``IntegrityFailure`` (``rows_altered``), as the two below do."""
        if self._presence is None:
            with self._writing:  # no commit between the look and the publishing
                self._presence = self._presence or Presence(records.all(self._database, self.number))
        return self._presence

    def ends(self) -> Ends:
        if self._ends is None:
            with self._writing:
                self._ends = self._ends or Ends(ends.all(self._database, self.number))
        return self._ends

    def tags(self) -> TagIndex:
        if self._tags is None:
            with self._writing:
                presence, index = self.presence(), TagIndex()
                there = presence.after(-1, position_limit)
                index.add(there, presence.tags(there))
                self._tags = self._tags or index
        return self._tags

    def let_go(self) -> None:
        with self._writing:  # who changes rows keeps both up to date
            self._presence = self._tags = None

    # --- reading ---------------------------------------------------------------------------------------------------

    def consistent(self, read: Callable[[], Answer]) -> Answer:
        """What ``read`` gives, with no segment's generation changing meanwhile; read again when one did."""
        while True:
            before = self.flips
            if before % 2:
                with self._writing:  # until the change is through
                    continue
            try:
                answer = read()
            except SecureEmbedError:
                if self.ended:  # not found, rather than damaged
                    raise no_collection() from None
                if self.flips == before:
                    raise
            else:
                if self.flips == before:
                    return answer

    def fetch(self, at: Sequence[Position], fields: AnyCollection[Field]) -> Mapping[Position, SealedRow]:
        asked = np.unique(np.array([int(p) for p in at if 0 <= p < position_limit], np.int64))
        return {row.position: row for row in self.consistent(lambda: self._read(asked, fields))}

    def scan(self, fields: AnyCollection[Field], after: Position, limit: int) -> Sequence[SealedRow]:
        following: int = after
        while True:
            asked = self.presence().after(min(following, position_limit), max(limit, 0))
            rows = self.consistent(lambda asked=asked: self._read(asked, fields))  # type: ignore[misc]
            if rows or not len(asked):  # all of them may have been erased meanwhile
                return rows
            following = int(asked[-1])

    def _read(self, asked: Positions, fields: AnyCollection[Field]) -> list[SealedRow]:
        """``asked`` ascends."""
        presence = self.presence()
        asked = asked[presence.at(asked)]
        id_tags, expires = presence.tags(asked).tobytes(), self.ends().at(asked)
        values = _rows.values(self._database, self.number, fields, asked.tolist())
        sealed, kept = self._vectors(asked) if Field.VECTOR in fields else (None, presence.at(asked))
        rows, lost = list[SealedRow](), list[int]()
        for n, (position, is_kept) in enumerate(zip(asked.tolist(), kept.tolist(), strict=True)):
            if not is_kept:  # erased while we read
                continue
            if (of_row := values.get(position)) is None:
                lost.append(position)
                continue
            if sealed is not None:
                of_row[Field.VECTOR] = sealed[n].tobytes()
            tag = id_tags[tag_bytes * n : tag_bytes * (n + 1)]
            rows.append(SealedRow(position=position, id_tag=tag, fields=of_row, expires_unix=expires[n]))
        self._require_gone(lost)
        return rows

    def _require_gone(self, at: list[int]) -> None:
        """Values that a record lacks: its erasure is committed, and memory follows in a moment; or they were taken away."""
        if not at:
            return
        with self._writing:
            still = self.presence().at(np.array(at, np.int64))
        if still.any():
            first = at[int(np.argmax(still))]
            raise IntegrityFailure(
                f"rows of data.db, text or metadata of {self.number}, position {first}, are not there",
                code="rows_altered",
            )

    def vectors(self, at: Positions) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        return self.consistent(lambda: self._vectors(at))

    def _vectors(self, at: Positions) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        presence = self.presence()
        present = presence.at(at)
        if np.count_nonzero(present) == len(at):
            out = np.empty((len(at), self.segments.slot_bytes), np.uint8)
            self.segments.read(at, out)
        else:
            out = np.zeros((len(at), self.segments.slot_bytes), np.uint8)
            part = np.empty((int(present.sum()), out.shape[1]), np.uint8)
            self.segments.read(at[present], part)
            out[present] = part
        # Asked once more: an erasure marks a record as gone before it overwrites the slot.
        kept = present & presence.at(at)
        if np.count_nonzero(kept) < len(at):
            out[~kept] = 0
        return out, kept

    def locate(self, id_tags: Sequence[bytes]) -> Mapping[bytes, Position]:
        asked, presence = set(id_tags), self.presence()
        at = np.array(self.tags().candidates(list(asked)), np.int64)
        found = zip(at.tolist(), presence.tags(at), presence.at(at), strict=True)
        there = {tag.tobytes(): Position(position) for position, tag, is_there in found if is_there}
        return {tag: position for tag, position in there.items() if tag in asked}
