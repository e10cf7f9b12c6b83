"""Codes of a collection made: restored from their file with what was added since, or coded from the sealed vectors.

Everything that looks at rows has the writers' turn, a batch at a time; a training has it not, and takes minutes for
millions of records. Vectors of a sample lie in plaintext while it lasts, erased ones too, and are overwritten at its end.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass

import numpy as np

from secure_embed.collection import figures
from secure_embed.collection.opening import Opening
from secure_embed.collection.rows import Rows, load_rows
from secure_embed.collection.saved_codes import CodesOrigin, SavedCodes
from secure_embed.collection.turns import Turns
from secure_embed.errors import Conflict, IntegrityFailure
from secure_embed.index import Added, Codebook, RabitqShard, lists_for, should_retrain
from secure_embed.keys import CollectionKeys, IndexValue, TagKind, attribute_parts
from secure_embed.store import RecordStore
from secure_embed.types import Collection, Position, Vectors

__all__ = ["Building", "Plan", "pass_over"]

BEFORE_ALL = Position(-1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """``held``: the stored codebook; None: there is none. ``sample``: vectors that a new one is trained on; None: none is
    made, or ``made`` is there already. ``size``: bytes it takes."""

    held: Codebook | None
    sample: int | None
    size: int
    made: Codebook | None = None


class Building:
    def __init__(
        self,
        collection: Collection,
        rows: Rows,
        *,
        keys: CollectionKeys,
        store: RecordStore,
        turns: Turns,
        saved: SavedCodes | None,
        bits: Callable[[], int],
    ) -> None:
        """``bits``: how many a dimension codes are to have."""
        self._bits = bits
        self._collection = collection
        self._uuid = collection.uuid
        self._dimension = collection.space.dimension
        self._rows = rows
        self._keys = keys
        self._store = store
        self._turns = turns
        self._saved = saved

    # --- beforehand ------------------------------------------------------------------------------------------------

    def reading_ahead(self) -> AbstractContextManager[None]:
        """See :meth:`Rows.reading_ahead`: codebook and codes come into memory meanwhile."""
        return self._rows.reading_ahead()

    def due(self, codebook: Codebook, records: int, *, at_leisure: bool = False) -> bool:
        """Whether another codebook is wanted: the collection has outgrown this one, or a tuning has chosen other bits."""
        outgrown = should_retrain(codebook, records, at_leisure=at_leisure)
        return outgrown or (records > 0 and codebook.bits != self._bits())

    def plans(self, *, again: bool, made: Codebook | None = None) -> Sequence[Plan]:
        """What would be done, and what can be done instead where there is no room for the first."""
        held, records = self._stored_codebook(), self._store.versions(self._uuid).records
        if made is not None:
            return [Plan(held=held, sample=None, made=made, size=self.size(records, made))]
        trains = again or held is None or self.due(held, records)
        kept = [] if held is None or again else [Plan(held=held, sample=None, size=self.size(records, held))]
        if not trains:
            return kept
        size, lists = self.size(records, None), lists_for(records)
        trained = [
            Plan(held=held, sample=sample, size=size + figures.training_bytes(sample, self._dimension, lists=lists))
            for sample in figures.sample_sizes(records, self._dimension)
        ]
        return [*trained, *kept]

    def size(self, records: int, codebook: Codebook | None) -> int:
        """Bytes of the codes of so many records. None: with a codebook that is to be trained."""
        return figures.codes_bytes(
            records,
            dimension=self._dimension,
            bits=self._bits() if codebook is None else codebook.bits,
            lists=lists_for(records) if codebook is None else codebook.lists,
            attributes=self._collection.attributes.values(),
        )

    # --- the work --------------------------------------------------------------------------------------------------

    def run(self, opening: Opening, plan: Plan, publish: Callable[[RabitqShard, CodesOrigin], None]) -> None:
        """``publish`` is called within the turn in which nothing was left to put in."""
        opening.total = self._store.versions(self._uuid).records
        origin, after = CodesOrigin.ABSENT, BEFORE_ALL
        new: Codebook | None = None
        if not opening.again and plan.held is not None:
            with self._turns:
                origin, after = self._restore(opening, plan.held)
        if opening.shard is None:
            codebook, new = plan.made or plan.held, plan.made
            if plan.sample is not None or codebook is None:
                codebook = new = self._trained(opening, plan, self._bits())
            with self._turns:
                opening.shard = self._empty(codebook)
        shard = opening.shard

        def finish() -> None:
            if new is not None:
                sealed = self._keys.seal_index(IndexValue.CODEBOOK, new.to_bytes())
                self._store.put_codebook(self._uuid, new.version, sealed)
            publish(shard, origin)

        self._fill(opening, shard, after, finish)

    def _fill(self, opening: Opening, shard: RabitqShard, after: Position, finish: Callable[[], None]) -> None:
        batches, known = self._rows.opened(after), 0
        with closing(batches):
            while True:
                opening.say("coding")
                with self._turns:
                    opening.go_on()
                    versions = self._store.versions(self._uuid)
                    # As many as came since the last turn, and a batch more; and what is less than a batch at the end is
                    # not left for another turn. So an ingest without a pause cannot outrun it.
                    end = versions.next_position
                    batches_left, known = 1 + (end - (known or end)) // load_rows, end
                    opening.total = max(opening.total, versions.records)
                    last: int = end
                    while batches_left > 0 or last + load_rows >= end:
                        batch = next(batches, None)
                        if batch is None:
                            finish()
                            return
                        positions, vectors, metas = batch
                        shard.load(positions, vectors, [meta.attributes for meta in metas])
                        opening.done += len(positions)
                        batches_left, last = batches_left - 1, int(positions[-1])

    def _restore(self, opening: Opening, codebook: Codebook) -> tuple[CodesOrigin, Position]:
        """The codes as they were saved into ``opening``, or none of them; and behind what to go on."""
        if self._saved is None:
            return CodesOrigin.ABSENT, BEFORE_ALL
        try:
            found = self._saved.read(self._store, codebook=codebook.version)
            if found is None:
                return CodesOrigin.ABSENT, BEFORE_ALL
            with closing(found.chunks) as chunks:
                shard = RabitqShard.restored(
                    chunks,
                    codebook=codebook,
                    schema=self._collection.attributes,
                    tag_attribute=self._tag_attribute,
                    open_vectors=self._rows.open_vectors,
                )
        except IntegrityFailure:
            return CodesOrigin.UNREADABLE, BEFORE_ALL
        except Conflict:
            return CodesOrigin.STALE, BEFORE_ALL
        versions = self._store.versions(self._uuid)
        if shard.version + len(found.since) != versions.data:
            shard.close()
            return CodesOrigin.STALE, BEFORE_ALL
        self._saved.confirm(found)
        pass_over(shard, [change.sequence for change in found.since], self._dimension)
        opening.shard, opening.done = shard, shard.size
        # What was added lies behind everything that the shard has.
        return CodesOrigin.SAVED, Position((found.since[0].first if found.since else versions.next_position) - 1)

    def trial(self, opening: Opening, plan: Plan, bits: int) -> RabitqShard:
        """Codes as they would be with so many bits a dimension: kept nowhere, told of no change, without attributes. The
        caller closes them."""
        shard = self._empty(self._trained(opening, plan, bits))
        try:
            for positions, vectors, _ in self._rows.opened():
                opening.go_on()
                shard.load(positions, vectors, [{}] * len(positions))
        except BaseException:
            shard.close()
            raise
        return shard

    def _empty(self, codebook: Codebook) -> RabitqShard:
        return RabitqShard(
            codebook=codebook,
            schema=self._collection.attributes,
            tag_attribute=self._tag_attribute,
            open_vectors=self._rows.open_vectors,
            version=self._store.versions(self._uuid).data,
        )

    def _tag_attribute(self, name: str, value: str) -> bytes:
        return self._keys.tag(TagKind.ATTRIBUTE, *attribute_parts(name, value))

    # --- codebooks -------------------------------------------------------------------------------------------------

    def _stored_codebook(self) -> Codebook | None:
        stored = self._store.codebook(self._uuid)
        return None if stored is None else Codebook.from_bytes(self._keys.open_index(IndexValue.CODEBOOK, stored[1]))

    def _trained(self, opening: Opening, plan: Plan, bits: int) -> Codebook:
        """Not stored yet. A new rotation with each codebook: what was learned of the old one is worth nothing."""
        held, records = plan.held, self._store.versions(self._uuid).records
        sample = self._sample(opening, records, plan.sample or 0)
        try:
            if len(sample):
                version = 1 if held is None else held.version + 1
                return Codebook.train(sample, version=version, records=records, bits=bits)
        finally:
            sample.fill(0)
        return Codebook.draw(self._dimension, bits=bits) if held is None else held

    def _sample(self, opening: Opening, records: int, wanted: int) -> Vectors:
        """Of records at even distances; the caller wipes it."""
        end = self._store.versions(self._uuid).next_position
        # Positions of erased records are among them: so many more are looked at.
        at = np.unique(np.linspace(0, end - 1, min(end, wanted * end // max(records, 1))).astype(np.int64))
        sample, kept = np.zeros((len(at), self._dimension), np.float32), 0
        half = np.zeros((load_rows, self._dimension), np.float16)
        for start in range(0, len(at), load_rows):
            opening.say("reading a sample of")
            opening.go_on()
            some = at[start : start + load_rows]
            there = self._rows.open_vectors(some, half[: len(some)])
            count = int(np.count_nonzero(there))
            sample[kept : kept + count] = half[: len(some)][there]
            kept += count
        half.fill(0)
        return sample[:kept]


def pass_over(shard: RabitqShard, sequences: Sequence[int], dimension: int) -> None:
    """Changes that leave the codes as they are; the shard counts them all the same."""
    positions, vectors = np.zeros(0, np.int64), np.zeros((0, dimension), np.float32)
    shard.apply([Added(sequence=s, positions=positions, vectors=vectors, attributes=()) for s in sequences])
