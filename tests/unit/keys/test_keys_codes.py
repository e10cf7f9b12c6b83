"""Saved codes open under the key of their own saving, in their place, until an erasure or a rotation ends that key."""

from collections.abc import Callable
from uuid import uuid4

import pytest

from secure_embed.errors import Conflict, SealedValueUnreadable
from secure_embed.keys import CollectionKeys, Keyring, SqlcipherKeyStore
from secure_embed.types import Field, Position, Ticket

chunks = [b"codes of the first rows", b"codes of the next rows", b"the rest"]


def saved(keys: CollectionKeys, store: SqlcipherKeyStore) -> list[bytes]:
    keys.renew_codes_key(store)
    return [keys.seal_codes(number, chunk is chunks[-1], chunk) for number, chunk in enumerate(chunks)]


def read(keys: CollectionKeys, sealed: list[bytes]) -> list[bytes]:
    found = []
    for number, chunk in enumerate(sealed):
        out = bytearray(len(chunk))
        filled = keys.open_codes_into(number, number == len(sealed) - 1, memoryview(chunk), memoryview(out))
        found.append(bytes(out[:filled]))
    return found


@pytest.fixture
def one_record(collection: CollectionKeys, key_store: SqlcipherKeyStore) -> CollectionKeys:
    wrapped, _ = collection.seal_records(Position(0), [None], [{Field.TEXT: b"text"}], bytes(32))
    key_store.put(collection.uuid, wrapped)
    collection.admit(wrapped)
    return collection


def test_what_was_saved_opens_here_and_after_a_restart(
    one_record: CollectionKeys, key_store: SqlcipherKeyStore, keyring: Keyring
) -> None:
    assert not one_record.has_codes_key
    sealed = saved(one_record, key_store)
    for keys in (one_record, CollectionKeys.unlock(keyring, key_store, one_record.uuid)):
        assert keys.has_codes_key
        assert read(keys, sealed) == chunks


def test_chunks_neither_change_places_nor_are_cut_off(
    one_record: CollectionKeys, key_store: SqlcipherKeyStore, keyring: Keyring
) -> None:
    sealed = saved(one_record, key_store)
    other = CollectionKeys.create(keyring, key_store, uuid4())
    theirs = saved(other, key_store)
    for moved in ([sealed[1], sealed[0], sealed[2]], sealed[:2], [*sealed, sealed[2]], [theirs[0], *sealed[1:]]):
        with pytest.raises(SealedValueUnreadable):
            read(one_record, moved)


def test_a_new_saving_ends_the_one_before(
    one_record: CollectionKeys, key_store: SqlcipherKeyStore, keyring: Keyring
) -> None:
    first, second = saved(one_record, key_store), saved(one_record, key_store)
    for keys in (one_record, CollectionKeys.unlock(keyring, key_store, one_record.uuid)):
        assert read(keys, second) == chunks
        with pytest.raises(SealedValueUnreadable):
            read(keys, first)


def shred(keys: CollectionKeys, store: SqlcipherKeyStore, ticket: Ticket) -> None:
    store.shred(keys.uuid, [Position(0)], ticket=ticket)
    keys.discard([Position(0)])


def rotate(keys: CollectionKeys, store: SqlcipherKeyStore, ticket: Ticket) -> None:
    assert ticket
    keys.rotate(store)


@pytest.mark.parametrize("end", [shred, rotate])
def test_an_erasure_or_a_rotation_ends_what_was_saved(
    end: Callable[[CollectionKeys, SqlcipherKeyStore, Ticket], None],
    one_record: CollectionKeys,
    key_store: SqlcipherKeyStore,
    keyring: Keyring,
    ticket: Ticket,
) -> None:
    sealed = saved(one_record, key_store)
    end(one_record, key_store, ticket)
    for keys in (one_record, CollectionKeys.unlock(keyring, key_store, one_record.uuid)):
        assert not keys.has_codes_key
        with pytest.raises(SealedValueUnreadable):
            read(keys, sealed)
        with pytest.raises(Conflict) as refused:
            keys.seal_codes(0, False, b"")
        assert refused.value.code == "codes_key_missing"
    assert read(one_record, saved(one_record, key_store)) == chunks


def test_a_codes_key_of_an_older_version_is_refused(
    one_record: CollectionKeys, key_store: SqlcipherKeyStore, keyring: Keyring
) -> None:
    late = CollectionKeys.unlock(keyring, key_store, one_record.uuid)
    one_record.rotate(key_store)
    with pytest.raises(Conflict) as refused:
        late.renew_codes_key(key_store)
    assert refused.value.code == "key_version_stale"
    assert not late.has_codes_key
    assert key_store.collection(one_record.uuid).codes_key is None
