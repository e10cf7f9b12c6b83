"""What every ``KeyStore`` keeps to. A new driver adds one line to ``drivers`` and passes all of it."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from secure_embed.errors import ConfigurationError, Conflict, NotFound, SealedValueUnreadable, SecureEmbedError
from secure_embed.keys import KeyBatch, KeyStore, SqlcipherKeyStore, WrappedCollection, WrappedKey
from secure_embed.types import Action, Position, Ticket

Opener = Callable[[], KeyStore]


def sqlcipher(folder: Path) -> Opener:
    """Opens the same store again on every call, as a restart would."""
    key = os.urandom(32)
    return lambda: SqlcipherKeyStore(folder / "keys.db", key, rows_key=bytes(32))


drivers: dict[str, Callable[[Path], Opener]] = {"sqlcipher": sqlcipher}


@pytest.fixture(params=drivers.values(), ids=drivers.keys())
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    return request.param(tmp_path)  # type: ignore[no-any-return]  # pytest gives parameters as Any


@pytest.fixture
def store(open_store: Opener) -> Iterator[KeyStore]:
    opened = open_store()
    yield opened
    opened.close()


def made_collection(version: int = 1, *, root: str = "root") -> WrappedCollection:
    return WrappedCollection(
        uuid=uuid4(),
        version=version,
        root_key_id=root,
        collection_key=os.urandom(65),
        index_key=os.urandom(40),
        lookup_key=os.urandom(40),
    )


@pytest.fixture
def wrapped(store: KeyStore) -> WrappedCollection:
    collection = made_collection()
    store.create_collection(collection)
    return collection


a_subject = bytes([7]) * 32  # a keyed hash is never all zeros


def made_keys(*positions: int, subject: bytes | None = None, version: int = 1) -> list[WrappedKey]:
    return [
        WrappedKey(position=Position(p), version=version, subject_tag=subject, wrapped=os.urandom(40))
        for p in positions
    ]


def reversing(batch: KeyBatch) -> list[bytes]:
    """Stands for wrapping anew: it can be seen, and undone."""
    return [wrapped[::-1] for wrapped in batch.wrapped]


def reversed_keys(keys: Sequence[WrappedKey], version: int) -> list[WrappedKey]:
    return [replace(key, version=version, wrapped=key.wrapped[::-1]) for key in keys]


def at(*positions: int) -> list[Position]:
    return [Position(p) for p in positions]


def held(store: KeyStore, uuid: UUID) -> Sequence[WrappedKey]:
    return list(store.wrapped(uuid, since=Position(0)))


def test_what_was_put_is_there_after_a_restart_in_order(
    store: KeyStore, open_store: Opener, wrapped: WrappedCollection
) -> None:
    keys = made_keys(0, 1, 2, subject=a_subject) + made_keys(5, 3)
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
    store.put(wrapped.uuid, made_keys(0, 1, subject=a_subject))
    theirs = made_keys(0, subject=a_subject)
    store.put(other.uuid, theirs)
    store.shred(wrapped.uuid, at(0, 1), ticket=ticket)
    assert held(store, other.uuid) == theirs
    assert store.positions_of_subject(other.uuid, a_subject) == (0,)
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
        lambda: store.positions_of_subject(uuid, a_subject),
        lambda: store.shred(uuid, at(0), ticket=ticket),
        lambda: store.replace_version(replace(made_collection(2), uuid=uuid), reversing),
        lambda: store.put_codes_key(uuid, bytes(40), version=1),
        lambda: store.offer(uuid, made_keys(0)),
        lambda: store.offered(uuid),
        lambda: store.promote(uuid, at(0)),
        lambda: store.withdraw(uuid, at(0)),
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
    assert (first.positions, first.key_version) == ((1, 3), 1)
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
    keys = made_keys(0, 1, 2, subject=a_subject)
    store.put(wrapped.uuid, keys)
    store.put_codes_key(wrapped.uuid, os.urandom(40), version=1)
    store.shred(wrapped.uuid, at(1), ticket=ticket)
    store.put_codes_key(wrapped.uuid, os.urandom(40), version=1)
    offered = made_keys(2)
    store.offer(wrapped.uuid, offered)
    new = replace(made_collection(2), uuid=wrapped.uuid)
    store.replace_version(new, reversing)
    store.close()
    again = open_store()
    assert again.collection(wrapped.uuid) == new
    assert held(again, wrapped.uuid) == reversed_keys([keys[0], keys[2]], 2)
    assert again.offered(wrapped.uuid) == reversed_keys(offered, 2)
    assert again.next_position(wrapped.uuid) == 3
    assert again.shred(wrapped.uuid, at(0), ticket=ticket).key_version == 2
    again.close()


def test_a_new_version_comes_in_batches_that_cover_every_key_once(store: KeyStore, wrapped: WrappedCollection) -> None:
    keys = made_keys(*range(0, 50_000, 2), subject=None)
    store.put(wrapped.uuid, keys)
    other = made_collection()
    store.create_collection(other)
    theirs = made_keys(0, 1, 2)
    store.put(other.uuid, theirs)
    seen: list[KeyBatch] = []

    def rewrap(batch: KeyBatch) -> list[bytes]:
        seen.append(batch)
        return reversing(batch)

    store.replace_version(replace(made_collection(2), uuid=wrapped.uuid), rewrap)
    assert max(len(batch.positions) for batch in seen) <= 10_000
    assert [p for batch in seen for p in batch.positions] == [key.position for key in keys]
    assert held(store, wrapped.uuid) == reversed_keys(keys, 2)
    assert held(store, other.uuid) == theirs


@pytest.mark.parametrize(
    ("version", "root", "code"),
    [
        (1, "root", "key_version_stale"),
        (3, "root", "key_version_stale"),
        (2, "another", "root_key_stale"),
    ],
)
def test_a_new_version_that_does_not_fit_changes_nothing(
    store: KeyStore, wrapped: WrappedCollection, version: int, root: str, code: str
) -> None:
    stored = made_keys(0, 1)
    store.put(wrapped.uuid, stored)
    with pytest.raises(Conflict) as refused:
        store.replace_version(replace(made_collection(version, root=root), uuid=wrapped.uuid), reversing)
    assert refused.value.code == code
    assert store.collection(wrapped.uuid) == wrapped
    assert held(store, wrapped.uuid) == stored


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_new_version_that_fails_on_its_way_changes_nothing(
    store: KeyStore, wrapped: WrappedCollection, fails_at: int
) -> None:
    stored, calls = made_keys(*range(15_000)), 0
    store.put(wrapped.uuid, stored)
    store.offer(wrapped.uuid, made_keys(3))

    def rewrap(batch: KeyBatch) -> list[bytes]:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise SealedValueUnreadable("record key")
        return reversing(batch)

    with pytest.raises(SealedValueUnreadable):
        store.replace_version(replace(made_collection(2), uuid=wrapped.uuid), rewrap)
    assert store.collection(wrapped.uuid) == wrapped
    assert held(store, wrapped.uuid) == stored


# --- codes, offers, roots ----------------------------------------------------------------------------------------


def test_the_codes_key_is_kept_until_it_is_ended(store: KeyStore, wrapped: WrappedCollection, ticket: Ticket) -> None:
    store.put(wrapped.uuid, made_keys(0, 1, 2))
    assert store.collection(wrapped.uuid).codes_key is None
    for key in (os.urandom(40), os.urandom(40)):
        store.put_codes_key(wrapped.uuid, key, version=1)
        assert store.collection(wrapped.uuid).codes_key == key
    with pytest.raises(Conflict) as refused:
        store.put_codes_key(wrapped.uuid, os.urandom(40), version=2)
    assert refused.value.code == "key_version_stale"
    assert store.collection(wrapped.uuid).codes_key == key
    store.shred(wrapped.uuid, at(1), ticket=ticket)
    assert store.collection(wrapped.uuid).codes_key is None
    store.put_codes_key(wrapped.uuid, key, version=1)
    store.replace_version(replace(made_collection(2), uuid=wrapped.uuid), reversing)
    assert store.collection(wrapped.uuid).codes_key is None


def test_an_offered_key_waits_beside_the_one_that_counts(
    store: KeyStore, open_store: Opener, wrapped: WrappedCollection
) -> None:
    keys, offers = made_keys(0, 1, 2, 3, subject=a_subject), made_keys(2, 1)
    store.put(wrapped.uuid, keys)
    store.offer(wrapped.uuid, offers)
    store.close()
    again = open_store()
    assert held(again, wrapped.uuid) == keys
    assert again.offered(wrapped.uuid) == offers[::-1]
    assert again.promote(wrapped.uuid, at(2, 3, 9)) == (2,)
    assert again.promote(wrapped.uuid, at(2)) == ()
    promoted = replace(keys[2], wrapped=offers[0].wrapped)
    assert held(again, wrapped.uuid) == [keys[0], keys[1], promoted, keys[3]]
    assert again.withdraw(wrapped.uuid, at(0, 1, 2)) == (1,)
    assert again.offered(wrapped.uuid) == []
    assert held(again, wrapped.uuid) == [keys[0], keys[1], promoted, keys[3]]
    again.offer(wrapped.uuid, offers)
    assert again.offered(wrapped.uuid) == offers[::-1]
    again.close()


def test_offers_of_two_collections_do_not_meet(store: KeyStore, wrapped: WrappedCollection, ticket: Ticket) -> None:
    other = made_collection()
    store.create_collection(other)
    for uuid in (wrapped.uuid, other.uuid):
        store.put(uuid, made_keys(0, 1))
    mine, theirs = made_keys(0, 1), made_keys(0, 1)
    store.offer(wrapped.uuid, mine)
    store.offer(other.uuid, theirs)
    assert store.promote(wrapped.uuid, at(0)) == (0,)
    assert store.offered(wrapped.uuid) == mine[1:]
    assert store.offered(other.uuid) == theirs
    store.drop_collection(wrapped.uuid, ticket=ticket)
    assert store.offered(other.uuid) == theirs


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        (made_keys(0, 9), "record_keys_changed"),  # was never there
        (made_keys(0, 1), "record_keys_changed"),  # is shredded
        (made_keys(0, 0), "record_keys_changed"),
        (made_keys(0, 3), "key_offered"),
        (made_keys(0, version=2), "key_version_stale"),
    ],
)
def test_an_offer_that_does_not_fit_is_refused_whole(
    store: KeyStore, wrapped: WrappedCollection, ticket: Ticket, keys: list[WrappedKey], code: str
) -> None:
    stored, offered = made_keys(0, 1, 2, 3), made_keys(3)
    store.put(wrapped.uuid, stored)
    store.shred(wrapped.uuid, at(1), ticket=ticket)
    store.offer(wrapped.uuid, offered)
    with pytest.raises(Conflict) as refused:
        store.offer(wrapped.uuid, keys)
    assert refused.value.code == code
    assert store.offered(wrapped.uuid) == offered


def test_an_erasure_ends_the_offered_key_too_and_no_promotion_brings_the_record_back(
    store: KeyStore, wrapped: WrappedCollection, ticket: Ticket
) -> None:
    keys = made_keys(0, 1)
    store.put(wrapped.uuid, keys)
    store.offer(wrapped.uuid, made_keys(0, 1))
    store.shred(wrapped.uuid, at(0), ticket=ticket)
    assert [key.position for key in store.offered(wrapped.uuid)] == [1]
    assert store.promote(wrapped.uuid, at(0)) == ()
    assert held(store, wrapped.uuid) == keys[1:]


def test_the_root_is_named_and_replaced_for_every_collection_at_once(open_store: Opener, ticket: Ticket) -> None:
    """Providers wrap into different lengths; the store keeps them all."""
    store = open_store()
    assert store.root_key_id() is None
    collections = [replace(made_collection(), collection_key=os.urandom(length)) for length in (40, 65, 100, 510)]
    for collection in collections:
        store.create_collection(collection)
    dropped = made_collection()
    store.create_collection(dropped)
    store.drop_collection(dropped.uuid, ticket=ticket)
    assert store.root_key_id() == "root"
    asked: list[tuple[UUID, int, bytes]] = []

    def rewrap(uuid: UUID, version: int, old: bytes) -> bytes:
        asked.append((uuid, version, old))
        return b"fresh " + old[:34]

    assert store.rewrap_root("new", rewrap) == 4
    assert set(asked) == {(c.uuid, 1, c.collection_key) for c in collections}
    store.close()
    again = open_store()
    assert again.root_key_id() == "new"
    for c in collections:
        assert again.collection(c.uuid) == replace(
            c, root_key_id="new", collection_key=b"fresh " + c.collection_key[:34]
        )
    with pytest.raises(Conflict) as refused:
        again.create_collection(made_collection())
    assert refused.value.code == "root_key_stale"
    again.create_collection(made_collection(root="new"))
    again.close()


def test_a_collection_made_while_the_root_is_replaced_is_taken_along(
    store: KeyStore, wrapped: WrappedCollection
) -> None:
    """The provider may be far away: it is asked while others go on writing."""
    late = made_collection()

    def rewrap(uuid: UUID, version: int, old: bytes) -> bytes:
        if uuid == wrapped.uuid:
            store.create_collection(late)
        return b"fresh " + old[:30]

    assert store.rewrap_root("new", rewrap) == 2
    assert store.collection(late.uuid).collection_key == b"fresh " + late.collection_key[:30]


def test_a_root_that_cannot_wrap_one_of_them_changes_none(store: KeyStore, wrapped: WrappedCollection) -> None:
    store.create_collection(made_collection())
    calls = 0

    def rewrap(uuid: UUID, version: int, old: bytes) -> bytes:
        nonlocal calls
        calls += 1
        return old if calls == 1 else bytes(511)

    with pytest.raises(ConfigurationError) as refused:
        store.rewrap_root("new", rewrap)
    assert refused.value.code == "root_wrap_too_long"
    assert store.root_key_id() == "root"
    assert store.collection(wrapped.uuid) == wrapped


def test_the_generation_counts_changes(store: KeyStore, wrapped: WrappedCollection, ticket: Ticket) -> None:
    seen = [store.generation]
    for change in (
        lambda: store.put(wrapped.uuid, made_keys(0, 1)),
        lambda: store.put_codes_key(wrapped.uuid, os.urandom(40), version=1),
        lambda: store.offer(wrapped.uuid, made_keys(0, 1)),
        lambda: store.promote(wrapped.uuid, at(0)),
        lambda: store.withdraw(wrapped.uuid, at(1)),
        lambda: store.shred(wrapped.uuid, at(0), ticket=ticket),
        lambda: store.rewrap_root("new", lambda uuid, version, old: old),
        lambda: store.drop_collection(wrapped.uuid, ticket=ticket),
    ):
        change()
        seen.append(store.generation)
    assert all(later > earlier for earlier, later in pairwise(seen))
    store.drop_collection(uuid4(), ticket=ticket)
    assert store.generation == seen[-1]


def test_dropping_a_collection_ends_its_keys_and_can_be_repeated(
    store: KeyStore, wrapped: WrappedCollection, ticket: Ticket
) -> None:
    store.put(wrapped.uuid, made_keys(0, 1))
    store.drop_collection(wrapped.uuid, ticket=ticket)
    store.drop_collection(wrapped.uuid, ticket=ticket)
    with pytest.raises(NotFound):
        store.collection(wrapped.uuid)


def test_a_mark_is_kept_and_replaced(store: KeyStore) -> None:
    assert store.marked() is None
    for sealed in (b"a" * 89, b"b" * 89):
        before = store.generation
        store.mark(sealed)
        assert (store.marked(), store.generation) == (sealed, before + 1)
