"""Who waits for whom in one collection: a query beside each kind of writer, and a writer beside codes that are built.

    python benchmarks/waiting.py [--records 100000] [--dimension 384] [--folder DIR]

Real keys, store and codes; no model and no log. One thread asks without a pause (select, scan, score), another one
writes. Prints JSON: for each phase the queries' median, 99th percentile and worst, and the writer's own time.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import numpy as np

from benchmarks.codes import SCHEMA, KnownRoot, attributes, blocks
from secure_embed.collection import Holding, Holdings
from secure_embed.index import Effort
from secure_embed.keys import CatalogueKeys, Keyring, Secret, SqlcipherKeyStore, rows_key
from secure_embed.store import SqlcipherRecordStore
from secure_embed.types import Action, Position, Record, RowFilter, Space, Ticket, TruthValue

BATCH = 1_000
UNTUNED = Effort()
EVERYTHING = RowFilter(permits=(TruthValue(True),))


def ticket(action: Action) -> Ticket:
    return Ticket(intent_index=0, action=action, openings_max=1_000_000, expires_monotonic=time.monotonic() + 3_600)


class Deployment:
    def __init__(self, folder: Path, dimension: int) -> None:
        keyring = Keyring.create(folder / "keyring.json", KnownRoot())
        of_rows = rows_key(keyring.secret(Secret.CATALOGUE))
        self.holdings = Holdings(
            keyring=keyring,
            key_store=SqlcipherKeyStore(folder / "keys.db", keyring.secret(Secret.KEYS_STORE), of_rows),
            store=SqlcipherRecordStore(folder / "data.db", keyring.secret(Secret.DATA_STORE), of_rows),
            catalogue=CatalogueKeys(keyring.secret(Secret.CATALOGUE), keyring.memory),
            codes_folder=folder / "codes",
        )
        space = Space(model="m", revision="1", manifest_sha256="0" * 64, pooling="mean", dimension=dimension)
        self.codes = folder / "codes"
        self.dimension, self.written = dimension, 0
        self.holdings.create(self.holdings.describe_new("bench", SCHEMA, space=space, risk_profile="standard"))

    def append(self, holding: Holding, vectors: np.ndarray) -> float:
        records = [
            Record(id=f"r{self.written + i}", text="text", attributes=each)
            for i, each in enumerate(attributes(self.written, len(vectors)))
        ]
        began = time.perf_counter()
        holding.append(records, vectors, request=None)
        self.written += len(records)
        return time.perf_counter() - began

    def forget_memory(self) -> None:
        """What is open is closed."""
        self.holdings.close()


class Asking:
    """A thread that asks without a pause; ``taken``: seconds of each query."""

    def __init__(self, holding: Holding, dimension: int) -> None:
        self.taken: list[float] = []
        self._holding, self._stop = holding, Event()
        rng = np.random.default_rng(5)
        self._queries = rng.standard_normal((64, 1, dimension), dtype=np.float32)
        self._thread = Thread(target=self._run)

    def _run(self) -> None:
        allowed = ticket(Action.QUERY)
        while not self._stop.is_set():
            query = self._queries[len(self.taken) % len(self._queries)]
            began = time.perf_counter()
            shard = self._holding.shard()
            shard.search(query, shard.select(EVERYTHING, None), k=10, effort=UNTUNED, ticket=allowed)
            self.taken.append(time.perf_counter() - began)

    def __enter__(self) -> "Asking":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def spread(taken: list[float]) -> dict[str, float | int]:
    ordered = sorted(taken)
    return {
        "count": len(ordered),
        "median_ms": round(1e3 * statistics.median(ordered), 2),
        "p99_ms": round(1e3 * ordered[int(0.99 * (len(ordered) - 1))], 2),
        "worst_ms": round(1e3 * ordered[-1], 2),
    }


@contextmanager
def phase(result: dict[str, object], name: str, holding: Holding, dimension: int) -> Iterator[list[float]]:
    """Asks while the block runs; the block may put its own times into the list."""
    own: list[float] = []
    began = time.perf_counter()
    with Asking(holding, dimension) as asking:
        yield own
    print(name, file=sys.stderr, flush=True)
    result[name] = {
        "seconds": round(time.perf_counter() - began, 2),
        "queries": spread(asking.taken),
        **({"writer": spread(own)} if own else {}),
    }


def settled(holding: Holding) -> None:
    while holding.busy:
        time.sleep(0.005)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def beside_readers(made: Deployment, holding: Holding, vectors: np.ndarray, result: dict[str, object]) -> None:
    with phase(result, "nobody", holding, made.dimension):
        time.sleep(2)
    with phase(result, "ingest, 1,000 a batch", holding, made.dimension) as own:
        own += [made.append(holding, vectors[n : n + BATCH]) for n in range(0, 10 * BATCH, BATCH)]
    erase = ticket(Action.RECORD_ERASE)
    with phase(result, "erasure of 5,000", holding, made.dimension) as own:
        own.append(timed(lambda: holding.erase([Position(p) for p in range(0, 10_000, 2)], ticket=erase)))
    with phase(result, "re-sealing, a segment", holding, made.dimension) as own:
        own += [timed(lambda b=bounds: holding.reseal(b)) for bounds in holding.segments()[4:6]]
    with phase(result, "saving", holding, made.dimension) as own:
        own.append(timed(holding.save_codes))
    before = holding.shard().codebook.version
    with phase(result, "a new codebook", holding, made.dimension) as own:
        begin_training(holding)
        while holding.busy:
            own.append(made.append(holding, vectors[:50]))
    assert holding.shard().codebook.version == before + 1


def begin_training(holding: Holding) -> None:
    """As when the collection had outgrown its codebook."""
    from secure_embed.collection import building

    kept, building.should_retrain = building.should_retrain, lambda *_, **__: True
    try:
        holding._codes.retrain_if_due(at_leisure=True)
    finally:
        building.should_retrain = kept


def coming_and_going(made: Deployment, vectors: np.ndarray, result: dict[str, object]) -> None:
    taken: dict[str, list[float]] = {"closed, codes saved": [], "opened, keys": [], "opened, codes from their file": []}
    for _ in range(5):
        with made.holdings.using("bench") as holding:
            holding.warm()
            made.append(holding, vectors[:10])
        taken["closed, codes saved"].append(timed(made.forget_memory))
        with made.holdings.using("bench"):
            pass
        made.forget_memory()
        began = time.perf_counter()
        with made.holdings.using("bench") as holding:
            taken["opened, keys"].append(time.perf_counter() - began)
            holding.warm()
            settled(holding)
            taken["opened, codes from their file"].append(time.perf_counter() - began)
    result["coming and going"] = {name: spread(each) for name, each in taken.items()}
    made.forget_memory()
    for file in made.codes.iterdir():
        file.unlink()
    with made.holdings.using("bench") as holding:
        own: list[float] = []
        began = time.perf_counter()
        holding._codes.prepare()
        while holding.busy:
            own.append(made.append(holding, vectors[: BATCH // 10]))
        result["built anew beside ingests of 100"] = {
            "seconds": round(time.perf_counter() - began, 2),
            "records": holding.records,
            "writer": spread(own),
        }
        result["memory"] = {"said_mib": holding.memory_needed >> 20, "taken_mib": holding.memory_bytes >> 20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    result: dict[str, object] = {
        "records": given.records,
        "dimension": given.dimension,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "load_before": [round(each, 1) for each in os.getloadavg()],
    }
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        made = Deployment(Path(folder), given.dimension)
        with made.holdings.using("bench") as holding:
            for block in blocks(given.records, given.dimension):
                for start in range(0, len(block), BATCH):
                    made.append(holding, block[start : start + BATCH])
            settled(holding)
            holding.keep_codes()
            settled(holding)
            beside_readers(made, holding, block, result)
        coming_and_going(made, block, result)
        made.forget_memory()
    result["load_after"] = [round(each, 1) for each in os.getloadavg()]
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
