"""One collection's codes: read from their sealed file, or built from the sealed vectors; kept up with the rows; saved."""

from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from threading import RLock

import numpy as np

from secure_embed.collection.rows import Rows
from secure_embed.collection.saved_codes import CodesOrigin, SavedCodes, Standing
from secure_embed.errors import Conflict, IntegrityFailure, Unavailable
from secure_embed.index import Added, Codebook, RabitqShard, sample_for, should_retrain
from secure_embed.keys import CollectionKeys, IndexValue, KeyStore, TagKind, attribute_parts
from secure_embed.store import Change, RecordStore
from secure_embed.types import Collection, Position, Ticket, Vectors

__all__ = ["Codes"]

save_records_min = 1_000  # fewer are built in 30 ms


class Codes:
    """Readers run side by side; ``lock`` is that of the collection's writers, and whoever changes rows holds it."""

    def __init__(
        self,
        collection: Collection,
        rows: Rows,
        *,
        keys: CollectionKeys,
        key_store: KeyStore,
        store: RecordStore,
        lock: RLock,
        folder: Path | None,
        bits: Callable[[], int] | None = None,
    ) -> None:
        """``folder``: where codes are saved; None: they are built at each start. ``bits``: how many a dimension they are
        to have; codes that have others are built anew at the next start."""
        self._collection = collection
        self._uuid = collection.uuid
        self._rows = rows
        self._keys = keys
        self._store = store
        self._lock = lock
        self._bits: Callable[[], int] = bits or (lambda: collection.bits)
        self._shard: RabitqShard | None = None
        self._saved = None if folder is None else SavedCodes(folder / str(collection.uuid), keys, key_store)
        self.origin: CodesOrigin | None = None  # None: not in use yet

    def shard(self) -> RabitqShard:
        """The codes, read or built now if need be; callers wait for each other meanwhile. ``origin`` says which."""
        shard = self._shard
        if shard is not None:
            return shard
        with self._lock:
            if self._shard is None:
                self.origin, shard = self._restored()
                self._shard = shard or self._build()
                if shard is None and self._shard.size >= save_records_min:
                    with suppress(Unavailable):  # a derived file: the answer does not wait for a better medium
                        self.save()
            return self._shard

    @property
    def saved_version(self) -> int | None:
        """The data version of the codes on disk; None: none are known there, or an erasure has ended them."""
        return None if self._saved is None else self._saved.version

    def save(self) -> bool:
        """Seal the codes in their file, durable on return; queries go on, writes wait. False: nothing new to save.

        Raises ``Unavailable`` (``codes_not_saved``); the service does without.
        """
        with self._lock:
            shard = self._shard
            if self._saved is None or shard is None or self._saved.version == shard.version:
                return False
            standing = Standing.now(
                self._store, self._uuid, data_version=shard.version, codebook=shard.codebook.version
            )
            self._saved.write(standing, shard.chunks())
            return True

    def _restored(self) -> tuple[CodesOrigin, RabitqShard | None]:
        """The codes as they were saved, and what was added since; None: they have to be built, never half of them."""
        codebook = self._stored_codebook()
        if self._saved is None or codebook is None:
            return CodesOrigin.ABSENT, None
        try:
            found = self._saved.read(self._store, codebook=codebook.version)
            if found is None:
                return CodesOrigin.ABSENT, None
            with closing(found.chunks) as chunks:
                shard = RabitqShard.restored(
                    chunks,
                    codebook=codebook,
                    schema=self._collection.attributes,
                    tag_attribute=self._tag_attribute,
                    open_vectors=self._rows.open_vectors,
                )
        except IntegrityFailure:
            return CodesOrigin.UNREADABLE, None
        except Conflict:
            return CodesOrigin.STALE, None
        versions = self._store.versions(self._uuid)
        outgrown = codebook.bits != self._bits() or should_retrain(codebook, versions.records)
        if shard.version + len(found.since) != versions.data or outgrown:
            return CodesOrigin.STALE, None
        self._saved.confirm(found)
        self._catch_up(shard, found.since)
        return CodesOrigin.SAVED, shard

    def _catch_up(self, shard: RabitqShard, since: Sequence[Change]) -> None:
        """Put in what was added: it lies behind everything that the shard has."""
        if not since:
            return
        for positions, vectors, metas in self._rows.opened(Position(since[0].first - 1)):
            shard.load(positions, vectors, [meta.attributes for meta in metas])
        self._pass_over(shard, [c.sequence for c in since])

    def _pass_over(self, shard: RabitqShard, sequences: Sequence[int]) -> None:
        """Changes that leave the codes as they are; the shard counts them all the same."""
        none = np.zeros(0, np.int64), np.zeros((0, self._collection.space.dimension), np.float32)
        shard.apply([Added(sequence=s, positions=none[0], vectors=none[1], attributes=()) for s in sequences])

    def add(self, added: Added) -> None:
        """The rows are durable: if the codes cannot follow, they are built again from the rows at the next use."""
        shard = self.shard()
        try:
            shard.apply([added])
        except BaseException:
            self._shard = None
            raise
        if should_retrain(shard.codebook, shard.size):
            self._shard = self._build()

    def pass_over(self, sequences: Sequence[int]) -> None:
        """Changes that leave the codes as they are."""
        if self._shard is not None:
            self._pass_over(self._shard, sequences)

    def unsave(self) -> None:
        """The saved ones leave the disk: an erasure has ended their key."""
        if self._saved is not None:
            self._saved.remove()

    def forget(self, at: Sequence[Position], *, ticket: Ticket) -> None:
        """Their bytes are overwritten before this returns. Codes that were not built have nothing to forget."""
        if self._shard is None:
            return
        try:
            self._shard.forget(at, version=self._store.versions(self._uuid).data, ticket=ticket)
        except BaseException:
            self._shard = None
            raise

    def end(self) -> None:
        """They leave memory and disk."""
        shard, self._shard = self._shard, None
        if shard is not None:
            shard.close()
        self.unsave()

    # --- building --------------------------------------------------------------------------------------------------

    def trial(self, bits: int) -> RabitqShard:
        """Codes as they would be with so many bits a dimension, beside those that answer: kept nowhere, told of no
        change, without attributes. The caller closes them."""
        versions = self._store.versions(self._uuid)
        held = self._stored_codebook()
        sample = self._sample(versions.records)
        try:
            version = 1 if held is None else held.version + 1
            codebook = Codebook.train(sample, version=version, records=versions.records, bits=bits)
        finally:
            sample.fill(0)
        shard = self._empty(codebook, versions.data)
        try:
            for positions, vectors, _ in self._rows.opened():
                shard.load(positions, vectors, [{}] * len(positions))
        except BaseException:
            shard.close()
            raise
        return shard

    def adopt(self, codebook: Codebook) -> None:
        """Build the codes anew with a codebook from a :meth:`trial`. Where another one came first, with one like it."""
        with self._lock:
            with suppress(Conflict):
                self._put(codebook)
            self._shard = self._build()
            self.unsave()  # what is saved has this data version too, and the codebook from before
            with suppress(Unavailable):  # a derived file, as above
                self.save()

    def _tag_attribute(self, name: str, value: str) -> bytes:
        return self._keys.tag(TagKind.ATTRIBUTE, *attribute_parts(name, value))

    def _build(self) -> RabitqShard:
        versions = self._store.versions(self._uuid)
        shard = self._empty(self._codebook(versions.records), versions.data)
        for positions, vectors, metas in self._rows.opened():
            shard.load(positions, vectors, [meta.attributes for meta in metas])
        return shard

    def _empty(self, codebook: Codebook, version: int) -> RabitqShard:
        return RabitqShard(
            codebook=codebook,
            schema=self._collection.attributes,
            tag_attribute=self._tag_attribute,
            open_vectors=self._rows.open_vectors,
            version=version,
        )

    def _codebook(self, records: int) -> Codebook:
        """The stored one, or a new one where there is none yet, the collection has outgrown it, or chosen other bits."""
        held, bits = self._stored_codebook(), self._bits()
        if held is not None and held.bits == bits and not should_retrain(held, records):
            return held
        sample = self._sample(records) if records else None
        if sample is None or not len(sample):
            if held is not None:
                return held
            made = Codebook.draw(self._collection.space.dimension, bits=bits)
        else:
            # A new rotation with each codebook: what was learned of the old one is worth nothing.
            version = 1 if held is None else held.version + 1
            made = Codebook.train(sample, version=version, records=records, bits=bits)
            sample.fill(0)
        self._put(made)
        return made

    def _put(self, made: Codebook) -> None:
        self._store.put_codebook(self._uuid, made.version, self._keys.seal_index(IndexValue.CODEBOOK, made.to_bytes()))

    def _stored_codebook(self) -> Codebook | None:
        stored = self._store.codebook(self._uuid)
        return None if stored is None else Codebook.from_bytes(self._keys.open_index(IndexValue.CODEBOOK, stored[1]))

    def _sample(self, records: int) -> Vectors:
        """Every n-th vector, as many as training looks at; the caller wipes them."""
        step = max(1, records // sample_for(records))
        parts = [vectors[::step].copy() for _, vectors, _ in self._rows.opened()]
        whole = np.concatenate(parts) if parts else np.zeros((0, self._collection.space.dimension), np.float32)
        for part in parts:
            part.fill(0)
        return whole
