"""What travels: request and response models. Strict, nothing unknown allowed; they hold no rule but shape and size."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from secure_embed.types import AttributeType

__all__ = [
    "CollectionAnswer",
    "CollectionRequest",
    "CollectionsAnswer",
    "EffortAnswer",
    "ErasureAnswer",
    "ErasureRequest",
    "EventsAnswer",
    "ExportRequest",
    "FilterNode",
    "HitAnswer",
    "HoldAnswer",
    "HoldRequest",
    "HoldsAnswer",
    "IngestAnswer",
    "IngestRequest",
    "ProblemAnswer",
    "QueryAnswer",
    "QueryRequest",
    "Reason",
    "ReceiptAnswer",
    "RecordAnswer",
    "RecordRequest",
    "TunedAnswer",
    "field_names",
]

Value = str | int | bool
Name = Annotated[str, Field(max_length=63)]
Reason = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9_.-]+$")]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class _Out(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CollectionRequest(_In):
    name: Name = Field(examples=["clinical-notes"])
    attributes: Annotated[dict[Name, AttributeType], Field(max_length=32)] = Field(
        default_factory=dict, examples=[{"department": "string", "sensitivity": "long", "country": "string"}]
    )

    bits: int | None = Field(
        default=None,
        description="of each dimension in the codes, 1 to 4; default: 1 from 128 dimensions on, 2 below",
    )


class RecordRequest(_In):
    id: str = Field(examples=["cn-7f3a91"])
    text: str = Field(examples=["Discharged in good condition after an uncomplicated appendectomy."])
    subject: str | None = Field(default=None, examples=["patient-0381"])
    attributes: dict[Name, Value] = Field(
        default_factory=dict, examples=[{"department": "surgery", "sensitivity": 1, "country": "DE"}]
    )
    metadata: dict[Name, Value] = Field(default_factory=dict, examples=[{"source": "discharge letter"}])
    expires_at: Annotated[str, Field(max_length=40)] | None = Field(
        default=None,
        examples=["2031-12-31T23:59:59Z"],
        description="RFC 3339; from then on the record is not answered, and soon erased",
    )


class IngestRequest(_In):
    records: Annotated[list[RecordRequest], Field(min_length=1)]


class FilterNode(_In):
    """One node of a filter: exactly one of its forms."""

    all: Annotated[list["FilterNode"], Field(min_length=1, max_length=16)] | None = None
    any: Annotated[list["FilterNode"], Field(min_length=1, max_length=16)] | None = None
    none: "FilterNode | None" = None
    attribute: Name | None = None
    equals: Value | None = None
    one_of: Annotated[list[Value], Field(min_length=1, max_length=64)] | None = None
    less_than: int | None = None
    at_most: int | None = None
    more_than: int | None = None
    at_least: int | None = None


class QueryRequest(_In):
    text: Annotated[str, Field(min_length=1, max_length=8_192)] = Field(examples=["pain after surgery on the knee"])
    k: int = Field(default=10, ge=1, examples=[10])
    filter: FilterNode | None = Field(default=None, examples=[{"attribute": "country", "equals": "DE"}])
    include_text: bool = False
    vector: list[float] | None = Field(
        default=None, description="Refused by every released risk profile: a vector of one's own choice is a probe."
    )


class ExportRequest(_In):
    ids: Annotated[list[str], Field(min_length=1, max_length=1_000)]


class ErasureRequest(_In):
    subject: str = Field(examples=["patient-0381"])
    collections: Annotated[list[Name], Field(min_length=1, max_length=256)] | None = None
    reason: Reason = Field(default="data-subject-request", examples=["gdpr-art-17"])


class HoldRequest(_In):
    """A subject, in every collection; or one record with its collection."""

    subject: str | None = Field(default=None, examples=["patient-0381"])
    collection: Name | None = Field(default=None, examples=["clinical-notes"])
    record: str | None = Field(default=None, examples=["cn-7f3a91"])
    reason: Annotated[str, Field(min_length=1, max_length=500)] = Field(examples=["litigation 12 O 34/26"])


class ReceiptAnswer(_Out):
    """Where this call stands in the audit log."""

    origin: str
    index: int
    leaf_hash: str


class EffortAnswer(_Out):
    """How far a search goes."""

    candidates: int = Field(description="vectors that are opened at most, where not all are")
    lists: int | None = Field(description="lists of codes that are looked at; null: by their number, see docs")
    all_lists: bool
    margin: float = Field(description="deviations that an estimate is trusted to be off by")


class TunedAnswer(_Out):
    target: float
    k: int
    recall: float
    at: str
    records: int | None = Field(description="that there were; null for who may not read every record")


class CollectionAnswer(_Out):
    name: str
    attributes: dict[str, AttributeType]
    records: int | None
    model: str
    dimension: int
    risk_profile: str
    bits: int
    effort: EffortAnswer
    tuned: TunedAnswer | None = Field(description="the tuning that is in force; null: the collection was never tuned")
    receipt: ReceiptAnswer | None = None


class CollectionsAnswer(_Out):
    collections: list[CollectionAnswer]
    receipt: ReceiptAnswer


class IngestAnswer(_Out):
    collection: str
    records: int
    truncated: int = Field(description="texts longer than the model reads; the vector stands for their beginning")
    replayed: bool = Field(description="true: this Idempotency-Key was ingested before, and nothing was written now")
    receipt: ReceiptAnswer


class HitAnswer(_Out):
    id: str
    rank: int
    score: float | None = Field(
        description="rounded and capped by the risk profile; null where only the order is shown"
    )
    attributes: dict[str, Value]
    text: str | None = None


class QueryAnswer(_Out):
    hits: list[HitAnswer]
    limited: bool = Field(description="true: the risk profile left out scores or records")
    receipt: ReceiptAnswer


class RecordAnswer(_Out):
    id: str
    text: str
    subject: str | None
    attributes: dict[str, Value]
    metadata: dict[str, Value]
    expires_at: str | None
    receipt: ReceiptAnswer


class ErasureAnswer(_Out):
    id: str
    state: Literal["started", "shredded", "done"] = Field(
        description="shredded: no answer can contain it; done: the key version that had wrapped its keys is destroyed too"
    )
    kind: Literal["record", "subject", "collection", "retention"]
    records: int
    note: str | None = Field(description="once done: the signed erasure receipt (C2SP signed-note), for `audit/verify`")
    receipt: ReceiptAnswer


class HoldAnswer(_Out):
    id: str
    subject: str | None
    collection: str | None
    record: str | None
    reason: str
    placed_by: str
    placed_at: str
    records: int | None = Field(description="how many it holds, where it was placed now")
    receipt: ReceiptAnswer | None = None


class HoldsAnswer(_Out):
    holds: list[HoldAnswer]
    receipt: ReceiptAnswer


class EventsAnswer(_Out):
    first: int
    events: list[Any]
    receipt: ReceiptAnswer


class ProblemAnswer(_Out):
    """Problem details (RFC 9457). ``code`` is stable; docs/errors.md lists them."""

    type: str
    title: str
    status: int
    detail: str
    code: str


def field_names() -> frozenset[str]:
    """Names of our own fields: all that may be repeated of a malformed body."""
    models = (
        *(CollectionRequest, IngestRequest, RecordRequest, QueryRequest, FilterNode, ErasureRequest, ExportRequest),
        HoldRequest,
    )
    return frozenset({"body", "path", "query"}.union(*(m.model_fields for m in models)))
