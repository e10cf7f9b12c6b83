"""The log in a folder of a POSIX file system: one fdatasync of one append-only journal a commit; plain files from it.

Order of durability: a commit is durable once its frame in ``journal`` is. Full tiles are written when they are complete,
synced only by :meth:`PosixLogStorage.publish`, which ends by putting ``checkpoint`` in place and then emptying the journal.
So at each moment the durable tiles up to ``checkpoint`` and the journal's frames together hold every acknowledged entry.
Opening publishes what a crash left. After close() the folder is a plain C2SP static log beside an empty journal.

A failed fsync is final: what the medium holds is then unknown (a later fsync may succeed without the data), so the driver
refuses until it is opened anew and has read what is there. So is a failed write, but for one case: no space for a frame. Nobody
was told of it, so the journal is cut back to its last whole frame, synced, and goes on. A publication without space waits.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

from secure_embed.audit.protocol import Head, LogFull
from secure_embed.audit.static_files import NoSpace, StaticFiles, is_full
from secure_embed.audit.tiles import partial_paths
from secure_embed.audit.view import journal_name, load, read_journal
from secure_embed.errors import AuditUnavailable, ConfigurationError, Conflict, IntegrityFailure

__all__ = ["PosixLogStorage"]

journal_bytes_max = 64 * 1024 * 1024  # past this a settle publishes; bounds what an opening has to read


class PosixLogStorage:
    """Implements ``LogStorage``. The folder itself is locked, so that removing a file frees no second writer."""

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        """Open the log, or with ``create`` begin one where none is: a log that has gone is not replaced by an empty one
        unasked. Raises ``ConfigurationError`` (``log_in_use``), ``IntegrityFailure``
        (``log_damaged``) for anything that a crash cannot explain, ``AuditUnavailable`` when it cannot be written,
        ``LogFull`` when there is no space to publish what a crash left."""
        self._folder = folder
        self._writing = Lock()
        self._failed = False
        self._fd = -1
        if create:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            raise IntegrityFailure("the log is damaged: its folder cannot be opened", code="log_damaged") from None
        try:
            self._lock_folder()
            if create:
                self._create_journal()
            self._open()
        except BaseException:
            self._release()
            raise

    def _lock_folder(self) -> None:
        try:
            fcntl.flock(self._folder_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError("another process writes this log", code="log_in_use") from None

    def _create_journal(self) -> None:
        """Not beside published files: there, a missing journal is the loss of entries."""
        if any((self._folder / name).exists() for name in (journal_name, "checkpoint", "tile")):
            return
        with self._medium():
            os.close(os.open(journal_name, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=self._folder_fd))
            os.fsync(self._folder_fd)

    def _open(self) -> None:
        journal = read_journal(self._folder)
        self.torn_bytes = journal.torn_bytes
        self._view = load(StaticFiles(self._folder), journal)
        with self._medium():
            self._fd = os.open(journal_name, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, dir_fd=self._folder_fd)
        self._journal_bytes = os.fstat(self._fd).st_size
        with self._medium():
            self._partials = partial_paths(self._view.published)
            if self._journal_bytes:
                self._view.files.drop(self._view.files.partials() - self._partials)
                os.ftruncate(self._fd, journal.valid_bytes)
                self._journal_bytes = journal.valid_bytes
                self._publish()

    @contextmanager
    def _medium(self) -> Iterator[None]:
        """Any fault of the medium ends this opening of the log, but for want of space where nothing is in doubt."""
        if self._failed:
            raise AuditUnavailable
        try:
            yield
        except NoSpace:
            raise LogFull from None
        except OSError:
            self._failed = True
            raise AuditUnavailable from None

    def head(self) -> Head:
        return self._view.head()

    def entries(self, start: int, count: int) -> Sequence[bytes]:
        return self._view.entries(start, count)

    def leaf_hashes(self, start: int, count: int) -> Sequence[bytes]:
        return self._view.leaf_hashes(start, count)

    def commit(self, old: Head, entries: Sequence[bytes], new: Head) -> None:
        with self._writing, self._medium():
            if old != self._view.head():
                raise Conflict("the log has another head", code="log_head_changed")
            frame, grown, completed = self._view.frame(entries, new)
            self._append(frame.to_bytes())
            self._view.apply(frame, grown, completed, new)

    def _append(self, data: bytes) -> None:
        """One durable write. The journal must still be the file that its name means, and as long as it was left."""
        there = os.stat(journal_name, dir_fd=self._folder_fd, follow_symlinks=False)
        mine = os.fstat(self._fd)
        if (there.st_ino, there.st_dev) != (mine.st_ino, mine.st_dev) or mine.st_size != self._journal_bytes:
            raise OSError("the journal was replaced, removed or cut")
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as fault:
            if not is_full(fault):
                raise
            self._take_back()
            raise NoSpace(fault.errno, "no space") from None
        os.fdatasync(self._fd)
        self._journal_bytes += len(data)

    def _take_back(self) -> None:
        """What was written of a frame that did not fit. A fault in here is final."""
        os.ftruncate(self._fd, self._journal_bytes)
        os.fdatasync(self._fd)

    def settle(self) -> None:
        with suppress(LogFull), self._writing, self._medium():  # the journal holds all of it
            self._view.write_full_bundles()
            if self._journal_bytes > journal_bytes_max:
                self._publish()

    def publish(self) -> None:
        with self._writing, self._medium():
            self._publish()

    def _publish(self) -> None:
        view = self._view
        if view.head().size != view.published:
            partials = partial_paths(view.head().size)
            self._partials |= partials  # where there is no space for all of them, the next publication drops them
            view.write_full_bundles()
            view.write_partials()
            view.files.put_checkpoint(view.head().checkpoint)
            view.published = view.head().size
            view.files.drop(self._partials - partials)
            self._partials = partials
        os.ftruncate(self._fd, 0)
        os.fsync(self._fd)
        self._journal_bytes = 0

    def close(self) -> None:
        """Idempotent. Raises ``AuditUnavailable`` when what is there could not be published; nothing is lost then."""
        with self._writing:
            if self._folder_fd < 0:
                return
            try:
                if not self._failed:
                    with self._medium():
                        self._publish()
            finally:
                self._failed = True  # a closed log takes no commit
                self._release()

    def _release(self) -> None:
        for fd in (self._fd, self._folder_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._folder_fd = -1
