"""The ledger's tables. Numbered migrations: append, never change one that was released.

Every name in them is a keyed hash of 32 bytes. Times are milliseconds since 1970 (UTC).
``counters``: a principal or a client in a collection. ``records``: a small number for each record's tag, so that an
erased record's tag can be replaced while what it counted stays. ``queries``: admitted ones of the last day.
``seen``: when a counter last showed a record. ``exposures``: which queries showed it; keyed by record first, so that
the rows of one hit's two counters lie on one page and an erased record's rows are found at once. ``seen.shown_ms`` is
the latest ``exposures.shown_ms`` of the same record and counter, so that one index by age serves both.
"""

__all__ = ["migrations"]

migrations = (
    """
    CREATE TABLE counters (
        id INTEGER PRIMARY KEY,
        collection BLOB NOT NULL,
        role INTEGER NOT NULL,
        tag BLOB NOT NULL,
        UNIQUE (collection, role, tag)
    ) STRICT;
    CREATE TABLE records (
        id INTEGER PRIMARY KEY,
        collection BLOB NOT NULL,
        tag BLOB NOT NULL,
        UNIQUE (collection, tag)
    ) STRICT;
    CREATE TABLE queries (
        id INTEGER PRIMARY KEY,
        request BLOB NOT NULL UNIQUE,
        principal INTEGER NOT NULL REFERENCES counters (id),
        client INTEGER NOT NULL REFERENCES counters (id),
        query_tag BLOB NOT NULL,
        at_ms INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX queries_of_principal ON queries (principal, at_ms);
    CREATE INDEX queries_of_client ON queries (client, at_ms);
    CREATE INDEX queries_by_age ON queries (at_ms);
    CREATE TABLE seen (
        record INTEGER NOT NULL REFERENCES records (id),
        counter INTEGER NOT NULL REFERENCES counters (id),
        shown_ms INTEGER NOT NULL,
        PRIMARY KEY (record, counter)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX seen_of_counter ON seen (counter, shown_ms);
    CREATE TABLE exposures (
        record INTEGER NOT NULL REFERENCES records (id),
        counter INTEGER NOT NULL REFERENCES counters (id),
        query_tag BLOB NOT NULL,
        shown_ms INTEGER NOT NULL,
        scored_ms INTEGER NOT NULL,
        PRIMARY KEY (record, counter, query_tag)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX exposures_by_age ON exposures (shown_ms);
    """,
)
