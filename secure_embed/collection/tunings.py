"""Tunings: begun by a caller or by a collection's growth, carried out in the background, one at a time.

Each writes an INTENT of its own, for as many openings as it may take, and an OUTCOME with numbers. A tuning that a stop
or a crash cut off has changed nothing or everything: it is then a failed one, and can be begun anew.
"""

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Event, Lock, Thread
from uuid import UUID, uuid4

import numpy as np

from secure_embed.collection.holding import Holding
from secure_embed.collection.holdings import Holdings
from secure_embed.collection.measuring import Measuring, draws_max, sample_for_k
from secure_embed.collection.reporting import Found, asked_details, done, found_details
from secure_embed.collection.tuned import Asked, Measured, Tuned, Tuning, growth_factor
from secure_embed.collection.tuning import choose, steps_max
from secure_embed.errors import Conflict, NotFound, SecureEmbedError, Unavailable
from secure_embed.index import Effort, RabitqShard, every_list, exhaustive_max, openings_max
from secure_embed.trail import Trails
from secure_embed.types import Ticket, Vectors

__all__ = ["TuningProgress", "Tunings"]

join_s = 60.0
efforts_max = steps_max(every_list) + 1  # and the one that was in force
no_texts = np.zeros((0, 0), np.float32)


@dataclass(frozen=True, slots=True)
class TuningProgress:
    """Of efforts that are measured; ``total`` is the most that there can be."""

    done: int
    total: int


