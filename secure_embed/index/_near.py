"""Which lists of codes a query looks into: the nearest that together hold enough of what may answer.

The narrower a filter, the more lists. Which ones depends on the records that may answer, and on the codebook, alone.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from secure_embed import bulk
from secure_embed.index._coarse import CoarseMatrix
from secure_embed.index.codebook import Codebook

__all__ = ["NearLists", "coded_lists_min"]

Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
# The nearest of a codebook's centroids by their own codes: a turned query (d,), how many of them, the squares of all
# their lengths (lists,) -> (n,) their numbers.
NearestByCodes = Callable[[Floats, int, Floats], Numbers]

# From so many centroids on their own codes are looked at first (4 MiB of float32 at 1,024 dimensions, and 140 KiB of codes).
coded_lists_min = 1_024
coded_times, coded_lists_wanted_min = 4, 64


class NearLists:
    def __init__(self, codebook: Codebook, nearest_by_codes: NearestByCodes | None) -> None:
        self._lists = codebook.lists
        self._centroids = codebook.centroids
        self._squares = np.vecdot(codebook.centroids, codebook.centroids)
        self._by_codes = nearest_by_codes
        self._coarse = None if codebook.lists == 1 or nearest_by_codes else CoarseMatrix(codebook.centroids)

    @property
    def memory_bytes(self) -> int:
        """Of centroids once more."""
        return 0 if self._coarse is None else self._coarse.memory_bytes

    def of(self, turned: Floats, spread: Numbers, enough: float) -> Numbers:
        """``turned``: (d,). (p,) lists, the nearest first, as few as hold ``enough`` of what may answer, all that hold any
        where they do not. ``spread``: (lists,) how much of it each holds, not all nothing."""
        if self._by_codes is not None:
            found = self._of_coded(self._by_codes, turned, spread, enough)
            if found is not None:
                return found
        coarse = self._coarse
        products = self._centroids @ turned if coarse is None else coarse.products(turned[np.newaxis])[0]
        return _nearest_first(self._squares / 2 - products, None, spread, enough)

    def _of_coded(self, by_codes: NearestByCodes, turned: Floats, spread: Numbers, enough: float) -> Numbers | None:
        """The same from the lists that the centroids' codes say are near, four times as many as are wanted on average.
        None: they are no small part of all lists, or hold too little."""
        expected = int(enough * self._lists / max(int(spread.sum()), 1))
        wanted = max(coded_lists_wanted_min, coded_times * expected + coded_times)
        if wanted > self._lists // coded_times:
            return None
        lists = by_codes(turned, wanted, self._squares)
        away = self._squares[lists] / 2 - self._centroids[lists] @ turned
        near = _nearest_first(away, lists, spread, enough)
        return None if 2 * len(near) > wanted or float(spread[near].sum()) < enough else near


def _nearest_first(away: Floats, lists: Numbers | None, spread: Numbers, enough: float) -> Numbers:
    """``away``: (n,) half of |query - centroid|^2 - |query|^2; overwritten. ``lists``: which they are; None: all."""
    if bulk.compiled():
        return bulk.near_lists(away, lists, spread, enough)
    numbers = np.arange(len(away)) if lists is None else lists
    numbers = numbers[np.lexsort((-numbers, away))]
    numbers = numbers[spread[numbers] > 0]
    return numbers[: int((spread[numbers].cumsum() < enough).sum()) + 1]
