"""``keyring.json`` and its successor ``keyring.next.json``: the deployment's secrets, each wrapped by the root key.

One format for both, strict about every member; docs/formats.md. Nothing is unwrapped here.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from uuid import UUID

from secure_embed.keys.private_files import read_bounded, write_new
from secure_embed.keys.strict_json import StrictObject

__all__ = ["KeyringFile", "Purpose", "Secret", "next_path"]

_format = "secure_embed/keyring/v1"
_members = ("format", "purpose", "deployment_id", "provider", "key_id", "secrets")


class Secret(StrEnum):
    """What each deployment secret (32 bytes) is for."""

    DATA_STORE = "data_store"
    KEYS_STORE = "keys_store"
    RISK_STORE = "risk_store"
    CATALOGUE = "catalogue"
    LOG_SIGNING = "log_signing"
    LOG_HMAC = "log_hmac"


class Purpose(StrEnum):
    """Why a keyring was written."""

    CREATE = "create"
    ROOT = "root"
    LOG = "log"
    STORE = "store"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyringFile:
    purpose: Purpose
    deployment_id: UUID
    provider: str  # its kind
    key_id: str  # of the root key
    wrapped: Mapping[Secret, bytes]

    @classmethod
    def read(cls, path: Path) -> "KeyringFile":
        """Raises ``ConfigurationError``: ``key_file_missing``, ``key_file_invalid``."""
        document = StrictObject(read_bounded(path), file=path.name, members=_members)
        wrapped = document.data_by_name("secrets", list(Secret))
        written = document.text("deployment_id")
        try:
            deployment_id, purpose = UUID(written), Purpose(document.text("purpose"))
        except ValueError:
            raise document.invalid() from None
        if document.text("format") != _format or str(deployment_id) != written:
            raise document.invalid()
        return cls(
            purpose=purpose,
            deployment_id=deployment_id,
            provider=document.text("provider"),
            key_id=document.text("key_id"),
            wrapped={name: wrapped[name] for name in Secret},
        )

    def write(self, path: Path) -> None:
        """Whole or not at all, durable on return. Raises ``ConfigurationError`` (``key_file_exists``)."""
        document = {
            "format": _format,
            "purpose": self.purpose,
            "deployment_id": str(self.deployment_id),
            "provider": self.provider,
            "key_id": self.key_id,
            "secrets": {name: base64.b64encode(wrapped).decode() for name, wrapped in self.wrapped.items()},
        }
        write_new(path, json.dumps(document, indent=1).encode() + b"\n")


def next_path(path: Path) -> Path:
    """Where the successor of the keyring at ``path`` lies: ``keyring.next.json`` beside ``keyring.json``."""
    return path.with_name(f"{path.stem}.next{path.suffix}")