class Tunings:
    """Thread safe. ``untuned``: the effort of collections that were never tuned."""

    def __init__(self, *, holdings: Holdings, trails: Trails, untuned: Effort) -> None:
        self._holdings = holdings
        self._kept = holdings.kept
        self._trails = trails
        self._untuned = untuned
        self._busy = Lock()
        self._stopping = Event()
        self._worker: Thread | None = None
        self._progress: tuple[UUID, TuningProgress] | None = None

    # --- asked for ---------------------------------------------------------------------------------------------------

    def openings(self, collection: UUID, asked: Asked, texts: int) -> int:
        """The most vectors that such a tuning opens, each as often as it does: what its ticket has to cover.

        Raises ``Conflict``: ``tuning_unneeded`` where every search is exact, ``tuning_running``.
        """
        records = self._holdings.records(collection)
        if records <= exhaustive_max:
            raise Conflict(
                f"collections of up to {exhaustive_max} records are opened whole: there is nothing to tune",
                code="tuning_unneeded",
            )
        if self._busy.locked():
            raise _running()
        with self._holdings.using(collection) as holding:
            return self._openings_max(holding, asked, texts)

    def begin(self, collection: UUID, asked: Asked, *, texts: Vectors = no_texts) -> Tuning:
        """Write the tuning down and start it. ``texts``: (t, d) float32, encoded queries; they are wiped in the end.

        Raises what :meth:`openings` raises.
        """
        if self._stopping.is_set() or not self._busy.acquire(blocking=False):
            raise _running()
        try:
            tuning = self._written(collection, asked, len(texts))
            self._worker = Thread(
                target=self._in_background, args=(collection, tuning, texts), name="tuning", daemon=True
            )
            self._worker.start()
        except BaseException:
            self._busy.release()
            raise
        return tuning

    def state(self, collection: UUID, identifier: UUID) -> tuple[Tuning, TuningProgress]:
        """Of a collection's newest tuning. Raises ``NotFound`` (``tuning_not_found``) for any other."""
        tuning, running = self._kept.tuning(collection), self._progress
        if tuning is None or tuning.id != str(identifier):
            raise NotFound("there is no such tuning", code="tuning_not_found")
        known = running is not None and running[0] == collection and tuning.state == "running"
        return tuning, running[1] if known and running is not None else TuningProgress(0, 0)

    def resume(self) -> None:
        """What a crash cut off has failed: whoever asked for it asks again."""
        for collection, tuning in self._kept.unended():
            self._end(collection, tuning, error="tuning_interrupted")

    def keep_up(self) -> None:
        """Tune again what has grown; one collection at each call, since it goes on in the background."""
        for name in self._holdings.names():
            with suppress(NotFound, Conflict):
                uuid = self._holdings.collection(name).uuid
                tuned = self._kept.tuned(uuid)
                if tuned is not None and self._outgrown(uuid, tuned):
                    self.begin(uuid, replace(tuned.asked, bits=None, apply=True))
                    return

    def _outgrown(self, uuid: UUID, tuned: Tuned) -> bool:
        """By the last one that came to an end, so that one that finds nothing is not repeated all night."""
        last, records = self._kept.tuning(uuid), self._holdings.records(uuid)
        lately = last is not None and last.state == "done" and records < growth_factor * last.records
        return tuned.outgrown(records) and not lately

    def close(self) -> None:
        """Stop between two efforts."""
        self._stopping.set()
        if self._worker is not None:
            self._worker.join(join_s)

    # --- the work ----------------------------------------------------------------------------------------------------

    def _written(self, collection: UUID, asked: Asked, texts: int) -> Tuning:
        with self._holdings.using(collection) as holding:
            tuning = Tuning(
                id=str(uuid4()),
                state="running",
                asked=asked,
                texts=texts,
                started_unix=int(time.time()),
                records=holding.records,
                bits=holding.bits if asked.bits is None else asked.bits,
            )
        self._kept.put_tuning(collection, tuning)
        return tuning

    def _in_background(self, collection: UUID, tuning: Tuning, texts: Vectors) -> None:
        try:
            self._run(collection, tuning, texts)
        finally:
            texts.fill(0)
            self._busy.release()

    def _run(self, collection: UUID, tuning: Tuning, texts: Vectors) -> None:
        try:
            with self._holdings.using(collection) as holding:  # open until the end, whatever others need room for
                self._tune(holding, tuning, texts)
        except SecureEmbedError as fault:
            gone = self._holdings.name_of(collection) is None
            self._end(collection, tuning, error="collection_not_found" if gone else fault.code)
        except Exception:  # noqa: BLE001 - a background thread has nobody above it who could be told
            self._end(collection, tuning, error=SecureEmbedError.default_code)
        finally:
            self._progress = None

    def _tune(self, holding: Holding, tuning: Tuning, texts: Vectors) -> None:
        asked = tuning.asked
        openings = self._openings_max(holding, asked, tuning.texts)
        with self._trails.tuning(holding.collection.name, openings=openings, **asked_details(tuning)) as trail:
            holding.warm()
            shard = holding.shard()
            own = shard if tuning.bits == shard.codebook.bits else holding.trial_codes(tuning.bits, ticket=trail.ticket)
            try:
                found = self._measured(holding, own, tuning, texts, trail.ticket)
            finally:
                if own is not shard:
                    own.close()
            ended = done(tuning, found)
            if asked.apply and found.chosen is not None:
                self._apply(holding, ended, found)
                ended = replace(ended, applied=True)
            trail.results = tuning.records
            trail.details |= found_details(ended, found)
        self._kept.put_tuning(holding.uuid, ended)  # nobody is told of an end that the log does not have

    def _openings_max(self, holding: Holding, asked: Asked, texts: int) -> int:
        """The sample, everything once, codes built anew (a sample and everything), and what searches open."""
        records, sample = holding.records, draws_max * 2 * sample_for_k(asked.k)
        anew = 0 if asked.bits in (None, holding.bits) else 2 * records
        a_query = openings_max(self._untuned, asked.k) + 1
        queries = 2 * sample_for_k(asked.k) + texts  # the sample once more behind a filter
        return sample + records + anew + efforts_max * queries * a_query

    def _measured(self, holding: Holding, shard: RabitqShard, tuning: Tuning, texts: Vectors, ticket: Ticket) -> Found:
        lists, asked = shard.codebook.lists, tuning.asked
        total, measured = steps_max(lists) + 1, 0
        measuring = Measuring(
            shard,
            lambda at, out: holding.open_vectors(at, out, ticket=ticket),
            asked=asked,
            end=holding.next_position,
            texts=texts if len(texts) else np.zeros((0, shard.codebook.dimension), np.float32),
            rng=np.random.default_rng(),  # from the operating system's randomness
            ticket=ticket,
        )

        def measure(effort: Effort) -> Measured:
            nonlocal measured
            self._go_on()
            self._progress = (holding.uuid, TuningProgress(measured, total))
            measured += 1
            return measuring.at(effort)

        try:
            measuring.search_exactly(self._go_on)
            before = measure(holding.effort(self._untuned, shard))
            chosen = choose(measure, lists=lists, k=asked.k)
            before, chosen = measuring.with_filter(before), chosen and measuring.with_filter(chosen)
            return Found(
                codebook=shard.codebook,
                before=before,
                chosen=chosen,
                measured=measuring.measured,
                sample=measuring.sample,
                opened=measuring.opened,
            )
        finally:
            measuring.wipe()

    def _apply(self, holding: Holding, ended: Tuning, found: Found) -> None:
        """First what is in force, then the codes: until these have its bits, queries go as if untuned."""
        assert found.chosen is not None
        codebook = found.codebook
        tuned = Tuned(
            effort=found.chosen.effort,
            bits=codebook.bits,
            lists=codebook.lists,
            records=ended.records,
            recall=found.chosen.recall,
            asked=ended.asked,
            unix=int(time.time()),
        )
        self._kept.put_tuned(holding.uuid, tuned)
        if holding.shard().codebook.bits != codebook.bits:
            holding.recode(codebook)

    def _go_on(self) -> None:
        if self._stopping.is_set():
            raise Unavailable("the service ended before the tuning did", code="tuning_interrupted")

    def _end(self, collection: UUID, tuning: Tuning, *, error: str) -> None:
        with suppress(SecureEmbedError):  # the store is away, or the collection gone: the next start finds it running
            self._kept.put_tuning(collection, replace(tuning, state="failed", error=error, ended_unix=int(time.time())))


def _running() -> Conflict:
    return Conflict("another tuning is running", code="tuning_running")
