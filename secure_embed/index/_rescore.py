"""Exact scores from sealed vectors: open, score, wipe, a block at a time in a buffer that belongs to the thread.

Candidates of a scan come with estimates, and each opening shows how far estimates are off. So the best are opened
first, and the rest stays sealed once it is unlikely to matter: less time, and fewer vectors in the plain.

What is wiped: the buffer, whatever happens. What cannot be: copies that a CPU or the kernel keeps.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secure_embed import bulk
from secure_embed.deadline import Deadline
from secure_embed.errors import IntegrityFailure
from secure_embed.index.protocol import OpenVectors, Scored
from secure_embed.types import Positions, Vectors

__all__ = ["Estimated", "Rescorer"]

Floats = npt.NDArray[np.float32]
Bits = npt.NDArray[np.bool_]

block_vectors = 256  # open at once: 0.5 MiB at 1,024 dimensions, within a core's cache
# Enough openings to tell the estimates' deviation from, and to leave little for a second round.
first_block_min = 48
round_openings = 16  # what a round costs beside its openings, in openings: fewer than that are not left for another
# A code's estimate is off by about 0.75 residual lengths / sqrt(dimension) (RaBitQ, theorem 3.2); this much of it is
# assumed when the openings agree by chance, as those of copies do.
deviation_min = 0.1
square_end = np.float32(65_536.0**2)  # a vector with a component beyond binary16 is longer than this


@dataclass(slots=True, kw_only=True, eq=False)
class Estimated:
    """One query's candidates: open from the front until the k-th best score is ``margin`` deviations above the next
    estimate; all of them where that never happens."""

    at: Positions  # (n,) int64, each once, best estimate first
    estimates: Floats  # (n,) float32
    query: Vectors  # (1, d) float32, finite, not zero
    k: int
    margin: float
    deadline: Deadline


class Rescorer:
    def __init__(self, open_vectors: OpenVectors, dimension: int) -> None:
        self._open_vectors = open_vectors
        self._dimension = dimension
        self._deviation_min = deviation_min / float(np.sqrt(dimension))
        self._buffers = threading.local()

    def score(self, at: Positions, query: Vectors, deadline: Deadline) -> Scored:
        """``at``: (n,) int64, ascending, each once. ``query``: (1, d) float32, finite, not zero."""
        present = np.zeros(len(at), np.bool_)
        scores = np.zeros(len(at), np.float32)
        unit = _unit(query)
        query_of = np.zeros(min(len(at), block_vectors), np.int32)
        for start in range(0, len(at), block_vectors):
            deadline.require()
            block = slice(start, min(start + block_vectors, len(at)))
            here = at[block]
            present[block], scores[block] = self._score_block(here, query_of[: len(here)], unit)
        return _ordered(at[present], scores[present])

    def best(self, asked: Sequence[Estimated]) -> list[Scored | None]:
        """Each query's best, opened side by side. None: its time is up, where it is not the only one."""
        units = np.concatenate([_unit(each.query) for each in asked])
        openings = [_Opening(number, each, self._deviation_min) for number, each in enumerate(asked)]
        open_now = openings
        while open_now := [each for each in open_now if not each.done and each.in_time(alone=len(asked) == 1)]:
            self._round(open_now, units)
        return [each.scored() for each in openings]

    def _round(self, openings: "Sequence[_Opening]", units: Floats) -> None:
        parts = [each.part(block_vectors // len(openings)) for each in openings]
        lengths = [part.stop - part.start for part in parts]
        at = np.concatenate([each.asked.at[part] for each, part in zip(openings, parts, strict=True)])
        query_of = np.array([each.number for each in openings], np.int32).repeat(lengths)
        order = at.argsort()  # neighbours in a file are one read
        present, scores = np.empty(len(at), np.bool_), np.empty(len(at), np.float32)
        present[order], scores[order] = self._score_block(at[order], query_of[order], units)
        start = 0
        for each, part, length in zip(openings, parts, lengths, strict=True):
            each.take(part, present[start : start + length], scores[start : start + length])
            start += length

    def _score_block(self, at: Positions, query_of: npt.NDArray[np.int32], units: Floats) -> tuple[Bits, Floats]:
        if not hasattr(self._buffers, "halves"):
            self._buffers.halves = np.zeros((block_vectors, self._dimension), np.float16)
        halves = self._buffers.halves[: len(at)]
        products, squares = np.empty(len(at), np.float32), np.empty(len(at), np.float32)
        try:
            present = self._open_vectors(at, halves)
            if not bulk.score_halves(halves, units, query_of, products, squares):
                _score_singles(halves, units, query_of, products, squares)
        except BaseException:
            halves.fill(0)
            raise
        if np.count_nonzero(squares < square_end) < len(at):  # NaN is not less
            raise IntegrityFailure("a stored vector is not finite", code="stored_vector_invalid")
        np.copyto(squares, 1, where=squares == 0)
        np.divide(products, np.sqrt(squares), out=products)
        return present, products


class _Opening:
    """How far one query has come."""

    def __init__(self, number: int, asked: Estimated, deviation_min: float) -> None:
        self.number = number
        self.asked = asked
        self._deviation_min = deviation_min
        self._present = np.zeros(len(asked.at), np.bool_)
        self._scores = np.zeros(len(asked.at), np.float32)
        self._opened = 0
        self._round_end = 0
        self._until(max(first_block_min, 2 * asked.k))
        self._late = False

    @property
    def done(self) -> bool:
        return self._opened == self._round_end

    def in_time(self, *, alone: bool) -> bool:
        """Raises where it is alone: ``Unavailable``."""
        if alone:
            self.asked.deadline.require()
        else:
            self._late = self.asked.deadline.over
        return not self._late

    def part(self, most: int) -> slice:
        """The next candidates to open, of this round."""
        return slice(self._opened, min(self._round_end, self._opened + most))

    def take(self, part: slice, present: Bits, scores: Floats) -> None:
        self._present[part], self._scores[part] = present, scores
        self._opened = part.stop
        if self._opened == self._round_end < len(self.asked.at):
            self._until(self._likely())

    def _until(self, wanted: int) -> None:
        """Ends of rounds hang on this query alone, not on how much of a round its company leaves it at a time."""
        count = len(self.asked.at)
        end = count if wanted + round_openings >= count else max(wanted, self._opened)
        self._round_end = min(end, self._opened + block_vectors)

    def _likely(self) -> int:
        """How many candidates, from the best estimate on, have to be opened by what the opened ones say."""
        known, estimates = self._scores[: self._opened], self.asked.estimates
        guessed, present = estimates[: self._opened], self._present[: self._opened]
        if not present.all():
            known, guessed = known[present], guessed[present]
        if len(known) < self.asked.k:
            return len(estimates)
        errors = known - guessed
        mean = float(errors.sum()) / len(errors)
        deviation = max(float(errors @ errors) / len(errors) - mean * mean, 0.0) ** 0.5
        kth = float(np.partition(known, -self.asked.k)[-self.asked.k])
        reach = kth - max(mean, 0.0) - self.asked.margin * max(deviation, self._deviation_min)
        return len(estimates) - int(np.searchsorted(estimates[::-1], reach))

    def scored(self) -> Scored | None:
        if self._late:
            return None
        at, scores = self.asked.at, self._scores
        if np.count_nonzero(self._present) < len(at):
            at, scores = at[self._present], scores[self._present]
        return _ordered(at, scores)


def _unit(query: Vectors) -> Floats:
    return np.ascontiguousarray(query / np.sqrt(np.vecdot(query, query)))


def _score_singles(
    halves: npt.NDArray[np.float16],
    units: Floats,
    query_of: npt.NDArray[np.int32],
    products: Floats,
    squares: Floats,
) -> None:
    """What :func:`bulk.score_halves` does, where it is not compiled."""
    singles = halves.astype(np.float32)
    halves.fill(0)
    singles[~np.isfinite(singles)] = 65_536
    # vecdot goes row by row, so that a score never depends on which other records are scored beside it.
    np.vecdot(singles, singles, out=squares)
    np.vecdot(singles, units[query_of], out=products)
    singles.fill(0)


def _ordered(at: Positions, scores: Floats) -> Scored:
    order = np.lexsort((at, -scores))
    return Scored(positions=at[order], scores=scores[order])
