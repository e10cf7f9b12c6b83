"""What every ``KeyStore`` keeps to. A new driver adds one line to ``drivers`` and passes all of it."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from secure_embed.errors import Conflict, NotFound, SecureEmbedError
from secure_embed.keys import KeyStore, SqlcipherKeyStore, WrappedCollection, WrappedKey
from secure_embed.types import Action, Position, Ticket

Opener = Callable[[], KeyStore]


def sqlcipher(folder: Path) -> Opener:
    """Opens the same store again on every call, as a restart would."""
    key = os.urandom(32)
    return lambda: SqlcipherKeyStore(folder / "keys.db", key)


drivers: dict[str, Callable[[Path], Opener]] = {"sqlcipher": sqlcipher}


@pytest.fixture(params=drivers.values(), ids=drivers.keys())
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    return request.param(tmp_path)  # type: ignore[no-any-return]  # pytest gives parameters as Any


@pytest.fixture
def store(open_store: Opener) -> Iterator[KeyStore]:
    opened = open_store()
    yield opened
    opened.close()


def made_collection(version: int = 1) -> WrappedCollection:
    return WrappedCollection(
        uuid=uuid4(),
        version=version,
        collection_key=os.urandom(65),
        index_key=os.urandom(40),
        lookup_key=os.urandom(40),
    )


@pytest.fixture
def wrapped(store: KeyStore) -> WrappedCollection:
    collection = made_collection()
    store.create_collection(collection)
    return collection


def made_keys(*positions: int, subject: bytes | None = None, version: int = 1) -> list[WrappedKey]:
    return [
        WrappedKey(position=Position(p), version=version, subject_tag=subject, wrapped=os.urandom(40))
        for p in positions
    ]


def at(*positions: int) -> list[Position]:
    return [Position(p) for p in positions]


def held(store: KeyStore, uuid: UUID) -> Sequence[WrappedKey]:
    return list(store.wrapped(uuid, since=Position(0)))


def test_what_was_put_is_there_after_a_restart_in_order(
    store: KeyStore, open_store: Opener, wrapped: WrappedCollection
) -> None:
    keys = made_keys(0, 1, 2, subject=bytes(32)) + made_keys(5, 3)
    store.put(wrapped.uuid, keys)
    store.close()
    again = open_store()
    assert again.collection(wrapped.uuid) == wrapped
    assert held(again, wrapped.uuid) == sorted(keys, key=lambda key: key.position)
    assert list(again.wrapped(wrapped.uuid, since=Position(2))) == held(again, wrapped.uuid)[2:]
    assert again.next_position(wrapped.uuid) == 6
    again.close()


def test_more_keys_than_one_batch(store: KeyStore, wrapped: WrappedCollection) -> None:
    keys = made_keys(*range(20_001))
    store.put(wrapped.uuid, keys)
    assert held(store, wrapped.uuid) == keys


def test_collections_do_not_meet(store: KeyStore, wrapped: WrappedCollection, ticket: Ticket) -> None:
    other = made_collection()
    store.create_collection(other)
    store.put(wrapped.uuid, made_keys(0, 1, subject=bytes(32)))
    theirs = made_keys(0, subject=bytes(32))
    store.put(other.uuid, theirs)
    store.shred(wrapped.uuid, at(0, 1), ticket=ticket)
    assert held(store, other.uuid) == theirs
    assert store.positions_of_subject(other.uuid, bytes(32)) == (0,)
    assert store.next_position(other.uuid) == 1


def test_a_collection_is_created_once(store: KeyStore, wrapped: WrappedCollection) -> None:
    with pytest.raises(Conflict):
        store.create_collection(replace(made_collection(), uuid=wrapped.uuid))
    assert store.collection(wrapped.uuid) == wrapped


def test_an_unknown_collection_is_not_found(store: KeyStore, ticket: Ticket) -> None:
    uuid = uuid4()
    for use in (
        lambda: store.collection(uuid),
        lambda: store.put(uuid, made_keys(0)),
        lambda: held(store, uuid),
        lambda: store.next_position(uuid),
        lambda: store.positions_of_subject(uuid, bytes(32)),
        lambda: store.shred(uuid, at(0), ticket=ticket),
        lambda: store.replace_version(replace(made_collection(2), uuid=uuid), []),
    ):
        with pytest.raises(NotFound):
            use()


@pytest.mark.parametrize("positions", [(0,), (2,), (3, 1), (3, 3), (4, 5, 4)])
def test_a_position_is_never_used_twice(
    store: KeyStore, wrapped: WrappedCollection, positions: tuple[int, ...], ticket: Ticket
) -> None:
    keys = made_keys(0, 1, 2)
    store.put(wrapped.uuid, keys)
    store.shred(wrapped.uuid, at(2), ticket=ticket)
    with pytest.raises(Conflict):
        store.put(wrapped.uuid, made_keys(*positions))
    assert held(store, wrapped.uuid) == keys[:2]


def test_a_batch_with_one_stale_key_is_refused_whole(store: KeyStore, wrapped: WrappedCollection) -> None:
    with pytest.raises(Conflict) as refused:
        store.put(wrapped.uuid, made_keys(0) + made_keys(1, version=2))
    assert refused.value.code == "key_version_stale"
    assert held(store, wrapped.uuid) == []
    assert store.next_position(wrapped.uuid) == 0


def test_the_next_position_outlives_the_highest_key(
    store: KeyStore, open_store: Opener, wrapped: WrappedCollection, ticket: Ticket
) -> None:
    store.put(wrapped.uuid, made_keys(0, 1, 2))
    store.shred(wrapped.uuid, at(0, 1, 2), ticket=ticket)
    assert store.next_position(wrapped.uuid) == 3
    store.close()
    again = open_store()
    assert again.next_position(wrapped.uuid) == 3
    again.close()


def test_a_subject_is_found_by_its_tag_until_it_is_shredded(
    store: KeyStore, wrapped: WrappedCollection, ticket: Ticket
) -> None:
    one, two = bytes([1]) * 32, bytes([2]) * 32
    store.put(wrapped.uuid, made_keys(0, 3, subject=one) + made_keys(1, subject=two) + made_keys(2))
    assert store.positions_of_subject(wrapped.uuid, one) == (0, 3)
    store.shred(wrapped.uuid, at(3), ticket=ticket)
    assert store.positions_of_subject(wrapped.uuid, one) == (0,)
    assert store.positions_of_subject(wrapped.uuid, two) == (1,)
    assert store.positions_of_subject(wrapped.uuid, bytes([3]) * 32) == ()


def test_shredding_says_what_it_ended_and_can_be_repeated(
    store: KeyStore, wrapped: WrappedCollection, ticket: Ticket
) -> None:
    keys = made_keys(0, 1, 2, 3)
    store.put(wrapped.uuid, keys)
    first = store.shred(wrapped.uuid, at(3, 1, 9, 1), ticket=ticket)
    assert (first.positions, first.key_version, first.version_destroyed) == ((1, 3), 1, False)
    assert store.shred(wrapped.uuid, at(3, 1), ticket=ticket).positions == ()
    assert store.shred(wrapped.uuid, [], ticket=ticket).positions == ()
    assert held(store, wrapped.uuid) == [keys[0], keys[2]]


@pytest.mark.parametrize(
    "change", [{"action": Action.QUERY}, {"action": Action.RECORD_INGEST}, {"expires_monotonic": time.monotonic() - 1}]
)
def test_nothing_is_deleted_without_a_ticket_that_covers_it(
    store: KeyStore, wrapped: WrappedCollection, ticket: Ticket, change: dict[str, object]
) -> None:
    keys = made_keys(0)
    store.put(wrapped.uuid, keys)
    bad = replace(ticket, **change)  # type: ignore[arg-type]  # each value fits its own member
    for use in (
        lambda: store.shred(wrapped.uuid, at(0), ticket=bad),
        lambda: store.drop_collection(wrapped.uuid, ticket=bad),
    ):
        with pytest.raises(SecureEmbedError) as refused:
            use()
        assert refused.value.code == "ticket_refused"
    assert held(store, wrapped.uuid) == keys


def test_a_new_version_replaces_all_of_the_old(
    store: KeyStore, open_store: Opener, wrapped: WrappedCollection, ticket: Ticket
) -> None:
    store.put(wrapped.uuid, made_keys(0, 1, 2, subject=bytes(32)))
    store.shred(wrapped.uuid, at(1), ticket=ticket)
    new = replace(made_collection(2), uuid=wrapped.uuid)
    keys = made_keys(0, 2, subject=bytes(32), version=2)
    store.replace_version(new, list(reversed(keys)))
    store.close()
    again = open_store()
    assert again.collection(wrapped.uuid) == new
    assert held(again, wrapped.uuid) == keys
    assert again.next_position(wrapped.uuid) == 3
    assert again.shred(wrapped.uuid, at(0), ticket=ticket).key_version == 2
    again.close()


@pytest.mark.parametrize(
    ("version", "keys"),
    [
        (1, made_keys(0, 1, version=1)),
        (3, made_keys(0, 1, version=3)),
        (2, made_keys(0, 1, version=1)),
        (2, made_keys(0, version=2)),
        (2, made_keys(0, 1, 2, version=2)),
        (2, made_keys(0, 2, version=2)),
        (2, made_keys(0, 0, 1, version=2)),
    ],
)
def test_a_new_version_that_does_not_fit_changes_nothing(
    store: KeyStore, wrapped: WrappedCollection, version: int, keys: list[WrappedKey]
) -> None:
    stored = made_keys(0, 1)
    store.put(wrapped.uuid, stored)
    with pytest.raises(Conflict):
        store.replace_version(replace(made_collection(version), uuid=wrapped.uuid), keys)
    assert store.collection(wrapped.uuid) == wrapped
    assert held(store, wrapped.uuid) == stored


def test_dropping_a_collection_ends_its_keys_and_can_be_repeated(
    store: KeyStore, wrapped: WrappedCollection, ticket: Ticket
) -> None:
    store.put(wrapped.uuid, made_keys(0, 1))
    store.drop_collection(wrapped.uuid, ticket=ticket)
    store.drop_collection(wrapped.uuid, ticket=ticket)
    with pytest.raises(NotFound):
        store.collection(wrapped.uuid)
