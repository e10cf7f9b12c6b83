"""All collections of a deployment: which there are, and one :class:`Holding` for each, opened when it is asked for."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import RLock
from uuid import UUID, uuid4

import orjson

from secure_embed.collection.holding import Holding
from secure_embed.collection.pause import Pause
from secure_embed.collection.resealing import settle
from secure_embed.collection.tuned import Kept
from secure_embed.errors import Conflict, NotFound
from secure_embed.index import bits_for
from secure_embed.keys import CatalogueKeys, CatalogueValue, CollectionKeys, Keyring, KeyStore, TagKind
from secure_embed.store import RecordStore, SealedCollection
from secure_embed.types import AttributeType, Collection, Space, Ticket

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
        pause: Pause | None = None,
        codes_folder: Path | None = None,
        mark: Callable[[], bytes] | None = None,
    ) -> None:
        """``pause``: what can hold writers off; ``codes_folder``: where codes are saved, or nowhere; ``mark``: makes what
        goes into the store with each change of records (rollback.py)."""
        self._keyring = keyring
        self._key_store = key_store
        self._store = store
        self._catalogue = catalogue
        self._pause = Pause() if pause is None else pause
        self._codes_folder = codes_folder
        self._mark = mark
        self._lock = RLock()
        self.kept = Kept(store, catalogue)  # of tunings
        self._collections = {c.name: c for c in map(self._open_descriptor, store.collections())}
        self._open: dict[str, Holding] = {}
        self._ending: set[UUID] = set()  # whose erasure has begun

    def _open_descriptor(self, sealed: SealedCollection) -> Collection:
        raw = orjson.loads(self._catalogue.open(CatalogueValue.DESCRIPTOR, sealed.uuid, sealed.descriptor))
        return Collection(**{**raw, "uuid": sealed.uuid, "space": Space(**raw["space"])})

    def knows(self, name: str) -> bool:
        return name in self._collections

    def describe_new(
        self,
        name: str,
        attributes: Mapping[str, AttributeType],
        *,
        space: Space,
        risk_profile: str,
        bits: int | None = None,
    ) -> Collection:
        """``bits``: None: by the space's dimension. Raises ``InvalidRequest`` for a name that is none, ``Conflict`` for
        one that is taken."""
        collection = Collection(
            name=name,
            uuid=uuid4(),
            space=space,
            attributes=dict(attributes),
            risk_profile=risk_profile,
            created_unix=int(time.time()),
            bits=bits_for(space.dimension) if bits is None else bits,
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
            "bits": collection.bits,
        }
        with self._pause.writing(), self._lock:
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
            if name not in self._collections or self._collections[name].uuid in self._ending:
                raise NotFound("there is no such collection for you", code="collection_not_found")
            if name not in self._open:
                self._open[name] = self._opened(self._collections[name])
            return self._open[name]

    def _opened(self, collection: Collection) -> Holding:
        keys = CollectionKeys.unlock(self._keyring, self._key_store, collection.uuid)
        settle(keys, self._key_store, self._store, collection.space.digest)
        return Holding(
            collection,
            keys=keys,
            key_store=self._key_store,
            store=self._store,
            pause=self._pause,
            codes_folder=self._codes_folder,
            mark=self._mark,
            tuned=lambda: self.kept.tuned(collection.uuid),
        )

    def data_version(self, name: str) -> int:
        """Without opening the collection. Raises ``NotFound``."""
        return self._store.versions(self._collections[name].uuid).data

    def key_versions(self) -> dict[str, int]:
        """Name -> version of the collection's key."""
        return {name: self._key_store.collection(c.uuid).version for name, c in sorted(self._collections.items())}

    def name_of(self, uuid: UUID) -> str | None:
        """None: it is not there any more."""
        return next((name for name, c in self._collections.items() if c.uuid == uuid), None)

    def erase(self, uuid: UUID, *, ticket: Ticket) -> int:
        """Erase a whole collection: from now on there is none, and its name is free in the end. Its keys go first, in
        one transaction. Idempotent, also when it was cut off.

        Returns the version that its key had, 0 where the keys were gone already.
        """
        with self._lock:
            self._ending.add(uuid)
            name = self.name_of(uuid)
            holding = None if name is None else self._open.pop(name, None)
        if holding is not None:
            holding.end()
        version = 0
        with self._pause.writing():
            with suppress(NotFound):
                version = self._key_store.collection(uuid).version
            self._key_store.drop_collection(uuid, ticket=ticket)
            if self._codes_folder is not None:  # where it was not open; what is in them is sealed, and the key is gone
                for file in (f"{uuid}", f".{uuid}.new"):
                    (self._codes_folder / file).unlink(missing_ok=True)
            self.kept.drop(uuid)
            self._store.erase_collection(uuid, ticket=ticket)
        with self._lock:
            if name is not None:
                self._collections.pop(name, None)
        return version

    def opened(self) -> list[Holding]:
        """Those that are in memory now."""
        with self._lock:
            return list(self._open.values())

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
