"""The durable counters in a SQLCipher file of their own: who asked how often, and was shown what.

Sees keyed hashes and times only: no name, identifier, text or score may come in here. What a count means for an
answer is decided in verdicts.py. Each call is one transaction; one that cannot be written raises, and then nothing is
answered.
"""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast
from uuid import UUID

from secure_embed.errors import Conflict, Exhausted, SecureEmbedError
from secure_embed.keys.database import SealedDatabase
from secure_embed.risk.protocol import Admission, Allowance, Charged, LedgerKey, Showing
from secure_embed.risk.pruning import prune
from secure_embed.risk.schema import migrations
from secure_embed.risk.verdicts import Limits, Standing, Usage, judge, limits_of

if TYPE_CHECKING:
    from sqlcipher3.dbapi2 import Connection

__all__ = ["SqlcipherLedger", "day_ms", "month_ms"]

tag_bytes = 32
day_ms = 24 * 60 * 60 * 1000
month_ms = 30 * day_ms
retry_step_s = 60  # the wait is rounded up to this: it does not tell when a colleague asked
prune_every = 64  # admissions between two prunings; the first after opening prunes

principal_role, client_role = 0, 1


class SqlcipherLedger:
    """Implements :class:`secure_embed.risk.protocol.Ledger`. Safe to call from several threads; one process only.

    A clock that is set back keeps everything counted for longer; a clock that is set forward ends windows early, so
    the machine's time belongs to those who may administer it.
    """

    def __init__(self, path: Path, key: bytes, clock: Callable[[], float]) -> None:
        """``key``: 32 bytes. ``clock``: seconds since 1970 (UTC); windows outlive a restart, so not a monotonic one.

        Raises what :class:`SealedDatabase` raises.
        """
        self._db = SealedDatabase(path, key, migrations=migrations)
        self._clock = clock
        self._admissions = 0

    def admit(self, key: LedgerKey, *, request: UUID, query_tag: bytes, allowance: Allowance) -> Admission:
        """See the protocol. ``Exhausted`` carries ``budget`` and ``retry_after_s``, the same whether the principal's
        or the client's counter is full. Raises ``Conflict`` (``request_mismatch``) when the request id was used for
        another query."""
        _require_tags(key.principal_tag, key.client_tag, query_tag)
        admission = Admission(key=key, request=request, query_tag=query_tag, allowance=allowance)
        now = self._now_ms()
        with self._db.transaction() as run:
            if self._admitted(run, admission) is not None:
                return admission
            counters = (
                _counter(run, key.collection, principal_role, key.principal_tag),
                _counter(run, key.collection, client_role, key.client_tag),
            )
            _refuse_if_exhausted(run, counters, limits_of(allowance), now)
            run.execute(
                "INSERT INTO queries (request, principal, client, query_tag, at_ms) VALUES (?, ?, ?, ?, ?)",
                (request.bytes, *counters, query_tag, now),
            )
            if self._admissions % prune_every == 0:
                prune(run, queries_before_ms=now - day_ms, shown_before_ms=now - month_ms)
            self._admissions += 1
        return admission

    def charge(self, admission: Admission, shown: Sequence[Showing]) -> Charged:
        """See the protocol. Raises ``Conflict`` (``admission_unknown``) for what was not admitted in the last day.

        A repeat finds its own rows: what it showed is seen and exposed already and costs nothing. So no verdict is
        stored, and nothing about a query but its tag.
        """
        tags = [showing.record_tag for showing in shown]
        _require_tags(*tags)
        if len(set(tags)) != len(tags):
            raise SecureEmbedError("a record stands twice in one answer", code="showing_repeated")
        now = self._now_ms()
        limits = limits_of(admission.allowance)
        with self._db.transaction() as run:
            counters = self._admitted(run, admission)
            if counters is None:
                raise Conflict("this query was not admitted", code="admission_unknown")
            records = [_known_record(run, admission.key.collection, tag) for tag in tags]
            usage = [_usage(run, counter, now) for counter in counters]
            standings = [
                [_standing(run, record, counter, admission.query_tag, now) for counter in counters]
                for record in records
            ]
            wanted = [showing.scored for showing in shown]
            verdicts = judge(wanted, standings, limits, usage)
            for tag, record, verdict in zip(tags, records, verdicts, strict=True):
                if verdict != "withheld":
                    at = record if record is not None else _new_record(run, admission.key.collection, tag)
                    for counter in counters:
                        _count(run, at, counter, admission.query_tag, now, scored=verdict == "scored")
            used = _usage(run, counters[0], now)
            queries = _queries(run, "principal", counters[0], now)
        return Charged(
            verdicts=verdicts,
            limited=any(verdict != ("scored" if w else "order") for verdict, w in zip(verdicts, wanted, strict=True)),
            queries_left=_left(limits[0].queries_day, queries),
            distinct_left_day=_left(limits[0].distinct_day, used.distinct_day),
            distinct_left_30_days=_left(limits[0].distinct_30_days, used.distinct_30_days),
        )

    def forget(self, collection: UUID, record_tags: Sequence[bytes]) -> None:
        """Delete which queries showed the records, and put a random tag in place of each record's own.

        The row that says *a* record was shown then stays, so an erasure gives no budget back, and nothing leads from
        it to the record. Idempotent; unknown tags are passed over.
        """
        _require_tags(*record_tags)
        with self._db.transaction() as run:
            for tag in record_tags:
                record = _known_record(run, collection, tag)
                if record is not None:
                    run.execute("DELETE FROM exposures WHERE record = ?", (record,))
                    run.execute("UPDATE records SET tag = ? WHERE id = ?", (os.urandom(tag_bytes), record))
        self._db.empty_write_ahead_log()

    def close(self) -> None:
        self._db.close()

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    @staticmethod
    def _admitted(run: "Connection", admission: Admission) -> tuple[int, int] | None:
        """The counters under which this request was admitted; None if it was not."""
        row = run.execute(
            "SELECT q.principal, q.client, q.query_tag, p.tag, c.tag, p.collection FROM queries q"
            " JOIN counters p ON p.id = q.principal JOIN counters c ON c.id = q.client WHERE q.request = ?",
            (admission.request.bytes,),
        ).fetchone()
        if row is None:
            return None
        key = admission.key
        if row[2:] != (admission.query_tag, key.principal_tag, key.client_tag, key.collection.bytes):
            raise Conflict("this request id was used for another query", code="request_mismatch")
        return row[0], row[1]


