"""Processes of their own: from their start to the first answer, and what they hold in memory then.

One has our collection with saved codes, the other FAISS and NumPy with a plain file.

    python benchmarks/search_cold.py ours|plain FOLDER DIMENSION      one start, told as JSON; search.py calls this

Imports do not count on either side. Cold: the files were put out of the page cache before.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from main_job_machine import spread
from search_data import Clustered
from search_ours import Ours, open_or_make
from search_timing import memory_bytes, ratios

__all__ = ["cold", "memory"]

K = 10
plain_file = "plain.npy"


def cold(data: Clustered, folder: Path, rounds: int) -> dict[str, Any]:
    places = prepared(data, folder)
    result: dict[str, Any] = {"data": data.described()}
    for cache in ("warm", "cold"):
        seen: dict[str, list[dict[str, Any]]] = {name: [] for name in places}
        for number in range(rounds + 1):  # the first warms up
            for name in ("ours", "plain") if number % 2 else ("plain", "ours"):
                left = drop(places[name]) if cache == "cold" else None
                one = start(name, places[name], data.dimension) | {"cached_before": left}
                if number:
                    seen[name].append(one)
        result[cache] = summary(seen)
    return result


def memory(data: Clustered, folder: Path) -> dict[str, Any]:
    """What the index holds that is derived from plaintext, and what opening and a query add to a process in all."""
    places = prepared(data, folder)
    ours = Ours(places["ours"], data.dimension)
    codes = ours.codes()
    ours.close()
    added = {}
    for name, place in places.items():
        one = start(name, place, data.dimension)
        added[name] = (one["memory_bytes"] - one["memory_before_bytes"]) / data.records
    return {
        "data": data.described(),
        "codes": codes,
        "fp32_bytes_a_record": 4 * data.dimension,
        "resident_bytes_a_record": added,
        "resident_over_plain": added["ours"] / added["plain"],
        "disk_bytes_a_record": {
            name: sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) / data.records
            for name, place in places.items()
        },
    }


def prepared(data: Clustered, folder: Path) -> dict[str, Path]:
    """Both sides' folders, filled, codes saved."""
    places = {name: folder / f"{name}-{data.name}" for name in ("ours", "plain")}
    open_or_make(places["ours"], data.blocks, data.slices())[0].close()
    places["plain"].mkdir(exist_ok=True)
    write_plain(places["plain"] / plain_file, data)
    for place in places.values():
        np.save(place / "query.npy", data.queries(1))
    return places


def write_plain(path: Path, data: Clustered) -> None:
    if path.exists():
        return
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (data.records, data.dimension))
    start_at = 0
    for block in data.blocks():
        rows[start_at : start_at + len(block)] = block
        start_at += len(block)
    rows.flush()


def drop(folder: Path) -> float | None:
    """Put a folder's files out of the page cache; which part of them the kernel kept all the same, where it tells."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    command = ["fincore", "--bytes", "--noheadings", "--output", "RES", *map(str, files)]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return sum(map(int, told.split())) / sum(file.stat().st_size for file in files)


def start(name: str, folder: Path, dimension: int) -> dict[str, Any]:
    command = [sys.executable, __file__, name, str(folder), str(dimension)]
    told: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return told


def summary(seen: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    ours, plain = ([one["seconds"] for one in seen[name]] for name in ("ours", "plain"))
    kept = [one["cached_before"] for each in seen.values() for one in each if one["cached_before"] is not None]
    return {
        "ours_s": spread(ours),
        "plain_s": spread(plain),
        "ratio": spread(ratios(ours, plain)),
        "ours_parts_s": {
            part: spread([one["parts_s"][part] for one in seen["ours"]]) for part in seen["ours"][0]["parts_s"]
        },
        "ours_codes": seen["ours"][0]["codes"],
        "same_answers": all(one["found"] == seen["plain"][0]["found"] for each in seen.values() for one in each),
        "memory_bytes": {name: max(one["memory_bytes"] for one in each) for name, each in seen.items()},
        "still_cached_at_most": max(kept) if kept else None,
    }


def one_start(name: str, folder: Path, dimension: int) -> dict[str, Any]:
    query = np.load(folder / "query.npy")
    faiss.omp_set_num_threads(1)
    faiss.IndexFlatIP(8)
    before = memory_bytes()
    began = time.perf_counter()
    parts: dict[str, float] = {}
    codes = None
    if name == "ours":
        ours = Ours(folder, dimension)
        opened = time.perf_counter()
        found = ours.search(query[0], K)
        parts = ours.parts_s | {"first_answer": time.perf_counter() - opened}
        codes = str(ours.holding.codes_origin)
    else:
        rows = np.load(folder / plain_file)
        index = faiss.IndexFlatIP(dimension)
        index.add(rows)
        found = index.search(query, K)[1][0]
    seconds = time.perf_counter() - began
    rows = None  # FAISS has its copy
    return {
        "seconds": seconds,
        "parts_s": parts,
        "codes": codes,
        "found": found.tolist(),
        "memory_before_bytes": before,
        "memory_bytes": memory_bytes(),
    }


if __name__ == "__main__":
    print(json.dumps(one_start(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
