"""Exact scores from sealed vectors: open, score, wipe, a block at a time in buffers that belong to the thread.

Candidates of a scan come with estimates, and each opening shows how far estimates are off. So the best are opened
first, and the rest stays sealed once it is unlikely to matter: less time, and fewer vectors in the plain.

What is wiped: the fp16 and float32 buffers, whatever happens. What cannot be: copies that a CPU or the kernel keeps.
"""

import threading

import numpy as np
import numpy.typing as npt

from secure_embed.deadline import Deadline
from secure_embed.errors import IntegrityFailure
from secure_embed.index.protocol import OpenVectors, Scored
from secure_embed.types import Positions, Vectors

__all__ = ["Rescorer"]

# Opening is mostly Python, which runs one thread at a time. Threads that open side by side hand its lock to and fro at
# every read of a slot: 8 callers got 276 answers a second that way, and 578 with this; one alone gets 753.
one_opens = threading.Lock()
block_vectors = 256  # open at once: 1.5 MiB at 1,024 dimensions, within a core's cache
# Enough openings to tell the estimates' deviation from, and to leave little for a second round.
first_block_min = 48
round_openings = 16  # what a round costs beside its openings, in openings: fewer than that are not left for another
# A code's estimate is off by about 0.75 residual lengths / sqrt(dimension) (RaBitQ, theorem 3.2); this much of it is
# assumed when the openings agree by chance, as those of copies do.
deviation_min = 0.1
places = np.uint32(0x8FFFE000).view(np.int32)  # sign, exponent and fraction of a binary16 in a binary32
bias = np.float32(2.0**112)
square_end = np.float32(65_536.0**2)  # a vector with a component beyond binary16 is longer than this


class Rescorer:
    def __init__(self, open_vectors: OpenVectors, dimension: int) -> None:
        self._open_vectors = open_vectors
        self._dimension = dimension
        self._deviation_min = deviation_min / float(np.sqrt(dimension))
        self._buffers = threading.local()

    def _block(self) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float32]]:
        if not hasattr(self._buffers, "halves"):
            self._buffers.halves = np.zeros((block_vectors, self._dimension), np.float16)
            self._buffers.singles = np.zeros((block_vectors, self._dimension), np.float32)
        return self._buffers.halves, self._buffers.singles

    def score(self, at: Positions, query: Vectors, deadline: Deadline) -> Scored:
        """``at``: (n,) int64, ascending, each once. ``query``: (1, d) float32, finite, not zero."""
        present = np.zeros(len(at), np.bool_)
        scores = np.zeros(len(at), np.float32)
        unit = query[0] / np.linalg.norm(query[0])
        for start in range(0, len(at), block_vectors):
            deadline.require()
            block = slice(start, min(start + block_vectors, len(at)))
            present[block], scores[block] = self._score_block(at[block], unit)
        return _ordered(at[present], scores[present])

    def best(
        self,
        at: Positions,
        estimates: npt.NDArray[np.float32],
        query: Vectors,
        *,
        k: int,
        margin: float,
        deadline: Deadline,
    ) -> Scored:
        """``at``: (n,) int64, each once, best estimate first; ``estimates``: (n,) float32. Opens from the front until the
        k-th best score is ``margin`` deviations above the next estimate; all of them where that never happens."""
        present = np.zeros(len(at), np.bool_)
        scores = np.zeros(len(at), np.float32)
        unit = query[0] / np.linalg.norm(query[0])
        opened, wanted = 0, max(first_block_min, 2 * k)
        while opened < len(at) and opened < wanted:
            deadline.require()
            end = len(at) if wanted + round_openings >= len(at) else wanted
            block = slice(opened, min(end, opened + block_vectors))
            order = at[block].argsort() + opened  # neighbours in a file are one read
            present[order], scores[order] = self._score_block(at[order], unit)
            opened = block.stop
            wanted = self._likely(scores[:opened], estimates, present[:opened], k, margin)
        return _ordered(at[present], scores[present])

    def _likely(
        self,
        scores: npt.NDArray[np.float32],
        estimates: npt.NDArray[np.float32],
        present: npt.NDArray[np.bool_],
        k: int,
        margin: float,
    ) -> int:
        """How many candidates, from the best estimate on, have to be opened by what the first ``scores`` say."""
        known, guessed = scores, estimates[: len(scores)]
        if not present.all():
            known, guessed = known[present], guessed[present]
        if len(known) < k:
            return len(estimates)
        errors = known - guessed
        mean = float(errors.sum()) / len(errors)
        deviation = max(float(errors @ errors) / len(errors) - mean * mean, 0.0) ** 0.5
        kth = float(np.partition(known, -k)[-k])
        reach = kth - max(mean, 0.0) - margin * max(deviation, self._deviation_min)
        return len(estimates) - int(np.searchsorted(estimates[::-1], reach))

    def _score_block(
        self, at: Positions, unit: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
        all_halves, all_singles = self._block()
        halves, singles = all_halves[: len(at)], all_singles[: len(at)]
        with one_opens:
            return self._scored(at, unit, halves, singles)

    def _scored(
        self,
        at: Positions,
        unit: npt.NDArray[np.float32],
        halves: npt.NDArray[np.float16],
        singles: npt.NDArray[np.float32],
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
        try:
            present = self._open_vectors(at, halves)
            _widen(halves, singles)
            # vecdot goes row by row, so that a score never depends on which other records are scored beside it.
            squares, products = np.vecdot(singles, singles), np.vecdot(singles, unit)
            if not (squares < square_end).all():
                raise IntegrityFailure("a stored vector is not finite", code="stored_vector_invalid")
            squares[squares == 0] = 1
            return present, products / np.sqrt(squares)
        finally:
            halves.fill(0)
            singles.fill(0)


def _widen(halves: npt.NDArray[np.float16], singles: npt.NDArray[np.float32]) -> None:
    """binary16 to binary32 (IEEE 754), exactly, and infinity and NaN to 65,536 and more. NumPy's own conversion is not
    vectorised: 81 us for 48 vectors of 1,024, where this takes 15.

    The sign stays on top (shifting an extended sign leaves copies, which the mask clears), exponent and fraction move to
    their places, and one multiplication mends the exponents' bias (127 - 15).
    """
    bits = singles.view(np.int32)
    np.copyto(bits, halves.view(np.int16))
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, places, out=bits)
    np.multiply(singles, bias, out=singles)


def _ordered(at: Positions, scores: npt.NDArray[np.float32]) -> Scored:
    order = np.lexsort((at, -scores))
    return Scored(positions=at[order], scores=scores[order])
