"""The durable counters in a SQLCipher file of their own: who asked how often, and was shown what.

Sees keyed hashes and times only: no name, identifier, text or score may come in here. What a count means for an
answer is decided in verdicts.py. Each call is one transaction; one that cannot be written raises, and then nothing is
answered.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from secure_embed.errors import Conflict, NotFound, SecureEmbedError
from secure_embed.keys.database import SealedDatabase
from secure_embed.risk.counting import (
    count_shown,
    counter_of,
    day_ms,
    drop_collection,
    forget_queries,
    known_record,
    month_ms,
    new_record,
    queries_of,
    refuse_if_exhausted,
    standing_of,
    usage_of,
)
from secure_embed.risk.forgotten import Forgotten
from secure_embed.risk.protocol import Admission, Allowance, Charged, LedgerKey, Showing
from secure_embed.risk.pruning import prune
from secure_embed.risk.schema import migrations
from secure_embed.risk.verdicts import judge, limits_of

if TYPE_CHECKING:
    from sqlcipher3.dbapi2 import Connection

__all__ = ["SqlcipherLedger"]

tag_bytes = 32
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
        self._forgotten = Forgotten()

    def admit(self, key: LedgerKey, *, request: UUID, query_tag: bytes, allowance: Allowance) -> Admission:
        """See the protocol. ``Exhausted`` carries ``budget`` and ``retry_after_s``, the same whether the principal's
        or the client's counter is full. Raises ``Conflict`` (``request_mismatch``) when the request id was used for
        another query."""
        _require_tags(key.principal_tag, key.client_tag, query_tag)
        admission = Admission(key=key, request=request, query_tag=query_tag, allowance=allowance)
        now = self._now_ms()
        with self._db.transaction() as run:
            if self._forgotten.has_collection(key.collection):
                raise NotFound("there is no such collection for you", code="collection_not_found")
            if self._admitted(run, admission) is not None:
                return admission
            counters = (
                counter_of(run, key.collection, principal_role, key.principal_tag),
                counter_of(run, key.collection, client_role, key.client_tag),
            )
            refuse_if_exhausted(run, counters, limits_of(allowance), now)
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
            collection = admission.key.collection
            here = [n for n, tag in enumerate(tags) if not self._forgotten.has(collection, tag)]
            records = [known_record(run, collection, tags[n]) for n in here]
            usage = [usage_of(run, counter, now) for counter in counters]
            standings = [
                [standing_of(run, record, counter, admission.query_tag, now) for counter in counters]
                for record in records
            ]
            wanted = [shown[n].scored for n in here]
            verdicts = judge(wanted, standings, limits, usage)
            for n, record, verdict in zip(here, records, verdicts, strict=True):
                if verdict != "withheld":
                    at = record if record is not None else new_record(run, collection, tags[n])
                    for counter in counters:
                        count_shown(run, at, counter, admission.query_tag, now, scored=verdict == "scored")
            used = usage_of(run, counters[0], now)
            queries = queries_of(run, "principal", counters[0], now)
        said = dict(zip(here, verdicts, strict=True))  # what was erased meanwhile is withheld, and no budget did it
        return Charged(
            verdicts=tuple(said.get(n, "withheld") for n in range(len(tags))),
            limited=any(verdict != ("scored" if w else "order") for verdict, w in zip(verdicts, wanted, strict=True)),
            queries_left=_left(limits[0].queries_day, queries),
            distinct_left_day=_left(limits[0].distinct_day, used.distinct_day),
            distinct_left_30_days=_left(limits[0].distinct_30_days, used.distinct_30_days),
        )

    def forget(self, collection: UUID, record_tags: Sequence[bytes]) -> None:
        """Delete which queries showed the records, and put a random tag in place of each record's own.

        The row that says *a* record was shown then stays, so an erasure gives no budget back, and nothing leads from
        it to the record. Idempotent; unknown tags are passed over. A charge that comes after it withholds the record.
        """
        _require_tags(*record_tags)
        with self._db.transaction() as run:
            self._forgotten.add(collection, record_tags, self._now_ms())
            for tag in record_tags:
                record = known_record(run, collection, tag)
                if record is not None:
                    forget_queries(run, record)
                    run.execute("UPDATE records SET tag = ? WHERE id = ?", (os.urandom(tag_bytes), record))
        self._db.empty_write_ahead_log()

    def forget_collection(self, collection: UUID) -> None:
        """Delete all that was counted in it; nothing is admitted there any more. Idempotent."""
        with self._db.transaction() as run:
            self._forgotten.add_collection(collection)
            drop_collection(run, collection)
        self._db.empty_write_ahead_log()

    @property
    def database(self) -> SealedDatabase:
        """The file, for what concerns all of it: its generation, a copy, another key."""
        return self._db

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
