"""What a root key wraps, bound to its place: deployment secrets and collection keys. Contexts: docs/formats.md."""

import struct
from dataclasses import dataclass
from uuid import UUID

from secure_embed.errors import ConfigurationError
from secure_embed.keys.keyring_file import KeyringFile, Purpose, Secret
from secure_embed.keys.protocol import KeyProvider

__all__ = ["NewKey", "Root"]

_domain = b"secure_embed/wrap/v1"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NewKey:
    """A key (32 bytes), and the same as the root named ``root_key_id`` wraps it."""

    key: bytes
    wrapped: bytes
    root_key_id: str


class Root:
    """A provider that works for one deployment."""

    __slots__ = ("_provider", "deployment_id", "key_id", "kind")

    def __init__(self, provider: KeyProvider, deployment_id: UUID) -> None:
        described = provider.describe()
        self._provider = provider
        self.deployment_id = deployment_id
        self.kind = described.kind
        self.key_id = described.key_id

    def new_secret(self, name: Secret) -> NewKey:
        return self._new(self._secret(name))

    def wrap_secret(self, name: Secret, key: bytes) -> bytes:
        return self._provider.wrap(key, self._secret(name))

    def new_collection_key(self, uuid: UUID, version: int) -> NewKey:
        """Bound to the deployment, the collection and the version."""
        return self._new(self._collection(uuid, version))

    def wrap_collection_key(self, key: bytes, uuid: UUID, version: int) -> bytes:
        return self._provider.wrap(key, self._collection(uuid, version))

    def unwrap_collection_key(self, wrapped: bytes, uuid: UUID, version: int) -> bytes:
        """Raises ``SealedValueUnreadable`` for a key of another place, root or version."""
        return self._provider.unwrap(wrapped, self._collection(uuid, version))

    def opened(self, file: KeyringFile, *, name: str) -> dict[Secret, bytes]:
        """The secrets of a keyring. Raises ``ConfigurationError`` (``root_key_mismatch``) for one of another root, and
        ``SealedValueUnreadable`` for a secret that was changed, swapped or wrapped elsewhere."""
        if (file.provider, file.key_id) != (self.kind, self.key_id):
            raise ConfigurationError(f"{name} belongs to another root key", code="root_key_mismatch")
        return {
            secret: self._provider.unwrap(wrapped, self._secret(secret)) for secret, wrapped in file.wrapped.items()
        }

    def file(self, purpose: Purpose, wrapped: dict[Secret, bytes]) -> KeyringFile:
        return KeyringFile(
            purpose=purpose,
            deployment_id=self.deployment_id,
            provider=self.kind,
            key_id=self.key_id,
            wrapped=wrapped,
        )

    def _new(self, context: bytes) -> NewKey:
        key, wrapped = self._provider.generate(context)
        return NewKey(key=key, wrapped=wrapped, root_key_id=self.key_id)

    def _secret(self, name: Secret) -> bytes:
        return _domain + b"\x01" + self.deployment_id.bytes + name.value.encode("ascii")

    def _collection(self, uuid: UUID, version: int) -> bytes:
        return _domain + b"\x02" + self.deployment_id.bytes + uuid.bytes + struct.pack(">I", version)
