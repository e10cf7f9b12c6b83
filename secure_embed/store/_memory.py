"""What is held in memory of one collection: which positions are there, and where each id's tag is.

Both follow the committed rows and are built from them at the first use; neither is written anywhere. An index over
tags in the file would leave erased ones in the unused space of its pages (docs/decisions/0013).
"""

from collections.abc import Iterable, Sequence
from threading import Lock

import numpy as np
import numpy.typing as npt

from secure_embed.types import Positions

__all__ = ["Presence", "TagIndex"]

prefix_bytes = 8

_Run = tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]  # first bytes of tags, ascending; their positions


class Presence:
    """One flag for each position. One writer at a time; readers take no lock."""

    def __init__(self) -> None:
        self._there = np.zeros(1_024, np.bool_)

    def add(self, first: int, count: int) -> None:
        if first + count > len(self._there):
            larger = np.zeros(max(first + count, 2 * len(self._there)), np.bool_)
            larger[: len(self._there)] = self._there
            self._there = larger
        self._there[first : first + count] = True

    def drop(self, at: Iterable[int]) -> None:
        self._there[np.fromiter(at, np.int64)] = False

    def at(self, positions: Positions) -> npt.NDArray[np.bool_]:
        there = self._there
        inside = (positions >= 0) & (positions < len(there))
        return inside & there[np.where(inside, positions, 0)]


class TagIndex:
    """Where tags may be: by their first eight bytes, so the caller looks at the rows. 16 bytes a record.

    Sorted runs, each at least twice as long as the next: a lookup searches a few, and an entry is merged a few times.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._runs: list[_Run] = []

    def add(self, positions: Sequence[int], tags: Sequence[bytes]) -> None:
        if not tags:
            return
        fresh = _sorted(_prefixes(tags), np.fromiter(positions, np.int64, len(tags)))
        with self._lock:
            while self._runs and len(self._runs[-1][0]) < 2 * len(fresh[0]):
                prefixes, at = self._runs.pop()
                fresh = _sorted(np.append(prefixes, fresh[0]), np.append(at, fresh[1]))
            self._runs.append(fresh)

    def candidates(self, tags: Sequence[bytes]) -> list[int]:
        """Positions where one of the tags may be; each that is there is among them."""
        asked, found = _prefixes(tags), []
        with self._lock:
            runs = list(self._runs)  # a run is replaced as a whole, never changed
        for prefixes, at in runs:
            left, right = np.searchsorted(prefixes, asked, "left"), np.searchsorted(prefixes, asked, "right")
            some = left < right
            for begin, end in zip(left[some].tolist(), right[some].tolist(), strict=True):
                found.extend(at[begin:end].tolist())
        return found

    def drop(self, at: Iterable[int]) -> None:
        gone = np.fromiter(at, np.int64)
        with self._lock:
            kept = [(prefixes, places, ~np.isin(places, gone)) for prefixes, places in self._runs]
            self._runs = [(prefixes[keep], places[keep]) for prefixes, places, keep in kept]


def _prefixes(tags: Sequence[bytes]) -> npt.NDArray[np.uint64]:
    return np.frombuffer(b"".join([tag[:prefix_bytes] for tag in tags]), ">u8").astype(np.uint64)


def _sorted(prefixes: npt.NDArray[np.uint64], at: npt.NDArray[np.int64]) -> _Run:
    order = np.argsort(prefixes, kind="stable")  # quick on runs that are sorted already
    return prefixes[order], at[order]
