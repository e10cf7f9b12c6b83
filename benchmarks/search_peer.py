"""What search.py asks of another system. The systems: search_peer_libraries.py and search_peer_databases.py."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

__all__ = ["Blocks", "Floats", "Found", "System"]

Floats = npt.NDArray[np.float32]
Blocks = Iterator[tuple[int, Floats]]  # first row's number, rows
Found = Sequence[int] | npt.NDArray[np.int64]


class System:
    """``build`` and ``close``, in another process ``open``, ``search`` and ``close``. Imports happen in __init__.

    Each is set up as its documentation says for vectors compared by cosine, kept on disk, one thread where it can be
    said. ``efforts`` goes from quick to thorough; the driver takes the quickest that finds 0.99 of the exact ten.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    note: ClassVar[str] = ""
    sealed: ClassVar[bool] = False  # whether what is on disk is encrypted
    efforts: ClassVar[tuple[tuple[Any, ...], ...]] = ((),)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def build(self, blocks: Blocks, dimension: int, records: int) -> None:
        raise NotImplementedError

    def open(self, dimension: int) -> None:
        raise NotImplementedError

    def search(self, query: Floats, k: int, effort: tuple[Any, ...]) -> Found:
        raise NotImplementedError

    def pids(self) -> list[int]:
        """Other processes that work for it."""
        return []

    def close(self) -> None:
        pass
