"""Records sealed again under new keys, in two databases: every row opens at every moment, and after every crash."""

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest

from secure_embed.errors import Conflict, SealedValueUnreadable, Unavailable
from secure_embed.keys import CollectionKeys, Keyring, SqlcipherKeyStore, WrappedKey
from secure_embed.types import Field, Position, Ticket

pytestmark = pytest.mark.usefixtures("each_way_to_open")

space, dimension, count = bytes([7]) * 32, 8, 6
plain = np.random.default_rng(1).standard_normal((count, dimension)).astype("<f2")
Rows = dict[Position, dict[Field, bytes]]  # stands for the record store
everywhere = [Position(p) for p in range(count)]


def fields(position: int) -> dict[Field, bytes]:
    return {Field.VECTOR: plain[position].tobytes(), Field.TEXT: f"text {position}".encode()}


@pytest.fixture
def rows(collection: CollectionKeys, key_store: SqlcipherKeyStore) -> Rows:
    wrapped, sealed = collection.seal_records(Position(0), [None] * count, [fields(p) for p in everywhere], space)
    key_store.put(collection.uuid, wrapped)
    collection.admit(wrapped)
    return dict(zip(everywhere, sealed, strict=True))


def sealed_again(keys: CollectionKeys, at: list[Position]) -> tuple[list[WrappedKey], Rows]:
    fresh, sealed = keys.seal_again(at, [fields(p) for p in at], space)
    return fresh, dict(zip(at, sealed, strict=True))


def slots(rows: Iterable[Mapping[Field, bytes]]) -> npt.NDArray[np.uint8]:
    vectors = [row[Field.VECTOR] for row in rows]
    return np.frombuffer(b"".join(vectors), np.uint8).reshape(len(vectors), -1)


def assert_all_open(keys: CollectionKeys, rows: Rows) -> None:
    out = np.zeros((len(rows), dimension), dtype="<f2")
    at = np.array(list(rows), dtype=np.int64)
    assert keys.open_vectors_into(at, slots(rows.values()), out, space).all()
    assert np.array_equal(out, plain[at])
    for position, row in rows.items():
        assert keys.open(position, Field.TEXT, row[Field.TEXT], space) == f"text {position}".encode()


def assert_none_opens(keys: CollectionKeys, rows: Rows) -> None:
    for position, row in rows.items():
        with pytest.raises(SealedValueUnreadable):
            keys.open(position, Field.TEXT, row[Field.TEXT], space)
        out = np.ones((1, dimension), dtype="<f2")
        with pytest.raises(SealedValueUnreadable):
            keys.open_vectors_into(np.array([position]), slots([row]), out, space)
        assert not out.any()


def test_rows_of_either_side_open_until_the_new_keys_count_and_then_the_new_alone(
    collection: CollectionKeys, key_store: SqlcipherKeyStore, keyring: Keyring, rows: Rows
) -> None:
    at, epoch = everywhere[1:4], collection.epoch
    fresh, new = sealed_again(collection, at)
    assert_none_opens(collection, new)
    collection.offer(key_store, fresh)
    assert collection.offered == tuple(at)
    assert_all_open(collection, rows)
    assert_all_open(collection, rows | new)
    assert collection.epoch == epoch
    collection.promote(key_store, at)
    assert collection.offered == ()
    assert collection.epoch > epoch
    for keys in (collection, CollectionKeys.unlock(keyring, key_store, collection.uuid)):
        assert_all_open(keys, rows | new)
        assert_none_opens(keys, {p: rows[p] for p in at})


def test_withdrawn_keys_open_nothing(collection: CollectionKeys, key_store: SqlcipherKeyStore, rows: Rows) -> None:
    fresh, new = sealed_again(collection, everywhere)
    collection.offer(key_store, fresh)
    collection.withdraw(key_store, everywhere)
    assert_all_open(collection, rows)
    assert_none_opens(collection, new)
    assert key_store.offered(collection.uuid) == []


def test_a_crash_before_between_and_after_is_settled_by_the_rows(
    collection: CollectionKeys, key_store: SqlcipherKeyStore, keyring: Keyring, rows: Rows
) -> None:
    """Rows 0 and 1 were replaced, 2 and 3 not yet, 4 is gone from the store."""
    at = everywhere[:5]
    fresh, new = sealed_again(collection, at)
    collection.offer(key_store, fresh)
    left = rows | {p: new[p] for p in at[:2]}
    del left[Position(4)]
    again = CollectionKeys.unlock(keyring, key_store, collection.uuid)
    assert again.offered == tuple(at)
    assert_all_open(again, left)
    texts = {p: row[Field.TEXT] for p, row in left.items()}
    assert again.settle(key_store, Field.TEXT, texts, space) == (at[:2], at[2:])
    for keys in (again, CollectionKeys.unlock(keyring, key_store, collection.uuid)):
        assert keys.offered == ()
        assert_all_open(keys, left)
    assert again.settle(key_store, Field.TEXT, texts, space) == ([], [])


