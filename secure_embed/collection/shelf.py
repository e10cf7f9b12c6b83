"""Collections that are open, under a budget of memory: leased to whoever uses them, closed when others need the room.

What is leased is never closed, nor what has codes on their way. Of the others the one goes first that was used longest
ago. Opening and closing take their time outside of the lock; who wants a collection that is on its way in or out waits.
"""

import itertools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Generic, Protocol, TypeVar
from uuid import UUID

from secure_embed.collection.figures import mib
from secure_embed.collection.opening import again
from secure_embed.collection.room import Purpose, Room
from secure_embed.errors import SecureEmbedError, Unavailable

__all__ = ["Book", "Shelf"]

_logger = logging.getLogger(__name__)

wait_s_max = 2.0  # for others to end what they do, before a caller is told to come again


class Book(Protocol):
    """What stands on the shelf: a :class:`~secure_embed.collection.holding.Holding`."""

    @property
    def memory_bytes(self) -> int: ...

    @property
    def busy(self) -> bool: ...

    def close(self) -> None: ...


B = TypeVar("B", bound=Book)


@dataclass(slots=True, eq=False)
class _Place(Generic[B]):
    """``book``: None while it is on its way in; ``error``: why it did not come. ``claims``: bytes that it said it would
    take, all in all."""

    uuid: UUID
    book: B | None = None
    error: BaseException | None = None
    leases: int = 0
    used: int = 0
    closing: bool = False
    claims: dict[Purpose, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return max(0 if self.book is None else self.book.memory_bytes, *self.claims.values(), 0)

    @property
    def can_go(self) -> bool:
        return self.book is not None and not (self.leases or self.closing or self.book.busy)


class Shelf(Generic[B]):
    """Thread safe. ``budget``: bytes; None: no limit. ``open_``: given the uuid and the door to ask for room."""

    def __init__(self, budget: int | None, open_: Callable[[UUID, Room], B]) -> None:
        self.budget = budget
        self._open = open_
        self._places: dict[UUID, _Place[B]] = {}
        self._changed = Condition()
        self._clock = itertools.count(1)

    # --- leases ------------------------------------------------------------------------------------------------------

    @contextmanager
    def lease(self, uuid: UUID, *, wait_s: float | None = None) -> Iterator[B]:
        """Open, and kept open until the block ends.

        Raises ``Unavailable`` (``index_building``) when it takes longer than ``wait_s`` to open; it goes on opening.
        """
        place = self._taken(uuid) if wait_s is None else self._taken_soon(uuid, time.monotonic() + wait_s)
        try:
            assert place.book is not None
            yield place.book
        finally:
            self._given_back(place, used=True)

    @contextmanager
    def lease_open(self, uuid: UUID) -> Iterator[B | None]:
        """The same for who has no use of it unless it is open; None otherwise. It does not count as a use."""
        with self._changed:
            place = self._places.get(uuid)
            if place is None or place.book is None or place.closing:
                place = None
            else:
                place.leases += 1
        try:
            yield None if place is None else place.book
        finally:
            if place is not None:
                self._given_back(place, used=False)

    def _taken(self, uuid: UUID) -> _Place[B]:
        with self._changed:
            while (place := self._places.get(uuid)) is not None:
                if self._leased(place):
                    return place
                self._changed.wait()
            place = self._places[uuid] = _Place(uuid, leases=1, used=next(self._clock))
        self._bring(place)
        if place.error is not None:
            raise place.error
        return place

    def _taken_soon(self, uuid: UUID, until: float) -> _Place[B]:
        """Opened in a thread of its own, so that who waits can go."""
        with self._changed:
            asked: _Place[B] | None = None
            while True:
                place = self._places.get(uuid)
                if place is not None and self._leased(place):
                    return place
                if asked is not None and asked.error is not None:
                    raise again(asked.error)
                if place is None:
                    asked = self._places[uuid] = _Place(uuid, used=next(self._clock))
                    self._bring_beside(asked)
                elif place.book is None:
                    asked = place
                if not self._changed.wait(max(0.0, until - time.monotonic())) and time.monotonic() >= until:
                    raise Unavailable(
                        "the collection is being opened", code="index_building", members={"retry_after_s": 1}
                    )

    def _leased(self, place: _Place[B]) -> bool:
        if place.book is None or place.closing:
            return False
        place.leases, place.used = place.leases + 1, next(self._clock)
        return True

    def _bring_beside(self, place: _Place[B]) -> None:
        try:
            Thread(target=self._bring, args=(place,), name="collection", daemon=True).start()
        except RuntimeError:
            del self._places[place.uuid]
            raise Unavailable("the system gives no thread", code="unavailable") from None

    def _bring(self, place: _Place[B]) -> None:
        """Open what the place is for; the place says how it went."""
        try:
            book = self._open(place.uuid, _Claims(self, place))
        except BaseException as fault:  # noqa: BLE001 - whoever waits is told
            with self._changed:
                place.error = fault
                del self._places[place.uuid]
                self._changed.notify_all()
            return
        with self._changed:
            place.book = book
            place.claims.pop("keys", None)
            self._changed.notify_all()

    def _given_back(self, place: _Place[B], *, used: bool) -> None:
        with self._changed:
            place.leases -= 1
            if used:
                place.used = next(self._clock)
            self._changed.notify_all()

    # --- room ------------------------------------------------------------------------------------------------------

    def claim(self, place: _Place[B], purpose: Purpose, size: int) -> None:
        """Keep ``size`` bytes free for ``place``, closing others for it. Keys are not refused: erasures need them, and
        they are a small part; see docs/decisions/0019."""
        must = purpose == "keys"
        if self.budget is not None and size > self.budget and not must:
            raise Unavailable(
                f"the collection needs {mib(size)} MiB of memory and the budget of all collections is "
                f"{mib(self.budget)} MiB: set index.memory_mib_max to more, or split the collection",
                code="collection_over_budget",
                http_status=507,
                members={"needed_mib": mib(size), "budget_mib": mib(self.budget)},
            )
        until = time.monotonic() + wait_s_max
        while (leaving := self._claimed(place, purpose, size, until, must=must)) is not None:
            self._close(leaving)

    def _claimed(
        self, place: _Place[B], purpose: Purpose, size: int, until: float, *, must: bool
    ) -> "_Place[B] | None":
        """None: the claim stands. Otherwise who has to go first, marked as closing."""
        with self._changed:
            while not self._fits(place, size):
                going = [other for other in self._places.values() if other is not place and other.can_go]
                if going:
                    leaving = min(going, key=lambda other: other.used)
                    leaving.closing = True
                    return leaving
                if must and not any(other.closing for other in self._places.values()):
                    break
                if not self._changed.wait(max(0.0, until - time.monotonic())) and time.monotonic() >= until:
                    if must:
                        break
                    raise Unavailable(
                        "all memory for collections is in use at this moment",
                        code="memory_in_use",
                        members={"retry_after_s": 1, "needed_mib": mib(size)},
                    )
            place.claims[purpose] = size
            return None

    def _fits(self, place: _Place[B], size: int) -> bool:
        others = sum(other.size for other in self._places.values() if other is not place)
        return self.budget is None or others + size <= self.budget

    def settle(self, place: _Place[B], purpose: Purpose) -> None:
        with self._changed:
            place.claims.pop(purpose, None)
            self._changed.notify_all()

    def _close(self, place: _Place[B]) -> None:
        """Of a place that is marked as closing: nobody else touches it."""
        assert place.book is not None
        try:
            place.book.close()
        except SecureEmbedError as fault:  # what it could not save is derived
            _logger.warning("a collection was closed: %s", fault.code)
        finally:
            with self._changed:
                del self._places[place.uuid]
                self._changed.notify_all()

    # --- all of them -------------------------------------------------------------------------------------------------

    @property
    def used(self) -> int:
        with self._changed:
            return sum(place.size for place in self._places.values())

    def has_room(self, size: int) -> bool:
        """Whether so many bytes are free without anyone having to go."""
        return self.budget is None or self.used + size <= self.budget

    def open_now(self) -> list[B]:
        """A look; nothing is kept open by it."""
        with self._changed:
            return [place.book for place in self._places.values() if place.book is not None and not place.closing]

    def uuids(self) -> list[UUID]:
        with self._changed:
            return list(self._places)

    def take_out(self, uuid: UUID) -> B | None:
        """From here on it is not on the shelf, whoever still has it; None: it was not open."""
        with self._changed:
            while (place := self._places.get(uuid)) is not None:
                if place.book is not None and not place.closing:
                    del self._places[uuid]
                    self._changed.notify_all()
                    return place.book
                self._changed.wait()
        return None

    def close(self) -> None:
        """All of them, leased or not: nobody may use one any more."""
        for uuid in self.uuids():
            book = self.take_out(uuid)
            if book is not None:
                book.close()


class _Claims(Generic[B]):
    """A place's door to room: :class:`~secure_embed.collection.room.Room`."""

    def __init__(self, shelf: Shelf[B], place: _Place[B]) -> None:
        self._shelf = shelf
        self._place = place

    def claim(self, purpose: Purpose, size: int) -> None:
        self._shelf.claim(self._place, purpose, size)

    def settle(self, purpose: Purpose) -> None:
        self._shelf.settle(self._place, purpose)
