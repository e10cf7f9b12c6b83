"""A collection's unlocked keys: seal, open, forget, rotate, with readers at work."""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from secure_embed.errors import Conflict, NotFound, SealedValueUnreadable, Unavailable
from secure_embed.keys import CollectionKeys, IndexValue, Keyring, SqlcipherKeyStore, TagKind, WrappedKey
from secure_embed.keys.sealing import Place
from secure_embed.types import Field, Position, Ticket

pytestmark = pytest.mark.usefixtures("each_way_to_open")

space = bytes([7]) * 32
dimension = 24


def vectors(count: int, seed: int = 0) -> npt.NDArray[np.float16]:
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype("<f2")


def ingest(
    keys: CollectionKeys, store: SqlcipherKeyStore, plain: npt.NDArray[np.float16], *, first: int = 0
) -> list[dict[Field, bytes]]:
    rows = [{Field.VECTOR: row.tobytes(), Field.TEXT: f"text {i}".encode()} for i, row in enumerate(plain)]
    wrapped, sealed = keys.seal_records(Position(first), [None] * len(rows), rows, space)
    store.put(keys.uuid, wrapped)
    keys.admit(wrapped)
    return sealed


def slots(sealed: Sequence[bytes]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(b"".join(sealed), np.uint8).reshape(len(sealed), -1 if sealed else 0)


def opened(
    keys: CollectionKeys, positions: Sequence[int], sealed: Sequence[bytes]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float16]]:
    out = np.full((len(positions), dimension), 9, dtype="<f2")
    return keys.open_vectors_into(np.array(positions, dtype=np.int64), slots(sealed), out, space), out


def of_vectors(sealed: Sequence[dict[Field, bytes]]) -> list[bytes]:
    return [row[Field.VECTOR] for row in sealed]


def test_what_was_sealed_opens_here_and_after_unlocking_again(
    collection: CollectionKeys, key_store: SqlcipherKeyStore, keyring: Keyring
) -> None:
    plain = vectors(50)
    sealed = ingest(collection, key_store, plain)
    for keys in (collection, CollectionKeys.unlock(keyring, key_store, collection.uuid)):
        there, out = opened(keys, range(50), of_vectors(sealed))
        assert there.all()
        assert np.array_equal(out, plain)
        assert keys.open(Position(3), Field.TEXT, sealed[3][Field.TEXT], space) == b"text 3"
        assert keys.records == 50


def test_each_record_has_a_key_and_each_value_a_nonce_of_its_own(collection: CollectionKeys) -> None:
    same: list[dict[Field, bytes]] = [{Field.TEXT: b"same", Field.META: b"same"}] * 200
    keys, rows = collection.seal_records(Position(0), [None] * 200, same, space)
    assert len({key.wrapped for key in keys}) == 200
    assert len({value[5:17] for row in rows for value in row.values()}) == 400
    assert len({value for row in rows for value in row.values()}) == 400


def test_the_keys_carry_their_position_version_and_subject(collection: CollectionKeys) -> None:
    tag = collection.tag(TagKind.SUBJECT, "ana")
    keys, _ = collection.seal_records(Position(40), [tag, None], [{}, {}], space)
    assert [(key.position, key.version, key.subject_tag) for key in keys] == [(40, 1, tag), (41, 1, None)]


def test_a_missing_key_is_an_absent_record(collection: CollectionKeys, key_store: SqlcipherKeyStore) -> None:
    plain = vectors(4)
    sealed = ingest(collection, key_store, plain)
    collection.discard([Position(1), Position(99_999), Position(1)])
    values = of_vectors(sealed)
    there, out = opened(collection, [2, 1, 3, 99_999, -1], [values[2], values[1], values[3], values[0], values[0]])
    assert there.tolist() == [True, False, True, False, False]
    assert np.array_equal(out[[0, 2]], plain[[2, 3]])
    assert not out[[1, 3, 4]].any()
    assert collection.open(Position(1), Field.TEXT, sealed[1][Field.TEXT], space) is None
    assert collection.records == 3


def test_no_vector_asked_for_none_opened(collection: CollectionKeys) -> None:
    there, _ = opened(collection, [], [])
    assert there.shape == (0,)


def test_one_bad_vector_leaves_none_behind(collection: CollectionKeys, key_store: SqlcipherKeyStore) -> None:
    values = of_vectors(ingest(collection, key_store, vectors(3)))
    good = values[1]
    flipped = good[:-1] + bytes([good[-1] ^ 1])
    bads = [[values[0], bad, values[2]] for bad in (flipped, b"\x02" + good[1:], values[0], bytes(len(good)))]
    others = [[value[:-1] for value in values], [value + b"\x00" for value in values], [value[:20] for value in values]]
    for given in bads + others:
        out = np.full((3, dimension), 9, dtype="<f2")
        with pytest.raises(SealedValueUnreadable) as refused:
            collection.open_vectors_into(np.arange(3), slots(given), out, space)
        assert not out.any()
        assert "vector" in refused.value.detail


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((2, dimension), dtype="<f2"),
        np.zeros((3, dimension), dtype=np.float32),
        np.zeros((3, dimension), dtype=">f2"),
    ],
)
def test_a_buffer_that_does_not_fit_is_refused(collection: CollectionKeys, out: npt.NDArray[np.float16]) -> None:
    with pytest.raises(ValueError, match="belong together"):
        collection.open_vectors_into(np.arange(3), slots([bytes(33 + 2 * dimension)] * 3), out, space)


