"""apply, load and forget: in order, idempotent, all or nothing, and never seen half done."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from secure_embed.errors import Conflict, InvalidRequest, SecureEmbedError, Unavailable
from secure_embed.index import Added, Codebook, Effort, Erased
from secure_embed.types import Action, Has, RowFilter


def here(made, everything, query_at: int = 0) -> list[int]:
    candidates = made.shard.scan(
        made.vectors[query_at : query_at + 1], made.shard.select(everything, None), k=1, effort=Effort(candidates=1)
    )
    assert candidates.exhaustive
    return candidates.positions.tolist()


def test_changes_are_applied_in_order_and_known_ones_passed_over(world, everything) -> None:
    made = world(30, fill=False)
    changes = [made.added(1, 0, 10), Erased(sequence=2, position=4), made.added(3, 10, 30)]
    assert made.shard.apply(changes) == 3
    assert made.shard.apply(changes) == 3
    assert made.shard.apply([]) == 3
    assert here(made, everything) == [p for p in range(30) if p != 4]
    assert (made.shard.version, made.shard.size) == (3, 29)


def test_a_gap_is_refused_before_anything_is_applied(world, everything) -> None:
    made = world(30, fill=False)
    made.shard.apply([made.added(1, 0, 10)])
    with pytest.raises(Conflict) as refused:
        made.shard.apply([made.added(2, 10, 20), made.added(4, 20, 30)])
    assert refused.value.code == "change_gap"
    assert (made.shard.version, here(made, everything)) == (1, list(range(10)))


def test_an_erased_position_never_comes_back(world, everything) -> None:
    made = world(10, fill=False)
    made.shard.apply([made.added(1, 0, 10), Erased(sequence=2, position=3)])
    made.shard.apply([made.added(3, 0, 10)])
    assert here(made, everything) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert made.shard.version == 3


def test_a_batch_of_nothing_and_an_unknown_erasure_only_move_the_version(world) -> None:
    made = world(10, fill=False)
    assert made.shard.apply([made.added(1, 0, 0), Erased(sequence=2, position=77)]) == 2
    assert made.shard.size == 0


def test_loading_pages_fills_a_shard_at_the_version_it_was_given(world, everything) -> None:
    from secure_embed.index import RabitqShard

    made = world(30, fill=False)
    made.shard = RabitqShard(
        codebook=made.codebook, schema={}, tag_attribute=lambda *_: b"", open_vectors=made.open_vectors, version=9
    )
    for start in (0, 10, 20):
        made.shard.load(np.arange(start, start + 10), made.vectors[start : start + 10], [{}] * 10)
    assert (made.shard.version, here(made, everything)) == (9, list(range(30)))
    assert made.shard.apply([Erased(sequence=10, position=0)]) == 10


def with_value(at: tuple[int, int] | int, value: float):
    def spoil(change: Added) -> dict[str, object]:
        vectors = change.vectors.copy()
        vectors[at] = value
        return {"vectors": vectors}

    return spoil


def with_attribute(name: str, value: object):
    return lambda change: {"attributes": [*change.attributes[:3], {name: value}]}


MALFORMED = {
    "nan": (with_value((2, 3), np.nan), "vector_invalid"),
    "infinite": (with_value((2, 3), np.inf), "vector_invalid"),
    "zero": (with_value(1, 0), "vector_invalid"),
    "not of unit length": (lambda c: {"vectors": c.vectors * np.float32(1.5)}, "vector_invalid"),
    "dimension": (lambda _: {"vectors": np.ones((4, 15), np.float32)}, "vector_invalid"),
    "float64": (lambda c: {"vectors": c.vectors.astype(np.float64)}, "vector_invalid"),
    "fewer vectors": (lambda c: {"vectors": c.vectors[:3]}, "vector_invalid"),
    "fewer attributes": (lambda c: {"attributes": c.attributes[:3]}, "change_invalid"),
    "descending": (lambda c: {"positions": c.positions[::-1].copy()}, "change_invalid"),
    "twice": (lambda _: {"positions": np.array([20, 20, 21, 22])}, "change_invalid"),
    "negative": (lambda _: {"positions": np.array([-1, 20, 21, 22])}, "change_invalid"),
    "int32": (lambda c: {"positions": c.positions.astype(np.int32)}, "change_invalid"),
    "undeclared": (with_attribute("ghost", 1), "attributes_invalid"),
    "type": (with_attribute("n", "one"), "attributes_invalid"),
    "bool for long": (with_attribute("n", True), "attributes_invalid"),
    "beyond 64 bits": (with_attribute("n", 2**63), "attributes_invalid"),
}


@pytest.mark.parametrize(("spoil", "code"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_change_is_refused_whole(world, everything, spoil, code: str) -> None:
    made = world(24, schema={"n": "long"}, attributes=[{"n": 1}] * 24, fill=False)
    made.shard.apply([made.added(1, 0, 20)])
    good = made.added(2, 20, 24)
    with pytest.raises(InvalidRequest) as refused:
        made.shard.apply([replace(good, **spoil(good))])
    assert refused.value.code == code
    assert (made.shard.version, here(made, everything)) == (1, list(range(20)))
    assert made.shard.apply([good]) == 2
    assert here(made, everything) == list(range(24))


@pytest.mark.parametrize("lists", [1, 8])
def test_what_is_forgotten_is_not_found_and_the_rest_is(world, make_ticket, everything, lists: int) -> None:
    vectors = world(2_500, 32).vectors
    made = world(2_500, 32, codebook=Codebook.train(vectors, version=2, lists=lists))
    gone = list(range(0, 2_500, 3))
    forgotten = made.shard.forget(gone, version=1 + len(gone), ticket=make_ticket(Action.RECORD_ERASE))
    assert (forgotten.removed, forgotten.version, made.shard.size) == (len(gone), 1 + len(gone), 2_500 - len(gone))
    candidates = made.shard.scan(
        vectors[:1], made.shard.select(everything, None), k=10, effort=Effort(candidates=2_000)
    )
    assert sorted(candidates.positions.tolist()) == sorted(set(range(2_500)) - set(gone))
    for at in (1, 2, 1_000):
        assert made.best(vectors[at : at + 1])[0] == at


def test_forgetting_is_idempotent_and_needs_its_ticket(world, make_ticket, everything) -> None:
    made = world(10)
    with pytest.raises(SecureEmbedError) as refused:
        made.shard.forget([1], version=2, ticket=make_ticket(Action.QUERY))
    assert refused.value.code == "ticket_refused"
    assert made.shard.size == 10
    erase = make_ticket(Action.RECORD_ERASE)
    assert made.shard.forget([1, 2, 2, 99], version=3, ticket=erase).removed == 2
    again = made.shard.forget([1, 2], version=3, ticket=erase)
    assert (again.removed, again.version) == (0, 3)
    assert made.shard.apply([Erased(sequence=2, position=1), Erased(sequence=3, position=2)]) == 3


def test_forgetting_past_a_gap_overwrites_and_lets_apply_catch_up(world, make_ticket, everything) -> None:
    made = world(20, fill=False)
    made.shard.apply([made.added(1, 0, 10)])
    with pytest.raises(Conflict) as refused:
        made.shard.forget([3], version=3, ticket=make_ticket(Action.RECORD_ERASE))
    assert refused.value.code == "change_gap"
    assert (made.shard.version, made.shard.size) == (1, 9)
    assert made.shard.apply([made.added(2, 10, 20), Erased(sequence=3, position=3)]) == 3
    assert here(made, everything) == [p for p in range(20) if p != 3]


def test_a_selection_from_before_reaches_neither_the_forgotten_nor_the_newcomers(world, make_ticket) -> None:
    made = world(30, schema={"n": "long"}, attributes=[{"n": 1}] * 30, fill=False)
    made.shard.apply([made.added(1, 0, 20)])
    before = made.shard.select(RowFilter(permits=(Has("n"),)), None)
    made.shard.forget([5], version=2, ticket=make_ticket(Action.RECORD_ERASE))
    made.shard.apply([made.added(3, 20, 30)])
    candidates = made.shard.scan(made.vectors[:1], before, k=5, effort=Effort(candidates=5))
    assert candidates.positions.tolist() == [p for p in range(20) if p != 5]


def test_an_old_selection_of_everything_does_not_become_everything_new(world, everything) -> None:
    """Larger than what is answered whole: the selector may be left out only while nothing has changed."""
    made = world(2_400, 8, fill=False)
    made.shard.apply([made.added(1, 0, 1_200)])
    before = made.shard.select(everything, None)
    made.shard.apply([Erased(sequence=2 + at, position=at) for at in range(600)])
    made.shard.apply([made.added(602, 1_200, 1_800)])
    assert made.shard.size == before.count
    candidates = made.shard.scan(made.vectors[1_500:1_501], before, k=10, effort=Effort(candidates=100))
    assert len(candidates.positions) == 100
    assert set(candidates.positions.tolist()) <= set(range(600, 1_200))


def test_a_closed_shard_answers_nothing(world, everything) -> None:
    made = world(20)
    made.shard.close()
    made.shard.close()
    with pytest.raises(Unavailable):
        made.shard.select(everything, None)


def test_a_change_that_breaks_off_halfway_leaves_a_shard_that_answers_nothing(world, everything, monkeypatch) -> None:
    made = world(20, fill=False)
    made.shard.apply([made.added(1, 0, 10)])
    selection = made.shard.select(everything, None)

    def out_of_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(made.shard._codes, "add", out_of_memory)
    with pytest.raises(MemoryError):
        made.shard.apply([made.added(2, 10, 20)])
    for ask in (
        lambda: made.shard.select(everything, None),
        lambda: made.shard.scan(made.vectors[:1], selection, k=1, effort=Effort(candidates=1)),
        lambda: made.shard.apply([made.added(2, 10, 20)]),
    ):
        with pytest.raises(Unavailable) as refused:
            ask()
        assert refused.value.code == "index_unavailable"


def test_readers_beside_a_writer_see_whole_changes_only(world, everything) -> None:
    """Each version has a known number of records, in batches of ten; a reader that sees another number saw half."""
    made = world(1_600, 16, schema={"n": "long"}, attributes=[{"n": i // 10} for i in range(1_600)], fill=False)
    changes = [made.added(1 + i, 10 * i, 10 * i + 10) for i in range(160)]
    changes += [Erased(sequence=161 + i, position=i) for i in range(150)]
    records = [10 * v if v <= 160 else 1_600 - (v - 160) for v in range(311)]
    rows = RowFilter(permits=(Has("n"),))
    faults: list[str] = []
    done = threading.Event()
    looks = [0, 0, 0]

    def read(number: int) -> None:
        while not done.is_set():
            selection = made.shard.select(rows if number else everything, None)
            if selection.count != records[selection.version]:
                faults.append(f"{selection.count} records at version {selection.version}")
            found = made.shard.scan(made.vectors[:1], selection, k=10, effort=Effort(candidates=50))
            if len(found.positions) < min(10, selection.count - 150):
                faults.append("too few")
            looks[number] += 1
            done.wait(0.001)  # readers that never pause can keep the interpreter from the writer for seconds

    readers = [threading.Thread(target=read, args=(number,)) for number in range(3)]
    for reader in readers:
        reader.start()
    end = time.monotonic() + 60
    for number, change in enumerate(changes):
        made.shard.apply([change])
        time.sleep(0.001)
        while min(looks) <= number // 25 and time.monotonic() < end:  # on a busy machine the writer gets ahead
            time.sleep(0.001)
    done.set()
    for reader in readers:
        reader.join()
    assert faults == []
    assert min(looks) > 10
    assert made.shard.size == 1_450


def test_waiting_writers_go_before_new_readers() -> None:
    from secure_embed.index._lock import ReadersWriterLock

    lock, order, inside, leave = ReadersWriterLock(), [], threading.Event(), threading.Event()

    def first_reader() -> None:
        with lock.reading():
            inside.set()
            leave.wait(10)

    def writer() -> None:
        with lock.writing():
            order.append("writer")

    def late_reader() -> None:
        with lock.reading():
            order.append("reader")

    threads = [threading.Thread(target=first_reader), threading.Thread(target=writer)]
    threads[0].start()
    inside.wait(10)
    threads[1].start()
    while not lock._writers_waiting:
        time.sleep(0.001)
    threads.append(threading.Thread(target=late_reader))
    threads[2].start()
    leave.set()
    for thread in threads:
        thread.join(10)
    assert order == ["writer", "reader"]
