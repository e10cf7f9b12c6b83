"""The root key in a Transit engine of HashiCorp Vault or OpenBao; docs/formats.md, docs/decisions/0012-key-providers.md.

Each root is a Transit key of its own, ``derived``: the server makes another key from it for each context, so that what was
wrapped for one place opens in no other, and `datakey` is bound in the same way. What this lacks, first: the server sees
every key that it wraps, and who has the credential file and reaches the server can use the root key. Source: the Transit
API of both projects (POST keys, encrypt, decrypt, datakey).
"""

import base64
import binascii
import json
import re
import secrets
import struct
from contextlib import suppress
from pathlib import Path

from secure_embed.errors import ConfigurationError, SealedValueUnreadable, SecureEmbedError, Unavailable
from secure_embed.keys.private_files import erase_file, read_bounded, replace, write_new
from secure_embed.keys.protocol import ProviderDescription
from secure_embed.keys.sealing import key_bytes
from secure_embed.keys.strict_json import StrictObject
from secure_embed.keys.transit_client import TransitClient, TransitRefuses
from secure_embed.settings import TransitSettings

__all__ = ["TransitProvider"]

_format = "secure_embed/root-vault/v1"
_members = ("format", "key_id", "mount", "key", "sample")
_where = "a key wrapped by the root"
_sample_context = b"sample"
_ciphertext = re.compile(r"vault:v([1-9][0-9]{0,8}):([A-Za-z0-9+/]{80})")
_sealed_bytes = 60  # nonce (12), ciphertext of 32 bytes, tag (16)
no_sample = bytes(4 + _sealed_bytes)  # of a key that is being made
_key_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


class TransitProvider:
    """A ``KeyProvider``. Made by :meth:`create` or :meth:`open`. Safe to call from several threads."""

    def __init__(self, client: TransitClient, settings: TransitSettings, document: "_Document") -> None:
        self._client = client
        self._settings = settings
        self._document = document
        self._closed = False

    @classmethod
    def create(
        cls, path: Path, settings: TransitSettings, credential_file: Path, ca_file: Path | None
    ) -> "TransitProvider":
        """Write ``path``, then make the Transit key that it names, then put its sample into ``path``.

        So a crash leaves no key that nothing names: :meth:`retire` ends what it left. Raises ``ConfigurationError``
        (``key_file_exists``, ``vault_access_refused``, ``root_key_extractable``) and ``Unavailable``
        (``key_provider_unavailable``).
        """
        key_id = secrets.token_hex(16)
        client = TransitClient(settings, credential_file, ca_file)
        document = _Document(key_id=key_id, mount=settings.mount, key=f"{settings.key_prefix}-{key_id}")
        try:
            write_new(path, document.written())
            try:
                client.make_key(document.mount, document.key)
                _, sample = client.data_key(document.mount, document.key, _context(_sample_context))
                document.sample = _binary(sample)
                replace(path, document.written())
            except BaseException:
                with suppress(SecureEmbedError, TransitRefuses):  # what cannot be deleted now stays named
                    cls.retire(path, settings, credential_file, ca_file)
                raise
        except TransitRefuses:
            client.close()
            raise ConfigurationError("Vault made a key and does not use it", code="root_key_missing") from None
        except BaseException:
            client.close()
            raise
        return cls(client, settings, document)

    @classmethod
    def open(
        cls, path: Path, settings: TransitSettings, credential_file: Path, ca_file: Path | None
    ) -> "TransitProvider":
        """Raises ``ConfigurationError`` (``key_file_missing``, ``key_file_invalid``, ``vault_access_refused``,
        ``root_key_missing`` when Vault does not open the sample in ``path``, ``credential_...``) and ``Unavailable``
        (``key_provider_unavailable``) when Vault is away or sealed."""
        document = _Document.read(path)
        client = TransitClient(settings, credential_file, ca_file)
        try:
            client.decrypt(document.mount, document.key, _text(document.sample), _context(_sample_context))
        except TransitRefuses:
            client.close()
            raise ConfigurationError(f"Vault has no such root key as {path.name}", code="root_key_missing") from None
        except BaseException:
            client.close()
            raise
        return cls(client, settings, document)

    @staticmethod
    def retire(path: Path, settings: TransitSettings, credential_file: Path, ca_file: Path | None) -> None:
        """Delete the Transit key that ``path`` names, every version of it, then the file. Again after a crash: the same.

        Raises ``ConfigurationError`` (``root_key_not_destroyed``) when Vault still has the key.
        """
        document = _Document.read(path)
        client = TransitClient(settings, credential_file, ca_file)
        try:
            client.delete_key(document.mount, document.key)
        finally:
            client.close()
        erase_file(path)

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """64 bytes: u32 version of the Transit key, then its nonce, ciphertext and tag."""
        if len(key) != key_bytes:
            raise ValueError("a key has 32 bytes")
        self._refuse_closed()
        document = self._document
        try:
            return _binary(self._client.encrypt(document.mount, document.key, key, _context(context)))
        except (TransitRefuses, ConfigurationError):
            raise _away("Vault does not wrap") from None

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        self._refuse_closed()
        if len(wrapped) != 4 + _sealed_bytes or not 1 <= int.from_bytes(wrapped[:4], "big") <= 999_999_999:
            raise SealedValueUnreadable(_where)
        document = self._document
        try:
            key = self._client.decrypt(document.mount, document.key, _text(wrapped), _context(context))
        except ConfigurationError as refused:
            raise _away(refused.detail) from None
        except TransitRefuses:
            self.check()  # the key itself may be gone, and Vault says 400 for both
            raise SealedValueUnreadable(_where) from None
        if len(key) != key_bytes:
            raise SealedValueUnreadable(_where)
        return key

    def generate(self, context: bytes) -> tuple[bytes, bytes]:
        """Transit's ``datakey``: the server's random source makes the key, in one call."""
        self._refuse_closed()
        document = self._document
        try:
            key, ciphertext = self._client.data_key(document.mount, document.key, _context(context))
            return key, _binary(ciphertext)
        except (TransitRefuses, ConfigurationError):
            raise _away("Vault does not make data keys") from None

    def check(self) -> None:
        """Decrypts the sample of ``root.json``: nothing is written, and Vault's own log gets one line."""
        self._refuse_closed()
        document = self._document
        try:
            self._client.decrypt(document.mount, document.key, _text(document.sample), _context(_sample_context))
        except (TransitRefuses, ConfigurationError):
            raise _away("Vault does not open the sample of the root key") from None

    def describe(self) -> ProviderDescription:
        return ProviderDescription(
            kind="vault",
            key_id=self._document.key_id,
            parameters={
                "address": self._settings.address,
                "mount": self._document.mount,
                "key": self._document.key,
                "auth": self._settings.auth,
            },
            lacks=(
                "the server sees every key that it wraps or makes",
                "what the root key opens lies in the memory of this process while it is used",
                "who has the credential file and reaches the server can use the root key",
                "who administers the server can copy the root key, or delete it and with it every record",
            ),
        )

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._client.close()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise Unavailable("the key provider is closed", code="keys_closed")


