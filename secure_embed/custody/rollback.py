"""Noticing that an older state was put back behind the service's back.

Each change of the store carries a mark: how large the log was then, its root, and how many transactions the databases of
keys and of budgets had seen. The keys database gets one at each start and stop and every hour, so that it knows older data
beside an older log. At the start the four are compared. What is not noticed: all of them put back together to one moment,
which is for a witness of the log outside of this machine to see.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import UUID

from secure_embed.audit import AuditEvent, AuditLog, Phase
from secure_embed.collection import Holdings
from secure_embed.errors import IntegrityFailure, SecureEmbedError
from secure_embed.keys import CatalogueKeys, CatalogueValue, KeyStore
from secure_embed.store import RecordStore, StateKind
from secure_embed.types import Action

__all__ = ["Mark", "Rollback", "rollback_codes"]

rollback_codes = frozenset({"log_rolled_back", "keys_rolled_back", "budgets_rolled_back", "store_rolled_back"})

_FORMAT = struct.Struct(">Q32sQQ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What the store remembers of the others. 56 bytes: log size, log root, generation of keys.db, of risk.db."""

    log_size: int
    log_root: bytes  # 32 bytes, RFC 6962
    keys_generation: int
    risk_generation: int

    def to_bytes(self) -> bytes:
        return _FORMAT.pack(self.log_size, self.log_root, self.keys_generation, self.risk_generation)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        size, root, keys, risk = _FORMAT.unpack(raw)
        return cls(log_size=size, log_root=root, keys_generation=keys, risk_generation=risk)


@dataclass(slots=True)
class _Logged:
    """What must be there when all of these events happened."""

    versions: dict[str, int] = field(default_factory=dict)  # a collection's name, and its data version at least
    erasures: set[UUID] = field(default_factory=set)

    def take(self, event: Mapping[str, Any]) -> None:
        if event.get("phase") != Phase.OUTCOME or event.get("decision") != "allowed":
            return
        action, name, details = event["action"], str(event.get("collection")), event.get("details", {})
        if action == Action.COLLECTION_CREATE:
            self.versions[name] = 0
        elif action == Action.COLLECTION_ERASE:
            self.versions.pop(name, None)
        elif action == Action.RECORD_INGEST:
            self.versions[name] = max(self.versions.get(name, 0), event.get("index_version", 0))
        if "erasure" in details:
            self.erasures.add(UUID(details["erasure"]))


class Rollback:
    """Makes marks, and compares the store's last one with what is there."""

    def __init__(
        self,
        *,
        deployment: UUID,
        catalogue: CatalogueKeys,
        store: RecordStore,
        key_store: KeyStore,
        log: AuditLog,
        risk_generation: Callable[[], int],
    ) -> None:
        self._deployment = deployment
        self._catalogue = catalogue
        self._store = store
        self._key_store = key_store
        self._log = log
        self._risk_generation = risk_generation

    def mark(self) -> bytes:
        """Sealed; goes into the store with a change, in one transaction."""
        head = self._log.head()
        now = Mark(
            log_size=head.size,
            log_root=head.root,
            keys_generation=self._key_store.generation,
            risk_generation=self._risk_generation(),
        )
        return self._catalogue.seal(CatalogueValue.MARK, self._deployment, now.to_bytes())

    def remember(self) -> None:
        """Mark store and keys now, so that a later start reads less of the log and knows what is older."""
        self._key_store.mark(self.mark())
        self._store.mark(self.mark())

    def require_present(self, holdings: Holdings) -> None:
        """Raise ``IntegrityFailure`` when one of the four is older than another knows: ``log_rolled_back``,
        ``keys_rolled_back``, ``budgets_rolled_back``, ``store_rolled_back``."""
        sealed = self._store.marked()
        if sealed is None:
            raise IntegrityFailure("the store carries no mark of the log", code="store_rolled_back")
        marked = self._opened(sealed)
        self._log.require_head(marked.log_size, marked.log_root)
        if (of_keys := self._key_store.marked()) is not None:
            seen = self._opened(of_keys)
            self._log.require_head(seen.log_size, seen.log_root)
        if self._key_store.generation < marked.keys_generation:
            raise IntegrityFailure("the keys database is older than the store", code="keys_rolled_back")
        if self._risk_generation() < marked.risk_generation:
            raise IntegrityFailure("the database of budgets is older than the store", code="budgets_rolled_back")
        since = _Logged()
        for _, event in self._log.events_since(marked.log_size):
            since.take(event)
        if not self._has(since, holdings):
            raise IntegrityFailure("the log has changes that the store has not", code="store_rolled_back")

    def _opened(self, sealed: bytes) -> Mark:
        return Mark.from_bytes(self._catalogue.open(CatalogueValue.MARK, self._deployment, sealed))

    def _has(self, logged: "_Logged", holdings: Holdings) -> bool:
        """Whether the store shows what the log says was done."""
        states = {identifier for identifier, _ in self._store.states(StateKind.ERASURE)}
        return (
            logged.erasures <= states
            and all(holdings.knows(name) for name in logged.versions)
            and all(holdings.data_version(name) >= version for name, version in logged.versions.items())
        )

    def acknowledge(self, found: SecureEmbedError) -> None:
        """An operator says that the older state is meant: that goes into the log, and the store is marked anew."""
        self._log.system(
            AuditEvent(
                phase=Phase.SYSTEM, action="log.rollback", details={"found": found.code, "size": self._log.head().size}
            )
        )
        self.remember()
