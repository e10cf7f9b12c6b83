"""Our side of search.py: a collection in a folder, and one query on it. What changes with the doors changes here.

Real databases, real keys, sealed segments, saved codes, tickets as the log gives them; no HTTP, policy, budgets or log,
which main_job.py has. Only Argon2id is left out of the root's provider: it is one passphrase, not search.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID

import faiss
import numpy as np
import numpy.typing as npt

from secure_embed.collection.holding import Holding
from secure_embed.collection.measuring import Measuring
from secure_embed.collection.tuned import Asked
from secure_embed.collection.tuning import choose
from secure_embed.index import Effort, exhaustive_max, openings_max
from secure_embed.keys import CollectionKeys, Keyring, PassphraseProvider, Secret, SqlcipherKeyStore, rows_key
from secure_embed.store import SealedCollection, SqlcipherRecordStore
from secure_embed.types import Action, Collection, Compare, Record, RowFilter, Space, Ticket, TruthValue

__all__ = ["DEPTH", "DEPTHS", "EVERYTHING", "Ours", "narrowed", "open_or_make"]

Floats = npt.NDArray[np.float32]
Slices = npt.NDArray[np.int64]
DEPTH = 200  # candidates: the default of the settings
DEPTHS = (50, 100, 200)
EVERYTHING = RowFilter(permits=(TruthValue(True),))
text_of_record = "The text is no part of this, but a record has one. " * 4
batch_records = 10_000


def narrowed(share: float) -> RowFilter:
    """A row filter as a policy leaves it, by the attribute ``slice``."""
    return RowFilter(permits=(Compare("slice", "<", round(share * 1_000)),))


class KnownRoot(PassphraseProvider):
    """The real provider without Argon2id."""

    def __init__(self) -> None:
        super().__init__(bytearray(range(32)), "known", (65_536, 3, 4))


class Ours:
    """Open on being made; each part's seconds are in ``parts_s``."""

    def __init__(self, folder: Path, dimension: int) -> None:
        began = time.perf_counter()
        ring, uuid = folder / "keyring.json", UUID(int=1)
        new = not ring.exists()
        self.collection = Collection(
            name="bench",
            uuid=uuid,
            space=Space(model="m", revision="1", manifest_sha256="0" * 64, pooling="mean", dimension=dimension),
            attributes={"slice": "long"},
            risk_profile="standard",
            created_unix=0,
        )
        self.keyring = Keyring.create(ring, KnownRoot()) if new else Keyring.open(ring, KnownRoot())
        of_rows = rows_key(self.keyring.secret(Secret.CATALOGUE))
        self.key_store = SqlcipherKeyStore(folder / "keys.db", self.keyring.secret(Secret.KEYS_STORE), of_rows)
        if new:
            CollectionKeys.create(self.keyring, self.key_store, uuid).close()
        self.keys = CollectionKeys.unlock(self.keyring, self.key_store, uuid)
        keys_at = time.perf_counter()
        self.store = SqlcipherRecordStore(folder / "data.db", self.keyring.secret(Secret.DATA_STORE), of_rows)
        if new:
            self.store.create_collection(SealedCollection(uuid=uuid, name_tag=bytes(32), descriptor=b"sealed"))
        self.holding = Holding(
            self.collection,
            keys=self.keys,
            key_store=self.key_store,
            store=self.store,
            codes_folder=folder / "codes",
        )
        store_at = time.perf_counter()
        self.shard = self.holding.shard()
        self.effort = Effort()  # of a collection that was never tuned
        self.parts_s = {"keys": keys_at - began, "store": store_at - keys_at, "codes": time.perf_counter() - store_at}

    def search(
        self, query: Floats, k: int, *, rows: RowFilter = EVERYTHING, effort: Effort | None = None
    ) -> npt.NDArray[np.int64]:
        """``query``: (d,) float32. Positions, best first: selected, scanned, opened, scored exactly. ``effort``: None: that
        of the collection."""
        one = query[np.newaxis]
        shard, effort = self.shard, effort or self.effort
        selection = shard.select(rows, None)
        ticket = Ticket(
            intent_index=0,
            action=Action.QUERY,
            openings_max=openings_max(effort, k),
            expires_monotonic=time.monotonic() + 60,
        )
        return shard.search(one, selection, k=k, effort=effort, ticket=ticket).positions[:k]

    def tune(self, *, filtered: bool) -> dict[str, Any]:
        """What ``collection tune`` does: the cheapest effort with recall@10 of 0.99, measured on stored vectors;
        ``filtered``: behind a filter that leaves a tenth as well. Small collections are opened whole: nothing to tune."""
        if self.holding.records <= exhaustive_max:
            return {"effort": asdict(self.effort)}
        began, size = time.perf_counter(), self.holding.records
        ticket = Ticket(
            intent_index=0, action=Action.COLLECTION_TUNE, openings_max=10 * size, expires_monotonic=math.inf
        )
        measuring = Measuring(
            self.shard,
            lambda at, out: self.holding.open_vectors(at, out, ticket=ticket),
            asked=Asked(filtered=filtered),
            end=self.holding.next_position,
            texts=np.zeros((0, self.shard.codebook.dimension), np.float32),
            rng=np.random.default_rng(5),
            ticket=ticket,
        )
        measuring.search_exactly(lambda: None)
        chosen = choose(measuring.at, lists=self.shard.codebook.lists, k=10)
        measuring.wipe()
        self.effort = Effort() if chosen is None else chosen.effort
        return {
            "effort": asdict(self.effort),
            "recall_measured": None if chosen is None else chosen.recall,
            "openings": None if chosen is None else chosen.openings,
            "efforts_tried": len(measuring.measured),
            "seconds": time.perf_counter() - began,
        }

    def ingest(self, blocks: Iterator[Floats], slices: Slices, *, threads: int = 1) -> dict[str, float]:
        """All vectors through ``Holding.append``, then codes trained and saved as upkeep does it."""
        records, batch = len(slices), batch_records
        began, done = time.perf_counter(), 0
        before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(threads)
        for part in _regrouped(blocks, batch):
            made = [
                Record(id=f"r{done + n}", text=text_of_record, attributes={"slice": int(slices[done + n])})
                for n in range(len(part))
            ]
            self.holding.append(made, part, request=None)
            done += len(part)
        seconds = time.perf_counter() - began
        while self.holding.busy:  # a training beside the ingest
            time.sleep(0.1)
        trains = time.perf_counter()
        self.holding.keep_codes()  # as upkeep does: a new codebook where the collection has grown by half
        while self.holding.busy:
            time.sleep(0.1)
        trained = time.perf_counter() - trains
        faiss.omp_set_num_threads(before)
        self.shard = self.holding.shard()
        self.holding.save_codes()
        rate = records / seconds
        return {"seconds": seconds, "records_per_s": rate, "batch_records": batch, "last_training_s": trained}

    def codes(self) -> dict[str, Any]:
        """Lists, and bytes in memory that are derived from plaintext."""
        footprint, book = self.shard.footprint(), self.shard.codebook
        whole = footprint.bytes_a_record + footprint.codebook / max(footprint.records, 1)
        return {
            "lists": book.lists,
            "trained_on": book.trained_on,
            "bits": book.bits,
            "bytes_a_record": footprint.bytes_a_record,
            "bytes_a_record_with_codebook": whole,
            "over_fp32": whole / (4 * book.dimension),
            "footprint": asdict(footprint),
        }

    def close(self) -> None:
        self.holding.close()
        self.store.close()
        self.key_store.close()
        self.keyring.close()


