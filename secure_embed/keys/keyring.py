"""The deployment's own secrets, each wrapped by the root key in ``keyring.json``; and the root's wrapping of
collection keys, bound to their place. Format: docs/formats.md. No record, no database is known here.
"""

import base64
import json
import secrets
import struct
from enum import StrEnum
from pathlib import Path
from uuid import UUID, uuid4

from secure_embed.errors import ConfigurationError, Unavailable
from secure_embed.keys.locked import LockedMemory
from secure_embed.keys.private_files import read_bounded, write_new
from secure_embed.keys.protocol import KeyProvider
from secure_embed.keys.sealing import key_bytes
from secure_embed.keys.strict_json import StrictObject

__all__ = ["Keyring", "Secret"]

_format = "secure_embed/keyring/v1"
_members = ("format", "deployment_id", "provider", "key_id", "secrets")
_wrap_domain = b"secure_embed/wrap/v1"


class Secret(StrEnum):
    """What each deployment secret (32 bytes) is for."""

    DATA_STORE = "data_store"
    KEYS_STORE = "keys_store"
    RISK_STORE = "risk_store"
    CATALOGUE = "catalogue"
    LOG_SIGNING = "log_signing"
    LOG_HMAC = "log_hmac"


class Keyring:
    """The unlocked secrets and the provider they came from. The provider stays its owner's to close, and so does
    ``memory``, where the secrets lie and where the keys of collections are put beside them."""

    def __init__(
        self, deployment_id: UUID, unlocked: dict[Secret, bytes], provider: KeyProvider, memory: LockedMemory | None
    ) -> None:
        self.deployment_id = deployment_id
        self.memory = LockedMemory() if memory is None else memory
        self._secrets = {name: self.memory.hold(secret) for name, secret in unlocked.items()}
        self._provider = provider
        self._closed = False

    @classmethod
    def create(cls, path: Path, provider: KeyProvider, memory: LockedMemory | None = None) -> "Keyring":
        """Make a deployment's id and secrets and write them, whole or not at all.

        Raises ``ConfigurationError`` (``key_file_exists``).
        """
        deployment_id = uuid4()
        unlocked = {name: secrets.token_bytes(key_bytes) for name in Secret}
        described = provider.describe()
        wrapped = {
            name.value: base64.b64encode(provider.wrap(key, _secret_context(deployment_id, name))).decode()
            for name, key in unlocked.items()
        }
        document = {
            "format": _format,
            "deployment_id": str(deployment_id),
            "provider": described.kind,
            "key_id": described.key_id,
            "secrets": wrapped,
        }
        write_new(path, json.dumps(document, indent=1).encode() + b"\n")
        return cls(deployment_id, unlocked, provider, memory)

    @classmethod
    def open(cls, path: Path, provider: KeyProvider, memory: LockedMemory | None = None) -> "Keyring":
        """Raises ``ConfigurationError``: ``key_file_missing``, ``key_file_invalid``, ``root_key_mismatch`` for a
        keyring of another root; ``SealedValueUnreadable`` for a secret that was changed, swapped or wrapped elsewhere.
        """
        document = StrictObject(read_bounded(path), file=path.name, members=_members)
        wrapped = document.data_by_name("secrets", list(Secret))
        written = document.text("deployment_id")
        try:
            deployment_id = UUID(written)
        except ValueError:
            raise document.invalid() from None
        if document.text("format") != _format or str(deployment_id) != written:
            raise document.invalid()
        described = provider.describe()
        if (document.text("provider"), document.text("key_id")) != (described.kind, described.key_id):
            raise ConfigurationError(f"{path.name} belongs to another root key", code="root_key_mismatch")
        unlocked = {name: provider.unwrap(wrapped[name], _secret_context(deployment_id, name)) for name in Secret}
        return cls(deployment_id, unlocked, provider, memory)

    def secret(self, name: Secret) -> bytes:
        """32 bytes; the copy is the caller's to drop."""
        return self._secrets[name].copy()

    def wrap_collection_key(self, key: bytes, uuid: UUID, version: int) -> bytes:
        """Bound to this deployment, the collection and the version."""
        self._refuse_closed()
        return self._provider.wrap(key, _collection_context(self.deployment_id, uuid, version))

    def unwrap_collection_key(self, wrapped: bytes, uuid: UUID, version: int) -> bytes:
        """Raises ``SealedValueUnreadable`` for a key of another place, root or version."""
        self._refuse_closed()
        return self._provider.unwrap(wrapped, _collection_context(self.deployment_id, uuid, version))

    def close(self) -> None:
        """Overwrite the secrets, as far as CPython allows. Later calls raise ``Unavailable`` (``keys_closed``)."""
        self._closed = True
        for secret in self._secrets.values():
            secret.wipe()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise Unavailable("the keyring is closed", code="keys_closed")


def _secret_context(deployment_id: UUID, name: Secret) -> bytes:
    return _wrap_domain + b"\x01" + deployment_id.bytes + name.value.encode("ascii")


def _collection_context(deployment_id: UUID, uuid: UUID, version: int) -> bytes:
    return _wrap_domain + b"\x02" + deployment_id.bytes + uuid.bytes + struct.pack(">I", version)
