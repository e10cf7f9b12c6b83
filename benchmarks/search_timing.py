"""Two or more sides in turn, on the same queries, and what their times come to."""

import os
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from main_job_machine import spread

__all__ = ["Search", "alternated", "memory_bytes", "ratios", "threaded_rate", "turn"]

Floats = npt.NDArray[np.float32]
Search = Callable[[Floats], object]


def turn(search: Search, queries: Floats) -> tuple[list[float], float]:
    """Milliseconds of each query, and of the processor's time for one in the mean, all threads together."""
    taken = []
    worked = time.process_time()
    for query in queries:
        began = time.perf_counter()
        search(query)
        taken.append(1_000 * (time.perf_counter() - began))
    return taken, 1_000 * (time.process_time() - worked) / len(taken)


def alternated(sides: Mapping[str, Search], queries: Floats, *, base: str, turns: int, each: int) -> dict[str, Any]:
    """``turns`` times each side in turn answers ``each`` queries, which are the same for all and new at every turn.

    ``p50_ms`` is a spread over the turns' medians, ``over_base`` over the turns' ratios of medians; ``processor_ms`` and
    its ratio say the same of the processor's time, which other programs on the machine disturb less.
    """
    assert len(queries) >= turns * each + each
    for search in sides.values():  # what the first queries load is no query's
        turn(search, queries[turns * each :][:each])
    taken: dict[str, list[list[float]]] = {name: [] for name in sides}
    worked: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for number in range(turns):
        asked = queries[number * each : (number + 1) * each]
        for name in names[number % len(names) :] + names[: number % len(names)]:
            one, spent = turn(sides[name], asked)
            taken[name].append(one)
            worked[name].append(spent)
    medians = {name: [statistics.median(one) for one in all_turns] for name, all_turns in taken.items()}
    return {
        name: {
            "p50_ms": spread(medians[name]),
            "p95_ms": float(np.quantile(np.concatenate(taken[name]), 0.95)),
            "over_base": spread(ratios(medians[name], medians[base])),
            "processor_ms": spread(worked[name]),
            "processor_over_base": spread(ratios(worked[name], worked[base])),
        }
        for name in names
    }


def ratios(mine: Sequence[float], others: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(mine, others, strict=True)]


def threaded_rate(search: Search, queries: Floats, threads: int) -> float:
    """Queries a second when so many callers take the queries from one heap."""
    numbers = iter(range(len(queries)))
    lock = threading.Lock()
    ready = threading.Barrier(threads + 1)

    def caller() -> None:
        search(queries[0])  # buffers that belong to the thread
        ready.wait()
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            search(queries[number])

    callers = [threading.Thread(target=caller) for _ in range(threads)]
    for one in callers:
        one.start()
    ready.wait()
    began = time.perf_counter()
    for one in callers:
        one.join()
    return len(queries) / (time.perf_counter() - began)


def memory_bytes(pids: Sequence[int] = ()) -> int:
    """Proportional set size of this process, or of those."""
    total = 0
    for pid in pids or [os.getpid()]:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        total += sum(1_024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total
