"""A query over one-bit codes in lists, beside the same in NumPy; what does not fit is refused."""

import os
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_embed import bulk

pytestmark = pytest.mark.skipif(
    bulk.compiled() is None and not os.environ.get("SECURE_EMBED_REQUIRE_COMPILED"), reason="it is not compiled here"
)
DIMENSIONS = [1, 7, 8, 63, 64, 65, 128, 200, 384, 1_024]
SIZES = st.lists(st.sampled_from([0, 1, 3, 40, 300]), min_size=1, max_size=6).filter(any)


def coarse(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    steps = np.maximum(np.abs(rows).max(axis=1) / 127, 1e-30).astype(np.float32)
    return np.ascontiguousarray(np.rint(rows / steps[:, None]).astype(np.int8)), steps


class Lists:
    """Codes as FAISS lays them out: bits, the lowest first, then the residual's square and its length over what the code
    has of it, float32. The rotation only mirrors, so that turning adds no rounding but the query's own."""

    def __init__(self, seed: int, dimension: int, sizes: list[int], *, length: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        self.dimension, self.lists = dimension, len(sizes)
        self.query = (length * rng.standard_normal(dimension) / dimension**0.5).astype(np.float32)
        self.rotation = np.diag(rng.choice([-1.0, 1.0], dimension))
        self.centroids = (0.6 * rng.standard_normal((len(sizes), dimension)) / dimension**0.5).astype(np.float32)
        if len(sizes) > 2:
            self.centroids[1] = 0
        self.squares = np.vecdot(self.centroids, self.centroids)
        self.sizes = np.array(sizes, np.int64)
        total = int(self.sizes.sum())
        ids = rng.permutation(2 * total)[:total].astype(np.int64)
        self.bits = [rng.integers(0, 2, (size, dimension), np.uint8) for size in sizes]
        self.factors = [rng.uniform(0.1, 2, (size, 2)).astype(np.float32) for size in sizes]
        self.ids = np.split(ids, np.cumsum(sizes)[:-1])
        self.codes = [
            np.ascontiguousarray(np.hstack([np.packbits(bits, axis=1, bitorder="little"), factors.view(np.uint8)]))
            for bits, factors in zip(self.bits, self.factors, strict=True)
        ]

    @property
    def tables(self) -> bulk.CodeTables:
        return bulk.CodeTables(
            centroids=self.centroids,
            squares=self.squares,
            codes_at=np.array([codes.ctypes.data for codes in self.codes], np.uint64),
            ids_at=np.array([ids.ctypes.data for ids in self.ids], np.uint64),
            sizes=self.sizes,
        )

    def made(self, *, coarsely: bool = False, portable: bool = False) -> bulk.CompiledSearch:
        of_centroids = coarse(self.centroids) if coarsely else None
        return bulk.CompiledSearch(coarse(self.rotation), of_centroids, self.tables, portable=portable)

    def asked(self, wanted: int, mask: np.ndarray | None = None, **other: object) -> bulk.Asked:
        spread = np.array([len(ids) if mask is None else mask[ids].sum() for ids in self.ids], np.int64)
        bitmap = None if mask is None else np.packbits(mask, bitorder="little")
        usual = {"query": self.query, "spread": spread, "bitmap": bitmap, "wanted": wanted, "enough": 1e18}
        return bulk.Asked(**(usual | other))

    def search(self, wanted: int, mask: np.ndarray | None = None, *, portable: bool = False, **other: object) -> tuple:
        (found,) = self.made(portable=portable).search([self.asked(wanted, mask, **other)])
        return found.slots, found.estimates, found.looked

    @property
    def turned(self) -> np.ndarray:
        most = min(2**31 // (128 * self.dimension), 32_767)
        step = np.abs(self.query).max() / most
        return np.rint(self.query / step).astype(np.float64) * step @ self.rotation

    def expected(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Estimates of one list's entries, and how far rounding what is left of the query may put them off."""
        query, centroid = self.turned, self.centroids[number].astype(np.float64)
        square = centroid @ centroid
        share = query @ centroid / (square + 0.01)
        rest = query - share * centroid
        residuals, multipliers = self.factors[number].astype(np.float64).T
        estimates = query @ centroid + share * (1 - square - residuals) / 2
        estimates += multipliers * ((2.0 * self.bits[number] - 1) @ rest) / self.dimension**0.5
        off = multipliers * self.dimension**0.5 * np.abs(rest).max() / 254
        length = np.sqrt(query @ query)
        return estimates / length, 1.02 * off / length + 2e-3 * multipliers

    def nearest(self, spread: np.ndarray, enough: float) -> list[int]:
        away = self.squares / 2 - self.centroids @ self.turned
        chosen: list[int] = []
        for number in np.lexsort((-np.arange(self.lists), away)).tolist():
            if spread[number] == 0:
                continue
            if chosen and spread[chosen].sum() >= enough:
                break
            chosen.append(number)
        return chosen


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 999),
    dimension=st.sampled_from(DIMENSIONS),
    sizes=SIZES,
    length=st.sampled_from([1.0, 1e-3, 30.0]),
    portable=st.booleans(),
)
def test_estimates_are_what_the_paper_says(
    seed: int, dimension: int, sizes: list[int], length: float, portable: bool
) -> None:
    lists = Lists(seed, dimension, sizes, length=length)
    slots, estimates, looked = lists.search(sum(sizes) + 5, portable=portable)
    assert len(slots) == looked == sum(sizes)
    got = dict(zip(slots.tolist(), estimates.tolist(), strict=True))
    for number in np.flatnonzero(sizes).tolist():
        right, off = lists.expected(number)
        mine = np.array([got[slot] for slot in lists.ids[number].tolist()])
        assert (np.abs(mine - right) <= off + 1e-4 * np.abs(right) + 1e-4).all()


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 999),
    dimension=st.sampled_from([1, 8, 65, 384]),
    sizes=SIZES,
    wanted=st.sampled_from([1, 2, 10, 100, 2_000]),
    selected=st.sampled_from([0.0, 0.02, 0.5, 1.0, None]),
    enough=st.sampled_from([-1.0, 0.0, 1.0, 45.0, 1e9, float("inf")]),
    portable=st.booleans(),
    coarsely=st.booleans(),
)
def test_the_best_of_the_nearest_lists_that_may_answer_come_first(
    seed: int,
    dimension: int,
    sizes: list[int],
    wanted: int,
    selected: float | None,
    enough: float,
    portable: bool,
    coarsely: bool,
) -> None:
    lists, total = Lists(seed, dimension, sizes), sum(sizes)
    mask = None if selected is None else np.random.default_rng(seed).random(2 * total) < selected
    every = dict(zip(*(part.tolist() for part in lists.search(2 * total)[:2]), strict=True))
    asked = lists.asked(wanted, mask, enough=enough)
    (found,) = lists.made(portable=portable, coarsely=coarsely).search([asked])
    near = lists.nearest(asked.spread, enough)
    if not coarsely:  # else two that are about as near may change places
        assert found.looked == asked.spread[near].sum()
        may = [slot for number in near for slot in lists.ids[number].tolist() if mask is None or mask[slot]]
        assert found.slots.tolist() == sorted(may, key=lambda slot: (-every[slot], slot))[:wanted]
    assert len(found.slots) == len(found.estimates) == min(wanted, found.looked)
    assert found.looked >= min(max(enough, 0), asked.spread.sum())
    # Bit for bit the same, whatever may answer beside it, and with or without the processor's own instructions.
    assert found.estimates.tolist() == [every[slot] for slot in found.slots.tolist()]
    assert all(mask is None or mask[slot] for slot in found.slots.tolist())


