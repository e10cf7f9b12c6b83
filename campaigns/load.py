"""What the load is mixed from, and how often each comes."""

import random

from campaigns.operations import CreateCollection, EraseRecord, EraseSubject, Fetch, Ingest, Query
from campaigns.operations_custody import BackUp, ListKeys, Rotate
from campaigns.operations_privacy import EraseCollection, IngestWithEnd, PlaceHold, ReleaseHold
from campaigns.world import Operation, World

__all__ = ["OPERATIONS", "proposed"]

OPERATIONS: tuple[tuple[int, type[Operation]], ...] = (
    (30, Ingest),
    (4, IngestWithEnd),
    (10, EraseRecord),
    (8, EraseSubject),
    (15, Query),
    (15, Fetch),
    (4, CreateCollection),
    (2, EraseCollection),
    (4, PlaceHold),
    (4, ReleaseHold),
    (8, Rotate),
    (2, ListKeys),
    (3, BackUp),
)


def proposed(world: World, chance: random.Random) -> Operation:
    """The next operation of the load."""
    while True:
        (chosen,) = chance.choices([kind for _, kind in OPERATIONS], [weight for weight, _ in OPERATIONS])
        operation = chosen.propose(world, chance)
        if operation is not None:
            return operation
