"""Erasures: one record, a data subject, a whole collection; and what became of an erasure."""

from collections.abc import Sequence
from uuid import UUID, uuid4

from secure_embed.answers import Erasure
from secure_embed.erasure import Erasing, ErasureState, Kind, What
from secure_embed.errors import NotFound
from secure_embed.trail import Call, Trail
from secure_embed.types import Action, Position, Receipt
from secure_embed.vault.entrance import Entrance

__all__ = ["Erasures"]


class Erasures:
    def __init__(self, way: Entrance, erasing: Erasing) -> None:
        self._way = way
        self._erasing = erasing

    def of_record(self, call: Call, name: str, record_id: str, *, reason: str) -> Erasure:
        with self._way.begin(call, Action.RECORD_ERASE) as trail:
            principal, _ = self._way.enter(trail, name)
            holding = self._way.holding(trail, name)
            position, _ = self._way.visible(trail, principal, holding, record_id)
            return self._erase(trail, [(holding.uuid, (position,))], kind="record", reason=reason)

    def of_subject(self, call: Call, subject: str, names: Sequence[str] | None, *, reason: str) -> Erasure:
        """All records of a data subject, in every collection where policy lets the caller erase, or in those named."""
        with self._way.begin(call, Action.RECORD_ERASE) as trail:
            what = self._of_subject(trail, subject, names)
            trail.detail(subject_hmac=trail.hashed("subject", subject))
            return self._erase(trail, what, kind="subject", reason=reason)

    def of_collection(self, call: Call, name: str, *, reason: str) -> Erasure:
        """The collection and everything in it."""
        with self._way.begin(call, Action.COLLECTION_ERASE) as trail:
            self._way.enter(trail, name)
            collection = self._way.holdings.collection(name)
            return self._erase(trail, [(collection.uuid, None)], kind="collection", reason=reason)

    def _of_subject(self, trail: Trail, subject: str, names: Sequence[str] | None) -> What:
        """One collection is open at a time, however many there are."""
        principal = self._way.gate.identify(trail)
        asked = names or self._way.holdings.names()
        allowed = self._way.gate.erases_all_in(trail, principal, asked, named=names is not None)
        found: list[tuple[UUID, Sequence[Position]]] = []
        for name in allowed:
            try:
                with self._way.holdings.using(name) as holding:
                    found.append((holding.uuid, holding.of_subject(subject)))
            except NotFound:  # it came to its end meanwhile, and all in it
                if names is not None:
                    raise
        return found

    def _erase(self, trail: Trail, what: What, *, kind: Kind, reason: str) -> Erasure:
        identifier = uuid4()
        count = sum(self._way.holdings.records(uuid) if at is None else len(at) for uuid, at in what)
        trail.detail(erasure=str(identifier), requested=count)
        trail.intend(openings_max=count)

        def log(state: ErasureState) -> Receipt:
            if state.receipt_sha256 is not None:
                trail.detail(receipt_sha256=state.receipt_sha256)
            return trail.done(results=state.records)

        state, receipt = self._erasing.run(identifier, what, kind=kind, reason=reason, ticket=trail.ticket(), log=log)
        return _erasure(identifier, state, receipt)

    def show(self, call: Call, identifier: UUID) -> Erasure:
        """Policy is asked about the collections that it was in, which may not be there any more."""
        with self._way.begin(call, Action.RECORD_ERASE) as trail:
            principal = self._way.gate.identify(trail)
            state = self._erasing.state(identifier)
            names = [part.collection for part in state.parts] or self._way.holdings.names()
            self._way.gate.erases_all_in(trail, principal, names, named=False)
            return _erasure(identifier, state, trail.done(results=1))


def _erasure(identifier: UUID, state: ErasureState, receipt: Receipt) -> Erasure:
    return Erasure(
        id=identifier, state=state.state, kind=state.kind, records=state.records, note=state.note, receipt=receipt
    )
