"""What a log folder holds: published files, then the journal's frames on top. Reads only; several threads may ask.

The writer (posix.py) grows a view by one frame a commit. Readers without the writer's lock (``audit verify`` and ``audit
show`` of the command line) open one with :func:`open_view`.
"""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from secure_embed.audit.journal import Frame, Recovered, recover
from secure_embed.audit.merkle import CompactRange, empty_root, hash_bytes, leaf_hash
from secure_embed.audit.note import Checkpoint
from secure_embed.audit.protocol import Head
from secure_embed.audit.static_files import StaticFiles
from secure_embed.audit.tiles import bundle_path, pack_entries, partial_widths, tile_path, unpack_entries
from secure_embed.audit.tree import Tree, tile_width
from secure_embed.errors import IntegrityFailure, NotFound

__all__ = ["LogView", "open_view"]

journal_name = "journal"
empty_head = Head(size=0, root=empty_root, checkpoint="")


class LogView:
    """Full bundles are read from their files; what is not in a full one yet is held in memory."""

    def __init__(self, files: StaticFiles) -> None:
        """Load the published part. Raises ``IntegrityFailure`` (``log_damaged``) where its files do not fit."""
        self.files = files
        self.tree = Tree(self.leaf_hashes)
        self._lock = Lock()
        note = files.read_checkpoint()
        published = Checkpoint.of_note(note) if note is not None else None
        self.published = self._bundles = 0
        self._entries: list[bytes] = []  # from entry 256 * _bundles on
        self._hashes: list[bytes] = []
        self._head = empty_head
        if published is not None and note is not None:
            self._load(published.size)
            self._head = Head(size=published.size, root=published.root, checkpoint=note)
        self._range = self.tree.range()
        if self._range.root() != self._head.root:
            raise _damaged("the tiles do not give the checkpoint's root")

    def _load(self, size: int) -> None:
        self.published, self._bundles = size, size // tile_width
        level, hashes = 1, size // tile_width
        completed: list[tuple[int, bytes]] = []
        while hashes:
            for first in range(0, hashes, tile_width):
                width = min(tile_width, hashes - first)
                tile = self._read_tile(level, first // tile_width, width)
                completed += [(level, tile[i : i + hash_bytes]) for i in range(0, len(tile), hash_bytes)]
            level, hashes = level + 1, hashes // tile_width
        rest = size % tile_width
        if rest:
            self._entries = unpack_entries(self.files.read(bundle_path(self._bundles, rest)), rest)
            self._hashes = [leaf_hash(entry) for entry in self._entries]
            if b"".join(self._hashes) != self._read_tile(0, self._bundles, rest):
                raise _damaged("the last entries do not fit their tile")
        self.tree.extend(size, completed)

    def _read_tile(self, level: int, index: int, width: int) -> bytes:
        tile = self.files.read(tile_path(level, index, width))
        if len(tile) != width * hash_bytes:
            raise _damaged("a tile has another length")
        return tile

    def head(self) -> Head:
        return self._head

    def frame(self, entries: Sequence[bytes], new: Head) -> tuple[Frame, CompactRange, list[tuple[int, bytes]]]:
        """The frame that appends ``entries``, and what :meth:`apply` needs. Raises ``IntegrityFailure`` unless they
        give ``new``: the driver hashes again what the log has hashed, so a fault in one shows in the other."""
        hashes = [leaf_hash(entry) for entry in entries]
        grown = self._range.copy()
        completed: list[tuple[int, bytes]] = []
        for leaf in hashes:
            grown.append(leaf, completed)
        said = Checkpoint.of_note(new.checkpoint)
        if (grown.size, grown.root()) != (new.size, new.root) or (said.size, said.root) != (new.size, new.root):
            raise _damaged("entries and head do not fit")
        frame = Frame(first=self._head.size, entries=entries, leaf_hashes=hashes, checkpoint=new.checkpoint)
        return frame, grown, completed

    def apply(self, frame: Frame, grown: CompactRange, completed: list[tuple[int, bytes]], new: Head) -> None:
        with self._lock:
            self._entries += frame.entries
            self._hashes += frame.leaf_hashes
            self._range = grown
            self.tree.extend(len(frame.entries), completed)
            self._head = new

    def replay(self, frame: Frame) -> None:
        """Apply a frame of the journal, after checking it like a new one."""
        if frame.end <= self.published:
            return  # published before the journal could be emptied
        if frame.first != self._head.size:
            raise _damaged("the journal does not continue the published log")
        said = Checkpoint.of_note(frame.checkpoint)
        new = Head(size=said.size, root=said.root, checkpoint=frame.checkpoint)
        again, grown, completed = self.frame(frame.entries, new)
        if again.leaf_hashes != frame.leaf_hashes:
            raise _damaged("the journal's leaf hashes do not fit its entries")
        self.apply(again, grown, completed, new)

    def write_full_bundles(self) -> None:
        """Put what has become full into its files, and out of memory. Not durable before a sync."""
        while len(self._entries) >= tile_width:
            self._write_bundle(self._bundles, tile_width)
            level, hashes = 1, self._bundles + 1
            while hashes and hashes % tile_width == 0:
                index = hashes // tile_width - 1
                self.files.write(tile_path(level, index, tile_width), self.tree.tile(level, index, tile_width))
                level, hashes = level + 1, hashes // tile_width
            with self._lock:  # last: where a write found no space, all of this is done again
                self._bundles += 1
                del self._entries[:tile_width], self._hashes[:tile_width]

    def write_partials(self) -> None:
        """Write the partial tiles and bundle of the present size."""
        for level, index, width in partial_widths(self._head.size):
            if level == 0:
                self._write_bundle(index, width)
            else:
                self.files.write(tile_path(level, index, width), self.tree.tile(level, index, width))

    def _write_bundle(self, index: int, width: int) -> None:
        self.files.write(bundle_path(index, width), pack_entries(self._entries[:width]))
        self.files.write(tile_path(0, index, width), b"".join(self._hashes[:width]))

    def entries(self, start: int, count: int) -> Sequence[bytes]:
        """Raises ``NotFound`` (``entry_not_found``) unless all of them are there."""
        return self._slice(start, count, hashes=False)

    def leaf_hashes(self, start: int, count: int) -> Sequence[bytes]:
        """Raises ``NotFound`` (``entry_not_found``) unless all of them are there."""
        return self._slice(start, count, hashes=True)

    def _slice(self, start: int, count: int, *, hashes: bool) -> Sequence[bytes]:
        end = start + count
        if start < 0 or count < 0 or end > self._head.size:
            raise NotFound("the log has no such entry", code="entry_not_found")
        with self._lock:
            bundles = self._bundles
            tail_start = bundles * tile_width
            source = self._hashes if hashes else self._entries
            tail = source[max(start - tail_start, 0) : end - tail_start] if end > tail_start else []
        found: list[bytes] = []
        for index in range(start // tile_width, min(bundles, -(-end // tile_width))):
            first = index * tile_width
            row = self._full_hashes(index) if hashes else self._full_entries(index)
            found += row[max(start - first, 0) : end - first]
        return found + tail

    def _full_entries(self, index: int) -> list[bytes]:
        return unpack_entries(self.files.read(bundle_path(index, tile_width)), tile_width)

    def _full_hashes(self, index: int) -> list[bytes]:
        tile = self._read_tile(0, index, tile_width)
        return [tile[i : i + hash_bytes] for i in range(0, len(tile), hash_bytes)]


def _damaged(what: str) -> IntegrityFailure:
    return IntegrityFailure(f"the log is damaged: {what}", code="log_damaged")


def read_journal(folder: Path) -> Recovered:
    try:
        return recover((folder / journal_name).read_bytes())
    except OSError:
        raise _damaged("there is no journal") from None


def load(files: StaticFiles, journal: Recovered) -> LogView:
    """Raises ``IntegrityFailure`` (``log_damaged``). Tiles without a checkpoint come with a journal from the first entry
    on: it is emptied only once a checkpoint is durable."""
    view = LogView(files)
    if view.head().size == 0 and not journal.frames and files.has_tiles():
        raise _damaged("there is no checkpoint")
    for frame in journal.frames:
        view.replay(frame)
    return view


def open_view(folder: Path) -> LogView:
    """The log as it lies there now, without the writer's lock. Raises ``IntegrityFailure`` (``log_damaged``).

    The journal is read first: if the service publishes meanwhile, the published part is ahead of it and wins. Where a
    publication took files away while they were read, the checkpoint is another one, and all is read anew.
    """
    files = StaticFiles(folder)
    while True:
        before = files.read_checkpoint()
        try:
            view = load(files, read_journal(folder))
        except IntegrityFailure:
            if files.read_checkpoint() == before:
                raise
        else:
            return view
