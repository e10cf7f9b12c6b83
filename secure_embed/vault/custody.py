"""What a security officer does: sees which keys there are, rotates them, takes backups. No key and no record is shown."""

from pathlib import Path
from uuid import UUID

from secure_embed.answers import BackupView, KeysView, RotationView
from secure_embed.collection import Holdings
from secure_embed.core import Core
from secure_embed.custody import Rotation, RotationKind
from secure_embed.errors import InvalidRequest
from secure_embed.trail import Call
from secure_embed.types import Action, Receipt
from secure_embed.vault.entrance import Entrance

__all__ = ["Custody"]


class Custody:
    def __init__(self, way: Entrance, core: Core) -> None:
        self._way = way
        self._core = core
        self._rotating = core.rotating
        self._backups = core.backups

    def show(self, call: Call) -> KeysView:
        with self._way.begin(call, Action.KEYS_READ) as trail:
            self._way.enter(trail, None)
            described = self._core.provider.describe()
            rotations = [self._view(i, rotation, None) for i, rotation in self._rotating.all().items()]
            return KeysView(
                deployment=self._core.keyring.deployment_id,
                provider=described,
                collections=self._way.holdings.key_versions(),
                rotations=tuple(rotations),
                receipt=trail.done(),
            )

    def rotate(
        self, call: Call, kind: RotationKind, *, collection: str | None, reseal: bool, records_per_second: int | None
    ) -> RotationView:
        """Begin a rotation; it goes on in the background, and its end stands in the log as well."""
        with self._way.begin(call, Action.KEYS_ROTATE) as trail:
            self._way.enter(trail, None)
            if (kind == "collection") != (collection is not None) or (reseal and collection is None):
                raise InvalidRequest(
                    "a collection is named for its own rotation, and for no other", code="rotation_invalid"
                )
            uuid = None
            if collection is not None:
                uuid = self._way.holdings.collection(collection).uuid
                trail.collection = collection
            trail.detail(kind=kind, reseal=reseal)
            trail.ticket().require(Action.KEYS_ROTATE)
            identifier, rotation = self._rotating.begin(
                kind, collection=uuid, reseal=reseal, records_per_second=records_per_second
            )
            trail.detail(rotation=str(identifier))
            return self._view(identifier, rotation, trail.done())

    def rotation(self, call: Call, identifier: UUID) -> RotationView:
        with self._way.begin(call, Action.KEYS_READ) as trail:
            self._way.enter(trail, None)
            return self._view(identifier, self._rotating.state(identifier), trail.done())

    def back_up(self, call: Call, *, to: str, keys_to: str) -> BackupView:
        """A consistent copy, opened again before it counts. Paths are the service's own machine's."""
        with self._way.begin(call, Action.BACKUP_CREATE) as trail:
            self._way.enter(trail, None)
            trail.ticket().require(Action.BACKUP_CREATE)
            taken = self._backups.take(Path(to), Path(keys_to))
            trail.detail(backup=str(taken.id), log_size=taken.log_size)
            return BackupView(
                id=taken.id,
                data=str(taken.data),
                keys=str(taken.keys),
                records=taken.records,
                log_size=taken.log_size,
                bytes_copied=taken.bytes_copied,
                bytes_linked=taken.bytes_linked,
                receipt=trail.done(results=taken.records),
            )

    def _view(self, identifier: UUID, rotation: Rotation, receipt: Receipt | None) -> RotationView:
        return RotationView(
            id=identifier,
            kind=rotation.kind,
            state=rotation.state,
            collection=_name_of(self._way.holdings, rotation.collection),
            done=rotation.done,
            total=rotation.total,
            error=rotation.error,
            receipt=receipt,
        )


def _name_of(holdings: Holdings, uuid: str | None) -> str | None:
    return None if uuid is None else holdings.name_of(UUID(uuid))
