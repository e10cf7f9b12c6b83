"""What the load sends: collections, records and queries. One operation is one class; world.py says how to add one."""

import random
from typing import Self
from urllib.parse import quote

from campaigns.history import Attempt, Defect, Thing, is_record
from campaigns.stage import ATTRIBUTES
from campaigns.world import Answer, Ask, Operation, World, collection_key, subjects

__all__ = ["CreateCollection", "EraseRecord", "EraseSubject", "Fetch", "Ingest", "IngestAgain", "Query"]

collections_max = 6
batch_max = 12


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
        if answer.code == "collection_not_found":
            self.world.history.refused(self.attempt)
            return self.world.collection_absent(self.collection, self.attempt.sent)
        if answer.status != 201:
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

    def __init__(self, world: World, thing: Thing) -> None:
        super().__init__(world)
        self.key, self.subject = thing.key, thing.subject

    @classmethod
    def propose(cls, world: World, chance: random.Random) -> Self | None:
        thing = world.record_there(chance)
        return None if thing is None else cls(world, thing)

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
        if answer.code == "legal_hold" and self.subject is not None:
            history.refused(self.attempt)
            return self.world.refused_for_hold(self.subject, self.attempt.sent)
        if answer.status not in {200, 201}:
            return self._unexpected(answer)
        history.acknowledged(self.attempt)
        if answer.body["note"]:
            self.world.notes.append(answer.body["note"])
        found = self.world.erased_despite_hold(self.subject, self.attempt.sent)
        return found + history.erased_count(self.attempt, answer.body["records"], history.tick())


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
        if answer.code == "legal_hold":
            history.refused(self.attempt)
            return self.world.refused_for_hold(self.subject, self.attempt.sent)
        if answer.code == "collection_not_found" and self.within is not None:
            history.refused(self.attempt)
            return self.world.collection_absent(self.within[0], self.attempt.sent)
        if answer.status != 201:
            return self._unexpected(answer)
        found = history.erased_count(self.attempt, answer.body["records"], history.tick())
        if answer.body["records"]:
            found += self.world.erased_despite_hold(self.subject, self.attempt.sent)
        history.acknowledged(self.attempt)
        if answer.body["note"]:
            self.world.notes.append(answer.body["note"])
        return found


class _Seeing(Operation):
    """Changes nothing; what it shows has to fit the history."""

    def __init__(self, world: World, thing: Thing) -> None:
        self.world = world
        self.thing = thing
        self.found: bool | None = None  # None: not answered yet

    @classmethod
    def propose(cls, world: World, chance: random.Random) -> Self | None:
        keys = [key for key in (chance.choice(world.history.known() or [("", "")]) for _ in range(5)) if is_record(key)]
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
