"""Legal holds: placed, listed, released. Whoever may erase learns of one only by being refused."""

from uuid import UUID

from secure_embed.answers import HoldView
from secure_embed.erasure import Hold, Holds
from secure_embed.errors import NotFound
from secure_embed.trail import Call
from secure_embed.types import Action, Receipt
from secure_embed.vault.entrance import Entrance

__all__ = ["LegalHolds"]


class LegalHolds:
    def __init__(self, way: Entrance, holds: Holds) -> None:
        self._way = way
        self._holds = holds

    def place(
        self, call: Call, *, subject: str | None, collection: str | None, record: str | None, reason: str
    ) -> HoldView:
        """Raises ``NotFound`` for a collection or a record that is not there."""
        with self._way.begin(call, Action.HOLD_PLACE) as trail:
            principal, _ = self._way.enter(trail, None)
            if collection is not None and self._way.holdings.knows(collection):
                trail.collection = collection
            if subject is not None:
                trail.detail(subject_hmac=trail.hashed("subject", subject))
            if record is not None:
                trail.note(record_tags=(trail.hashed("record", record),))
            trail.ticket().require(Action.HOLD_PLACE)
            identifier, hold, count = self._holds.place(
                subject=subject, collection=collection, record=record, reason=reason, by=principal
            )
            trail.detail(hold=str(identifier))
            return self._view(identifier, hold, count, trail.done(results=count))

    def seen(self, call: Call) -> tuple[list[HoldView], Receipt]:
        with self._way.begin(call, Action.HOLD_LIST) as trail:
            self._way.enter(trail, None)
            views = [self._view(identifier, hold, None, None) for identifier, hold in self._holds.all().items()]
            views.sort(key=lambda view: (view.placed_unix, view.id))
            return views, trail.done(results=len(views))

    def release(self, call: Call, identifier: UUID) -> HoldView:
        with self._way.begin(call, Action.HOLD_RELEASE) as trail:
            self._way.enter(trail, None)
            if identifier not in self._holds.all():
                raise NotFound("there is no such hold", code="hold_not_found")
            trail.detail(hold=str(identifier))
            trail.ticket().require(Action.HOLD_RELEASE)
            return self._view(identifier, self._holds.release(identifier), None, trail.done())

    def _view(self, identifier: UUID, hold: Hold, records: int | None, receipt: Receipt | None) -> HoldView:
        return HoldView(
            id=identifier,
            subject=hold.subject,
            collection=None if hold.collection is None else self._way.holdings.name_of(UUID(hold.collection)),
            record=hold.record,
            reason=hold.reason,
            placed_by=hold.placed_by,
            placed_unix=hold.placed_unix,
            records=records,
            receipt=receipt,
        )
