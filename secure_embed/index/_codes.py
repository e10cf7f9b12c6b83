"""RaBitQ codes in FAISS' inverted lists: the only module that searches with FAISS. Loaded when a shard is built.

FAISS aborts, or reads past an array, for a wrong type, shape or number, so everything that reaches it is checked here
or made here. Its own ``add`` and ``remove_ids`` are not used, since both leave codes behind: ``add`` grows a list by
copying it and frees the old memory as it is, ``remove_ids`` moves the last entry and leaves it where it was. Here a
list is overwritten before it moves, and what is cut off its end is overwritten at once.

Not locked: the shard's lock covers it. What is here is lossy, not secret: a code tells much about its vector.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from secure_embed import bulk
from secure_embed.deadline import Deadline
from secure_embed.index._exact import exact_product
from secure_embed.index._growing import GrowingArray
from secure_embed.index._invariant import invariant
from secure_embed.index._near import NearLists, coded_lists_min
from secure_embed.index.codebook import Codebook
from secure_embed.index.protocol import lists_untuned

__all__ = ["CodeLists", "EncodedBatch"]

Codes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

query_bits = 8  # of the query's own rounding; FAISS' default of 4 finds 0.4 to 0.6 points less on hard data
look_records_max = 1_000_000  # 30 to 50 ms


@contextmanager
def _one_thread() -> Iterator[None]:
    """One FAISS thread for one query. The number belongs to the calling thread, and others (torch) read it too."""
    before = faiss.omp_get_max_threads()
    if before == 1:
        yield
        return
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


class EncodedBatch:
    """Codes on their way into the lists; :meth:`wipe` when they are there."""

    def __init__(self, codes: Codes, lists: Numbers) -> None:
        self.codes = codes  # (n, code_bytes) uint8
        self.lists = lists  # (n,) int64

    def wipe(self) -> None:
        self.codes.fill(0)
        self.lists.fill(0)


class CodeLists:
    def __init__(self, codebook: Codebook) -> None:
        self._centroids = np.ascontiguousarray(codebook.centroids)
        self._quantizer = _quantizer_over(self._centroids)
        # Unit vectors: |a - b|^2 = 2 - 2 cos, so the order by L2 is the order by cosine.
        self._index = faiss.IndexIVFRaBitQ(
            self._quantizer, codebook.dimension, codebook.lists, faiss.METRIC_L2, True, codebook.bits
        )
        self._index.is_trained = True  # the codebook holds all there is to train
        self._memory = _array_lists(self._index.invlists)
        self.lists = codebook.lists
        # As they were at the training: what is looked at must not depend on records that a caller may not see.
        self._records_a_list = max(1.0, codebook.trained_on / codebook.lists)
        self._centroid_codes = _codes_of(codebook) if codebook.lists >= coded_lists_min else None
        self._near = NearLists(codebook, None if self._centroid_codes is None else self._centroid_codes.nearest)
        centroid_squares = np.vecdot(codebook.centroids, codebook.centroids)
        self._half_squares = centroid_squares / 2
        # Twice what a float32 product of a unit vector and a centroid can be off (Higham, "Accuracy and Stability of
        # Numerical Algorithms", 2002, 3.1: d roundings of 2^-24), and as much again for the subtractions.
        longest = float(np.sqrt(centroid_squares.max()))
        self._undecided = 4 * codebook.dimension * 2.0**-24 * max(longest, 1.0)
        self._capacity = np.zeros(codebook.lists, np.int64)  # entries that a list's memory holds
        self._codes_at, self._ids_at = np.zeros((2, codebook.lists), np.uint64)  # and where it lies
        self._sizes = np.zeros(codebook.lists, np.int64)  # entries that are there
        self._list_of_slot = GrowingArray(np.uint16)
        self.code_bytes = int(self._index.code_size)
        self._scanned_by_us = codebook.bits == 1 and bool(bulk.compiled())
        # Also when the shard is simply dropped, because a new one took its place, and when the process ends.
        self._overwritten = weakref.finalize(
            self, _overwrite, self._index, self._memory, self._capacity, self.code_bytes
        )

    @property
    def memory_bytes(self) -> int:
        """Codes and ids with their spare room, and where each lies."""
        of_centroids = 0 if self._centroid_codes is None else self._centroid_codes.memory_bytes
        return int(self._capacity.sum()) * (self.code_bytes + 8) + self._list_of_slot.memory_bytes + of_centroids

    @property
    def tables_bytes(self) -> int:
        """Of centroids once more."""
        return self._near.memory_bytes

    def encode(self, turned: npt.NDArray[np.float32]) -> EncodedBatch:
        """(n, d) float32, C-contiguous, turned -> their codes. Reads only what never changes, so it needs no lock."""
        count = len(turned)
        invariant(turned.dtype == np.float32 and turned.flags.c_contiguous and turned.shape == (count, self._index.d))
        lists = self._nearest_list(turned)
        codes = np.zeros((count, self.code_bytes), np.uint8)
        with _one_thread():
            self._index.encode_vectors(
                count, faiss.swig_ptr(turned), faiss.swig_ptr(lists), faiss.swig_ptr(codes), False
            )
        return EncodedBatch(codes, lists)

    def _nearest_list(self, turned: npt.NDArray[np.float32]) -> Numbers:
        """(n, d) -> (n,). Where two centroids are as near as float32 can tell, the exact product decides: no other record
        has a part in where one lies."""
        if self.lists == 1:
            return np.zeros(len(turned), np.int64)
        rows, half_squares = np.arange(len(turned)), self._half_squares
        nearness = turned @ self._centroids.T - half_squares
        nearest: Numbers = nearness.argmax(axis=1)
        first = nearness[rows, nearest]
        nearness[rows, nearest] = -np.inf
        close = np.flatnonzero(first - nearness.max(axis=1) < self._undecided)
        if len(close):
            exact = exact_product(turned[close], self._centroids.T) - half_squares
            nearest[close] = exact.argmax(axis=1)
            exact.fill(0)
        nearness.fill(0)
        first.fill(0)
        return nearest

    def add(self, batch: EncodedBatch, slots: Numbers) -> None:
        """Put the codes at the ends of their lists; ``slots`` continue where the last batch ended."""
        invariant(len(slots) == len(batch.codes) and slots[0] == len(self._list_of_slot))
        for number in np.unique(batch.lists):
            here = np.flatnonzero(batch.lists == number)
            codes, ids = batch.codes[here], slots[here]
            self._make_room(int(number), len(here))
            self._memory.add_entries(int(number), len(here), faiss.swig_ptr(ids), faiss.swig_ptr(codes))
            codes.fill(0)
            self._sizes[number] += len(here)
        self._index.ntotal += len(slots)
        self._list_of_slot.extend(batch.lists)

    def held(self) -> Iterator[tuple[Numbers, Codes]]:
        """List by list, its ids (n,) and codes (n, code_bytes), as FAISS' own memory; stale after the next change."""
        for number in range(self.lists):
            size = int(self._memory.list_size(number))
            if size:
                codes, ids = self._views(number, size)
                yield ids, codes
            else:
                yield np.zeros(0, np.int64), np.zeros((0, self.code_bytes), np.uint8)

    def restore(self, sizes: Numbers, ids: Numbers, fill: Callable[[Codes], None]) -> None:
        """Put ready codes into lists that are empty. ``sizes``: (lists,); ``ids``: each of 0 .. n-1 once, list by list.

        ``fill`` writes the next codes into the array that it is given, which is FAISS' own memory: no copy is left.
        """
        invariant(self._index.ntotal == 0 and len(sizes) == self.lists and int(sizes.sum()) == len(ids))
        list_of_slot = self._list_of_slot.grow(len(ids))
        start = 0
        for number, size in enumerate(sizes.tolist()):
            if not size:
                continue
            here = ids[start : start + size]
            list_of_slot[here] = number
            self._memory.resize(number, size)
            self._moved(number, size)
            self._sizes[number] = size
            codes, slots = self._views(number, size)
            slots[:] = here
            self._index.ntotal += size
            fill(codes)
            start += size

    def remove(self, slots: Numbers) -> None:
        """Overwrite and take out; every slot must be there."""
        for slot in slots.tolist():
            number = int(self._list_of_slot.values[slot])
            size = self._memory.list_size(number)
            codes, ids = self._views(number, size)
            (at,) = np.flatnonzero(ids == slot)
            codes[at], ids[at] = codes[-1], ids[-1]
            codes[-1], ids[-1] = 0, -1
            self._memory.resize(number, size - 1)
            self._sizes[number] -= 1
            self._index.ntotal -= 1

    def wipe(self) -> None:
        """Overwrite every list and empty it."""
        self._sizes[:] = 0
        if self._centroid_codes is not None:
            self._centroid_codes.wipe()
        _overwrite(self._index, self._memory, self._capacity, self.code_bytes)

    def spread(self, slots: npt.NDArray[np.bool_] | None) -> Numbers:
        """(lists,) how many of the slots each list holds. ``slots``: (slots,) bool, live ones only; None: all."""
        if slots is None:
            return self._sizes.copy()
        return np.bincount(self._list_of_slot.values[slots], minlength=self.lists)

    def search(
        self,
        turned: Floats,
        wanted: int,
        *,
        bitmap: Codes | None,
        spread: Numbers,
        lists: int | None,
        deadline: Deadline,
    ) -> tuple[Numbers, Floats]:
        """``turned``: (d,) float32, C-contiguous. Slots (n,) int64 and estimated cosines (n,) float32, best first, among
        equals the lower slot; n is ``wanted``, or all that may answer.

        ``bitmap``: the slots that may answer; None: all. ``spread``: how many of them each list holds. The nearest lists
        are looked into until they hold ``lists`` lists' worth of them, ``wanted`` at least.
        """
        wanted = min(wanted, int(spread.sum()))
        if not wanted:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        near = self._near.of(turned, spread, self._enough(wanted, lists))
        if self._index.ntotal <= look_records_max:
            return self._look(turned, wanted, bitmap, near)
        found: list[tuple[Numbers, Floats]] = []
        for part in _looks(spread[near]):
            if found:
                deadline.require()
            found.append(self._look(turned, wanted, bitmap, near[part]))
        return _best_of(found, wanted)

    def nearest(self, turned: Floats, wanted: int, squares: Floats) -> Numbers:
        """The slots of the ``wanted`` nearest of all, which need not be of unit length: ``squares`` (slots,) of it."""
        return self._look(turned, wanted, None, np.flatnonzero(self._sizes), squares)[0]

    def _look(
        self, turned: Floats, wanted: int, bitmap: Codes | None, near: Numbers, squares: Floats | None = None
    ) -> tuple[Numbers, Floats]:
        """As many as are in these lists, ``wanted`` at most."""
        if self._scanned_by_us:
            places = self._codes_at, self._ids_at
            return bulk.scan(turned, self._centroids, places, self._sizes, near, bitmap, wanted, squares=squares)
        distances, slots = np.empty(wanted, np.float32), np.empty(wanted, np.int64)
        unread = np.zeros(len(near), np.float32)  # distances of centroids, which this kind of index does not ask for
        with _one_thread():
            self._index.search_preassigned_c(  # type: ignore[attr-defined]  # the native form: the other takes no parameters
                1,
                faiss.swig_ptr(turned),
                wanted,
                *(faiss.swig_ptr(array) for array in (near, unread, distances, slots)),
                False,
                _options(len(near), bitmap),
            )
        there = slots >= 0  # FAISS pads with -1 where it finds fewer
        return _in_order(slots[there], (1 - distances[there] / 2).astype(np.float32))

    def looked_at(self, turned: Floats, wanted: int, *, spread: Numbers, lists: int | None) -> int:
        """How many codes of records that may answer lie in the lists that such a :meth:`search` looks into."""
        wanted = min(wanted, int(spread.sum()))
        return int(spread[self._near.of(turned, spread, self._enough(wanted, lists))].sum()) if wanted else 0

    def _enough(self, wanted: int, lists: int | None) -> float:
        if lists is None:
            lists = lists_untuned(self.lists)
        return max(wanted, lists * self._records_a_list)

    def _views(self, number: int, entries: int) -> tuple[Codes, Numbers]:
        """A list's first ``entries`` codes and ids, as FAISS' own memory; stale after the next change of size."""
        invariant(0 < entries <= int(self._capacity[number]))
        return _native_views(self._memory, number, entries, self.code_bytes)

    def _moved(self, number: int, capacity: int) -> None:
        self._capacity[number] = capacity
        self._codes_at[number] = int(self._memory.get_codes(number))
        self._ids_at[number] = int(self._memory.get_ids(number))

    def _make_room(self, number: int, more: int) -> None:
        """Grow a list's memory so that appending does not move it; what it moves from is overwritten first."""
        size, capacity = int(self._memory.list_size(number)), int(self._capacity[number])
        if size + more <= capacity:
            return
        larger = max(size + more, capacity * 3 // 2)
        kept: Codes | None = None
        if size:
            codes, _ = self._views(number, size)
            kept = codes.copy()
            codes.fill(0)
        self._memory.resize(number, larger)
        self._moved(number, larger)
        if kept is not None:
            codes, _ = self._views(number, size)
            codes[:] = kept
            kept.fill(0)
        self._memory.resize(number, size)


def _codes_of(codebook: Codebook) -> CodeLists:
    """Of the centroids themselves, in one list: thousands of them are megabytes to read for each query, their codes are
    a thirtieth of that."""
    middle = codebook.centroids.mean(axis=0, keepdims=True)
    codes = CodeLists(replace(codebook, centroids=middle, bits=1, trained_on=codebook.lists))
    codes.add(codes.encode(np.array(codebook.centroids)), np.arange(codebook.lists))
    return codes


def _options(lists: int, bitmap: Codes | None) -> Any:
    chosen: dict[str, Any] = {"nprobe": lists, "qb": query_bits}
    if bitmap is not None:
        chosen["sel"] = faiss.IDSelectorBitmap(bitmap)  # type: ignore[arg-type, call-arg]  # FAISS' stub knows the C++ form only
    return faiss.IVFRaBitQSearchParameters(**chosen)


def _in_order(slots: Numbers, estimates: Floats) -> tuple[Numbers, Floats]:
    order = np.lexsort((slots, -estimates))
    return slots[order], estimates[order]


def _best_of(looks: Sequence[tuple[Numbers, Floats]], wanted: int) -> tuple[Numbers, Floats]:
    slots, estimates = _in_order(*(np.concatenate(parts) for parts in zip(*looks, strict=True)))
    return slots[:wanted], estimates[:wanted]


def _looks(spread: Numbers) -> Iterator[slice]:
    """Cuts lists into looks that hold about ``look_records_max`` records each: between two of them, time is asked for."""
    start = 0
    while start < len(spread):
        held = np.cumsum(spread[start:])
        count = max(1, int(np.searchsorted(held, look_records_max, side="right")))
        yield slice(start, start + count)
        start += count


def _quantizer_over(centroids: Floats) -> Any:
    """FAISS' index of these centroids, which lie in ``centroids`` and not once more in FAISS: it must outlive the index."""
    quantizer = faiss.IndexFlatL2(centroids.shape[1])
    codes = quantizer.codes
    codes.is_owned = False
    codes.view_data = codes.c_ptr = faiss.swig_ptr(centroids.reshape(-1).view(np.uint8))
    codes.view_size = codes.c_size = centroids.nbytes
    # A FAISS whose vectors are made otherwise takes these assignments without a word, and would read past its memory.
    invariant(quantizer.codes.size() == centroids.nbytes and int(quantizer.codes.data()) == centroids.ctypes.data)
    quantizer.ntotal = len(centroids)
    return quantizer


def _native_views(memory: Any, number: int, entries: int, code_bytes: int) -> tuple[Codes, Numbers]:
    codes = faiss.rev_swig_ptr(memory.get_codes(number), entries * code_bytes)
    ids = faiss.rev_swig_ptr(memory.get_ids(number), entries)
    return codes.reshape(entries, code_bytes), ids


def _overwrite(index: Any, memory: Any, capacity: Numbers, code_bytes: int) -> None:
    for number in np.flatnonzero(capacity).tolist():
        codes, ids = _native_views(memory, number, int(capacity[number]), code_bytes)
        codes.fill(0)
        ids.fill(-1)
        memory.resize(number, 0)
    index.ntotal = 0


def _array_lists(lists: Any) -> Any:
    return faiss.downcast_InvertedLists(lists)
