"""Rows and what opens them: a record's sealed values, and the record again. Nothing is written here.

A reader may hold a row from before a re-sealing and the keys from after it, or the reverse: it reads once more then.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Thread
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import orjson

from secure_embed.errors import IntegrityFailure, SealedValueUnreadable, SecureEmbedError
from secure_embed.keys import CollectionKeys, TagKind
from secure_embed.store import RecordStore, SealedRow
from secure_embed.types import (
    Attributes,
    AttributeValue,
    Collection,
    Field,
    Position,
    Positions,
    Record,
    Vectors,
)

__all__ = ["Meta", "Rows"]

T = TypeVar("T")

Bits = npt.NDArray[np.bool_]

BEFORE_ALL = Position(-1)
load_rows = 2_000  # opened at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What is sealed of a record beside its text and vector."""

    id: str
    subject: str | None
    attributes: Attributes
    metadata: Mapping[str, AttributeValue]
    expires_unix: int | None

    def to_bytes(self) -> bytes:
        return orjson.dumps({name: getattr(self, name) for name in self.__slots__})

    def expired(self) -> bool:
        return self.expires_unix is not None and self.expires_unix <= time.time()

    @classmethod
    def from_bytes(cls, raw: bytes) -> "Meta":
        return cls(**orjson.loads(raw))


class Rows:
    """Of one collection. Safe to call from several threads."""

    def __init__(self, collection: Collection, keys: CollectionKeys, store: RecordStore) -> None:
        self._uuid = collection.uuid
        self._dimension = collection.space.dimension
        self._space = collection.space.digest
        self._keys = keys
        self._store = store

    @staticmethod
    def plain(record: Record, vector: npt.NDArray[np.float16]) -> dict[Field, bytes]:
        """What is sealed of a record. ``vector``: (d,) float16."""
        meta = Meta(
            id=record.id,
            subject=record.subject,
            attributes=record.attributes,
            metadata=record.metadata,
            expires_unix=record.expires_unix,
        )
        return {Field.VECTOR: vector.tobytes(), Field.TEXT: record.text.encode(), Field.META: meta.to_bytes()}

    def opened(self, after: Position = BEFORE_ALL) -> Generator[tuple[Positions, Vectors, list[Meta]]]:
        """All records past ``after`` in their order, ``load_rows`` at a time. Buffers are wiped behind the caller."""
        half = np.zeros((load_rows, self._dimension), np.float16)
        while rows := self._store.scan(self._uuid, {Field.META}, after=after, limit=load_rows):
            after = rows[-1].position
            positions = np.array([row.position for row in rows], np.int64)
            there = self.open_vectors(positions, half[: len(rows)])
            metas = [self._open_meta(row) for row, has_key in zip(rows, there, strict=True) if has_key]
            vectors = half[: len(rows)].astype(np.float32)
            found = vectors if there.all() else vectors[there]
            try:
                if metas:
                    yield positions[there], found, [meta for meta in metas if meta is not None]
            finally:
                found.fill(0)
                vectors.fill(0)
                half.fill(0)

    @contextmanager
    def reading_ahead(self) -> Iterator[None]:
        """What the store reads and compares once before it gives a row is read meanwhile, beside what the caller does."""

        def ahead() -> None:
            with suppress(SecureEmbedError):  # whoever asks for a row is told
                self._store.scan(self._uuid, set(), after=self._store.versions(self._uuid).next_position, limit=1)

        thread = Thread(target=ahead, name="rows-ahead", daemon=True)
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def open_vectors(self, at: Positions, out: npt.NDArray[np.float16]) -> npt.NDArray[np.bool_]:
        """Fill ``out`` (n, d) float16, C-contiguous, with the vectors at ``at`` (n,) int64, ascending; the (n,) answer
        says which records are there, the rows of others are zeros. One read of the store, whatever n is."""

        def read() -> Bits:
            sealed, stored = self._store.vectors(self._uuid, at)
            if np.count_nonzero(stored) == len(at):
                return self._keys.open_vectors_into(at, sealed, out, self._space)
            # An erased record's slot is zeros, which open as nothing: only what is there is opened.
            opened = np.zeros((int(stored.sum()), out.shape[1]), np.float16)
            there = np.zeros(len(at), np.bool_)
            there[stored] = self._keys.open_vectors_into(at[stored], sealed[stored], opened, self._space)
            out[:] = 0
            out[stored] = opened
            opened.fill(0)
            return there

        return self._steady(read)

    def describe(self, at: Sequence[Position], *, also_expired: bool = False) -> dict[Position, Meta]:
        """Open what is sealed beside text and vector. Erased records are absent, and so are those whose end has come:
        nothing is answered of them, whether or not a sweep has erased them yet."""

        def read() -> dict[Position, Meta | None]:
            rows = self._store.fetch(self._uuid, at, {Field.META})
            return {p: self._open_meta(row) for p, row in rows.items()}

        opened = self._steady(read)
        return {p: meta for p, meta in opened.items() if meta is not None and (also_expired or not meta.expired())}

    def texts(self, at: Sequence[Position]) -> dict[Position, str]:
        """Open texts. Erased records are absent."""

        def read() -> dict[Position, bytes | None]:
            rows = self._store.fetch(self._uuid, at, {Field.TEXT})
            return {p: self._open(row, Field.TEXT) for p, row in rows.items()}

        opened = self._steady(read)
        return {p: raw.decode() for p, raw in opened.items() if raw is not None}

    def _open_meta(self, row: SealedRow) -> Meta | None:
        raw = self._open(row, Field.META)
        if raw is None:
            return None
        meta = Meta.from_bytes(raw)
        if self._keys.tag(TagKind.RECORD_ID, meta.id) != row.id_tag:
            raise IntegrityFailure("a row's identifier is not that of its content", code="row_mismatch")
        return meta

    def _open(self, row: SealedRow, field: Field) -> bytes | None:
        return self._keys.open(row.position, field, row.fields[field], self._space)

    def _steady(self, read: Callable[[], T]) -> T:
        """Read rows and open them; once more when other keys took the place of theirs in between."""
        while True:
            epoch = self._keys.epoch
            try:
                return read()
            except SealedValueUnreadable:
                if self._keys.epoch == epoch:
                    raise
