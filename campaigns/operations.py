"""What the load sends. One operation is one class: what it asks, what an answer to it has to say, and what it changes.

To add one: a class with ``propose`` (a random one, or None where there is nothing to do it to), ``ask``, ``begin``, and what
``answered`` and ``unanswered`` mean; then a line in ``OPERATIONS``. An operation that changes things holds one
:class:`~campaigns.history.Attempt`: acknowledged it stands, refused it did nothing, unanswered it is whole or absent.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, ClassVar, Self
from urllib.parse import quote

from campaigns.history import Attempt, Defect, History, Key, Thing
from campaigns.stage import ATTRIBUTES

__all__ = ["OPERATIONS", "Answer", "Ask", "Ingest", "Operation", "World", "collection_key", "proposed"]

collections_max = 6
batch_max = 12
subjects = 40
_WORDS = (
    "claim",
    "letter",
    "ward",
    "knee",
    "heart",
    "bank",
    "card",
    "refund",
    "pain",
    "fever",
    "scan",
    "delay",
    "loan",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    nobody: bool = False  # without a token


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    body: Any
    receipt: tuple[int, str] | None  # index and leaf hash (hex)

    @property
    def code(self) -> str:
        return str(self.body.get("code", "")) if isinstance(self.body, dict) else ""


def collection_key(name: str) -> Key:
    return ("", name)


class World:
    """What operations are made from: names that never come twice, and the history of what was sent."""

    def __init__(self, name: str) -> None:
        """``name``: goes into every id, so that two deployments of a campaign share none."""
        self.name = name
        self.history = History()
        self.collections: list[str] = []  # acknowledged
        self.unanswered: list[Ingest] = []  # to be sent again after a restart
        self.notes: list[str] = []  # signed erasure receipts
        self._numbers = count()

    def number(self) -> int:
        return next(self._numbers)

    def record(self, chance: random.Random, collection: str) -> Thing:
        n = self.number()
        words = " ".join(chance.choices(_WORDS, k=chance.choice([4, 8, 8, 60])))
        subject = f"s{self.name}-{chance.randrange(subjects)}" if chance.random() < 0.7 else None
        return Thing((collection, f"r{self.name}-{n}"), f"number{self.name}x{n} {words}", subject)

    def collection(self, chance: random.Random) -> str | None:
        return chance.choice(self.collections) if self.collections else None

    def record_there(self, chance: random.Random) -> Thing | None:
        keys = self.history.known()
        for _ in range(20):
            key = chance.choice(keys) if keys else ("", "")
            if key[0] and self.history.is_there(key):
                return self.history.thing(key)
        return None


class Operation(ABC):
    kind: ClassVar[str]

    @classmethod
    @abstractmethod
    def propose(cls, world: World, chance: random.Random) -> Self | None: ...

    @abstractmethod
    def ask(self) -> Ask: ...

    @abstractmethod
    def begin(self) -> None:
        """About to be sent."""

    @abstractmethod
    def answered(self, answer: Answer) -> list[Defect]: ...

    def unanswered(self) -> None:  # noqa: B027 - an operation that changes nothing has nothing to do here
        """The service died first, or it answered 5xx."""

    def _unexpected(self, answer: Answer) -> list[Defect]:
        return [Defect("answer", f"{self.kind} was answered {answer.status} {answer.code}")]


class _Changing(Operation):
    """Holds one attempt."""

    attempt: Attempt

    def __init__(self, world: World) -> None:
        self.world = world

    def unanswered(self) -> None:
        self.world.history.unanswered(self.attempt)


class CreateCollection(_Changing):
    kind = "create_collection"

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world)
        self.name = name

    @classmethod
    def propose(cls, world: World, chance: random.Random) -> Self | None:
        full = len(world.collections) >= collections_max or (world.collections and chance.random() < 0.7)
        return None if full else cls(world, f"c{world.name}-{world.number()}")

    def ask(self) -> Ask:
        return Ask(method="POST", path="/v1/collections", body={"name": self.name, "attributes": ATTRIBUTES})

    def begin(self) -> None:
        self.attempt = self.world.history.add([Thing(collection_key(self.name))])

    def answered(self, answer: Answer) -> list[Defect]:
        if answer.status != 201:
            self.world.history.refused(self.attempt)
            return self._unexpected(answer)
        self.world.history.acknowledged(self.attempt)
        self.world.collections.append(self.name)
        return []


class Ingest(_Changing):
    kind = "ingest"

    def __init__(self, world: World, collection: str, things: list[Thing], key: str | None) -> None:
        super().__init__(world)
        self.collection = collection
        self.things = things
        self.key = key

    @classmethod
    def propose(cls, world: World, chance: random.Random) -> Self | None:
        collection = world.collection(chance)
        if collection is None:
            return None
        things = [world.record(chance, collection) for _ in range(chance.randint(1, batch_max))]
        return cls(world, collection, things, f"k{world.number()}" if chance.random() < 0.5 else None)

    def ask(self) -> Ask:
        records = [
            {"id": thing.key[1], "text": thing.text, "subject": thing.subject, "attributes": {"sensitivity": 0}}
            for thing in self.things
        ]
        path = f"/v1/collections/{self.collection}/records"
        headers = {"Idempotency-Key": self.key} if self.key else {}
        return Ask(method="POST", path=path, body={"records": records}, headers=headers)

    def begin(self) -> None:
        self.attempt = self.world.history.add(self.things)

    def answered(self, answer: Answer) -> list[Defect]:
        if answer.status != 201:
            self.world.history.refused(self.attempt)
            return self._unexpected(answer)
        self.world.history.acknowledged(self.attempt)
        if answer.body["records"] != len(self.things) or answer.body["replayed"]:
            return [
                Defect("answer", f"an ingest of {len(self.things)} says {answer.body['records']} records, replayed")
            ]
        return []

    def unanswered(self) -> None:
        super().unanswered()
        self.world.unanswered.append(self)


class IngestAgain(Operation):
    """After a restart: an unanswered batch is sent once more, and is there once, whatever happened to the first."""

    kind = "ingest_again"

    def __init__(self, first: Ingest, *, is_there: bool) -> None:
        self._first = first
        self._is_there = is_there
        self._again: Attempt | None = None

    @classmethod
    def propose(cls, world: World, chance: random.Random) -> Self | None:  # noqa: ARG003 - made after a restart only
        return None

    def ask(self) -> Ask:
        return self._first.ask()

    def begin(self) -> None:
        if not self._is_there:
            self._again = self._first.world.history.add(self._first.things)

    def answered(self, answer: Answer) -> list[Defect]:
        if self._again is None:
            wanted = (201, "", True) if self._first.key else (409, "record_exists", None)
        else:
            wanted = (201, "", False)
            end = self._first.world.history.acknowledged if answer.status == 201 else self._first.world.history.refused
            end(self._again)
        given = (answer.status, answer.code, answer.body.get("replayed"))
        return [] if given == wanted else [Defect("again", f"a batch sent again was answered {given}, not {wanted}")]

    def unanswered(self) -> None:
        if self._again is not None:
            self._first.world.history.unanswered(self._again)
            self._first.world.unanswered.append(self._first)


class EraseRecord(_Changing):
    kind = "erase_record"

    def __init__(self, world: World, key: Key) -> None:
        super().__init__(world)
        self.key = key

    @classmethod
    def propose(cls, world: World, chance: random.Random) -> Self | None:
        thing = world.record_there(chance)
        return None if thing is None else cls(world, thing.key)

    def ask(self) -> Ask:
        collection, record = self.key
        return Ask(method="DELETE", path=f"/v1/collections/{collection}/records/{quote(record, safe='')}")

    def begin(self) -> None:
        self.attempt = self.world.history.erase([self.key])

    def answered(self, answer: Answer) -> list[Defect]:
        history = self.world.history
        if answer.status == 404:  # another erasure was quicker
            history.refused(self.attempt)
            return history.absent(self.key, self.attempt.sent, history.tick())
        if answer.status not in {200, 201}:
            history.refused(self.attempt)
            return self._unexpected(answer)
        history.acknowledged(self.attempt)
        self.world.notes.append(answer.body["note"])
        return history.erased_count(self.attempt, answer.body["records"], history.tick())


class EraseSubject(_Changing):
    kind = "erase_subject"

    def __init__(self, world: World, subject: str, within: list[str] | None) -> None:
        super().__init__(world)
        self.subject = subject
        self.within = within

    @classmethod
    def propose(cls, world: World, chance: random.Random) -> Self | None:
        collection = world.collection(chance)
        if collection is None:
            return None
        within = [collection] if chance.random() < 0.3 else None
        return cls(world, f"s{world.name}-{chance.randrange(subjects)}", within)

    def ask(self) -> Ask:
        body = {"subject": self.subject} | ({} if self.within is None else {"collections": self.within})
        return Ask(method="POST", path="/v1/erasures", body=body)

    def begin(self) -> None:
        self.attempt = self.world.history.erase_subject(self.subject, self.within)

    def answered(self, answer: Answer) -> list[Defect]:
        history = self.world.history
        if answer.status != 201:
            history.refused(self.attempt)
            return self._unexpected(answer)
        counted = history.erased_count(self.attempt, answer.body["records"], history.tick())
        history.acknowledged(self.attempt)
        self.world.notes.append(answer.body["note"])
        return counted


class _Seeing(Operation):
    """Changes nothing; what it shows has to fit the history."""

    def __init__(self, world: World, thing: Thing) -> None:
        self.world = world
        self.thing = thing
        self.found: bool | None = None  # None: not answered yet

    @classmethod
    def propose(cls, world: World, chance: random.Random) -> Self | None:
        keys = [key for key in (chance.choice(world.history.known() or [("", "")]) for _ in range(5)) if key[0]]
        return cls(world, world.history.thing(keys[0])) if keys else None

    def begin(self) -> None:
        self.sent = self.world.history.tick()


class Fetch(_Seeing):
    kind = "fetch"

    def ask(self) -> Ask:
        collection, record = self.thing.key
        return Ask(method="GET", path=f"/v1/collections/{collection}/records/{quote(record, safe='')}")

    def answered(self, answer: Answer) -> list[Defect]:
        history = self.world.history
        if answer.status not in {200, 404}:
            return self._unexpected(answer)
        self.found = answer.status == 200
        if not self.found:
            return history.absent(self.thing.key, self.sent, history.tick())
        right = (answer.body["id"], answer.body["subject"]) == (self.thing.key[1], self.thing.subject)
        wrong = [] if right else [Defect("changed", f"{self.thing.key} has another id or subject")]
        return wrong + history.present(self.thing.key, answer.body["text"], self.sent, history.tick())


class Query(_Seeing):
    """Asks with a record's own text: it is found unless it is erased, and nothing that is erased is."""

    kind = "query"

    def ask(self) -> Ask:
        body = {"text": self.thing.text, "k": 10, "include_text": True}
        return Ask(method="POST", path=f"/v1/collections/{self.thing.key[0]}/query", body=body)

    def answered(self, answer: Answer) -> list[Defect]:
        history = self.world.history
        now = history.tick()
        if answer.code in {"collection_not_found", "collection_too_small"}:  # the profile wants one record at least
            self.found = False
            return history.absent(self.thing.key, self.sent, now)
        if answer.status != 200:
            return self._unexpected(answer)
        hits = {(self.thing.key[0], hit["id"]): hit["text"] for hit in answer.body["hits"]}
        wrong = [] if len(hits) == len(answer.body["hits"]) else [Defect("twice", "a record was found twice")]
        for key, text in hits.items():  # without a text: erased between the search and the reading
            wrong += history.absent(key, self.sent, now) if text is None else history.present(key, text, self.sent, now)
        self.found = self.thing.key in hits
        return wrong if self.found else wrong + history.absent(self.thing.key, self.sent, now)


OPERATIONS: tuple[tuple[int, type[Operation]], ...] = (
    (30, Ingest),
    (10, EraseRecord),
    (8, EraseSubject),
    (15, Query),
    (15, Fetch),
    (4, CreateCollection),
)


def proposed(world: World, chance: random.Random) -> Operation:
    """The next operation of the load."""
    while True:
        (chosen,) = chance.choices([kind for _, kind in OPERATIONS], [weight for weight, _ in OPERATIONS])
        operation = chosen.propose(world, chance)
        if operation is not None:
            return operation
