"""What was sent and answered, and what may therefore be seen. Pure: no file, no socket, no clock but its own count.

A thing is a record, a collection or a legal hold (``Key``). An :class:`Attempt` adds or erases things, all of
them or none; it is ``done`` once acknowledged, ``refused`` once refused, and ``lost`` when its answer never came. Ticks order
what the clients saw: an attempt is sent at one tick and answered at a later one, an observation spans two. From these follows
what an observation may say (after Herlihy and Wing 1990, linearizability):

- present only if it was sent before, and no erasure of it was acknowledged before;
- absent only if it was not acknowledged before, or an erasure of it was sent before.

After a restart nothing is on its way any more, so :meth:`History.settle` holds lost attempts to all or nothing and knows from
then on which it was.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from threading import RLock
from typing import Literal

__all__ = ["Attempt", "Defect", "History", "Key", "Thing", "is_record"]

Key = tuple[str, str]  # collection, id; ("", name) is a collection, ("hold", name) a legal hold
clock_s = 1.0  # by how much a record's end may be taken for earlier or later than it was said
State = Literal["open", "done", "refused", "lost"]


@dataclass(frozen=True, slots=True)
class Defect:
    """Something that must not be. Everything in it was made up by the campaign."""

    kind: str
    what: str


def is_record(key: Key) -> bool:
    return key[0] not in {"", "hold"}


@dataclass(frozen=True, slots=True)
class Thing:
    """A record as it was sent, or a collection."""

    key: Key
    text: str = ""
    subject: str | None = None


@dataclass(slots=True, eq=False)
class Attempt:
    effect: Literal["add", "erase"]
    keys: tuple[Key, ...]  # all of them or none
    sent: int
    answered: int | None = None
    state: State = "open"
    torn: int = 0  # of an erasure of a subject: keys without a row that it may count


@dataclass(slots=True)
class _Line:
    """One thing's life."""

    thing: Thing
    add: Attempt
    erasures: list[Attempt] = field(default_factory=list)
    brushed: list[Attempt] = field(default_factory=list)  # erasures of its subject that overlap its being added
    torn: int = 0  # times that it was sent and cut off: its key may be there, without a row
    ends: bool = False  # by itself, at a date

    def may_be_present(self, start: int, end: int) -> bool:
        if self.add.state == "refused" or self.add.sent > end:
            return False
        return not any(e.state == "done" and _before(e, start) for e in self.erasures)

    def may_be_absent(self, start: int, end: int) -> bool:
        if self.add.state != "done" or not _before(self.add, start):
            return True
        return any(e.state != "refused" and e.sent < end for e in (*self.erasures, *self.brushed))

    def others(self, than: Attempt) -> bool:
        """Whether another erasure may have taken it too."""
        return any(e is not than and e.state != "refused" for e in (*self.erasures, *self.brushed))


def _before(attempt: Attempt, tick: int) -> bool:
    return attempt.answered is not None and attempt.answered < tick


