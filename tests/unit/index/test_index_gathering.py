"""Callers who come at the same time: each gets the answer that it would have got alone, and nobody else's fault."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from secure_embed.deadline import Deadline
from secure_embed.errors import SealedValueUnreadable, SecureEmbedError, Unavailable
from secure_embed.index import Codebook, Effort
from secure_embed.index._gathering import Gathering
from secure_embed.types import Compare, RowFilter

TOGETHER, LANES = 4, 2


class Work:
    """Squares numbers, a batch at a time. Holds the first batch until it is told to go on."""

    def __init__(self, bad: Sequence[int] = (), late: Sequence[int] = ()) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()
        self.at_work, self.most = 0, 0
        self.began, self.go = threading.Event(), threading.Event()
        self._bad, self._late, self._lock = bad, late, threading.Lock()

    def __call__(self, asked: Sequence[int]) -> Sequence[int | None]:
        with self._lock:
            self.batches.append(list(asked))
            self.threads.add(threading.get_ident())
            self.at_work += 1
            self.most = max(self.most, self.at_work)
        self.began.set()
        self.go.wait(30)
        with self._lock:
            self.at_work -= 1
        if set(asked) & set(self._bad):
            raise ValueError(asked)
        if len(asked) > 1:
            return [None if one in self._late else one * one for one in asked]
        return [one * one for one in asked]


def held_up(work: Work, numbers: Sequence[int], *, lanes: int) -> list[int | Exception]:
    """The answers when all ask while the first, one for each lane, are being answered."""
    gathering: Gathering[int, int] = Gathering(lanes=lanes, together_max=TOGETHER)

    def ask(number: int) -> int | Exception:
        try:
            return gathering(number, work)
        except ValueError as fault:
            return fault

    with ThreadPoolExecutor(len(numbers)) as callers:
        first = [callers.submit(ask, number) for number in numbers[:lanes]]
        until(lambda: work.at_work == lanes)
        rest = []
        for count, number in enumerate(numbers[lanes:], 1):
            rest.append(callers.submit(ask, number))
            until(lambda count=count: len(gathering._waiting) == count)
        work.go.set()
        return [one.result(30) for one in first + rest]


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_who_waits_is_answered_together_and_who_is_alone_at_once() -> None:
    work = Work()
    assert held_up(work, range(8), lanes=1) == [n * n for n in range(8)]
    assert work.batches[0] == [0]
    assert work.batches[1] == [1, 2, 3, 4]
    assert sorted(n for some in work.batches for n in some) == list(range(8))
    assert work.most == 1
    gathering: Gathering[int, int] = Gathering(lanes=1, together_max=TOGETHER)
    work.batches.clear()
    assert [gathering(n, work) for n in range(3)] == [0, 1, 4]
    assert work.batches == [[0], [1], [2]]


def test_no_more_work_at_a_time_than_there_are_lanes() -> None:
    work = Work()
    assert held_up(work, range(12), lanes=LANES) == [n * n for n in range(12)]
    assert work.most == LANES


def test_a_fault_is_that_of_who_asked_and_of_nobody_else() -> None:
    answers = held_up(Work(bad=[3]), range(8), lanes=1)
    assert [n for n, answer in enumerate(answers) if isinstance(answer, ValueError)] == [3]
    assert answers[3].args == ([3],)
    assert [answers[n] for n in range(8) if n != 3] == [n * n for n in range(8) if n != 3]


def test_who_could_not_be_answered_in_company_is_answered_alone() -> None:
    work = Work(late=[2, 4])
    assert held_up(work, range(6), lanes=1) == [n * n for n in range(6)]
    assert [2] in work.batches
    assert [4] in work.batches


def test_who_leads_waits_a_moment_where_there_is_a_crowd_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    gathering: Gathering[int, int] = Gathering(lanes=2, together_max=TOGETHER)
    batches: list[list[int]] = []
    gates = [threading.Event() for _ in range(4)]
    waits: list[float] = []

    def work(asked: Sequence[int]) -> Sequence[int]:
        batches.append(list(asked))
        gates[len(batches) - 1].wait(30)
        return [one * one for one in asked]

    with ThreadPoolExecutor(6) as callers:

        def wait(seconds: float) -> None:
            waits.append(seconds)
            asked.append(callers.submit(gathering, 5, work))
            until(lambda: len(gathering._waiting) == 1)

        monkeypatch.setattr("secure_embed.index._gathering.sleep", wait)
        asked = []
        for number in range(4):
            asked.append(callers.submit(gathering, number, work))
            until(lambda number=number: len(batches) + len(gathering._waiting) == number + 1)
        gates[0].set()
        until(lambda: len(batches) == 3)
        gates[1].set()
        until(lambda: gathering._free == 1)
        assert waits == []  # each was one of two
        asked.append(callers.submit(gathering, 4, work))
        until(lambda: len(batches) == 4)
        gates[2].set()
        gates[3].set()
        assert [one.result(30) for one in asked] == [0, 1, 4, 9, 16, 25]
    assert batches == [[0], [1], [2, 3], [4, 5]]
    assert len(waits) == 1
    assert 0 < waits[0] < 0.005
    monkeypatch.setattr("secure_embed.index._gathering.sleep", lambda seconds: pytest.fail("it is alone"))
    gates.append(gates[0])
    assert gathering(7, work) == 49


def test_a_lane_is_free_again_after_a_fault() -> None:
    work = Work(bad=[1])
    work.go.set()
    gathering: Gathering[int, int] = Gathering(lanes=1, together_max=TOGETHER)
    for _ in range(3):
        with pytest.raises(ValueError, match="1"):
            gathering(1, work)
    assert gathering(2, work) == 4


# --- a shard's queries -------------------------------------------------------------------------------------------------


@pytest.fixture
def crowded(world):
    """6,000 records in 24 lists, with an attribute to filter by."""
    vectors = world(6_000, 48, fill=False).vectors
    codebook = Codebook.train(vectors, version=2, lists=24, random_bytes=np.random.default_rng(1).bytes)
    made = world(6_000, 48, codebook=codebook, schema={"n": "long"}, attributes=[{"n": n} for n in range(6_000)])
    assert made.codebook.lists > 1
    return made


ROWS = [RowFilter(permits=(Compare("n", "<", end),)) for end in (6_000, 5_000, 3_000, 800)]
EFFORTS = [Effort(candidates=100, lists=4), Effort(candidates=60, lists=2, margin=2.0)]


def test_callers_side_by_side_get_what_each_gets_alone(crowded, make_ticket) -> None:
    shard = crowded.shard
    asked = [
        (crowded.vectors[at : at + 1], ROWS[at % 4], EFFORTS[at % 2], (1, 5, 10)[at % 3]) for at in range(0, 6_000, 50)
    ]

    def answer(one):
        query, rows, effort, k = one
        found = shard.search(query, shard.select(rows, None), k=k, effort=effort, ticket=make_ticket())
        return found.positions.tolist(), found.scores.tolist()

    def in_steps(one):
        query, rows, effort, k = one
        found = shard.scan(query, shard.select(rows, None), k=k, effort=effort)
        best = shard.nearest(found, query, k=k, effort=effort, ticket=make_ticket())
        return best.positions.tolist(), best.scores.tolist()

    alone = [in_steps(one) for one in asked]
    sizes: list[int] = []
    work = shard._search_all
    shard._search_all = lambda some: (sizes.append(len(some)), work(some))[1]
    with ThreadPoolExecutor(12) as callers:
        assert list(callers.map(answer, asked * 3)) == alone * 3
    assert max(sizes) > 1, "nobody met"


def batch(shard, asked):
    """All of them in one go."""
    from secure_embed.index._asking import Asked

    return shard._search_all(
        [
            (Asked(query=query, selection=shard.select(ROWS[0], None), k=10, effort=EFFORTS[0], deadline=deadline), t)
            for query, deadline, t in asked
        ]
    )


def test_one_whose_time_is_up_keeps_nobody_from_an_answer(crowded, make_ticket) -> None:
    over, in_time = Deadline(60), Deadline(60)
    over.abandon()
    first, second, third = batch(
        crowded.shard,
        [(crowded.vectors[n : n + 1], deadline, make_ticket()) for n, deadline in enumerate((in_time, over, in_time))],
    )
    assert second is None
    assert (first.positions[0], third.positions[0]) == (0, 2)
    with pytest.raises(Unavailable) as refused:
        batch(crowded.shard, [(crowded.vectors[:1], over, make_ticket())])
    assert refused.value.code == "caller_gone"


def test_one_whose_time_ends_in_the_codes_keeps_nobody_from_an_answer(crowded, make_ticket, monkeypatch) -> None:
    search, leaves = crowded.shard._search, Deadline(60)

    def looking(sought):
        leaves.abandon()
        return [None if one.deadline is leaves else found for one, found in zip(sought, search(sought), strict=True)]

    monkeypatch.setattr(crowded.shard, "_search", looking)
    asked = [(crowded.vectors[n : n + 1], deadline, make_ticket()) for n, deadline in enumerate((Deadline(60), leaves))]
    answers = batch(crowded.shard, asked)
    assert answers[0].positions[0] == 0
    assert answers[1] is None
    leaves.gone[0] = 0
    with pytest.raises(Unavailable) as refused:
        batch(crowded.shard, asked[1:])
    assert refused.value.code == "caller_gone"


def test_one_who_leaves_between_two_rounds_keeps_nobody_from_an_answer(crowded, make_ticket, monkeypatch) -> None:
    leaves = Deadline(60)
    inner = crowded.shard._rescorer._open_vectors

    def opening(at, out):
        leaves.abandon()
        return inner(at, out)

    monkeypatch.setattr(crowded.shard._rescorer, "_open_vectors", opening)
    monkeypatch.setattr("secure_embed.index._rescore.block_vectors", 32)
    answers = batch(
        crowded.shard,
        [(crowded.vectors[n : n + 1], deadline, make_ticket()) for n, deadline in enumerate((Deadline(60), leaves))],
    )
    assert answers[0].positions[0] == 0
    assert answers[1] is None


def test_a_ticket_that_is_refused_and_a_vector_that_does_not_open_are_their_callers_alone(
    crowded, make_ticket, monkeypatch
) -> None:
    shard, damaged = crowded.shard, 77
    inner = shard._rescorer._open_vectors

    def opening(at, out):
        if damaged in at:
            raise SealedValueUnreadable("vector")
        return inner(at, out)

    monkeypatch.setattr(shard._rescorer, "_open_vectors", opening)
    selection = shard.select(ROWS[0], None)

    def ask(at: int):
        ticket = make_ticket(openings=3 if at == 4_000 else 10_000)
        try:
            return shard.search(crowded.vectors[at : at + 1], selection, k=5, effort=EFFORTS[0], ticket=ticket)
        except SecureEmbedError as fault:
            return fault.code

    at = [damaged, 1_000, 4_000, 2_000, 3_000, damaged, 4_000, 5_000] * 10
    with ThreadPoolExecutor(8) as callers:
        for position, answer in zip(at, callers.map(ask, at), strict=True):
            if position == damaged:
                assert answer == SealedValueUnreadable("vector").code
            elif position == 4_000:
                assert answer == "ticket_refused"
            else:
                assert not isinstance(answer, str), answer
                assert answer.positions[0] == position