def test_what_one_finds_is_the_same_whatever_is_asked_beside_it() -> None:
    lists, rng = Lists(3, 200, [300, 40, 0, 300, 7]), np.random.default_rng(3)
    asked = [
        lists.asked(
            wanted, rng.random(1_294) < share, query=rng.standard_normal(200).astype(np.float32), enough=float(enough)
        )
        for wanted, share, enough in ((10, 0.5, 1), (500, 1.0, 1e9), (1, 0.01, 3), (40, 0.9, 300))
    ]
    made = lists.made(coarsely=True)
    for one, together in zip(asked, made.search(asked), strict=True):
        (alone,) = made.search([one])
        assert (alone.slots == together.slots).all()
        assert (alone.estimates == together.estimates).all()
        assert alone.looked == together.looked
    assert made.search([]) == []


@pytest.mark.parametrize("lists", [300, 1_000])
def test_the_centroids_own_codes_find_the_nearest_lists(lists: int) -> None:
    """Codes by the definition: signs of a residual, its square, its length over what the signs have of it."""
    rng, dimension = np.random.default_rng(5), 256
    some = Lists(6, dimension, [2] * lists)
    some.centroids = (rng.standard_normal((lists, dimension)) / dimension**0.5).astype(np.float32)
    some.centroids *= rng.uniform(0.5, 1, (lists, 1)).astype(np.float32)
    some.squares = np.vecdot(some.centroids, some.centroids)
    middle = some.centroids.mean(axis=0)
    residuals = some.centroids - middle
    own = Lists(7, dimension, [lists])
    own.centroids, own.squares = middle[None].copy(), np.array([middle @ middle], np.float32)
    lengths = np.sqrt(np.vecdot(residuals, residuals))
    share = np.abs(residuals).sum(axis=1) / (lengths * dimension**0.5)
    factors = np.stack([lengths**2, lengths / share], axis=1).astype(np.float32)
    own.codes = [
        np.ascontiguousarray(np.hstack([np.packbits(residuals > 0, axis=1, bitorder="little"), factors.view(np.uint8)]))
    ]
    own.ids = [np.arange(lists)]
    rotation = coarse(some.rotation)
    coded = bulk.CompiledSearch(rotation, None, some.tables, own.tables)
    plain = bulk.CompiledSearch(rotation, None, some.tables)
    same = 0
    for n in range(40):
        query = ((some.centroids[n] + 0.02 * rng.standard_normal(dimension)) @ some.rotation).astype(np.float32)
        one = some.asked(20, query=query, enough=8.0)
        (by_codes,), (by_all,) = coded.search([one]), plain.search([one])
        assert by_codes.looked == by_all.looked == 8
        same += len(set(by_codes.slots.tolist()) & set(by_all.slots.tolist()))
        (whole,), (wholly,) = (made.search([some.asked(9_999, query=query)]) for made in (coded, plain))
        assert whole.slots.tolist() == wholly.slots.tolist()
    assert same >= 0.85 * 8 * 40


