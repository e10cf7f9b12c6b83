"""One collection, opened: its keys, its rows and its codes, and the joins between them.

The rooms below do not know each other: store/ sees sealed bytes, index/ sees positions and vectors, keys/ sees both and
keeps neither. Here a record becomes a sealed row and a code, and a position becomes a record again. Who may ask, what
is logged and in which order things happen is the vault's.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import TypeVar
from uuid import UUID

import numpy as np
import numpy.typing as npt
import orjson

from secure_embed.collection.pause import Pause
from secure_embed.collection.resealing import open_all, reseal
from secure_embed.collection.saved_codes import CodesOrigin, SavedCodes, Standing
from secure_embed.errors import Conflict, IntegrityFailure, InvalidRequest, SealedValueUnreadable, Unavailable
from secure_embed.index import Added, Codebook, RabitqShard, sample_for, should_retrain
from secure_embed.keys import CollectionKeys, IndexValue, KeyStore, Shredded, TagKind, attribute_parts
from secure_embed.store import Appended, Change, RecordStore, RequestKey, SealedRow
from secure_embed.types import (
    Action,
    Attributes,
    AttributeValue,
    Collection,
    Field,
    Position,
    Positions,
    Record,
    Ticket,
    Vectors,
)

__all__ = ["Holding", "Meta"]

T = TypeVar("T")

save_records_min = 1_000  # fewer are built in 30 ms
BEFORE_ALL = Position(-1)
load_rows = 2_000  # rows opened at a time while the codes are built
rotate_at_once_max = 50_000  # records; re-wrapping costs about 1.2 microseconds each

_TYPES: Mapping[str, type] = {"string": str, "long": int, "bool": bool}


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What is sealed of a record beside its text and vector."""

    id: str
    subject: str | None
    attributes: Attributes
    metadata: Mapping[str, AttributeValue]
    expires_unix: int | None

    def to_bytes(self) -> bytes:
        return orjson.dumps({name: getattr(self, name) for name in self.__slots__})

    def expired(self) -> bool:
        return self.expires_unix is not None and self.expires_unix <= time.time()

    @classmethod
    def from_bytes(cls, raw: bytes) -> "Meta":
        return cls(**orjson.loads(raw))


