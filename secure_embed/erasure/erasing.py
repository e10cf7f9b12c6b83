"""Erasure as a thing with a state: begun in writing, ended with a signed receipt, finished after a crash.

``started``: written before the first key goes. ``shredded``: keys, rows and codes are gone, and no answer can contain
them; for a large collection the version of its key that had wrapped them is still there. ``done``: that version is
destroyed too, and the receipt is signed. Each step is durable before the next and may be done again.

Why it is so: docs/decisions/0017. What an erasure reaches, for who has to answer for it: docs/erasure.md.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from threading import Lock
from typing import Literal
from uuid import UUID, uuid4

import orjson

from secure_embed.audit import AuditEvent, AuditLog, Phase, leaf_hash
from secure_embed.collection import Holding, Holdings
from secure_embed.erasure.holds import Holds
from secure_embed.erasure.receipts import Destroyed, Ranges, receipt_text, to_ranges
from secure_embed.errors import NotFound, SecureEmbedError
from secure_embed.keys import CatalogueKeys, CatalogueValue
from secure_embed.risk import RiskControl
from secure_embed.store import RecordStore, StateKind
from secure_embed.trail import Trails
from secure_embed.types import Action, Position, Receipt, Ticket

__all__ = ["Erasing", "ErasureState", "Part", "What"]

Kind = Literal["record", "subject", "collection", "retention"]
What = Sequence[tuple[UUID, Sequence[Position] | None]]  # collections; None: the whole of it

SWEEP = "retention.sweep"
sweep_records_max = 5_000  # of one sweep
rotations_max = 16  # large collections whose key one call of complete() replaces


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What goes, or went, in one collection."""

    collection: str  # its name
    uuid: str
    keys: Ranges
    records: int
    whole: bool = False
    version: int | None = None  # of the collection key when the record keys were deleted; None: not deleted yet


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureState:
    state: Literal["started", "shredded", "done"]
    kind: Kind
    reason: str
    intent: int  # index in the log
    parts: tuple[Part, ...]
    shredded_unix: int | None = None
    note: str | None = None
    logged: bool = False  # whether the receipt's digest is known to stand in the log

    @property
    def records(self) -> int:
        return sum(part.records for part in self.parts)

    @property
    def receipt_sha256(self) -> str | None:
        """Hex, of the whole signed note."""
        return None if self.note is None else hashlib.sha256(self.note.encode()).hexdigest()

    def to_bytes(self) -> bytes:
        return orjson.dumps(asdict(self))

    @classmethod
    def from_bytes(cls, raw: bytes) -> "ErasureState":
        said = orjson.loads(raw)
        parts = tuple(Part(**{**part, "keys": tuple(map(tuple, part["keys"]))}) for part in said.pop("parts"))
        return cls(parts=parts, **said)


