"""The segments of one collection: positions as slots of files. Format: docs/formats.md, "Sealed segments".

A segment is known here once the transaction that names it is committed. Files are written before that and carry no
truth of their own: what the database does not name was cut off, and goes before the next write. One writer at a time
(the store's lock); readers take no lock.
"""

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from secure_embed.store._open_files import FileTable, NotThere, OpenFiles
from secure_embed.store._segment_files import (
    damaged,
    faults,
    overwrite_and_unlink,
    sync_folder,
    write_all,
    writing,
)
from secure_embed.types import Positions

__all__ = ["Segment", "Segments", "segment_slots"]

segment_slots = 4_096


@dataclass(frozen=True, slots=True)
class Segment:
    """``slots``: how many were written; those of gaps and erased records among them."""

    first: int
    generation: int
    slots: int

    @property
    def end(self) -> int:
        return self.first + self.slots


class Segments:
    def __init__(self, folder: Path, files: OpenFiles, slot_bytes: int, known: Iterable[Segment] = ()) -> None:
        """``slot_bytes`` 0: nothing was written yet, the first write says."""
        self.slot_bytes = slot_bytes
        self._folder = folder
        self._files = files
        self._known = {segment.first: segment for segment in known}
        self._table = FileTable(files, self._path_now)

    def path(self, segment: Segment) -> Path:
        return self._folder / f"{segment.first}.{segment.generation}"

    def known(self) -> list[Segment]:
        return sorted(self._known.values(), key=lambda segment: segment.first)

    def paths(self) -> set[Path]:
        return {self.path(segment) for segment in self._known.values()}

    def ensure_whole(self) -> None:
        """Looks at the sizes alone. Raises ``IntegrityFailure`` (``segment_damaged``)."""
        for segment in self.known():
            try:
                found = self.path(segment).lstat().st_size
            except OSError:
                found = -1
            if found < segment.slots * self.slot_bytes:
                raise damaged(segment.first, segment.end)

    # --- reading ---------------------------------------------------------------------------------------------------

    def read(self, at: Positions, out: npt.NDArray[np.uint8]) -> None:
        """``at``: (n,) int64, each of a known segment; ``out``: (n, slot_bytes) uint8, C-contiguous.

        Raises ``IntegrityFailure`` (``segment_damaged``).
        """
        if not len(at):
            return
        with faults:
            try:
                self._table.read(at // segment_slots, at % segment_slots * self.slot_bytes, out)
            except NotThere as lost:
                first = segment_slots * lost.number
                raise damaged(first, self._end(first)) from None

    def _path_now(self, number: int) -> Path:
        """Raises ``IntegrityFailure`` (``segment_damaged``) for a segment that is not known."""
        segment = self._known.get(segment_slots * number)
        if segment is None:
            raise damaged(segment_slots * number, segment_slots * (number + 1))
        return self.path(segment)

    def _end(self, first: int) -> int:
        segment = self._known.get(first)
        return first + segment_slots if segment is None else segment.end

    # --- writing: nothing of it counts before it is learned ----------------------------------------------------------

    def write(self, first: int, values: Sequence[bytes]) -> list[Segment]:
        """Durable on return. Answers what the segments are once the caller's transaction is committed.

        Raises ``Unavailable`` (507 for a full or read-only disk): call :meth:`cut` then.
        """
        changed = self.after(first, len(values))
        content = memoryview(b"".join(values))
        size, fresh = self.slot_bytes, False
        with faults:
            for segment in changed:
                old = self._known.get(segment.first)
                if old is None and not fresh:
                    self._make_folder()
                start = max(first, segment.first)
                part = content[size * (start - first) : size * (segment.end - first)]
                with writing(self.path(segment), new=old is None) as descriptor:
                    if old is not None:
                        _cut_tail(descriptor, old.slots * size)
                    write_all(descriptor, part, size * (start - segment.first))
                    os.fdatasync(descriptor)
                fresh = fresh or old is None
            if fresh:
                sync_folder(self._folder)
        return changed

    def after(self, first: int, count: int) -> list[Segment]:
        """The segments that ``count`` slots from ``first`` on change, as they will be."""
        end = first + count
        changed = []
        for start in range(first - first % segment_slots, end, segment_slots):
            old = self._known.get(start)
            generation = old.generation if old else 0
            changed.append(Segment(start, generation, min(end - start, segment_slots)))
        return changed

    def cut(self, changed: Iterable[Segment]) -> None:
        """Take back what :meth:`write` did. As far as it goes: the next write begins with the same."""
        for segment in changed:
            old = self._known.get(segment.first)
            with contextlib.suppress(OSError):
                if old is None:
                    overwrite_and_unlink(self.path(segment))
                else:
                    with writing(self.path(segment)) as descriptor:
                        _cut_tail(descriptor, old.slots * self.slot_bytes)

    def learn(self, changed: Iterable[Segment]) -> None:
        renewed = False
        for segment in changed:
            old = self._known.get(segment.first)
            renewed = renewed or (old is not None and old.generation != segment.generation)
            self._known[segment.first] = segment
        if renewed:
            self._table.renewed()

    # --- erasing and sealing anew ----------------------------------------------------------------------------------

    def overwrite(self, at: Iterable[int]) -> None:
        """Zeros over these slots, durable on return. Idempotent; raises ``Unavailable``, and ``segment_damaged``."""
        by_segment: dict[int, list[int]] = {}
        for position in at:
            by_segment.setdefault(position - position % segment_slots, []).append(position)
        nothing = memoryview(bytes(self.slot_bytes))
        for first, positions in by_segment.items():
            segment = self._known.get(first)
            if segment is None:
                raise damaged(first, first + segment_slots)
            with faults:
                try:
                    with writing(self.path(segment)) as descriptor:
                        for position in positions:
                            write_all(descriptor, nothing, self.slot_bytes * (position - first))
                        os.fdatasync(descriptor)
                except FileNotFoundError:
                    raise damaged(first, segment.end) from None

    def rewrite(self, old: Segment, new: Segment, at: Sequence[int], values: Sequence[bytes]) -> None:
        """Write ``new``: what is in ``old``, with other values at some of its positions. Durable on return."""
        content = np.zeros((old.slots, self.slot_bytes), np.uint8)
        self.read(np.arange(old.first, old.end, dtype=np.int64), content)
        replaced = np.frombuffer(b"".join(values), np.uint8).reshape(len(at), self.slot_bytes)
        content[np.asarray(at, np.int64) - old.first] = replaced
        with faults:
            with writing(self.path(new), new=True) as descriptor:
                write_all(descriptor, content.data.cast("B"), 0)
                os.fdatasync(descriptor)
            sync_folder(self._folder)

    def discard(self, segments: Iterable[Segment]) -> None:
        """Overwrite and unlink files that the database names no longer."""
        with faults:
            for segment in segments:
                self._files.forget(self.path(segment))
                overwrite_and_unlink(self.path(segment))
            if self._folder.is_dir():
                sync_folder(self._folder)

    def remove_folder(self) -> None:
        """When the collection's last file is gone."""
        with faults:
            if self._folder.is_dir():
                self._folder.rmdir()
                sync_folder(self._folder.parent)

    def _make_folder(self) -> None:
        for folder in (self._folder.parent, self._folder):
            if not folder.is_dir():
                folder.mkdir(mode=0o700)
                sync_folder(folder.parent)


def _cut_tail(descriptor: int, size: int) -> None:
    if os.fstat(descriptor).st_size > size:
        os.ftruncate(descriptor, size)
