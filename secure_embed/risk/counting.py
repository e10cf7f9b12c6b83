"""The ledger's rows: what one counter has counted, read and written inside the ledger's transaction.

Every window is rolling: a row counts while it is younger than the window. No decision is taken here but whether a
budget is used up.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast
from uuid import UUID

from secure_embed.errors import Exhausted
from secure_embed.risk.verdicts import Limits, Standing, Usage

if TYPE_CHECKING:
    from sqlcipher3.dbapi2 import Connection

__all__ = [
    "count_shown",
    "counter_of",
    "day_ms",
    "drop_collection",
    "forget_queries",
    "known_record",
    "month_ms",
    "new_record",
    "queries_of",
    "refuse_if_exhausted",
    "standing_of",
    "usage_of",
]

day_ms = 24 * 60 * 60 * 1000
month_ms = 30 * day_ms
retry_step_s = 60  # the wait is rounded up to this: it does not tell when a colleague asked

# The entry with whose end the count falls below the limit.
seen_sql = "SELECT shown_ms FROM seen WHERE counter = ? AND shown_ms > ? ORDER BY shown_ms LIMIT 1 OFFSET ?"
queries_sql = {
    column: f"SELECT at_ms FROM queries WHERE {column} = ? AND at_ms > ? ORDER BY at_ms LIMIT 1 OFFSET ?"
    for column in ("principal", "client")
}


def counter_of(run: "Connection", collection: UUID, role: int, tag: bytes) -> int:
    where = (collection.bytes, role, tag)
    row = run.execute("SELECT id FROM counters WHERE collection = ? AND role = ? AND tag = ?", where).fetchone()
    if row is not None:
        return cast("int", row[0])
    return cast("int", run.execute("INSERT INTO counters (collection, role, tag) VALUES (?, ?, ?)", where).lastrowid)


def known_record(run: "Connection", collection: UUID, tag: bytes) -> int | None:
    row = run.execute("SELECT id FROM records WHERE collection = ? AND tag = ?", (collection.bytes, tag)).fetchone()
    return None if row is None else cast("int", row[0])


def new_record(run: "Connection", collection: UUID, tag: bytes) -> int:
    cursor = run.execute("INSERT INTO records (collection, tag) VALUES (?, ?)", (collection.bytes, tag))
    return cast("int", cursor.lastrowid)


def usage_of(run: "Connection", counter: int, now: int) -> Usage:
    day, month = run.execute(
        "SELECT count(*) FILTER (WHERE shown_ms > ?), count(*) FROM seen WHERE counter = ? AND shown_ms > ?",
        (now - day_ms, counter, now - month_ms),
    ).fetchone()
    return Usage(distinct_day=day, distinct_30_days=month)


def queries_of(run: "Connection", column: str, counter: int, now: int) -> int:
    (count,) = run.execute(
        f"SELECT count(*) FROM queries WHERE {column} = ? AND at_ms > ?", (counter, now - day_ms)
    ).fetchone()
    return cast("int", count)


def standing_of(run: "Connection", record: int | None, counter: int, query_tag: bytes, now: int) -> Standing:
    """``record`` None: it was never shown to anyone."""
    month = now - month_ms
    seen = run.execute("SELECT shown_ms FROM seen WHERE record = ? AND counter = ?", (record, counter)).fetchone()
    exposures, scored, repeat, repeat_scored = run.execute(
        "SELECT count(*), count(*) FILTER (WHERE scored_ms > ?1), count(*) FILTER (WHERE query_tag = ?4),"
        " count(*) FILTER (WHERE query_tag = ?4 AND scored_ms > ?1)"
        " FROM exposures WHERE record = ?2 AND counter = ?3 AND shown_ms > ?1",
        (month, record, counter, query_tag),
    ).fetchone()
    return Standing(
        seen_day=seen is not None and seen[0] > now - day_ms,
        seen_30_days=seen is not None and seen[0] > month,
        exposures=exposures,
        scored=scored,
        repeat=repeat > 0,
        repeat_scored=repeat_scored > 0,
    )


def count_shown(run: "Connection", record: int, counter: int, query_tag: bytes, now: int, *, scored: bool) -> None:
    """Times only grow: with a clock that is set back, what was counted stays counted as long as it would have."""
    run.execute(
        "INSERT INTO seen (record, counter, shown_ms) VALUES (?, ?, ?)"
        " ON CONFLICT DO UPDATE SET shown_ms = max(shown_ms, excluded.shown_ms)",
        (record, counter, now),
    )
    run.execute(
        "INSERT INTO exposures (record, counter, query_tag, shown_ms, scored_ms) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET shown_ms = max(shown_ms, excluded.shown_ms),"
        " scored_ms = max(scored_ms, excluded.scored_ms)",
        (record, counter, query_tag, now, now if scored else 0),
    )


def forget_queries(run: "Connection", record: int) -> None:
    """Put one exposure to no query in place of the record's own, so that its rows in ``seen`` age and go like others."""
    run.execute("DELETE FROM exposures WHERE record = ?", (record,))
    run.execute(
        "INSERT INTO exposures (record, counter, query_tag, shown_ms, scored_ms)"
        " SELECT record, counter, zeroblob(32), shown_ms, 0 FROM seen WHERE record = ?",
        (record,),
    )


def drop_collection(run: "Connection", collection: UUID) -> None:
    """All that was counted in it. Counters belong to one collection, and so do the queries under them."""
    of = (collection.bytes,)
    counters = "SELECT id FROM counters WHERE collection = ?"
    for table in ("exposures", "seen"):
        run.execute(f"DELETE FROM {table} WHERE counter IN ({counters})", of)
    run.execute(f"DELETE FROM queries WHERE principal IN ({counters})", of)
    for table in ("records", "counters"):
        run.execute(f"DELETE FROM {table} WHERE collection = ?", of)


def refuse_if_exhausted(run: "Connection", counters: Sequence[int], limits: Sequence[Limits], now: int) -> None:
    """Raise ``Exhausted`` for the budget that stays used up longest, so that nobody comes back in vain."""
    worst: tuple[int, str] | None = None
    for column, counter, limit in zip(("principal", "client"), counters, limits, strict=True):
        usage = usage_of(run, counter, now)
        for budget, most, used, sql, window in (
            ("queries_day", limit.queries_day, queries_of(run, column, counter, now), queries_sql[column], day_ms),
            ("distinct_records_day", limit.distinct_day, usage.distinct_day, seen_sql, day_ms),
            ("distinct_records_30_days", limit.distinct_30_days, usage.distinct_30_days, seen_sql, month_ms),
        ):
            if most is not None and used >= most:
                (oldest,) = run.execute(sql, (counter, now - window, used - most)).fetchone()
                worst = max(worst or (0, ""), (oldest + window - now, budget))
    if worst is not None:
        wait_s = math.ceil(worst[0] / 1000 / retry_step_s) * retry_step_s
        raise Exhausted(
            "a budget for this collection is used up", members={"retry_after_s": wait_s, "budget": worst[1]}
        )
