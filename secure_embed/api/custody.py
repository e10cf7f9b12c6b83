"""The paths of keys, their rotation, and backups."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Request, Security
from pydantic import BaseModel, ConfigDict, Field

from secure_embed.access import required_scope
from secure_embed.answers import RotationView
from secure_embed.api.body import StrictRoute
from secure_embed.api.call import bearer, call_of, threads_of, vault_of
from secure_embed.api.models import ReceiptAnswer
from secure_embed.api.shapes import receipt_answer
from secure_embed.types import Action

__all__ = ["FIELD_NAMES", "router"]

router = APIRouter(prefix="/v1", route_class=StrictRoute)


class RotationRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["root", "collection", "log", "store"]
    collection: str | None = None
    reseal: bool = Field(default=False, description="also write every value anew under new record keys")
    records_per_second: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class RotationAnswer(BaseModel):
    id: str
    kind: Literal["root", "collection", "log", "store"]
    state: Literal["running", "done", "failed"]
    collection: str | None
    done: int = Field(description="records re-sealed so far")
    total: int
    error: str | None
    receipt: ReceiptAnswer | None


class CollectionKeyAnswer(BaseModel):
    collection: str
    version: int


class KeysAnswer(BaseModel):
    deployment: str
    provider: str
    key_id: str
    parameters: dict[str, int | str]
    lacks: list[str]
    collections: list[CollectionKeyAnswer]
    rotations: list[RotationAnswer]
    receipt: ReceiptAnswer


class BackupRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    to: Annotated[str, Field(min_length=1, max_length=1_024, description="a folder on the service's machine")]
    keys_to: Annotated[str, Field(min_length=1, max_length=1_024)] | None = Field(
        default=None, description="where the keys' part goes, when it is to be kept apart; default: beside the data"
    )


class BackupAnswer(BaseModel):
    id: str
    data: str
    keys: str
    records: int = Field(description="opened again in the copy, with the copy's keys")
    log_size: int
    bytes_copied: int
    bytes_linked: int = Field(description="unchanged since the backup before, and linked to it")
    receipt: ReceiptAnswer


FIELD_NAMES = frozenset(RotationRequest.model_fields) | frozenset(BackupRequest.model_fields)


def _rotation(view: RotationView) -> RotationAnswer:
    return RotationAnswer(
        id=str(view.id),
        kind=view.kind,
        state=view.state,
        collection=view.collection,
        done=view.done,
        total=view.total,
        error=view.error,
        receipt=receipt_answer(view.receipt) if view.receipt else None,
    )


@router.get("/keys", name=Action.KEYS_READ, dependencies=[Security(bearer, scopes=[required_scope(Action.KEYS_READ)])])
async def keys(request: Request) -> KeysAnswer:
    """Which keys there are and what is rotating, without a byte of them."""
    view = await threads_of(request).run(vault_of(request).custody.show, call_of(request))
    return KeysAnswer(
        deployment=str(view.deployment),
        provider=view.provider.kind,
        key_id=view.provider.key_id,
        parameters=dict(view.provider.parameters),
        lacks=list(view.provider.lacks),
        collections=[
            CollectionKeyAnswer(collection=name, version=version) for name, version in view.collections.items()
        ],
        rotations=[_rotation(each) for each in view.rotations],
        receipt=receipt_answer(view.receipt),
    )


@router.post(
    "/keys/rotations",
    status_code=202,
    name=Action.KEYS_ROTATE,
    dependencies=[Security(bearer, scopes=[required_scope(Action.KEYS_ROTATE)])],
)
async def rotate(request: Request, asked: RotationRequest) -> RotationAnswer:
    """Begin a rotation. It goes on while the service answers; ask for its state with the id."""
    return _rotation(
        await threads_of(request).run(
            vault_of(request).custody.rotate,
            call_of(request),
            asked.kind,
            collection=asked.collection,
            reseal=asked.reseal,
            records_per_second=asked.records_per_second,
        )
    )


@router.get(
    "/keys/rotations/{rotation}",
    name=Action.KEYS_READ,
    dependencies=[Security(bearer, scopes=[required_scope(Action.KEYS_READ)])],
)
async def show_rotation(request: Request, rotation: UUID) -> RotationAnswer:
    return _rotation(await threads_of(request).run(vault_of(request).custody.rotation, call_of(request), rotation))


@router.post(
    "/backups",
    status_code=201,
    name=Action.BACKUP_CREATE,
    dependencies=[Security(bearer, scopes=[required_scope(Action.BACKUP_CREATE)])],
)
async def back_up(request: Request, asked: BackupRequest) -> BackupAnswer:
    """Take a backup; writers wait while the databases are copied, queries do not."""
    view = await threads_of(request).run(
        vault_of(request).custody.back_up, call_of(request), to=asked.to, keys_to=asked.keys_to or asked.to
    )
    return BackupAnswer(
        id=str(view.id),
        data=view.data,
        keys=view.keys,
        records=view.records,
        log_size=view.log_size,
        bytes_copied=view.bytes_copied,
        bytes_linked=view.bytes_linked,
        receipt=receipt_answer(view.receipt),
    )
