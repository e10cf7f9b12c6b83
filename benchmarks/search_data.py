"""The vectors of search.py: clustered, of unit length, drawn block by block so that a million need not lie in memory.

Normal centres, normal noise of a given width a dimension, then unit length. Block n depends on the seed and n alone, so
every process makes the same vectors. A query is a centre and noise drawn anew: near a cluster, near no stored vector.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["NOISE", "SLICES", "Clustered", "exact", "overlap"]

Floats = npt.NDArray[np.float32]
NOISE = {"easy": 0.6, "hard": 1.0}  # of the noise, a dimension, beside a centre's 1
SLICES = 1_000  # values of the attribute that filters look at, spread evenly and apart from the clusters
block_vectors = 10_000
centre_seed, block_seed, query_seed = 1, 2, 3


@dataclass(frozen=True)
class Clustered:
    records: int
    dimension: int = 1_024
    clusters: int = 4_000
    noise: float = NOISE["easy"]

    @classmethod
    def sized(cls, records: int, dimension: int, noise: float) -> "Clustered":
        """50 records a centre, as 4,000 centres are for 200,000 and 20,000 for a million."""
        return cls(records, dimension, max(1, records // 50), noise)

    @property
    def name(self) -> str:
        return f"{self.records}x{self.dimension}-{self.clusters}-{self.noise}"

    @cached_property
    def _centres(self) -> Floats:
        rng = np.random.default_rng(centre_seed)
        return rng.standard_normal((self.clusters, self.dimension), dtype=np.float32)

    def _around(self, rng: np.random.Generator, count: int) -> Floats:
        made: Floats = self._centres[rng.integers(0, self.clusters, count)]
        made += np.float32(self.noise) * rng.standard_normal(made.shape, dtype=np.float32)
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        return made

    def blocks(self) -> Iterator[Floats]:
        """(up to block_vectors, d) float32, unit length, C-contiguous."""
        for number, start in enumerate(range(0, self.records, block_vectors)):
            rng = np.random.default_rng([block_seed, number])
            yield self._around(rng, min(block_vectors, self.records - start))

    def queries(self, count: int) -> Floats:
        """(count, d) float32, unit length."""
        return self._around(np.random.default_rng(query_seed), count)

    def slices(self) -> npt.NDArray[np.int64]:
        """(records,): each record's value of the attribute ``slice``, 0 to SLICES - 1."""
        return np.random.default_rng(block_seed).integers(0, SLICES, self.records)

    def described(self) -> dict[str, Any]:
        return {
            "records": self.records,
            "dimension": self.dimension,
            "clusters": self.clusters,
            "noise_a_dimension": self.noise,
        }


def exact(
    blocks: Iterator[Floats], queries: Floats, k: int, allowed: Mapping[str, npt.NDArray[np.bool_]]
) -> dict[str, npt.NDArray[np.int64]]:
    """For each mask over the rows, the k rows of the largest inner product with each query, best first: (queries, k)."""
    best = {name: np.full((len(queries), k), -np.inf, np.float32) for name in allowed}
    rows = {name: np.full((len(queries), k), -1, np.int64) for name in allowed}
    start = 0
    for block in blocks:
        scores = queries @ block.T
        ids = np.arange(start, start + len(block))
        for name, mask in allowed.items():
            here = mask[start : start + len(block)]
            both = np.hstack([best[name], scores[:, here]])
            numbers = np.hstack([rows[name], np.broadcast_to(ids[here], (len(queries), int(here.sum())))])
            order = np.argsort(-both, axis=1, kind="stable")[:, :k]
            best[name], rows[name] = np.take_along_axis(both, order, 1), np.take_along_axis(numbers, order, 1)
        start += len(block)
    return rows


def overlap(found: Sequence[npt.ArrayLike], right: npt.NDArray[np.int64]) -> float:
    """Which share of the right rows was found: recall at the width of ``right``; -1 in ``right`` is none."""
    shares = []
    for row, best in zip(found, right, strict=True):
        wanted = set(best[best >= 0].tolist())
        if wanted:
            shares.append(len(wanted.intersection(np.asarray(row).tolist())) / len(wanted))
    return float(np.mean(shares)) if shares else 1.0
