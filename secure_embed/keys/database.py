"""One way to open a SQLCipher file and change it: durable commits, nothing deleted left readable, migrations applied.

The keys database, the sealed store and the risk ledger each are such a file, under a key of their own. How it gets
another key, and what was measured: docs/decisions/0011-rotation-and-resealing.md.
"""

import math
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock, RLock, get_ident
from typing import Any

import sqlcipher3.dbapi2 as sqlcipher

from secure_embed.errors import ConfigurationError, IntegrityFailure, Unavailable
from secure_embed.keys.connections import connect, faults, key_pragma
from secure_embed.keys.file_lock import FileLock
from secure_embed.keys.locked import LockedMemory
from secure_embed.keys.private_files import sync_folder
from secure_embed.keys.row_seals import RowSeals
from secure_embed.keys.row_tree import RowTree
from secure_embed.keys.sealed_table import SealedTables

__all__ = ["SealedDatabase"]

database_key_bytes = 32
page_cache_kib = 8_000  # SQLite's own default
large_log_bytes = 4 * 1024 * 1024
copy_step_pages = 500  # 2 MB: 15 ms
copy_pause_s = 0.001  # a lock that is let go of and taken again at once is not handed over
copy_setbacks_max = 3

# One row, which each transaction that changes a row counts up.
_generation_table = "CREATE TABLE IF NOT EXISTS file_generation (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL) STRICT"

Value = int | bytes | str | None


