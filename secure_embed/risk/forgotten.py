"""What was erased a moment ago, in memory only: a query that was on its way must not write the record down again.

An answer that found a record before its erasure may be charged after it. The ledger withholds the record then and
counts nothing. A query goes on for minutes at most, and a restart ends all of them, so nothing of this is durable.
"""

from collections.abc import Sequence
from uuid import UUID

__all__ = ["Forgotten"]

kept_ms = 60 * 60 * 1000  # far longer than any query goes on


class Forgotten:
    """Not locked: the ledger's transaction covers it."""

    def __init__(self) -> None:
        self._records: dict[tuple[UUID, bytes], int] = {}  # in the order in which they came
        self._collections: set[UUID] = set()  # a uuid never comes back

    def add(self, collection: UUID, tags: Sequence[bytes], now_ms: int) -> None:
        self._prune(now_ms)
        for tag in tags:
            self._records.pop((collection, tag), None)
            self._records[collection, tag] = now_ms

    def add_collection(self, collection: UUID) -> None:
        self._collections.add(collection)

    def has(self, collection: UUID, tag: bytes) -> bool:
        return (collection, tag) in self._records

    def has_collection(self, collection: UUID) -> bool:
        return collection in self._collections

    def _prune(self, now_ms: int) -> None:
        for key, at_ms in list(self._records.items()):
            if at_ms > now_ms - kept_ms:
                return
            del self._records[key]
