"""The root key from a passphrase: Argon2id over the passphrase opens the root key in ``root.json``; docs/formats.md.

What it lacks, first: the root key lies in this process' memory, and who has both files has everything. Sources:
RFC 9106 section 4 (second recommended option), NIST SP 800-38D.
"""

import base64
import json
import secrets
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from secure_embed.errors import ConfigurationError, SealedValueUnreadable
from secure_embed.keys.locked import LockedMemory
from secure_embed.keys.private_files import read_bounded, read_passphrase, write_new
from secure_embed.keys.protocol import ProviderDescription
from secure_embed.keys.sealing import HEADER, key_bytes, open_bound, seal_bound, sealed_overhead_bytes
from secure_embed.keys.strict_json import StrictObject

__all__ = ["PassphraseProvider", "passphrase_bytes_min"]

passphrase_bytes_min = 16
memory_kib, iterations, lanes = 65_536, 3, 4
salt_bytes = 16
memory_kib_max, iterations_max, lanes_max = 4 * 1024 * 1024, 64, 64  # a forged file may not exhaust the machine

_format = "secure_embed/root/v1"
_members = ("format", "key_id", "memory_kib", "iterations", "lanes", "salt", "sealed_root")


class PassphraseProvider:
    """A ``KeyProvider``. Made by :meth:`create` or :meth:`open`. Safe to call from several threads."""

    def __init__(self, root: bytearray, key_id: str, cost: tuple[int, int, int]) -> None:
        self._memory = LockedMemory()
        self._root = self._memory.hold(root)
        root[:] = bytes(len(root))
        self._key_id = key_id
        self._cost = cost

    @classmethod
    def create(cls, path: Path, passphrase_file: Path) -> "PassphraseProvider":
        """Make a random root key and write ``root.json`` at ``path``, whole or not at all.

        Raises ``ConfigurationError``: ``passphrase_too_short`` under 16 bytes, ``key_file_exists``, and what
        reading the passphrase file raises (``passphrase_file_permissions``, ...).
        """
        passphrase = read_passphrase(passphrase_file)
        if len(passphrase) < passphrase_bytes_min:
            raise ConfigurationError(
                f"the passphrase has fewer than {passphrase_bytes_min} bytes", code="passphrase_too_short"
            )
        root = bytearray(secrets.token_bytes(key_bytes))
        key_id, salt, cost = secrets.token_hex(16), secrets.token_bytes(salt_bytes), (memory_kib, iterations, lanes)
        with _derived(passphrase, salt, cost) as key:
            sealed = seal_bound(key, bytes(root), _additional(key_id, cost, salt))
        document = {
            "format": _format,
            "key_id": key_id,
            "memory_kib": memory_kib,
            "iterations": iterations,
            "lanes": lanes,
            "salt": base64.b64encode(salt).decode(),
            "sealed_root": base64.b64encode(sealed).decode(),
        }
        write_new(path, json.dumps(document, indent=1).encode() + b"\n")
        return cls(root, key_id, cost)

    @classmethod
    def open(cls, path: Path, passphrase_file: Path) -> "PassphraseProvider":
        """Raises ``SealedValueUnreadable`` for a wrong passphrase or a changed file, ``ConfigurationError``
        (``key_file_missing``, ``key_file_invalid``) for one that is no ``root.json``, and as in :meth:`create`."""
        passphrase = read_passphrase(passphrase_file)
        document = StrictObject(read_bounded(path), file=path.name, members=_members)
        salt, sealed, key_id = document.data("salt"), document.data("sealed_root"), document.text("key_id")
        cost = (
            document.number("memory_kib", least=8, most=memory_kib_max),
            document.number("iterations", least=1, most=iterations_max),
            document.number("lanes", least=1, most=lanes_max),
        )
        right = len(salt) == salt_bytes and len(sealed) == key_bytes + sealed_overhead_bytes and cost[0] >= 8 * cost[2]
        if not right or document.text("format") != _format or not key_id.isascii():
            raise document.invalid()
        with _derived(passphrase, salt, cost) as key:
            where = f"{path.name}: wrong passphrase or damaged file"
            root = bytearray(open_bound(key, sealed, _additional(key_id, cost, salt), where=where))
        return cls(root, key_id, cost)

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """65 bytes: a sealed value whose additional data holds ``context``."""
        if len(key) != key_bytes:
            raise ValueError("a key has 32 bytes")
        return seal_bound(self._root.copy(), key, b"secure_embed/root-wrap/v1" + HEADER + context)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        additional = b"secure_embed/root-wrap/v1" + HEADER + context
        key = open_bound(self._root.copy(), wrapped, additional, where="a key wrapped by the root")
        if len(key) != key_bytes:
            raise SealedValueUnreadable("a key wrapped by the root")
        return key

    def generate(self, context: bytes) -> tuple[bytes, bytes]:
        key = secrets.token_bytes(key_bytes)
        return key, self.wrap(key, context)

    def check(self) -> None:
        """The root key lies in memory: nothing but :meth:`close` takes it away."""
        self._root.copy()

    def describe(self) -> ProviderDescription:
        memory, passes, threads = self._cost
        return ProviderDescription(
            kind="passphrase",
            key_id=self._key_id,
            parameters={"argon2id_memory_kib": memory, "argon2id_iterations": passes, "argon2id_lanes": threads},
            lacks=(
                "the root key lies in the memory of this process",
                "who has root.json and the passphrase file has every key",
                "no second person is needed to open it",
            ),
        )

    def close(self) -> None:
        """Overwrite the root key. Copies that CPython or OpenSSL made on the way are beyond reach."""
        self._memory.close()


@contextmanager
def _derived(passphrase: bytearray, salt: bytes, cost: tuple[int, int, int]) -> Iterator[bytearray]:
    """The key that Argon2id gives; it and the passphrase are overwritten when the block ends."""
    memory, passes, threads = cost
    key = bytearray(key_bytes)
    try:
        kdf = Argon2id(salt=salt, length=key_bytes, iterations=passes, lanes=threads, memory_cost=memory)
        kdf.derive_into(bytes(passphrase), key)
        yield key
    finally:
        key[:] = bytes(len(key))
        passphrase[:] = bytes(len(passphrase))


def _additional(key_id: str, cost: tuple[int, int, int], salt: bytes) -> bytes:
    return b"secure_embed/root/v1" + HEADER + key_id.encode("ascii") + struct.pack(">III", *cost) + salt