class _Document:
    """What root.json says."""

    def __init__(self, *, key_id: str, mount: str, key: str, sample: bytes = no_sample) -> None:
        self.key_id, self.mount, self.key, self.sample = key_id, mount, key, sample

    @classmethod
    def read(cls, path: Path) -> "_Document":
        document = StrictObject(read_bounded(path), file=path.name, members=_members)
        read = cls(
            key_id=document.text("key_id"),
            mount=document.text("mount"),
            key=document.text("key"),
            sample=document.data("sample"),
        )
        right = (
            document.text("format") == _format
            and re.fullmatch("[0-9a-f]{32}", read.key_id) is not None
            and _key_name.fullmatch(read.key) is not None
            and len(read.sample) == 4 + _sealed_bytes
        )
        if not right:
            raise document.invalid()
        return read

    def written(self) -> bytes:
        document = {
            "format": _format,
            "key_id": self.key_id,
            "mount": self.mount,
            "key": self.key,
            "sample": base64.b64encode(self.sample).decode(),
        }
        return json.dumps(document, indent=1).encode() + b"\n"


def _context(context: bytes) -> bytes:
    return b"secure_embed/transit-wrap/v1" + context


def _binary(ciphertext: str) -> bytes:
    """``vault:v<version>:<base64>`` as 64 bytes: of one length, and with one form for each value."""
    found = _ciphertext.fullmatch(ciphertext)
    try:
        if found is None:
            raise ValueError("no ciphertext")
        return struct.pack(">I", int(found[1])) + base64.b64decode(found[2], validate=True)
    except (ValueError, binascii.Error):
        raise _away("Vault's answer is not a ciphertext") from None


def _text(wrapped: bytes) -> str:
    (version,) = struct.unpack_from(">I", wrapped)
    return f"vault:v{version}:{base64.b64encode(wrapped[4:]).decode()}"


def _away(detail: str) -> Unavailable:
    return Unavailable(detail, code="key_provider_unavailable")
