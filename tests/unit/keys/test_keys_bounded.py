"""Calls that may hang: nobody waits longer than said, and what was given up before it began never runs."""

from threading import Event

import pytest

from secure_embed.keys.bounded import Bounded, TookTooLong


def test_results_and_faults_come_back_in_order() -> None:
    bounded = Bounded("test")
    assert [bounded.call(lambda n=n: n * n, seconds=5) for n in range(5)] == [0, 1, 4, 9, 16]  # type: ignore[misc]
    with pytest.raises(ZeroDivisionError):
        bounded.call(lambda: 1 // 0, seconds=5)
    with pytest.raises(TimeoutError):
        bounded.call(lambda: (_ for _ in ()).throw(TimeoutError("its own")), seconds=5)


def test_a_call_that_hangs_is_given_up_and_those_behind_it_never_begin() -> None:
    bounded, release, ran = Bounded("test"), Event(), list[str]()
    with pytest.raises(TookTooLong):
        bounded.call(release.wait, seconds=0.05)
    with pytest.raises(TookTooLong):
        bounded.call(lambda: ran.append("given up"), seconds=0.05)
    release.set()
    bounded.call(lambda: ran.append("later"), seconds=5)
    assert ran == ["later"]
