"""Sealed values: AES-256-GCM with algorithm and key version in front, bound to their place. Format: docs/formats.md.

No key is stored or chosen here, and nothing is written. Source: NIST SP 800-38D (GCM).
"""

import os
import struct
from collections.abc import Iterable, Mapping
from enum import IntEnum
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from secure_embed.errors import SealedValueUnreadable
from secure_embed.types import Field

__all__ = [
    "CatalogueValue",
    "IndexValue",
    "Place",
    "open_bound",
    "open_bound_into",
    "seal_bound",
    "seal_fields",
    "sealed_overhead_bytes",
    "vector_bytes",
]

HEADER = b"\x01\x00\x00\x00\x01"  # AES-256-GCM, first generation of the sealing key
nonce_bytes = 12
prefix_bytes = len(HEADER) + nonce_bytes
tag_bytes = 16
sealed_overhead_bytes = prefix_bytes + tag_bytes
key_bytes = 32

NO_SPACE = bytes(32)
NO_POSITION = -1
CODES, LAST_CODES = 17, 18  # field numbers of a chunk of codes before the last, and of the last
FIELD_NUMBERS: dict[Field, int] = {Field.VECTOR: 1, Field.TEXT: 2, Field.META: 3}
SPACE_BOUND = frozenset({Field.VECTOR})

_start = b"secure_embed/seal/v1" + HEADER
_additional = struct.Struct(f">{len(_start)}s16sqB32s")  # 82 bytes
position_at = len(_start) + 16  # where the position's eight bytes begin


class IndexValue(IntEnum):
    """Sealed under a collection's index key."""

    CODEBOOK = 16


class CatalogueValue(IntEnum):
    """Sealed under the deployment's catalogue key."""

    DESCRIPTOR = 32
    ERASURE = 33
    HOLD = 34
    TASK = 35
    MARK = 36  # under the deployment's id
    TUNING = 37  # under the collection's id


class Place:
    """Makes the additional data (82 bytes) for one collection, or for the erasure, hold or task that ``uuid`` names."""

    __slots__ = ("_uuid",)

    def __init__(self, uuid: UUID) -> None:
        self._uuid = uuid.bytes

    def record(self, position: int, field: Field, space_digest: bytes) -> bytes:
        """``space_digest`` (32 bytes) counts for the fields that depend on an embedding space, and only there."""
        space = space_digest if field in SPACE_BOUND else NO_SPACE
        if len(space) != len(NO_SPACE):
            # struct pads a short one and cuts a long one: two places would become one.
            raise ValueError("the digest of an embedding space has 32 bytes")
        return _additional.pack(_start, self._uuid, position, FIELD_NUMBERS[field], space)

    def vectors(self, positions: Iterable[int], space_digest: bytes) -> list[bytes]:
        """Of many records' vectors at once."""
        number = FIELD_NUMBERS[Field.VECTOR]
        if len(space_digest) != len(NO_SPACE):
            raise ValueError("the digest of an embedding space has 32 bytes")
        return [_additional.pack(_start, self._uuid, position, number, space_digest) for position in positions]

    def other(self, value: IndexValue | CatalogueValue) -> bytes:
        return _additional.pack(_start, self._uuid, NO_POSITION, value, NO_SPACE)

    def codes(self, chunk: int, *, last: bool) -> bytes:
        """``chunk`` counts from 0: chunks can neither change places nor be cut off at the end."""
        return _additional.pack(_start, self._uuid, chunk, LAST_CODES if last else CODES, NO_SPACE)


def seal_bound(key: bytes | bytearray, plaintext: bytes | memoryview, additional: bytes) -> bytes:
    """Seal under ``key`` (32 bytes). ``additional`` must hold the header; :class:`Place` sees to it for values."""
    nonce = os.urandom(nonce_bytes)
    return b"".join((HEADER, nonce, AESGCM(key).encrypt(nonce, plaintext, additional)))


def seal_fields(
    place: Place, position: int, fields: Mapping[Field, bytes], space_digest: bytes
) -> tuple[bytes, dict[Field, bytes]]:
    """Seal the values of one record under a new key. Gives the key (32 bytes) and the sealed values."""
    drawn = os.urandom(key_bytes + nonce_bytes * len(fields))
    record_key = drawn[:key_bytes]
    cipher = AESGCM(record_key)
    row: dict[Field, bytes] = {}
    for number, (field, plaintext) in enumerate(fields.items()):
        nonce = drawn[key_bytes + nonce_bytes * number : key_bytes + nonce_bytes * (number + 1)]
        additional = place.record(position, field, space_digest)
        row[field] = b"".join((HEADER, nonce, cipher.encrypt(nonce, plaintext, additional)))
    return record_key, row


def open_bound(key: bytes | bytearray, sealed: bytes, additional: bytes, *, where: str) -> bytes:
    """Open what :func:`seal_bound` gave. Raises ``SealedValueUnreadable`` naming ``where``, whatever is wrong."""
    if len(sealed) < sealed_overhead_bytes or not sealed.startswith(HEADER):
        raise SealedValueUnreadable(where)
    try:
        return AESGCM(key).decrypt(sealed[len(HEADER) : prefix_bytes], sealed[prefix_bytes:], additional)
    except InvalidTag:
        raise SealedValueUnreadable(where) from None


def open_bound_into(
    key: bytes | bytearray, sealed: memoryview, additional: bytes, out: memoryview, *, where: str
) -> int:
    """Like :func:`open_bound`, into ``out``, which may be larger; gives the plaintext's length. Zeros where it fails."""
    size = len(sealed) - sealed_overhead_bytes
    if not 0 <= size <= len(out) or sealed[: len(HEADER)] != HEADER:
        raise SealedValueUnreadable(where)
    try:
        AESGCM(key).decrypt_into(sealed[len(HEADER) : prefix_bytes], sealed[prefix_bytes:], additional, out[:size])
    except InvalidTag:
        out[:size] = bytes(size)  # what GCM wrote before it found out
        raise SealedValueUnreadable(where) from None
    return size


def vector_bytes(dimension: int) -> int:
    """Length of a sealed vector's plaintext: binary16, little endian."""
    return 2 * dimension
