import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from secure_embed.store import RecordStore, RequestKey, SealedCollection, SealedRow, SqlcipherRecordStore
from secure_embed.types import Action, Field, Position, Ticket

Opener = Callable[[], RecordStore]


def sqlcipher_store(folder: Path) -> Opener:
    """Opens the same store each time, as a restart would."""
    key = os.urandom(32)
    return lambda: SqlcipherRecordStore(folder / "data.db", key, rows_key=bytes(32))


makers: Mapping[str, Callable[[Path], Opener]] = {"sqlcipher": sqlcipher_store}


@pytest.fixture(params=makers.values(), ids=makers.keys())
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """A new driver adds one line to ``makers``; then the conformance tests run against it."""
    return request.param(tmp_path)  # type: ignore[no-any-return]  # pytest gives parameters as Any


@pytest.fixture
def store(open_store: Opener) -> Iterator[RecordStore]:
    opened = open_store()
    yield opened
    opened.close()


@pytest.fixture
def new_collection() -> Callable[[RecordStore], UUID]:
    def create(store: RecordStore) -> UUID:
        sealed = SealedCollection(uuid=uuid4(), name_tag=os.urandom(32), descriptor=os.urandom(200))
        store.create_collection(sealed)
        return sealed.uuid

    return create


@pytest.fixture
def c(store: RecordStore, new_collection: Callable[[RecordStore], UUID]) -> UUID:
    return new_collection(store)


@pytest.fixture
def batch() -> Callable[[int, int], list[SealedRow]]:
    """``batch(first, count)``: rows with random tags and values of the sizes that real ones have."""

    def make(first: int, count: int) -> list[SealedRow]:
        sizes = {Field.VECTOR: 801, Field.TEXT: 533, Field.META: 333}
        return [
            SealedRow(
                position=Position(first + i),
                id_tag=os.urandom(32),
                fields={field: b"\x01" + os.urandom(size - 1) for field, size in sizes.items()},
            )
            for i in range(count)
        ]

    return make


@pytest.fixture
def new_request() -> Callable[[], RequestKey]:
    return lambda: RequestKey(tag=os.urandom(32), body_tag=os.urandom(32))


@pytest.fixture
def ticket() -> Ticket:
    return Ticket(
        intent_index=0, action=Action.RECORD_ERASE, openings_max=0, expires_monotonic=time.monotonic() + 3_600
    )