class SealedDatabase:
    """Two SQLCipher connections, one that writes and one that reads, each shared by threads under a lock.

    A read waits for no write: beside a thread that appends batches of 1,000 rows, the median read took 1 ms, and 43 ms
    when the two shared one connection. The file is open once at a time, in this process and all others.
    """

    def __init__(
        self,
        path: Path,
        key: bytes,
        *,
        migrations: Sequence[str],
        page_cache_kib: int = page_cache_kib,
        memory: LockedMemory | None = None,
        sealed: tuple[SealedTables, bytes] | None = None,
    ) -> None:
        """Open or create ``path`` and bring its schema up to date; each migration is one transaction.

        ``page_cache_kib`` bounds the decrypted pages that each of the two connections keeps in memory; ``memory`` holds
        the key. ``sealed``: the tables whose rows are sealed as sets, and the key of that (32 bytes).

        A file ``<name>.lock`` stays beside it. Raises ``IntegrityFailure``: ``database_unreadable`` for a wrong key
        or a damaged file, ``rows_altered`` for rows that were taken away or changed; and ``ConfigurationError``:
        ``store_in_use`` when it is open already, ``store_unusable`` when it cannot be locked, ``database_too_new`` for a
        schema that this version does not know.
        """
        _ensure_key(key)
        self._path = path
        self._page_cache_kib = page_cache_kib
        self._memory = LockedMemory() if memory is None else memory
        self._seals = None if sealed is None else RowSeals(sealed[0], self._memory.hold(sealed[1]))
        self._lock = RLock()
        self._whole_file = Lock()  # of a copy or a new key; taken before _lock
        self._read_lock = Lock()  # taken after _lock where both are
        self._writing_thread: int | None = None
        self._closed = False
        self._file_lock = FileLock(path.with_name(f"{path.name}.lock"))
        with ExitStack() as failed, faults(path.name):
            failed.callback(self._file_lock.release)
            # Created here so that the file never exists with wider permissions, whatever the umask.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            sync_folder(path.parent)  # SQLite does not see to it for a file that exists already
            self._connection = self._connect(key)
            failed.callback(self._connection.close)
            self._reader = self._connect(key, read_only=True)
            failed.callback(self._reader.close)
            self._migrate(migrations)
            if self._seals is not None:
                self._seals.load(self._committed)
                self._seals.watch(self._connection)
            failed.pop_all()
        self._key = self._memory.hold(key)

    def _connect(self, key: bytes, *, read_only: bool = False) -> sqlcipher.Connection:
        return connect(self._path, key, page_cache_kib=self._page_cache_kib, read_only=read_only)

    def _migrate(self, migrations: Sequence[str]) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > len(migrations):
            raise ConfigurationError(f"{self._path.name} was written by a newer version", code="database_too_new")
        # A crash may have come between this and the first migration.
        if version == 0 and (self._seals is None or self._seals.is_new(self._committed)):
            with self.transaction() as run:
                run.execute(_generation_table)
                run.execute("INSERT OR IGNORE INTO file_generation VALUES (1, 0)")
                if self._seals is not None:
                    self._seals.create(run)
        for number, script in enumerate(migrations[version:], start=version + 1):
            with self.transaction() as run:
                for statement in filter(str.strip, script.split(";")):
                    run.execute(statement)
                run.execute(f"PRAGMA user_version = {number}")

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            with faults(self._path.name):
                yield
        except sqlcipher.ProgrammingError:
            self._refuse_closed()
            raise

    def _refuse_closed(self) -> None:
        if self._closed:
            raise Unavailable(f"{self._path.name} is closed", code="storage_unavailable") from None

    # --- use -------------------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self, *, refusable: bool = False) -> Iterator[sqlcipher.Connection]:
        """A write transaction: committed and durable when the block ends, rolled back when it raises.

        ``refusable``: a constraint may refuse what a caller asks for, who gets ``sqlcipher3.dbapi2.IntegrityError``.
        Elsewhere a broken constraint means that rows are not as they were written: ``IntegrityFailure``
        (``database_inconsistent``).
        """
        with self._lock, self._faults():
            self._connection.execute("BEGIN IMMEDIATE")
            self._writing_thread = get_ident()
            before, tree = self._connection.total_changes, None
            try:
                yield self._connection
                if self._connection.total_changes != before or self._schema_changed():
                    tree = self._count_and_seal()
                self._connection.execute("COMMIT")
                if self._seals is not None and tree is not None:
                    self._seals.took(tree)
            except BaseException as fault:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if self._seals is not None:
                    self._seals.undone(sure=tree is None)
                if isinstance(fault, sqlcipher.IntegrityError) and not refusable:
                    raise IntegrityFailure(
                        f"rows of {self._path.name} contradict each other", code="database_inconsistent"
                    ) from None
                raise
            finally:
                self._writing_thread = None

    def _schema_changed(self) -> bool:
        return self._seals is not None and self._seals.schema_changed(self._connection)

    def _count_and_seal(self) -> RowTree | None:
        run = self._connection
        counted = run.execute("UPDATE file_generation SET number = number + 1 RETURNING number").fetchall()
        if self._seals is None:
            return None
        if len(counted) != 1:
            raise self._uncounted()
        return self._seals.seal(run, self._committed, counted[0][0])

    def _committed(self, sql: str, parameters: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """The last commit's view, also for who is within a transaction."""
        with self._read_lock, self._faults():
            return list(self._reader.execute(sql, parameters))

    def sealed_rows(self, table: str, owner: int = 0) -> list[tuple[Any, ...]]:
        """All rows of an owner in a sealed table, all columns, as the last commit left them.

        The first time they are compared with what was sealed. Raises ``IntegrityFailure`` (``rows_altered``).
        """
        assert self._seals is not None
        rows = self._seals.rows(self._committed, table, owner, locked=False)
        if rows is None:
            with self._lock:
                rows = self._seals.rows(self._committed, table, owner, locked=True)
        assert rows is not None
        return rows

    def require_sealed(self, table: str, owner: int, first: int, last: int) -> None:
        """Compare the blocks of these keys with what was sealed, where they were not yet. Raises as above."""
        assert self._seals is not None
        with self._lock:
            self._seals.require_keys(self._committed, table, owner, first, last)

    def rows(self, sql: str, parameters: Sequence[Value] = ()) -> list[tuple[Value, ...]]:
        """All rows of one SELECT, read in one consistent view: the last commit's, and within a transaction its own."""
        if self._writing_thread == get_ident():
            with self._faults():
                return list(self._connection.execute(sql, parameters))
        with self._read_lock, self._faults():
            return list(self._reader.execute(sql, parameters))

    @property
    def generation(self) -> int:
        """How many transactions have changed a row of this file since it was made. Durable: a file that counts less
        than was seen before is an older one put back. Raises ``IntegrityFailure`` where the count is gone."""
        found = self.rows("SELECT number FROM file_generation")
        if len(found) != 1 or not isinstance(found[0][0], int):
            raise self._uncounted()
        return found[0][0]

    def _uncounted(self) -> IntegrityFailure:
        return IntegrityFailure(f"{self._path.name} does not count its changes", code="database_unreadable")

    def empty_write_ahead_log(self) -> None:
        """Move the write-ahead log into the database and truncate it, so that deleted bytes are in neither."""
        with self._lock, self._faults():
            self._refuse_closed()
            log = self._path.with_name(f"{self._path.name}-wal")
            if log.exists() and log.stat().st_size > large_log_bytes:
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")  # readers go on; little is left for below
            self._empty_log()

    def _empty_log(self) -> None:
        with self._read_lock:  # no reader holds the log open meanwhile
            busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise Unavailable(f"{self._path.name} is busy", code="storage_unavailable")

    # --- the file as a whole ---------------------------------------------------------------------------------------

    def rekey(self, new_key: bytes) -> None:
        """Encrypt every page under ``new_key`` (32 bytes), in one transaction; durable on return.

        Writers wait, and readers are answered from the last commit. A crash leaves a file that opens with the old key
        or with the new one. Space: once more the file's size, until the write-ahead log is emptied. Raises
        ``Unavailable``; then :meth:`key_is` says which key the file has.
        """
        _ensure_key(new_key)
        with self._whole_file, self._lock, self._faults():
            self._refuse_closed()
            with self._read_lock:
                self._reader.execute("BEGIN")  # what it answers until the end is this moment's view
                self._reader.execute("SELECT number FROM file_generation").fetchone()
            try:
                self._connection.execute(key_pragma("rekey", new_key))
            finally:
                # A failure is no error to SQLite, and the connection would go on under the new key in a file of the old
                # one. So which key the file has is found out, by opening it.
                taken = self._reopen(new_key, self._key.copy()) == new_key
            if not taken:
                raise Unavailable(f"{self._path.name} did not take the new key", code="storage_unavailable")
            old, self._key = self._key, self._memory.hold(new_key)
            old.wipe()
            self.empty_write_ahead_log()

    def key_is(self, key: bytes) -> bool:
        """Whether the file is encrypted under ``key`` now."""
        return secrets.compare_digest(self._key.copy(), key)

    def _reopen(self, *keys: bytes) -> bytes:
        """Both connections anew, under the first of ``keys`` that opens the file. The old ones are closed after, so that
        none is the last, which would move the whole write-ahead log while readers wait."""
        key, fresh = self._first_that_opens(*keys)
        reader = self._connect(key, read_only=True)
        with self._read_lock:
            old = self._reader, self._connection
            self._reader, self._connection = reader, fresh
        if self._seals is not None:
            self._seals.watch(fresh)
        for connection in old:
            connection.close()
        return key

    def _first_that_opens(self, *keys: bytes) -> tuple[bytes, sqlcipher.Connection]:
        *others, last = keys
        for key in others:
            try:
                return key, self._connect(key)
            except sqlcipher.DatabaseError:
                continue
        return last, self._connect(last)

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy under the same key: mode 0600, whole or not at all, durable on return.

        Writers wait no longer than a step of 2 MB takes, and what they write meanwhile is in the copy: it is the state
        at the end. Who empties the write-ahead log makes it begin again; after three such setbacks writers wait until it
        is through. Raises ``ConfigurationError`` (``backup_exists``) where there is a file.
        """
        if path.exists():
            raise ConfigurationError(f"{path.name} exists and is not overwritten", code="backup_exists")
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with self._whole_file, self._faults():
                self._copy_pages(temporary)
            os.fsync(descriptor)
            os.link(temporary, path)  # not a rename: that would overwrite
        except OSError:
            raise Unavailable(f"{path.name} cannot be written", code="storage_unavailable") from None
        finally:
            os.close(descriptor)
            temporary.unlink()
        sync_folder(path.parent)

    def _copy_pages(self, path: Path) -> None:
        left, setbacks = math.inf, 0

        def let_others_write(_status: int, remaining: int, _total: int) -> None:
            nonlocal left, setbacks
            setbacks += remaining >= left
            left = remaining
            if remaining and setbacks < copy_setbacks_max:
                self._lock.release()
                time.sleep(copy_pause_s)
                self._lock.acquire()
                self._refuse_closed()

        target = sqlcipher.connect(str(path), isolation_level=None)
        try:
            target.execute(key_pragma("key", self._key.copy()))
            target.execute("PRAGMA cipher_compatibility = 4")
            target.execute("PRAGMA journal_mode = OFF")  # a copy that is cut off is thrown away
            target.execute("PRAGMA synchronous = OFF")  # and synced once, at its end
            with self._lock:
                self._refuse_closed()
                # The source is the connection that writes: its own later writes reach pages that are copied already.
                self._connection.backup(target, pages=copy_step_pages, progress=let_others_write, sleep=0)
        finally:
            target.close()

    def check(self) -> None:
        """Read the whole file: the authenticity of every page, then the structure. Writers wait, readers do not.

        Raises ``IntegrityFailure`` (``database_unreadable``).
        """
        with self._lock, self._faults():
            self.empty_write_ahead_log()  # the pages are read from the file itself
            fresh = self._connect(self._key.copy(), read_only=True)  # nothing hidden by pages in a cache
            try:
                found = fresh.execute("PRAGMA cipher_integrity_check").fetchall()
                if not found and fresh.execute("PRAGMA integrity_check(1)").fetchall() == [("ok",)]:
                    return
            finally:
                fresh.close()
        raise IntegrityFailure(f"{self._path.name} is damaged", code="database_unreadable")

    def close(self) -> None:
        """Idempotent. Later calls raise ``Unavailable`` (``storage_unavailable``)."""
        with self._lock, self._read_lock:
            self._closed = True
            self._reader.close()
            self._connection.close()  # the last one: moves the write-ahead log into the file and removes it
            self._key.wipe()
            if self._seals is not None:
                self._seals.close()
            self._file_lock.release()


def _ensure_key(key: bytes) -> None:
    if len(key) != database_key_bytes:
        raise ConfigurationError("a database key has 32 bytes", code="database_key_invalid")
