"""Names and bytes of C2SP tlog-tiles: tile paths, entry bundles. Pure: says what a file is called and holds."""

import re
import struct
from collections.abc import Iterator, Sequence

from secure_embed.audit.tree import tile_width
from secure_embed.errors import IntegrityFailure, NotFound

__all__ = [
    "bundle_path",
    "pack_entries",
    "parse_tile_path",
    "partial_paths",
    "partial_widths",
    "tile_path",
    "unpack_entries",
]

entry_bytes_max = 65_535  # the length in a bundle is an unsigned 16-bit integer
_PATH = re.compile(r"(entries|0|[1-5]?[0-9]|6[0-3])/((?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?\Z")


def _number(index: int) -> str:
    """1234067 -> x001/x234/067."""
    digits = f"{index:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    return "/".join([f"x{group}" for group in groups[:-1]] + [groups[-1]])


def tile_path(level: int, index: int, width: int) -> str:
    """Below the log's folder; ``width`` 256 is a full tile."""
    return f"tile/{level}/{_number(index)}{_suffix(width)}"


def bundle_path(index: int, width: int) -> str:
    return f"tile/entries/{_number(index)}{_suffix(width)}"


def _suffix(width: int) -> str:
    return "" if width == tile_width else f".p/{width}"


def parse_tile_path(path: str) -> tuple[int | None, int, int]:
    """What follows ``tile/`` as (level, index, width); level None means entries. Raises ``NotFound``."""
    found = _PATH.match(path)
    if not found:
        raise NotFound("the log has no such tile", code="tile_not_found")
    level = None if found[1] == "entries" else int(found[1])
    index = int(found[2].replace("x", "").replace("/", ""))
    width = int(found[3]) if found[3] else tile_width
    if (
        (found[3] and width >= tile_width)
        or _number(index) != found[2]
        or (level is not None and str(level) != found[1])
    ):
        raise NotFound("the log has no such tile", code="tile_not_found")
    return level, index, width


def partial_widths(size: int) -> Iterator[tuple[int, int, int]]:
    """(level, index, width) of each partial tile of a tree of this size."""
    level, hashes = 0, size
    while hashes:
        if hashes % tile_width:
            yield level, hashes // tile_width, hashes % tile_width
        level, hashes = level + 1, hashes // tile_width


def partial_paths(size: int) -> set[str]:
    """The files that a tree of this size needs besides its full tiles and bundles."""
    paths = {tile_path(*place) for place in partial_widths(size)}
    if size % tile_width:
        paths.add(bundle_path(size // tile_width, size % tile_width))
    return paths


def pack_entries(entries: Sequence[bytes]) -> bytes:
    return b"".join([struct.pack(">H", len(entry)) + entry for entry in entries])


def unpack_entries(packed: bytes, count: int) -> list[bytes]:
    """Exactly ``count`` entries and nothing after them. Raises ``IntegrityFailure`` (``log_damaged``)."""
    entries, at = [], 0
    for _ in range(count):
        if at + 2 > len(packed):
            break
        (length,) = struct.unpack_from(">H", packed, at)
        entries.append(packed[at + 2 : at + 2 + length])
        at += 2 + length
    if len(entries) != count or at != len(packed):
        raise IntegrityFailure("a bundle of the log is malformed", code="log_damaged")
    return entries
