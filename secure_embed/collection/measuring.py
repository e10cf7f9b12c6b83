"""Recall against exact search, measured on the collection itself: vectors of its own records ask, all others answer.

Exact search opens every sealed vector once, a block at a time; what is kept of it is one number a query, the k-th best
score. Then the way of every query (``scan`` and ``nearest``) is gone at one effort after another. What leaves are means.
Vectors of the sample lie in memory until :meth:`Measuring.wipe`; blocks are wiped at once.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from secure_embed.collection.tuned import Asked, Measured
from secure_embed.index import Effort, RabitqShard, Selection
from secure_embed.types import Position, Positions, RowFilter, Ticket, TruthValue, Vectors

__all__ = ["Measuring", "Opener", "sample_for_k"]

Floats = npt.NDArray[np.float32]
Opener = Callable[[Positions, npt.NDArray[np.float16]], npt.NDArray[np.bool_]]

block_rows = 2_000
sample_min, sample_max = 200, 1_000
hits_wanted = 2_000  # that the sample has to be judged by: one missed is half a thousandth
draws_max = 50
filter_share = 0.1
opened_whole_max = 2_000  # see index/shard.py: behind a filter, so few are not estimated
# Two ways to the same score differ by float32's rounding; a tie with the k-th counts as found.
same_score = 2e-6
one_sided_95 = 1.645
EVERYTHING = RowFilter(permits=(TruthValue(True),))
NOWHERE = -1


def sample_for_k(k: int) -> int:
    """How many records ask: enough for 2,000 hits, 200 at least and 1,000 at most."""
    return min(max(-(-hits_wanted // k), sample_min), sample_max)


@dataclass(slots=True, eq=False)
class _Group:
    """Queries that are judged together. ``own``: (q,) each query's own record, which does not answer it, or -1."""

    vectors: Vectors = field(repr=False)  # (q, d) float32, unit length
    own: Positions
    chosen: npt.NDArray[np.bool_] | None  # (positions,) which may answer; None: all
    selection: Selection
    best: Floats = field(repr=False)  # (q, k) the best exact scores so far

    def learn(self, at: Positions, block: Vectors) -> None:
        """``block``: (n, d) float32, unit length, of the records at ``at``."""
        if self.chosen is not None:
            kept = self.chosen[at]
            at, block = at[kept], block[kept]
        scores = self.vectors @ block.T
        scores[self.own[:, None] == at[None, :]] = -2
        k = self.best.shape[1]
        self.best = -np.partition(-np.concatenate([self.best, scores], axis=1), k - 1, axis=1)[:, :k]


