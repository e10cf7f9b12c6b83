"""Who holds the store's files and the database's key looks for erased records in every byte of them.

Thousands of records, in collections that grow and shrink side by side: deleting rows there leaves copies behind where
pages merge, although secure_delete is on (docs/decisions/0002, 0013).
"""

import os
import random
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from secure_embed.keys import SealedDatabase
from secure_embed.store import RequestKey, SealedRow, SqlcipherRecordStore, StateKind
from secure_embed.store._schema import migrations
from secure_embed.types import Field, Position
from tests.sealed_store import batch, erase_ticket, everything, filled, found, marks, new_collection, segments

key = bytes(range(32))


class Growing:
    """A collection, the rows that it holds, and requests of which nothing was erased."""

    def __init__(self, store: SqlcipherRecordStore, seed: int) -> None:
        self.store, self.random, self.sealed = store, random.Random(seed), new_collection()
        store.create_collection(self.sealed)
        self.rows: dict[int, SealedRow] = {}
        self.requests: dict[int, RequestKey] = {}
        self.first = 0

    def ingest(self) -> None:
        count = self.random.choice([1, 3, 20, 150])
        text_bytes = self.random.choice([40, 433, 1_500, 9_000 if count < 20 else 433])
        rows = [
            replace(row, expires_unix=self.random.choice([None, 9])) for row in batch(self.first, count, text_bytes)
        ]
        request = RequestKey(tag=os.urandom(32), body_tag=os.urandom(32))
        self.store.append(self.sealed.uuid, rows, request=request)
        self.rows.update({int(row.position): row for row in rows})
        self.requests.update(dict.fromkeys(range(self.first, self.first + count), request))
        self.first += count

    def erase(self, share: float) -> list[bytes]:
        """What is to be found nowhere after it."""
        at = [position for position in self.rows if self.random.random() < share]
        gone = marks([self.rows.pop(position) for position in at])
        touched = {self.requests[position].tag: self.requests[position] for position in at if position in self.requests}
        self.requests = {p: request for p, request in self.requests.items() if request.tag not in touched}
        self.store.erase(self.sealed.uuid, [Position(position) for position in at], ticket=erase_ticket())
        return gone + [request.body_tag for request in touched.values()]

    def reseal(self) -> list[bytes]:
        """The values that were replaced."""
        old: list[bytes] = []
        for first, end in self.store.segment_bounds(self.sealed.uuid):
            rows = [row for position, row in sorted(self.rows.items()) if first <= position < end]
            anew = [
                replace(row, fields={f: b"\x01" + os.urandom(len(v) - 1) for f, v in row.fields.items()})
                for row in rows
            ]
            self.store.replace(self.sealed.uuid, anew)
            self.rows.update({int(row.position): row for row in anew})
            old += [value[:32] for row in rows for value in row.fields.values()]
        return old

    def kept(self) -> list[bytes]:
        requests = {request.tag: request for request in self.requests.values()}.values()
        return marks(list(self.rows.values())) + [
            tag for request in requests for tag in (request.tag, request.body_tag)
        ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.db"


def test_erased_records_are_in_no_page_no_frame_and_no_segment(path: Path) -> None:
    """Texts, metadata, vectors, tags and what was asked for, in many rounds between ingests."""
    store = SqlcipherRecordStore(path, key, rows_key=bytes(32))
    growing = [Growing(store, seed) for seed in range(4)]
    chance, gone = random.Random(7), list[bytes]()
    for _ in range(60):
        for _ in range(3):
            chance.choice(growing).ingest()
        gone += chance.choice(growing).erase(chance.choice([0.02, 0.1, 0.6]))
    kept = [mark for one in growing for mark in one.kept()]
    assert len(gone) > 15_000
    assert len(kept) > 15_000
    content = everything(path, key)
    assert found(content, gone) == 0
    assert found(content, kept) == len(kept)
    store.close()
    content = everything(path, key)
    assert found(content, gone) == 0
    assert found(content, kept) == len(kept)


def test_what_was_sealed_anew_is_in_no_page_no_frame_and_no_segment(path: Path) -> None:
    store = SqlcipherRecordStore(path, key, rows_key=bytes(32))
    growing = [Growing(store, seed) for seed in (1, 2)]
    for one in growing * 8:
        one.ingest()
    gone = growing[0].erase(0.1) + growing[0].reseal()
    assert len(gone) > 1_000
    content, kept = everything(path, key), [mark for one in growing for mark in one.kept()]
    assert found(content, gone) == 0
    assert found(content, kept) == len(kept) > 1_000
    store.close()


def test_a_collection_that_ended_leaves_nothing_and_its_neighbours_erase_as_before(path: Path) -> None:
    store = SqlcipherRecordStore(path, key, rows_key=bytes(32))
    growing = [Growing(store, seed) for seed in range(3)]
    for one in growing * 12:
        one.ingest()
    ended = growing.pop(1)
    codebook = os.urandom(20_000)
    store.put_codebook(ended.sealed.uuid, 1, codebook)
    gone = [*ended.kept(), ended.sealed.name_tag, ended.sealed.descriptor[:32], codebook[:32], codebook[-40:]]
    store.erase_collection(ended.sealed.uuid, ticket=erase_ticket())
    assert not path.with_name("segments").joinpath(str(ended.sealed.uuid)).exists()
    for _ in range(20):
        for one in growing:
            one.ingest()
            gone += one.erase(0.2)
    content, kept = everything(path, key), [mark for one in growing for mark in one.kept()]
    assert found(content, gone) == 0
    assert found(content, kept) == len(kept) > 1_000
    store.close()


def test_requests_that_ended_leave_nothing(path: Path) -> None:
    store, sealed = SqlcipherRecordStore(path, key, rows_key=bytes(32)), new_collection()
    store.create_collection(sealed)
    requests = [RequestKey(tag=os.urandom(32), body_tag=os.urandom(32)) for _ in range(300)]
    for n, request in enumerate(requests):
        store.append(sealed.uuid, batch(n, 1), request=request)
    tags = [tag for request in requests for tag in (request.tag, request.body_tag)]
    assert found(everything(path, key), tags) == len(tags)
    store.expire_requests(2**40)
    assert found(everything(path, key), tags) == 0
    store.close()


def test_states_that_ended_or_were_replaced_leave_nothing(path: Path) -> None:
    """They are sealed under a key that lives on, and a hold names its subject."""
    store, chance = SqlcipherRecordStore(path, key, rows_key=bytes(32)), random.Random(3)
    held, gone = {}, []
    for _ in range(900):
        kind = chance.choice(list(StateKind))
        name = (kind, chance.choice(list(held))[1]) if held and chance.random() < 0.4 else (kind, uuid4())
        if name in held:
            gone.append(held.pop(name))
            if chance.random() < 0.5:
                store.drop_state(*name)
                continue
        held[name] = os.urandom(chance.choice([60, 300, 700, 5_000]))
        store.put_state(*name, held[name])
    store.drop_state(StateKind.TASK, uuid4())
    content = everything(path, key)
    assert len(gone) > 50
    assert found(content, gone) == 0
    assert found(content, list(held.values())) == len(held)
    store.close()


def test_the_search_finds_what_a_delete_without_secure_delete_leaves(path: Path) -> None:
    """The control of the tests above: the same search finds rows that were deleted with the setting off."""
    rows = batch(0, 60)
    filled(path, key, rows)
    database = SealedDatabase(path, key, migrations=migrations)
    with database.transaction() as run:
        assert run.execute("PRAGMA secure_delete = OFF").fetchone() == (0,)
        for table in ("meta_1", "text_1"):
            run.execute(f"DELETE FROM {table}")
    database.empty_write_ahead_log()
    database.close()
    for segment in segments(path):
        segment.unlink()
    assert found(everything(path, key), marks(rows, [Field.TEXT, Field.META])) > len(rows)
