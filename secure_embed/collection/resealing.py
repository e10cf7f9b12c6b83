"""Every value of a collection opened, and sealed anew under other record keys: step by step, so that a crash loses none.

The keys are offered first, then the rows are replaced, then the offered keys count. Readers go on meanwhile: both keys
open until the last step.
"""

from collections.abc import Callable, Mapping
from uuid import UUID

import numpy as np

from secure_embed.errors import IntegrityFailure
from secure_embed.keys import CollectionKeys, KeyStore
from secure_embed.store import RecordStore, SealedRow
from secure_embed.types import Field, Position

__all__ = ["open_all", "reseal", "settle"]

batch_rows = 256  # plaintexts in memory at a time
every_field = frozenset(Field)


def reseal(
    keys: CollectionKeys,
    key_store: KeyStore,
    store: RecordStore,
    space: bytes,
    bounds: tuple[Position, Position],
    *,
    mark: Callable[[], bytes | None],
) -> int:
    """Seal the records of one segment anew; how many. ``bounds``: first and end, as the store gives them."""
    settle(keys, key_store, store, space)  # what an earlier attempt left on offer
    at = _present(store, keys.uuid, bounds)
    sealed: list[SealedRow] = []
    wrapped = []
    for start in range(0, len(at), batch_rows):
        rows = store.fetch(keys.uuid, at[start : start + batch_rows], every_field)
        opened = {p: _opened(keys, row, space) for p, row in rows.items()}
        some = [p for p in rows if opened[p] is not None]
        new_keys, new_rows = keys.seal_again(some, [opened[p] or {} for p in some], space)
        wrapped += new_keys
        sealed += [
            SealedRow(position=p, id_tag=rows[p].id_tag, fields=fields, expires_unix=rows[p].expires_unix)
            for p, fields in zip(some, new_rows, strict=True)
        ]
    if not sealed:
        return 0
    keys.offer(key_store, wrapped)
    store.replace(keys.uuid, sealed, mark=mark())
    keys.promote(key_store, [row.position for row in sealed])
    return len(sealed)


def settle(keys: CollectionKeys, key_store: KeyStore, store: RecordStore, space: bytes) -> None:
    """End what a crash has left between the steps: each record's key is the one that opens it."""
    if offered := keys.offered:
        rows = store.fetch(keys.uuid, offered, {Field.META})
        keys.settle(key_store, Field.META, {p: row.fields[Field.META] for p, row in rows.items()}, space)


def open_all(keys: CollectionKeys, store: RecordStore, space: bytes, dimension: int) -> int:
    """Open every sealed value and keep none; how many records opened. Records whose key is gone do not count.

    Raises ``SealedValueUnreadable`` and ``IntegrityFailure`` (``segment_damaged``, ``row_mismatch``).
    """
    count, after = 0, Position(-1)
    buffer = np.zeros((batch_rows, dimension), np.float16)
    while rows := store.scan(keys.uuid, every_field, after=after, limit=batch_rows):
        after = rows[-1].position
        positions = np.array([row.position for row in rows], np.int64)
        vectors = np.frombuffer(b"".join(row.fields[Field.VECTOR] for row in rows), np.uint8).reshape(len(rows), -1)
        there = keys.open_vectors_into(positions, vectors, buffer[: len(rows)], space)
        buffer.fill(0)
        for row, has_key in zip(rows, there, strict=True):
            others = [keys.open(row.position, field, row.fields[field], space) for field in (Field.TEXT, Field.META)]
            if has_key and None in others:
                raise IntegrityFailure("a record opens in part", code="row_mismatch")
        count += int(np.count_nonzero(there))
    return count


def _present(store: RecordStore, uuid: UUID, bounds: tuple[Position, Position]) -> list[Position]:
    first, end = bounds
    rows = store.scan(uuid, frozenset(), after=Position(first - 1), limit=end - first)
    return [row.position for row in rows if row.position < end]


def _opened(keys: CollectionKeys, row: SealedRow, space: bytes) -> Mapping[Field, bytes] | None:
    """None: the record's key is gone."""
    opened = {field: keys.open(row.position, field, row.fields[field], space) for field in every_field}
    found = {field: value for field, value in opened.items() if value is not None}
    return found if len(found) == len(opened) else None