class Erasing:
    """Thread safe. :meth:`run` is for a caller's erasure, :meth:`resume` for the start, the others for one thread in
    the background; those may be called at any time, as often as one likes."""

    def __init__(
        self,
        *,
        deployment: UUID,
        store: RecordStore,
        catalogue: CatalogueKeys,
        risk: RiskControl,
        log: AuditLog,
        holdings: Holdings,
        holds: Holds,
        trails: Trails,
        backups_kept_days: int | None,
    ) -> None:
        self._deployment = deployment
        self._store = store
        self._catalogue = catalogue
        self._risk = risk
        self._log = log
        self._holdings = holdings
        self._holds = holds
        self._trails = trails
        self._backups_kept_days = backups_kept_days
        self._lock = Lock()
        self._running: set[UUID] = set()  # erasures that a thread works on now

    # --- one erasure -----------------------------------------------------------------------------------------------

    def run(
        self,
        identifier: UUID,
        what: What,
        *,
        kind: Kind,
        reason: str,
        ticket: Ticket,
        log: Callable[[ErasureState], Receipt],
    ) -> tuple[ErasureState, Receipt]:
        """Erase, sign if it is done, and let ``log`` write the OUTCOME. Nothing to erase is an erasure too.

        Raises ``Conflict`` (``legal_hold``) before anything is written. Whatever else it raises, :meth:`complete` and
        the next start go on from where it stood.
        """
        with self._working_on(identifier):
            with self._holds.refusing(what):
                started = ErasureState(
                    state="started",
                    kind=kind,
                    reason=reason,
                    intent=ticket.intent_index,
                    parts=self._parts(what, kind),
                )
                self._put(identifier, started)
                shredded = self._shred(identifier, started, ticket)
            ended = self._conclude(identifier, shredded, lambda _: False)
            receipt = log(ended)
            with suppress(SecureEmbedError):  # it is erased and logged; complete() would log it once more
                self._mark_logged(identifier, ended)
            return ended, receipt

    @contextmanager
    def _working_on(self, identifier: UUID) -> Iterator[bool]:
        """True: this thread alone works on it until the block ends. False: another one does."""
        with self._lock:
            is_mine = identifier not in self._running
            self._running.add(identifier)
        try:
            yield is_mine
        finally:
            if is_mine:
                with self._lock:
                    self._running.discard(identifier)

    def _parts(self, what: What, kind: Kind) -> tuple[Part, ...]:
        """A collection that came to its end meanwhile has nothing left of a subject, or of what is past its date."""
        parts = []
        for uuid, at in what:
            try:
                if at is None or len(at):
                    parts.append(self._part(uuid, at))
            except NotFound:
                if at is None or kind == "record":
                    raise
        return tuple(parts)

    def _part(self, uuid: UUID, at: Sequence[Position] | None) -> Part:
        end = self._holdings.next_position(uuid)
        return Part(
            collection=self._holdings.collection(uuid).name,
            uuid=str(uuid),
            keys=((0, end - 1),) if at is None and end else to_ranges(at or ()),
            records=self._holdings.records(uuid) if at is None else len(at),
            whole=at is None,
        )

    def _shred(self, identifier: UUID, started: ErasureState, ticket: Ticket) -> ErasureState:
        """Keys, rows and codes, in each collection; durable on return."""
        parts = tuple(self._shred_part(part, ticket) for part in started.parts)
        shredded = replace(started, state="shredded", parts=parts, shredded_unix=int(time.time()))
        self._put(identifier, shredded)
        return shredded

    def _shred_part(self, part: Part, ticket: Ticket) -> Part:
        uuid = UUID(part.uuid)
        if part.whole:
            version = self._holdings.erase(uuid, ticket=ticket)
            self._risk.forget_collection(uuid)
            return replace(part, version=version)
        at = [Position(p) for first, last in part.keys for p in range(first, last + 1)]
        with self._using(uuid) as holding:
            if holding is None:  # the whole collection was erased meanwhile
                return replace(part, version=0)
            shredded = holding.erase(at, ticket=ticket)
            self._risk.forget(uuid, holding.ledger_tags(at))
        return replace(part, version=shredded.key_version)

    def _conclude(self, identifier: UUID, state: ErasureState, may_rotate: Callable[[Holding], bool]) -> ErasureState:
        """``done`` with its receipt, once no version of a key that wrapped what was erased is left; a small
        collection's is replaced at once, a large one's where ``may_rotate`` says so."""
        waiting = [part for part in state.parts if not self._version_destroyed(part, may_rotate)]
        if waiting:
            return state
        now = int(time.time())
        assert state.shredded_unix is not None
        text = receipt_text(
            erasure=identifier,
            deployment=self._deployment,
            kind=state.kind,
            reason=state.reason,
            destroyed=[
                Destroyed(
                    collection=part.collection,
                    uuid=part.uuid,
                    records=part.records,
                    keys=part.keys,
                    version=part.version or 0,
                    whole=part.whole,
                )
                for part in state.parts
            ],
            shredded_unix=state.shredded_unix,
            versions_destroyed_unix=now,
            backups_kept_days=self._backups_kept_days,
            log_index=state.intent,
            log_leaf_hash=leaf_hash(self._log.entries(state.intent, 1)[0]).hex(),
        )
        done = replace(state, state="done", note=self._log.sign(kind="erasure-receipt", text=text))
        self._put(identifier, done)
        return done

    def _version_destroyed(self, part: Part, may_rotate: Callable[[Holding], bool]) -> bool:
        if part.whole:
            return True
        assert part.version is not None
        with self._using(UUID(part.uuid)) as holding:
            if holding is None:
                return True
            if holding.key_version <= part.version and (holding.rotates_at_once or may_rotate(holding)):
                holding.rotate()
            return holding.key_version > part.version

    @contextmanager
    def _using(self, uuid: UUID) -> Iterator[Holding | None]:
        """A collection, kept open for the block; None: it is not there any more."""
        with ExitStack() as kept:
            try:
                holding = kept.enter_context(self._holdings.using(uuid))
            except NotFound:
                holding = None
            yield holding

    # --- in the background, and after a crash ----------------------------------------------------------------------

    def resume(self) -> None:
        """At the start, before anyone is answered: go on with what was cut off, all but rotating large collections."""
        self._go_on(lambda _: False)

    def complete(self) -> int:
        """Bring every erasure to its end that can be; large collections get a new key version. How many are left."""
        rotated: set[UUID] = set()

        def may_rotate(holding: Holding) -> bool:
            if len(rotated) >= rotations_max:
                return False
            rotated.add(holding.uuid)
            return True

        return self._go_on(may_rotate)

    def _go_on(self, may_rotate: Callable[[Holding], bool]) -> int:
        left = 0
        for identifier in self._unended():
            with self._working_on(identifier) as is_mine:
                if is_mine:  # otherwise its own thread brings it to its end
                    left += self._ended(identifier, may_rotate).state != "done"
        return left

    def _ended(self, identifier: UUID, may_rotate: Callable[[Holding], bool]) -> ErasureState:
        """As far as it can be brought now. It may have come further since it was listed."""
        state = self.state(identifier)
        if state.state == "started":
            state = self._resumed(identifier, state)
        if state.state == "shredded":
            state = self._conclude(identifier, state, may_rotate)
        if state.state == "done" and not state.logged:
            self._log_receipt(identifier, state)
        return state

    def _unended(self) -> list[UUID]:
        return [i for i, sealed in self._store.states(StateKind.ERASURE) if not self._opened(i, sealed).logged]

    def _resumed(self, identifier: UUID, started: ErasureState) -> ErasureState:
        """Shred under a ticket of the service's own. What came under a hold since, with its key still there, stays."""
        with self._trails.own(Action.RECORD_ERASE, count=started.records, erasure=str(identifier), resumed=True) as own:
            with self._holds.lock:
                state = self._shred(identifier, self._without_held(started), own.ticket)
            own.results = state.records
        return state

    def _without_held(self, started: ErasureState) -> ErasureState:
        parts = []
        for part in started.parts:
            at = [] if part.whole else [Position(p) for first, last in part.keys for p in range(first, last + 1)]
            held: Mapping[Position, UUID] = {}
            if at and self._holds.all():
                with self._using(UUID(part.uuid)) as holding:
                    held = {} if holding is None else self._holds.held(holding, at)
            kept = [p for p in at if p not in held]
            parts.append(part if not held else replace(part, keys=to_ranges(kept), records=len(kept)))
        return replace(started, parts=tuple(parts))

    def _log_receipt(self, identifier: UUID, done: ErasureState) -> None:
        digest = done.receipt_sha256
        assert digest is not None
        details: Mapping[str, str | int] = {
            "erasure": str(identifier),
            "receipt_sha256": digest,
            "records": done.records,
        }
        self._log.system(AuditEvent(phase=Phase.SYSTEM, action="erasure.done", details=details))
        self._mark_logged(identifier, done)

    def _mark_logged(self, identifier: UUID, state: ErasureState) -> None:
        if state.state == "done":
            self._put(identifier, replace(state, logged=True))

    def sweep(self, now_unix: int) -> int:
        """Erase what has expired and is not held, ``sweep_records_max`` at most: an erasure of the service's own, with
        its state and receipt. How many; 0: nothing is left to do, and nothing is logged."""
        with self._holds.lock:
            what, held = self._expired(now_unix)
            count = sum(len(at) for _, at in what)
            if not count:
                return 0
            identifier = uuid4()
            with self._trails.own(SWEEP, count=count, erasure=str(identifier), held=held) as own:

                def log(state: ErasureState) -> Receipt:
                    if state.receipt_sha256 is not None:
                        own.details["receipt_sha256"] = state.receipt_sha256
                    own.results = state.records
                    return own.done()

                self.run(identifier, what, kind="retention", reason="expired", ticket=own.ticket, log=log)
        return count

    def _expired(self, now_unix: int) -> tuple[list[tuple[UUID, Sequence[Position]]], int]:
        """What may go, and how many are held. Only what has something to go is opened."""
        what: list[tuple[UUID, Sequence[Position]]] = []
        left, all_held = sweep_records_max, 0
        for name in self._holdings.names():
            if not left:
                break
            try:
                if not self._holdings.expired(name, now_unix, 1):
                    continue
                with self._holdings.using(name) as holding:
                    uuid = holding.uuid
                    free, held = self._expired_in(holding, now_unix, left)
            except NotFound:  # it came to its end meanwhile
                continue
            all_held += held
            left -= len(free)
            if free:
                what.append((uuid, free))
        return what, all_held

    def _expired_in(self, holding: Holding, now_unix: int, limit: int) -> tuple[list[Position], int]:
        """Held ones stay expired, so more is asked for until enough is free or there is no more."""
        asked = limit
        while True:
            expired = holding.expired(now_unix, asked)
            held = self._holds.held(holding, expired)
            free = [position for position in expired if position not in held]
            if len(free) >= limit or len(expired) < asked:
                return free[:limit], len(held)
            asked *= 2

    # --- states ----------------------------------------------------------------------------------------------------

    def state(self, identifier: UUID) -> ErasureState:
        """Raises ``NotFound`` (``erasure_not_found``)."""
        return self._opened(identifier, self._store.state(StateKind.ERASURE, identifier))

    def _opened(self, identifier: UUID, sealed: bytes) -> ErasureState:
        return ErasureState.from_bytes(self._catalogue.open(CatalogueValue.ERASURE, identifier, sealed))

    def _put(self, identifier: UUID, state: ErasureState) -> None:
        sealed = self._catalogue.seal(CatalogueValue.ERASURE, identifier, state.to_bytes())
        self._store.put_state(StateKind.ERASURE, identifier, sealed)
