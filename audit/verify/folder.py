"""The files of a static log (C2SP tlog-tiles) and what they hold, read leniently: damage is described, not raised."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WIDTH = 256
_PLACE = re.compile(r"(entries|[0-9]{1,2})/((?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


def number(index: int) -> str:
    text = str(index)
    groups: list[str] = []
    while text:
        groups.insert(0, text[-3:].zfill(3))
        text = text[:-3]
    return "/".join([f"x{group}" for group in groups[:-1]] + groups[-1:])


def path_of(level: int | str, index: int, width: int) -> str:
    return f"tile/{level}/{number(index)}" + ("" if width == WIDTH else f".p/{width}")


def place_of(path: str) -> tuple[int | str, int, int] | None:
    """What follows ``tile/`` as (level, index, width), or None where it names no tile."""
    found = _PLACE.fullmatch(path)
    if found is None or not path.isascii():
        return None
    level: int | str = found[1] if found[1] == "entries" else int(found[1])
    index = int(found[2].replace("x", "").replace("/", ""))
    width = int(found[3]) if found[3] else WIDTH
    if isinstance(level, int) and level > 63:
        return None
    if (found[3] and width >= WIDTH) or path_of(level, index, width) != f"tile/{path}":
        return None
    return level, index, width


def partial_tiles(size: int) -> Iterator[tuple[int, int, int]]:
    level = 0
    while size:
        if size % WIDTH:
            yield level, size // WIDTH, size % WIDTH
        size, level = size // WIDTH, level + 1


@dataclass(frozen=True)
class Bundle:
    entries: list[bytes]
    leftover: int  # bytes at the end that are no entry


def unpack(data: bytes) -> Bundle:
    entries, at = [], 0
    while at + 2 <= len(data):
        length = int.from_bytes(data[at : at + 2], "big")
        if at + 2 + length > len(data):
            break
        entries.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    return Bundle(entries, len(data) - at)


class Folder:
    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str) -> bytes | None:
        """None where there is no such file."""
        try:
            return (self.root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def bundle(self, index: int, width: int) -> Bundle | None:
        data = self.read(path_of("entries", index, width))
        return None if data is None else unpack(data)

    def hashes(self, level: int, index: int, width: int) -> list[bytes] | None:
        """None where the tile is missing or has another length."""
        data = self.read(path_of(level, index, width))
        if data is None or len(data) != 32 * width:
            return None
        return [data[i : i + 32] for i in range(0, len(data), 32)]

    def strangers(self, published: int, size: int) -> list[str]:
        """Files under tile/ that this log does not have: left over, or put there. They prove nothing. Full tiles of
        what is in the journal may be there already."""
        found = []
        for file in sorted((self.root / "tile").rglob("*")):
            if file.is_file():
                place = place_of(str(file.relative_to(self.root / "tile")))
                if place is None or not (_belongs(*place, published) or _full(*place, size)):
                    found.append(str(file.relative_to(self.root)))
        return found


def _hashes_at(level: int | str, size: int) -> int:
    return size if level == "entries" else size >> (8 * int(level))


def _belongs(level: int | str, index: int, width: int, size: int) -> bool:
    return width == min(WIDTH, _hashes_at(level, size) - index * WIDTH)


def _full(level: int | str, index: int, width: int, size: int) -> bool:
    return width == WIDTH and (index + 1) * WIDTH <= _hashes_at(level, size)