def test_keys_are_not_known_before_they_are_admitted(collection: CollectionKeys) -> None:
    _, rows = collection.seal_records(Position(0), [None], [{Field.TEXT: b"text"}], space)
    assert collection.open(Position(0), Field.TEXT, rows[0][Field.TEXT], space) is None


def test_tags_outlive_rotation_and_restart_and_differ_between_collections(
    collection: CollectionKeys, key_store: SqlcipherKeyStore, keyring: Keyring
) -> None:
    before = collection.tag(TagKind.RECORD_ID, "r-1")
    assert len(before) == 32
    collection.rotate(key_store)
    assert collection.tag(TagKind.RECORD_ID, "r-1") == before
    assert CollectionKeys.unlock(keyring, key_store, collection.uuid).tag(TagKind.RECORD_ID, "r-1") == before
    assert CollectionKeys.create(keyring, key_store, uuid4()).tag(TagKind.RECORD_ID, "r-1") != before


def test_values_under_the_index_key_outlive_rotation(
    collection: CollectionKeys, key_store: SqlcipherKeyStore, keyring: Keyring
) -> None:
    sealed = collection.seal_index(IndexValue.CODEBOOK, b"centroids")
    collection.rotate(key_store)
    again = CollectionKeys.unlock(keyring, key_store, collection.uuid)
    assert again.open_index(IndexValue.CODEBOOK, sealed) == b"centroids"


def test_creating_twice_and_unlocking_the_unknown(
    collection: CollectionKeys, key_store: SqlcipherKeyStore, keyring: Keyring
) -> None:
    with pytest.raises(Conflict):
        CollectionKeys.create(keyring, key_store, collection.uuid)
    with pytest.raises(NotFound):
        CollectionKeys.unlock(keyring, key_store, uuid4())


def test_after_close_nothing_opens(collection: CollectionKeys, key_store: SqlcipherKeyStore) -> None:
    sealed = ingest(collection, key_store, vectors(1))
    collection.close()
    collection.close()
    for use in (
        lambda: collection.open(Position(0), Field.TEXT, sealed[0][Field.TEXT], space),
        lambda: opened(collection, [0], of_vectors(sealed)),
        lambda: collection.seal_records(Position(1), [None], [{}], space),
        lambda: collection.tag(TagKind.RECORD_ID, "r-1"),
        lambda: collection.seal_index(IndexValue.CODEBOOK, b""),
        lambda: collection.rotate(key_store),
        lambda: collection.admit([]),
        lambda: collection.discard([]),
    ):
        with pytest.raises(Unavailable) as refused:
            use()
        assert refused.value.code == "keys_closed"


def test_rotation_keeps_every_record_and_skips_the_shredded(
    collection: CollectionKeys, key_store: SqlcipherKeyStore, keyring: Keyring, ticket: Ticket
) -> None:
    plain = vectors(30)
    values = of_vectors(ingest(collection, key_store, plain))
    key_store.shred(collection.uuid, [Position(4), Position(29)], ticket=ticket)
    collection.discard([Position(4), Position(29)])
    assert (collection.rotate(key_store), collection.rotate(key_store), collection.version) == (2, 3, 3)
    for keys in (collection, CollectionKeys.unlock(keyring, key_store, collection.uuid)):
        there, out = opened(keys, range(30), values)
        assert np.flatnonzero(~there).tolist() == [4, 29]
        assert np.array_equal(out[there], plain[there])


def test_keys_put_before_a_rotation_and_admitted_after_it(
    collection: CollectionKeys, key_store: SqlcipherKeyStore
) -> None:
    keys, rows = collection.seal_records(Position(0), [None], [{Field.TEXT: b"text"}], space)
    key_store.put(collection.uuid, keys)
    collection.rotate(key_store)
    collection.admit(keys)
    assert collection.open(Position(0), Field.TEXT, rows[0][Field.TEXT], space) == b"text"


def test_keys_sealed_before_a_rotation_and_put_after_it_are_refused(
    collection: CollectionKeys, key_store: SqlcipherKeyStore
) -> None:
    keys, _ = collection.seal_records(Position(0), [None], [{Field.TEXT: b"text"}], space)
    collection.rotate(key_store)
    for use in (lambda: key_store.put(collection.uuid, keys), lambda: collection.admit(keys)):
        with pytest.raises(Conflict) as refused:
            use()
        assert refused.value.code == "key_version_stale"


