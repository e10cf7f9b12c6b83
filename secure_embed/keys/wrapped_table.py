"""The wrapped record keys of one collection in memory, by position: 41 bytes a record, erased ones included.

Nothing is unwrapped here. One writer at a time (its owner's lock); readers take no lock and see every row whole or
absent: a row is written before it is marked present, and marked absent before it is zeroed.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from secure_embed.errors import IntegrityFailure
from secure_embed.keys.wrapping import wrapped_bytes
from secure_embed.types import Positions

__all__ = ["WrappedTable"]

capacity_min = 1_024


class WrappedTable:
    """``rows``: (capacity, 40) uint8; ``present``: (capacity,) bool."""

    __slots__ = ("_present", "_rows")

    def __init__(self, capacity: int) -> None:
        self._rows = np.zeros((max(capacity, capacity_min), wrapped_bytes), dtype=np.uint8)
        self._present = np.zeros(len(self._rows), dtype=np.bool_)

    @property
    def capacity(self) -> int:
        return len(self._present)

    @property
    def count(self) -> int:
        return int(np.count_nonzero(self._present))

    def has(self, position: int) -> bool:
        return 0 <= position < len(self._present) and bool(self._present[position])

    def holding(self, positions: Sequence[int], wrapped: Sequence[bytes]) -> "WrappedTable":
        """Add n keys and return the table that has them: this one, or a larger copy."""
        if not positions:
            return self
        table = self._at_least(max(positions) + 1)
        at = np.array(positions, dtype=np.int64)
        table._rows[at] = _rows(wrapped)
        table._present[at] = True
        return table

    def with_block(self, first: int, wrapped: npt.NDArray[np.uint8], present: npt.NDArray[np.bool_]) -> "WrappedTable":
        """As :meth:`holding`, for positions side by side: (n, 40) and (n,). Nothing was there before."""
        table = self._at_least(first + len(present))
        table._rows[first : first + len(present)] = wrapped
        table._present[first : first + len(present)] = present
        return table

    def overwrite(self, positions: Sequence[int], wrapped: Sequence[bytes]) -> None:
        """Put n other keys in place of those that are here. A reader may meet a row of which half is written: its
        caller keeps the new key where such a reader finds it (``CollectionKeys.promote``)."""
        if positions:
            self._rows[np.array(positions, dtype=np.int64)] = _rows(wrapped)

    def drop(self, at: Positions) -> None:
        """``at``: (n,) int64. Positions that are not here are passed over."""
        known = at[(at >= 0) & (at < len(self._present))]
        self._present[known] = False
        self._rows[known] = 0

    def take(self, at: Positions) -> tuple[bytes, npt.NDArray[np.bool_]]:
        """``at``: (n,) int64. n times 40 bytes in a row, and (n,) bool saying which of them are keys."""
        inside = (at >= 0) & (at < len(self._present))
        # Asked before and after the copy: a row that was written or overwritten under it counts as absent.
        before = self._present.take(at, mode="clip")
        rows = self._rows.take(at, axis=0, mode="clip").tobytes()
        return rows, inside & before & self._present.take(at, mode="clip")

    def wipe(self) -> None:
        self._present[:] = False
        self._rows[:] = 0

    def _at_least(self, capacity: int) -> "WrappedTable":
        have = len(self._present)
        if capacity <= have:
            return self
        larger = WrappedTable(max(capacity, have + have // 2))
        larger._rows[:have] = self._rows
        larger._present[:have] = self._present
        return larger


def _rows(wrapped: Sequence[bytes]) -> npt.NDArray[np.uint8]:
    joined = b"".join(wrapped)
    if len(joined) != wrapped_bytes * len(wrapped):
        raise IntegrityFailure("a wrapped record key has another length", code="key_store_invalid")
    return np.frombuffer(joined, dtype=np.uint8).reshape(-1, wrapped_bytes)
