"""Exact scores from sealed vectors: open, score, wipe, a block at a time in buffers that belong to the thread.

What is wiped: the fp16 and float32 buffers, whatever happens. What cannot be: copies that a CPU or the kernel keeps.
"""

import threading

import numpy as np
import numpy.typing as npt

from secure_embed.errors import IntegrityFailure
from secure_embed.index.protocol import OpenVectors, Scored
from secure_embed.types import Positions, Vectors

__all__ = ["Rescorer"]

block_vectors = 256  # open at once: 1.5 MiB at 1,024 dimensions, within a core's cache


class Rescorer:
    def __init__(self, open_vectors: OpenVectors, dimension: int) -> None:
        self._open_vectors = open_vectors
        self._dimension = dimension
        self._buffers = threading.local()

    def _block(self) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float32]]:
        if not hasattr(self._buffers, "halves"):
            self._buffers.halves = np.zeros((block_vectors, self._dimension), np.float16)
            self._buffers.singles = np.zeros((block_vectors, self._dimension), np.float32)
        return self._buffers.halves, self._buffers.singles

    def score(self, at: Positions, query: Vectors) -> Scored:
        """``at``: (n,) int64, ascending, each once. ``query``: (1, d) float32, finite, not zero."""
        present = np.zeros(len(at), np.bool_)
        scores = np.zeros(len(at), np.float32)
        unit = query[0] / np.linalg.norm(query[0])
        for start in range(0, len(at), block_vectors):
            block = slice(start, min(start + block_vectors, len(at)))
            present[block], scores[block] = self._score_block(at[block], unit)
        at, scores = at[present], scores[present]
        if not np.isfinite(scores).all():
            raise IntegrityFailure("a stored vector is not finite", code="stored_vector_invalid")
        order = np.lexsort((at, -scores))
        return Scored(positions=at[order], scores=scores[order])

    def _score_block(
        self, at: Positions, unit: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
        all_halves, all_singles = self._block()
        halves, singles = all_halves[: len(at)], all_singles[: len(at)]
        try:
            present = np.asarray(self._open_vectors(at, halves), np.bool_)
            singles[:] = halves
            # vecdot goes row by row, so that a score never depends on which other records are scored beside it.
            with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused by the caller
                lengths = np.sqrt(np.vecdot(singles, singles))
                cosines = np.vecdot(singles, unit) / np.where(lengths == 0, 1, lengths)
            return present, cosines.astype(np.float32)
        finally:
            halves.fill(0)
            singles.fill(0)
