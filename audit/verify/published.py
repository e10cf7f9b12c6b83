"""Checks the published files against the checkpoint, and says exactly what in them is wrong."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from .candidates import NAMES, Candidates
from .differences import differences
from .entries import EntryInvalid, Story
from .folder import WIDTH, Folder, path_of
from .merkle import Range, leaf_hash, tile_root
from .notes import Checkpoint
from .report import Report

GAP_MAX = 64  # bundles missing one after another; then the rest counts as missing too


@dataclass
class Row:
    """A bundle and its level 0 tile, where they differ or one is missing."""

    index: int
    width: int
    entries: list[bytes] | None  # leaf hashes of what the bundle holds
    leftover: int
    tile: list[bytes] | None
    mixed: list[bytes] | None  # the one of the two that the level above confirms

    @property
    def first(self) -> int:
        return self.index * WIDTH

    def of(self, name: str) -> list[bytes] | None:
        return {"entries": self.entries, "mixed": self.mixed, "tiles": self.tile}[name]


class Published:
    def __init__(self, folder: Folder, report: Report, story: Story, wanted: Collection[int], sizes: Collection[int]):
        self._folder = folder
        self._report = report
        self._story = story
        self._wanted = wanted
        self._candidates = Candidates(sizes)
        self._rows: list[Row] = []
        self._story_faults: list[tuple[int, str]] = []
        self.seen: dict[int, bytes] = {}  # leaf hash of what lies at each wanted index
        self.right: str | None = None

    def check(self, checkpoint: Checkpoint) -> Range | None:
        """The tree of the published entries; None where nothing fits the checkpoint's root."""
        self._read(checkpoint.size)
        self.right = self._candidates.fitting(checkpoint.root)
        if self.right is None:
            self._blame_unresolved(checkpoint)
        else:
            self._blame_rows(self.right)
            grown = self._candidates.range_of(self.right)
            assert grown is not None
            self._blame_upper_tiles(grown, checkpoint.size)
        for index, what in self._story_faults:
            self._report.blame("entry", what, index)
        return self._candidates.range_of(self.right) if self.right else None

    def root_at(self, size: int) -> bytes | None:
        return self._candidates.roots_at.get((self.right or "entries", size))

    def _read(self, size: int) -> None:
        missing = 0
        for index in range(-(-size // WIDTH)):
            width = min(WIDTH, size - index * WIDTH)
            bundle = self._folder.bundle(index, width)
            tile = self._folder.hashes(0, index, width)
            missing = missing + 1 if bundle is None and tile is None else 0
            if missing > GAP_MAX:
                self._report.blame("entry", "their bundles are missing", index * WIDTH, size - 1)
                self._candidates.kill()
                return
            hashes = None if bundle is None else [leaf_hash(entry) for entry in bundle.entries]
            self._remember(index * WIDTH, hashes)
            if bundle is not None and hashes is not None:
                self._tell(index * WIDTH, bundle.entries, hashes, tile)
            if hashes is not None and hashes == tile and bundle is not None and not bundle.leftover:
                self._candidates.extend_all(index * WIDTH, hashes)
                continue
            row = Row(index, width, hashes, bundle.leftover if bundle else 0, tile, None)
            row.mixed = self._confirmed(row, size)
            self._rows.append(row)
            self._candidates.extend(row.first, {name: _whole(row.of(name), width) for name in NAMES})

    def _remember(self, first: int, hashes: list[bytes] | None) -> None:
        if self._wanted and hashes is not None:
            for i, there in enumerate(hashes):
                if first + i in self._wanted:
                    self.seen[first + i] = there

    def _tell(self, first: int, entries: list[bytes], hashes: list[bytes], tile: list[bytes] | None) -> None:
        before = len(self._story.handovers)
        for i, entry in enumerate(entries):
            if tile is not None and (i >= len(tile) or tile[i] != hashes[i]):
                self._story.skip(first + i)
                self._story.peek(first + i, entry)
                continue
            try:
                self._story.tell(first + i, entry)
            except EntryInvalid as fault:
                self._story.skip(first + i)
                self._story_faults.append((first + i, str(fault)))
        for i in range(len(entries), len(tile or ())):
            self._story.skip(first + i)
        for index, _ in self._story.handovers[before:]:
            self._candidates.watch(index)  # what a hand-over says of the entries before it is compared with them

    def _confirmed(self, row: Row, size: int) -> list[bytes] | None:
        if row.width < WIDTH:
            return _whole(row.tile, row.width) or _whole(row.entries, row.width)
        above = row.index // WIDTH
        upper = self._folder.hashes(1, above, min(WIDTH, size // WIDTH - above * WIDTH))
        for hashes in (row.entries, row.tile):
            if upper and hashes and len(hashes) == WIDTH and tile_root(hashes) == upper[row.index % WIDTH]:
                return hashes
        return _whole(row.entries, row.width) or _whole(row.tile, row.width)

    def _blame_rows(self, right: str) -> None:
        for row in self._rows:
            truth = row.of(right)
            assert truth is not None
            if row.entries is None:
                self._report.blame("entry", "their bundle is missing", row.first, row.first + row.width - 1)
            else:
                found = differences(truth, row.entries, row.first)
                for index, what in found:
                    self._report.blame("entry", what, index)
                if row.leftover and not found:
                    name = path_of("entries", row.index, row.width)
                    self._report.blame("bundle", f"{name} has {row.leftover} bytes behind its last entry")
            self._blame_tile(0, row.index, row.tile, truth)

    def _blame_tile(self, level: int, index: int, there: list[bytes] | None, truth: list[bytes]) -> None:
        name = path_of(level, index, len(truth))
        if there is None:
            self._report.blame("tile", f"{name} is missing or has another length")
            return
        wrong = [str(i) for i, (a, b) in enumerate(zip(there, truth, strict=True)) if a != b]
        if wrong:
            self._report.blame("tile", f"{name}: wrong hashes at {', '.join(wrong[:8])}{' ...' * (len(wrong) > 8)}")

    def _blame_upper_tiles(self, grown: Range, size: int) -> None:
        for level, truth in enumerate(grown.levels, start=1):
            assert len(truth) == size >> (8 * level)
            for first in range(0, len(truth), WIDTH):
                part = truth[first : first + WIDTH]
                self._blame_tile(level, first // WIDTH, self._folder.hashes(level, first // WIDTH, len(part)), part)

    def _blame_unresolved(self, checkpoint: Checkpoint) -> None:
        """Neither entries nor tiles give the root: name all that does not fit together."""
        self._report.blame("checkpoint", "its root is not the root of these entries, nor of these tiles")
        for row in self._rows:
            last = row.first + row.width - 1
            if row.entries is None:
                self._report.blame("entry", "their bundle is missing", row.first, last)
            elif row.tile is None:
                self._report.blame("entry", "their tile is missing, and one or more of them are wrong", row.first, last)
            else:
                for index, what in differences(row.tile, row.entries, row.first):
                    self._report.blame("entry", f"{what} (as its tile says)", index)
        grown = self._candidates.range_of("entries") or self._candidates.range_of("mixed")
        for index, there in enumerate(grown.levels[0] if grown and grown.levels else ()):
            above = index // WIDTH
            upper = self._folder.hashes(1, above, min(WIDTH, checkpoint.size // WIDTH - above * WIDTH))
            if upper is not None and upper[index % WIDTH] != there:
                what = "one or more of them are wrong, and their tile was changed as well"
                self._report.blame("entry", what, index * WIDTH, index * WIDTH + WIDTH - 1)


def _whole(hashes: list[bytes] | None, width: int) -> list[bytes] | None:
    return hashes if hashes is not None and len(hashes) == width else None
