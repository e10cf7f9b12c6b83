"""Codes on their way into memory: whoever asks meanwhile waits or is told when to come again, and no change is lost."""

import time
from collections.abc import Iterator
from threading import Event, Thread

import numpy as np
import pytest

from secure_embed.collection import building as building_module
from secure_embed.collection import codes as codes_module
from secure_embed.collection import rows as rows_module
from secure_embed.collection.building import Building
from secure_embed.collection.opening import Opening
from secure_embed.collection.saved_codes import CodesOrigin
from secure_embed.errors import IntegrityFailure, Unavailable
from secure_embed.index import Codebook, Effort
from secure_embed.types import Position
from tests.one_holding import EVERYTHING, OneHolding, settled, ticket, unit_vectors

RECORDS = 1_200  # more than are built at once by who needs them


@pytest.fixture
def one(tmp_path) -> Iterator[OneHolding]:
    made = OneHolding(tmp_path)
    yield made
    made.close()


@pytest.fixture
def cold(one) -> OneHolding:
    """A collection whose codes are neither in memory nor saved."""
    one.add(RECORDS)
    settled(one)
    one.kill()
    one.file.unlink(missing_ok=True)
    one.open()
    return one


class Gate:
    """Stands between a batch and the next one, or before the first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, batch: int = 100) -> None:
        self.reached, self.go_on, self.passed = Event(), Event(), 0
        self.stop_at = 0
        monkeypatch.setattr(rows_module, "load_rows", batch)
        monkeypatch.setattr(building_module, "load_rows", batch)
        monkeypatch.setattr(Opening, "say", self._say)

    def _say(self, doing: str) -> None:
        if doing != "coding":
            return
        if self.passed >= self.stop_at:
            self.reached.set()
            assert self.go_on.wait(60)
        self.passed += 1


@pytest.fixture
def gate(monkeypatch) -> Iterator[Gate]:
    made = Gate(monkeypatch)
    yield made
    made.go_on.set()


def test_a_query_waits_so_long_and_is_told_when_to_come_again(cold, gate):
    cold.holding._wait_s = 0.05
    with pytest.raises(Unavailable) as told:
        cold.holding.shard()
    assert (told.value.code, told.value.status) == ("index_building", 503)
    assert 1 <= told.value.members["retry_after_s"] <= 60
    assert cold.holding.codes_progress.total == RECORDS
    gate.go_on.set()
    cold.holding._wait_s = 60
    assert cold.found() == list(range(RECORDS))
    assert cold.holding.codes_progress is None


def test_it_is_begun_once_however_many_ask(cold, gate, monkeypatch):
    begun = []
    run = Building.run
    monkeypatch.setattr(Building, "run", lambda *given: (begun.append(1), run(*given))[1])
    found: list[int] = []
    threads = [Thread(target=lambda: found.append(cold.holding.shard().size)) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert gate.reached.wait(10)
    time.sleep(0.05)
    gate.go_on.set()
    for thread in threads:
        thread.join(30)
    assert found == [RECORDS] * 8
    assert begun == [1]


def test_the_time_told_follows_from_how_long_it_took_so_far(monkeypatch):
    opening = Opening("c")
    opening.total = 1_000
    assert opening.left_s() == 5  # nothing is known yet
    began = opening._began
    monkeypatch.setattr(time, "monotonic", lambda: began + 10)
    for done, seconds in ((500, 10), (900, 2), (1_000, 1), (1, 60)):
        opening.done = done
        assert opening.left_s() == seconds


def test_an_erasure_meanwhile_reaches_the_codes_on_their_way_before_it_returns(cold, gate):
    gate.stop_at = 5  # 500 are in
    cold.holding._wait_s = 0
    with pytest.raises(Unavailable):
        cold.holding.shard()
    assert gate.reached.wait(10)
    on_its_way = cold.holding._codes._opening.shard
    gone = [Position(3), Position(499), Position(500), Position(1_100)]
    cold.erase(gone)
    found = on_its_way.scan(
        unit_vectors(9, 1, cold.dimension),
        on_its_way.select(EVERYTHING, None),
        k=10_000,
        effort=Effort(candidates=10_000),
    )
    assert not set(gone) & set(found.positions.tolist())
    gate.go_on.set()
    cold.holding._wait_s = None
    assert cold.found() == [n for n in range(RECORDS) if n not in gone]
    assert cold.holding.shard().version == cold.holding.data_version


def test_writers_meanwhile_wait_for_a_batch_at_most_and_everything_of_theirs_is_in(cold, gate):
    gate.stop_at = 3
    cold.holding._wait_s = 0
    with pytest.raises(Unavailable):
        cold.holding.shard()
    assert gate.reached.wait(10)
    new = cold.add(50)  # returns although nothing goes on
    cold.erase([Position(0), new[0]])
    cold.holding.reseal(cold.holding.segments()[0])
    cold.holding.rotate()
    gate.go_on.set()
    cold.holding._wait_s = None
    assert cold.found() == sorted({*range(1, RECORDS), *new[1:]})
    assert cold.holding.shard().version == cold.holding.data_version
    scored = cold.holding.shard().score(np.arange(20, 30), unit_vectors(2, 1, cold.dimension), ticket=query_ticket())
    assert len(scored.positions) == 10


def query_ticket():
    from secure_embed.types import Action

    return ticket(Action.QUERY)


def test_an_ingest_does_not_wait_for_codes_that_are_not_there(cold, gate):
    began = time.monotonic()
    new = cold.add(20)
    assert time.monotonic() - began < 5
    assert cold.holding.busy  # it began, since a query will come
    gate.go_on.set()
    assert cold.found() == [*range(RECORDS), *new]


def test_a_change_that_cannot_be_followed_ends_it_and_the_next_use_begins_anew(cold, gate, monkeypatch):
    gate.stop_at = 2
    cold.holding._wait_s = 0
    with pytest.raises(Unavailable):
        cold.holding.shard()
    assert gate.reached.wait(10)
    on_its_way = cold.holding._codes._opening.shard

    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(on_its_way, "forget", no_memory)
    cold.erase([Position(7)])
    gate.go_on.set()
    settled(cold)
    cold.holding._wait_s = None
    assert cold.found() == [n for n in range(RECORDS) if n != 7]


def test_a_fault_is_told_to_everyone_who_waits_and_the_next_use_tries_again(cold, gate, monkeypatch):
    run = Building.run

    def fails(self: Building, opening: Opening, *rest: object) -> None:
        opening.say("coding")
        raise IntegrityFailure("a segment is short", code="segment_damaged")

    monkeypatch.setattr(Building, "run", fails)
    told: list[BaseException] = []

    def ask() -> None:
        try:
            cold.holding.shard()
        except IntegrityFailure as fault:
            told.append(fault)

    threads = [Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert gate.reached.wait(10)
    time.sleep(0.05)
    gate.go_on.set()
    for thread in threads:
        thread.join(10)
    assert [fault.code for fault in told] == ["segment_damaged"] * 3
    assert len({id(fault) for fault in told}) == 3  # each gets a receipt of its own
    monkeypatch.setattr(Building, "run", run)
    assert len(cold.found()) == RECORDS


def test_closing_ends_it_and_the_next_start_has_everything(cold, gate):
    cold.holding._wait_s = 0
    with pytest.raises(Unavailable):
        cold.holding.shard()
    assert gate.reached.wait(10)
    closing = Thread(target=cold.holding.close)
    closing.start()
    time.sleep(0.05)
    gate.go_on.set()
    closing.join(30)
    assert not cold.holding.busy
    assert cold.holding._codes._shard is None
    cold.reopened()
    assert len(cold.found()) == RECORDS


def test_what_was_added_after_the_saving_comes_in_batches_too(one, gate):
    gate.go_on.set()
    one.add(RECORDS)
    settled(one)
    one.holding.save_codes()
    before = one.add(700)
    one.reopened(killed=True)
    gate.go_on.clear()
    gate.reached.clear()
    gate.passed, gate.stop_at = 0, 3
    one.holding._wait_s = 0
    with pytest.raises(Unavailable):
        one.holding.shard()
    assert gate.reached.wait(10)
    assert one.holding.codes_progress.done == RECORDS + 300
    more = one.add(10)
    one.erase([before[0], before[-1], more[0]])
    gate.go_on.set()
    one.holding._wait_s = None
    assert one.found() == [*range(RECORDS), *before[1:-1], *more[1:]]
    assert one.holding.codes_origin is CodesOrigin.SAVED


def test_an_ingest_without_a_pause_cannot_outrun_it(cold, monkeypatch):
    """Between any two batches comes another one; first more than the codes take up in a turn, then a few each."""
    monkeypatch.setattr(rows_module, "load_rows", 100)
    monkeypatch.setattr(building_module, "load_rows", 100)
    turns = []

    def one_more(_: Opening, doing: str) -> None:
        if doing == "coding":
            turns.append(1)
            assert len(turns) < 100
            cold.add(150 if len(turns) < 10 else 3)

    monkeypatch.setattr(Opening, "say", one_more)
    assert cold.found() == list(range(cold.holding.next_position))
    assert len(turns) < 40


# --- a collection outgrows its codebook ------------------------------------------------------------------------------


def test_a_new_codebook_is_made_beside_the_old_codes_and_nobody_waits_for_it(one, gate, monkeypatch):
    """Readers and writers go on with the old one; it is stored and used once all codes are there."""
    training, go_on = Event(), Event()
    train = Codebook.train

    def slow(*given, **named):
        training.set()
        assert go_on.wait(60)
        return train(*given, **named)

    monkeypatch.setattr(Codebook, "train", slow)
    gate.go_on.set()
    one.add(600)
    one.add(600)  # more than 1,000: the first codebook stood for none
    assert training.wait(10)
    old = one.holding.shard()
    assert old.codebook.version == 1
    assert one.found() == list(range(1_200))
    new = one.add(30)
    one.erase([Position(5)])
    assert one.found() == [n for n in range(1_230) if n != 5]
    go_on.set()
    settled(one)
    assert one.holding.shard().codebook.version == 2
    assert one.found() == [n for n in range(1_230) if n != 5]
    assert one.holding.shard().version == one.holding.data_version
    assert new[-1] == 1_229
    one.reopened(killed=True)  # it was saved with the new codebook
    assert one.found() == [n for n in range(1_230) if n != 5]
    assert (one.holding.codes_origin, one.holding.shard().codebook.version) == (CodesOrigin.SAVED, 2)


def test_a_crash_before_the_new_codes_are_there_leaves_the_old_codebook(one, gate):
    gate.go_on.set()
    one.add(600)
    gate.go_on.clear()
    one.add(600)
    assert gate.reached.wait(10)
    opening = one.holding._codes._opening
    opening.stop()
    gate.go_on.set()
    settled(one)
    assert one.store.codebook(one.holding.uuid)[0] == 1
    assert one.found() == list(range(1_200))


def test_where_there_is_no_room_to_train_the_old_codebook_stays(one):
    class Tight:
        refused = 0

        def claim(self, purpose: str, size: int) -> None:
            if purpose == "codes" and size > 800_000:
                self.refused += 1
                raise Unavailable("full", code="memory_in_use")

        def settle(self, purpose: str) -> None:
            pass

    room = one.holding._codes._room = Tight()
    one.add(600)
    one.add(4_500)
    settled(one)
    assert room.refused
    assert one.holding.shard().codebook.version == 1
    assert one.found() == list(range(5_100))
    refused = room.refused
    one.add(10)  # not asked for again at once
    settled(one)
    assert room.refused == refused
    one.holding.keep_codes()  # but from time to time
    settled(one)
    assert room.refused > refused


def test_where_there_is_no_room_for_the_best_training_it_looks_at_fewer_vectors(one, monkeypatch):
    class Tight:
        def __init__(self) -> None:
            self.asked: list[int] = []

        def claim(self, purpose: str, size: int) -> None:
            if purpose in ("codes", "trial"):
                self.asked.append(size)
                if len(self.asked) < 3:
                    raise Unavailable("full", code="memory_in_use")

        def settle(self, purpose: str) -> None:
            pass

    looked_at, train = [], Codebook.train

    def watched(vectors, **named):
        looked_at.append(len(vectors))
        return train(vectors, **named)

    monkeypatch.setattr(Codebook, "train", watched)
    monkeypatch.setattr("secure_embed.collection.figures.sample_sizes", lambda *_: [800, 400, 200])
    one.add(600)
    settled(one)
    room = one.holding._codes._room = Tight()
    looked_at.clear()
    one.add(600)  # more than 1,000: it has outgrown its first codebook
    settled(one)
    assert looked_at == [200]
    assert len(room.asked) == 3
    assert room.asked == sorted(room.asked, reverse=True)
    assert one.holding.shard().codebook.version == 2
    room.asked.clear()
    looked_at.clear()
    one.holding._codes.trial(2).close()
    assert looked_at == [200]


def test_one_collection_is_coded_anew_at_a_time(one):
    one.add(600)
    assert one.holding._codes._trainings.acquire(blocking=False)
    one.add(600)
    assert not one.holding.busy
    one.holding._codes._trainings.release()
    one.holding.keep_codes()
    settled(one)
    assert one.holding.shard().codebook.version == 2


def test_saving_counts_the_codebook_too(one, monkeypatch):
    """The same rows under another codebook are other codes."""
    monkeypatch.setattr(codes_module, "save_records_min", 1_000_000)
    one.add(600)
    one.add(600)
    settled(one)
    assert one.holding.save_codes()
    assert not one.holding.save_codes()
    one.holding._codes._saved_codebook = 1
    assert one.holding.save_codes()


def test_a_system_that_gives_no_thread_is_told_and_holds_nothing_up(cold, monkeypatch):
    class Refused:
        def __init__(self, **_: object) -> None:
            pass

        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(codes_module, "Thread", Refused)
        with pytest.raises(Unavailable):
            cold.holding.shard()
        assert not cold.holding.busy
    assert len(cold.found()) == RECORDS
    with monkeypatch.context() as patch:
        patch.setattr(codes_module, "Thread", Refused)
        patch.setattr("secure_embed.collection.building.should_retrain", lambda *_, **__: True)
        cold.add(5)
    assert len(cold.found()) == RECORDS + 5
    assert cold.holding._codes._trainings.acquire(blocking=False)
    cold.holding._codes._trainings.release()
