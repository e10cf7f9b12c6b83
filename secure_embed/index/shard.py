"""One collection's codes in one process: which records may answer, which are near, and exactly how near.

What may not be in here: keys, sealed bytes, texts, or a vector that outlives the call it came with. The steps are in
this file; what FAISS does is in ``_codes``, filters in ``_filters``, opening and wiping in ``_rescore``.
"""

import math
import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Self

import numpy as np
import numpy.typing as npt

from secure_embed.bulk import Found
from secure_embed.deadline import Deadline
from secure_embed.errors import Conflict, InvalidRequest, Unavailable
from secure_embed.index._asking import Asked, Sought
from secure_embed.index._chunks import ChunkReader, Piece, chunks_of
from secure_embed.index._columns import AttributeColumns, TagAttribute
from secure_embed.index._filters import ensure_own
from secure_embed.index._gathering import Gathering
from secure_embed.index._invariant import invariant
from secure_embed.index._lock import ReadersWriterLock
from secure_embed.index._rescore import Estimated, Rescorer
from secure_embed.index._selecting import Selections
from secure_embed.index._slots import SlotMap
from secure_embed.index.codebook import Codebook
from secure_embed.index.protocol import (
    Added,
    Candidates,
    Effort,
    Erased,
    Forgotten,
    OpenVectors,
    Scored,
    Selection,
    never,
)
from secure_embed.types import (
    Action,
    Attributes,
    AttributeType,
    Expression,
    Position,
    Positions,
    RowFilter,
    Ticket,
    Vectors,
)

__all__ = ["Footprint", "RabitqShard"]

k_max = 10_000
# Threads that search at a time, and queries that one of them answers in one go: docs/decisions/0024.
lanes, together_max = max(1, min(len(os.sched_getaffinity(0)), 4)), 4
length_error_max = 0.01  # of a unit vector; fp16 rounding stays below 0.001


def _ensure_k(k: int) -> None:
    if not 1 <= k <= k_max:
        raise InvalidRequest(f"k is 1 to {k_max}", code="k_invalid")


