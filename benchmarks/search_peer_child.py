"""One system in a process of its own, told what to do line by line; search_peers.py starts it.

    python benchmarks/search_peer_child.py NAME FOLDER DATA       commands as JSON on stdin, answers as JSON on stdout

DATA holds ``vectors.npy`` and ``queries.npy``. Memory is what was added since the system was imported.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from search_peer import Floats, System
from search_peer_databases import Cyborg, CyborgCached, Pgvector, SqliteVec
from search_peer_libraries import Chroma, Flat, Lance, LanceRabitq, Qdrant, SecureEmbed, Usearch
from search_timing import memory_bytes

__all__ = ["SYSTEMS"]

SYSTEMS: dict[str, type[System]] = {
    "ours": SecureEmbed,
    "flat": Flat,
    "usearch": Usearch,
    "chroma": Chroma,
    "lancedb-pq": Lance,
    "lancedb-rq": LanceRabitq,
    "qdrant-local": Qdrant,
    "sqlite-vec": SqliteVec,
    "cyborgdb": Cyborg,
    "cyborgdb-cached": CyborgCached,
    "pgvector": Pgvector,
}
K = 10
block_rows = 10_000


class Child:
    def __init__(self, system: System, data: Path) -> None:
        self.system = system
        self.vectors = np.load(data / "vectors.npy", mmap_mode="r")
        self.queries: Floats = np.load(data / "queries.npy")
        self.before = memory_bytes()

    def blocks(self) -> Iterator[tuple[int, Floats]]:
        for start in range(0, len(self.vectors), block_rows):
            yield start, np.array(self.vectors[start : start + block_rows])

    def build(self) -> dict[str, Any]:
        records, dimension = self.vectors.shape
        began = time.perf_counter()
        self.system.build(self.blocks(), dimension, records)
        return {"seconds": time.perf_counter() - began}

    def open(self, effort: list[Any]) -> dict[str, Any]:
        """To the first answer."""
        began = time.perf_counter()
        self.system.open(self.vectors.shape[1])
        self.system.search(self.queries[-1], K, tuple(effort))
        return {"seconds": time.perf_counter() - began}

    def turn(self, first: int, end: int, effort: list[Any]) -> dict[str, Any]:
        taken, found = [], []
        worked = time.process_time()
        for query in self.queries[first:end]:
            began = time.perf_counter()
            ids = self.system.search(query, K, tuple(effort))
            taken.append(1_000 * (time.perf_counter() - began))
            found.append([int(one) for one in ids])
        share = 1_000 * (time.process_time() - worked) / max(sum(taken), 1e-9)
        return {"ms": taken, "found": found, "processor_share": share}

    def memory(self) -> dict[str, Any]:
        more = self.system.pids()
        return {"bytes": memory_bytes() - self.before + (memory_bytes(more) if more else 0)}

    def close(self) -> dict[str, Any]:
        self.system.close()
        return {}


def versions(kind: type[System]) -> dict[str, str]:
    found = {}
    for package in kind.packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def main() -> None:
    name, folder, data = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    kind = SYSTEMS[name]
    hello = {"versions": versions(kind), "note": kind.note, "sealed": kind.sealed, "efforts": kind.efforts}
    try:
        child = Child(kind(folder), data)
    except ImportError as error:
        print(json.dumps(hello | {"absent": str(error)}), file=answers, flush=True)
        return
    print(json.dumps(hello), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        do = asked.pop("do")
        try:
            answer = getattr(child, do)(**asked)
        except Exception as error:  # noqa: BLE001 - another system's; the driver reports it
            answer = {"failed": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(answer), file=answers, flush=True)
        if do == "close":
            os._exit(0)  # some keep threads that never end


if __name__ == "__main__":
    main()
