"""Looks through another process's memory for 16-byte slices. Needs to be root, or its owner where it may be traced.

What is read: every readable mapping of /proc/PID/maps, of these the pages that /proc/PID/pagemap calls present. A slice
is looked for at every byte, not at aligned places only. A vector or a text counts as found when one of its slices is.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["Found", "Needles", "scan"]

slice_bytes = 16
table_bits = 22
multiplier = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing: spreads the slices' first 8 bytes over the table
chunk_bytes = 32 * 1024 * 1024
page_bytes = 4_096
present = np.uint64(1 << 63)  # proc_pid_pagemap(5)

Owner = tuple[str, int]  # kind, number of the vector or text


class Needles:
    """Slices of at least 16 bytes and whose they are. A slice that two owners share would prove nothing: refused."""

    def __init__(self) -> None:
        self._slices: dict[bytes, tuple[Owner, bytes]] = {}  # first 16 bytes -> owner, the whole slice
        self.owners: dict[str, set[int]] = defaultdict(set)
        self.shared = 0

    def add(self, kind: str, number: int, slices: Sequence[bytes]) -> None:
        for one in slices:
            assert len(one) >= slice_bytes
            head = one[:slice_bytes]
            if head in self._slices and self._slices[head][0] != (kind, number):
                self.shared += 1
                continue
            self._slices[head] = (kind, number), one
            self.owners[kind].add(number)

    def table(self) -> npt.NDArray[np.bool_]:
        firsts = np.frombuffer(b"".join(head[:8] for head in self._slices), "<u8")
        marked = np.zeros(1 << table_bits, np.bool_)
        marked[hashed(firsts)] = True
        return marked

    def at(self, window: bytes) -> Owner | None:
        """Whose slice ``window`` begins with."""
        owner, whole = self._slices.get(window[:slice_bytes], (None, b""))
        return owner if owner is not None and window.startswith(whole) else None

    @property
    def longest(self) -> int:
        return max(len(whole) for _, whole in self._slices.values())


def hashed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    return ((values * multiplier) >> np.uint64(64 - table_bits)).astype(np.intp)


@dataclass(slots=True)
class Found:
    needles: Needles
    owners: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    slices: Counter[str] = field(default_factory=Counter)
    places: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    bytes_read: int = 0

    def share(self, kind: str) -> float:
        return len(self.owners[kind]) / max(1, len(self.needles.owners[kind]))

    def as_json(self) -> dict[str, object]:
        return {
            "bytes_read": self.bytes_read,
            "share": {kind: self.share(kind) for kind in self.needles.owners},
            "found": {kind: len(self.owners[kind]) for kind in self.needles.owners},
            "slices": dict(self.slices),
            "places": {kind: dict(places.most_common(6)) for kind, places in self.places.items()},
        }


def scan(pid: int, needles: Needles) -> Found:
    """Raises ``PermissionError`` where the process may not be looked into."""
    found = Found(needles)
    table, longest = needles.table(), needles.longest
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for name, start, end in areas(pid):
            for at in range(start, end, chunk_bytes):
                memory.seek(at)
                try:
                    chunk = memory.read(min(chunk_bytes + longest, end - at))
                except OSError:  # gone since the list was made, or a device's
                    continue
                found.bytes_read += min(len(chunk), chunk_bytes)
                for offset in places(chunk, table):
                    owner = needles.at(chunk[offset : offset + longest])
                    if owner is not None and offset < chunk_bytes:
                        kind, number = owner
                        found.owners[kind].add(number)
                        found.slices[kind] += 1
                        found.places[kind][name] += 1
    return found


def places(chunk: bytes, table: npt.NDArray[np.bool_]) -> Iterator[int]:
    """Offsets whose next 8 bytes may begin a slice."""
    for shift in range(8):
        count = (len(chunk) - shift) // 8
        if count > 0:
            values = np.frombuffer(chunk, "<u8", count=count, offset=shift)
            maybe = np.flatnonzero(table[hashed(values)])
            yield from (maybe[values[maybe] != 0] * 8 + shift).tolist()


def areas(pid: int) -> Iterator[tuple[str, int, int]]:
    """Runs of present pages in readable mappings: what kind of mapping, first address, one past the last."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        start_end, rights, _, _, _, *rest = line.split(maxsplit=5)
        name = rest[0] if rest else "anonymous"
        if not rights.startswith("r") or re.fullmatch(r"\[v(var.*|syscall)\]", name):
            continue
        start, end = (int(part, 16) for part in start_end.split("-"))
        if not name.startswith("[") and name != "anonymous":
            name = f"file {rights}"
        yield from ((name, *run) for run in runs(pid, start, end))


def runs(pid: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
        pagemap.seek(start // page_bytes * 8)
        entries = np.frombuffer(pagemap.read((end - start) // page_bytes * 8), "<u8")
    there = np.concatenate(([False], (entries & present) != 0, [False]))
    edges = np.flatnonzero(there[1:] != there[:-1])
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        yield start + first * page_bytes, start + last * page_bytes


def slices_of(values: npt.NDArray[np.float32] | npt.NDArray[np.float16], count: int) -> list[bytes]:
    """``count`` slices of 16 bytes, evenly over the vector; ones of repeated values are left out."""
    raw = values.tobytes()
    step = max(slice_bytes, (len(raw) - slice_bytes) // max(1, count - 1) // slice_bytes * slice_bytes)
    cut = [raw[at : at + slice_bytes] for at in range(0, len(raw) - slice_bytes + 1, step)]
    return [one for one in cut if len(set(one)) > 4]


def unique_windows(texts: Mapping[int, bytes], everything: bytes, count: int) -> dict[int, list[bytes]]:
    """For each text up to ``count`` windows that stand once in ``everything``: 16 bytes long, else 24, 32, 48, 64.

    Texts made of the same phrases share most of their slices, and a question shares some with a record.
    """
    chosen: dict[int, list[bytes]] = {number: [] for number in texts}
    for length in (16, 24, 32, 48, 64):
        lacking = [number for number in texts if not chosen[number]]
        if not lacking:
            break
        once = Counted(everything, length)
        for number in lacking:
            text = texts[number]
            step = max(1, (len(text) - length) // (4 * count))
            for at in range(0, len(text) - length + 1, step):
                window = text[at : at + length]
                if once.stands_once(window):
                    chosen[number].append(window)
                    if len(chosen[number]) == count:
                        break
    return {number: windows for number, windows in chosen.items() if windows}


class Counted:
    """Which windows of one length stand once in a long text, by a 64-bit rolling sum of products."""

    def __init__(self, everything: bytes, length: int) -> None:
        self._length = length
        self._weights = np.cumprod(np.full(length, multiplier | np.uint64(1), np.uint64))
        sums = self._sums(np.frombuffer(everything, np.uint8))
        values, counts = np.unique(sums, return_counts=True)
        self._once = values[counts == 1]

    def _sums(self, text: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
        total = np.zeros(len(text) - self._length + 1, np.uint64)
        for at, weight in enumerate(self._weights):
            total += (text[at : at + len(total)].astype(np.uint64) + np.uint64(1)) * weight
        return total

    def stands_once(self, window: bytes) -> bool:
        (value,) = self._sums(np.frombuffer(window, np.uint8))
        at = int(np.searchsorted(self._once, value))
        return at < len(self._once) and self._once[at] == value
