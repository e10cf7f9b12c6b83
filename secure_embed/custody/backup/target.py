"""Where a backup is written: under a name that says it is not ready, then renamed. Unchanged files are linked."""

import os
import shutil
from pathlib import Path

from secure_embed.custody.backup.manifest import Manifest, digest

__all__ = ["Target"]


class Target:
    """``place``: the folder that is there once it is finished. ``earlier``: a backup whose files may be linked."""

    def __init__(self, place: Path, *, earlier: Path | None) -> None:
        self.place = place
        self.partial = place.with_name(f".{place.name}.partial")
        self.copied = 0  # bytes
        self.linked = 0
        self._earlier = earlier
        self._known = Manifest.read(earlier).files if earlier is not None else {}
        self._seen: dict[Path, tuple[int, int]] = {}  # path -> size and time of the source when it was copied
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.partial.mkdir(mode=0o700)

    def made(self, path: Path) -> Path:
        """``path`` in the backup; its folder is there."""
        target = self.partial / path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return target

    def copy(self, source: Path, path: Path) -> None:
        """A file, or a folder with all below it; what was copied before and has not changed since is passed over."""
        if source.is_dir():
            for inner in sorted(source.rglob("*")):
                if inner.is_file():
                    self._copy_file(inner, path / inner.relative_to(source))
            for there in [p for p in (self.partial / path).rglob("*") if p.is_file()]:
                if not (source / there.relative_to(self.partial / path)).exists():
                    there.unlink()  # it went between two passes
        elif source.is_file():
            self._copy_file(source, path)

    def _copy_file(self, source: Path, path: Path) -> None:
        status = source.stat()
        if self._seen.get(path) == (status.st_size, status.st_mtime_ns):
            return
        target = self.made(path)
        target.unlink(missing_ok=True)
        if self._earlier is not None and self._known.get(str(path)) == (status.st_size, digest(source)):
            os.link(self._earlier / path, target)
            self.linked += status.st_size
        else:
            shutil.copyfile(source, target)
            target.chmod(0o600)
            self.copied += status.st_size
        self._seen[path] = (status.st_size, status.st_mtime_ns)

    def link_unchanged(self, folder: Path) -> None:
        """Files below ``folder`` that another writer put here: link those that the earlier backup has already."""
        for file in sorted(p for p in (self.partial / folder).rglob("*") if p.is_file()):
            path = file.relative_to(self.partial)
            if self._earlier is not None and self._known.get(str(path)) == (file.stat().st_size, digest(file)):
                file.unlink()
                os.link(self._earlier / path, file)
                self.linked += file.stat().st_size

    def files(self) -> dict[str, tuple[int, str]]:
        """All that is there now, durable: path -> bytes, hex SHA-256."""
        found = {}
        for file in sorted(p for p in self.partial.rglob("*") if p.is_file()):
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
            found[str(file.relative_to(self.partial))] = (file.stat().st_size, digest(file))
        return found

    def finish(self) -> None:
        """In place under its name, durable: what :meth:`files` has not synced, and every folder, for the names in it."""
        inside = sorted(self.partial.rglob("*"))
        _sync(*self.partial.iterdir(), *(path for path in inside if path.is_dir()), self.partial)
        self.partial.rename(self.place)
        _sync(self.place.parent)

    def discard(self) -> None:
        """Leave nothing of it."""
        for folder in (self.partial, self.place):
            if folder.exists():
                shutil.rmtree(folder)


def _sync(*paths: Path) -> None:
    for path in paths:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
