"""An array that grows at its end. What outgrows its memory is overwritten there before the memory is given back."""

from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["GrowingArray"]

Element = TypeVar("Element", bound=np.generic)

first_capacity = 64


class GrowingArray(Generic[Element]):
    def __init__(self, dtype: type[Element]) -> None:
        self._memory: npt.NDArray[Element] = np.zeros(first_capacity, dtype)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def values(self) -> npt.NDArray[Element]:
        """(n,) a view to read and write in; stale after the next :meth:`extend` or :meth:`grow`."""
        return self._memory[: self._size]

    @property
    def memory_bytes(self) -> int:
        return self._memory.nbytes

    def extend(self, values: npt.NDArray[Any]) -> None:
        self.grow(len(values))[:] = values

    def grow(self, count: int) -> npt.NDArray[Element]:
        """``count`` more elements, as a view to write them in."""
        before, size = self._size, self._size + count
        if size > len(self._memory):
            larger = np.zeros(max(size, len(self._memory) * 3 // 2), self._memory.dtype)
            larger[:before] = self.values
            self._memory.fill(0)
            self._memory = larger
        self._size = size
        return self._memory[before:size]

    def wipe(self) -> None:
        """Overwrite and empty it."""
        self._memory.fill(0)
        self._size = 0
