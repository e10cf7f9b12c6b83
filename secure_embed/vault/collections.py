"""Collections: made, listed, shown."""

from secure_embed.answers import CollectionView
from secure_embed.embed import Encoder
from secure_embed.index import Effort
from secure_embed.trail import Call, Trail
from secure_embed.types import Action, Collection, Principal, Receipt
from secure_embed.vault.entrance import Declared, Entrance

__all__ = ["Collections"]


class Collections:
    def __init__(self, way: Entrance, *, encoder: Encoder, risk_profile: str, untuned: Effort) -> None:
        self._way = way
        self._encoder = encoder
        self._risk_profile = risk_profile
        self._untuned = untuned

    def create(self, call: Call, *, name: str, attributes: Declared, bits: int | None = None) -> CollectionView:
        with self._way.begin(call, Action.COLLECTION_CREATE) as trail:
            self._way.enter(trail, name, attributes)
            collection = self._way.holdings.describe_new(
                name, attributes, space=self._encoder.space, risk_profile=self._risk_profile, bits=bits
            )
            trail.ticket().require(Action.COLLECTION_CREATE)
            self._way.holdings.create(collection)
            trail.collection = name
            return CollectionView(
                collection=collection,
                records=0,
                receipt=trail.done(),
                bits=collection.bits,
                effort=self._untuned,
                tuned=None,
            )

    def seen(self, call: Call) -> tuple[list[CollectionView], Receipt]:
        with self._way.begin(call, Action.COLLECTION_LIST) as trail:
            principal, _ = self._way.enter(trail, None)
            views = [
                self._view(trail, principal, self._way.holdings.collection(name))
                for name in self._way.holdings.names()
                if self._way.gate.may(trail, principal, Action.COLLECTION_READ, name)
            ]
            return views, trail.done(results=len(views))

    def show(self, call: Call, name: str) -> CollectionView:
        with self._way.begin(call, Action.COLLECTION_READ) as trail:
            principal, _ = self._way.enter(trail, name)
            collection = self._way.holdings.collection(name)
            return self._view(trail, principal, collection, trail.done())

    def _view(
        self, trail: Trail, principal: Principal, collection: Collection, receipt: Receipt | None = None
    ) -> CollectionView:
        """Nothing is opened for it: looking at a collection brings none into memory."""
        reads_all = self._way.gate.reads_all(trail, principal, collection.name)
        tuned = self._way.holdings.kept.tuned(collection.uuid)
        return CollectionView(
            collection=collection,
            records=self._way.holdings.records(collection.uuid) if reads_all else None,
            receipt=receipt,
            bits=collection.bits if tuned is None else tuned.bits,
            effort=self._untuned if tuned is None else tuned.effort,
            tuned=tuned,
        )
