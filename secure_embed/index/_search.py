"""How one query finds its best estimates: turned, its nearest lists chosen, the codes in them scanned.

The nearest lists that together hold enough of what may answer are looked into: the narrower a filter, the more lists.
Which ones depends on the records that may answer, and on the codebook, alone. One-bit codes are scanned in compiled
code; where that is not there, and for codes of more bits, by FAISS.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import faiss
import numpy as np
import numpy.typing as npt

from secure_embed import bulk
from secure_embed.bulk import Found
from secure_embed.index._asking import Sought
from secure_embed.index._coarse import CoarseMatrix
from secure_embed.index._codes import CodeLists, one_thread
from secure_embed.index.codebook import Codebook

__all__ = ["Search", "search_over"]

Bitmap = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

# From so many centroids on their own codes are looked at first (4 MiB of float32 at 1,024 dimensions, and 140 KiB of codes).
coded_lists_min = 1_024
query_bits = 8  # of the query's own rounding; FAISS' default of 4 finds 0.4 to 0.6 points less on hard data
look_records_max = 1_000_000  # 30 to 50 ms of FAISS


class Search(Protocol):
    @property
    def memory_bytes(self) -> int:
        """What is made of the codebook to search with."""
        ...

    def __call__(self, sought: Sequence[Sought]) -> list[Found | None]:
        """None: its time was up. What one finds is the same whatever others are looked for beside it."""
        ...


def search_over(codebook: Codebook, codes: CodeLists) -> Search:
    return _Compiled(codebook, codes) if codebook.bits == 1 and bulk.compiled() else _ByFaiss(codebook, codes)


class _Compiled:
    def __init__(self, codebook: Codebook, codes: CodeLists) -> None:
        coded = codebook.lists >= coded_lists_min
        rotation = CoarseMatrix(codebook.rotation.T)
        coarse = None if coded or codebook.lists == 1 else CoarseMatrix(codebook.centroids)
        self._of_centroids = _codes_of(codebook) if coded else None
        self._search = bulk.CompiledSearch(
            rotation.table,
            None if coarse is None else coarse.table,
            codes.tables,
            None if self._of_centroids is None else self._of_centroids.tables,
        )
        self.memory_bytes = rotation.memory_bytes
        self.memory_bytes += 0 if coarse is None else coarse.memory_bytes
        self.memory_bytes += 0 if self._of_centroids is None else self._of_centroids.memory_bytes

    def __call__(self, sought: Sequence[Sought]) -> list[Found | None]:
        return self._search.search(
            [
                bulk.Asked(
                    query=one.query,
                    spread=one.spread,
                    bitmap=one.bitmap,
                    wanted=one.wanted,
                    enough=one.enough,
                    ends=one.deadline.ends,
                    gone=one.deadline.gone,
                )
                for one in sought
            ]
        )


class _ByFaiss:
    def __init__(self, codebook: Codebook, codes: CodeLists) -> None:
        self._codes = codes
        self._rotation = CoarseMatrix(codebook.rotation.T)
        self._centroids = CoarseMatrix(codebook.centroids)
        self._half_squares = codes.tables.squares / 2

    @property
    def memory_bytes(self) -> int:
        return self._rotation.memory_bytes + self._centroids.memory_bytes

    def __call__(self, sought: Sequence[Sought]) -> list[Found | None]:
        return [self._one(each) for each in sought]

    def _one(self, sought: Sought) -> Found | None:
        turned = self._rotation.products(sought.query)
        away = self._half_squares - self._centroids.products(turned)[0]
        near = _nearest_first(away, sought.spread, sought.enough)
        if not len(near):  # all of it was forgotten since it was selected
            return Found(slots=np.zeros(0, np.int64), estimates=np.zeros(0, np.float32), looked=0)
        found: list[tuple[Numbers, Floats]] = []
        for part in _looks(sought.spread[near]):
            found.append(self._look(turned, sought, near[part]))
            if sought.deadline.over:
                return None
        slots, estimates = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.lexsort((slots, -estimates))[: sought.wanted]
        looked = int(sought.spread[near].sum())
        return Found(slots=slots[order], estimates=estimates[order], looked=looked)

    def _look(self, turned: Floats, sought: Sought, near: Numbers) -> tuple[Numbers, Floats]:
        """As many as are in these lists and may answer, those that are wanted at most."""
        distances, slots = np.empty(sought.wanted, np.float32), np.empty(sought.wanted, np.int64)
        unread = np.zeros(len(near), np.float32)  # distances of centroids, which this kind of index does not ask for
        with one_thread():
            self._codes.index.search_preassigned_c(  # the native form: the other takes no parameters
                1,
                faiss.swig_ptr(turned),
                sought.wanted,
                *(faiss.swig_ptr(array) for array in (near, unread, distances, slots)),
                False,
                _options(len(near), sought.bitmap),
            )
        there = slots >= 0  # FAISS pads with -1 where it finds fewer
        # Unit vectors: |a - b|^2 = 2 - 2 cos.
        return slots[there], (1 - distances[there] / 2).astype(np.float32)


def _nearest_first(away: Floats, spread: Numbers, enough: float) -> Numbers:
    """``away``: (lists,) half of |query - centroid|^2 - |query|^2. As few lists as hold enough, all that hold any where they
    do not; among equals the higher number, as in compiled code."""
    near = np.lexsort((-np.arange(len(away)), away))
    near = near[spread[near] > 0]
    return near[: int((spread[near].cumsum() < enough).sum()) + 1]


def _looks(spread: Numbers) -> Iterator[slice]:
    """Cuts lists into looks that hold about ``look_records_max`` records each: between two of them, time is asked for."""
    start = 0
    while start < len(spread):
        held = np.cumsum(spread[start:])
        count = max(1, int(np.searchsorted(held, look_records_max, side="right")))
        yield slice(start, start + count)
        start += count


def _options(lists: int, bitmap: Bitmap | None) -> Any:
    chosen: dict[str, Any] = {"nprobe": lists, "qb": query_bits}
    if bitmap is not None:
        chosen["sel"] = faiss.IDSelectorBitmap(bitmap)  # type: ignore[arg-type, call-arg]  # FAISS' stub knows the C++ form only
    return faiss.IVFRaBitQSearchParameters(**chosen)


def _codes_of(codebook: Codebook) -> CodeLists:
    """Of the centroids themselves, in one list: thousands of them are megabytes to read for each query, their codes are
    a thirtieth of that."""
    middle = codebook.centroids.mean(axis=0, keepdims=True)
    codes = CodeLists(replace(codebook, centroids=middle, bits=1, trained_on=codebook.lists))
    codes.add(codes.encode(np.array(codebook.centroids)), np.arange(codebook.lists))
    return codes
