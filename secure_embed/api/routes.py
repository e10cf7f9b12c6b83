"""The paths of collections, records and queries. A route's name is the action that policy decides on."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Security
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from secure_embed.access import required_scope
from secure_embed.answers import Question
from secure_embed.api import models, shapes
from secure_embed.api.body import StrictRoute, lines
from secure_embed.api.call import bearer, call_of, threads_of, vault_of
from secure_embed.api.paths import RECORD
from secure_embed.api.waiting import while_awaited
from secure_embed.types import Action

__all__ = ["router"]

router = APIRouter(prefix="/v1", route_class=StrictRoute)

NDJSON = "application/x-ndjson"
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$", description="a retry with the same key writes nothing"
    ),
]


def _door(action: Action) -> Any:
    return Security(bearer, scopes=[required_scope(action)])


@router.post(
    "/collections", status_code=201, name=Action.COLLECTION_CREATE, dependencies=[_door(Action.COLLECTION_CREATE)]
)
async def create_collection(request: Request, asked: models.CollectionRequest) -> models.CollectionAnswer:
    view = await threads_of(request).run(
        vault_of(request).collections.create,
        call_of(request),
        name=asked.name,
        attributes=asked.attributes,
        bits=asked.bits,
    )
    return shapes.collection_answer(view)


@router.get("/collections", name=Action.COLLECTION_LIST, dependencies=[_door(Action.COLLECTION_LIST)])
async def list_collections(request: Request) -> models.CollectionsAnswer:
    """Those that policy lets the caller read."""
    views, receipt = await threads_of(request).run(vault_of(request).collections.seen, call_of(request))
    return models.CollectionsAnswer(
        collections=[shapes.collection_answer(view) for view in views], receipt=shapes.receipt_answer(receipt)
    )


@router.get("/collections/{collection}", name=Action.COLLECTION_READ, dependencies=[_door(Action.COLLECTION_READ)])
async def show_collection(request: Request, collection: str) -> models.CollectionAnswer:
    return shapes.collection_answer(
        await threads_of(request).run(vault_of(request).collections.show, call_of(request), collection)
    )


_INGEST_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/IngestRequest"}},
            NDJSON: {"schema": {"type": "string", "description": "a RecordRequest on each line"}},
        },
    }
}


@router.post(
    "/collections/{collection}/records",
    status_code=201,
    name=Action.RECORD_INGEST,
    dependencies=[_door(Action.RECORD_INGEST)],
    openapi_extra=_INGEST_BODY,
)
async def ingest(request: Request, collection: str, idempotency_key: IdempotencyKey = None) -> models.IngestAnswer:
    """All of the batch is durable when this answers, or none of it is there."""
    batch = await _batch(request)
    result = await threads_of(request).run(
        vault_of(request).records.ingest,
        call_of(request),
        collection,
        [shapes.record(given) for given in batch],
        idempotency_key=idempotency_key,
    )
    return models.IngestAnswer(
        collection=collection,
        records=result.records,
        truncated=result.truncated,
        replayed=result.replayed,
        receipt=shapes.receipt_answer(result.receipt),
    )


async def _batch(request: Request) -> list[models.RecordRequest]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == NDJSON:
            return models.IngestRequest.model_validate({"records": lines(await request.body())}).records
        if kind != "application/json":
            raise RequestValidationError([{"type": "content_type", "loc": ("body",), "msg": ""}])
        try:
            body = await request.json()
        except ValueError:
            raise RequestValidationError([{"type": "json_invalid", "loc": ("body",), "msg": ""}]) from None
        return models.IngestRequest.model_validate(body).records
    except ValidationError as fault:
        raise RequestValidationError(
            [
                {**error, "loc": ("body", *error["loc"])}
                for error in fault.errors(include_input=False, include_context=False)
            ]
        ) from None


@router.get(RECORD, name=Action.RECORD_READ, dependencies=[_door(Action.RECORD_READ)])
async def fetch(request: Request, collection: str, record: str) -> models.RecordAnswer:
    found = await threads_of(request).run(vault_of(request).records.fetch, call_of(request), collection, record)
    return models.RecordAnswer(
        id=found.record.id,
        text=found.record.text,
        subject=found.record.subject,
        attributes=dict(found.record.attributes),
        metadata=dict(found.record.metadata),
        expires_at=None if found.record.expires_unix is None else shapes.rfc_3339(found.record.expires_unix),
        receipt=shapes.receipt_answer(found.receipt),
    )


@router.post("/collections/{collection}/query", name=Action.QUERY, dependencies=[_door(Action.QUERY)])
async def query(request: Request, collection: str, asked: models.QueryRequest) -> models.QueryAnswer:
    question = Question(
        text=asked.text,
        k=asked.k,
        own=shapes.expression(asked.filter) if asked.filter is not None else None,
        include_text=asked.include_text,
        has_vector=asked.vector is not None,
    )
    call = call_of(request)
    async with while_awaited(request, call.deadline):
        result = await threads_of(request).run(vault_of(request).queries.query, call, collection, question)
    return shapes.query_answer(result)


@router.post(
    "/collections/{collection}/export", name=Action.VECTORS_EXPORT, dependencies=[_door(Action.VECTORS_EXPORT)]
)
async def export(request: Request, collection: str, asked: models.ExportRequest) -> None:  # noqa: ARG001 - none leaves
    """Refused for every caller under the released risk profiles; a scope and a policy of its own come before that."""
    await threads_of(request).run(vault_of(request).records.export_vectors, call_of(request), collection)
