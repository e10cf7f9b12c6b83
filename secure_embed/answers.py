"""What the use cases are asked and what they answer: frozen types between vault/ and its doors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from secure_embed.collection import Tuned, Tuning, TuningProgress
from secure_embed.index import Effort
from secure_embed.keys import ProviderDescription
from secure_embed.types import Attributes, Collection, Expression, Receipt, Record

__all__ = [
    "BackupView",
    "CollectionView",
    "Erasure",
    "Fetched",
    "Hit",
    "HoldView",
    "Ingested",
    "KeysView",
    "QueryResult",
    "Question",
    "RotationView",
    "TuningView",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    text: str = field(repr=False)
    k: int
    own: Expression | None = field(default=None, repr=False)  # the caller's own filter
    include_text: bool = False
    has_vector: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    id: str = field(repr=False)
    rank: int
    score: float | None
    attributes: Attributes = field(repr=False)
    text: str | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryResult:
    hits: tuple[Hit, ...]
    limited: bool
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    records: int
    truncated: int
    replayed: bool
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    record: Record
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionView:
    collection: Collection
    records: int | None  # None for who may not read every record: a count tells of what is hidden
    receipt: Receipt | None
    bits: int  # a dimension in its codes
    effort: Effort  # of its queries
    tuned: Tuned | None  # None: never; its count of records is not for everyone either


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    id: UUID
    state: Literal["started", "shredded", "done"]
    kind: Literal["record", "subject", "collection", "retention"]
    records: int
    note: str | None  # the signed erasure receipt, once it is done
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldView:
    id: UUID
    subject: str | None = field(repr=False)
    collection: str | None
    record: str | None = field(repr=False)
    reason: str = field(repr=False)
    placed_by: str = field(repr=False)
    placed_unix: int
    records: int | None  # that it holds; None: not counted now
    receipt: Receipt | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationView:
    id: UUID
    kind: Literal["root", "collection", "log", "store"]
    state: Literal["running", "done", "failed"]
    collection: str | None
    done: int  # records re-sealed so far
    total: int
    error: str | None
    receipt: Receipt | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningView:
    collection: str
    tuning: Tuning
    progress: TuningProgress
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysView:
    deployment: UUID
    provider: ProviderDescription
    collections: Mapping[str, int]  # name -> version of its key
    rotations: tuple[RotationView, ...]
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupView:
    id: UUID
    data: str  # paths on the service's machine
    keys: str
    records: int  # opened again in the copy
    log_size: int
    bytes_copied: int
    bytes_linked: int  # unchanged since the backup before
    receipt: Receipt
