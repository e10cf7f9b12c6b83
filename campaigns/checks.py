"""What is checked after a restart, through the API, and on the stopped folder, with the auditors' program."""

import random
import shutil
from pathlib import Path

from campaigns.auditing import findings, keys_of
from campaigns.driver import Driver
from campaigns.history import Defect, is_record
from campaigns.inside import Inside
from campaigns.operations import Fetch, IngestAgain, Query
from campaigns.operations_custody import ListKeys
from campaigns.operations_privacy import ListHolds
from campaigns.world import Answer, Ask, Backup, Operation, World, collection_key
from secure_embed.errors import SecureEmbedError
from secure_embed.restoring import restore

__all__ = ["check_backup", "check_log", "check_service"]

lately_max = 60  # records of the last life looked at, beside all whose fate is open
sampled = 15  # records of earlier lives looked at in each
queried = 12
restored = 200  # records looked at in a backup that was restored
again_share = 0.7  # of unanswered batches that are sent once more


class _ListCollections(Operation):
    kind = "list_collections"

    def __init__(self, world: World) -> None:
        self.world = world
        self.listed: set[str] | None = None  # not answered yet

    @classmethod
    def propose(cls, world: World, chance: random.Random) -> None:  # noqa: ARG003 - part of the check only
        return None

    def ask(self) -> Ask:
        return Ask(method="GET", path="/v1/collections")

    def begin(self) -> None:
        self._sent = self.world.history.tick()

    def answered(self, answer: Answer) -> list[Defect]:
        if answer.status != 200:
            return self._unexpected(answer)
        history = self.world.history
        self.listed = {view["name"] for view in answer.body["collections"]}
        self.world.collections = sorted(self.listed)
        sent = {key for key in history.known() if key[0] == ""}
        now = history.tick()
        wrong = [
            defect for name in self.listed for defect in history.present(collection_key(name), "", self._sent, now)
        ]
        gone = sent - {collection_key(name) for name in self.listed}
        return wrong + [defect for key in gone for defect in history.absent(key, self._sent, now)]


def check_service(driver: Driver, world: World, chance: random.Random, since: int, *, everything: bool = False) -> bool:
    """Look at what the last life touched, at a sample of the rest or all of it, and settle what was unanswered.

    False: the service went away meanwhile, and nothing was settled.
    """
    history = world.history
    listing, holds = _ListCollections(world), ListHolds(world)
    if not driver.all([listing, holds, ListKeys(world)]) or listing.listed is None or holds.listed is None:
        return False
    unsettled = history.unsettled()
    records = [key for key in history.known() if is_record(key)]
    chosen = records if everything else chance.sample(records, min(sampled, len(records)))
    lately = [key for key in history.since(since) if is_record(key)]
    chosen += chance.sample(lately, min(lately_max, len(lately)))
    looked_at = sorted({key for key in (*unsettled, *chosen) if is_record(key)})
    fetches = [Fetch(world, history.thing(key)) for key in looked_at]
    if not driver.all(fetches) or any(fetch.found is None for fetch in fetches):
        return False
    seen = {fetch.thing.key: bool(fetch.found) for fetch in fetches}
    others = {"": listing.listed, "hold": holds.listed}
    seen |= {key: key[1] in others[key[0]] for key in unsettled if not is_record(key)}
    driver.defects += history.settle({key: seen[key] for key in unsettled})
    again, world.unanswered = world.unanswered, []
    first: list[Operation] = [
        Query(world, history.thing(key)) for key in chance.sample(looked_at, min(queried, len(looked_at)))
    ]
    first += [
        IngestAgain(batch, is_there=any(seen[thing.key] for thing in batch.things))
        for batch in again
        if chance.random() < again_share
        and batch.collection in listing.listed
        and not any(history.was_erased(thing.key) for thing in batch.things)
    ]
    return driver.all(first)


def check_log(root: Path, driver: Driver, world: World, *, cut: bool = False) -> list[Defect]:
    """The log as a crash left it: intact, with every answer's entry and every erasure receipt's.

    ``cut``: the power was cut. The last frame of the journal may then be as long as it was meant to be and hold zeros, which the
    verifier calls damage; the next start drops it, and the next check is strict again.
    """
    wrong = findings(root / "log", keys_of(root), receipts=driver.receipts, erasure_receipts=world.notes)
    return [Defect("log", what) for what in wrong[:5] if not (cut and what.startswith("journal: "))]


def check_backup(world: World, root: Path, backup: Backup, chance: random.Random) -> list[Defect]:
    """A backup restores, and what it holds is a state from between its being asked for and acknowledged."""
    place = root.parent / f"restored-{backup.sent}"
    history = world.history
    found: list[Defect] = []
    try:
        restore(backup.data, backup.keys, place, passphrase_file=root / "secrets" / "root.passphrase")
        for folder in ("tls", "development-issuer"):  # no backup holds a listener's key
            if not (place / folder).is_dir() or not any((place / folder).iterdir()):
                shutil.copytree(root / folder, place / folder, dirs_exist_ok=True)
        with Inside(place) as inside:
            # Whose end has come since then is not answered from a copy either.
            records = [key for key in history.known() if is_record(key) and history.lasts(key)]
            chosen = chance.sample(records, min(restored, len(records)))
            asks = [Fetch(world, history.thing(key)).ask() for key in chosen]
            for key, answer in zip(chosen, inside.ask_all(asks), strict=True):
                found += (
                    history.present(key, answer.body["text"], backup.sent, backup.answered)
                    if answer.status == 200
                    else history.absent(key, backup.sent, backup.answered)
                )
    except SecureEmbedError as refused:
        return [Defect("backup", f"an acknowledged backup cannot be restored: {refused.code}: {refused.detail}")]
    return [Defect("backup", f"{defect.kind}: {defect.what}") for defect in found[:5]]
