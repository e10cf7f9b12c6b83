"""An attacker who can write to the store moves sealed values about. None opens anywhere but where it was sealed."""

import itertools
import os
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pytest

from secure_embed.errors import SealedValueUnreadable
from secure_embed.keys import CollectionKeys, IndexValue, Keyring, PassphraseProvider, SqlcipherKeyStore
from secure_embed.types import Field, Position

pytestmark = pytest.mark.usefixtures("each_way_to_open")

space, other_space = bytes([1]) * 32, bytes([2]) * 32
plain = np.arange(8, dtype="<f2")
row = {Field.VECTOR: plain.tobytes(), Field.TEXT: b"sixteen bytes of", Field.META: b"the same length!"}
Unlocked = tuple[CollectionKeys, list[dict[Field, bytes]]]


@pytest.fixture
def deployment(tmp_path: Path) -> tuple[Keyring, SqlcipherKeyStore]:
    keyring = Keyring.create(tmp_path / "keyring.json", PassphraseProvider(bytearray(32), "known", (65_536, 3, 4)))
    return keyring, SqlcipherKeyStore(tmp_path / "keys.db", os.urandom(32), rows_key=bytes(32))


def two_records(deployment: tuple[Keyring, SqlcipherKeyStore], uuid: UUID) -> Unlocked:
    keyring, store = deployment
    keys = CollectionKeys.create(keyring, store, uuid)
    wrapped, sealed = keys.seal_records(Position(0), [None, None], [row, row], space)
    store.put(uuid, wrapped)
    keys.admit(wrapped)
    return keys, sealed


@pytest.fixture
def here(deployment: tuple[Keyring, SqlcipherKeyStore]) -> Unlocked:
    return two_records(deployment, uuid4())


def test_between_records_and_fields(here: Unlocked) -> None:
    keys, sealed = here
    places = list(itertools.product((Position(0), Position(1)), Field))
    for written, read in itertools.product(places, places):
        value = sealed[written[0]][written[1]]
        if written == read:
            assert keys.open(*read, value, space) == row[read[1]]
        else:
            with pytest.raises(SealedValueUnreadable):
                keys.open(*read, value, space)


def test_a_record_moved_with_its_wrapped_key(here: Unlocked, deployment: tuple[Keyring, SqlcipherKeyStore]) -> None:
    """A record key unwraps at any position of its collection; what it sealed still opens at its own alone."""
    keys, sealed = here
    _, store = deployment
    with store.database.transaction() as run:  # the attacker has the keys of the keys database and of its rows too
        ((wrapped,),) = run.execute("SELECT wrapped FROM record_keys").fetchall()
        run.execute("UPDATE record_keys SET wrapped = ?", (wrapped[40:80] + wrapped[:40] + wrapped[80:],))
    swapped = CollectionKeys.unlock(deployment[0], store, keys.uuid)
    for position, field, source in itertools.product((Position(0), Position(1)), Field, (0, 1)):
        with pytest.raises(SealedValueUnreadable):
            swapped.open(position, field, sealed[source][field], space)


def test_between_collections(here: Unlocked, deployment: tuple[Keyring, SqlcipherKeyStore]) -> None:
    keys, _ = here
    _, theirs = two_records(deployment, uuid4())
    for field in Field:
        with pytest.raises(SealedValueUnreadable):
            keys.open(Position(0), field, theirs[0][field], space)


def test_a_whole_collection_under_another_uuid(here: Unlocked, deployment: tuple[Keyring, SqlcipherKeyStore]) -> None:
    keys, _ = here
    keyring, store = deployment
    with store.database.transaction() as run:
        run.execute("UPDATE collections SET uuid = ? WHERE uuid = ?", (UUID(int=77).bytes, keys.uuid.bytes))
    with pytest.raises(SealedValueUnreadable):
        CollectionKeys.unlock(keyring, store, UUID(int=77))


def test_between_spaces(here: Unlocked) -> None:
    keys, sealed = here
    value = sealed[0][Field.VECTOR]
    with pytest.raises(SealedValueUnreadable):
        keys.open(Position(0), Field.VECTOR, value, other_space)
    out = np.ones((1, 8), dtype="<f2")
    with pytest.raises(SealedValueUnreadable):
        keys.open_vectors_into(np.array([0]), np.frombuffer(value, np.uint8)[None], out, other_space)
    assert not out.any()


def test_vectors_swapped_under_the_search(here: Unlocked) -> None:
    keys, sealed = here
    out = np.ones((2, 8), dtype="<f2")
    swapped = np.frombuffer(sealed[1][Field.VECTOR] + sealed[0][Field.VECTOR], np.uint8).reshape(2, -1)
    with pytest.raises(SealedValueUnreadable):
        keys.open_vectors_into(np.array([0, 1]), swapped, out, space)
    assert not out.any()


def test_a_digest_of_another_length_cannot_stand_for_a_space(here: Unlocked) -> None:
    """Packing would pad a short digest with zeros and cut a long one: two spaces would become one."""
    keys, sealed = here
    for digest in (b"", space[:31], space + b"\x00"):
        with pytest.raises(ValueError, match="32 bytes"):
            keys.open(Position(0), Field.VECTOR, sealed[0][Field.VECTOR], digest)


def test_between_the_index_and_another_collections_index(
    here: Unlocked, deployment: tuple[Keyring, SqlcipherKeyStore]
) -> None:
    keys, _ = here
    other, _ = two_records(deployment, uuid4())
    with pytest.raises(SealedValueUnreadable):
        keys.open_index(IndexValue.CODEBOOK, other.seal_index(IndexValue.CODEBOOK, b"centroids"))


def test_index_and_lookup_keys_swapped_in_the_keys_database(
    here: Unlocked, deployment: tuple[Keyring, SqlcipherKeyStore]
) -> None:
    """AES key wrap binds no place, so the swap unwraps; what the right index key sealed no longer opens."""
    keys, _ = here
    codebook = keys.seal_index(IndexValue.CODEBOOK, b"centroids")
    keyring, store = deployment
    with store.database.transaction() as run:
        run.execute("UPDATE collections SET index_key = lookup_key, lookup_key = index_key")
    with pytest.raises(SealedValueUnreadable):
        CollectionKeys.unlock(keyring, store, keys.uuid).open_index(IndexValue.CODEBOOK, codebook)
