"""Leases and the budget: what is in use is never closed, and what is open fits, whatever order things come in."""

import random
import time
from contextlib import ExitStack
from threading import Event, Lock, Thread
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from secure_embed.collection import shelf as shelf_module
from secure_embed.collection.room import Room
from secure_embed.collection.shelf import Shelf
from secure_embed.errors import Unavailable

MIB = 1 << 20
NAMES = [UUID(int=n) for n in range(1, 6)]


class Book:
    """Stands in for a collection: it takes what it claimed once it is loaded."""

    def __init__(self, uuid: UUID, room: Room, keys: int) -> None:
        self.uuid, self.room, self.busy, self.closed = uuid, room, False, False
        room.claim("keys", keys)
        self.memory_bytes = keys

    def load(self, size: int) -> None:
        self.room.claim("codes", size)
        self.memory_bytes = size
        self.room.settle("codes")

    def close(self) -> None:
        assert not self.closed
        self.closed, self.memory_bytes = True, 0


@pytest.fixture
def opened():
    return []


@pytest.fixture
def shelf(opened, monkeypatch):
    monkeypatch.setattr(shelf_module, "wait_s_max", 0.2)

    def open_(uuid: UUID, room: Room) -> Book:
        opened.append(Book(uuid, room, MIB))
        return opened[-1]

    return Shelf(10 * MIB, open_)


def test_the_one_used_longest_ago_goes_first(shelf, opened):
    for name in NAMES[:3]:
        with shelf.lease(name) as book:
            book.load(3 * MIB)
    with shelf.lease(NAMES[0]):
        pass  # so the second is the one
    with shelf.lease(NAMES[3]) as book:
        book.load(3 * MIB)
    assert [book.closed for book in opened] == [False, True, False, False]


def test_what_is_leased_stays_and_the_caller_is_told_to_come_again(shelf):
    with shelf.lease(NAMES[0]) as first, shelf.lease(NAMES[1]) as second:
        first.load(6 * MIB)
        with pytest.raises(Unavailable) as refused:
            second.load(6 * MIB)
        assert (refused.value.code, refused.value.status) == ("memory_in_use", 503)
        assert refused.value.members["retry_after_s"] == 1
        assert not first.closed
    with shelf.lease(NAMES[1]) as second:  # nobody uses the first any more
        second.load(6 * MIB)
    assert first.closed


def test_what_has_codes_on_their_way_stays(shelf):
    with shelf.lease(NAMES[0]) as first:
        first.load(6 * MIB)
        first.busy = True
    with shelf.lease(NAMES[1]) as second, pytest.raises(Unavailable, match="in use"):
        second.load(6 * MIB)
    assert not first.closed


def test_more_than_the_budget_is_refused_with_the_figure_and_nobody_goes_for_it(shelf):
    with shelf.lease(NAMES[0]) as first:
        first.load(6 * MIB)
    with shelf.lease(NAMES[1]) as second, pytest.raises(Unavailable) as refused:
        second.load(11 * MIB + 1)
    error = refused.value
    assert (error.code, error.status) == ("collection_over_budget", 507)
    assert error.members == {"needed_mib": 12, "budget_mib": 10}
    assert "12 MiB" in error.detail
    assert "index.memory_mib_max" in error.detail
    assert not first.closed


def test_who_waits_for_room_gets_it_when_a_lease_ends(shelf, monkeypatch):
    monkeypatch.setattr(shelf_module, "wait_s_max", 10.0)
    holding, let_go = Event(), Event()

    def user() -> None:
        with shelf.lease(NAMES[0]) as book:
            book.load(8 * MIB)
            holding.set()
            let_go.wait(10)

    thread = Thread(target=user)
    thread.start()
    assert holding.wait(10)
    Thread(target=lambda: (time.sleep(0.05), let_go.set())).start()
    with shelf.lease(NAMES[1]) as book:
        book.load(8 * MIB)
    thread.join(10)
    assert shelf.used == 8 * MIB