class Measuring:
    """One collection as it was when this was made. What is added or erased meanwhile counts as missed at worst."""

    def __init__(
        self,
        shard: RabitqShard,
        open_vectors: Opener,
        *,
        asked: Asked,
        end: Position,
        texts: Vectors,
        rng: np.random.Generator,
        ticket: Ticket,
    ) -> None:
        """``end``: one past the highest position. ``texts``: (t, d) float32, unit length, of the caller's texts."""
        self.opened = 0
        self._shard = shard
        self._open = open_vectors
        self._asked = asked
        self._end = int(end)
        self._ticket = ticket
        self._known: dict[Effort, Measured] = {}
        everything = shard.select(EVERYTHING, None)
        own, vectors = self._sample(rng, sample_for_k(asked.k))
        self._own = self._group(vectors, own, None, everything)
        self._texts = self._group(texts, np.full(len(texts), NOWHERE, np.int64), None, everything)
        self._filtered = self._tenth(rng, own, vectors)

    @property
    def sample(self) -> int:
        return len(self._own.own)

    @property
    def measured(self) -> tuple[Measured, ...]:
        """What :meth:`at` was asked for, in that order."""
        return tuple(self._known.values())

    def _sample(self, rng: np.random.Generator, wanted: int) -> tuple[Positions, Vectors]:
        """Records at random: their positions (q,) and vectors (q, d)."""
        at = np.zeros(0, np.int64)
        vectors = np.zeros((0, self._shard.codebook.dimension), np.float32)
        for _ in range(draws_max):  # erased positions are drawn too, and drawn again
            drawn = np.setdiff1d(rng.choice(self._end, min(self._end, 2 * wanted), replace=False), at)
            there, found = self._opened(drawn)
            before = vectors
            at, vectors = np.concatenate([at, there]), np.concatenate([vectors, found])
            before.fill(0)
            found.fill(0)
            if len(at) >= wanted:
                break
        chosen = rng.permutation(len(at))[:wanted]
        kept = at[chosen], np.ascontiguousarray(vectors[chosen])
        vectors.fill(0)
        return kept

    def _opened(self, at: Positions) -> tuple[Positions, Vectors]:
        """Of those at ``at`` that are there: positions (n,) and vectors (n, d), unit length; the caller wipes them."""
        half = np.zeros((len(at), self._shard.codebook.dimension), np.float16)
        there = self._open(at, half)
        self.opened += int(np.count_nonzero(there))
        vectors = half[there].astype(np.float32)
        half.fill(0)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        lengths[lengths == 0] = 1
        vectors /= lengths
        return at[there], vectors

    def _group(
        self, vectors: Vectors, own: Positions, chosen: npt.NDArray[np.bool_] | None, selection: Selection
    ) -> _Group:
        return _Group(vectors, own, chosen, selection, np.full((len(own), self._asked.k), -2, np.float32))

    def _tenth(self, rng: np.random.Generator, own: Positions, vectors: Vectors) -> _Group | None:
        """The same queries behind a filter that leaves a tenth, at random, and none of the sample itself."""
        chosen = rng.random(self._end) < filter_share
        chosen[own] = False
        selection = self._shard.named(np.flatnonzero(chosen))
        if selection.count <= opened_whole_max:
            return None
        return self._group(vectors, np.full(len(own), NOWHERE, np.int64), chosen, selection)

    def search_exactly(self, go_on: Callable[[], None]) -> None:
        """Open everything once, and keep of it each query's k best scores. ``go_on``: raises when it is to stop."""
        groups = [group for group in (self._own, self._texts, self._filtered) if group is not None and len(group.own)]
        for start in range(0, self._end, block_rows):
            go_on()
            at, block = self._opened(np.arange(start, min(start + block_rows, self._end), dtype=np.int64))
            try:
                for group in groups:
                    group.learn(at, block)
            finally:
                block.fill(0)

    def at(self, effort: Effort) -> Measured:
        """How searches do at ``effort``; each effort is measured once. Not before :meth:`search_exactly`."""
        if effort not in self._known:
            self._known[effort] = self._measure(effort)
        return self._known[effort]

    def _measure(self, effort: Effort) -> Measured:
        own, openings, codes = self._recalls(self._own, effort)
        texts = self._recalls(self._texts, effort)[0] if len(self._texts.own) else None
        filtered, filtered_openings = self._behind_filter(effort) if self._asked.filtered else (None, None)
        target = self._asked.target
        low = _low(own, self._asked.k)
        meets = low >= target and (texts is None or float(texts.mean()) >= target)
        if filtered is not None:
            meets = meets and _low(filtered, self._asked.k) >= target
        return Measured(
            effort=effort,
            recall=float(own.mean()),
            recall_low=low,
            recall_texts=None if texts is None else float(texts.mean()),
            recall_filtered=None if filtered is None else float(filtered.mean()),
            openings=openings,
            openings_filtered=filtered_openings,
            codes=codes,
            meets=meets,
        )

    def with_filter(self, measured: Measured) -> Measured:
        """The same, and how it does behind a filter, where that was not asked for from the beginning."""
        if measured.recall_filtered is not None:
            return measured
        filtered, openings = self._behind_filter(measured.effort)
        recall = None if filtered is None else float(filtered.mean())
        return replace(measured, recall_filtered=recall, openings_filtered=openings)

    def _behind_filter(self, effort: Effort) -> tuple[npt.NDArray[np.float64] | None, float | None]:
        return (None, None) if self._filtered is None else self._recalls(self._filtered, effort)[:2]

    def _recalls(self, group: _Group, effort: Effort) -> tuple[npt.NDArray[np.float64], float, float]:
        """(q,) the share of the k best that each query found; openings and codes looked at, of one query in the mean."""
        recalls, openings, codes = np.zeros(len(group.own)), 0, 0
        floors = group.best.min(axis=1) - same_score
        for n, own in enumerate(group.own.tolist()):
            # A record asks for one more than itself, of one candidate more: as a stranger would in its absence.
            itself = int(own != NOWHERE)
            k, wanted = self._asked.k + itself, replace(effort, candidates=effort.candidates + itself)
            query = group.vectors[n : n + 1]
            found = self._shard.scan(query, group.selection, k=k, effort=wanted)
            scored = self._shard.nearest(found, query, k=k, effort=wanted, ticket=self._ticket)
            answer = (scored.positions != own) & (scored.positions < self._end)
            first = scored.scores[answer][: self._asked.k]
            recalls[n] = np.count_nonzero(first >= floors[n]) / self._asked.k
            self.opened += len(scored.positions)
            openings += len(scored.positions) - itself
            codes += found.looked
        return recalls, openings / len(recalls), codes / len(recalls)

    def wipe(self) -> None:
        """Overwrite the sample. The caller's texts too: nobody needs them any more."""
        for group in (self._own, self._texts):
            group.vectors.fill(0)


def _low(recalls: npt.NDArray[np.float64], k: int) -> float:
    """Lower end of the mean's one-sided 95 % interval. A sample without a miss could have had one: that much is taken off
    at least."""
    count = len(recalls)
    one_miss = 1 / k / math.sqrt(count)  # deviation of a sample in which one query misses one hit
    deviation = max(float(recalls.std(ddof=1)), one_miss)
    return float(recalls.mean()) - one_sided_95 * deviation / math.sqrt(count)
