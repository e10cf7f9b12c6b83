"""Writers of a collection go in the order in which they came, whoever takes the lock again and again."""

import time
from threading import Event, Thread

import pytest

from secure_embed.collection.turns import Turns


def test_who_waits_goes_before_who_lets_go_and_asks_again():
    turns, inside, order = Turns(), Event(), []

    def batches() -> None:
        for number in range(3):
            with turns:
                order.append(f"batch {number}")
                inside.set()
                time.sleep(0.05)

    def erasure(name: str) -> None:
        with turns:
            order.append(name)

    worker = Thread(target=batches)
    worker.start()
    assert inside.wait(5)
    waiting = []
    for name in ("first", "second"):
        waiting.append(Thread(target=erasure, args=(name,)))
        waiting[-1].start()
        while len(turns._waiting) < len(waiting):
            time.sleep(0.001)
    for thread in (worker, *waiting):
        thread.join(10)
    assert order == ["batch 0", "first", "second", "batch 1", "batch 2"]


def test_a_thread_may_enter_again_and_nobody_else_until_it_has_left_altogether():
    turns, entered = Turns(), Event()

    def other() -> None:
        with turns:
            entered.set()

    with turns:
        with turns:
            thread = Thread(target=other)
            thread.start()
        assert not entered.wait(0.05)
    assert entered.wait(5)
    thread.join(5)


def test_an_error_leaves_it_free():
    turns = Turns()
    with pytest.raises(ValueError, match="out"), turns:
        raise ValueError("out")
    thread_entered = Event()

    def other() -> None:
        with turns:
            thread_entered.set()

    Thread(target=other).start()
    assert thread_entered.wait(5)


def test_no_two_are_inside_at_one_time():
    turns, inside, most = Turns(), [0], [0]

    def work() -> None:
        for _ in range(200):
            with turns:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                with turns:
                    pass
                inside[0] -= 1

    threads = [Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1]
