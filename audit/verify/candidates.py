"""What the tree may have been: from the entries, from the tiles, or for each bundle from the one that the level above confirms.

The one whose root was signed is right, and says which files are wrong. They share one computation until they differ.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from .merkle import EMPTY_ROOT, Range

NAMES = ("entries", "mixed", "tiles")  # in the order in which they are believed


class Candidates:
    def __init__(self, sizes_watched: Collection[int]) -> None:
        shared = Range()
        self._ranges: dict[str, Range | None] = dict.fromkeys(NAMES, shared)
        self._forked = False
        self._watched = {size for size in sizes_watched if size > 0}
        self.roots_at: dict[tuple[str, int], bytes] = {(name, 0): EMPTY_ROOT for name in NAMES}

    def watch(self, size: int) -> None:
        """Keep the root at this size too, which is the present one or a later one."""
        self._watched.add(size)
        for name, grown in self._ranges.items():
            if grown is not None and grown.size == size:
                self.roots_at[name, size] = grown.root()

    def extend_all(self, first: int, hashes: Sequence[bytes]) -> None:
        """The hashes are beyond doubt between the candidates."""
        self._watch(first, dict.fromkeys(NAMES, hashes))
        for grown in {id(r): r for r in self._ranges.values() if r is not None}.values():
            grown.extend(hashes)

    def extend(self, first: int, hashes: Mapping[str, Sequence[bytes] | None]) -> None:
        """None: this candidate has nothing here, so it cannot be right."""
        if not self._forked:
            self._ranges = {name: grown.copy() if grown else None for name, grown in self._ranges.items()}
            self._forked = True
        self._watch(first, hashes)
        for name in NAMES:
            grown, more = self._ranges[name], hashes[name]
            if grown is None or more is None:
                self._ranges[name] = None
            else:
                grown.extend(more)

    def _watch(self, first: int, hashes: Mapping[str, Sequence[bytes] | None]) -> None:
        width = max((len(h) for h in hashes.values() if h is not None), default=0)
        for size in [size for size in self._watched if first < size <= first + width]:
            for name in NAMES:
                grown, more = self._ranges[name], hashes[name]
                if grown is not None and more is not None and len(more) >= size - first:
                    self.roots_at[name, size] = grown.root_with(more[: size - first])

    def kill(self) -> None:
        """Something is missing for all of them."""
        self._ranges = dict.fromkeys(NAMES)

    def fitting(self, root: bytes) -> str | None:
        for name in NAMES:
            grown = self._ranges[name]
            if grown is not None and grown.root() == root:
                return name
        return None

    def range_of(self, name: str) -> Range | None:
        return self._ranges[name]
