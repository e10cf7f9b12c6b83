"""The store's tables, as numbered migrations: appended to, never edited. Layout and figures: docs/decisions/0004.

Every BLOB is sealed or a keyed hash, a uuid apart, which is random. The other columns are numbers that this service
counts itself: they say how many records, batches and erasures there are and in which order they came.
"""

__all__ = ["migrations", "place_of", "position_limit", "position_of"]

_position_bits = 40
position_limit = 1 << _position_bits
_position_mask = position_limit - 1

# `place` is (collection number << 40) + position: a row id, so that rows lie in the order of positions, and a 2-KB
# vector lies within its page. A composite key would need WITHOUT ROWID, whose rows spill from 1 KB on.
migrations = (
    """
    CREATE TABLE collection (
        number INTEGER PRIMARY KEY CHECK (number BETWEEN 1 AND 4194303),
        uuid BLOB NOT NULL UNIQUE CHECK (length(uuid) = 16),
        name_tag BLOB NOT NULL UNIQUE CHECK (length(name_tag) = 32),
        descriptor BLOB NOT NULL,
        data_version INTEGER NOT NULL DEFAULT 0,
        erasure_epoch INTEGER NOT NULL DEFAULT 0,
        next_position INTEGER NOT NULL DEFAULT 0 CHECK (next_position <= 1099511627776),
        record_count INTEGER NOT NULL DEFAULT 0 CHECK (record_count >= 0)
    ) STRICT;
    CREATE TABLE codebook (
        collection INTEGER PRIMARY KEY REFERENCES collection (number),
        version INTEGER NOT NULL CHECK (version >= 1),
        sealed BLOB NOT NULL
    ) STRICT;
    CREATE TABLE record (
        place INTEGER PRIMARY KEY,
        collection INTEGER NOT NULL CHECK (collection = place >> 40),
        id_tag BLOB NOT NULL CHECK (length(id_tag) = 32),
        vector BLOB NOT NULL,
        meta BLOB NOT NULL,
        UNIQUE (collection, id_tag)
    ) STRICT;
    CREATE TABLE record_text (
        place INTEGER PRIMARY KEY,
        text BLOB NOT NULL
    ) STRICT;
    CREATE TABLE change (
        collection INTEGER NOT NULL REFERENCES collection (number),
        sequence INTEGER NOT NULL,
        erased INTEGER NOT NULL CHECK (erased IN (0, 1)),
        first INTEGER NOT NULL,
        count INTEGER NOT NULL CHECK (count >= 1),
        PRIMARY KEY (collection, sequence)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE request (
        collection INTEGER NOT NULL REFERENCES collection (number),
        tag BLOB NOT NULL CHECK (length(tag) = 32),
        body_tag BLOB NOT NULL CHECK (length(body_tag) = 32),
        first INTEGER NOT NULL,
        count INTEGER NOT NULL,
        data_version INTEGER NOT NULL,
        PRIMARY KEY (collection, tag)
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX request_by_position ON request (collection, first);
    CREATE TABLE state (
        kind INTEGER NOT NULL CHECK (kind IN (1, 2, 3)),
        uuid BLOB NOT NULL CHECK (length(uuid) = 16),
        sealed BLOB NOT NULL,
        PRIMARY KEY (kind, uuid)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE mark (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        sealed BLOB NOT NULL
    ) STRICT
    """,
)


def place_of(collection: int, position: int) -> int:
    return (collection << _position_bits) + position


def position_of(place: int) -> int:
    return place & _position_mask
