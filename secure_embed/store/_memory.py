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

recent_max = 20_000  # tags in the dictionary before they join the sorted columns
prefix_bytes = 8


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
    """Where tags may be: by their first eight bytes, so the caller looks at the rows. 16 bytes a record."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._prefixes = np.zeros(0, np.uint64)  # ascending
        self._positions = np.zeros(0, np.int64)
        self._recent: dict[int, list[int]] = {}
        self._recent_count = 0

    def add(self, positions: Sequence[int], tags: Sequence[bytes]) -> None:
        with self._lock:
            for position, tag in zip(positions, tags, strict=True):
                self._recent.setdefault(int.from_bytes(tag[:prefix_bytes]), []).append(position)
            self._recent_count += len(tags)
            if self._recent_count > max(recent_max, len(self._prefixes) // 8):
                self._settle()

    def _settle(self) -> None:
        recent = [(prefix, position) for prefix, at in self._recent.items() for position in at]
        prefixes = np.append(self._prefixes, np.array([prefix for prefix, _ in recent], np.uint64))
        order = np.argsort(prefixes, kind="stable")
        self._prefixes = prefixes[order]
        self._positions = np.append(self._positions, np.array([at for _, at in recent], np.int64))[order]
        self._recent, self._recent_count = {}, 0

    def candidates(self, tags: Sequence[bytes]) -> list[int]:
        """Positions where one of the tags may be; each that is there is among them."""
        asked = np.array([int.from_bytes(tag[:prefix_bytes]) for tag in tags], np.uint64)
        with self._lock:
            found = [at for prefix in asked.tolist() for at in self._recent.get(prefix, ())]
            left = np.searchsorted(self._prefixes, asked, "left")
            right = np.searchsorted(self._prefixes, asked, "right")
            for begin, end in zip(left[left < right].tolist(), right[left < right].tolist(), strict=True):
                found.extend(self._positions[begin:end].tolist())
        return found

    def drop(self, at: Iterable[int]) -> None:
        gone = set(at)
        with self._lock:
            keep = ~np.isin(self._positions, np.fromiter(gone, np.int64))
            self._prefixes, self._positions = self._prefixes[keep], self._positions[keep]
            kept = {prefix: [p for p in places if p not in gone] for prefix, places in self._recent.items()}
            self._recent = {prefix: places for prefix, places in kept.items() if places}
            self._recent_count = sum(map(len, self._recent.values()))
