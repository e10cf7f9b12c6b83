"""Conformance: what every driver of ``LogStorage`` must do."""

from collections.abc import Callable

import pytest

from secure_embed.audit import Head, LogStorage, leaf_hash
from secure_embed.errors import Conflict, IntegrityFailure, NotFound, SecureEmbedError, Unavailable
from tests.audit_logs import head_after

Opener = Callable[[], LogStorage]


def append(storage: LogStorage, entries: list[bytes]) -> Head:
    old = storage.head()
    new = head_after(old, storage.leaf_hashes(0, old.size), entries)
    storage.commit(old, entries, new)
    storage.settle()
    return new


def entries_of(count: int, first: int = 0) -> list[bytes]:
    return [f'{{"n":{i}}}'.encode() for i in range(first, first + count)]


def test_a_new_log_is_empty(open_storage: Opener) -> None:
    storage = open_storage()
    assert (storage.head().size, storage.head().checkpoint, storage.torn_bytes) == (0, "", 0)
    assert storage.entries(0, 0) == []
    storage.close()


@pytest.mark.parametrize("sizes", [[1], [1, 1, 3], [256], [255, 1, 1], [300, 300], [700]])
def test_what_was_committed_is_there_and_after_a_restart_too(open_storage: Opener, sizes: list[int]) -> None:
    storage = open_storage()
    written: list[bytes] = []
    for size in sizes:
        more = entries_of(size, len(written))
        head = append(storage, more)
        written += more
        assert storage.head() == head
        assert storage.entries(0, len(written)) == written
    storage.close()
    again = open_storage()
    assert again.head() == head
    assert again.entries(0, len(written)) == written
    assert again.leaf_hashes(0, len(written)) == [leaf_hash(entry) for entry in written]
    again.close()


def test_publishing_changes_nothing_that_a_reader_sees(open_storage: Opener) -> None:
    storage = open_storage()
    append(storage, entries_of(300))
    before = (storage.head(), storage.entries(0, 300), storage.leaf_hashes(0, 300))
    storage.publish()
    storage.publish()
    assert (storage.head(), storage.entries(0, 300), storage.leaf_hashes(0, 300)) == before
    append(storage, entries_of(10, 300))
    assert storage.entries(290, 20) == entries_of(20, 290)
    storage.close()


@pytest.mark.parametrize(("start", "count"), [(0, 11), (10, 1), (-1, 1), (5, -1), (11, 0)])
def test_what_is_not_there_is_not_found(open_storage: Opener, start: int, count: int) -> None:
    storage = open_storage()
    append(storage, entries_of(10))
    for read in (storage.entries, storage.leaf_hashes):
        with pytest.raises(NotFound):
            read(start, count)
    storage.close()


def test_any_slice_is_the_same_slice(open_storage: Opener) -> None:
    storage = open_storage()
    append(storage, entries_of(600))
    for start, count in ((0, 1), (255, 2), (256, 256), (100, 500), (599, 1), (512, 88), (600, 0)):
        assert storage.entries(start, count) == entries_of(count, start)
    storage.close()


def test_a_commit_on_another_head_is_refused(open_storage: Opener) -> None:
    storage = open_storage()
    old = storage.head()
    append(storage, entries_of(2))
    before = storage.head()
    with pytest.raises(Conflict) as refused:
        storage.commit(old, entries_of(1), head_after(old, [], entries_of(1)))
    assert refused.value.code == "log_head_changed"
    assert storage.head() == before
    storage.close()


def test_a_head_that_the_entries_do_not_give_is_refused(open_storage: Opener) -> None:
    storage = open_storage()
    old = storage.head()
    wrong = head_after(old, [], entries_of(2))
    with pytest.raises(IntegrityFailure):
        storage.commit(old, entries_of(2, 7), wrong)
    assert storage.head() == old
    storage.close()


def test_a_second_writer_is_refused_until_the_first_is_gone(open_storage: Opener) -> None:
    first = open_storage()
    with pytest.raises(SecureEmbedError) as refused:
        open_storage()
    assert refused.value.code == "log_in_use"
    first.close()
    open_storage().close()


def test_a_closed_log_takes_no_commit(open_storage: Opener) -> None:
    storage = open_storage()
    old = storage.head()
    storage.close()
    storage.close()
    with pytest.raises(Unavailable):
        storage.commit(old, entries_of(1), head_after(old, [], entries_of(1)))
