"""Positions and slots. A slot is a record's dense place in one shard: its FAISS id and its row in the columns.

A slot is never used again while the shard lives: a selection that was made before a change must not reach a record
that came after it. A position that was here never comes back either, whatever order changes arrive in.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from secure_embed.index._growing import GrowingArray
from secure_embed.index._invariant import invariant
from secure_embed.types import Position, Positions

__all__ = ["SlotMap"]

Slots = npt.NDArray[np.int64]
no_position = -1


class SlotMap:
    """Not locked: the shard's lock covers it."""

    def __init__(self) -> None:
        # Ascending by slot; a dead slot repeats the number of the last live one before it, so that the array stays
        # sorted for look-ups and the position of a forgotten record is nowhere in it.
        self._positions = GrowingArray(np.int64)
        self._live = GrowingArray(np.bool_)
        self._live_count = 0
        self._highest = no_position

    @property
    def slots(self) -> int:
        """Slots ever given out."""
        return len(self._positions)

    @property
    def records(self) -> int:
        return self._live_count

    @property
    def live(self) -> npt.NDArray[np.bool_]:
        """(slots,) bool."""
        return self._live.values

    @property
    def memory_bytes(self) -> int:
        return self._positions.memory_bytes + self._live.memory_bytes

    def is_new(self, positions: Positions) -> npt.NDArray[np.bool_]:
        """Which of the ascending ``positions`` were never here."""
        return np.greater(positions, self._highest)

    def append(self, positions: Positions) -> Slots:
        """Give slots to new, ascending positions."""
        invariant(len(positions) > 0 and int(positions[0]) > self._highest and bool((np.diff(positions) > 0).all()))
        first = self.slots
        self._positions.extend(positions)
        self._live.extend(np.ones(len(positions), np.bool_))
        self._live_count += len(positions)
        self._highest = int(positions[-1])
        return np.arange(first, self.slots, dtype=np.int64)

    @property
    def highest(self) -> int:
        """The highest position that was ever here; -1: none."""
        return self._highest

    @property
    def positions(self) -> Positions:
        """(slots,) int64; what it says of a slot that is not live means nothing."""
        return self._positions.values

    def restore(self, positions: Positions, highest: int) -> None:
        """Fill an empty map: slot n is that of ``positions[n]``. Positions up to ``highest`` never come back."""
        invariant(self.slots == 0 and (not len(positions) or int(positions[-1]) <= highest))
        if len(positions):
            self.append(positions)
        self._highest = highest

    def find(self, positions: Sequence[Position]) -> Slots:
        """Slots of those positions that are here, ascending."""
        wanted = np.unique(np.asarray(positions, np.int64))
        at = np.searchsorted(self._positions.values, wanted, side="left")
        inside = at < self.slots
        at, wanted = at[inside], wanted[inside]
        found: Slots = at[(self._positions.values[at] == wanted) & self.live[at]].astype(np.int64)
        return found

    def positions_of(self, slots: Slots) -> Positions:
        """Positions of the live ones among ``slots``, in their order."""
        positions: Positions = self._positions.values[slots[self.live[slots]]]
        return positions

    def forget(self, slots: Slots) -> None:
        """Clear live slots."""
        invariant(bool(self.live[slots].all()))
        self.live[slots] = False
        self._live_count -= len(slots)
        kept = np.where(self.live, self._positions.values, no_position)
        self._positions.values[:] = np.maximum.accumulate(kept)