def _require_tags(*tags: bytes) -> None:
    """Only keyed hashes come in; a name or an identifier has another length, nearly always."""
    if any(type(tag) is not bytes or len(tag) != tag_bytes for tag in tags):
        raise SecureEmbedError(f"a tag has {tag_bytes} bytes", code="tag_invalid")


def _left(limit: int | None, used: int) -> int | None:
    return None if limit is None else max(0, limit - used)


def _counter(run: "Connection", collection: UUID, role: int, tag: bytes) -> int:
    where = (collection.bytes, role, tag)
    row = run.execute("SELECT id FROM counters WHERE collection = ? AND role = ? AND tag = ?", where).fetchone()
    if row is not None:
        return cast("int", row[0])
    return cast("int", run.execute("INSERT INTO counters (collection, role, tag) VALUES (?, ?, ?)", where).lastrowid)


def _known_record(run: "Connection", collection: UUID, tag: bytes) -> int | None:
    row = run.execute("SELECT id FROM records WHERE collection = ? AND tag = ?", (collection.bytes, tag)).fetchone()
    return None if row is None else cast("int", row[0])


def _new_record(run: "Connection", collection: UUID, tag: bytes) -> int:
    cursor = run.execute("INSERT INTO records (collection, tag) VALUES (?, ?)", (collection.bytes, tag))
    return cast("int", cursor.lastrowid)


def _usage(run: "Connection", counter: int, now: int) -> Usage:
    day, month = run.execute(
        "SELECT count(*) FILTER (WHERE shown_ms > ?), count(*) FROM seen WHERE counter = ? AND shown_ms > ?",
        (now - day_ms, counter, now - month_ms),
    ).fetchone()
    return Usage(distinct_day=day, distinct_30_days=month)


def _queries(run: "Connection", column: str, counter: int, now: int) -> int:
    (count,) = run.execute(
        f"SELECT count(*) FROM queries WHERE {column} = ? AND at_ms > ?", (counter, now - day_ms)
    ).fetchone()
    return cast("int", count)


def _standing(run: "Connection", record: int | None, counter: int, query_tag: bytes, now: int) -> Standing:
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


def _count(run: "Connection", record: int, counter: int, query_tag: bytes, now: int, *, scored: bool) -> None:
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


def _refuse_if_exhausted(run: "Connection", counters: Sequence[int], limits: Sequence[Limits], now: int) -> None:
    """Raise ``Exhausted`` for the budget that stays used up longest, so that nobody comes back in vain."""
    worst: tuple[int, str] | None = None
    for column, counter, limit in zip(("principal", "client"), counters, limits, strict=True):
        usage = _usage(run, counter, now)
        for budget, most, used, sql, window in (
            ("queries_day", limit.queries_day, _queries(run, column, counter, now), _queries_sql[column], day_ms),
            ("distinct_records_day", limit.distinct_day, usage.distinct_day, _seen_sql, day_ms),
            ("distinct_records_30_days", limit.distinct_30_days, usage.distinct_30_days, _seen_sql, month_ms),
        ):
            if most is not None and used >= most:
                (oldest,) = run.execute(sql, (counter, now - window, used - most)).fetchone()
                worst = max(worst or (0, ""), (oldest + window - now, budget))
    if worst is not None:
        wait_s = math.ceil(worst[0] / 1000 / retry_step_s) * retry_step_s
        raise Exhausted(
            "a budget for this collection is used up", members={"retry_after_s": wait_s, "budget": worst[1]}
        )


# The entry with whose end the count falls below the limit.
_seen_sql = "SELECT shown_ms FROM seen WHERE counter = ? AND shown_ms > ? ORDER BY shown_ms LIMIT 1 OFFSET ?"
_queries_sql = {
    column: f"SELECT at_ms FROM queries WHERE {column} = ? AND at_ms > ? ORDER BY at_ms LIMIT 1 OFFSET ?"
    for column in ("principal", "client")
}