def _to_open(
    found: Candidates, query: Vectors, *, k: int, effort: Effort, ticket: Ticket, deadline: Deadline
) -> Estimated:
    """Raises ``SecureEmbedError`` (``ticket_refused``) before anything is opened."""
    ticket.require(Action.QUERY, Action.COLLECTION_TUNE, openings=len(found.positions))
    return Estimated(
        at=found.positions,
        estimates=found.estimates,
        query=query,
        k=k,
        margin=max(effort.margin, found.margin_min),
        deadline=deadline,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Bytes in memory that are derived from plaintext, spare room included."""

    records: int
    code_bytes: int  # one record's code
    codes: int  # all codes, ids and where they lie
    positions: int
    attributes: int
    codebook: int  # rotation and centroids, and what is made of them to search with; once for the collection

    @property
    def bytes_a_record(self) -> float:
        return (self.codes + self.positions + self.attributes) / max(self.records, 1)


class RabitqShard:
    """A :class:`~secure_embed.index.protocol.Shard` over FAISS' ``IndexIVFRaBitQ``.

    ``version``: the sequence number that the first :meth:`load` stands for; 0 for an empty collection.
    ``tag_attribute``: keyed hash (32 bytes) of a string attribute's name and value; no such string is kept.
    """

    def __init__(
        self,
        *,
        codebook: Codebook,
        schema: Mapping[str, AttributeType],
        tag_attribute: TagAttribute,
        open_vectors: OpenVectors,
        version: int = 0,
    ) -> None:
        from secure_embed.index._codes import CodeLists  # FAISS loads with the first shard
        from secure_embed.index._search import search_over

        self._codebook = codebook
        self._codes = CodeLists(codebook)
        self._search = search_over(codebook, self._codes)
        self._slots = SlotMap()
        self._columns = AttributeColumns(schema, tag_attribute)
        self._rescorer = Rescorer(open_vectors, codebook.dimension)
        self._version = version
        self._lock = ReadersWriterLock()
        self._changing = Lock()  # one change at a time prepares itself; readers are shut out only while it is put in
        self._whole = True
        self._selections = Selections(self._slots, self._columns, self._codes)
        self._gathering: Gathering[tuple[Asked, Ticket], Scored] = Gathering(lanes=lanes, together_max=together_max)

    @classmethod
    def restored(
        cls,
        chunks: Iterable[Piece],
        *,
        codebook: Codebook,
        schema: Mapping[str, AttributeType],
        tag_attribute: TagAttribute,
        open_vectors: OpenVectors,
    ) -> Self:
        """The shard whose :meth:`chunks` these were: same answers, same version; nothing is opened or coded anew.

        Each chunk is read before the next is asked for, and wiped where it can be written to. Raises
        ``IntegrityFailure`` (``codes_unreadable``) for anything else than what was written, ``Conflict``
        (``codebook_version``) for codes that were made with another codebook.
        """
        from secure_embed.index._saved import SavedHead, restore

        shard = cls(codebook=codebook, schema=schema, tag_attribute=tag_attribute, open_vectors=open_vectors)
        reader = ChunkReader(chunks)
        try:
            head = SavedHead.read(reader, codebook, shard._codes.code_bytes)
            restore(reader, head, codes=shard._codes, slots=shard._slots, columns=shard._columns)
        except BaseException:
            shard.close()
            raise
        finally:
            reader.wipe()
        shard._version = head.version
        return shard

    @property
    def codebook(self) -> Codebook:
        return self._codebook

    @property
    def version(self) -> int:
        return self._version

    @property
    def size(self) -> int:
        return self._slots.records

    def footprint(self) -> Footprint:
        with self._lock.reading():
            self._ensure_whole()
            return Footprint(
                records=self.size,
                code_bytes=self._codes.code_bytes,
                codes=self._codes.memory_bytes,
                positions=self._slots.memory_bytes,
                attributes=self._columns.memory_bytes,
                codebook=self._codebook.rotation.nbytes + self._codebook.centroids.nbytes + self._search.memory_bytes,
            )

    def _ensure_whole(self) -> None:
        if not self._whole:
            raise Unavailable("the index is closed or has to be built again", code="index_unavailable")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A change that breaks off halfway (no memory left) leaves a shard that answers nothing: fail closed."""
        with self._lock.writing():
            self._whole = False
            self._selections.changed()
            yield
            self._whole = True

    @contextmanager
    def _one_change(self) -> Iterator[None]:
        with self._changing:
            self._ensure_whole()
            yield

    # --- queries ---------------------------------------------------------------------------------------------------

    def select(self, rows: RowFilter, own: Expression | None) -> Selection:
        if own is not None:
            ensure_own(own, self._columns)
        with self._lock.reading():
            self._ensure_whole()
            return self._selections.select(rows, own, version=self._version)

    def scan(
        self, query: Vectors, selection: Selection, *, k: int, effort: Effort, deadline: Deadline = never
    ) -> Candidates:
        """Opens nothing. ``estimates`` of an exhaustive answer are NaN: nothing was estimated, all will be scored.

        What is found depends on the selected records and the codebook alone, not on others beside them. Raises
        ``InvalidRequest`` (``vector_invalid``, ``k_invalid``), ``Conflict`` (``selection_stale``) for a selection of
        another shard, ``Unavailable`` (``index_unavailable``) for a shard that was closed or broke.
        """
        self._ensure_query(query)
        _ensure_k(k)
        deadline.require()
        asked = Asked(query=query, selection=selection, k=k, effort=effort, deadline=deadline)
        with self._lock.reading():
            self._ensure_whole()
            (found,) = self._found([asked])
        if found is None:
            deadline.require()
        assert found is not None  # it would have raised
        return found

    def _found(self, all_asked: Sequence[Asked]) -> list[Candidates | None]:
        """None: its time was up."""
        found: list[Candidates | None] = [None] * len(all_asked)
        sought: dict[int, Sought] = {}
        for number, asked in enumerate(all_asked):
            bitmap, spread = self._selections.as_of_now(asked.selection)
            if asked.whole:
                found[number] = self._all_of(bitmap)
            else:
                sought[number] = asked.sought(bitmap, spread, self._codebook)
        if sought:
            for number, best in zip(sought, self._search(list(sought.values())), strict=True):
                found[number] = None if best is None else self._candidates(all_asked[number], best)
        return found

    def _candidates(self, asked: Asked, best: Found) -> Candidates:
        positions = self._slots.positions_of(best.slots)  # which ascend with the slots
        invariant(len(positions) == len(best.slots))  # only live slots have codes
        return Candidates(
            positions=positions,
            estimates=best.estimates,
            exhaustive=False,
            margin_min=asked.margin_min,
            looked=best.looked,
        )

    def named(self, at: Positions) -> Selection:
        """Those of the records at ``at`` that are here, whatever their attributes: for measuring what filters cost."""
        with self._lock.reading():
            self._ensure_whole()
            return self._selections.named(at, version=self._version)

    def _all_of(self, bitmap: npt.NDArray[np.uint8] | None) -> Candidates:
        if bitmap is None:
            chosen = np.flatnonzero(self._slots.live)
        else:
            chosen = np.flatnonzero(np.unpackbits(bitmap, bitorder="little"))
        positions = self._slots.positions_of(chosen)
        return Candidates(positions=positions, estimates=np.full(len(positions), np.nan, np.float32), exhaustive=True)

    def score(self, at: Positions, query: Vectors, *, ticket: Ticket, deadline: Deadline = never) -> Scored:
        """Raises ``SecureEmbedError`` (``ticket_refused``) before anything is opened, ``IntegrityFailure``
        (``stored_vector_invalid``) for a stored vector that is not finite."""
        self._ensure_query(query)
        once = np.unique(np.asarray(at, np.int64))
        ticket.require(Action.QUERY, Action.COLLECTION_TUNE, openings=len(once))
        return self._rescorer.score(once, query, deadline)

    def nearest(
        self,
        found: Candidates,
        query: Vectors,
        *,
        k: int,
        effort: Effort,
        ticket: Ticket,
        deadline: Deadline = never,
    ) -> Scored:
        """Opens candidates, the best estimate first, until no other is likely to be among the k best; all of an
        exhaustive answer. Order and scores are those of :meth:`score`, and so are the errors."""
        self._ensure_query(query)
        estimated = _to_open(found, query, k=k, effort=effort, ticket=ticket, deadline=deadline)
        (scored,) = self._rescorer.best([estimated])
        assert scored is not None  # a single one raises instead
        return scored

    def search(
        self,
        query: Vectors,
        selection: Selection,
        *,
        k: int,
        effort: Effort,
        ticket: Ticket,
        deadline: Deadline = never,
    ) -> Scored:
        """:meth:`scan` and :meth:`nearest`, their answers and errors; callers who come at the same time are gathered."""
        self._ensure_query(query)
        _ensure_k(k)
        asked = Asked(query=query, selection=selection, k=k, effort=effort, deadline=deadline)
        return self._gathering((asked, ticket), self._search_all)

    def _search_all(self, all_asked: "Sequence[tuple[Asked, Ticket]]") -> Sequence[Scored | None]:
        """None: its time is up, where it is not the only one."""
        if len(all_asked) == 1:
            all_asked[0][0].deadline.require()
            in_time = [0]
        else:
            in_time = [number for number, (one, _) in enumerate(all_asked) if not one.deadline.over]
        with self._lock.reading():
            self._ensure_whole()
            found = self._found([all_asked[number][0] for number in in_time])
        answers: list[Scored | None] = [None] * len(all_asked)
        to_open: dict[int, Estimated] = {}
        for number, candidates in zip(in_time, found, strict=True):
            one, ticket = all_asked[number]
            if candidates is None:
                if len(all_asked) == 1:
                    one.deadline.require()
            elif candidates.exhaustive:
                answers[number] = self.score(candidates.positions, one.query, ticket=ticket, deadline=one.deadline)
            else:
                to_open[number] = _to_open(
                    candidates, one.query, k=one.k, effort=one.effort, ticket=ticket, deadline=one.deadline
                )
        if to_open:
            for number, scored in zip(to_open, self._rescorer.best(list(to_open.values())), strict=True):
                answers[number] = scored
        return answers

    def _ensure_query(self, query: Vectors) -> None:
        right_shape = query.dtype == np.float32 and query.shape == (1, self._codebook.dimension)
        if not (right_shape and 0 < float(np.vecdot(query, query)[0]) < math.inf):  # NaN fails as well
            raise InvalidRequest("the query's vector is not one finite, non-zero vector", code="vector_invalid")

    def chunks(self) -> Generator[memoryview]:
        """All that :meth:`restored` needs, in plaintext, in chunks of at most 1 MiB; the caller seals them.

        Each is good until the next is asked for, and wiped then. Queries go on meanwhile, changes wait until the
        iterator is exhausted or closed. Raises ``Unavailable`` (``index_unavailable``).
        """
        from secure_embed.index._saved import pieces_of

        with self._one_change():
            pieces = pieces_of(
                codebook=self._codebook,
                version=self._version,
                codes=self._codes,
                slots=self._slots,
                columns=self._columns,
            )
            yield from chunks_of(pieces)

    # --- changes ---------------------------------------------------------------------------------------------------

    def load(self, positions: Positions, vectors: Vectors, attributes: Sequence[Attributes]) -> None:
        """Fill page by page with what is stored at the version given to the constructor; positions ascend.

        A position that is here or was here is passed over.
        """
        with self._one_change():
            self._add(positions, vectors, attributes, version=self._version)

    def apply(self, changes: Sequence[Added | Erased]) -> int:
        """Each change is all or nothing; the version says how far it came when one is refused.

        Raises ``Conflict`` (``change_gap``) before any is applied, ``InvalidRequest`` (``vector_invalid``,
        ``attributes_invalid``, ``change_invalid``) for a change that is malformed.
        """
        with self._one_change():
            last = self._version
            for change in changes:
                if change.sequence > last + 1:
                    raise Conflict("a change is missing in between", code="change_gap")
                last = max(last, change.sequence)
            for change in changes:
                if change.sequence <= self._version:
                    continue
                if isinstance(change, Erased):
                    self._remove([change.position], version=change.sequence)
                else:
                    self._add(change.positions, change.vectors, change.attributes, version=change.sequence)
            return self._version

    def forget(self, positions: Sequence[Position], *, version: int, ticket: Ticket) -> Forgotten:
        """Stands for the erasures of these positions, one sequence number each, up to ``version``.

        Raises ``Conflict`` (``change_gap``) when other changes must lie in between: the codes are overwritten even
        so, and the version stays, so that :meth:`apply` can catch up.
        """
        ticket.require(Action.RECORD_ERASE)
        with self._one_change():
            gap = version - self._version > len(set(positions))
            removed = self._remove(positions, version=self._version if gap else max(version, self._version))
            if gap:
                raise Conflict("a change is missing in between", code="change_gap")
            return Forgotten(removed=removed, version=self._version)

    def close(self) -> None:
        """Overwrite every code and attribute. The shard answers nothing afterwards."""
        with self._changing, self._lock.writing():
            self._whole = False
            self._selections.changed()
            self._codes.wipe()
            self._columns.wipe()

    def _add(self, positions: Positions, vectors: Vectors, attributes: Sequence[Attributes], *, version: int) -> None:
        self._ensure_rows(positions, vectors, attributes)
        new = np.flatnonzero(self._slots.is_new(positions))
        if not len(new):
            self._version = version
            return
        batches = self._columns.prepare([attributes[i] for i in new.tolist()])
        turned = self._codebook.turn_records(vectors[new[0] :])  # positions ascend, so the new ones are the last
        try:
            encoded = self._codes.encode(turned)
        finally:
            turned.fill(0)
        try:
            with self._writing():
                slots = self._slots.append(positions[new])
                self._columns.append(batches)
                self._codes.add(encoded, slots)
                self._version = version
        finally:
            encoded.wipe()

    def _remove(self, positions: Sequence[Position], *, version: int) -> int:
        with self._writing():
            slots = self._slots.find(positions)
            if len(slots):
                self._codes.remove(slots)
                self._columns.clear(slots)
                self._slots.forget(slots)
            self._version = version
            return len(slots)

    def _ensure_rows(self, positions: Positions, vectors: Vectors, attributes: Sequence[Attributes]) -> None:
        count = len(positions)
        if positions.ndim != 1 or positions.dtype != np.int64 or len(attributes) != count:
            raise InvalidRequest("a change's positions and attributes do not match", code="change_invalid")
        if count and (positions[0] < 0 or (np.diff(positions) <= 0).any()):
            raise InvalidRequest("a change's positions do not ascend", code="change_invalid")
        if vectors.dtype != np.float32 or vectors.shape != (count, self._codebook.dimension):
            raise InvalidRequest("a change's vectors are of another shape", code="vector_invalid")
        lengths = np.sqrt(np.vecdot(vectors, vectors))
        if not (np.abs(lengths - 1) <= length_error_max).all():  # NaN and infinity fail this comparison too
            raise InvalidRequest("a vector is not finite and of unit length", code="vector_invalid")
