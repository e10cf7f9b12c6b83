"""Keys replaced while the service answers: one rotation at a time, its progress sealed in the store, its end in the log.

Each kind can be cut off at any moment. What a crash leaves is settled at the next start: :func:`settle` decides from
evidence whether the keyring's successor counts (docs/decisions/0011), and :meth:`Rotating.resume` goes on with the rest.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from threading import Event, Lock, Thread
from typing import Literal
from uuid import UUID, uuid4

import orjson

from secure_embed.audit import AuditEvent, AuditLog, Phase
from secure_embed.collection import Holdings, short_turns
from secure_embed.errors import Conflict, NotFound, SecureEmbedError
from secure_embed.keys import CatalogueKeys, CatalogueValue
from secure_embed.store import RecordStore, StateKind

__all__ = ["Detail", "Kind", "Rotating", "Rotation", "records_per_second_default"]

Kind = Literal["root", "collection", "log", "store"]
Detail = Mapping[str, str | int | bool]

records_per_second_default = 2_000  # re-sealing beside queries; docs/decisions/0011 has what it costs them
join_s = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """``done`` of ``total``: records re-sealed, for the kind that takes long."""

    kind: Kind
    state: Literal["running", "done", "failed"]
    started_unix: int
    collection: str | None = None  # its uuid
    reseal: bool = False
    records_per_second: int | None = None
    next_position: int = 0
    done: int = 0
    total: int = 0
    ended_unix: int | None = None
    error: str | None = None  # a code of errors.py


class _Stopped(Exception):
    """The service ends; the next start goes on."""


class Rotating:
    """Thread safe. ``steps``: what the kinds without a collection do; each returns details for the log.
    ``exclusive``: held meanwhile."""

    def __init__(
        self,
        *,
        store: RecordStore,
        catalogue: CatalogueKeys,
        holdings: Holdings,
        log: AuditLog,
        steps: Mapping[Kind, Callable[[], Detail]],
        exclusive: Lock,
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._holdings = holdings
        self._log = log
        self._steps = steps
        self._exclusive = exclusive
        self._lock = Lock()
        self._stopping = Event()
        self._worker: Thread | None = None

    def begin(
        self, kind: Kind, *, collection: UUID | None = None, reseal: bool = False, records_per_second: int | None = None
    ) -> tuple[UUID, Rotation]:
        """Write the rotation down and start it. Raises ``Conflict`` (``rotation_running``) while another one runs."""
        with self._lock:
            if self._stopping.is_set() or (self._worker is not None and self._worker.is_alive()):
                raise Conflict("another rotation is running", code="rotation_running")
            identifier = uuid4()
            rotation = Rotation(
                kind=kind,
                state="running",
                started_unix=int(time.time()),
                collection=None if collection is None else str(collection),
                reseal=reseal,
                records_per_second=records_per_second,
                total=self._holdings.records(collection) if collection is not None and reseal else 0,
            )
            self._put(identifier, rotation)
            self._start([(identifier, rotation)])
        return identifier, rotation

    def resume(self) -> None:
        """Go on with what a crash or a stop cut off. Doing a kind again that had ended does no harm."""
        with self._lock:
            left = [(identifier, each) for identifier, each in self.all().items() if each.state == "running"]
            if left:
                self._start(left)

    def state(self, identifier: UUID) -> Rotation:
        """Raises ``NotFound`` (``rotation_not_found``)."""
        try:
            sealed = self._store.state(StateKind.TASK, identifier)
        except NotFound:
            raise NotFound("there is no such rotation", code="rotation_not_found") from None
        return self._opened(identifier, sealed)

    def all(self) -> dict[UUID, Rotation]:
        return {i: self._opened(i, sealed) for i, sealed in self._store.states(StateKind.TASK)}

    def close(self) -> None:
        """Stop between two steps; the next start goes on."""
        self._stopping.set()
        if self._worker is not None:
            self._worker.join(join_s)

    # --- the work --------------------------------------------------------------------------------------------------

    def _start(self, what: list[tuple[UUID, Rotation]]) -> None:
        self._worker = Thread(target=self._run_all, args=(what,), name="key-rotation", daemon=True)
        self._worker.start()

    def _run_all(self, what: list[tuple[UUID, Rotation]]) -> None:
        for identifier, rotation in what:
            try:
                self._run(identifier, rotation)
            except _Stopped:
                return
            except SecureEmbedError as fault:
                gone = rotation.collection is not None and self._holdings.name_of(UUID(rotation.collection)) is None
                self._end(identifier, state="failed", error="collection_not_found" if gone else fault.code)
            except Exception:  # noqa: BLE001 - a background thread has nobody above it who could be told
                self._end(identifier, state="failed", error=SecureEmbedError.default_code)

    def _run(self, identifier: UUID, rotation: Rotation) -> None:
        if rotation.collection is None:
            with self._exclusive:  # a backup is of one root, one signing key and one key a database
                details = dict(self._steps[rotation.kind]())
            self._note("keys.rotated", {"kind": rotation.kind, **details})
        else:
            self._collection(identifier, rotation, UUID(rotation.collection))
        self._end(identifier, state="done", error=None)

    def _collection(self, identifier: UUID, rotation: Rotation, uuid: UUID) -> None:
        """It is kept open for one step at a time: a re-sealing takes hours, and others may need the room."""
        name = self._holdings.collection(uuid).name
        with self._holdings.using(uuid) as holding:
            segments = holding.segments()
            if rotation.next_position == 0:
                version = holding.rotate()
                self._note("keys.rotated", {"kind": "collection", "version": version}, name)
                self._note("version.destroyed", {"version": version - 1}, name)
        if not rotation.reseal:
            return
        began, done_before = time.monotonic(), rotation.done
        for first, end in segments:
            if first < rotation.next_position:
                continue
            with self._holdings.using(uuid) as holding, short_turns():
                count = holding.reseal((first, end))
            rotation = replace(rotation, next_position=end, done=rotation.done + count)
            self._put(identifier, rotation)
            self._pause(began, rotation.done - done_before, rotation.records_per_second or records_per_second_default)
        version = self._holdings.key_version(uuid)
        self._note("keys.resealed", {"version": version, "records": rotation.done}, name)

    def _pause(self, began: float, done: int, records_per_second: int) -> None:
        ahead_s = began + done / records_per_second - time.monotonic()
        if self._stopping.wait(max(0.0, ahead_s)):
            raise _Stopped

    def _end(self, identifier: UUID, *, state: Literal["done", "failed"], error: str | None) -> None:
        try:
            now = self.state(identifier)
            self._put(identifier, replace(now, state=state, error=error, ended_unix=int(time.time())))
        except SecureEmbedError:
            return  # the store is away: the next start finds it running, and goes on

    def _note(self, action: str, details: Detail, name: str | None = None) -> None:
        self._log.system(AuditEvent(phase=Phase.SYSTEM, action=action, collection=name, details=dict(details)))

    def _opened(self, identifier: UUID, sealed: bytes) -> Rotation:
        return Rotation(**orjson.loads(self._catalogue.open(CatalogueValue.TASK, identifier, sealed)))

    def _put(self, identifier: UUID, rotation: Rotation) -> None:
        sealed = self._catalogue.seal(CatalogueValue.TASK, identifier, orjson.dumps(asdict(rotation)))
        self._store.put_state(StateKind.TASK, identifier, sealed)