class History:
    """Of one deployment. Thread safe."""

    def __init__(self, now: Callable[[], float] = lambda: 0.0) -> None:
        """``now``: unix time, for records that have an end."""
        self._now = now
        self._ends: list[tuple[float, int, list[Key], Attempt | None]] = []
        self._lines: dict[Key, _Line] = {}
        self._by_subject: dict[str, list[Key]] = {}
        self._open_erasures: list[tuple[Attempt, str | None, Collection[str] | None]] = []
        self._lost: list[Attempt] = []
        self._ticks = count(1)
        self._lock = RLock()

    def tick(self) -> int:
        with self._lock:
            self._let_end()
            return next(self._ticks)

    def _let_end(self) -> None:
        """Records whose end may have come may be gone, and those whose end has come are."""
        while self._ends and self._ends[0][0] <= self._now():
            when, _, keys, ending = heappop(self._ends)
            if ending is not None:
                ending.state, ending.answered = "done", next(self._ticks)
                continue
            ending = Attempt("erase", tuple(keys), next(self._ticks))
            for key in keys:
                self._lines[key].erasures.append(ending)
                self._lines[key].torn += 1  # an erasure may still count it
            heappush(self._ends, (when + 2 * clock_s, next(self._ticks), keys, ending))

    # --- what is sent and answered ---------------------------------------------------------------------------------

    def add(self, things: Sequence[Thing]) -> Attempt:
        """About to be sent. A thing that was refused or lost before may be sent again."""
        with self._lock:
            attempt = Attempt("add", tuple(thing.key for thing in things), self.tick())
            for thing in things:
                line = self._lines.get(thing.key)
                if line is None:
                    line = self._lines[thing.key] = _Line(thing, attempt)
                    if thing.subject is not None:
                        self._by_subject.setdefault(thing.subject, []).append(thing.key)
                line.add = attempt
                line.brushed += [
                    erasure
                    for erasure, subject, within in self._open_erasures
                    if subject in {None, thing.subject} and (within is None or thing.key[0] in within)
                ]
            return attempt

    def erase(self, keys: Iterable[Key]) -> Attempt:
        with self._lock:
            attempt = Attempt("erase", tuple(keys), self.tick())
            for key in attempt.keys:
                self._lines[key].erasures.append(attempt)
            return attempt

    def erase_subject(self, subject: str, within: Collection[str] | None) -> Attempt:
        """``within``: collections; None: all. What is on its way in meanwhile may be taken, one by one."""
        with self._lock:
            theirs = [k for k in self._by_subject.get(subject, []) if within is None or k[0] in within]
            settled = [key for key in theirs if self._lines[key].add.state == "done"]
            attempt = self.erase(settled)
            for key in set(theirs) - set(settled):
                self._lines[key].brushed.append(attempt)
            attempt.torn = sum(self._lines[key].torn for key in theirs)
            self._open_erasures.append((attempt, subject, within))
            return attempt

    def erase_collection(self, collection: Key) -> Attempt:
        """With everything in it."""
        with self._lock:
            inside = [key for key in self._lines if key[0] == collection[1]]
            settled = [key for key in inside if self._lines[key].add.state == "done"]
            attempt = self.erase([collection, *settled])
            for key in set(inside) - set(settled):
                self._lines[key].brushed.append(attempt)
            self._open_erasures.append((attempt, None, [collection[1]]))
            return attempt

    def ends(self, keys: Sequence[Key], unix: float) -> None:
        """The service itself erases them then."""
        with self._lock:
            heappush(self._ends, (unix - clock_s, next(self._ticks), list(keys), None))
            for key in keys:
                self._lines[key].ends = True

    def acknowledged(self, attempt: Attempt) -> None:
        self._end(attempt, "done")

    def refused(self, attempt: Attempt) -> None:
        self._end(attempt, "refused")

    def unanswered(self, attempt: Attempt) -> None:
        self._end(attempt, "lost")

    def _end(self, attempt: Attempt, state: State) -> None:
        with self._lock:
            attempt.state, attempt.answered = state, self.tick()
            self._open_erasures = [erasing for erasing in self._open_erasures if erasing[0] is not attempt]
            if state == "lost":
                self._lost.append(attempt)

    # --- what is seen ----------------------------------------------------------------------------------------------

    def present(self, key: Key, text: str, start: int, end: int) -> list[Defect]:
        """``key`` was seen, with ``text``, between two ticks."""
        with self._lock:
            line = self._lines.get(key)
            if line is None:
                return [Defect("unknown", f"{key} was never sent")]
            if line.thing.text != text:
                return [Defect("changed", f"{key} has another text than was sent")]
            if not line.may_be_present(start, end):
                gone = "refused" if line.add.state == "refused" else "erased"
                return [Defect("returned", f"{key} was {gone} and is there")]
            return []

    def absent(self, key: Key, start: int, end: int) -> list[Defect]:
        with self._lock:
            if self._lines[key].may_be_absent(start, end):
                return []
            return [Defect("lost", f"{key} was acknowledged and is not there")]

    def erased_count(self, attempt: Attempt, records: int, end: int) -> list[Defect]:
        """What an acknowledged erasure says it took: records, and keys that a crash has left without a row."""
        with self._lock:
            lines = [self._lines[key] for key in attempt.keys]
            brushed = [line for line in self._lines.values() if attempt in line.brushed]
            sure = sum(
                not line.others(attempt) and not any(e.state == "open" and e is not attempt for e in line.erasures)
                for line in lines
                if line.may_be_present(attempt.sent, end)
            )
            most = sum(line.may_be_present(attempt.sent, end) for line in (*lines, *brushed)) + attempt.torn
            if sure <= records <= most:
                return []
            return [Defect("miscounted", f"an erasure took {records} records, {sure} to {most} were there")]

    def held(self, subject: str | None, start: int, end: int) -> tuple[bool, bool]:
        """Whether a hold on the subject (None: on anyone) may be in force between two ticks, and whether one has to be."""
        with self._lock:
            holds = [
                line
                for key, line in self._lines.items()
                if key[0] == "hold" and (subject is None or line.thing.subject == f"held {subject}")
            ]
            may = any(line.may_be_present(start, end) for line in holds)
            return may, any(not line.may_be_absent(start, end) for line in holds)

    # --- after a restart -------------------------------------------------------------------------------------------

    def unsettled(self) -> list[Key]:
        """Things whose fate a restart has left to be seen."""
        with self._lock:
            return sorted({key for attempt in self._lost for key in attempt.keys} | self._brushed())

    def _brushed(self) -> set[Key]:
        return {key for key, line in self._lines.items() if any(e.state in {"done", "lost"} for e in line.brushed)}

    def settle(self, seen: Mapping[Key, bool]) -> list[Defect]:
        """``seen``: whether each of :meth:`unsettled` is there; nothing is on its way."""
        with self._lock:
            found: list[Defect] = []
            happened: list[State] = []
            for attempt in self._lost:
                firm = [key for key in attempt.keys if self._firm(attempt, key)]
                there = [seen[key] for key in firm]
                done = not all(there) if attempt.effect == "erase" else any(seen[key] for key in attempt.keys)
                happened.append("done" if done else "refused")
                if done and (len(set(there)) > 1 or (attempt.effect == "add" and not all(there))):
                    what = f"{sum(there)} of {len(firm)} are there of an unanswered {attempt.effect} of {firm[:3]}"
                    found.append(Defect("half", what))
            for attempt, state in zip(self._lost, happened, strict=True):
                attempt.state = state
            self._lost = []
            for key, is_there in seen.items():
                self._know(self._lines[key], is_there)
            return found

    def _firm(self, attempt: Attempt, key: Key) -> bool:
        """Nothing else can have added or taken it."""
        line = self._lines[key]
        return not line.others(attempt) and (attempt.effect == "add" or line.add.state == "done")

    def _know(self, line: _Line, is_there: bool) -> None:
        now = self.tick()
        line.brushed = []
        if is_there:
            line.add.state, line.add.answered = "done", now
            line.erasures = [e for e in line.erasures if e.state in {"done", "open"}]
        elif line.add.state == "refused":
            line.torn += 1
        elif line.add.state == "done":
            line.erasures.append(Attempt("erase", (line.thing.key,), now, now, "done"))

    # --- what to send and look for next ----------------------------------------------------------------------------

    def thing(self, key: Key) -> Thing:
        return self._lines[key].thing

    def known(self) -> list[Key]:
        with self._lock:
            return list(self._lines)

    def is_there(self, key: Key) -> bool:
        """Acknowledged, and no erasure was ever sent."""
        with self._lock:
            line = self._lines[key]
            return line.add.state == "done" and not any(e.state != "refused" for e in (*line.erasures, *line.brushed))

    def lasts(self, key: Key) -> bool:
        """Has no date at which it ends by itself."""
        return not self._lines[key].ends

    def since(self, tick: int) -> list[Key]:
        """Things that an attempt since ``tick`` was about."""
        with self._lock:
            return [
                key
                for key, line in self._lines.items()
                if any(a.sent >= tick for a in (line.add, *line.erasures, *line.brushed))
            ]

    def was_erased(self, key: Key) -> bool:
        """Or may have been: an idempotency key ends with the first erased record of its batch."""
        with self._lock:
            line = self._lines[key]
            return any(e.state != "refused" for e in (*line.erasures, *line.brushed))
