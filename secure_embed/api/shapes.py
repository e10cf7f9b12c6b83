"""From request models to the domain's types, and from the vault's answers to response models."""

import math
import re
from datetime import UTC, datetime
from typing import Literal

from secure_embed.answers import CollectionView, QueryResult
from secure_embed.api.models import (
    CollectionAnswer,
    EffortAnswer,
    FilterNode,
    HitAnswer,
    QueryAnswer,
    ReceiptAnswer,
    RecordRequest,
    TunedAnswer,
)
from secure_embed.errors import InvalidRequest
from secure_embed.index import Effort, every_list
from secure_embed.types import And, Compare, Equals, Expression, Not, OneOf, Or, Receipt, Record

__all__ = [
    "collection_answer",
    "effort_answer",
    "expression",
    "query_answer",
    "receipt_answer",
    "receipt_header",
    "record",
    "rfc_3339",
    "thousandths",
    "unix_time",
]

filter_depth_max = 16
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})\Z"
)

_COMPARISONS: tuple[tuple[str, Literal["<", "<=", ">", ">="]], ...] = (
    ("less_than", "<"),
    ("at_most", "<="),
    ("more_than", ">"),
    ("at_least", ">="),
)


def record(given: RecordRequest) -> Record:
    return Record(
        id=given.id,
        text=given.text,
        subject=given.subject,
        attributes=given.attributes,
        metadata=given.metadata,
        expires_unix=None if given.expires_at is None else unix_time(given.expires_at),
    )


def unix_time(written: str) -> int:
    """RFC 3339 section 5.6, an offset included; a part of a second is cut off. Raises ``InvalidRequest``
    (``expires_at_invalid``)."""
    try:
        if not _RFC_3339.match(written):
            raise ValueError
        return math.floor(datetime.fromisoformat(written.upper()).timestamp())
    except (ValueError, OverflowError):
        raise InvalidRequest(
            "expires_at is a date and time with its offset, as RFC 3339 has it", code="expires_at_invalid"
        ) from None


def rfc_3339(unix: int) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat().replace("+00:00", "Z")


def expression(node: FilterNode, depth: int = 1) -> Expression:
    """Raises ``InvalidRequest`` (``filter_invalid``) unless every node has exactly one form."""
    said = node.model_fields_set - {"attribute"}
    if depth > filter_depth_max or len(said) != 1:
        raise InvalidRequest("a filter's node has one form, and at most 16 levels", code="filter_invalid")
    (form,) = said
    if form in {"all", "any", "none"}:
        if node.attribute is not None:
            raise InvalidRequest("all, any and none take no attribute", code="filter_invalid")
        return _combined(node, depth)
    if node.attribute is None:
        raise InvalidRequest("a comparison names its attribute", code="filter_invalid")
    if node.equals is not None:
        return Equals(node.attribute, node.equals)
    if node.one_of is not None:
        return OneOf(node.attribute, tuple(node.one_of))
    for name, operator in _COMPARISONS:
        if (bound := getattr(node, name)) is not None:
            return Compare(node.attribute, operator, bound)
    raise InvalidRequest("a filter compares with a value, not with null", code="filter_invalid")


def _combined(node: FilterNode, depth: int) -> Expression:
    if node.none is not None:
        return Not(expression(node.none, depth + 1))
    parts = [expression(part, depth + 1) for part in (node.all or node.any or ())]
    if not parts:
        raise InvalidRequest("a filter combines at least one part", code="filter_invalid")
    joined = parts[0]
    for part in parts[1:]:
        joined = And(joined, part) if node.all else Or(joined, part)
    return joined


def receipt_answer(receipt: Receipt) -> ReceiptAnswer:
    return ReceiptAnswer(origin=receipt.origin, index=receipt.index, leaf_hash=receipt.leaf_hash)


def receipt_header(receipt: Receipt) -> dict[str, str]:
    """For answers whose body is not ours to shape; problems carry the same header."""
    return {"Audit-Receipt": str(receipt)}


def thousandths(share: float) -> float:
    """Cut, not rounded: no recall is shown that was not reached, and no digit that tells of single hits."""
    return math.floor(1_000 * share + 1e-9) / 1_000


def effort_answer(effort: Effort) -> EffortAnswer:
    every = effort.lists == every_list
    return EffortAnswer(
        candidates=effort.candidates,
        lists=None if every else effort.lists,
        all_lists=every,
        margin=effort.margin,
    )


def collection_answer(view: CollectionView) -> CollectionAnswer:
    tuned = view.tuned
    return CollectionAnswer(
        name=view.collection.name,
        attributes=dict(view.collection.attributes),
        records=view.records,
        model=view.collection.space.model,
        dimension=view.collection.space.dimension,
        risk_profile=view.collection.risk_profile,
        bits=view.bits,
        effort=effort_answer(view.effort),
        tuned=None
        if tuned is None
        else TunedAnswer(
            target=tuned.asked.target,
            k=tuned.asked.k,
            recall=thousandths(tuned.recall),
            at=rfc_3339(tuned.unix),
            records=None if view.records is None else tuned.records,
        ),
        receipt=receipt_answer(view.receipt) if view.receipt else None,
    )


def query_answer(result: QueryResult) -> QueryAnswer:
    return QueryAnswer(
        hits=[
            HitAnswer(id=hit.id, rank=hit.rank, score=hit.score, attributes=dict(hit.attributes), text=hit.text)
            for hit in result.hits
        ],
        limited=result.limited,
        receipt=receipt_answer(result.receipt),
    )
