"""One collection, opened: its keys, its rows and its codes, and the joins between them.

The rooms below do not know each other: store/ sees sealed bytes, index/ sees positions and vectors, keys/ sees both and
keeps neither. Here a record becomes a sealed row and a code, and a position becomes a record again. Who may ask, what
is logged and in which order things happen is the vault's.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import BoundedSemaphore
from uuid import UUID

import numpy as np
import numpy.typing as npt

from secure_embed.collection import figures
from secure_embed.collection.codes import Codes
from secure_embed.collection.opening import Progress
from secure_embed.collection.pause import Pause
from secure_embed.collection.resealing import open_all, reseal
from secure_embed.collection.room import NoLimit, Purpose, Room
from secure_embed.collection.rows import Meta, Rows
from secure_embed.collection.saved_codes import CodesOrigin
from secure_embed.collection.tuned import Tuned
from secure_embed.collection.turns import Turns
from secure_embed.errors import Conflict, InvalidRequest, SecureEmbedError, Unavailable
from secure_embed.index import Added, Codebook, Effort, RabitqShard
from secure_embed.keys import CollectionKeys, KeyStore, Shredded, TagKind
from secure_embed.store import Appended, RecordStore, RequestKey, SealedRow
from secure_embed.types import Action, Collection, Position, Positions, Record, Ticket, Vectors

__all__ = ["Holding"]

rotate_at_once_max = 50_000  # records; re-wrapping costs about 1.2 microseconds each

_TYPES: Mapping[str, type] = {"string": str, "long": int, "bool": bool}


class Holding:
    """Readers run side by side; writers take turns. Codes come into memory at the first use, in the background.

    Whoever has one from :class:`~secure_embed.collection.holdings.Holdings` has it on lease, and uses it only so long.
    """

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
        room: Room | None = None,
        trainings: BoundedSemaphore | None = None,
        wait_s: float | None = None,
        tuned: Callable[[], Tuned | None] = lambda: None,
    ) -> None:
        """``pause``: what can hold writers off; ``codes_folder``: where codes are saved, or None: they are built at each
        start; ``mark``: makes what goes into the store with each change (rollback.py); ``room``: asked before memory is
        taken; ``trainings``: see :class:`Codes`; ``wait_s``: how long :meth:`shard` waits for codes, or None: until
        they are there; ``tuned``: says what the last tuning has put in force."""
        self.collection = collection
        self._keys = keys
        self._key_store = key_store
        self._store = store
        self._space = collection.space.digest
        self._pause = Pause() if pause is None else pause
        self._turns = Turns()
        self._mark = mark
        self._room = NoLimit() if room is None else room
        self._wait_s = wait_s
        self._tuned = tuned
        self._rows = Rows(collection, keys, store)
        self._codes = Codes(
            collection,
            self._rows,
            keys=keys,
            key_store=key_store,
            store=store,
            turns=self._turns,
            folder=codes_folder,
            room=_Beside(self._room, lambda: self._keys_bytes),
            trainings=trainings,
            bits=lambda: self.bits,
        )
        self._keys_bytes = 0
        self._count_keys()

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
        """The codes, read or built now if need be; ``codes_origin`` says which.

        Raises ``Unavailable``: ``index_building`` when they are not there in time, ``collection_over_budget``,
        ``memory_in_use``.
        """
        return self._codes.shard(self._wait_s)

    def warm(self) -> None:
        """Bring the codes into memory, however long that takes. Raises ``Unavailable`` when there is no room."""
        self._codes.shard()

    def keep_codes(self) -> None:
        """What is done from time to time: a new codebook where the old one is outgrown, and the codes saved."""
        self._codes.retrain_if_due(at_leisure=True)
        self._codes.save()

    def save_codes(self) -> bool:
        """Seal the codes in their file; see :meth:`Codes.save`."""
        return self._codes.save()

    @property
    def codes_saved_version(self) -> int | None:
        return self._codes.saved_version

    @property
    def codes_origin(self) -> CodesOrigin | None:
        """None: not in use yet."""
        return self._codes.origin

    @property
    def codes_progress(self) -> Progress | None:
        """None: no codes are on their way into memory."""
        return self._codes.progress

    # --- memory ------------------------------------------------------------------------------------------------------

    @property
    def memory_bytes(self) -> int:
        """What keys and codes take now. A number that changes keep up to date, so that nobody waits for it."""
        return self._keys_bytes + self._codes.memory_bytes

    @property
    def memory_needed(self) -> int:
        """What they would take with the codes in memory."""
        return self._keys_bytes + self._codes.need()

    @property
    def busy(self) -> bool:
        return self._codes.busy

    def _count_keys(self) -> None:
        self._keys_bytes = self._keys_with(0)

    def _keys_with(self, more: int) -> int:
        versions = self._store.versions(self.uuid)
        return figures.keys_bytes(versions.next_position + more, versions.records + more)

    @contextmanager
    def _growing(self, more: int) -> Iterator[None]:
        """Room for so many more records, before anything of them is written."""
        self._room.claim("growth", self._keys_with(more) + self._codes.need(more))
        try:
            yield
        finally:
            self._count_keys()
            self._room.settle("growth")

    # --- tuning ----------------------------------------------------------------------------------------------------

    @property
    def bits(self) -> int:
        """A dimension in a code: those of the last tuning, or those that the collection was made with."""
        tuned = self._tuned()
        return self.collection.bits if tuned is None else tuned.bits

    def effort(self, untuned: Effort, codes: RabitqShard) -> Effort:
        """How far searches of ``codes`` go. ``untuned``: where nothing was measured on such codes."""
        tuned = self._tuned()
        return untuned if tuned is None else tuned.effort_for(untuned, codes.codebook, codes.size)

    def trial_codes(self, bits: int, *, ticket: Ticket) -> RabitqShard:
        """See :meth:`Codes.trial`."""
        ticket.require(Action.COLLECTION_TUNE, openings=self.records)
        return self._codes.trial(bits)

    def recode(self, codebook: Codebook) -> None:
        """Build the codes anew with a codebook from a trial; callers go on with the codes from before."""
        self._codes.adopt(codebook)

    def open_vectors(self, at: Positions, out: npt.NDArray[np.float16], *, ticket: Ticket) -> npt.NDArray[np.bool_]:
        """See :meth:`Rows.open_vectors`; the caller wipes ``out``."""
        ticket.require(Action.COLLECTION_TUNE, openings=len(at))
        return self._rows.open_vectors(at, out)

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
        """Keys, then rows, then codes; durable on return, all or nothing. ``vectors``: (n, d) float32.

        Raises ``Unavailable`` (``collection_over_budget``, ``memory_in_use``) before anything is written.
        """
        self._codes.prepare()
        with self._turn(), self._growing(len(records)):
            if request is not None and (done := self.replayed(request)) is not None:
                return done
            id_tags = [self._keys.tag(TagKind.RECORD_ID, record.id) for record in records]
            if self._store.locate(self.uuid, id_tags):
                raise Conflict("a record with one of these ids is there already", code="record_exists")
            first = self.next_position
            wrapped, sealed = self._keys.seal_records(
                first,
                [None if r.subject is None else self._keys.tag(TagKind.SUBJECT, r.subject) for r in records],
                [self._rows.plain(r, v) for r, v in zip(records, vectors.astype("<f2"), strict=True)],
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
            self._codes.add(
                Added(
                    sequence=appended.data_version,
                    positions=positions,
                    vectors=vectors,
                    attributes=[r.attributes for r in records],
                )
            )
            return appended

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One writer at a time, and none while writers are held off."""
        with self._pause.writing(), self._turns:
            yield

    def _marked(self) -> bytes | None:
        return None if self._mark is None else self._mark()

    @property
    def next_position(self) -> Position:
        """One past the highest position that ever had a key here."""
        # Keys go first, so a crash between the two leaves keys without rows: their positions are passed over.
        return max(self._store.versions(self.uuid).next_position, self._key_store.next_position(self.uuid))

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
        """What is sealed beside text and vector. Erased and expired records are absent; see :meth:`Rows.describe`."""
        return self._rows.describe(at, also_expired=also_expired)

    def texts(self, at: Sequence[Position], *, ticket: Ticket) -> dict[Position, str]:
        """Open texts. Erased records are absent."""
        ticket.require(Action.QUERY, Action.RECORD_READ, openings=len(at))
        return self._rows.texts(at)

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
        with self._turn():
            return self._keys.rotate(self._key_store)

    def segments(self) -> Sequence[tuple[Position, Position]]:
        """What one :meth:`reseal` rewrites, first and end, ascending."""
        return self._store.segment_bounds(self.uuid)

    def reseal(self, bounds: tuple[Position, Position]) -> int:
        """Every value of a segment's records anew, under new record keys; how many records. Readers go on."""
        with self._turn():
            before = self.data_version
            count = reseal(self._keys, self._key_store, self._store, self._space, bounds, mark=self._marked)
            self._codes.pass_over(range(before + 1, self.data_version + 1))
            return count

    def open_all(self) -> int:
        """Open every sealed value and keep none; how many records opened. Raises ``IntegrityFailure``."""
        return open_all(self._keys, self._store, self._space, self.collection.space.dimension)

    # --- the end ---------------------------------------------------------------------------------------------------

    def erase(self, at: Sequence[Position], *, ticket: Ticket) -> Shredded:
        """Keys first, then rows and codes; idempotent. It ends with :meth:`rotate`, sooner or later."""
        with self._turn():
            shredded = self._key_store.shred(self.uuid, at, ticket=ticket)
            self._keys.discard(at)
            self._codes.unsave()
            self._store.erase(self.uuid, at, ticket=ticket, mark=self._marked())
            self._codes.forget(at, ticket=ticket)
            return shredded

    def end(self) -> None:
        """Answer nothing any more: keys and codes leave memory, and saved codes the disk. What is stored is not ended
        here (:meth:`Holdings.erase`)."""
        self._codes.stop()
        with self._turn():
            self._codes.drop()
            self._codes.unsave()
            self._keys.close()

    def close(self) -> None:
        """Save the codes for the next time, if it can be done, and overwrite codes and keys in memory."""
        self._codes.stop()
        try:
            with suppress(Unavailable, Conflict):  # a derived file; the next start does without
                self.save_codes()
        finally:
            self._codes.drop()
            self._keys.close()
            with suppress(SecureEmbedError):  # a store that is closed already holds nothing
                self._store.let_go(self.uuid)


class _Beside:
    """Room for codes: they are claimed together with the keys, which are there already."""

    def __init__(self, room: Room, keys_bytes: Callable[[], int]) -> None:
        self._room = room
        self._keys_bytes = keys_bytes

    def claim(self, purpose: Purpose, size: int) -> None:
        self._room.claim(purpose, self._keys_bytes() + size)

    def settle(self, purpose: Purpose) -> None:
        self._room.settle(purpose)
