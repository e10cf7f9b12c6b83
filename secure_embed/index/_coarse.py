"""A matrix as one byte a value, for products that need not be exact: a fourth of the memory to go through for each query.

A value is off by 0.8 % of its row's deviation (the step is the largest value / 127, and values are about normal), so a
product of unit vectors of d dimensions is off by 0.008 / sqrt(d): little beside what an estimate by one-bit codes is.
"""

import numpy as np
import numpy.typing as npt

from secure_embed import bulk

__all__ = ["CoarseMatrix"]

Floats = npt.NDArray[np.float32]
largest = 127


class CoarseMatrix:
    """Where nothing is compiled it is the matrix itself."""

    def __init__(self, rows: Floats) -> None:
        """``rows``: (n, d) float32, d at most 4,096."""
        self._rows = rows
        self._table: tuple[npt.NDArray[np.int8], Floats] | None = None
        if bulk.compiled():
            steps = np.abs(rows).max(axis=1) / largest
            steps[steps == 0] = 1
            rounded = np.rint(rows / steps[:, np.newaxis]).astype(np.int8)
            self._table = np.ascontiguousarray(rounded), steps.astype(np.float32)

    @property
    def table(self) -> tuple[npt.NDArray[np.int8], Floats]:
        """(n, d) int8, in steps (n,) float32 of each row. Only where it is compiled."""
        assert self._table is not None
        return self._table

    @property
    def memory_bytes(self) -> int:
        return 0 if self._table is None else sum(part.nbytes for part in self._table)

    def products(self, queries: Floats) -> Floats:
        """``queries``: (m, d) float32, finite. (m, n) float32, C-contiguous, each query's the same whatever others come with it."""
        if self._table is None:
            # One product of a matrix and a vector each: products of two matrices depend on the company.
            exact: Floats = (self._rows @ queries[:, :, np.newaxis])[:, :, 0]
            return np.ascontiguousarray(exact)
        products = np.empty((len(queries), len(self._rows)), np.float32)
        bulk.coarse_products(*self._table, np.ascontiguousarray(queries), products)
        return products
