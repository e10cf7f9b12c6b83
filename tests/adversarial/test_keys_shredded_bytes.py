"""An attacker with the raw key of the keys database looks for erased keys in its files, page by page.

The files are decrypted here, outside SQLite: free pages, unused space between cells and the write-ahead log are seen.
SQLCipher 4: 4096-byte pages, AES-256-CBC, at the end of each page 16 bytes IV and 64 bytes HMAC; raw key used as it is.
"""

import random
import time
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from secure_embed.keys import CollectionKeys, Keyring, PassphraseProvider, SqlcipherKeyStore, TagKind
from secure_embed.types import Action, Field, Position, Ticket

database_key = bytes(range(32))
page_bytes, reserved_bytes, salt_bytes = 4_096, 80, 16
log_header_bytes, frame_header_bytes = 32, 24


def decrypted(page: bytes, *, first: bool) -> bytes:
    body, iv = page[salt_bytes if first else 0 : -reserved_bytes], page[-reserved_bytes : -reserved_bytes + 16]
    cipher = Cipher(algorithms.AES256(database_key), modes.CBC(iv)).decryptor()
    return cipher.update(body) + cipher.finalize()


def all_bytes(path: Path) -> bytes:
    """Every page of the database and every frame of its write-ahead log, in plaintext."""
    raw, log = path.read_bytes(), path.with_name(path.name + "-wal").read_bytes()
    pages = [decrypted(raw[at : at + page_bytes], first=at == 0) for at in range(0, len(raw), page_bytes)]
    step = frame_header_bytes + page_bytes
    for at in range(log_header_bytes, len(log), step):
        number = int.from_bytes(log[at : at + 4], "big")
        pages.append(decrypted(log[at + frame_header_bytes : at + step], first=number == 1))
    return b"\x00".join(pages)


class Shop:
    """A keys database with one collection of many records."""

    def __init__(self, folder: Path, records: int) -> None:
        self.path, self.uuid = folder / "keys.db", uuid4()
        keyring = Keyring.create(folder / "keyring.json", PassphraseProvider(bytearray(32), "known", (65_536, 3, 4)))
        self.store = SqlcipherKeyStore(self.path, database_key)
        self.keys = CollectionKeys.create(keyring, self.store, self.uuid)
        self.subjects = [self.keys.tag(TagKind.SUBJECT, f"person {i}") for i in range(records)]
        self.wrapped: dict[Position, bytes] = {}
        for first in range(0, records, 250):
            tags = self.subjects[first : first + 250]
            self.ingest(first, list(tags))

    def ingest(self, first: int, tags: list[bytes | None]) -> None:
        wrapped, _ = self.keys.seal_records(Position(first), tags, [{Field.TEXT: b"t"}] * len(tags), bytes(32))
        self.store.put(self.uuid, wrapped)
        self.keys.admit(wrapped)
        self.wrapped.update({key.position: key.wrapped for key in wrapped})

    def shred(self, at: list[Position]) -> list[bytes]:
        ticket = Ticket(
            intent_index=1, action=Action.RECORD_ERASE, openings_max=0, expires_monotonic=time.monotonic() + 60
        )
        self.store.shred(self.uuid, at, ticket=ticket)
        self.keys.discard(at)
        return [self.wrapped.pop(position) for position in at]


def left_over(path: Path, secrets: list[bytes]) -> int:
    raw = all_bytes(path)
    return sum(any(secret[i : i + 16] in raw for i in (0, len(secret) - 16)) for secret in secrets)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path, 2_000)


def test_the_search_finds_what_is_there(shop: Shop) -> None:
    """Without this, the other tests could pass because the decryption is wrong."""
    assert left_over(shop.path, list(shop.wrapped.values())) == 2_000
    assert left_over(shop.path, shop.subjects) == 2_000
    assert not any(wrapped in shop.path.read_bytes() for wrapped in shop.wrapped.values())


def test_shredded_keys_are_in_no_page_and_no_frame(shop: Shop) -> None:
    """In many rounds, so that pages empty, merge and move their cells."""
    rng = random.Random(5)
    gone: list[bytes] = []
    for _ in range(12):
        gone += shop.shred(rng.sample(sorted(shop.wrapped), 130))
    gone += shop.shred([p for p in sorted(shop.wrapped) if p < 900])
    assert left_over(shop.path, gone) == 0
    assert left_over(shop.path, list(shop.wrapped.values())) == len(shop.wrapped) > 0


def test_after_a_rotation_neither_old_wraps_nor_the_old_collection_key(shop: Shop) -> None:
    before = shop.store.collection(shop.uuid)
    old = [before.collection_key, before.index_key, before.lookup_key, *shop.wrapped.values()]
    shop.keys.rotate(shop.store)
    assert left_over(shop.path, old) == 0
    assert left_over(shop.path, [key.wrapped for key in shop.store.wrapped(shop.uuid)]) == 2_000


def test_a_dropped_collection_leaves_no_key(shop: Shop) -> None:
    collection = shop.store.collection(shop.uuid)
    ticket = Ticket(intent_index=1, action=Action.RECORD_ERASE, openings_max=0, expires_monotonic=time.monotonic() + 60)
    shop.store.drop_collection(shop.uuid, ticket=ticket)
    assert left_over(shop.path, [collection.collection_key, *shop.wrapped.values()]) == 0
