"""The door of index/: codes in memory, exact scores from sealed vectors. ``scan`` opens nothing; ``score`` opens
exactly what is named.

A position is a record's permanent number; a slot is its dense place in one FAISS index. Only this package knows slots.
Order everywhere: (-score, position).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from secure_embed.deadline import Deadline
from secure_embed.errors import InvalidRequest
from secure_embed.types import Attributes, Expression, Position, Positions, RowFilter, Ticket, Vectors

__all__ = [
    "Added",
    "Candidates",
    "Effort",
    "Erased",
    "Forgotten",
    "OpenVectors",
    "Scored",
    "Selection",
    "Shard",
    "every_list",
    "lists_untuned",
]


never = Deadline(math.inf)
candidates_max = 10_000
# What a filter leaves lies farther from the query and closer together, so more of it has to be opened for the same
# recall: docs/decisions/0021.
filtered_times, filtered_candidates_max = 8, 4_000
every_list = lists_max = 65_536
margin_untuned, margin_max = 3.0, 100.0


def lists_untuned(lists: int) -> int:
    """How many of a codebook's lists' worth is looked at where nothing was measured: an eighth, at least 16."""
    return max(16, -(-lists // 8))


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How far a search goes. Each collection has its own, measured on it (``collection tune``); this is what counts
    before. Raises ``InvalidRequest`` (``effort_invalid``)."""

    candidates: int = 200  # opened at most, where not all are and no filter applies
    lists: int | None = None  # lists' worth of allowed records to look at; None: an eighth of the lists, at least 16
    # Candidates are opened best estimate first, until the next would have to be this many standard deviations better
    # than its estimate to be among the k best. The deviation is that of the estimates opened so far.
    margin: float = margin_untuned

    def __post_init__(self) -> None:
        lists = 1 if self.lists is None else self.lists
        if not (1 <= self.candidates <= candidates_max and 1 <= lists <= lists_max and 0 < self.margin <= margin_max):
            raise InvalidRequest("a search's effort is out of bounds", code="effort_invalid")

    @property
    def candidates_filtered(self) -> int:
        """Opened at most behind a filter: eight times as many, up to 4,000."""
        return max(self.candidates, min(filtered_times * self.candidates, filtered_candidates_max))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Added:
    sequence: int
    positions: Positions  # (n,) int64
    vectors: Vectors  # (n, d) float32, unit length; not kept: only their codes are
    attributes: Sequence[Attributes]  # n


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    sequence: int
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selection:
    """Which records may answer: what the row filter from policy and the caller's own filter leave."""

    # A bit for each slot, little end first, as faiss.IDSelectorBitmap reads it. None: every record may answer.
    bitmap: npt.NDArray[np.uint8] | None
    count: int  # records that both filters leave
    permitted: int  # records that the row filter alone leaves
    version: int  # of the shard it was made from


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    positions: Positions  # (n,) int64, best estimate first
    estimates: npt.NDArray[np.float32]  # (n,) float32, estimated cosine
    exhaustive: bool  # True: these are all the records of the selection, to be opened all: exact search
    margin_min: float = 0.0  # how far from them, at least, opening goes on: see Effort.margin
    looked: int = 0  # codes of records that may answer that were compared with the query


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    positions: Positions  # (n,) int64, ordered by (-score, position)
    scores: npt.NDArray[np.float32]  # (n,) float32, exact cosine of the stored fp16 vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    removed: int
    version: int


class OpenVectors(Protocol):
    """Opens the named records' sealed vectors: the vault joins store and keys into one."""

    def __call__(self, at: Positions, out: npt.NDArray[np.float16]) -> npt.NDArray[np.bool_]:
        """Fill ``out`` (n, d) row by row; the (n,) answer says which rows were there. An erased record is False.

        Raises ``SealedValueUnreadable`` for a row that is there and does not open.
        """
        ...


class Shard(Protocol):
    """One collection's codes in one process. Readers run side by side and never see half an update."""

    @property
    def version(self) -> int:
        """Sequence number of the last change applied."""
        ...

    @property
    def size(self) -> int:
        """Records in it."""
        ...

    def select(self, rows: RowFilter, own: Expression | None) -> Selection:
        """Raises ``InvalidRequest`` (``filter_invalid``) for an undeclared attribute or a wrong type in ``own``."""
        ...

    def scan(
        self, query: Vectors, selection: Selection, *, k: int, effort: Effort, deadline: Deadline = never
    ) -> Candidates:
        """``query``: (1, d) float32, unit length. At most ``effort.candidates``, or k, or all of a small selection."""
        ...

    def nearest(
        self,
        found: Candidates,
        query: Vectors,
        *,
        k: int,
        effort: Effort,
        ticket: Ticket,
        deadline: Deadline = never,
    ) -> Scored:
        """Open, score and wipe, best estimate first, until no other candidate is likely to be among the k best."""
        ...

    def search(
        self,
        query: Vectors,
        selection: Selection,
        *,
        k: int,
        effort: Effort,
        ticket: Ticket,
        deadline: Deadline = never,
    ) -> Scored:
        """:meth:`scan` and :meth:`nearest`; callers who come at the same time are answered together."""
        ...

    def score(self, at: Positions, query: Vectors, *, ticket: Ticket, deadline: Deadline = never) -> Scored:
        """Open, score and wipe. Positions that were erased meanwhile are absent from the answer."""
        ...

    def apply(self, changes: Sequence[Added | Erased]) -> int:
        """Idempotent (known sequences are passed over), in order; raises ``Conflict`` (``change_gap``) for a gap."""
        ...

    def forget(self, positions: Sequence[Position], *, version: int, ticket: Ticket) -> Forgotten:
        """The codes' bytes are overwritten before it returns. ``version``: sequence of the last erasure in it."""
        ...
