"""A query over codes in lists, in one call of compiled code: what goes into it is checked here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from secure_embed.bulk._calls import Bytes, Floats, Numbers, native, not_together, require

__all__ = ["Asked", "Coarse", "CodeTables", "CompiledSearch", "Found"]

Coarse = tuple[npt.NDArray[np.int8], Floats]  # (n, d) in steps (n,) of each row
dimension_max = 4_096
no_memory = -2


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeTables:
    """Where codes lie. The arrays' contents may change between two searches. Who makes this answers for the addresses."""

    centroids: Floats  # (lists, d) float32
    squares: Floats  # (lists,) float32, of their lengths
    codes_at: npt.NDArray[np.uint64]  # (lists,) addresses: one-bit RaBitQ codes of (d + 7) // 8 + 8 bytes
    ids_at: npt.NDArray[np.uint64]  # (lists,) addresses: int64
    sizes: Numbers  # (lists,) how many there are


@dataclass(slots=True, kw_only=True, eq=False)
class Asked:
    query: Floats  # d values, C-contiguous, not turned
    spread: Numbers  # (lists,) int64, how many that may answer each list holds
    bitmap: Bytes | None  # which ids may answer, the lowest bit first; None: all
    wanted: int
    enough: float  # the nearest lists are looked into until they hold so many that may answer
    ends: float = float("inf")  # of time.monotonic()
    gone: bytearray = field(default_factory=lambda: bytearray(1))  # not zero: nobody waits


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    slots: Numbers  # (n,) int64, best first, among equals the lower one
    estimates: Floats  # (n,) float32, of cosines
    looked: int  # at how many that may answer


class CompiledSearch:
    """Only where it is ``compiled``. Raises ``ValueError`` for tables that do not belong together."""

    def __init__(
        self,
        rotation: Coarse,
        coarse: Coarse | None,
        codes: CodeTables,
        of_centroids: CodeTables | None = None,
        *,
        portable: bool = False,
    ) -> None:
        """``rotation``: (d, d), its rows multiplied with a query give the turned one. ``coarse``: of the centroids; None:
        they are used as they are. ``of_centroids``: their own codes, in one list, looked at first. ``portable``: without
        the processor's own instructions for it; the answers are the same."""
        assert native is not None
        self._ffi, self._lib, _ = native
        self._lists, self._dimension = codes.centroids.shape
        self._portable = portable
        self._kept: list[Any] = [rotation, coarse, codes, of_centroids]  # pointers keep nothing alive
        fits = 1 <= self._dimension <= dimension_max and self._lists > 0
        for pair, rows in ((rotation, self._dimension), (coarse, self._lists)):
            fits = fits and (pair is None or pair[0].shape == (rows, self._dimension))
        if not fits or (of_centroids is not None and of_centroids.centroids.shape != (1, self._dimension)):
            raise not_together()
        shard = self._shard = self._ffi.new("se_shard *")
        shard.rotation, shard.rotation_steps = self._coarse(rotation)
        if coarse is not None:
            shard.coarse, shard.coarse_steps = self._coarse(coarse)
        self._fill(shard.codes, codes)
        if of_centroids is not None:
            self._of_centroids = self._ffi.new("se_codes *")
            self._fill(self._of_centroids, of_centroids)
            shard.of_centroids = self._of_centroids

    def search(self, asked: Sequence[Asked]) -> list[Found | None]:
        """Each query's best estimates, as many as are wanted or may answer; None: its time was up. What one finds is the
        same whatever is asked beside it. Raises ``ValueError`` for arrays that do not belong together, ``MemoryError``."""
        ffi = self._ffi
        calls = ffi.new("se_asked[]", len(asked))
        kept: list[Any] = []
        for call, one in zip(calls, asked, strict=True):
            require(one.query, np.float32, self._dimension)
            require(one.spread, np.int64, self._lists)
            slots, estimates = np.empty(one.wanted, np.int64), np.empty(one.wanted, np.float32)
            call.query = ffi.from_buffer("float[]", one.query)
            call.spread = ffi.from_buffer("int64_t[]", one.spread)
            if one.bitmap is not None:
                require(one.bitmap, np.uint8, one.bitmap.size)
                call.bitmap, call.bitmap_bytes = ffi.from_buffer("uint8_t[]", one.bitmap), one.bitmap.size
            gone = ffi.from_buffer("uint8_t[1]", one.gone)
            call.wanted, call.enough, call.ends, call.gone = one.wanted, one.enough, one.ends, gone
            call.portable = self._portable
            call.slots = ffi.from_buffer("int64_t[]", slots, require_writable=True)
            call.estimates = ffi.from_buffer("float[]", estimates, require_writable=True)
            kept += [(slots, estimates, gone)]
        refused = self._lib.se_search(self._shard, len(asked), calls)
        if refused:
            raise MemoryError if refused == no_memory else not_together()
        return [
            None
            if call.found < 0
            else Found(slots=slots[: call.found], estimates=estimates[: call.found], looked=call.looked)
            for call, (slots, estimates, _) in zip(calls, kept, strict=True)
        ]

    def _coarse(self, pair: Coarse) -> tuple[Any, Any]:
        table, steps = pair
        require(table, np.int8, table.size)
        require(steps, np.float32, len(table))
        return self._pointer("int8_t[]", table), self._pointer("float[]", steps)

    def _fill(self, target: Any, tables: CodeTables) -> None:
        lists, dimension = tables.centroids.shape
        require(tables.centroids, np.float32, lists * dimension)
        require(tables.squares, np.float32, lists)
        require(tables.codes_at, np.uint64, lists)
        require(tables.ids_at, np.uint64, lists)
        require(tables.sizes, np.int64, lists)
        target.dimension, target.lists = dimension, lists
        target.centroids = self._pointer("float[]", tables.centroids)
        target.squares = self._pointer("float[]", tables.squares)
        target.codes_at = self._pointer("uint64_t[]", tables.codes_at)
        target.ids_at = self._pointer("uint64_t[]", tables.ids_at)
        target.sizes = self._pointer("int64_t[]", tables.sizes)

    def _pointer(self, kind: str, array: npt.NDArray[Any]) -> Any:
        pointer = self._ffi.from_buffer(kind, array)
        self._kept.append(pointer)
        return pointer
