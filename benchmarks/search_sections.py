"""The sections of search.py that need one process: beside exact search, filtered, several callers at once."""

import resource
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from main_job_machine import spread
from search_data import NOISE, Clustered, exact, overlap
from search_ours import DEPTHS, Ours, narrowed, open_or_make
from search_timing import Search, alternated, ratios, threaded_rate

from secure_embed.index import Effort

__all__ = ["Sizes", "beside_flat", "concurrent", "filtered", "flat_of"]

Floats = npt.NDArray[np.float32]
K = 10
callers_max = 8
shares = (0.5, 0.1, 0.01, 0.001)


@dataclass(frozen=True)
class Sizes:
    records: int = 200_000
    million: int = 1_000_000
    dimension: int = 1_024
    turns: int = 7
    each: int = 20  # queries a side and turn
    recall_queries: int = 100
    peer_records: int = 50_000
    paragraphs: int = 40_000
    rounds: int = 5  # of cold starts

    @property
    def queries(self) -> int:
        return max(self.recall_queries, (self.turns + 1) * self.each)

    def data(self, kind: str) -> Clustered:
        noise = NOISE["hard" if kind == "hard" else "easy"]
        return Clustered.sized(self.million if kind == "million" else self.records, self.dimension, noise)


def flat_of(data: Clustered) -> Any:
    """``IndexFlatIP`` of the vectors, filled in place: FAISS' own ``add`` would double its memory on the way."""
    index = faiss.IndexFlatIP(data.dimension)
    index.codes.resize(data.records * data.dimension * 4)
    raw = faiss.rev_swig_ptr(index.codes.data(), data.records * data.dimension * 4)
    rows = raw.view(np.float32).reshape(data.records, data.dimension)
    start = 0
    for block in data.blocks():
        rows[start : start + len(block)] = block
        start += len(block)
    index.ntotal = data.records
    return index


def opened(folder: Path, data: Clustered) -> tuple[Ours, dict[str, Any]]:
    return open_or_make(folder / f"ours-{data.name}", data.blocks, data.slices())


def beside_flat(kind: str, sizes: Sizes, folder: Path) -> dict[str, Any]:
    """One query in process, and the same by exact search, by turns; recall against that exact search."""
    data = sizes.data(kind)
    ours, made = opened(folder, data)
    flat = flat_of(data)
    queries = data.queries(sizes.queries)
    _, right = flat.search(queries[: sizes.recall_queries], K)
    sides: dict[str, Search] = {"ours": partial(ours.search, k=K), "flat": partial(flat_search, flat)}
    figures = {
        "data": data.described(),
        "ingest": made,
        "codes": ours.codes(),
        "recall_at_10": recall(ours, queries, right),
        "by_turns": alternated(sides, queries, base="flat", turns=sizes.turns, each=sizes.each),
        # The other side's vectors have then been through the processor's caches before each of our queries.
        "query_by_query": alternated(sides, queries, base="flat", turns=min(len(queries) - 1, 5 * sizes.turns), each=1),
        "by_candidates": by_candidates(ours, queries, right),
        "process_peak_bytes": 1_024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    ours.close()
    return figures


def flat_search(flat: Any, query: Floats) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = flat.search(query[np.newaxis], K)[1][0]
    return found


def recall(ours: Ours, queries: Floats, right: npt.NDArray[np.int64], **how: Any) -> float:
    return overlap([ours.search(query, K, **how) for query in queries[: len(right)]], right)


def by_candidates(ours: Ours, queries: Floats, right: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Recall and time where there are fewer candidates or more, each opened as far as an untuned collection goes."""
    sides = {str(depth): partial(ours.search, k=K, effort=Effort(candidates=depth)) for depth in DEPTHS}
    each = max(1, len(queries) // 6)
    timed = alternated(sides, queries, base=str(DEPTHS[-1]), turns=5, each=each)
    return {
        str(depth): {
            "recall_at_10": recall(ours, queries, right, effort=Effort(candidates=depth)),
            "p50_ms": timed[str(depth)]["p50_ms"]["median"],
        }
        for depth in DEPTHS
    }


def filtered(sizes: Sizes, folder: Path) -> dict[str, Any]:
    """Row filters by an attribute that has nothing to do with the clusters, beside the same queries without one."""
    data = sizes.data("easy")
    ours, _ = opened(folder, data)
    tuned = ours.tune(filtered=True)  # policy's row filters are the rule, so the effort has to do behind one as well
    slices, queries = data.slices(), data.queries(sizes.queries)
    masks = {"all": np.ones(data.records, np.bool_)} | {name_of(s): slices < round(s * 1_000) for s in shares}
    right = exact(data.blocks(), queries[: sizes.recall_queries], K, masks)
    sides: dict[str, Search] = {"all": partial(ours.search, k=K)}
    sides |= {name_of(share): partial(ours.search, k=K, rows=narrowed(share)) for share in shares}
    timed = alternated(sides, queries, base="all", turns=sizes.turns, each=sizes.each)
    for name, search in sides.items():
        found = [search(query) for query in queries[: sizes.recall_queries]]
        assert all(masks[name][one].all() for one in found)
        timed[name] |= {"records": int(masks[name].sum()), "recall_at_10": overlap(found, right[name])}
    ours.close()
    return {"data": data.described(), "tuned": tuned, "by_turns": timed}


def name_of(share: float) -> str:
    return f"{share:.1%}"


def concurrent(sizes: Sizes, folder: Path) -> dict[str, Any]:
    """Threads of one process, as the service's; one and several callers alternate."""
    data = sizes.data("easy")
    ours, _ = opened(folder, data)
    queries = np.tile(data.queries(sizes.queries), (4, 1))
    search = partial(ours.search, k=K)
    numbers: Sequence[int] = (1, 2, callers_max)
    rates: dict[int, list[float]] = {threads: [] for threads in numbers}
    for number in range(sizes.turns + 1):  # the first warms up
        for threads in numbers if number % 2 else tuple(reversed(numbers)):
            rate = threaded_rate(search, queries, threads)
            if number:
                rates[threads].append(rate)
    ours.close()
    return {
        "data": data.described(),
        "queries_per_s": {str(threads): spread(each) for threads, each in rates.items()},
        "over_one_caller": {str(threads): spread(ratios(rates[threads], rates[1])) for threads in numbers[1:]},
    }
