"""A collection on disk in a folder, opened and closed like a service's: real databases, keys and codes, no model."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self
from uuid import UUID, uuid4

import numpy as np

from secure_embed.collection.holding import Holding
from secure_embed.index import Effort
from secure_embed.keys import CollectionKeys, Keyring, PassphraseProvider, Secret, SqlcipherKeyStore
from secure_embed.store import SealedCollection, SqlcipherRecordStore
from secure_embed.types import (
    Action,
    Attributes,
    AttributeType,
    Collection,
    Position,
    Record,
    RowFilter,
    Space,
    Ticket,
    TruthValue,
)

SCHEMA: dict[str, AttributeType] = {"dep": "string", "level": "long", "vip": "bool"}
EVERYTHING = RowFilter(permits=(TruthValue(True),))


class KnownRoot(PassphraseProvider):
    """The real provider without Argon2id's tenth of a second."""

    def __init__(self) -> None:
        super().__init__(bytearray(range(32)), "known", (65_536, 3, 4))


def ticket(action: Action = Action.RECORD_ERASE) -> Ticket:
    return Ticket(intent_index=0, action=action, openings_max=100_000, expires_monotonic=time.monotonic() + 3_600)


def unit_vectors(seed: int, n: int, dimension: int) -> np.ndarray:
    """(n, dimension) float32, unit length, normal."""
    vectors = np.random.default_rng(seed).standard_normal((n, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class OneHolding:
    """Open on being made. ``kill`` leaves it as a crash does: nothing is saved, nothing is said good-bye to."""

    def __init__(self, folder: Path, *, dimension: int = 16) -> None:
        self.folder, self.dimension = folder, dimension
        self.collection = Collection(
            name="one",
            uuid=UUID(int=7),
            space=Space(model="m", revision="1", manifest_sha256="0" * 64, pooling="mean", dimension=dimension),
            attributes=SCHEMA,
            risk_profile="standard",
            created_unix=0,
        )
        self.open()

    @property
    def file(self) -> Path:
        return self.folder / "codes" / str(self.collection.uuid)

    def open(self) -> None:
        ring = self.folder / "keyring.json"
        new = not ring.exists()
        self.keyring = Keyring.create(ring, KnownRoot()) if new else Keyring.open(ring, KnownRoot())
        self.key_store = SqlcipherKeyStore(
            self.folder / "keys.db", self.keyring.secret(Secret.KEYS_STORE), rows_key=bytes(32)
        )
        self.store = SqlcipherRecordStore(
            self.folder / "data.db", self.keyring.secret(Secret.DATA_STORE), rows_key=bytes(32)
        )
        uuid = self.collection.uuid
        if new:
            CollectionKeys.create(self.keyring, self.key_store, uuid).close()
            self.store.create_collection(SealedCollection(uuid=uuid, name_tag=bytes(32), descriptor=b"sealed"))
        self.keys = CollectionKeys.unlock(self.keyring, self.key_store, uuid)
        self.holding = Holding(
            self.collection,
            keys=self.keys,
            key_store=self.key_store,
            store=self.store,
            codes_folder=self.folder / "codes",
        )

    def kill(self) -> None:
        self.keys.close()  # so that closing cannot save
        self.close()

    def close(self) -> None:
        self.holding.close()
        self.store.close()
        self.key_store.close()
        self.keyring.close()

    def reopened(self, *, killed: bool = False) -> Self:
        if killed:
            self.kill()
        else:
            self.close()
        self.open()
        return self

    def add(self, n: int, *, attributes: Sequence[Attributes] | None = None) -> list[Position]:
        return self.add_vectors(unit_vectors(self.holding.data_version, n, self.dimension), attributes=attributes)

    def add_vectors(self, vectors: np.ndarray, *, attributes: Sequence[Attributes] | None = None) -> list[Position]:
        """``vectors``: (n, dimension) float32, unit length."""
        n = len(vectors)
        records = [
            Record(id=uuid4().hex, text="text", attributes=attributes[i] if attributes else {}) for i in range(n)
        ]
        first = self.holding.append(records, vectors, request=None).first
        return [Position(first + i) for i in range(n)]

    def erase(self, at: Sequence[Position]) -> None:
        self.holding.erase(at, ticket=ticket())

    def found(self) -> list[int]:
        """Every position that answers, by opening nothing."""
        shard = self.holding.shard()
        query = unit_vectors(9, 1, self.dimension)
        return sorted(
            shard.scan(
                query, shard.select(EVERYTHING, None), k=10_000, effort=Effort(candidates=10_000)
            ).positions.tolist()
        )


def settled(one: OneHolding) -> None:
    """No codes are on their way any more: another codebook between two looks finds other records."""
    until = time.monotonic() + 60
    while one.holding.busy:
        assert time.monotonic() < until
        time.sleep(0.005)
