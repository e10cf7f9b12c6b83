"""AES key wrap (RFC 3394) of 32-byte keys into 40 bytes, and how a collection's keys hang below one another.

It binds no place: values say where they belong (sealing.py), the root's own wrapping does too (keyring.py).
"""

from collections.abc import Iterable
from uuid import UUID

from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from secure_embed.errors import SealedValueUnreadable
from secure_embed.keys.keyring import Keyring
from secure_embed.keys.protocol import WrappedCollection, WrappedKey

__all__ = ["rewrap", "unwrap_key", "wrap_collection", "wrapped_bytes"]

wrapped_bytes = 40


def unwrap_key(key: bytes, wrapped: bytes, *, where: str) -> bytes:
    """Raises ``SealedValueUnreadable`` naming ``where``, whatever is wrong."""
    if len(wrapped) != wrapped_bytes:  # RFC 3394 knows other lengths; our keys all have 32 bytes
        raise SealedValueUnreadable(where)
    try:
        return aes_key_unwrap(key, wrapped)
    except InvalidUnwrap:
        raise SealedValueUnreadable(where) from None


def wrap_collection(
    keyring: Keyring, uuid: UUID, version: int, *, key: bytes, index_key: bytes, lookup_key: bytes
) -> WrappedCollection:
    """The collection key under the root, the index and lookup keys under the collection key."""
    return WrappedCollection(
        uuid=uuid,
        version=version,
        collection_key=keyring.wrap_collection_key(key, uuid, version),
        index_key=aes_key_wrap(key, index_key),
        lookup_key=aes_key_wrap(key, lookup_key),
    )


def rewrap(keys: Iterable[WrappedKey], *, old: bytes, new: bytes, version: int) -> list[WrappedKey]:
    """The same record keys under the collection key ``new`` of ``version``."""
    return [
        WrappedKey(
            position=held.position,
            version=version,
            subject_tag=held.subject_tag,
            wrapped=aes_key_wrap(new, unwrap_key(old, held.wrapped, where="record key")),
        )
        for held in keys
    ]
