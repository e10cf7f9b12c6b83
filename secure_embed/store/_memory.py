"""What is held in memory of one collection: which positions are there, their ids' tags, and where each tag is.

Both follow the committed rows and are built from them at the first use; neither is written anywhere. An index over
tags in the file would leave erased ones in the unused space of its pages (docs/decisions/0013).
"""

from collections.abc import Iterable, Sequence
from threading import Lock
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from secure_embed.keys import block_positions
from secure_embed.store._schema import THERE
from secure_embed.types import Positions

__all__ = ["Ends", "Presence", "TagIndex", "tag_bytes"]

tag_bytes, prefix_bytes = 32, 8

T = TypeVar("T", bound=np.generic)

_Run = tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]  # first bytes of tags, ascending; their positions


class Presence:
    """Which positions are there, and the tag of each one's id. One writer at a time; readers take no lock."""

    def __init__(self, blocks: Sequence[tuple[int, Sequence[bytes]]] = ()) -> None:
        """``blocks``: of the table ``records``, ascending."""
        capacity = max(1_024, (blocks[-1][0] + 1) * block_positions if blocks else 0)
        self._there = np.zeros(capacity, np.bool_)
        self._tags = np.zeros((capacity, tag_bytes), np.uint8)
        for block, (state, id_tags) in blocks:
            places = slice(block_positions * block, block_positions * (block + 1))
            self._there[places] = np.frombuffer(state, np.uint8) == THERE
            self._tags[places] = np.frombuffer(id_tags, np.uint8).reshape(-1, tag_bytes)

    def add(self, first: int, tags: Sequence[bytes]) -> None:
        end = first + len(tags)
        if end > len(self._there):
            self._tags = _grown(self._tags, end)  # before what says that they are there
            self._there = _grown(self._there, end)
        self._tags[first:end] = np.frombuffer(b"".join(tags), np.uint8).reshape(-1, tag_bytes)
        self._there[first:end] = True

    def drop(self, at: Iterable[int]) -> None:
        gone = np.fromiter(at, np.int64)
        self._there[gone] = False
        self._tags[gone] = 0

    def at(self, positions: Positions) -> npt.NDArray[np.bool_]:
        there = self._there
        inside = (positions >= 0) & (positions < len(there))
        return inside & there.take(positions, mode="clip") if len(there) else inside

    def tags(self, positions: Positions) -> npt.NDArray[np.uint8]:
        """(n, 32); of positions that were there a moment ago."""
        return self._tags[positions]

    def after(self, position: int, limit: int) -> Positions:
        """The next ``limit`` that are there past ``position``, ascending."""
        there, start = self._there, max(position + 1, 0)
        found = np.zeros(0, np.int64)
        step = max(2 * limit, 1_024)
        while start < len(there) and len(found) < limit:
            found = np.append(found, start + np.flatnonzero(there[start : start + step]))
            start += step
        return found[:limit]


class Ends:
    """When each record's retention ends; nothing is held of a collection whose records have no end."""

    def __init__(self, blocks: Sequence[tuple[int, Sequence[bytes]]] = ()) -> None:
        """``blocks``: of the table ``ends``, ascending."""
        self._unix = np.zeros((blocks[-1][0] + 1) * block_positions if blocks else 0, np.int64)
        for block, (of_block,) in blocks:
            places = slice(block_positions * block, block_positions * (block + 1))
            self._unix[places] = np.frombuffer(of_block, "<i8")

    def put(self, first: int, ends: Sequence[int | None]) -> None:
        if any(ends):
            unix = _grown(self._unix, first + len(ends))
            unix[first : first + len(ends)] = [end or 0 for end in ends]
            self._unix = unix

    def drop(self, at: Iterable[int]) -> None:
        gone = np.fromiter(at, np.int64)
        self._unix[gone[gone < len(self._unix)]] = 0

    def at(self, positions: Positions) -> list[int | None]:
        unix = self._unix
        inside = positions < len(unix)
        found = np.zeros(len(positions), np.int64)
        found[inside] = unix[positions[inside]]
        return [end or None for end in found.tolist()]

    def until(self, moment_unix: int, limit: int) -> list[int]:
        """Positions whose end is then or before, the earliest first."""
        unix = self._unix
        ended = np.flatnonzero((unix > 0) & (unix <= moment_unix))
        return ended[np.argsort(unix[ended], kind="stable")][:limit].tolist()  # type: ignore[no-any-return]


class TagIndex:
    """Where tags may be: by their first eight bytes, so the caller looks at the whole. 16 bytes a record.

    Sorted runs, each at least twice as long as the next: a lookup searches a few, and an entry is merged a few times.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._runs: list[_Run] = []

    def add(self, positions: Positions, tags: npt.NDArray[np.uint8]) -> None:
        """(n,) and (n, 32)."""
        if not len(tags):
            return
        fresh = _sorted(_prefixes(tags.tobytes(), len(tags)), positions)
        with self._lock:
            while self._runs and len(self._runs[-1][0]) < 2 * len(fresh[0]):
                prefixes, at = self._runs.pop()
                fresh = _sorted(np.append(prefixes, fresh[0]), np.append(at, fresh[1]))
            self._runs.append(fresh)

    def candidates(self, tags: Sequence[bytes]) -> list[int]:
        """Positions where one of the tags may be; each that is there is among them."""
        asked, found = _prefixes(b"".join(tags), len(tags)), list[int]()
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


def _grown(array: npt.NDArray[T], rows: int) -> npt.NDArray[T]:
    """With room for ``rows`` at least; a copy where there is not. Its readers go on with what they have."""
    if rows <= len(array):
        return array
    larger = np.zeros((max(rows, 2 * len(array)), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


def _prefixes(joined: bytes, count: int) -> npt.NDArray[np.uint64]:
    return np.frombuffer(joined, ">u8").reshape(count, tag_bytes // prefix_bytes)[:, 0].astype(np.uint64)


def _sorted(prefixes: npt.NDArray[np.uint64], at: npt.NDArray[np.int64]) -> _Run:
    order = np.argsort(prefixes, kind="stable")  # quick on runs that are sorted already
    return prefixes[order], at[order]
