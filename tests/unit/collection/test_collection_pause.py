"""Writers that can be held off, and what happens to those who are in the middle."""

from threading import Event, Thread

import pytest

from secure_embed.collection.pause import Pause


def started(target) -> Thread:
    thread = Thread(target=target, daemon=True)
    thread.start()
    return thread


def test_writers_run_side_by_side() -> None:
    pause, inside, go = Pause(), Event(), Event()

    def write() -> None:
        with pause.writing():
            inside.set()
            go.wait(10)

    first = started(write)
    assert inside.wait(10)
    with pause.writing():
        go.set()
    first.join(10)
    assert not first.is_alive()


def test_who_holds_writers_off_waits_for_those_that_began_and_keeps_out_the_rest() -> None:
    pause, order = Pause(), []
    writing, end_writing, held, let_go = Event(), Event(), Event(), Event()

    def early() -> None:
        with pause.writing():
            writing.set()
            end_writing.wait(10)
            order.append("early writer")

    def holder() -> None:
        with pause.held():
            order.append("holder")
            held.set()
            let_go.wait(10)
            order.append("holder ends")

    def late() -> None:
        held.wait(10)
        with pause.writing():
            order.append("late writer")

    threads = [started(early)]
    assert writing.wait(10)
    threads += [started(holder), started(late)]
    assert not held.wait(0.1)  # the early writer is not through
    end_writing.set()
    assert held.wait(10)
    let_go.set()
    for thread in threads:
        thread.join(10)
    assert order == ["early writer", "holder", "holder ends", "late writer"]


def test_a_writer_enters_again_within_itself_while_somebody_waits_to_hold_it_off() -> None:
    """Otherwise an append that builds codes would wait for a backup that waits for the append."""
    pause, inside, done = Pause(), Event(), Event()

    def holder() -> None:
        inside.wait(10)
        with pause.held():
            done.set()

    waiting = started(holder)
    with pause.writing():
        inside.set()
        assert not done.wait(0.1)
        with pause.writing():
            pass
    waiting.join(10)
    assert done.is_set()


def test_who_holds_writers_off_may_write() -> None:
    pause = Pause()
    with pause.held(), pause.writing():
        pass
    with pause.writing():
        pass


def test_an_error_lets_go() -> None:
    pause = Pause()
    for way in (pause.writing, pause.held):
        with pytest.raises(ValueError, match="x"), way():
            raise ValueError("x")
    with pause.held():
        pass
