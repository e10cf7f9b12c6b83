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

from secure_embed.errors import NotFound, SecureEmbedError
from secure_embed.keys import SealedDatabase
from secure_embed.store import _rows
from secure_embed.store._memory import Presence, TagIndex
from secure_embed.store._rows import Columns, Row
from secure_embed.store._schema import position_limit
from secure_embed.store._segments import Segments
from secure_embed.store.protocol import SealedRow
from secure_embed.types import Field, Position, Positions

__all__ = ["ADDED", "ERASED", "RESEALED", "Held", "no_collection"]

ADDED, ERASED, RESEALED = range(3)  # change.kind
load_tags = 50_000

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
        self._tags: TagIndex | None = None

    # --- what is held in memory --------------------------------------------------------------------------------------

    def presence(self) -> Presence:
        if self._presence is None:
            with self._writing:  # no commit between the look and the publishing
                presence = Presence()
                sql = "SELECT kind, first, count FROM change WHERE collection = ? AND kind <> ? ORDER BY sequence"
                found: list[Row] = self._database.rows(sql, (self.number, RESEALED))
                for kind, first, count in found:
                    if kind == ADDED:
                        presence.add(first, count)
                    else:
                        presence.drop([first])
                self._presence = self._presence or presence
        return self._presence

    def tags(self) -> TagIndex:
        if self._tags is None:
            with self._writing:
                index, after = TagIndex(), -1
                sql = f"""SELECT position, id_tag FROM record_{self.number}
                    WHERE position > ? AND NOT erased ORDER BY position LIMIT {load_tags}"""
                while found := self._database.rows(sql, (after,)):
                    rows: list[Row] = found
                    index.add([at for at, _ in rows], [tag for _, tag in rows])
                    after = rows[-1][0]
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
        columns, asked = Columns(self.number, fields), _rows.numbers(at)
        rows = self.consistent(lambda: self._joined(columns, columns.at_positions, (asked,), Field.VECTOR in fields))
        return {row.position: row for row in rows}

    def scan(self, fields: AnyCollection[Field], after: Position, limit: int) -> Sequence[SealedRow]:
        columns, bounds = Columns(self.number, fields), (min(max(after + 1, 0), position_limit), max(limit, 0))
        return self.consistent(lambda: self._joined(columns, columns.in_order, bounds, Field.VECTOR in fields))

    def _joined(self, columns: Columns, sql: str, parameters: Sequence[int | str], vectors: bool) -> list[SealedRow]:
        found: list[Row] = self._database.rows(sql, parameters)
        if not vectors:
            return [columns.row(row, None) for row in found]
        sealed, present = self._vectors(np.array([row[0] for row in found], np.int64))
        return [columns.row(row, sealed[n].tobytes()) for n, row in enumerate(found) if present[n]]

    def vectors(self, at: Positions) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        return self.consistent(lambda: self._vectors(at))

    def _vectors(self, at: Positions) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        presence = self.presence()
        present = presence.at(at)
        out = np.zeros((len(at), self.segments.slot_bytes), np.uint8)
        if present.all():
            self.segments.read(at, out)
        else:
            part = np.zeros((int(present.sum()), out.shape[1]), np.uint8)
            self.segments.read(at[present], part)
            out[present] = part
        # Asked once more: an erasure marks a record as gone before it overwrites the slot.
        kept = present & presence.at(at)
        out[present & ~kept] = 0
        return out, kept

    def locate(self, id_tags: Sequence[bytes]) -> Mapping[bytes, Position]:
        asked = set(id_tags)
        found = _rows.matching(self._database, self.number, self.tags().candidates(list(asked)))
        return {tag: position for tag, position in found.items() if tag in asked}
