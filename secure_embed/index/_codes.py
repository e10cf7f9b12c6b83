"""RaBitQ codes in FAISS' inverted lists. Loaded when a shard is built.

FAISS aborts, or reads past an array, for a wrong type, shape or number, so everything that reaches it is checked here
or made here. Its own ``add`` and ``remove_ids`` are not used, since both leave codes behind: ``add`` grows a list by
copying it and frees the old memory as it is, ``remove_ids`` moves the last entry and leaves it where it was. Here a
list is overwritten before it moves, and what is cut off its end is overwritten at once.

Not locked: the shard's lock covers it. What is here is lossy, not secret: a code tells much about its vector.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from secure_embed import bulk
from secure_embed.index._exact import exact_product
from secure_embed.index._growing import GrowingArray
from secure_embed.index._invariant import invariant
from secure_embed.index.codebook import Codebook

__all__ = ["CodeLists", "EncodedBatch", "one_thread"]

Codes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@contextmanager
def one_thread() -> Iterator[None]:
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
        self._index = faiss.IndexIVFRaBitQ(
            self._quantizer, codebook.dimension, codebook.lists, faiss.METRIC_L2, True, codebook.bits
        )
        self._index.is_trained = True  # the codebook holds all there is to train
        self._memory = _array_lists(self._index.invlists)
        self.lists = codebook.lists
        self._squares = np.vecdot(self._centroids, self._centroids)
        # Twice what a float32 product of a unit vector and a centroid can be off (Higham, "Accuracy and Stability of
        # Numerical Algorithms", 2002, 3.1: d roundings of 2^-24), and as much again for the subtractions.
        longest = float(np.sqrt(self._squares.max()))
        self._undecided = 4 * codebook.dimension * 2.0**-24 * max(longest, 1.0)
        self._capacity = np.zeros(codebook.lists, np.int64)  # entries that a list's memory holds
        self._codes_at, self._ids_at = np.zeros((2, codebook.lists), np.uint64)  # and where it lies
        self._sizes = np.zeros(codebook.lists, np.int64)  # entries that are there
        self._list_of_slot = GrowingArray(np.uint16)
        self.code_bytes = int(self._index.code_size)
        # Also when the shard is simply dropped, because a new one took its place, and when the process ends.
        self._overwritten = weakref.finalize(
            self, _overwrite, self._index, self._memory, self._capacity, self.code_bytes
        )

    @property
    def memory_bytes(self) -> int:
        """Codes and ids with their spare room, and where each lies."""
        return int(self._capacity.sum()) * (self.code_bytes + 8) + self._list_of_slot.memory_bytes

    @property
    def index(self) -> Any:
        """FAISS', to search in."""
        return self._index

    @property
    def tables(self) -> bulk.CodeTables:
        """Where all of it lies, now and after every change."""
        return bulk.CodeTables(
            centroids=self._centroids,
            squares=self._squares,
            codes_at=self._codes_at,
            ids_at=self._ids_at,
            sizes=self._sizes,
        )

    def encode(self, turned: npt.NDArray[np.float32]) -> EncodedBatch:
        """(n, d) float32, C-contiguous, turned -> their codes. Reads only what never changes, so it needs no lock."""
        count = len(turned)
        invariant(turned.dtype == np.float32 and turned.flags.c_contiguous and turned.shape == (count, self._index.d))
        lists = self._nearest_list(turned)
        codes = np.zeros((count, self.code_bytes), np.uint8)
        with one_thread():
            self._index.encode_vectors(
                count, faiss.swig_ptr(turned), faiss.swig_ptr(lists), faiss.swig_ptr(codes), False
            )
        return EncodedBatch(codes, lists)

    def _nearest_list(self, turned: npt.NDArray[np.float32]) -> Numbers:
        """(n, d) -> (n,). Where two centroids are as near as float32 can tell, the exact product decides: no other record
        has a part in where one lies."""
        if self.lists == 1:
            return np.zeros(len(turned), np.int64)
        rows, half_squares = np.arange(len(turned)), self._squares / 2
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
        _overwrite(self._index, self._memory, self._capacity, self.code_bytes)

    def spread(self, slots: npt.NDArray[np.bool_] | None) -> Numbers:
        """(lists,) how many of the slots each list holds. ``slots``: (slots,) bool, live ones only; None: all."""
        if slots is None:
            return self._sizes.copy()
        return np.bincount(self._list_of_slot.values[slots], minlength=self.lists)

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