def open_or_make(folder: Path, blocks: Callable[[], Iterator[Floats]], slices: Slices) -> tuple[Ours, dict[str, Any]]:
    """The collection of these vectors in this folder, and what making it took; made when it is not there whole."""
    told = folder / "made.json"
    dimension = next(blocks()).shape[1]
    if not told.exists():
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was ended
        folder.mkdir(parents=True)
        ours = Ours(folder, dimension)
        threads = os.cpu_count() or 1  # building is compared with nothing here
        figures: dict[str, Any] = ours.ingest(blocks(), slices, threads=threads)
        figures["tuned"] = ours.tune(filtered=False)
        ours.close()
        told.write_text(json.dumps(figures))
    figures = json.loads(told.read_text())
    ours = Ours(folder, dimension)
    ours.effort = Effort(**figures["tuned"]["effort"])
    return ours, figures


def _regrouped(blocks: Iterator[Floats], batch: int) -> Iterator[Floats]:
    """The same rows in batches of another length."""
    held: list[Floats] = []
    count = 0
    for block in blocks:
        held.append(block)
        count += len(block)
        while count >= batch:
            joined = np.concatenate(held) if len(held) > 1 else held[0]
            yield joined[:batch]
            held, count = ([joined[batch:]], count - batch) if count > batch else ([], 0)
    if count:
        yield np.concatenate(held)
