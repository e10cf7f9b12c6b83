"""An attacker with the raw key of the keys database looks for erased keys in its files, page by page.

The files are decrypted here, outside SQLite: free pages, unused space between cells and the write-ahead log are seen.
SQLCipher 4: 4096-byte pages, AES-256-CBC, at the end of each page 16 bytes IV and 64 bytes HMAC; raw key used as it is.
"""

import random
import time
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from secure_embed.keys import (
    CollectionKeys,
    Keyring,
    PassphraseProvider,
    SqlcipherKeyStore,
    TagKind,
    WrappedCollection,
    WrappedKey,
)
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


def ticket() -> Ticket:
    return Ticket(intent_index=1, action=Action.RECORD_ERASE, openings_max=0, expires_monotonic=time.monotonic() + 60)


class Shop:
    """One of the collections of a keys database, with the keys and tags that it holds now."""

    def __init__(self, keyring: Keyring, store: SqlcipherKeyStore, seed: int) -> None:
        self.store, self.random = store, random.Random(seed)
        self.keys = CollectionKeys.create(keyring, store, uuid4())
        self.held: dict[Position, list[bytes]] = {}

    def ingest(self, count: int) -> None:
        """About half of the records name a subject."""
        first = self.store.next_position(self.keys.uuid)
        tags = [
            self.keys.tag(TagKind.SUBJECT, f"person {first + i}") if self.random.random() < 0.5 else None
            for i in range(count)
        ]
        wrapped, _ = self.keys.seal_records(first, tags, [{Field.TEXT: b"t"}] * count, bytes(32))
        self.store.put(self.keys.uuid, wrapped)
        self.keys.admit(wrapped)
        self.held.update({k.position: [k.wrapped] + ([k.subject_tag] if k.subject_tag else []) for k in wrapped})

    def reseal(self, share: float, *, promote: bool) -> list[bytes]:
        """Gives the keys that are gone: the old ones, or those that were on offer."""
        at = self.random.sample(sorted(self.held), int(len(self.held) * share))
        fresh, _ = self.keys.seal_again(at, [{Field.TEXT: b"t"}] * len(at), bytes(32))
        self.keys.offer(self.store, fresh)
        if not promote:
            self.keys.withdraw(self.store, at)
            return [key.wrapped for key in fresh]
        gone = [self.held[key.position][0] for key in fresh]
        self.keys.promote(self.store, at)
        for key in fresh:
            self.held[key.position][0] = key.wrapped
        return gone

    def shred(self, share: float) -> list[bytes]:
        at = self.random.sample(sorted(self.held), int(len(self.held) * share))
        self.store.shred(self.keys.uuid, at, ticket=ticket())
        self.keys.discard(at)
        return [secret for position in at for secret in self.held.pop(position)]


def found(path: Path, secrets: list[bytes]) -> int:
    """How many of the secrets show with their first or last 16 bytes."""
    raw = all_bytes(path)
    windows = {raw[at : at + 16] for at in range(len(raw) - 15)}
    return sum(secret[:16] in windows or secret[-16:] in windows for secret in secrets)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.db"


@pytest.fixture
def shops(path: Path) -> list[Shop]:
    """Three collections that grew side by side, in batches of many sizes."""
    provider = PassphraseProvider(bytearray(32), "known", (65_536, 3, 4))
    keyring, store = (
        Keyring.create(path.with_name("keyring.json"), provider),
        SqlcipherKeyStore(path, database_key, rows_key=bytes(32)),
    )
    shops = [Shop(keyring, store, seed) for seed in range(3)]
    rng = random.Random(5)
    for _ in range(60):
        rng.choice(shops).ingest(rng.choice([1, 3, 20, 100]))
    return shops


def live(shops: list[Shop]) -> list[bytes]:
    return [secret for shop in shops for secrets in shop.held.values() for secret in secrets]


def test_the_search_finds_what_is_there(shops: list[Shop], path: Path) -> None:
    """Without this, the other tests could pass because the decryption is wrong."""
    assert found(path, live(shops)) == len(live(shops)) > 1_000
    assert not any(secret in path.read_bytes() for secret in live(shops))


def test_shredded_keys_and_their_subjects_are_in_no_page_and_no_frame(shops: list[Shop], path: Path) -> None:
    """In many rounds between ingests: deleting rows left a few copies behind here, although secure_delete was on."""
    rng, gone = random.Random(1), list[bytes]()
    for _ in range(70):
        for _ in range(3):
            rng.choice(shops).ingest(rng.choice([1, 3, 20, 100]))
        gone += rng.choice(shops).shred(0.05)
    assert len(gone) > 1_000
    assert found(path, gone) == 0
    assert found(path, live(shops)) == len(live(shops)) > 100


