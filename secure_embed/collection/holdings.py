"""All collections of a deployment: which there are, and a :class:`Holding` for each that is open, leased to who uses it.

What can be said of a collection without its keys is said here, and opens nothing.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import BoundedSemaphore, RLock
from uuid import UUID, uuid4

import orjson

from secure_embed.collection import figures
from secure_embed.collection.holding import Holding
from secure_embed.collection.opening import Progress
from secure_embed.collection.pause import Pause
from secure_embed.collection.resealing import settle
from secure_embed.collection.room import Room
from secure_embed.collection.shelf import Shelf
from secure_embed.collection.tuned import Kept
from secure_embed.errors import Conflict, NotFound
from secure_embed.index import bits_for, lists_for
from secure_embed.keys import CatalogueKeys, CatalogueValue, CollectionKeys, Keyring, KeyStore, TagKind
from secure_embed.store import RecordStore, SealedCollection
from secure_embed.types import AttributeType, Collection, Position, Space, Ticket

__all__ = ["Holdings", "Memory"]

collections_max = 1_000
trainings_max = 1  # collections coded anew at one time, beside the codes that they have


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Of all collections together, in bytes. ``budget``: None: no limit. ``building``: codes on their way into memory.

    ``needed``: if all were in memory; ``largest``: the one that needs most. Both are estimates at one bit a dimension.
    """

    open: int
    used: int
    budget: int | None
    needed: int
    largest: int
    building: tuple[Progress, ...]


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
        budget: int | None = None,
        wait_s: float | None = None,
    ) -> None:
        """``pause``: what can hold writers off; ``codes_folder``: where codes are saved, or nowhere; ``mark``: makes what
        goes into the store with each change of records (rollback.py); ``budget``: bytes that open collections may take;
        ``wait_s``: how long a query waits for codes."""
        self._keyring = keyring
        self._key_store = key_store
        self._store = store
        self._catalogue = catalogue
        self._pause = Pause() if pause is None else pause
        self._codes_folder = codes_folder
        self._mark = mark
        self._wait_s = wait_s
        self._trainings = BoundedSemaphore(trainings_max)
        self._lock = RLock()
        self.kept = Kept(store, catalogue)  # of tunings
        self._collections = {c.name: c for c in map(self._open_descriptor, store.collections())}
        self._ending: set[UUID] = set()  # whose erasure has begun
        self._shelf: Shelf[Holding] = Shelf(budget, self._opened)

    def _open_descriptor(self, sealed: SealedCollection) -> Collection:
        raw = orjson.loads(self._catalogue.open(CatalogueValue.DESCRIPTOR, sealed.uuid, sealed.descriptor))
        return Collection(**{**raw, "uuid": sealed.uuid, "space": Space(**raw["space"])})

    # --- made --------------------------------------------------------------------------------------------------------

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

    # --- what is known without opening one -----------------------------------------------------------------------------

    def knows(self, name: str) -> bool:
        return name in self._collections

    def names(self) -> list[str]:
        return sorted(self._collections)

    def collection(self, which: str | UUID) -> Collection:
        """By its name or uuid. Raises ``NotFound`` (``collection_not_found``), also once its erasure has begun."""
        with self._lock:
            name = self.name_of(which) if isinstance(which, UUID) else which
            found = None if name is None else self._collections.get(name)
            if found is None or found.uuid in self._ending:
                raise NotFound("there is no such collection for you", code="collection_not_found")
            return found

    def missing(self, which: str | UUID) -> NotFound | None:
        """What :meth:`collection` would raise, or None."""
        try:
            self.collection(which)
        except NotFound as error:
            return error
        return None

    def name_of(self, uuid: UUID) -> str | None:
        """None: it is not there any more."""
        with self._lock:
            return next((name for name, c in self._collections.items() if c.uuid == uuid), None)

    def records(self, which: str | UUID) -> int:
        """Raises ``NotFound``."""
        return self._store.versions(self.collection(which).uuid).records

    def data_version(self, name: str) -> int:
        """Raises ``NotFound``."""
        return self._store.versions(self._collections[name].uuid).data

    def next_position(self, which: str | UUID) -> Position:
        """One past the highest position that ever had a key there. Raises ``NotFound``."""
        uuid = self.collection(which).uuid
        return max(self._store.versions(uuid).next_position, self._key_store.next_position(uuid))

    def expired(self, name: str, now_unix: int, limit: int) -> Sequence[Position]:
        """Records whose end has come, the earliest first. Raises ``NotFound``."""
        return self._store.expired(self.collection(name).uuid, now_unix, limit)

    def key_version(self, which: str | UUID) -> int:
        """Raises ``NotFound``."""
        return self._key_store.collection(self.collection(which).uuid).version

    def key_versions(self) -> dict[str, int]:
        """Name -> version of the collection's key."""
        return {name: self._key_store.collection(c.uuid).version for name, c in sorted(self._collections.items())}

    # --- opened --------------------------------------------------------------------------------------------------------

    def using(self, which: str | UUID) -> AbstractContextManager[Holding]:
        """A collection by name or uuid, open until the block ends, whatever others need room for.

        Raises ``NotFound`` (``collection_not_found``).
        """
        return self._shelf.lease(self.collection(which).uuid)

    def using_soon(self, which: str | UUID) -> AbstractContextManager[Holding]:
        """The same for a caller who is to be told, after a while, that it is being opened: ``Unavailable``
        (``index_building``)."""
        return self._shelf.lease(self.collection(which).uuid, wait_s=self._wait_s)

    def named(self, name: str) -> Holding:
        """For a look from outside, in a test say: it may be closed at any moment. The service leases (:meth:`using`)."""
        with self.using(name) as holding:
            return holding

    def each_open(self) -> Iterator[Holding]:
        """Those that are open now, one after the other, each kept open for its turn; that does not count as a use."""
        for uuid in self._shelf.uuids():
            with self._shelf.lease_open(uuid) as holding:
                if holding is not None:
                    yield holding

    def _opened(self, uuid: UUID, room: Room) -> Holding:
        collection = self.collection(uuid)
        versions = self._store.versions(uuid)
        room.claim("keys", figures.keys_bytes(versions.next_position, versions.records))
        keys = CollectionKeys.unlock(self._keyring, self._key_store, uuid)
        settle(keys, self._key_store, self._store, collection.space.digest)
        return Holding(
            collection,
            keys=keys,
            key_store=self._key_store,
            store=self._store,
            pause=self._pause,
            codes_folder=self._codes_folder,
            mark=self._mark,
            room=room,
            trainings=self._trainings,
            wait_s=self._wait_s,
            tuned=lambda: self.kept.tuned(collection.uuid),
        )

    # --- memory --------------------------------------------------------------------------------------------------------

    def memory(self) -> Memory:
        found = self._shelf.open_now()
        building = tuple(progress for each in found if (progress := each.codes_progress) is not None)
        sizes = [self._expected(name) for name in self.names()]
        return Memory(
            open=len(found),
            used=self._shelf.used,
            budget=self._shelf.budget,
            needed=sum(sizes),
            largest=max(sizes, default=0),
            building=building,
        )

    def _expected(self, name: str) -> int:
        """Without its keys; 0: it came to its end meanwhile."""
        try:
            collection = self.collection(name)
            versions = self._store.versions(collection.uuid)
        except NotFound:
            return 0
        codes = figures.codes_bytes(
            versions.records,
            dimension=collection.space.dimension,
            bits=1,
            lists=lists_for(versions.records),
            attributes=collection.attributes.values(),
        )
        return figures.keys_bytes(versions.next_position, versions.records) + codes

    def needed(self, name: str) -> int:
        """Bytes that it takes with its codes in memory. Opens it. Raises ``NotFound``."""
        with self.using(name) as holding:
            return holding.memory_needed

    def warm(self, name: str) -> bool:
        """Bring a collection's codes into memory, however long that takes. False: there is no room for it unless others
        go. Raises ``NotFound``, ``Unavailable``."""
        with self.using(name) as holding:
            if not self._shelf.has_room(holding.memory_needed - holding.memory_bytes):
                return False
            holding.warm()
            return True

    # --- the end -------------------------------------------------------------------------------------------------------

    def erase(self, uuid: UUID, *, ticket: Ticket) -> int:
        """Erase a whole collection: from now on there is none, and its name is free in the end. Its keys go first, in
        one transaction. Idempotent, also when it was cut off.

        Returns the version that its key had, 0 where the keys were gone already.
        """
        with self._lock:
            self._ending.add(uuid)
            name = self.name_of(uuid)
        holding = self._shelf.take_out(uuid)
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

    def close(self) -> None:
        self._shelf.close()