def test_keys_are_opened_over_the_budget_where_they_must_be(opened):
    def open_(uuid: UUID, room: Room) -> Book:
        opened.append(Book(uuid, room, 6 * MIB))
        return opened[-1]

    shelf = Shelf(10 * MIB, open_)
    with shelf.lease(NAMES[0]) as first, shelf.lease(NAMES[1]):
        assert shelf.used == 12 * MIB
    with shelf.lease(NAMES[2]):
        assert shelf.used <= 12 * MIB
    assert first.closed


def test_who_asks_for_one_that_is_being_closed_gets_it_opened_anew(shelf, opened):
    closing, go_on = Event(), Event()
    with shelf.lease(NAMES[0]) as first:
        first.load(6 * MIB)
    slow = first.close

    def close() -> None:
        closing.set()
        go_on.wait(10)
        slow()

    first.close = close

    def other() -> None:
        with shelf.lease(NAMES[1]) as book:
            book.load(6 * MIB)

    evicting = Thread(target=other)
    evicting.start()
    assert closing.wait(10)
    got = []
    asking = Thread(target=lambda: got.append(shelf._taken(NAMES[0])))
    asking.start()
    asking.join(0.1)
    assert not got
    go_on.set()
    asking.join(10)
    evicting.join(10)
    assert got[0].book is not first
    assert not got[0].book.closed


def test_one_that_does_not_open_is_tried_again_by_the_next_caller():
    tries = []

    def open_(uuid: UUID, room: Room) -> Book:
        tries.append(uuid)
        if len(tries) == 1:
            raise Unavailable("the key provider is away", code="key_provider_unavailable")
        return Book(uuid, room, MIB)

    shelf = Shelf(None, open_)
    with pytest.raises(Unavailable), shelf.lease(NAMES[0]):
        pass
    with shelf.lease(NAMES[0]) as book:
        assert not book.closed


def test_who_will_not_wait_is_told_and_it_goes_on_opening():
    opening, go_on, opened = Event(), Event(), []

    def open_(uuid: UUID, room: Room) -> Book:
        opened.append(uuid)
        opening.set()
        assert go_on.wait(10)
        return Book(uuid, room, MIB)

    shelf = Shelf(10 * MIB, open_)
    for _ in range(2):
        with pytest.raises(Unavailable) as told, shelf.lease(NAMES[0], wait_s=0.02):
            pass
        assert (told.value.code, told.value.members["retry_after_s"]) == ("index_building", 1)
    assert opening.wait(5)
    go_on.set()
    with shelf.lease(NAMES[0], wait_s=10) as book:
        assert not book.closed
    assert opened == [NAMES[0]]
    with shelf.lease(NAMES[0]) as same:
        assert same is book


