"""Is any of these byte strings in any file below a folder? Every byte of every file is looked at.

The eight bytes at each offset are compared with the first eight bytes of every needle at once; what agrees is compared
whole. So a few thousand needles cost one pass over the files.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["Found", "Needles", "scan"]

prefix_bytes = 8
block_bytes = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Found:
    file: Path
    offset: int
    kind: str


class Needles:
    """Byte strings of at least eight bytes, each with the kind of thing it is."""

    def __init__(self, kinds: Iterable[tuple[str, bytes]]) -> None:
        self._kind_of: dict[bytes, str] = {}
        by_prefix: dict[bytes, list[bytes]] = {}
        for kind, needle in kinds:
            if len(needle) < prefix_bytes:
                raise ValueError("a needle has at least eight bytes")
            if needle not in self._kind_of:
                self._kind_of[needle] = kind
                by_prefix.setdefault(needle[:prefix_bytes], []).append(needle)
        self._by_prefix = by_prefix
        self._sorted = np.sort(np.frombuffer(b"".join(by_prefix), dtype="<u8"))
        self.longest = max(map(len, self._kind_of), default=prefix_bytes)

    def __len__(self) -> int:
        return len(self._kind_of)

    def in_block(self, block: bytes) -> Iterator[tuple[int, str]]:
        """Offsets and kinds of what stands in ``block``."""
        if len(self._sorted) == 0:
            return
        for shift in range(prefix_bytes):
            usable = (len(block) - shift) // prefix_bytes * prefix_bytes
            if usable <= 0:
                return
            words = np.frombuffer(block, dtype="<u8", count=usable // prefix_bytes, offset=shift)
            at = np.minimum(np.searchsorted(self._sorted, words), len(self._sorted) - 1)
            for hit in np.flatnonzero(self._sorted[at] == words):
                offset = shift + int(hit) * prefix_bytes
                for needle in self._by_prefix[block[offset : offset + prefix_bytes]]:
                    if block.startswith(needle, offset):
                        yield offset, self._kind_of[needle]


def scan(folder: Path, needles: Needles) -> tuple[int, int, list[Found]]:
    """Returns the number of files and bytes looked at, and what was found in them."""
    files = total = 0
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        files += 1
        with path.open("rb") as file:
            start, kept = 0, b""
            while block := file.read(block_bytes):
                total += len(block)
                joined = kept + block
                found += [Found(path, start - len(kept) + offset, kind) for offset, kind in needles.in_block(joined)]
                start += len(block)
                kept = joined[-needles.longest :]
    return files, total, found
