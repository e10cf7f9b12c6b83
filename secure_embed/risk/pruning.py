"""Old rows go: the ledger keeps nothing past the longest window. Bounded, so that no admission pays for all of it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlcipher3.dbapi2 import Connection

__all__ = ["prune"]

# More than 64 admissions can add at k = 10 (64 answers, 10 hits, 2 counters: 1,280), so that pruning keeps up.
rows_max = 4_096


def prune(run: "Connection", *, queries_before_ms: int, shown_before_ms: int) -> None:
    """Delete at most ``rows_max`` rows of each kind that are this old, and what nothing refers to any more."""
    counters: set[int] = set()
    for principal, client in run.execute(
        "DELETE FROM queries WHERE id IN (SELECT id FROM queries WHERE at_ms <= ? ORDER BY at_ms LIMIT ?)"
        " RETURNING principal, client",
        (queries_before_ms, rows_max),
    ).fetchall():
        counters.update((principal, client))
    exposed = run.execute(
        "DELETE FROM exposures WHERE (record, counter, query_tag) IN (SELECT record, counter, query_tag"
        " FROM exposures WHERE shown_ms <= ? ORDER BY shown_ms LIMIT ?) RETURNING record, counter",
        (shown_before_ms, rows_max),
    ).fetchall()
    # The last of a pair's exposures is as old as its row in seen: that one goes with it.
    run.executemany(
        "DELETE FROM seen WHERE record = ? AND counter = ? AND shown_ms <= ?",
        [(record, counter, shown_before_ms) for record, counter in set(exposed)],
    )
    records = {record for record, _ in exposed}
    counters.update(counter for _, counter in exposed)
    run.executemany(
        "DELETE FROM records WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM seen WHERE record = ?1)"
        " AND NOT EXISTS (SELECT 1 FROM exposures WHERE record = ?1)",
        [(record,) for record in records],
    )
    run.executemany(
        "DELETE FROM counters WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM seen WHERE counter = ?1)"
        " AND NOT EXISTS (SELECT 1 FROM queries WHERE principal = ?1 OR client = ?1)"
        " AND NOT EXISTS (SELECT 1 FROM exposures WHERE counter = ?1)",
        [(counter,) for counter in counters],
    )