def test_after_a_rotation_neither_old_wraps_nor_the_old_collection_key(shops: list[Shop], path: Path) -> None:
    shop = shops[1]
    before = shop.store.collection(shop.keys.uuid)
    old = [before.collection_key, before.index_key, before.lookup_key, *(held[0] for held in shop.held.values())]
    fresh, _ = shop.keys.seal_again(sorted(shop.held)[:50], [{Field.TEXT: b"t"}] * 50, bytes(32))
    shop.keys.offer(shop.store, fresh)
    old += [key.wrapped for key in fresh]
    assert found(path, old) == len(old)
    shop.keys.rotate(shop.store)
    assert found(path, old) == 0
    assert found(path, [key.wrapped for key in shop.store.wrapped(shop.keys.uuid)]) == len(shop.held) > 0


def test_a_dropped_collection_leaves_no_key(shops: list[Shop], path: Path) -> None:
    shop = shops.pop(1)
    collection = shop.store.collection(shop.keys.uuid)
    shop.store.drop_collection(shop.keys.uuid, ticket=ticket())
    keys = [collection.collection_key, collection.index_key, collection.lookup_key]
    assert found(path, [*keys, *live([shop])]) == 0
    assert found(path, live(shops)) == len(live(shops)) > 0


def test_replaced_and_withdrawn_record_keys_are_in_no_page_and_no_frame(shops: list[Shop], path: Path) -> None:
    rng, gone = random.Random(2), list[bytes]()
    for number in range(60):
        rng.choice(shops).ingest(rng.choice([1, 20, 100]))
        gone += rng.choice(shops).reseal(rng.choice([0.1, 0.3]), promote=number % 3 != 0)
        gone += rng.choice(shops).shred(0.02)
    assert len(gone) > 1_000
    assert found(path, gone) == 0
    assert found(path, live(shops)) == len(live(shops)) > 100


@pytest.mark.parametrize("end", ["renew", "shred", "rotate", "drop"])
def test_an_ended_codes_key_is_in_no_page_and_no_frame(shops: list[Shop], path: Path, end: str) -> None:
    shop, gone = shops[1], list[bytes]()
    for _ in range(5):
        shop.keys.renew_codes_key(shop.store)
        codes_key = shop.store.collection(shop.keys.uuid).codes_key
        assert codes_key is not None
        gone.append(codes_key)
    assert found(path, gone[-1:]) == 1
    if end == "renew":
        shop.keys.renew_codes_key(shop.store)
        shop.store.database.empty_write_ahead_log()
    elif end == "shred":
        shop.shred(0.1)
    elif end == "rotate":
        shop.keys.rotate(shop.store)
    else:
        shop.store.drop_collection(shop.keys.uuid, ticket=ticket())
    assert found(path, gone) == 0


def test_what_the_old_root_wrapped_is_in_no_page_and_no_frame(tmp_path: Path) -> None:
    """Hundreds of collections that grow and rotate, under roots whose wraps have other lengths each time: in a row that
    grows with its counters or its wrap, copies stay behind in pages that split."""
    path, rng = tmp_path / "keys.db", random.Random(3)
    store = SqlcipherKeyStore(path, database_key, rows_key=bytes(32))
    uuids, gone, root = list[UUID](), list[bytes](), "root"
    for length in (40, 100, 64, 105):
        for _ in range(60):
            uuids.append(uuid4())
            new = WrappedCollection(
                uuid=uuids[-1], version=1, root_key_id=root,
                collection_key=rng.randbytes(65), index_key=rng.randbytes(40), lookup_key=rng.randbytes(40),
            )  # fmt: skip
            store.create_collection(new)
        for uuid in rng.sample(uuids, 60):
            first = store.next_position(uuid)
            key = WrappedKey(
                position=Position(first + rng.choice([1, 300, 70_000])),
                version=store.collection(uuid).version, subject_tag=None, wrapped=rng.randbytes(40),
            )  # fmt: skip
            store.put(uuid, [key])
        gone += [store.collection(uuid).collection_key for uuid in uuids]
        root = f"root of {length}"
        store.rewrap_root(root, lambda uuid, version, old, length=length: rng.randbytes(length))  # type: ignore[misc]
        assert found(path, gone) == 0
        for uuid in rng.sample(uuids, 60):
            before = store.collection(uuid)
            gone += [before.collection_key, before.index_key, before.lookup_key]
            store.replace_version(
                replace(before, version=before.version + 1, collection_key=rng.randbytes(rng.choice([40, 65, 510])),
                        index_key=rng.randbytes(40), lookup_key=rng.randbytes(40)),
                lambda batch: [bytes(reversed(wrapped)) for wrapped in batch.wrapped],
            )  # fmt: skip
    assert found(path, gone) == 0
    present = [store.collection(uuid).collection_key for uuid in uuids]
    assert found(path, present) == len(present) == 240
