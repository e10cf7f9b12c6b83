"""AES key wrap (RFC 3394) of 32-byte keys into 40 bytes, and how a collection's keys hang below one another.

It binds no place: values say where they belong (sealing.py), the root's own wrapping does too (keyring.py).
"""

from uuid import UUID

from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from secure_embed.errors import SealedValueUnreadable
from secure_embed.keys.protocol import WrappedCollection
from secure_embed.keys.root import NewKey

__all__ = ["unwrap_key", "wrap_collection", "wrapped_bytes"]

wrapped_bytes = 40


def unwrap_key(key: bytes, wrapped: bytes, *, where: str) -> bytes:
    """Raises ``SealedValueUnreadable`` naming ``where``, whatever is wrong."""
    if len(wrapped) != wrapped_bytes:  # RFC 3394 knows other lengths; our keys all have 32 bytes
        raise SealedValueUnreadable(where)
    try:
        return aes_key_unwrap(key, wrapped)
    except InvalidUnwrap:
        raise SealedValueUnreadable(where) from None


def wrap_collection(uuid: UUID, version: int, new: NewKey, *, index_key: bytes, lookup_key: bytes) -> WrappedCollection:
    """``new`` is the collection key, wrapped by the root; the index and lookup keys are wrapped by it."""
    return WrappedCollection(
        uuid=uuid,
        version=version,
        root_key_id=new.root_key_id,
        collection_key=new.wrapped,
        index_key=aes_key_wrap(new.key, index_key),
        lookup_key=aes_key_wrap(new.key, lookup_key),
    )
