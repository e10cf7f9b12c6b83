"""Jobs in the background: each at its turn, none of them able to end the others."""

import logging
from threading import Event

from secure_embed.errors import Unavailable
from secure_embed.upkeep import Job, Upkeep


def test_each_job_runs_again_and_again_whatever_another_does(caplog) -> None:
    """A job that fails is named by its code, or by its class: never by a text that may hold content."""
    reached, count = Event(), [0]

    def counts() -> None:
        count[0] += 1
        if count[0] == 3:
            reached.set()

    def fails() -> None:
        raise Unavailable("away", code="storage_unavailable")

    def breaks() -> None:
        raise ValueError("the patient's name")

    upkeep = Upkeep([Job(name=f.__name__, every_s=0.01, run=f) for f in (fails, breaks, counts)])
    with caplog.at_level(logging.WARNING):
        upkeep.start()
        assert reached.wait(10)
        upkeep.close()
    said = [record.getMessage() for record in caplog.records]
    assert "upkeep fails: storage_unavailable" in said
    assert "upkeep breaks: ValueError" in said
    assert not any("patient" in line for line in said)


def test_closing_waits_for_the_job_that_runs_and_starts_no_other() -> None:
    running, end = Event(), Event()
    ran = []

    def slow() -> None:
        running.set()
        end.wait(10)
        ran.append("slow")

    upkeep = Upkeep([Job(name="slow", every_s=0.01, run=slow)])
    upkeep.start()
    assert running.wait(10)
    end.set()
    upkeep.close()
    before = list(ran)
    assert before
    upkeep.close()
    assert ran == before
