"""Legal holds: what must not be erased, by whom it was placed and why. Sealed at rest; read once, at the start.

A hold names a data subject, in every collection, or one record. Whoever erases holds :attr:`Holds.lock` from asking
until the keys are gone, and so does whoever places a hold: each hold comes before an erasure, and refuses it, or after
it. Who may place, release and see them is the vault's affair.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from threading import RLock
from uuid import UUID, uuid4

import orjson

from secure_embed.collection import Holding, Holdings
from secure_embed.errors import Conflict, InvalidRequest, NotFound
from secure_embed.keys import CatalogueKeys, CatalogueValue
from secure_embed.store import RecordStore, StateKind
from secure_embed.types import Position, Principal, ensure_subject

__all__ = ["Hold", "Holds"]

reason_characters_max = 500
holds_max = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Either ``subject``, or ``collection`` (its uuid) and ``record``."""

    reason: str = field(repr=False)
    placed_by: str = field(repr=False)
    placed_unix: int
    subject: str | None = field(default=None, repr=False)
    collection: str | None = None
    record: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        of_subject, of_record = self.subject is not None, self.collection is not None and self.record is not None
        if of_subject == of_record or (of_subject and (self.collection, self.record) != (None, None)):
            raise InvalidRequest("a hold names a subject, or a record with its collection", code="hold_invalid")
        if self.subject is not None:
            ensure_subject(self.subject)
        # Printable: no line end, no control character, no lone surrogate. It is shown on terminals.
        if not (self.reason.strip() and self.reason.isprintable() and len(self.reason) <= reason_characters_max):
            raise InvalidRequest(
                f"a hold's reason has 1 to {reason_characters_max} printable characters", code="hold_invalid"
            )


class Holds:
    """Thread safe."""

    def __init__(self, *, store: RecordStore, catalogue: CatalogueKeys, holdings: Holdings) -> None:
        self._store = store
        self._catalogue = catalogue
        self._holdings = holdings
        self.lock = RLock()
        self._holds = {i: self._opened(i, sealed) for i, sealed in store.states(StateKind.HOLD)}

    def _opened(self, identifier: UUID, sealed: bytes) -> Hold:
        return Hold(**orjson.loads(self._catalogue.open(CatalogueValue.HOLD, identifier, sealed)))

    # --- placed and released ---------------------------------------------------------------------------------------

    def place(
        self, *, subject: str | None, collection: str | None, record: str | None, reason: str, by: Principal
    ) -> tuple[UUID, Hold, int]:
        """Durable on return. ``collection``: its name. The number says how many records it holds now: a subject may
        be held before any of theirs is there; a record that is not there is ``NotFound`` (``record_not_found``)."""
        uuid = None if collection is None else self._holdings.collection(collection).uuid
        hold = Hold(
            subject=subject,
            collection=None if uuid is None else str(uuid),
            record=record,
            reason=reason,
            placed_by=f"{by.issuer} {by.subject}",
            placed_unix=int(time.time()),
        )
        identifier = uuid4()
        with self.lock:
            if len(self._holds) >= holds_max:
                raise Conflict(f"there are {holds_max} legal holds already", code="holds_full")
            count = self.records(hold)
            if hold.record is not None and not count:
                raise NotFound("there is no such record", code="record_not_found")
            sealed = self._catalogue.seal(CatalogueValue.HOLD, identifier, orjson.dumps(asdict(hold)))
            self._store.put_state(StateKind.HOLD, identifier, sealed)
            self._holds[identifier] = hold
        return identifier, hold, count

    def release(self, identifier: UUID) -> Hold:
        """Durable on return. Raises ``NotFound`` (``hold_not_found``)."""
        with self.lock:
            if identifier not in self._holds:
                raise NotFound("there is no such hold", code="hold_not_found")
            self._store.drop_state(StateKind.HOLD, identifier)
            return self._holds.pop(identifier)

    def all(self) -> Mapping[UUID, Hold]:
        with self.lock:
            return dict(self._holds)

    def records(self, hold: Hold) -> int:
        """How many records it holds now. One collection is open at a time."""
        if hold.subject is not None:
            return sum(self._of_subject(name, hold.subject) for name in self._holdings.names())
        with self._holdings.using(UUID(hold.collection)) as holding:
            return int(hold.record is not None and holding.locate(hold.record) is not None)

    def _of_subject(self, name: str, subject: str) -> int:
        try:
            with self._holdings.using(name) as holding:
                return len(holding.of_subject(subject))
        except NotFound:  # it came to its end meanwhile
            return 0

    # --- asked before something is erased --------------------------------------------------------------------------

    @contextmanager
    def refusing(self, what: Sequence[tuple[UUID, Sequence[Position] | None]]) -> Iterator[None]:
        """No hold comes while the block runs. ``None`` for positions: the whole collection of that uuid.

        Raises ``Conflict`` (``legal_hold``) with the first hold's id and reason when one of the records is held.
        """
        with self.lock:
            for uuid, at in what if self._holds else ():
                try:
                    with self._holdings.using(uuid) as holding:
                        held = self.in_collection(holding) if at is None else list(self.held(holding, at).values())
                except NotFound:  # it came to its end meanwhile, which a hold would have refused
                    continue
                if held:
                    raise Conflict(
                        "a legal hold stands against this erasure; nothing was erased",
                        code="legal_hold",
                        members={"hold": str(held[0]), "reason": self._holds[held[0]].reason},
                    )
            yield

    def held(self, holding: Holding, at: Sequence[Position]) -> dict[Position, UUID]:
        """Which of the records are held, each with one of its holds. Erased ones are not."""
        with self.lock:
            subjects = {hold.subject: i for i, hold in self._holds.items() if hold.subject is not None}
            records = {hold.record: i for i, hold in self._holds.items() if hold.collection == str(holding.uuid)}
            if not at or not (subjects or records):
                return {}
            found = {}
            for position, meta in holding.describe(at, also_expired=True).items():
                hold = records.get(meta.id) or (subjects.get(meta.subject) if meta.subject is not None else None)
                if hold is not None:
                    found[position] = hold
            return found

    def in_collection(self, holding: Holding) -> list[UUID]:
        """Holds on records that are in the collection now."""
        with self.lock:
            records = {i: hold.record for i, hold in self._holds.items() if hold.collection == str(holding.uuid)}
            found = [i for i, record in records.items() if record is not None and holding.locate(record) is not None]
            subjects = {hold.subject: i for i, hold in self._holds.items() if hold.subject is not None}
            here = holding.subjects_among(list(subjects)) if subjects else ()
            return found + [subjects[subject] for subject in here]
