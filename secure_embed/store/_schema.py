"""The store's tables, as numbered migrations: appended to, never edited. Layout and figures: docs/decisions/0013.

Every BLOB is sealed or a keyed hash, a uuid or fixed numbers apart. The other columns are numbers that this service
counts itself, and the moments at which records end.

What an erasure has to reach lies in rows that are appended in order, never grow and never move: it is overwritten in
its place. SQLite moves cells when pages split or merge, and leaves copies that no later delete finds. So each
collection has tables of its own, and no index holds a tag or a sealed value.
"""

__all__ = ["collection_tables", "drop_collection_tables", "migrations", "position_limit", "row_tables"]

position_limit = 1 << 40
row_tables = ("text", "meta", "record")  # what an erasure overwrites; the row that says it is there comes last

migrations = (
    """
    CREATE TABLE collection (
        number INTEGER PRIMARY KEY,
        uuid BLOB NOT NULL UNIQUE CHECK (length(uuid) = 16),
        ended INTEGER NOT NULL DEFAULT 0 CHECK (ended IN (0, 1, 2)),
        name_tag BLOB NOT NULL CHECK (length(name_tag) = 32),
        descriptor BLOB NOT NULL,
        slot_bytes INTEGER NOT NULL DEFAULT 0,
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
    CREATE TABLE segment (
        collection INTEGER NOT NULL REFERENCES collection (number),
        first INTEGER NOT NULL CHECK (first % 4096 = 0),
        generation INTEGER NOT NULL,
        slots INTEGER NOT NULL CHECK (slots BETWEEN 1 AND 4096),
        PRIMARY KEY (collection, first)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE scrub (
        collection INTEGER NOT NULL REFERENCES collection (number),
        position INTEGER NOT NULL,
        PRIMARY KEY (collection, position)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE change (
        collection INTEGER NOT NULL REFERENCES collection (number),
        sequence INTEGER NOT NULL,
        kind INTEGER NOT NULL CHECK (kind IN (0, 1, 2)),
        first INTEGER NOT NULL,
        count INTEGER NOT NULL CHECK (count >= 1),
        PRIMARY KEY (collection, sequence)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE request (
        id INTEGER PRIMARY KEY,
        tag BLOB NOT NULL CHECK (length(tag) = 32),
        body_tag BLOB NOT NULL CHECK (length(body_tag) = 32),
        answer BLOB NOT NULL CHECK (length(answer) = 40)
    ) STRICT;
    CREATE TABLE state (
        id INTEGER PRIMARY KEY,
        name BLOB NOT NULL UNIQUE CHECK (length(name) = 17),
        padded BLOB NOT NULL
    ) STRICT;
    CREATE TABLE mark (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        sealed BLOB NOT NULL
    ) STRICT
    """,
)

_of_collection = (
    """CREATE TABLE record_{n} (
        position INTEGER PRIMARY KEY,
        erased INTEGER NOT NULL DEFAULT 0 CHECK (erased IN (0, 1)),
        id_tag BLOB NOT NULL CHECK (length(id_tag) = 32)
    ) STRICT""",
    "CREATE TABLE meta_{n} (position INTEGER PRIMARY KEY, meta BLOB NOT NULL) STRICT",
    "CREATE TABLE text_{n} (position INTEGER PRIMARY KEY, text BLOB NOT NULL) STRICT",
    "CREATE TABLE expiry_{n} (position INTEGER PRIMARY KEY, expires_unix INTEGER NOT NULL) STRICT",
    "CREATE INDEX expiry_{n}_by_time ON expiry_{n} (expires_unix, position)",
)


def collection_tables(number: int) -> list[str]:
    """Statements that make a collection's tables."""
    return [statement.format(n=number) for statement in _of_collection]


def drop_collection_tables(number: int) -> list[str]:
    return [f"DROP TABLE IF EXISTS {table}_{number}" for table in (*row_tables, "expiry")]