def test_equals_come_in_the_order_of_their_slots() -> None:
    lists = Lists(1, 64, [200])
    lists.codes[0][:] = lists.codes[0][0]
    slots, estimates, _ = lists.search(50)
    assert slots.tolist() == np.sort(lists.ids[0])[:50].tolist()
    assert len(set(estimates.tolist())) == 1


def test_ids_beyond_the_bitmap_do_not_answer() -> None:
    lists = Lists(1, 64, [200])
    slots, _, _ = lists.search(200, bitmap=np.full(3, 255, np.uint8))
    assert sorted(slots.tolist()) == sorted(slot for slot in lists.ids[0].tolist() if slot < 24)


@pytest.mark.parametrize("portable", [False, True])
def test_a_search_ends_when_its_time_is_up_or_nobody_waits(portable: bool) -> None:
    lists = Lists(1, 8, [60_000, 60_000])
    made = lists.made(portable=portable)
    late, gone = lists.asked(5, ends=time.monotonic() - 1), lists.asked(5, gone=bytearray(b"\1"))
    in_time = lists.asked(5, ends=time.monotonic() + 600)
    found = made.search([late, in_time, gone])
    assert found[0] is found[2] is None
    assert found[1].slots.tolist() == lists.search(5)[0].tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("portable", [False, True])
def test_values_that_are_none_end_in_an_answer(value: float, portable: bool) -> None:
    lists = Lists(1, 65, [50, 50])
    lists.query[3] = value
    assert len(lists.search(100, portable=portable)[0]) <= 100
    lists = Lists(1, 65, [50, 50])
    lists.codes[0][7, -8:] = np.array([value, value], np.float32).view(np.uint8)
    assert len(lists.search(100, portable=portable)[0]) <= 100
    assert len(lists.search(100, portable=portable, enough=np.nan)[0]) <= 100


