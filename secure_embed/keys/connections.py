"""SQLCipher connections, made one way: raw key, durable commits, nothing deleted left readable. Settings and why:
docs/decisions/0003-sqlcipher-settings.md. Source: SQLCipher API (PRAGMA key, raw key data), SQLite PRAGMA docs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlcipher3.dbapi2 as sqlcipher

from secure_embed.errors import ConfigurationError, IntegrityFailure, Unavailable

__all__ = ["connect", "faults", "key_pragma"]

busy_timeout_ms = 5_000


def connect(path: Path, key: bytes, *, page_cache_kib: int, read_only: bool = False) -> sqlcipher.Connection:
    """``key``: 32 bytes. What SQLite raises is the caller's to translate: see :func:`faults`.

    Raises ``ConfigurationError``: ``sqlcipher_missing``, ``database_settings_refused``.
    """
    connection = sqlcipher.connect(str(path), isolation_level=None, check_same_thread=False)
    try:
        _configure(connection, path.name, key, page_cache_kib)
        if read_only:
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _configure(connection: sqlcipher.Connection, name: str, key: bytes, page_cache_kib: int) -> None:
    run = connection.execute
    if not run("PRAGMA cipher_version").fetchall():  # plain SQLite would take the key and encrypt nothing
        raise ConfigurationError("this SQLite has no SQLCipher", code="sqlcipher_missing")
    run(key_pragma("key", key))
    run("PRAGMA cipher_compatibility = 4")  # pinned: a later SQLCipher must find the file as it was written
    run("SELECT count(*) FROM sqlite_master").fetchone()  # a wrong key shows itself at the first read
    run(f"PRAGMA busy_timeout = {busy_timeout_ms}")
    run("PRAGMA synchronous = FULL")
    journal = run("PRAGMA journal_mode = WAL").fetchone()
    # Off in the wheel: deleted keys would stay in free pages.
    deletes = run("PRAGMA secure_delete = ON").fetchone()
    if (journal, deletes) != (("wal",), (1,)):  # a refused PRAGMA is no error to SQLite
        raise ConfigurationError(f"{name} cannot be opened safely", code="database_settings_refused")
    run(f"PRAGMA cache_size = -{page_cache_kib}")
    run("PRAGMA temp_store = MEMORY")
    run("PRAGMA foreign_keys = ON")
    run("PRAGMA trusted_schema = OFF")


def key_pragma(pragma: str, key: bytes) -> str:
    """``key`` or ``rekey`` with raw key data. The string cannot be wiped."""
    return f"PRAGMA {pragma} = \"x'{key.hex()}'\""


@contextmanager
def faults(name: str) -> Iterator[None]:
    """SQLite's faults in our taxonomy; their messages name schema objects at most, and are not passed on."""
    try:
        yield
    except sqlcipher.OperationalError as fault:
        if "full" in str(fault):
            raise Unavailable("there is no space left to write", code="storage_full", http_status=507) from None
        if "readonly" in str(fault):
            raise Unavailable("the storage is read-only", code="storage_read_only", http_status=507) from None
        raise Unavailable(f"{name} cannot be used now", code="storage_unavailable") from None
    except MemoryError:  # SQLCipher's SQLITE_NOMEM, also for a page that it has to read while it commits, and cannot
        raise Unavailable(f"{name} cannot be used now", code="storage_unavailable") from None
    except (sqlcipher.IntegrityError, sqlcipher.ProgrammingError):
        raise
    except sqlcipher.DatabaseError:
        raise IntegrityFailure(
            f"{name} cannot be read: wrong key or damaged file", code="database_unreadable"
        ) from None
