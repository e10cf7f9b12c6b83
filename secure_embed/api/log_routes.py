"""The audit log, read over HTTP: checkpoint and tiles as C2SP tlog-tiles has them, and events as JSON."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response, Security

from secure_embed.access import required_scope
from secure_embed.api import models, shapes
from secure_embed.api.call import bearer, call_of, threads_of, vault_of
from secure_embed.types import Action

__all__ = ["router"]

router = APIRouter(prefix="/v1/audit", dependencies=[Security(bearer, scopes=[required_scope(Action.AUDIT_READ)])])

events_max = 500


@router.get("/checkpoint", name=Action.AUDIT_READ, response_class=Response)
async def checkpoint(request: Request) -> Response:
    note, receipt = await threads_of(request).run(vault_of(request).logbook.checkpoint, call_of(request))
    return Response(note, headers=shapes.receipt_header(receipt), media_type="text/plain; charset=utf-8")


@router.get("/tile/{tile:path}", name=Action.AUDIT_READ, response_class=Response)
async def tile(request: Request, tile: str) -> Response:
    content, receipt = await threads_of(request).run(vault_of(request).logbook.tile, call_of(request), tile)
    return Response(content, headers=shapes.receipt_header(receipt), media_type="application/octet-stream")


@router.get("/events", name=Action.AUDIT_READ)
async def events(
    request: Request,
    start: Annotated[int, Query(ge=0)] = 0,
    count: Annotated[int, Query(ge=1, le=events_max)] = 100,
) -> models.EventsAnswer:
    found, receipt = await threads_of(request).run(vault_of(request).logbook.events, call_of(request), start, count)
    return models.EventsAnswer(first=start, events=list(found), receipt=shapes.receipt_answer(receipt))
