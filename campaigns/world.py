"""What operations have in common: how one asks and is answered, and the world that they are made from.

To add one: a class with ``propose`` (a random one, or None where there is nothing to do it to), ``ask``, ``begin``, and what
``answered`` and ``unanswered`` mean; then a line in load.py. An operation that changes things holds one
:class:`~campaigns.history.Attempt`: acknowledged it stands, refused it did nothing, unanswered it is whole or absent.
"""

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from campaigns.history import Defect, History, Key, Thing, is_record

__all__ = ["Answer", "Ask", "Backup", "Operation", "World", "collection_key", "subjects"]

if TYPE_CHECKING:
    from campaigns.operations import Ingest

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


@dataclass(frozen=True, slots=True)
class Backup:
    """One that was acknowledged; it holds a state from between the two ticks."""

    data: Path
    keys: Path
    sent: int
    answered: int


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
        self.now = time.time
        self.history = History(self.now)
        self.collections: list[str] = []  # acknowledged
        self.unanswered: list[Ingest] = []  # to be sent again after a restart
        self.notes: list[str] = []  # signed erasure receipts
        self.holds: dict[str, str] = {}  # acknowledged: name -> id
        self.rotations: dict[str, str] = {}  # id -> state, as last seen
        self.failures: set[str] = set()  # of rotations: codes that were told
        self.backups_to: Path | None = None
        self.backups: list[Backup] = []
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
            if is_record(key) and self.history.is_there(key):
                return self.history.thing(key)
        return None

    def collection_absent(self, name: str, start: int) -> list[Defect]:
        """A collection was said not to be there."""
        return self.history.absent(collection_key(name), start, self.history.tick())

    def refused_for_hold(self, subject: str | None, start: int) -> list[Defect]:
        may, _ = self.history.held(subject, start, self.history.tick())
        return [] if may else [Defect("held", "an erasure was refused for a hold that is not there")]

    def erased_despite_hold(self, subject: str | None, start: int) -> list[Defect]:
        if subject is None:
            return []
        _, must = self.history.held(subject, start, self.history.tick())
        return [Defect("held", "an erasure was done under a hold")] if must else []


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
        """What it did is unknown then, as if it had not been answered."""
        self.unanswered()
        return [Defect("answer", f"{self.kind} was answered {answer.status} {answer.code}")]