class Holding:
    """Readers run side by side; writers take turns. Codes are read from their sealed file at the first use, or
    built from the sealed vectors."""

    def __init__(
        self,
        collection: Collection,
        *,
        keys: CollectionKeys,
        key_store: KeyStore,
        store: RecordStore,
        pause: Pause | None = None,
        codes_folder: Path | None = None,
        mark: Callable[[], bytes] | None = None,
    ) -> None:
        """``pause``: what can hold writers off; ``codes_folder``: where codes are saved, or None: they are built at each
        start; ``mark``: makes what goes into the store with each change (rollback.py)."""
        self.collection = collection
        self._keys = keys
        self._key_store = key_store
        self._store = store
        self._space = collection.space.digest
        self._pause = Pause() if pause is None else pause
        self._writing = RLock()
        self._mark = mark
        self._shard: RabitqShard | None = None
        file = None if codes_folder is None else codes_folder / str(collection.uuid)
        self._saved = None if file is None else SavedCodes(file, keys, key_store)
        self.codes_origin: CodesOrigin | None = None  # None: not in use yet

    @property
    def uuid(self) -> UUID:
        return self.collection.uuid

    @property
    def records(self) -> int:
        return self._store.versions(self.uuid).records

    @property
    def data_version(self) -> int:
        return self._store.versions(self.uuid).data

    def tag(self, kind: TagKind, value: str | bytes) -> bytes:
        return self._keys.tag(kind, value)

    def ledger_tags(self, at: Sequence[Position]) -> list[bytes]:
        """What the risk ledger knows the records by: a position is a record's for ever, so its hash is too."""
        return [self._keys.tag(TagKind.LEDGER_RECORD, str(int(position))) for position in at]

    # --- codes -----------------------------------------------------------------------------------------------------

    def shard(self) -> RabitqShard:
        """The codes, read or built now if need be; callers wait for each other meanwhile. ``codes_origin`` says which."""
        shard = self._shard
        if shard is not None:
            return shard
        with self._writing:
            if self._shard is None:
                self.codes_origin, shard = self._restored()
                self._shard = shard or self._build()
                if shard is None and self._shard.size >= save_records_min:
                    with suppress(Unavailable):  # a derived file: the answer does not wait for a better medium
                        self.save_codes()
            return self._shard

    @property
    def codes_saved_version(self) -> int | None:
        """The data version of the codes on disk; None: none are known there, or an erasure has ended them."""
        return None if self._saved is None else self._saved.version

    def save_codes(self) -> bool:
        """Seal the codes in their file, durable on return; queries go on, writes wait. False: nothing new to save.

        Raises ``Unavailable`` (``codes_not_saved``); the service does without.
        """
        with self._writing:
            shard = self._shard
            if self._saved is None or shard is None or self._saved.version == shard.version:
                return False
            standing = Standing.now(self._store, self.uuid, data_version=shard.version, codebook=shard.codebook.version)
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
                    schema=self.collection.attributes,
                    tag_attribute=self._tag_attribute,
                    open_vectors=self._open_vectors,
                )
        except IntegrityFailure:
            return CodesOrigin.UNREADABLE, None
        except Conflict:
            return CodesOrigin.STALE, None
        versions = self._store.versions(self.uuid)
        if shard.version + len(found.since) != versions.data or should_retrain(codebook, versions.records):
            return CodesOrigin.STALE, None
        self._saved.confirm(found)
        self._catch_up(shard, found.since)
        return CodesOrigin.SAVED, shard

    def _catch_up(self, shard: RabitqShard, since: Sequence[Change]) -> None:
        """Put in what was added: it lies behind everything that the shard has."""
        if not since:
            return
        for positions, vectors, metas in self._opened(Position(since[0].first - 1)):
            shard.load(positions, vectors, [meta.attributes for meta in metas])
        self._pass_over(shard, [c.sequence for c in since])

    def _pass_over(self, shard: RabitqShard, sequences: Sequence[int]) -> None:
        """Changes that leave the codes as they are; the shard counts them all the same."""
        none = np.zeros(0, np.int64), np.zeros((0, self.collection.space.dimension), np.float32)
        shard.apply([Added(sequence=s, positions=none[0], vectors=none[1], attributes=()) for s in sequences])

    def _tag_attribute(self, name: str, value: str) -> bytes:
        return self._keys.tag(TagKind.ATTRIBUTE, *attribute_parts(name, value))

    def _build(self) -> RabitqShard:
        versions = self._store.versions(self.uuid)
        shard = RabitqShard(
            codebook=self._codebook(versions.records),
            schema=self.collection.attributes,
            tag_attribute=self._tag_attribute,
            open_vectors=self._open_vectors,
            version=versions.data,
        )
        for positions, vectors, metas in self._opened():
            shard.load(positions, vectors, [meta.attributes for meta in metas])
        return shard

    def _codebook(self, records: int) -> Codebook:
        """The stored one, or a new one where there is none yet or the collection has outgrown it."""
        held = self._stored_codebook()
        if held is not None and not should_retrain(held, records):
            return held
        sample = self._sample(records) if records else None
        if sample is None or not len(sample):
            if held is not None:
                return held
            made = Codebook.draw(self.collection.space.dimension)
        else:
            # A new rotation with each codebook: what was learned of the old one is worth nothing.
            made = Codebook.train(sample, version=1 if held is None else held.version + 1, records=records)
            sample.fill(0)
        self._store.put_codebook(self.uuid, made.version, self._keys.seal_index(IndexValue.CODEBOOK, made.to_bytes()))
        return made

    def _stored_codebook(self) -> Codebook | None:
        stored = self._store.codebook(self.uuid)
        return None if stored is None else Codebook.from_bytes(self._keys.open_index(IndexValue.CODEBOOK, stored[1]))

    def _sample(self, records: int) -> Vectors:
        """Every n-th vector, as many as training looks at; the caller wipes them."""
        step = max(1, records // sample_for(records))
        parts = [vectors[::step].copy() for _, vectors, _ in self._opened()]
        whole = np.concatenate(parts) if parts else np.zeros((0, self.collection.space.dimension), np.float32)
        for part in parts:
            part.fill(0)
        return whole

    def _opened(self, after: Position = BEFORE_ALL) -> Iterator[tuple[Positions, Vectors, list[Meta]]]:
        """All records past ``after`` in their order, ``load_rows`` at a time. Buffers are wiped behind the caller."""
        half = np.zeros((load_rows, self.collection.space.dimension), np.float16)
        while rows := self._store.scan(self.uuid, {Field.VECTOR, Field.META}, after=after, limit=load_rows):
            after = rows[-1].position
            positions = np.array([row.position for row in rows], np.int64)
            there = self._keys.open_vectors_into(
                positions, [row.fields[Field.VECTOR] for row in rows], half[: len(rows)], self._space
            )
            metas = [self._open_meta(row) for row, has_key in zip(rows, there, strict=True) if has_key]
            vectors = half[: len(rows)].astype(np.float32)
            found = vectors if there.all() else vectors[there]
            if metas:
                yield positions[there], found, [meta for meta in metas if meta is not None]
            found.fill(0)
            vectors.fill(0)
            half.fill(0)

    def _open_vectors(self, at: Positions, out: npt.NDArray[np.float16]) -> npt.NDArray[np.bool_]:
        asked = [Position(p) for p in at.tolist()]

        def read() -> npt.NDArray[np.bool_]:
            rows = self._store.fetch(self.uuid, asked, {Field.VECTOR})
            sealed = [rows[p].fields[Field.VECTOR] if p in rows else None for p in asked]
            return self._keys.open_vectors_into(at, sealed, out, self._space)

        return self._steady(read)

    # --- rows ------------------------------------------------------------------------------------------------------

    def check(self, records: Sequence[Record]) -> None:
        """Raise ``InvalidRequest`` for an attribute that the collection does not declare, or of another type, and for
        a record whose end is past (``expires_at_invalid``)."""
        declared = self.collection.attributes
        for record in records:
            if record.expires_unix is not None and record.expires_unix <= time.time():
                raise InvalidRequest("a record's end is past already", code="expires_at_invalid")
            for name, value in record.attributes.items():
                if name not in declared:
                    raise InvalidRequest("an attribute is not declared in this collection", code="attribute_undeclared")
                if type(value) is not _TYPES[declared[name]]:
                    raise InvalidRequest("an attribute's value has another type", code="attribute_type")

    def replayed(self, request: RequestKey) -> Appended | None:
        return self._store.replay(self.uuid, request)

    def append(self, records: Sequence[Record], vectors: Vectors, *, request: RequestKey | None) -> Appended:
        """Keys, then rows, then codes; durable on return, all or nothing. ``vectors``: (n, d) float32."""
        with self._pause.writing(), self._writing:
            if request is not None and (done := self.replayed(request)) is not None:
                return done
            id_tags = [self._keys.tag(TagKind.RECORD_ID, record.id) for record in records]
            if self._store.locate(self.uuid, id_tags):
                raise Conflict("a record with one of these ids is there already", code="record_exists")
            shard = self.shard()
            first = self.next_position
            wrapped, sealed = self._keys.seal_records(
                first,
                [None if r.subject is None else self._keys.tag(TagKind.SUBJECT, r.subject) for r in records],
                [self._plain(r, v) for r, v in zip(records, vectors.astype("<f2"), strict=True)],
                self._space,
            )
            self._key_store.put(self.uuid, wrapped)
            rows = [
                SealedRow(position=Position(first + n), id_tag=tag, fields=fields, expires_unix=record.expires_unix)
                for n, (tag, fields, record) in enumerate(zip(id_tags, sealed, records, strict=True))
            ]
            appended = self._store.append(self.uuid, rows, request=request, mark=self._marked())
            self._keys.admit(wrapped)
            positions = np.arange(first, first + len(records), dtype=np.int64)
            self._apply(
                shard,
                Added(
                    sequence=appended.data_version,
                    positions=positions,
                    vectors=vectors,
                    attributes=[r.attributes for r in records],
                ),
            )
            return appended

    def _marked(self) -> bytes | None:
        return None if self._mark is None else self._mark()

    @property
    def next_position(self) -> Position:
        """One past the highest position that ever had a key here."""
        # Keys go first, so a crash between the two leaves keys without rows: their positions are passed over.
        return max(self._store.versions(self.uuid).next_position, self._key_store.next_position(self.uuid))

    def _apply(self, shard: RabitqShard, added: Added) -> None:
        """The rows are durable: if the codes cannot follow, they are built again from the rows at the next use."""
        try:
            shard.apply([added])
        except BaseException:
            self._shard = None
            raise
        if should_retrain(shard.codebook, shard.size):
            self._shard = self._build()

    @staticmethod
    def _plain(record: Record, vector: npt.NDArray[np.float16]) -> dict[Field, bytes]:
        meta = Meta(
            id=record.id,
            subject=record.subject,
            attributes=record.attributes,
            metadata=record.metadata,
            expires_unix=record.expires_unix,
        )
        return {Field.VECTOR: vector.tobytes(), Field.TEXT: record.text.encode(), Field.META: meta.to_bytes()}

    def locate(self, record_id: str) -> Position | None:
        tag = self._keys.tag(TagKind.RECORD_ID, record_id)
        return self._store.locate(self.uuid, [tag]).get(tag)

    def of_subject(self, subject: str) -> tuple[Position, ...]:
        return self._key_store.positions_of_subject(self.uuid, self._keys.tag(TagKind.SUBJECT, subject))

    def subjects_among(self, subjects: Sequence[str]) -> set[str]:
        """Which of them have a record here; one pass over the keys, about 1 s a million."""
        named = {self._keys.tag(TagKind.SUBJECT, subject): subject for subject in subjects}
        tags = {key.subject_tag for key in self._key_store.wrapped(self.uuid)}
        return {subject for tag, subject in named.items() if tag in tags}

    def expired(self, now_unix: int, limit: int) -> Sequence[Position]:
        """Records whose end has come, the earliest first."""
        return self._store.expired(self.uuid, now_unix, limit)

    def describe(self, at: Sequence[Position], *, also_expired: bool = False) -> dict[Position, Meta]:
        """Open what is sealed beside text and vector. Erased records are absent, and so are those whose end has come:
        nothing is answered of them, whether or not a sweep has erased them yet."""

        def read() -> dict[Position, Meta | None]:
            rows = self._store.fetch(self.uuid, at, {Field.META})
            return {p: self._open_meta(row) for p, row in rows.items()}

        opened = self._steady(read)
        return {p: meta for p, meta in opened.items() if meta is not None and (also_expired or not meta.expired())}

    def texts(self, at: Sequence[Position], *, ticket: Ticket) -> dict[Position, str]:
        """Open texts. Erased records are absent."""
        ticket.require(Action.QUERY, Action.RECORD_READ, openings=len(at))

        def read() -> dict[Position, bytes | None]:
            rows = self._store.fetch(self.uuid, at, {Field.TEXT})
            return {p: self._open(row, Field.TEXT) for p, row in rows.items()}

        opened = self._steady(read)
        return {p: raw.decode() for p, raw in opened.items() if raw is not None}

    def _open_meta(self, row: SealedRow) -> Meta | None:
        raw = self._open(row, Field.META)
        if raw is None:
            return None
        meta = Meta.from_bytes(raw)
        if self._keys.tag(TagKind.RECORD_ID, meta.id) != row.id_tag:
            raise IntegrityFailure("a row's identifier is not that of its content", code="row_mismatch")
        return meta

    def _open(self, row: SealedRow, field: Field) -> bytes | None:
        return self._keys.open(row.position, field, row.fields[field], self._space)

    # --- keys --------------------------------------------------------------------------------------------------------

    @property
    def key_version(self) -> int:
        return self._keys.version

    @property
    def rotates_at_once(self) -> bool:
        """Whether an erasure here ends with a new key version before it is answered."""
        return self.records <= rotate_at_once_max

    def rotate(self) -> int:
        """A new version of the collection's key; the old one is destroyed. Returns the new one."""
        with self._pause.writing(), self._writing:
            return self._keys.rotate(self._key_store)

    def segments(self) -> Sequence[tuple[Position, Position]]:
        """What one :meth:`reseal` rewrites, first and end, ascending."""
        return self._store.segment_bounds(self.uuid)

    def reseal(self, bounds: tuple[Position, Position]) -> int:
        """Every value of a segment's records anew, under new record keys; how many records. Readers go on."""
        with self._pause.writing(), self._writing:
            before = self.data_version
            count = reseal(self._keys, self._key_store, self._store, self._space, bounds, mark=self._marked)
            if self._shard is not None:
                self._pass_over(self._shard, range(before + 1, self.data_version + 1))
            return count

    def open_all(self) -> int:
        """Open every sealed value and keep none; how many records opened. Raises ``IntegrityFailure``."""
        return open_all(self._keys, self._store, self._space, self.collection.space.dimension)

    def _steady(self, read: Callable[[], T]) -> T:
        """Read rows and open them; once more when other keys took the place of theirs in between."""
        while True:
            epoch = self._keys.epoch
            try:
                return read()
            except SealedValueUnreadable:
                if self._keys.epoch == epoch:
                    raise

    # --- the end ---------------------------------------------------------------------------------------------------

    def erase(self, at: Sequence[Position], *, ticket: Ticket) -> Shredded:
        """Keys first, then rows and codes; idempotent. It ends with :meth:`rotate`, sooner or later."""
        with self._pause.writing(), self._writing:
            shard = self._shard  # codes that were not built have nothing to forget
            shredded = self._key_store.shred(self.uuid, at, ticket=ticket)
            self._keys.discard(at)
            if self._saved is not None:
                self._saved.remove()  # its key is gone already
            self._store.erase(self.uuid, at, ticket=ticket, mark=self._marked())
            if shard is not None:
                try:
                    shard.forget(at, version=self._store.versions(self.uuid).data, ticket=ticket)
                except BaseException:
                    self._shard = None
                    raise
            return shredded

    def end(self) -> None:
        """Answer nothing any more: keys and codes leave memory, and saved codes the disk. What is stored is not ended
        here (:meth:`Holdings.erase`)."""
        with self._pause.writing(), self._writing:
            shard, self._shard = self._shard, None
            if shard is not None:
                shard.close()
            if self._saved is not None:
                self._saved.remove()
            self._keys.close()

    def close(self) -> None:
        """Save the codes for the next start, if it can be done, and drop the keys."""
        try:
            with suppress(Unavailable, Conflict):  # a derived file; the next start does without
                self.save_codes()
        finally:
            self._keys.close()
