"""Codes on their way into memory are those of the rows at their end, whatever happens between two batches."""

import time
from threading import Event, Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_embed.collection import building as building_module
from secure_embed.collection import codes as codes_module
from secure_embed.collection import rows as rows_module
from secure_embed.collection.opening import Opening
from secure_embed.errors import Unavailable
from secure_embed.types import Position
from tests.one_holding import OneHolding, settled

step = st.sampled_from(["batch", "add", "erase", "reseal", "rotate", "read"])


class Step:
    """Lets one batch through at a time, or all."""

    def __init__(self) -> None:
        self.open, self._one = Event(), Event()

    def once(self) -> None:
        self._one.set()
        time.sleep(0.002)

    def say(self, doing: str) -> None:
        while doing == "coding" and not self.open.is_set():
            if self._one.wait(0.002):
                self._one.clear()
                return


class Life:
    """A collection and which records have to be found in it."""

    def __init__(self, folder, gate: Step, draw) -> None:
        self.one, self.gate, self.draw = OneHolding(folder, dimension=8), gate, draw
        self.there: set[int] = set()

    def begin(self, records: int, *, again: bool) -> None:
        """Codes on their way: the first ones, or others beside them."""
        one = self.one
        self.there = set(one.add(records)) if records else set()
        self.gate.open.set()
        if again:
            one.holding.warm()
            settled(one)
        else:
            settled(one)
            one.reopened(killed=True)
            one.file.unlink(missing_ok=True)
        self.gate.open.clear()
        one.holding._wait_s = 0
        if again:
            one.holding._codes._opening = opening = Opening("one", again=True)
            one.holding._codes._trainings.acquire()
            Thread(target=one.holding._codes._run, args=(opening,), daemon=True).start()

    def step(self, name: str) -> None:
        getattr(self, name)()

    def batch(self) -> None:
        self.gate.once()

    def add(self) -> None:
        self.there |= set(self.one.add(self.draw(st.integers(1, 9))))

    def erase(self) -> None:
        at = self.draw(st.lists(st.integers(0, self.one.holding.next_position), max_size=5))
        self.one.erase([Position(p) for p in at])
        self.there -= set(at)

    def reseal(self) -> None:
        for bounds in self.one.holding.segments()[:1]:
            self.one.holding.reseal(bounds)

    def rotate(self) -> None:
        self.one.holding.rotate()

    def read(self) -> None:
        """All of them, or none: never a part."""
        try:
            found = self.one.found()
        except Unavailable as building:
            if building.code != "index_building":
                raise
        else:
            assert found == sorted(self.there)

    def end(self) -> None:
        self.gate.open.set()
        self.one.holding._wait_s = None
        assert self.one.found() == sorted(self.there)
        settled(self.one)
        assert self.one.found() == sorted(self.there)
        assert self.one.holding.shard().version == self.one.holding.data_version


@given(steps=st.lists(step, min_size=5, max_size=25), records=st.integers(0, 60), again=st.booleans(), data=st.data())
@settings(max_examples=25, deadline=None)
def test_whatever_happens_between_two_batches_the_codes_are_those_of_the_rows(
    tmp_path_factory, steps, records, again, data
):
    """Batches of seven, changes in between, for codes that are built and for codes that are built beside others."""
    gate = Step()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codes_module, "save_records_min", -1)  # in a thread, however few
        patch.setattr(codes_module, "writer_wait_s", 0)
        patch.setattr(rows_module, "load_rows", 7)
        patch.setattr(building_module, "load_rows", 7)
        patch.setattr(Opening, "say", gate.say)
        life = Life(tmp_path_factory.mktemp("steps"), gate, data.draw)
        try:
            life.begin(records, again=again)
            for name in steps:
                life.step(name)
            life.end()
        finally:
            gate.open.set()
            life.one.close()
