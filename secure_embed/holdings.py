"""All collections of a deployment: which there are, and one :class:`Holding` for each, opened when it is asked for."""

import time
from collections.abc import Mapping
from threading import RLock
from uuid import UUID, uuid4

import orjson

from secure_embed.errors import Conflict, NotFound
from secure_embed.holding import Holding
from secure_embed.keys import CatalogueKeys, CatalogueValue, CollectionKeys, Keyring, KeyStore, TagKind
from secure_embed.store import RecordStore, SealedCollection
from secure_embed.types import AttributeType, Collection, Space

__all__ = ["Holdings"]

collections_max = 1_000


class Holdings:
    """Thread safe. Descriptors are opened at start, keys and codes at the first use of a collection."""

    def __init__(
        self,
        *,
        keyring: Keyring,
        key_store: KeyStore,
        store: RecordStore,
        catalogue: CatalogueKeys,
    ) -> None:
        self._keyring = keyring
        self._key_store = key_store
        self._store = store
        self._catalogue = catalogue
        self._lock = RLock()
        self._collections = {c.name: c for c in map(self._open_descriptor, store.collections())}
        self._open: dict[str, Holding] = {}

    def _open_descriptor(self, sealed: SealedCollection) -> Collection:
        raw = orjson.loads(self._catalogue.open(CatalogueValue.DESCRIPTOR, sealed.uuid, sealed.descriptor))
        return Collection(**{**raw, "uuid": sealed.uuid, "space": Space(**raw["space"])})

    def knows(self, name: str) -> bool:
        return name in self._collections

    def describe_new(
        self, name: str, attributes: Mapping[str, AttributeType], *, space: Space, risk_profile: str
    ) -> Collection:
        """Raises ``InvalidRequest`` for a name that is none, ``Conflict`` for one that is taken."""
        collection = Collection(
            name=name,
            uuid=uuid4(),
            space=space,
            attributes=dict(attributes),
            risk_profile=risk_profile,
            created_unix=int(time.time()),
        )
        self._ensure_free(name)
        return collection

    def _ensure_free(self, name: str) -> None:
        if name in self._collections:
            raise Conflict("a collection of this name is there already", code="collection_exists")
        if len(self._collections) >= collections_max:
            raise Conflict("there are as many collections as one deployment holds", code="collections_full")

    def create(self, collection: Collection) -> None:
        """Keys first, then the sealed descriptor: keys without a collection are harmless."""
        descriptor = {
            "name": collection.name,
            "space": {name: getattr(collection.space, name) for name in Space.__slots__},
            "attributes": dict(collection.attributes),
            "risk_profile": collection.risk_profile,
            "created_unix": collection.created_unix,
        }
        with self._lock:
            self._ensure_free(collection.name)
            CollectionKeys.create(self._keyring, self._key_store, collection.uuid).close()
            self._store.create_collection(
                SealedCollection(
                    uuid=collection.uuid,
                    name_tag=self._catalogue.tag(TagKind.COLLECTION_NAME, collection.name),
                    descriptor=self._catalogue.seal(
                        CatalogueValue.DESCRIPTOR, collection.uuid, orjson.dumps(descriptor)
                    ),
                )
            )
            self._collections[collection.name] = collection

    def named(self, name: str) -> Holding:
        """Raises ``NotFound`` (``collection_not_found``)."""
        with self._lock:
            if name not in self._collections:
                raise NotFound("there is no such collection for you", code="collection_not_found")
            if name not in self._open:
                self._open[name] = self._opened(self._collections[name])
            return self._open[name]

    def _opened(self, collection: Collection) -> Holding:
        return Holding(
            collection,
            keys=CollectionKeys.unlock(self._keyring, self._key_store, collection.uuid),
            key_store=self._key_store,
            store=self._store,
        )

    def names(self) -> list[str]:
        return sorted(self._collections)

    def by_uuid(self, uuid: UUID) -> Holding:
        """Raises ``NotFound`` (``collection_not_found``)."""
        names = [c.name for c in self._collections.values() if c.uuid == uuid]
        return self.named(names[0] if names else "")

    def close(self) -> None:
        with self._lock:
            for holding in self._open.values():
                holding.close()
            self._open.clear()