class StopsAfterCommit(SqlcipherKeyStore):
    """The real store, whose medium fails between the commit and the emptying of the write-ahead log."""

    def __init__(self, path: Path, key: bytes) -> None:
        super().__init__(path, key, rows_key=bytes(32))

        def fails() -> None:
            raise Unavailable("the medium is gone")

        self.database.empty_write_ahead_log = fails  # type: ignore[method-assign]  # the fault under test


def test_a_rotation_that_fails_after_its_commit_is_followed_in_memory(
    keyring: Keyring, tmp_path: Path, key_store: SqlcipherKeyStore
) -> None:
    store = StopsAfterCommit(tmp_path / "faulty.db", os.urandom(32))
    keys = CollectionKeys.create(keyring, store, uuid4())
    plain = vectors(5)
    values = of_vectors(ingest(keys, store, plain))
    with pytest.raises(Unavailable):
        keys.rotate(store)
    assert keys.version == 2
    assert np.array_equal(opened(keys, range(5), values)[1], plain)
    ingest(keys, store, vectors(1), first=5)
    assert keys.records == 6


def test_a_rotation_that_the_store_refuses_changes_nothing(
    collection: CollectionKeys, key_store: SqlcipherKeyStore, keyring: Keyring
) -> None:
    plain = vectors(5)
    values = of_vectors(ingest(collection, key_store, plain))
    CollectionKeys.unlock(keyring, key_store, collection.uuid).rotate(key_store)  # somebody else was first
    with pytest.raises((Conflict, SealedValueUnreadable)):
        collection.rotate(key_store)
    assert collection.version == 1
    assert np.array_equal(opened(collection, range(5), values)[1], plain)


def test_readers_see_whole_records_while_keys_come_go_and_rotate(
    collection: CollectionKeys, key_store: SqlcipherKeyStore, ticket: Ticket
) -> None:
    """Every read gives the right vector or says that the record is absent, whatever the writer does meanwhile."""
    kept, count, rounds = 200, 1_600, 6
    plain = vectors(count)
    values = of_vectors(ingest(collection, key_store, plain[:kept]))
    done = threading.Event()

    def read(seed: int) -> int:
        rng, reads = np.random.default_rng(seed), 0
        while not done.is_set() or reads == 0:
            seen = list(values)  # as many as are sealed by now
            at = rng.integers(0, len(seen), 40)
            there, out = opened(collection, at.tolist(), [seen[p] for p in at])
            assert np.array_equal(out[there], plain[at[there]])
            assert there[(at < kept) & (at % 2 == 0)].all()  # even ones of the first are never shredded
            reads += 1
        return reads

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read, seed) for seed in range(3)]
        try:
            for number in range(rounds):
                start = len(values)
                batch = plain[start : start + (count - kept) // rounds]
                sealed = ingest_sealed_first(collection, key_store, batch, start, values)
                collection.admit(sealed)
                gone = [Position(2 * number * 10 + 1), Position(start)]
                key_store.shred(collection.uuid, gone, ticket=ticket)
                collection.discard(gone)
                collection.rotate(key_store)
        finally:
            done.set()
        assert all(reader.result() > 0 for reader in readers)
    assert collection.records == len(values) - 2 * rounds
    assert collection.version == 1 + rounds


def ingest_sealed_first(
    keys: CollectionKeys,
    store: SqlcipherKeyStore,
    plain: npt.NDArray[np.float16],
    first: int,
    values: list[bytes],
) -> list[WrappedKey]:
    """Readers may see the sealed values before the keys are admitted."""
    wrapped, sealed = keys.seal_records(
        Position(first), [None] * len(plain), [{Field.VECTOR: row.tobytes()} for row in plain], space
    )
    store.put(keys.uuid, wrapped)
    values.extend(of_vectors(sealed))
    return wrapped


def test_a_key_that_is_none_opens_nothing_not_even_what_was_sealed_under_zeros(
    collection: CollectionKeys, key_store: SqlcipherKeyStore
) -> None:
    """Who may write to both databases and knows no key must not get a vector of their own in."""
    plain = vectors(3)
    values = of_vectors(ingest(collection, key_store, plain))
    collection.admit(
        [WrappedKey(position=Position(1), version=1, subject_tag=None, wrapped=bytes(40))]
    )  # does not unwrap
    nonce, place = bytes(12), Place(collection.uuid).record(1, Field.VECTOR, space)
    forged = values[1][:5] + nonce + AESGCM(bytes(32)).encrypt(nonce, plain[1].tobytes(), place)
    for value in (forged, values[1]):
        with pytest.raises(SealedValueUnreadable):
            opened(collection, range(3), [values[0], value, values[2]])
