"""The way into every use case: a trail is begun, and token, scope and policy are asked in order.

What each use case does then stands in the modules beside this one.
"""

from collections.abc import Mapping

from secure_embed.collection import Holding, Holdings, Meta
from secure_embed.embed import Encoder
from secure_embed.errors import Conflict, NotFound, SecureEmbedError
from secure_embed.gate import Gate
from secure_embed.trail import Call, Trail, Trails
from secure_embed.types import Action, AttributeType, Permit, Position, Principal

__all__ = ["Declared", "Entrance", "in_space", "record_not_found"]

Declared = Mapping[str, AttributeType]


class Entrance:
    def __init__(self, *, gate: Gate, trails: Trails, holdings: Holdings) -> None:
        self.gate = gate
        self.holdings = holdings
        self._trails = trails

    def begin(self, call: Call, action: Action) -> Trail:
        return self._trails.begin(call, action)

    def enter(self, trail: Trail, collection: str | None, declared: Declared | None = None) -> tuple[Principal, Permit]:
        """token -> principal -> scope -> policy; raises the refusal, which the trail logs on its way out."""
        principal = self.gate.identify(trail)
        if collection is not None and self.holdings.knows(collection):
            trail.collection = collection  # an unknown name is the caller's own text, and stays out of the log
        return principal, self.gate.permit(trail, principal, trail.action, collection, declared)

    def holding(self, trail: Trail, name: str) -> Holding:
        """The collection, open until the trail ends. Raises ``NotFound`` (``collection_not_found``), and ``Unavailable``
        (``index_building``) when opening it takes long."""
        uuid = self.holdings.collection(name).uuid  # a name may be another collection's soon
        return trail.keep(self.holdings.using_soon(uuid), gone=lambda: self.holdings.missing(uuid))

    def refuse(self, call: Call, error: SecureEmbedError) -> None:
        """Log a refusal that the door made (a malformed body, say) and raise it. An unknown caller gets its 401."""
        with self.begin(call, call.action) as trail:
            self.gate.name(trail)
            raise error

    def visible(self, trail: Trail, principal: Principal, holding: Holding, record_id: str) -> tuple[Position, Meta]:
        """The record, if it is there and the caller may do this with it; hidden and absent look the same."""
        trail.note(record_tags=(trail.hashed("record", record_id),))
        position = holding.locate(record_id)
        expired_too = trail.action is Action.RECORD_ERASE  # what a sweep has not come to yet can still be erased
        meta = None if position is None else holding.describe([position], also_expired=expired_too).get(position)
        if position is None or meta is None:
            raise record_not_found()
        may = self.gate.recheck(trail, principal, trail.action, holding.collection.name, [meta.attributes])
        if not all(may):
            raise record_not_found()
        return position, meta


def in_space(holding: Holding, encoder: Encoder) -> Holding:
    """The holding, when its vectors are of the loaded model. Raises ``Conflict`` (``space_mismatch``)."""
    if holding.collection.space != encoder.space:
        raise Conflict("the collection's vectors are of another model than the loaded one", code="space_mismatch")
    return holding


def record_not_found() -> NotFound:
    return NotFound("there is no such record for you", code="record_not_found")
