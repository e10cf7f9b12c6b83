"""The store's tables, as numbered migrations: appended to, never edited. Layout and figures: docs/decisions/0013.

Every BLOB is sealed or a keyed hash, a uuid or fixed numbers apart. The other columns are numbers that this service
counts itself, and the moments at which records end.

What an erasure has to reach lies in rows that are appended in order, never grow and never move: it is overwritten in
its place. SQLite moves cells when pages split or merge, and leaves copies that no later delete finds. So sealed values
lie in tables of their own for each collection, what is of one size in blocks of fixed rows, and no index holds a tag or a
sealed value. All tables but those of sealed values, which bind their place themselves, are sealed as sets of rows.
"""

from secure_embed.keys import BlockTable, SealedTable, SealedTables

__all__ = [
    "ABSENT",
    "ERASED",
    "THERE",
    "collection_tables",
    "drop_collection_tables",
    "ends",
    "migrations",
    "position_limit",
    "records",
    "sealed_tables",
    "value_tables",
]

position_limit = 1 << 40
value_tables = ("text", "meta")  # of a collection, in which a row is a sealed value
ABSENT, THERE, ERASED = range(3)  # records.state of a position

records = BlockTable("records", {"state": 1, "id_tags": 32})
ends = BlockTable("ends", {"expires_unix": 8})  # i64, little endian; zeros where a record has no end

migrations = (
    f"""
    CREATE TABLE collection (
        number INTEGER PRIMARY KEY,
        uuid BLOB NOT NULL UNIQUE CHECK (length(uuid) = 16),
        ended INTEGER NOT NULL DEFAULT 0 CHECK (ended IN (0, 1, 2)),
        name_tag BLOB NOT NULL CHECK (length(name_tag) = 32),
        descriptor BLOB NOT NULL,
        slot_bytes INTEGER NOT NULL DEFAULT 0,
        data_version INTEGER NOT NULL DEFAULT 0,
        erasure_epoch INTEGER NOT NULL DEFAULT 0,
        codebook_version INTEGER NOT NULL DEFAULT 0,
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
    ) STRICT;
    {records.statement};
    {ends.statement}
    """,
)

sealed_tables = SealedTables(
    file="data.db",
    tables=(
        SealedTable(
            name="collection",
            columns=(
                "number", "uuid", "ended", "name_tag", "descriptor", "slot_bytes",
                "data_version", "erasure_epoch", "codebook_version", "next_position", "record_count",
            ),
            key="number",
        ),
        SealedTable(  # megabytes each, so compared when it is wanted
            name="codebook",
            columns=("collection", "version", "sealed"),
            owner="collection",
            key="collection",
            at_start=False,
        ),
        SealedTable(
            name="segment", columns=("collection", "first", "generation", "slots"), owner="collection", key="first"
        ),
        SealedTable(name="scrub", columns=("collection", "position"), owner="collection", key="position"),
        SealedTable(
            name="change",
            columns=("collection", "sequence", "kind", "first", "count"),
            owner="collection",
            key="sequence",
            at_start=False,
        ),
        SealedTable(name="request", columns=("id", "tag", "body_tag", "answer"), key="id"),
        SealedTable(name="state", columns=("id", "name", "padded"), key="id"),
        SealedTable(name="mark", columns=("id", "sealed"), key="id"),
        records.sealed,
        ends.sealed,
    ),
)  # fmt: skip

_of_collection = (
    "CREATE TABLE meta_{n} (position INTEGER PRIMARY KEY, meta BLOB NOT NULL) STRICT",
    "CREATE TABLE text_{n} (position INTEGER PRIMARY KEY, text BLOB NOT NULL) STRICT",
)


def collection_tables(number: int) -> list[str]:
    """Statements that make a collection's tables."""
    return [statement.format(n=number) for statement in _of_collection]


def drop_collection_tables(number: int) -> list[str]:
    return [f"DROP TABLE IF EXISTS {table}_{number}" for table in value_tables]
