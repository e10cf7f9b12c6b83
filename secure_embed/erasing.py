"""Erasure as a thing with a state: begun in writing, ended with a signed receipt, finished after a crash.

What is to go is written down (sealed) before the first key is deleted, so that a process that died in between goes on
where it stood. Erasing itself is :meth:`Holding.erase`; the receipt says what that does not reach.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

import orjson

from secure_embed.audit import AuditLog, NoteSigner, leaf_hash, sign_note
from secure_embed.holding import Holding
from secure_embed.holdings import Holdings
from secure_embed.keys import CatalogueKeys, CatalogueValue
from secure_embed.risk import RiskControl
from secure_embed.store import RecordStore, StateKind
from secure_embed.types import Position, Ticket

__all__ = ["Erasing", "ErasureState"]

_REMAINS = (
    "Copies of the keys database made before this moment, together with the root key, still open what was erased, "
    "until those copies end. Copies of the data alone do not. Who was shown a record before may have kept it."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureState:
    state: Literal["started", "done"]
    reason: str
    records: int
    pending: tuple[tuple[str, tuple[int, ...]], ...] = ()  # (collection uuid, positions) while started
    note: str | None = None


class Erasing:
    def __init__(
        self,
        *,
        deployment: UUID,
        store: RecordStore,
        catalogue: CatalogueKeys,
        risk: RiskControl,
        log: AuditLog,
        signer: NoteSigner,
    ) -> None:
        self._deployment = deployment
        self._store = store
        self._catalogue = catalogue
        self._risk = risk
        self._log = log
        self._signer = signer

    def run(
        self, identifier: UUID, what: Sequence[tuple[Holding, Sequence[Position]]], *, reason: str, ticket: Ticket
    ) -> ErasureState:
        """Erase and sign; durable on return. Nothing to erase is an erasure too, and says so."""
        started = ErasureState(
            state="started",
            reason=reason,
            records=sum(len(at) for _, at in what),
            pending=tuple((str(holding.uuid), tuple(int(p) for p in at)) for holding, at in what if at),
        )
        self._put(identifier, started)
        return self._finish(identifier, started, [(h, at) for h, at in what if at], ticket)

    def _finish(
        self,
        identifier: UUID,
        started: ErasureState,
        what: Sequence[tuple[Holding, Sequence[Position]]],
        ticket: Ticket,
    ) -> ErasureState:
        destroyed = []
        for holding, at in what:
            shredded = holding.erase(at, ticket=ticket)
            self._risk.forget(holding.uuid, holding.ledger_tags(at))
            destroyed.append(
                {
                    "collection": holding.collection.name,
                    "collection_uuid": str(holding.uuid),
                    "record_keys": [int(p) for p in at],
                    "wrapped_under_version": shredded.key_version,
                    "version_destroyed": shredded.version_destroyed,
                }
            )
        receipt = {
            "type": "secure_embed/erasure-receipt/v1",
            "erasure": str(identifier),
            "deployment": str(self._deployment),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "reason": started.reason,
            "records": started.records,
            "destroyed": destroyed,
            "log_index": ticket.intent_index,
            "log_leaf_hash": leaf_hash(self._log.entries(ticket.intent_index, 1)[0]).hex(),
            "remains": _REMAINS,
        }
        text = orjson.dumps(receipt, option=orjson.OPT_SORT_KEYS).decode()
        note = sign_note(self._signer, kind="erasure-receipt", text=text + "\n")
        done = ErasureState(state="done", reason=started.reason, records=started.records, note=note)
        self._put(identifier, done)
        return done

    def unfinished(self) -> dict[UUID, ErasureState]:
        """Erasures that a crash cut off."""
        states = {i: self._opened(i, sealed) for i, sealed in self._store.states(StateKind.ERASURE)}
        return {i: state for i, state in states.items() if state.state == "started"}

    def finish(self, unfinished: Mapping[UUID, ErasureState], holdings: Holdings, ticket: Ticket) -> None:
        """Go on where a crash cut them off."""
        for identifier, started in unfinished.items():
            what = [(holdings.by_uuid(UUID(uuid)), tuple(map(Position, at))) for uuid, at in started.pending]
            self._finish(identifier, started, what, ticket)

    def state(self, identifier: UUID) -> ErasureState:
        """Raises ``NotFound``."""
        return self._opened(identifier, self._store.state(StateKind.ERASURE, identifier))

    def _opened(self, identifier: UUID, sealed: bytes) -> ErasureState:
        raw = orjson.loads(self._catalogue.open(CatalogueValue.ERASURE, identifier, sealed))
        pending = tuple((uuid, tuple(at)) for uuid, at in raw.pop("pending"))
        return ErasureState(**raw, pending=pending)

    def _put(self, identifier: UUID, state: ErasureState) -> None:
        sealed = self._catalogue.seal(CatalogueValue.ERASURE, identifier, orjson.dumps(asdict(state)))
        self._store.put_state(StateKind.ERASURE, identifier, sealed)
