"""The paths of erasures and legal holds. A route's name is the action that policy decides on."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Security

from secure_embed.access import required_scope
from secure_embed.answers import Erasure, HoldView
from secure_embed.api import models, shapes
from secure_embed.api.body import StrictRoute
from secure_embed.api.call import bearer, call_of, threads_of, vault_of
from secure_embed.api.paths import RECORD
from secure_embed.types import Action

__all__ = ["router"]

router = APIRouter(prefix="/v1", route_class=StrictRoute)

Why = Annotated[models.Reason, Query(description="stands in the receipt")]


def _door(action: Action) -> Any:
    return Security(bearer, scopes=[required_scope(action)])


def _erasure(erasure: Erasure) -> models.ErasureAnswer:
    return models.ErasureAnswer(
        id=str(erasure.id),
        state=erasure.state,
        kind=erasure.kind,
        records=erasure.records,
        note=erasure.note,
        receipt=shapes.receipt_answer(erasure.receipt),
    )


@router.post("/erasures", status_code=201, name=Action.RECORD_ERASE, dependencies=[_door(Action.RECORD_ERASE)])
async def erase_subject(request: Request, asked: models.ErasureRequest) -> models.ErasureAnswer:
    """Erase every record of one data subject, in all collections or in those named."""
    return _erasure(
        await threads_of(request).run(
            vault_of(request).erasures.of_subject,
            call_of(request),
            asked.subject,
            asked.collections,
            reason=asked.reason,
        )
    )


@router.get("/erasures/{erasure}", name=Action.RECORD_ERASE, dependencies=[_door(Action.RECORD_ERASE)])
async def show_erasure(request: Request, erasure: UUID) -> models.ErasureAnswer:
    return _erasure(await threads_of(request).run(vault_of(request).erasures.show, call_of(request), erasure))


@router.delete(
    RECORD,
    name=Action.RECORD_ERASE,
    dependencies=[_door(Action.RECORD_ERASE)],
)
async def erase_record(request: Request, collection: str, record: str, reason: Why = "record") -> models.ErasureAnswer:
    return _erasure(
        await threads_of(request).run(
            vault_of(request).erasures.of_record, call_of(request), collection, record, reason=reason
        )
    )


@router.delete("/collections/{collection}", name=Action.COLLECTION_ERASE, dependencies=[_door(Action.COLLECTION_ERASE)])
async def erase_collection(request: Request, collection: str, reason: Why = "collection") -> models.ErasureAnswer:
    """Erase a collection and everything in it: its keys in one transaction, then the rest."""
    return _erasure(
        await threads_of(request).run(
            vault_of(request).erasures.of_collection, call_of(request), collection, reason=reason
        )
    )


def _hold(view: HoldView) -> models.HoldAnswer:
    return models.HoldAnswer(
        id=str(view.id),
        subject=view.subject,
        collection=view.collection,
        record=view.record,
        reason=view.reason,
        placed_by=view.placed_by,
        placed_at=shapes.rfc_3339(view.placed_unix),
        records=view.records,
        receipt=shapes.receipt_answer(view.receipt) if view.receipt else None,
    )


@router.post("/holds", status_code=201, name=Action.HOLD_PLACE, dependencies=[_door(Action.HOLD_PLACE)])
async def place_hold(request: Request, asked: models.HoldRequest) -> models.HoldAnswer:
    """From when this answers, no erasure and no retention date ends what it names."""
    return _hold(
        await threads_of(request).run(
            vault_of(request).holds.place,
            call_of(request),
            subject=asked.subject,
            collection=asked.collection,
            record=asked.record,
            reason=asked.reason,
        )
    )


@router.get("/holds", name=Action.HOLD_LIST, dependencies=[_door(Action.HOLD_LIST)])
async def list_holds(request: Request) -> models.HoldsAnswer:
    views, receipt = await threads_of(request).run(vault_of(request).holds.seen, call_of(request))
    return models.HoldsAnswer(holds=[_hold(view) for view in views], receipt=shapes.receipt_answer(receipt))


@router.delete("/holds/{hold}", name=Action.HOLD_RELEASE, dependencies=[_door(Action.HOLD_RELEASE)])
async def release_hold(request: Request, hold: UUID) -> models.HoldAnswer:
    return _hold(await threads_of(request).run(vault_of(request).holds.release, call_of(request), hold))
