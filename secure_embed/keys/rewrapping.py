"""All record keys of a collection wrapped anew, batch by batch, and the memory that takes them up when they count."""

from collections.abc import Sequence

from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from secure_embed.keys.protocol import KeyBatch
from secure_embed.keys.wrapped_table import WrappedTable
from secure_embed.keys.wrapping import unwrap_key
from secure_embed.types import Position

__all__ = ["Rewrapping"]


class Rewrapping:
    """What ``KeyStore.replace_version`` calls for each batch. ``table`` and ``offered`` hold what it gave back."""

    def __init__(self, old: bytes, new: bytes, *, capacity: int) -> None:
        """``old``, ``new``: collection keys (32 bytes). ``capacity``: positions that are expected."""
        self._old = old
        self._new = new
        self.table = WrappedTable(capacity)
        self.offered: dict[Position, bytes] = {}

    def __call__(self, batch: KeyBatch) -> Sequence[bytes]:
        """Raises ``SealedValueUnreadable`` for a key that the old collection key did not wrap."""
        old, new = self._old, self._new
        fresh = [aes_key_wrap(new, unwrap_key(old, wrapped, where="record key")) for wrapped in batch.wrapped]
        if batch.offered:
            self.offered.update(zip(batch.positions, fresh, strict=True))
        else:
            self.table = self.table.holding(batch.positions, fresh)
        return fresh
