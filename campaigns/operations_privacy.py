"""Legal holds, records with an end, and the erasure of whole collections."""

import random
from datetime import UTC, datetime
from typing import Self

from campaigns.history import Attempt, Defect, Key, Thing
from campaigns.operations import Ingest
from campaigns.world import Answer, Ask, Operation, World, collection_key, subjects

__all__ = ["EraseCollection", "IngestWithEnd", "ListHolds", "PlaceHold", "ReleaseHold"]

ends_after_s = (2, 4)


class PlaceHold(Operation):
    """On a data subject. Its reason is its name, by which a hold whose answer never came is known again."""

    kind = "place_hold"

    def __init__(self, world: World, subject: str) -> None:
        self.world = world
        self.subject = subject
        self.name = f"hold-{world.name}-{world.number()}"

    @classmethod
    def propose(cls, world: World, chance: random.Random) -> Self | None:
        return cls(world, f"s{world.name}-{chance.randrange(subjects)}") if len(world.holds) < 4 else None

    def ask(self) -> Ask:
        return Ask(method="POST", path="/v1/holds", body={"subject": self.subject, "reason": self.name})

    def begin(self) -> None:
        self.attempt = self.world.history.add([Thing(("hold", self.name), subject=f"held {self.subject}")])

    def answered(self, answer: Answer) -> list[Defect]:
        if answer.status != 201:
            return self._unexpected(answer)
        self.world.history.acknowledged(self.attempt)
        self.world.holds[self.name] = answer.body["id"]
        return []

    def unanswered(self) -> None:
        self.world.history.unanswered(self.attempt)


class ReleaseHold(Operation):
    kind = "release_hold"

    def __init__(self, world: World, name: str, identifier: str) -> None:
        self.world = world
        self.name = name
        self.identifier = identifier

    @classmethod
    def propose(cls, world: World, chance: random.Random) -> Self | None:
        there = list(world.holds.items())
        if not there or chance.random() < 0.5:
            return None
        name, identifier = chance.choice(there)
        return None if world.holds.pop(name, None) is None else cls(world, name, identifier)

    def ask(self) -> Ask:
        return Ask(method="DELETE", path=f"/v1/holds/{self.identifier}")

    def begin(self) -> None:
        self.attempt = self.world.history.erase([("hold", self.name)])

    def answered(self, answer: Answer) -> list[Defect]:
        if answer.status != 200:
            return self._unexpected(answer)
        self.world.history.acknowledged(self.attempt)
        return []

    def unanswered(self) -> None:
        self.world.history.unanswered(self.attempt)


class ListHolds(Operation):
    """After a restart: the holds that are in force, and no others."""

    kind = "list_holds"

    def __init__(self, world: World) -> None:
        self.world = world
        self.listed: set[str] | None = None  # not answered yet

    @classmethod
    def propose(cls, world: World, chance: random.Random) -> Self | None:  # noqa: ARG003 - part of the check only
        return None

    def ask(self) -> Ask:
        return Ask(method="GET", path="/v1/holds")

    def begin(self) -> None:
        self._sent = self.world.history.tick()

    def answered(self, answer: Answer) -> list[Defect]:
        if answer.status != 200:
            return self._unexpected(answer)
        history = self.world.history
        there = {hold["reason"]: hold["id"] for hold in answer.body["holds"]}
        self.listed = set(there)
        self.world.holds = there
        now = history.tick()
        found = [d for name in there for d in history.present(("hold", name), "", self._sent, now)]
        gone: list[Key] = [key for key in history.known() if key[0] == "hold" and key[1] not in there]
        return found + [d for key in gone for d in history.absent(key, self._sent, now)]


class IngestWithEnd(Ingest):
    """Records that end in a few seconds: until then they are there, and after it never again."""

    kind = "ingest_with_end"

    def __init__(self, world: World, collection: str, things: list[Thing], ends_unix: int) -> None:
        super().__init__(world, collection, things, None)
        self._ends_unix = ends_unix

    @classmethod
    def propose(cls, world: World, chance: random.Random) -> Self | None:
        collection = world.collection(chance)
        if collection is None:
            return None
        # Without a subject: no erasure and no hold comes between.
        things = [Thing(t.key, t.text) for t in (world.record(chance, collection) for _ in range(chance.randint(1, 4)))]
        return cls(world, collection, things, int(world.now()) + chance.randint(*ends_after_s))

    def ask(self) -> Ask:
        ask = super().ask()
        end = datetime.fromtimestamp(self._ends_unix, UTC).isoformat().replace("+00:00", "Z")
        for record in ask.body["records"]:
            record["expires_at"] = end
        return ask

    def begin(self) -> None:
        super().begin()
        self.world.history.ends([thing.key for thing in self.things], self._ends_unix)

    def answered(self, answer: Answer) -> list[Defect]:
        if answer.code == "expiry_past":
            self.world.history.refused(self.attempt)
            return []
        return super().answered(answer)

    def unanswered(self) -> None:
        self.world.history.unanswered(self.attempt)  # and not sent again: its end may have come


class EraseCollection(Operation):
    """The collection and everything in it, all or none."""

    kind = "erase_collection"

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.attempt: Attempt

    @classmethod
    def propose(cls, world: World, chance: random.Random) -> Self | None:
        if len(world.collections) < 3 or chance.random() < 0.6:
            return None
        name = chance.choice(world.collections)
        world.collections = [other for other in world.collections if other != name]
        return cls(world, name)

    def ask(self) -> Ask:
        return Ask(method="DELETE", path=f"/v1/collections/{self.name}")

    def begin(self) -> None:
        self.attempt = self.world.history.erase_collection(collection_key(self.name))

    def answered(self, answer: Answer) -> list[Defect]:
        history = self.world.history
        if answer.code == "legal_hold":
            history.refused(self.attempt)
            self.world.collections.append(self.name)
            return self.world.refused_for_hold(None, self.attempt.sent)
        if answer.status not in {200, 201}:
            return self._unexpected(answer)
        history.acknowledged(self.attempt)
        if answer.body["note"]:
            self.world.notes.append(answer.body["note"])
        return []

    def unanswered(self) -> None:
        self.world.history.unanswered(self.attempt)