def test_a_fault_of_opening_is_told_to_each_who_waits_and_tried_again_after():
    go_on, tries = Event(), []

    def open_(uuid: UUID, room: Room) -> Book:
        tries.append(uuid)
        if len(tries) == 1:
            assert go_on.wait(10)
            raise Unavailable("the key provider is away", code="key_provider_unavailable")
        return Book(uuid, room, MIB)

    shelf, told = Shelf(None, open_), []

    def ask() -> None:
        try:
            with shelf.lease(NAMES[0], wait_s=10):
                told.append(None)
        except Unavailable as fault:
            told.append(fault)

    threads = [Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert [fault.code for fault in told] == ["key_provider_unavailable"] * 3
    assert len({id(fault) for fault in told}) == 3
    with shelf.lease(NAMES[0], wait_s=10) as book:
        assert not book.closed


def test_one_that_is_taken_out_is_not_closed_by_others_and_its_lease_ends_quietly(shelf):
    with shelf.lease(NAMES[0]) as book:
        assert shelf.take_out(NAMES[0]) is book
        assert shelf.take_out(NAMES[0]) is None
    assert shelf.open_now() == []
    assert not book.closed


def test_a_look_at_what_is_open_is_no_use(shelf, opened):
    for name in NAMES[:2]:
        with shelf.lease(name) as book:
            book.load(4 * MIB)
    with shelf.lease_open(NAMES[0]) as looked, shelf.lease_open(NAMES[4]) as absent:
        assert looked is opened[0]
        assert absent is None
    with shelf.lease(NAMES[2]) as book:
        book.load(4 * MIB)
    assert [each.closed for each in opened] == [True, False, False]


def test_many_threads_never_meet_a_closed_one_and_never_two_of_one_name(shelf, opened):
    """The whole of it at once: five collections of which two fit, six callers."""
    faults, lock, open_now = [], Lock(), {}

    def caller(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(150):
            name = chance.choice(NAMES)
            try:
                with shelf.lease(name, wait_s=chance.choice([None, 10.0])) as book:
                    with lock:
                        if open_now.setdefault(name, book) is not book and not open_now[name].closed:
                            faults.append("two of one name")
                        open_now[name] = book
                    try:
                        book.load(5 * MIB)
                    except Unavailable as busy:
                        if busy.code != "memory_in_use":
                            faults.append(busy.code)
                    time.sleep(chance.random() / 2_000)
                    if book.closed:
                        faults.append("closed in use")
            except Exception as fault:  # noqa: BLE001
                faults.append(repr(fault))

    threads = [Thread(target=caller, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []
    assert shelf.used <= 10 * MIB
    assert len({id(book) for book in opened}) > len(NAMES)  # some were opened again


def loaded(book: Book, size: int) -> str | None:
    """None, or with which code it was refused."""
    try:
        book.load(size)
    except Unavailable as refused:
        return refused.code
    return None


class ShelfMachine(RuleBasedStateMachine):
    """Every order of leases, loads, closings and ends of a few collections, against what has to hold after each."""

    def __init__(self) -> None:
        super().__init__()
        shelf_module.wait_s_max = 0.0
        self.books: list[Book] = []
        self.shelf = Shelf(10 * MIB, self._open)
        self.leases: list[tuple[Book, ExitStack]] = []
        self.ended: set[int] = set()

    def _open(self, uuid: UUID, room: Room) -> Book:
        self.books.append(Book(uuid, room, MIB // 4))
        return self.books[-1]

    @rule(name=st.sampled_from(NAMES), wait_s=st.sampled_from([None, 10.0]))
    def take(self, name: UUID, wait_s: float | None) -> None:
        kept = ExitStack()
        book = kept.enter_context(self.shelf.lease(name, wait_s=wait_s))
        assert not book.closed
        self.leases.append((book, kept))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        _, kept = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        kept.close()

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), size=st.integers(1, 12))
    def load(self, data: st.DataObject, size: int) -> None:
        book, _ = data.draw(st.sampled_from(self.leases))
        assert loaded(book, size * MIB) in ({"collection_over_budget"} if size > 10 else {None, "memory_in_use"})

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), busy=st.booleans())
    def work(self, data: st.DataObject, busy: bool) -> None:
        data.draw(st.sampled_from(self.leases))[0].busy = busy

    @rule(name=st.sampled_from(NAMES))
    def end(self, name: UUID) -> None:
        book = self.shelf.take_out(name)
        if book is not None:
            self.ended.add(id(book))
            book.close()

    @invariant()
    def what_is_in_use_is_open(self) -> None:
        assert not any(book.closed for book, _ in self.leases if id(book) not in self.ended)

    @invariant()
    def what_is_open_fits(self) -> None:
        open_now = self.shelf.open_now()
        assert not any(book.closed for book in open_now)
        assert len({book.uuid for book in open_now}) == len(open_now)
        keys_only = MIB // 4 * len(NAMES)  # those are opened in any case
        assert self.shelf.used <= 10 * MIB + keys_only

    def teardown(self) -> None:
        for _, kept in self.leases:
            kept.close()
        self.shelf.close()
        assert all(book.closed for book in self.books)
        shelf_module.wait_s_max = 2.0


ShelfMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestShelf = ShelfMachine.TestCase
