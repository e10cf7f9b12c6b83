"""Keys of the catalogue: what belongs to no single collection. Seals collection descriptors and erasure states, and
hashes collection names and principals. Keys from one secret by HKDF-SHA-256 (RFC 5869); docs/formats.md.
"""

from uuid import UUID

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from secure_embed.keys.locked import LockedMemory
from secure_embed.keys.sealing import CatalogueValue, Place, key_bytes, open_bound, seal_bound
from secure_embed.keys.tags import TagKind, tag

__all__ = ["CatalogueKeys", "rows_key"]


class CatalogueKeys:
    """Made from the deployment secret ``catalogue`` (32 bytes). Safe to call from several threads."""

    def __init__(self, secret: bytes, memory: LockedMemory | None = None) -> None:
        hold = (LockedMemory() if memory is None else memory).hold
        self._seal_key = hold(_derive(secret, b"secure_embed/catalogue/seal/v1"))
        self._tag_key = hold(_derive(secret, b"secure_embed/catalogue/tag/v1"))

    def seal(self, value: CatalogueValue, uuid: UUID, plaintext: bytes) -> bytes:
        """``uuid``: of the collection for a descriptor, of the erasure for its state."""
        return seal_bound(self._seal_key.copy(), plaintext, Place(uuid).other(value))

    def open(self, value: CatalogueValue, uuid: UUID, sealed: bytes) -> bytes:
        """Raises ``SealedValueUnreadable`` for a wrong, moved or damaged value."""
        return open_bound(self._seal_key.copy(), sealed, Place(uuid).other(value), where=value.name.lower())

    def tag(self, kind: TagKind, *parts: str | bytes) -> bytes:
        """32 bytes; kinds and their parts are in :class:`TagKind`."""
        return tag(self._tag_key.copy(), kind, *parts)

    def close(self) -> None:
        """Overwrite the keys, as far as CPython allows. Later calls raise ``Unavailable`` (``keys_closed``)."""
        self._seal_key.wipe()
        self._tag_key.wipe()


def rows_key(secret: bytes) -> bytes:
    """Of the hashes over the databases' rows. Not a database's own key: who holds that one is whom they are against."""
    return _derive(secret, b"secure_embed/catalogue/rows/v1")


def _derive(secret: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=key_bytes, salt=None, info=info).derive(secret)
