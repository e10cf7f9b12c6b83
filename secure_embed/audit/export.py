"""A copy of a log for others: a C2SP static log in a folder of its own, and an empty journal, so that it can be opened too.

An export begins in an empty folder. A copy for a backup may go on from an older copy of the same log: what is in a full tile
never changes, so such a file is kept where its content gives the hash that the tree has for it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secure_embed.audit.merkle import CompactRange, leaf_hash
from secure_embed.audit.note import Checkpoint
from secure_embed.audit.protocol import Head, LogReader
from secure_embed.audit.static_files import StaticFiles, checkpoint_name, is_full
from secure_embed.audit.tiles import bundle_path, pack_entries, partial_paths, partial_widths, tile_path, unpack_entries
from secure_embed.audit.tree import Tree, tile_width
from secure_embed.audit.view import journal_name, open_view
from secure_embed.errors import ConfigurationError, Conflict, IntegrityFailure, Unavailable

__all__ = ["copy_log", "export_folder", "export_static"]


def export_folder(log_folder: Path, folder: Path) -> Head:
    """Copy the log that lies in ``log_folder``, also while a service writes it; the head that the copy has. Raises as
    :func:`export_static`, and ``IntegrityFailure`` for a log that is damaged."""
    view = open_view(log_folder)
    export_static(view, view.tree, view.head(), folder)
    return view.head()


def export_static(log: LogReader, tree: Tree, head: Head, folder: Path) -> None:
    """Write the log as it is at ``head``; durable on return. Raises ``Conflict`` (``export_target_not_empty``) and
    ``Unavailable`` (``storage_unavailable``, ``storage_full``)."""
    with _target(folder):
        if any(folder.iterdir()):
            raise _not_empty()
        _Copy(log, tree, head, folder).write()


def copy_log(log: LogReader, tree: Tree, head: Head, folder: Path) -> None:
    """As :func:`export_static`, but an older copy of this log may lie there and is brought up to ``head``. Raises also
    ``Conflict`` (``snapshot_target_differs``) for a copy of another log or of a later state."""
    with _target(folder):
        _Copy(log, tree, head, folder).go_on()


@contextmanager
def _target(folder: Path) -> Iterator[None]:
    """The folder, ours alone meanwhile: the lock is the one that a log's writer holds."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _lock(fd)
            yield
        finally:
            os.close(fd)
    except OSError as fault:
        if is_full(fault):
            raise Unavailable("there is no space for the copy", code="storage_full", http_status=507) from None
        raise Unavailable("the copy cannot be written", code="storage_unavailable") from None


def _lock(fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ConfigurationError("another process writes there", code="log_in_use") from None


class _Copy:
    def __init__(self, log: LogReader, tree: Tree, head: Head, folder: Path) -> None:
        self._log = log
        self._tree = tree
        self._head = head
        self._folder = folder
        self._files = StaticFiles(folder)
        self._durable = 0  # entries that an older copy holds for certain: its checkpoint came after its syncs

    def go_on(self) -> None:
        known = {journal_name, checkpoint_name, "tile"}
        self._files.drop_asides()
        if any(path.name not in known for path in self._folder.iterdir()):
            raise _not_empty()
        journal = self._folder / journal_name
        if journal.exists() and journal.stat().st_size:
            raise _not_empty()
        self._durable = self._older()
        self.write()

    def _older(self) -> int:
        try:
            note = self._files.read_checkpoint()
            there = Checkpoint.of_note(note) if note is not None else None
        except IntegrityFailure:
            raise _differs() from None
        if there is None:
            return 0
        if there.size > self._head.size or self._tree.root(there.size) != there.root:
            raise _differs()
        return there.size

    def write(self) -> None:
        """Full tiles, then partial ones, then all durable, then the checkpoint; then what only the older copy needed."""
        size = self._head.size
        if not (self._folder / journal_name).exists():
            self._files.write(journal_name, b"")
        for index in range(size // tile_width):
            self._put_bundle(index)
        level, hashes = 1, size // tile_width
        while hashes:
            for index in range(hashes // tile_width):
                self._put_tile(level, index, tile_width)
            level, hashes = level + 1, hashes // tile_width
        for level, index, width in partial_widths(size):
            if level == 0:
                packed = pack_entries(self._log.entries(index * tile_width, width))
                self._files.write(bundle_path(index, width), packed)
            self._files.write(tile_path(level, index, width), self._tree.tile(level, index, width))
        if size:
            self._files.put_checkpoint(self._head.checkpoint)
        else:
            self._files.sync()
        self._files.drop(self._files.partials() - partial_paths(size))

    def _put_bundle(self, index: int) -> None:
        bundle, tile = bundle_path(index, tile_width), tile_path(0, index, tile_width)
        if self._holds(bundle, tile, self._tree.root_of_bundle(index)):
            self._keep(0, index, bundle, tile)
            return
        entries = self._log.entries(index * tile_width, tile_width)
        self._files.write(bundle, pack_entries(entries))
        self._files.write(tile, self._tree.tile(0, index, tile_width))

    def _holds(self, bundle: str, tile: str, root: bytes) -> bool:
        """Whether the two files hold 256 entries and their hashes, and these give the tree's hash above them."""
        try:
            hashes = self._files.read(tile)
            entries = unpack_entries(self._files.read(bundle), tile_width)
        except IntegrityFailure:
            return False
        grown = CompactRange()
        leaves = [leaf_hash(entry) for entry in entries]
        for leaf in leaves:
            grown.append(leaf)
        return hashes == b"".join(leaves) and grown.root() == root

    def _put_tile(self, level: int, index: int, width: int) -> None:
        path, hashes = tile_path(level, index, width), self._tree.tile(level, index, width)
        try:
            there = self._files.read(path)
        except IntegrityFailure:
            there = b""
        if there == hashes:
            self._keep(level, index, path)
        else:
            self._files.write(path, hashes)

    def _keep(self, level: int, index: int, *paths: str) -> None:
        """What an interrupted copy wrote may be in memory only: it is synced like what is new."""
        if (index + 1) * tile_width ** (level + 1) > self._durable:
            self._files.keep(paths)


def _not_empty() -> Conflict:
    return Conflict("something else lies in the folder of the copy", code="export_target_not_empty")


def _differs() -> Conflict:
    return Conflict("the folder holds a copy of another log or of a later state", code="snapshot_target_differs")
