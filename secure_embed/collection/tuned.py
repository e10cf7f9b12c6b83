"""What tunings leave of themselves: the one in force and the newest one, sealed in the store under the collection's uuid.

Numbers only: how far a search goes, and how well searches were measured to do. No query, no record, no score.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from threading import RLock
from typing import Any, Literal, Self
from uuid import UUID

import orjson

from secure_embed.errors import InvalidRequest, NotFound
from secure_embed.index import Codebook, Effort, every_list, lists_untuned
from secure_embed.keys import CatalogueKeys, CatalogueValue
from secure_embed.store import RecordStore, StateKind
from secure_embed.types import bits_max

__all__ = ["Asked", "Kept", "Measured", "Tuned", "Tuning", "TuningState"]

TuningState = Literal["running", "done", "failed"]

target_min, target_max = 0.5, 0.999
target_default = 0.99
k_max = 100
growth_factor = 2  # a collection that has so many times the records is tuned again in the night


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a tuning is to find. Raises ``InvalidRequest`` (``tuning_invalid``, ``bits_invalid``)."""

    target: float = target_default  # recall against exact search, that the effort has to meet
    k: int = 10
    bits: int | None = None  # None: those that the collection has
    # It also has to be met behind a filter that leaves a tenth: policy's row filters are the rule here, and an effort
    # that only does without them loses a quarter of the answer behind one (docs/decisions/0020).
    filtered: bool = True
    apply: bool = False

    def __post_init__(self) -> None:
        if not (target_min <= self.target <= target_max and 1 <= self.k <= k_max):
            raise InvalidRequest(
                f"a tuning's target is {target_min} to {target_max}, its k 1 to {k_max}", code="tuning_invalid"
            )
        if self.bits is not None and not 1 <= self.bits <= bits_max:
            raise InvalidRequest(f"codes have 1 to {bits_max} bits a dimension", code="bits_invalid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """How one effort did. Means over the sample; ``openings`` and ``codes`` of one query."""

    effort: Effort
    recall: float
    recall_low: float  # the true one lies above it in 19 of 20 samples
    recall_texts: float | None  # of the caller's texts, where there were any
    recall_filtered: float | None  # behind a filter that leaves a tenth; None: that is so few that all are opened
    openings: float
    openings_filtered: float | None
    codes: float
    meets: bool

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        return cls(**{**raw, "effort": Effort(**raw["effort"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """The effort that a collection's queries use, and what it was measured on."""

    effort: Effort
    bits: int
    lists: int  # of the codebook that it was measured with
    records: int  # that there were
    recall: float
    asked: Asked
    unix: int

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        return cls(**{**raw, "effort": Effort(**raw["effort"]), "asked": Asked(**raw["asked"])})

    def outgrown(self, records: int) -> bool:
        """Whether it was measured on half of the records that there are, or fewer."""
        return records >= growth_factor * self.records

    def effort_for(self, untuned: Effort, codebook: Codebook, records: int) -> Effort:
        """How far searches of such codes go: as was measured; as untuned where they have other bits than was measured;
        and in each respect the more careful of the two once the collection has outgrown what was measured."""
        if codebook.bits != self.bits:
            return untuned
        own = self._on(codebook)
        if not self.outgrown(records):
            return own
        lists = [lists_untuned(codebook.lists) if each.lists is None else each.lists for each in (own, untuned)]
        return Effort(
            candidates=max(own.candidates, untuned.candidates),
            lists=max(lists),
            margin=max(own.margin, untuned.margin),
        )

    def _on(self, codebook: Codebook) -> Effort:
        """A later codebook has other lists, so their share stays, not their number: a list holds about as many records
        as before, and the share is the more careful of the two."""
        if self.effort.lists is None or codebook.lists == self.lists:
            return self.effort
        return replace(self.effort, lists=min(every_list, math.ceil(self.effort.lists * codebook.lists / self.lists)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """The newest tuning of a collection, running or ended. What ``chosen`` and ``measured`` say holds once it is done."""

    id: str
    state: TuningState
    asked: Asked
    texts: int  # that the caller gave; they are not kept
    started_unix: int
    records: int
    bits: int  # of the codes that were measured
    lists: int = 0
    sample: int = 0
    measured: tuple[Measured, ...] = ()
    before: Measured | None = None  # the effort that was in force, on the codes that were measured
    chosen: Measured | None = None  # None: none meets the target
    bits_recommended: int | None = None  # where none does
    applied: bool = False
    ended_unix: int | None = None
    error: str | None = None  # a code of errors.py

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        def one(of: Mapping[str, Any] | None) -> Measured | None:
            return None if of is None else Measured.of(of)

        read = {
            "asked": Asked(**raw["asked"]),
            "measured": tuple(Measured.of(each) for each in raw["measured"]),
            "before": one(raw["before"]),
            "chosen": one(raw["chosen"]),
        }
        return cls(**{**raw, **read})


class Kept:
    """Of all collections. Thread safe; read once, then from memory."""

    def __init__(self, store: RecordStore, catalogue: CatalogueKeys) -> None:
        self._store = store
        self._catalogue = catalogue
        self._lock = RLock()
        self._ended: set[UUID] = set()  # collections that are gone: a tuning that still runs writes nothing of them
        self._all = {uuid: self._opened(uuid, sealed) for uuid, sealed in store.states(StateKind.TUNING)}

    def tuned(self, collection: UUID) -> Tuned | None:
        """What is in force; None: it was never tuned."""
        return self._all.get(collection, (None, None))[0]

    def tuning(self, collection: UUID) -> Tuning | None:
        """The newest one."""
        return self._all.get(collection, (None, None))[1]

    def unended(self) -> list[tuple[UUID, Tuning]]:
        return [(c, tuning) for c, (_, tuning) in self._all.items() if tuning is not None and tuning.state == "running"]

    def put_tuned(self, collection: UUID, tuned: Tuned) -> None:
        """Durable on return."""
        with self._lock:
            self._put(collection, tuned, self.tuning(collection))

    def put_tuning(self, collection: UUID, tuning: Tuning) -> None:
        """Durable on return."""
        with self._lock:
            self._put(collection, self.tuned(collection), tuning)

    def drop(self, collection: UUID) -> None:
        """The collection comes to its end. Idempotent."""
        with self._lock:
            self._ended.add(collection)
            self._all.pop(collection, None)
            self._store.drop_state(StateKind.TUNING, collection)

    def _put(self, collection: UUID, tuned: Tuned | None, tuning: Tuning | None) -> None:
        if collection in self._ended:
            raise NotFound("there is no such collection", code="collection_not_found")
        parts = {"tuned": tuned and asdict(tuned), "tuning": tuning and asdict(tuning)}
        sealed = self._catalogue.seal(CatalogueValue.TUNING, collection, orjson.dumps(parts))
        self._store.put_state(StateKind.TUNING, collection, sealed)
        self._all[collection] = (tuned, tuning)

    def _opened(self, collection: UUID, sealed: bytes) -> tuple[Tuned | None, Tuning | None]:
        raw = orjson.loads(self._catalogue.open(CatalogueValue.TUNING, collection, sealed))
        tuned, tuning = raw["tuned"], raw["tuning"]
        return tuned and Tuned.of(tuned), tuning and Tuning.of(tuning)
