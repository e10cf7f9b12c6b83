"""The record keys of a collection at one moment, and what they seal and open. Formats: docs/formats.md.

Record keys lie wrapped in memory and are unwrapped one at a time, for one value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from uuid import UUID

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from secure_embed import bulk
from secure_embed.errors import Conflict, IntegrityFailure, SealedValueUnreadable
from secure_embed.keys.locked import Held
from secure_embed.keys.protocol import KeyStore, WrappedKey
from secure_embed.keys.sealing import (
    HEADER,
    Place,
    open_bound,
    position_at,
    prefix_bytes,
    seal_fields,
    sealed_overhead_bytes,
    vector_bytes,
)
from secure_embed.keys.wrapped_table import WrappedTable
from secure_embed.keys.wrapping import unwrap_key, wrapped_bytes
from secure_embed.types import Field, Position, Positions

__all__ = ["RecordKeys", "load_table"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RecordKeys:
    """What a writer replaces as a whole; a reader takes one reference and works with it to the end.

    ``offered`` are the next keys of records that are being sealed again: where the key of the table does not open a
    value, the one on offer is tried. ``key``, which the methods are given, is a copy of the collection key.
    """

    version: int  # of the collection key
    key: Held
    table: WrappedTable
    offered: Mapping[Position, bytes] = field(default_factory=dict)

    def seal(
        self,
        place: Place,
        key: bytes,
        positions: Sequence[Position],
        subject_tags: Sequence[bytes | None],
        fields_rows: Sequence[Mapping[Field, bytes]],
        space_digest: bytes,
    ) -> tuple[list[WrappedKey], list[dict[Field, bytes]]]:
        keys: list[WrappedKey] = []
        rows: list[dict[Field, bytes]] = []
        for position, subject_tag, fields in zip(positions, subject_tags, fields_rows, strict=True):
            record_key, row = seal_fields(place, position, fields, space_digest)
            rows.append(row)
            wrapped = aes_key_wrap(key, record_key)
            keys.append(WrappedKey(position=position, version=self.version, subject_tag=subject_tag, wrapped=wrapped))
        return keys, rows

    def open(
        self, place: Place, key: bytes, position: Position, what: Field, sealed: bytes, space_digest: bytes
    ) -> bytes | None:
        wrapped, present = self.table.take(np.array([position], dtype=np.int64))
        if not present[0]:
            return None
        additional = place.record(position, what, space_digest)
        try:
            return open_bound(unwrap_key(key, wrapped, where=what), sealed, additional, where=what)
        except SealedValueUnreadable:
            if position not in self.offered:
                raise
        return self._open_offered(key, position, sealed, additional, what)

    def offer_opens(
        self, place: Place, key: bytes, position: Position, what: Field, sealed: bytes, space_digest: bytes
    ) -> bool:
        try:
            self._open_offered(key, position, sealed, place.record(position, what, space_digest), what)
        except SealedValueUnreadable:
            return False
        return True

    def open_vectors_into(
        self,
        place: Place,
        key: bytes,
        positions: Positions,
        sealed: npt.NDArray[np.uint8],
        out: npt.NDArray[np.float16],
        space_digest: bytes,
    ) -> npt.NDArray[np.bool_]:
        count, size = len(positions), vector_bytes(out.shape[1])
        if out.dtype != np.dtype("<f2") or len(out) != count or len(sealed) != count:
            raise ValueError("positions (n,), sealed (n, bytes) and out (n, d) float16 belong together")
        wrapped, present = self.table.take(positions)
        rows = np.flatnonzero(present)
        if len(rows) < count:
            out[~present] = 0
        if not len(rows):
            return present
        try:
            if sealed.shape[1] != sealed_overhead_bytes + size:
                raise SealedValueUnreadable(Field.VECTOR)
            batch = _Batch(place, key, positions, wrapped, sealed, out, space_digest)
            left = rows[~batch.open_together(rows)]
            if len(left):  # those whose next key is on offer, and all of them where nothing was compiled
                batch.open_each(left, self.offered)
        except (InvalidTag, InvalidUnwrap, SealedValueUnreadable):
            out[:] = 0  # what opened before the bad one, and what GCM wrote before it found out
            raise SealedValueUnreadable(Field.VECTOR) from None
        return present

    def _open_offered(self, key: bytes, position: Position, sealed: bytes, additional: bytes, what: Field) -> bytes:
        record_key = unwrap_key(key, self.offered[position], where=what)
        return open_bound(record_key, sealed, additional, where=what)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Batch:
    """Sealed vectors, the wrapped keys of all of their rows, and where they are opened into."""

    place: Place
    key: bytes
    positions: Positions
    wrapped: bytes
    sealed: npt.NDArray[np.uint8]
    out: npt.NDArray[np.float16]
    space_digest: bytes

    def open_together(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of ``rows`` opened under their keys of the table, in one call."""
        if not bulk.compiled():
            return np.zeros(len(rows), np.bool_)
        try:
            some = np.frombuffer(self.wrapped, f"V{wrapped_bytes}")[rows].tolist()
            keys = bytearray().join(map(aes_key_unwrap, repeat(self.key), some))
        except InvalidUnwrap:  # a key that is none must open nothing, so it is found out which one it is
            return np.zeros(len(rows), np.bool_)
        try:
            return bulk.open_values(
                rows,
                keys,
                self.positions[rows],
                self.place.record(0, Field.VECTOR, self.space_digest),
                self.sealed,
                self.out.view(np.uint8),
                number_at=position_at,
                header=HEADER,
            )
        finally:
            keys[:] = bytes(len(keys))

    def open_each(self, rows: npt.NDArray[np.int64], offered: Mapping[Position, bytes]) -> None:
        """One after another, under the key of the table or the one on offer. Raises as the library does."""
        length, size = self.sealed.shape[1], vector_bytes(self.out.shape[1])
        places = self.place.vectors(self.positions[rows].tolist(), self.space_digest)
        values, into = self.sealed.data.cast("B"), self.out.data.cast("B")
        for row, additional in zip(rows.tolist(), places, strict=True):
            its_key = self.wrapped[wrapped_bytes * row : wrapped_bytes * (row + 1)]
            value, target = values[length * row : length * (row + 1)], into[size * row : size * (row + 1)]
            try:
                _open_into(self.key, its_key, value, additional, target)
            except (InvalidTag, InvalidUnwrap):
                on_offer = offered.get(Position(int(self.positions[row])))
                if on_offer is None:
                    raise
                _open_into(self.key, on_offer, value, additional, target)


def load_table(key_store: KeyStore, uuid: UUID, *, version: int) -> WrappedTable:
    """Every record key of a collection. Raises ``Conflict`` (``key_version_stale``) when one is not of ``version``."""
    try:
        table = WrappedTable(key_store.next_position(uuid))
        for block in key_store.blocks(uuid):
            if block.version != version:
                raise Conflict("the collection's key was rotated meanwhile", code="key_version_stale")
            table = table.with_block(block.first, block.wrapped, block.present)
    except (MemoryError, ValueError):  # what numpy says of a table that no memory holds
        raise IntegrityFailure("keys.db names positions that cannot be", code="key_store_invalid") from None
    return table


def _open_into(key: bytes, wrapped: bytes, sealed: memoryview, additional: bytes, target: memoryview) -> None:
    """Of 3.5 us, unwrapping takes 1.1, setting up the key 0.8 and opening 1.3 (1,024 dimensions)."""
    if sealed[: len(HEADER)] != HEADER:
        raise InvalidTag
    AESGCM(aes_key_unwrap(key, wrapped)).decrypt_into(
        sealed[len(HEADER) : prefix_bytes], sealed[prefix_bytes:], additional, target
    )