def test_a_row_that_neither_key_opens_settles_nothing(
    collection: CollectionKeys, key_store: SqlcipherKeyStore, rows: Rows
) -> None:
    fresh, _ = sealed_again(collection, everywhere[:2])
    collection.offer(key_store, fresh)
    texts = {p: row[Field.TEXT] for p, row in rows.items()}
    texts[Position(1)] = os.urandom(len(texts[Position(1)]))
    with pytest.raises(SealedValueUnreadable):
        collection.settle(key_store, Field.TEXT, texts, space)
    assert collection.offered == tuple(everywhere[:2])


def test_a_rotation_takes_the_offers_along(
    collection: CollectionKeys, key_store: SqlcipherKeyStore, keyring: Keyring, rows: Rows
) -> None:
    fresh, new = sealed_again(collection, everywhere[:3])
    collection.offer(key_store, fresh)
    collection.rotate(key_store)
    for keys in (collection, CollectionKeys.unlock(keyring, key_store, collection.uuid)):
        assert_all_open(keys, rows)
        assert_all_open(keys, rows | new)
    collection.promote(key_store, everywhere[:3])
    assert_all_open(collection, rows | new)


def test_keys_made_before_a_rotation_are_not_offered_after_it(
    collection: CollectionKeys, key_store: SqlcipherKeyStore, rows: Rows
) -> None:
    fresh, _ = sealed_again(collection, everywhere)
    collection.rotate(key_store)
    with pytest.raises(Conflict) as refused:
        collection.offer(key_store, fresh)
    assert refused.value.code == "key_version_stale"
    assert_all_open(collection, rows)


def test_an_erased_record_opens_by_neither_key(
    collection: CollectionKeys, key_store: SqlcipherKeyStore, keyring: Keyring, rows: Rows, ticket: Ticket
) -> None:
    fresh, new = sealed_again(collection, everywhere)
    collection.offer(key_store, fresh)
    key_store.shred(collection.uuid, [Position(2)], ticket=ticket)
    collection.discard([Position(2)])
    for keys in (collection, CollectionKeys.unlock(keyring, key_store, collection.uuid)):
        assert Position(2) not in keys.offered
        for row in (rows, new):
            assert keys.open(Position(2), Field.TEXT, row[Position(2)][Field.TEXT], space) is None
    collection.promote(key_store, everywhere)
    del new[Position(2)]
    assert_all_open(collection, new)
    assert collection.records == count - 1


def fails_after_commit(key_store: SqlcipherKeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise Unavailable("the medium is gone")

    monkeypatch.setattr(key_store.database, "empty_write_ahead_log", fails)


@pytest.mark.parametrize("end", [CollectionKeys.promote, CollectionKeys.withdraw])
def test_memory_follows_a_change_that_fails_after_its_commit(
    end: Callable[[CollectionKeys, SqlcipherKeyStore, list[Position]], None],
    collection: CollectionKeys,
    key_store: SqlcipherKeyStore,
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fresh, new = sealed_again(collection, everywhere)
    collection.offer(key_store, fresh)
    fails_after_commit(key_store, monkeypatch)
    with pytest.raises(Unavailable):
        end(collection, key_store, everywhere)
    monkeypatch.undo()
    assert collection.offered == ()
    assert_all_open(collection, new if end is CollectionKeys.promote else rows)


def test_readers_that_watch_the_epoch_never_miss_a_record(
    collection: CollectionKeys, key_store: SqlcipherKeyStore, rows: Rows
) -> None:
    """A reader takes a row, then opens it. Where the key is another by then, the epoch says so, and it reads again."""
    store, done = dict(rows), threading.Event()

    def read(seed: int) -> tuple[int, int]:
        rng, reads, again = np.random.default_rng(seed), 0, 0
        while not done.is_set() or reads == 0:
            position = Position(int(rng.integers(count)))
            while True:
                epoch, row = collection.epoch, store[position]
                out = np.zeros((1, dimension), dtype="<f2")
                try:
                    assert collection.open_vectors_into(np.array([position]), slots([row]), out, space).all()
                    assert collection.open(position, Field.TEXT, row[Field.TEXT], space) == f"text {position}".encode()
                except SealedValueUnreadable:
                    assert collection.epoch != epoch  # else the row would be damaged
                    again += 1
                    continue
                assert np.array_equal(out[0], plain[position])
                break
            reads += 1
            done.wait(0.001)  # readers that never pause can keep the interpreter from the writer for seconds
        return reads, again

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read, seed) for seed in range(3)]
        try:
            for number in range(60):
                at = everywhere[number % 2 :: 2]
                fresh, new = sealed_again(collection, at)
                collection.offer(key_store, fresh)
                store.update(new)
                if number % 7 == 0:
                    collection.rotate(key_store)
                collection.promote(key_store, at)
        finally:
            done.set()
        assert all(reader.result()[0] > 0 for reader in readers)
    assert_all_open(collection, store)


def test_after_close_nothing_is_sealed_again(
    collection: CollectionKeys, key_store: SqlcipherKeyStore, rows: Rows
) -> None:
    fresh, _ = sealed_again(collection, everywhere)
    assert rows
    collection.close()
    for use in (
        lambda: sealed_again(collection, everywhere),
        lambda: collection.offer(key_store, fresh),
        lambda: collection.promote(key_store, everywhere),
        lambda: collection.withdraw(key_store, everywhere),
        lambda: collection.offered,
    ):
        with pytest.raises(Unavailable):
            use()
    assert key_store.offered(collection.uuid) == []
