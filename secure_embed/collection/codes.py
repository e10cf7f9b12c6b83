"""One collection's codes: read from their sealed file, or built from the sealed vectors; kept up with the rows; saved.

They come into memory beside everything else: a batch of rows in each turn among the writers, so that writers wait for a
batch and readers for nothing. Each change is told to the codes that answer and to those that are on their way. What
trains and fills them is in building.py.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import BoundedSemaphore, Lock, Thread

from secure_embed.collection.building import Building, Plan, pass_over
from secure_embed.collection.opening import Opening, Progress, Stopped
from secure_embed.collection.pace import short_turns
from secure_embed.collection.room import NoLimit, Purpose, Room
from secure_embed.collection.rows import Rows
from secure_embed.collection.saved_codes import CodesOrigin, SavedCodes, Standing
from secure_embed.collection.turns import Turns
from secure_embed.errors import Conflict, SecureEmbedError, Unavailable
from secure_embed.index import Added, Codebook, RabitqShard
from secure_embed.keys import CollectionKeys, KeyStore
from secure_embed.store import RecordStore
from secure_embed.types import Collection, Position, Ticket

__all__ = ["Codes"]

_logger = logging.getLogger(__name__)

save_records_min = 1_000  # fewer are built in 30 ms: at once, by who needs them, and not saved for their own sake
forget_records = 256  # readers are kept out for so many at a time
writer_wait_s = 0.25  # a writer gives the opening that it began so long, then goes on without codes
stop_s = 5.0  # a batch takes a tenth of a second; a training is not waited for


class Codes:
    """Readers run side by side; ``turns`` is that of the collection's writers, and whoever changes rows has it."""

    def __init__(
        self,
        collection: Collection,
        rows: Rows,
        *,
        keys: CollectionKeys,
        key_store: KeyStore,
        store: RecordStore,
        turns: Turns,
        folder: Path | None,
        room: Room | None = None,
        trainings: BoundedSemaphore | None = None,
        bits: Callable[[], int] | None = None,
    ) -> None:
        """``folder``: where codes are saved; None: they are built at each start. ``trainings``: how many collections may
        be coded anew at one time, beside the codes that they have. ``bits``: how many a dimension they are to have; codes
        that have others are made anew in the background."""
        self._name = collection.name
        self._uuid = collection.uuid
        self._dimension = collection.space.dimension
        self._store = store
        self._turns = turns
        self._room = NoLimit() if room is None else room
        self._trainings = BoundedSemaphore(1) if trainings is None else trainings
        self._saved = None if folder is None else SavedCodes(folder / str(collection.uuid), keys, key_store)
        self._saved_codebook = 0
        self._building = Building(
            collection,
            rows,
            keys=keys,
            store=store,
            turns=turns,
            saved=self._saved,
            bits=bits or (lambda: collection.bits),
        )
        self._beginning = Lock()  # taken after the turn, never before it
        self._shard: RabitqShard | None = None
        self._opening: Opening | None = None
        self._closed = False
        self._refused_at = 0  # records, when there was no room to train
        self.memory_bytes = 0  # that the codes take; a number, so that nobody waits for it
        self.origin: CodesOrigin | None = None  # None: not in use yet

    # --- coming into memory ----------------------------------------------------------------------------------------

    def shard(self, wait_s: float | None = None) -> RabitqShard:
        """The codes, read or built now if need be; ``origin`` says which. None: however long it takes.

        Raises ``Unavailable``: ``index_building`` with ``retry_after_s`` when it takes longer than ``wait_s``;
        ``collection_over_budget`` or ``memory_in_use`` when there is no room for them.
        """
        while (shard := self._shard) is None:
            self._begun().wait(wait_s)
        return shard

    def prepare(self) -> None:
        """For who is about to write: codes begin to come into memory, if they are not there. Changes get into them
        wherever they are by then. Raises ``Unavailable`` as :meth:`shard` when there is no room."""
        if self._shard is None and self._opening is None:
            opening = self._begun()
            if opening.finished.wait(writer_wait_s):
                opening.wait(0)

    @property
    def busy(self) -> bool:
        """Whether codes are on their way into memory: nothing may be closed under them."""
        return self._opening is not None

    @property
    def progress(self) -> Progress | None:
        opening = self._opening
        return None if opening is None else opening.progress

    def need(self, more: int = 0) -> int:
        """Bytes that the codes take or would take, with ``more`` records than there are."""
        opening, records = self._opening, self._store.versions(self._uuid).records
        shard = self._shard or (None if opening is None else opening.shard)
        if shard is None and opening is None:
            return min(plan.size for plan in self._building.plans(again=False))
        codebook = None if shard is None else shard.codebook
        now, then = (self._building.size(count, codebook) for count in (records, records + more))
        return max(then, self.memory_bytes + then - now)

    def _begun(self) -> Opening:
        """The opening that runs. Who finds none begins it, and works on it itself where little is to be done."""
        with self._beginning:
            if self._closed:
                raise Unavailable("the collection is closed", code="index_unavailable")
            if self._opening is not None:
                return self._opening
            opening = Opening(self._name)
            if self._shard is not None:  # it came between two looks
                opening.finished.set()
                return opening
            few = self._store.versions(self._uuid).records <= save_records_min
            self._opening = opening
        if few:
            self._run(opening)
        else:
            self._run_beside(opening)
        return opening

    def retrain_if_due(self, *, at_leisure: bool = False) -> None:
        """A new codebook in the background, where the collection has outgrown its own; the old codes answer meanwhile.

        ``at_leisure``: also where it has grown by half, or was refused before for want of room and hardly anything came
        since.
        """
        shard = self._shard
        if shard is None or not self._building.due(shard.codebook, shard.size, at_leisure=at_leisure):
            return
        if shard.size < self._refused_at * 1.25 and not at_leisure:
            return
        if (opening := self._begun_again()) is not None:
            with suppress(Unavailable):  # the old codes do
                self._run_beside(opening)

    def _begun_again(self) -> Opening | None:
        """None: other codes are on their way, here or in as many collections as may be coded anew at one time."""
        with self._beginning:
            if self._closed or self._opening is not None or not self._trainings.acquire(blocking=False):
                return None
            self._opening = opening = Opening(self._name, again=True)
            return opening

    # --- other bits --------------------------------------------------------------------------------------------------

    def trial(self, bits: int) -> RabitqShard:
        """See :meth:`Building.trial`. Raises ``Unavailable`` when there is no room for it."""
        records = self._store.versions(self._uuid).records
        plan = self._claimed(
            "trial", self._building.plans(again=True), lambda plan: self.memory_bytes + plan.size * bits + records
        )
        try:
            return self._building.trial(Opening(self._name, again=True), plan, bits)
        finally:
            self._room.settle("trial")

    def adopt(self, codebook: Codebook) -> None:
        """Code anew with a codebook of a :meth:`trial`, now; the codes from before answer meanwhile. Where that cannot be,
        since others are on their way, it is done in the background with a codebook of the bits that are wanted."""
        if (opening := self._begun_again()) is not None:
            self._run(opening, codebook)

    def _run_beside(self, opening: Opening) -> None:
        try:
            Thread(target=self._run, args=(opening,), name="codes", daemon=True).start()
        except RuntimeError as none_left:
            opening.error = none_left
            self._ended(opening)
            raise Unavailable("the system gives no thread", code="unavailable") from None

    def _run(self, opening: Opening, made: Codebook | None = None) -> None:
        try:
            self._open(opening, made)
        except Stopped:
            opening.error = Unavailable("the codes have to be built again", code="index_unavailable")
        except BaseException as fault:  # noqa: BLE001 - whoever waits is told
            opening.error = fault
            name = fault.code if isinstance(fault, SecureEmbedError) else type(fault).__name__
            _logger.log(logging.INFO if opening.again else logging.WARNING, "codes did not come into memory: %s", name)
        finally:
            self._ended(opening)

    def _ended(self, opening: Opening) -> None:
        if opening.shard is not None:
            opening.shard.close()
        with self._beginning:
            self._opening = None
        if opening.again:
            self._trainings.release()
        self._room.settle("codes")
        opening.finished.set()
        opening.ended.set()

    def _open(self, opening: Opening, made: Codebook | None) -> None:
        with self._building.reading_ahead():
            self._put_in(opening, made)
        opening.say_end()
        built = self.origin is not CodesOrigin.SAVED or opening.again
        if built and (shard := self._shard) is not None and shard.size >= save_records_min:
            with suppress(Unavailable, Conflict):  # a derived file: the answer does not wait for a better medium
                self.save()

    def _put_in(self, opening: Opening, made: Codebook | None) -> None:
        beside = self.memory_bytes if opening.again else 0
        plans = self._building.plans(again=opening.again, made=made)
        try:
            plan = self._claimed("codes", plans, lambda plan: beside + plan.size)
        except Unavailable:
            self._refused_at = self._store.versions(self._uuid).records
            raise

        def publish(shard: RabitqShard, origin: CodesOrigin) -> None:
            with self._beginning:
                if self._closed:
                    raise Stopped
                self._shard, opening.shard = shard, None
                self.origin = self.origin if opening.again else origin
                if origin is CodesOrigin.SAVED:
                    self._saved_codebook = shard.codebook.version
            self._measure()

        with short_turns():
            self._building.run(opening, plan, publish)

    def _claimed(self, purpose: Purpose, plans: Sequence[Plan], size: Callable[[Plan], int]) -> Plan:
        """The first of the plans that there is room for. Raises ``Unavailable`` where there is room for none."""
        *first, last = plans
        for plan in first:
            with suppress(Unavailable):
                self._room.claim(purpose, size(plan))
                return plan
        self._room.claim(purpose, size(last))
        return last

    def _measure(self) -> None:
        shard = self._shard
        if shard is None:
            self.memory_bytes = 0
        else:
            found = shard.footprint()
            self.memory_bytes = found.codes + found.positions + found.attributes + found.codebook

    # --- saved -----------------------------------------------------------------------------------------------------

    @property
    def saved_version(self) -> int | None:
        """The data version of the codes on disk; None: none are known there, or an erasure has ended them."""
        return None if self._saved is None else self._saved.version

    def save(self) -> bool:
        """Seal the codes in their file, durable on return; queries go on, writes wait. False: nothing new to save.

        Raises ``Unavailable`` (``codes_not_saved``); the service does without.
        """
        with self._turns:
            shard = self._shard
            if self._saved is None or shard is None:
                return False
            if self._saved.version == shard.version and self._saved_codebook == shard.codebook.version:
                return False
            standing = Standing.now(
                self._store, self._uuid, data_version=shard.version, codebook=shard.codebook.version
            )
            self._saved.write(standing, shard.chunks())
            self._saved_codebook = shard.codebook.version
            return True

    def unsave(self) -> None:
        """The saved ones leave the disk: an erasure has ended their key."""
        if self._saved is not None:
            self._saved.remove()

    # --- changes, told within the writers' turn ------------------------------------------------------------------------

    def add(self, added: Added) -> None:
        """The rows are durable: if the codes cannot follow, they are built again from the rows at the next use."""
        # Those on their way come to these rows last.
        self._tell_opening(lambda shard: pass_over(shard, [added.sequence], self._dimension))
        self._tell(lambda shard: shard.apply([added]))
        self.retrain_if_due()

    def pass_over(self, sequences: Sequence[int]) -> None:
        """Changes that leave the codes as they are."""
        self._tell_opening(lambda shard: pass_over(shard, sequences, self._dimension))
        self._tell(lambda shard: pass_over(shard, sequences, self._dimension))

    def forget(self, at: Sequence[Position], *, ticket: Ticket) -> None:
        """Their bytes are overwritten before this returns, a part at a time, so that readers come in between. Codes that
        were not built have nothing to forget."""
        version = self._store.versions(self._uuid).data

        def forget(shard: RabitqShard) -> None:
            for start in range(0, len(at), forget_records):
                some = at[start : start + forget_records]
                shard.forget(some, version=min(version, shard.version + len(set(some))), ticket=ticket)
            shard.forget((), version=version, ticket=ticket)

        self._tell_opening(forget)
        self._tell(forget)

    def _tell(self, change: Callable[[RabitqShard], object]) -> None:
        shard = self._shard
        if shard is None:
            return
        try:
            change(shard)
        except BaseException:
            self._shard = None
            raise
        finally:
            self._measure()

    def _tell_opening(self, change: Callable[[RabitqShard], object]) -> None:
        """It raises nothing, so that the codes that answer are told in any case."""
        opening = self._opening
        if opening is None or opening.shard is None:
            return
        try:
            change(opening.shard)
        except BaseException:  # noqa: BLE001 - nobody has an answer of it yet: it ends, and is begun anew
            opening.stop()
            opening.shard.close()

    # --- the end ---------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Nothing comes into memory any more. Not within a turn: what is on its way may want one to end."""
        with self._beginning:
            self._closed = True
            opening = self._opening
        if opening is not None:
            opening.stop()
            opening.ended.wait(stop_s)

    def drop(self) -> None:
        """They leave memory, overwritten."""
        shard, self._shard = self._shard, None
        if shard is not None:
            shard.close()
        self._measure()
