"""Rotations of every kind, and backups. Neither changes a record: all of them have to be readable as before."""

import random
from pathlib import Path
from typing import Self

from campaigns.history import Defect
from campaigns.world import Answer, Ask, Backup, Operation, World

__all__ = ["BackUp", "ListKeys", "Rotate"]

resealed_per_second = 2_000


class Rotate(Operation):
    """Acknowledged it is written down: it runs on through restarts until it is done."""

    kind = "rotate"

    def __init__(self, world: World, which: str, collection: str | None, *, reseal: bool) -> None:
        self.world = world
        self.which = which
        self.collection = collection
        self.reseal = reseal

    @classmethod
    def propose(cls, world: World, chance: random.Random) -> Self | None:
        which = chance.choice(["root", "log", "store", "collection", "collection", "collection"])
        collection = world.collection(chance) if which == "collection" else None
        if which == "collection" and collection is None:
            return None
        return cls(world, which, collection, reseal=collection is not None and chance.random() < 0.6)

    def ask(self) -> Ask:
        body = {"kind": self.which, "reseal": self.reseal}
        if self.collection is not None:
            body |= {"collection": self.collection}
        if self.reseal:
            body |= {"records_per_second": resealed_per_second}
        return Ask(method="POST", path="/v1/keys/rotations", body=body)

    def begin(self) -> None:
        self._sent = self.world.history.tick()

    def answered(self, answer: Answer) -> list[Defect]:
        if answer.status == 202:
            self.world.rotations[answer.body["id"]] = "running"
            return []
        if answer.code == "collection_not_found":
            return self.world.collection_absent(self.collection or "", self._sent)
        return [] if answer.code == "rotation_running" else self._unexpected(answer)


class ListKeys(Operation):
    """After a restart: every rotation that was acknowledged is known, none has failed, and what was done stays done."""

    kind = "list_keys"

    def __init__(self, world: World) -> None:
        self.world = world
        self.running = 0

    @classmethod
    def propose(cls, world: World, chance: random.Random) -> Self | None:
        return cls(world) if chance.random() < 0.2 else None

    def ask(self) -> Ask:
        return Ask(method="GET", path="/v1/keys")

    def begin(self) -> None:
        self._before = dict(self.world.rotations)

    def answered(self, answer: Answer) -> list[Defect]:
        if answer.status != 200:
            return self._unexpected(answer)
        states = {rotation["id"]: rotation["state"] for rotation in answer.body["rotations"]}
        errors = {
            rotation["error"]
            for rotation in answer.body["rotations"]
            # A collection that was erased meanwhile has no name any more, and nothing to rotate.
            if rotation["state"] == "failed"
            and (rotation["kind"] != "collection" or rotation["collection"] is not None)
        }
        found = [Defect("rotation", f"a rotation failed: {error}") for error in errors - self.world.failures]
        self.world.failures |= errors
        for identifier, state in self._before.items():
            if identifier not in states:
                found.append(Defect("rotation", "an acknowledged rotation is not known any more"))
            elif state == "done" and states[identifier] != "done":
                found.append(Defect("rotation", f"a rotation that was done is {states[identifier]}"))
        self.world.rotations |= states
        self.running = sum(state == "running" for state in states.values())
        return found


class BackUp(Operation):
    """Acknowledged it can be restored; the last one is, at the end of a deployment's lives."""

    kind = "back_up"

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self._folder = folder

    @classmethod
    def propose(cls, world: World, chance: random.Random) -> Self | None:
        return None if world.backups_to is None or chance.random() < 0.5 else cls(world, world.backups_to)

    def ask(self) -> Ask:
        return Ask(
            method="POST", path="/v1/backups", body={"to": str(self._folder), "keys_to": str(self._folder / "keys")}
        )

    def begin(self) -> None:
        self._sent = self.world.history.tick()

    def answered(self, answer: Answer) -> list[Defect]:
        if answer.code in {"backup_running", "rotation_running"}:
            return []
        if answer.status != 201:
            return self._unexpected(answer)
        taken = Backup(Path(answer.body["data"]), Path(answer.body["keys"]), self._sent, self.world.history.tick())
        self.world.backups.append(taken)
        there = taken.data.is_dir() and taken.keys.is_dir()
        return [] if there else [Defect("backup", "an acknowledged backup is not there")]
