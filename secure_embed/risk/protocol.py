"""The door of risk/: durable counters of what each principal was shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

__all__ = ["Admission", "Allowance", "Charged", "Ledger", "LedgerKey", "Showing", "Verdict"]

Verdict = Literal["scored", "order", "withheld"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerKey:
    """Whom the counters count, as keyed hashes (32 bytes each): no name is stored."""

    collection: UUID
    principal_tag: bytes
    client_tag: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """Limits in force for this principal, collection and profile; None: no limit."""

    queries_day: int | None
    distinct_records_day: int | None
    distinct_records_30_days: int | None
    client_factor: int  # a client's limits are this many times a principal's
    exposures_scored: int | None  # distinct queries that may show one record with its score, 30 days rolling
    exposures_total: int | None  # distinct queries that may show one record at all, 30 days rolling


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    key: LedgerKey
    request: UUID
    query_tag: bytes  # 32 bytes, keyed hash of the normalised query text and filter
    allowance: Allowance


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    """A record that is about to be shown."""

    record_tag: bytes  # 32 bytes
    scored: bool  # whether its score would be shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Charged:
    """What of the showings may leave, in their order: "scored", "order" (no score) or "withheld"."""

    verdicts: tuple[Verdict, ...]
    limited: bool  # whether a budget took something away; a score that was not asked for does not count
    queries_left: int | None
    distinct_left_day: int | None
    distinct_left_30_days: int | None


class Ledger(Protocol):
    """Durable on return. A repeat of the same query tag is no new exposure of a record it already showed."""

    def admit(self, key: LedgerKey, *, request: UUID, query_tag: bytes, allowance: Allowance) -> Admission:
        """Count the query. Raises ``Exhausted`` (``budget_exhausted``) when queries or distinct records are used up,
        and counts nothing then. The same request id is counted once."""
        ...

    def charge(self, admission: Admission, shown: Sequence[Showing]) -> Charged:
        """Count what is about to be shown, before the answer. Idempotent by request id."""
        ...

    def forget(self, collection: UUID, record_tags: Sequence[bytes]) -> None:
        """Drop what is stored of erased records. What it counted towards distinct budgets stays counted. A charge that
        was on its way meanwhile withholds them."""
        ...

    def forget_collection(self, collection: UUID) -> None:
        """Drop all that is stored of an erased collection, which never comes back."""
        ...

    def close(self) -> None: ...
