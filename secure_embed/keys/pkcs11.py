"""The root key on a token of PKCS#11: made there, never outside of it; docs/formats.md, docs/decisions/0012-key-providers.md.

A fresh data key seals the key that is wrapped, bound to its context, and the token wraps the data key (AES key wrap binds
nothing). What this lacks, first: what the root key opens does lie in this process' memory, and who has the PIN and
reaches the token can use the root key. Sources: PKCS#11 v2.40 (OASIS), RFC 3394, NIST SP 800-38D.
"""

import json
import re
import secrets
from contextlib import suppress
from pathlib import Path

from secure_embed.errors import SealedValueUnreadable, SecureEmbedError, Unavailable
from secure_embed.keys.private_files import erase_file, read_bounded, write_new
from secure_embed.keys.protocol import ProviderDescription
from secure_embed.keys.sealing import HEADER, key_bytes, open_bound, seal_bound, sealed_overhead_bytes
from secure_embed.keys.strict_json import StrictObject
from secure_embed.keys.token import RootOnToken, TokenRefuses
from secure_embed.keys.wrapping import wrapped_bytes
from secure_embed.settings import TokenSettings

__all__ = ["Pkcs11Provider"]

_format = "secure_embed/root-pkcs11/v1"
_members = ("format", "key_id", "mechanism")
_mechanism = "CKM_AES_KEY_WRAP"
_where = "a key wrapped by the root"
_soft_token = "SoftHSM"  # noqa: S105 - the maker's name


class Pkcs11Provider:
    """A ``KeyProvider``. Made by :meth:`create` or :meth:`open`. Safe to call from several threads."""

    def __init__(self, root: RootOnToken, key_id: str, token_label: str) -> None:
        self._root = root
        self._key_id = key_id
        self._token_label = token_label
        self._closed = False

    @classmethod
    def create(cls, path: Path, settings: TokenSettings, pin_file: Path) -> "Pkcs11Provider":
        """Write ``path``, then make the root key on the token that it names.

        So a crash leaves no key that nothing names: :meth:`retire` ends what it left. Raises ``ConfigurationError``
        (``key_file_exists``) and what :meth:`open` raises.
        """
        key_id = secrets.token_hex(16)
        root = RootOnToken(settings, pin_file, bytes.fromhex(key_id))
        if not path.exists():
            root.reach()  # what is wrong with token or PIN is said before anything is written
        document = {"format": _format, "key_id": key_id, "mechanism": _mechanism}
        write_new(path, json.dumps(document, indent=1).encode() + b"\n")
        try:
            root.generate(f"secure_embed root {key_id[:8]}")
            root.open()
        except BaseException:
            with suppress(SecureEmbedError):  # what cannot be destroyed now stays named
                cls.retire(path, settings, pin_file)
            raise
        return cls(root, key_id, settings.token_label)

    @classmethod
    def open(cls, path: Path, settings: TokenSettings, pin_file: Path) -> "Pkcs11Provider":
        """Raises ``ConfigurationError`` (``key_file_missing``, ``key_file_invalid``, and those of
        ``RootOnToken.open``), ``Unavailable`` (``key_provider_unavailable``) when the token is away."""
        key_id = _key_id(path)
        root = RootOnToken(settings, pin_file, bytes.fromhex(key_id))
        root.open()
        return cls(root, key_id, settings.token_label)

    @staticmethod
    def retire(path: Path, settings: TokenSettings, pin_file: Path) -> None:
        """Destroy the root key that ``path`` names, on the token, then the file. Again after a crash: the same."""
        RootOnToken(settings, pin_file, bytes.fromhex(_key_id(path))).destroy()
        erase_file(path)

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """105 bytes: a data key wrapped by the token (40), then ``key`` sealed under it, bound to ``context`` (65)."""
        if len(key) != key_bytes:
            raise ValueError("a key has 32 bytes")
        self._refuse_closed()
        data_key = secrets.token_bytes(key_bytes)
        return self._root.wrap(data_key) + seal_bound(data_key, key, _additional(context))

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        if len(wrapped) != wrapped_bytes + key_bytes + sealed_overhead_bytes:
            raise SealedValueUnreadable(_where)
        self._refuse_closed()
        try:
            data_key = self._root.unwrap(wrapped[:wrapped_bytes])
        except TokenRefuses:
            raise SealedValueUnreadable(_where) from None
        return open_bound(data_key, wrapped[wrapped_bytes:], _additional(context), where=_where)

    def generate(self, context: bytes) -> tuple[bytes, bytes]:
        key = secrets.token_bytes(key_bytes)
        return key, self.wrap(key, context)

    def check(self) -> None:
        self._refuse_closed()
        self._root.probe()

    def describe(self) -> ProviderDescription:
        software = ("this token is software: its root key lies in files of this machine",)
        return ProviderDescription(
            kind="pkcs11",
            key_id=self._key_id,
            parameters={"token": self._token_label, "maker": self._root.maker, "mechanism": _mechanism},
            lacks=(
                *(software if _soft_token in self._root.maker else ()),
                "what the root key opens lies in the memory of this process while it is used",
                "who has the PIN file and reaches the token can use the root key",
                "data keys pass through the token as readable objects of a session",
                "the root key cannot be copied off its token: without the vendor's own backup a lost token loses every key",
            ),
        )

    def close(self) -> None:
        """Log out. The root key was never here."""
        if not self._closed:
            self._closed = True
            self._root.close()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise Unavailable("the key provider is closed", code="keys_closed")


def _key_id(path: Path) -> str:
    document = StrictObject(read_bounded(path), file=path.name, members=_members)
    key_id = document.text("key_id")
    right = (document.text("format"), document.text("mechanism")) == (_format, _mechanism)
    if not right or re.fullmatch("[0-9a-f]{32}", key_id) is None:
        raise document.invalid()
    return key_id


def _additional(context: bytes) -> bytes:
    return b"secure_embed/token-wrap/v1" + HEADER + context