@pytest.mark.parametrize("size", [-1, 2**32])
def test_sizes_that_cannot_be_are_refused(size: int) -> None:
    lists = Lists(1, 64, [3, 4, 5])
    asked = lists.asked(5)
    lists.sizes[1] = size
    with pytest.raises(ValueError, match="belong together"):
        lists.made().search([asked])


def test_nothing_wanted_is_nothing_found() -> None:
    slots, _, looked = Lists(1, 64, [3, 4, 5]).search(0)
    assert (len(slots), looked) == (0, 12)


@pytest.mark.parametrize(
    "wrong",
    [
        {"query": np.zeros(64, np.float64)},
        {"query": np.zeros(63, np.float32)},
        {"query": np.zeros(128, np.float32)[::2]},
        {"spread": np.zeros(2, np.int64)},
        {"spread": np.zeros(3, np.int32)},
        {"bitmap": np.zeros(3, np.bool_)},
        {"bitmap": np.zeros(6, np.uint8)[::2]},
    ],
)
def test_what_cannot_be_asked_is_refused(wrong: dict) -> None:
    lists = Lists(1, 64, [3, 4, 5])
    with pytest.raises(ValueError, match=r"belong together|another type or length"):
        lists.made().search([lists.asked(4), lists.asked(4, **wrong)])


@pytest.mark.parametrize(
    "wrong",
    [
        {"centroids": np.zeros((3, 65), np.float32)},
        {"centroids": np.zeros((3, 64), np.float64)},
        {"centroids": np.zeros((4, 64), np.float32)},
        {"squares": np.zeros(2, np.float32)},
        {"codes_at": np.zeros(2, np.uint64)},
        {"codes_at": np.zeros(3, np.int64)},
        {"ids_at": np.zeros(4, np.uint64)},
        {"sizes": np.zeros(3, np.int32)},
        {"sizes": np.zeros(6, np.int64)[::2]},
    ],
)
def test_tables_that_do_not_belong_together_are_refused(wrong: dict) -> None:
    lists = Lists(1, 64, [3, 4, 5])
    right = {name: getattr(lists.tables, name) for name in ("centroids", "squares", "codes_at", "ids_at", "sizes")}
    with pytest.raises(ValueError, match=r"belong together|another type or length"):
        bulk.CompiledSearch(coarse(lists.rotation), None, bulk.CodeTables(**(right | wrong)))


@pytest.mark.parametrize("dimension", [0, 4_097])
def test_dimensions_that_cannot_be_are_refused(dimension: int) -> None:
    tables = bulk.CodeTables(
        centroids=np.zeros((1, dimension), np.float32),
        squares=np.zeros(1, np.float32),
        codes_at=np.zeros(1, np.uint64),
        ids_at=np.zeros(1, np.uint64),
        sizes=np.zeros(1, np.int64),
    )
    turning = np.zeros((dimension, dimension), np.int8), np.ones(dimension, np.float32)
    with pytest.raises(ValueError, match="belong together"):
        bulk.CompiledSearch(turning, None, tables)


@pytest.mark.parametrize(
    ("rotation", "of_centroids"),
    [((64, 63), None), ((63, 64), None), ((64, 64), (2, 64)), ((64, 64), (3, 63))],
)
def test_matrices_that_do_not_belong_together_are_refused(
    rotation: tuple[int, int], of_centroids: tuple[int, int] | None
) -> None:
    lists = Lists(1, 64, [3, 4, 5])
    one, other = (
        None if shape is None else (np.zeros(shape, np.int8), np.ones(shape[0], np.float32))
        for shape in (rotation, of_centroids)
    )
    with pytest.raises(ValueError, match="belong together"):
        bulk.CompiledSearch(one, other, lists.tables)
    with pytest.raises(ValueError, match="belong together"):
        bulk.CompiledSearch(coarse(lists.rotation), None, lists.tables, lists.tables)  # centroids' codes are one list
    short = (np.zeros((64, 64), np.int8), np.ones(63, np.float32))
    with pytest.raises(ValueError, match="another type or length"):
        bulk.CompiledSearch(short, None, lists.tables)
