"""The tables of the keys database, made so that a key ends where it lies: by being written over, in place.

SQLite overwrites a row in place only while its size stays the same; a row that grows is moved, a page that splits or
merges leaves copies of its cells behind, and no later write finds those (docs/decisions/0002-key-tree.md). So a row
that holds a key is of one size for life. What changes its size, a counter of one to eight bytes, lies in a table
without keys; what providers wrap into different lengths is padded to one. All of them are sealed as sets of rows.
"""

import struct

from secure_embed.errors import ConfigurationError, IntegrityFailure
from secure_embed.keys.blocks import BlockTable
from secure_embed.keys.sealed_table import SealedTable, SealedTables, place_of
from secure_embed.keys.wrapping import wrapped_bytes
from secure_embed.types import Position

__all__ = [
    "ABSENT",
    "LIVE",
    "SHREDDED",
    "column",
    "migrations",
    "none",
    "position_of",
    "record_keys",
    "root_wrap_bytes_max",
    "sealed_tables",
    "subjects",
    "uncolumn",
]

ABSENT, LIVE, SHREDDED = range(3)  # record_keys.state of a position

none = bytes(40)  # a wrapped key that is not there
root_wrap_bytes_max = 510  # AES-KWP 40, AES-GCM 65, Vault Transit about 100, RSA-4096 512 would be too long

_length = struct.Struct(">H")
_column_bytes = root_wrap_bytes_max + _length.size

record_keys = BlockTable("record_keys", {"state": 1, "wrapped": wrapped_bytes})
subjects = BlockTable("subjects", {"tags": 32})  # keyed hashes; zeros where a record names nobody

# `version`, `next_position` and `root` hold no key and may move. `id` never changes.
migrations = (
    f"""
    CREATE TABLE collections (
        id INTEGER PRIMARY KEY,
        uuid BLOB NOT NULL UNIQUE CHECK (length(uuid) = 16),
        dropped INTEGER NOT NULL DEFAULT 0 CHECK (dropped IN (0, 1)),
        collection_key BLOB NOT NULL CHECK (length(collection_key) = 512),
        index_key BLOB NOT NULL CHECK (length(index_key) = 40),
        lookup_key BLOB NOT NULL CHECK (length(lookup_key) = 40),
        codes_key BLOB NOT NULL DEFAULT (zeroblob(40)) CHECK (length(codes_key) = 40)
    ) STRICT;
    CREATE TABLE counters (
        collection INTEGER PRIMARY KEY REFERENCES collections (id),
        version INTEGER NOT NULL CHECK (version >= 1),
        next_position INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    {record_keys.statement};
    {subjects.statement};
    CREATE TABLE offers (
        id INTEGER PRIMARY KEY,
        used INTEGER NOT NULL CHECK (used IN (0, 1)),
        place BLOB NOT NULL CHECK (length(place) = 16),
        wrapped BLOB NOT NULL CHECK (length(wrapped) = 40)
    ) STRICT;
    CREATE UNIQUE INDEX offers_by_place ON offers (place) WHERE used = 1;
    CREATE TABLE root (one INTEGER PRIMARY KEY CHECK (one = 1), key_id TEXT NOT NULL) STRICT;
    CREATE TABLE mark (one INTEGER PRIMARY KEY CHECK (one = 1), sealed BLOB NOT NULL) STRICT
    """,
)

sealed_tables = SealedTables(
    file="keys.db",
    tables=(
        SealedTable(
            name="collections",
            columns=("id", "uuid", "dropped", "collection_key", "index_key", "lookup_key", "codes_key"),
            key="id",
        ),
        SealedTable(name="counters", columns=("collection", "version", "next_position"), key="collection"),
        record_keys.sealed,
        subjects.sealed,
        SealedTable(name="offers", columns=("id", "used", "place", "wrapped"), key="id"),
        SealedTable(name="root", columns=("one", "key_id"), key="one"),
        SealedTable(name="mark", columns=("one", "sealed"), key="one"),
    ),
)


def column(wrapped: bytes) -> bytes:
    """What the root wrapped, in 512 bytes: u16 length, the bytes, zeros.

    Raises ``ConfigurationError`` (``root_wrap_too_long``) for more than 510 bytes.
    """
    if not 1 <= len(wrapped) <= root_wrap_bytes_max:
        raise ConfigurationError("the key provider wraps into too many bytes", code="root_wrap_too_long")
    return (_length.pack(len(wrapped)) + wrapped).ljust(_column_bytes, b"\x00")


def uncolumn(stored: bytes) -> bytes:
    """Raises ``IntegrityFailure`` (``key_store_invalid``)."""
    (length,) = _length.unpack_from(stored)
    if not 1 <= length <= root_wrap_bytes_max or any(stored[_length.size + length :]):
        raise IntegrityFailure("a wrapped collection key is malformed", code="key_store_invalid")
    return stored[_length.size : _length.size + length]


def position_of(stored: bytes) -> Position:
    """Of an offer's place."""
    return Position(place_of(stored)[1])
