"""The journal's frames (docs/log-format.md, "Journal"), read leniently so that damage can be located."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from .folder import unpack

MAGIC = b"\xffSEJ"
HEADER = struct.Struct(">4sIQII")


@dataclass(frozen=True)
class Frame:
    first: int
    entries: list[bytes]
    leaf_hashes: list[bytes]
    note: str
    intact: bool  # its checksum holds

    @property
    def end(self) -> int:
        return self.first + len(self.entries)


@dataclass(frozen=True)
class Journal:
    frames: list[Frame]
    damage: list[str]  # bytes that are no frame, with a whole frame behind them
    torn: int  # bytes of an unfinished write at the end
    unknown_end: int  # bytes at the end that are no frame and no unfinished write


def read_journal(data: bytes) -> Journal:
    frames: list[Frame] = []
    damage: list[str] = []
    at = 0
    while at < len(data):
        frame, end = _frame(data, at)
        following = None if frame is not None and frame.intact else _next_intact(data, at + 1)
        if frame is not None and (following is None or following >= end):
            frames.append(frame)  # not intact: its length may still be right, so it says which entries it held
            at = end
            continue
        if following is None:
            rest = len(data) - at
            return Journal(frames, damage, rest, 0) if _unfinished(data, at) else Journal(frames, damage, 0, rest)
        damage.append(f"the {following - at} bytes from offset {at} are no frame")
        at = following
    return Journal(frames, damage, 0, 0)


def _frame(data: bytes, at: int) -> tuple[Frame | None, int]:
    if at + HEADER.size > len(data):
        return None, at
    magic, length, first, count, packed = HEADER.unpack_from(data, at)
    start = at + HEADER.size
    end = start + length
    if magic != MAGIC or end + 32 > len(data) or count == 0 or packed + 32 * count > length:
        return None, at
    bundle = unpack(data[start : start + packed])
    if len(bundle.entries) != count or bundle.leftover:
        return None, at
    hashes = [data[i : i + 32] for i in range(start + packed, start + packed + 32 * count, 32)]
    note = data[start + packed + 32 * count : end].decode(errors="replace")
    intact = hashlib.sha256(data[at:end]).digest() == data[end : end + 32]
    return Frame(first, bundle.entries, hashes, note, intact), end + 32


def _next_intact(data: bytes, at: int) -> int | None:
    at = data.find(MAGIC, at)
    while at >= 0:
        frame, _ = _frame(data, at)
        if frame is not None and frame.intact:
            return at
        at = data.find(MAGIC, at + 1)
    return None


def _unfinished(data: bytes, at: int) -> bool:
    """A write that was cut short: the beginning of a frame, and the file ends before the frame does."""
    rest = data[at:]
    if len(rest) < HEADER.size:
        return MAGIC.startswith(rest[:4])
    magic, length, *_ = HEADER.unpack_from(rest)
    return bool(magic == MAGIC and HEADER.size + length + 32 > len(rest))
