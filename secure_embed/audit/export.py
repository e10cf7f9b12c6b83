"""A copy of a log for others: a C2SP static log in a folder of its own, and an empty journal, so that it can be opened too."""

from pathlib import Path

from secure_embed.audit.protocol import Head, LogReader
from secure_embed.audit.static_files import StaticFiles
from secure_embed.audit.tiles import bundle_path, pack_entries, tile_path
from secure_embed.audit.tree import Tree, tile_width
from secure_embed.audit.view import journal_name, open_view
from secure_embed.errors import Conflict, Unavailable

__all__ = ["export_folder", "export_static"]


def export_static(log: LogReader, tree: Tree, head: Head, folder: Path) -> None:
    """Write the log as it is at ``head``; durable on return. Raises ``Conflict`` (``export_target_not_empty``) and
    ``Unavailable`` (``storage_unavailable``)."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(folder.iterdir()):
            raise Conflict("the folder of an export must be empty", code="export_target_not_empty")
        files = StaticFiles(folder)
        files.write(journal_name, b"")
        _write_tiles(log, tree, head.size, files)
        if head.size:
            files.put_checkpoint(head.checkpoint)
        else:
            files.sync()
    except OSError:
        raise Unavailable("the export cannot be written", code="storage_unavailable") from None


def export_folder(log_folder: Path, folder: Path) -> Head:
    """Copy the log that lies in ``log_folder``, also while a service writes it; the head that the copy has. Raises as
    :func:`export_static`, and ``IntegrityFailure`` for a log that is damaged."""
    view = open_view(log_folder)
    export_static(view, view.tree, view.head(), folder)
    return view.head()


def _write_tiles(log: LogReader, tree: Tree, size: int, files: StaticFiles) -> None:
    for start in range(0, size, tile_width):
        width = min(tile_width, size - start)
        files.write(bundle_path(start // tile_width, width), pack_entries(log.entries(start, width)))
    level, hashes = 0, size
    while hashes:
        for start in range(0, hashes, tile_width):
            width = min(tile_width, hashes - start)
            index = start // tile_width
            files.write(tile_path(level, index, width), tree.tile(level, index, width))
        level, hashes = level + 1, hashes // tile_width
