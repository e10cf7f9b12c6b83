"""Estimates by one-bit codes and the choice of lists, beside the same in NumPy; what does not fit is refused."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_embed import bulk

pytestmark = pytest.mark.skipif(
    bulk.compiled() is None and not os.environ.get("SECURE_EMBED_REQUIRE_COMPILED"), reason="it is not compiled here"
)


class Lists:
    """Codes as FAISS lays them out: bits, the lowest first, then the residual's square and its length over what the code
    has of it, float32."""

    def __init__(self, seed: int, dimension: int, sizes: list[int], *, length: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        self.dimension = dimension
        self.query = (length * rng.standard_normal(dimension) / dimension**0.5).astype(np.float32)
        self.centroids = (0.6 * rng.standard_normal((len(sizes), dimension)) / dimension**0.5).astype(np.float32)
        if len(sizes) > 2:
            self.centroids[1] = 0
        self.sizes = np.array(sizes, np.int64)
        total = int(self.sizes.sum())
        ids = rng.permutation(2 * total)[:total].astype(np.int64)
        self.bits = [rng.integers(0, 2, (size, dimension), np.uint8) for size in sizes]
        self.factors = [rng.uniform(0.1, 2, (size, 2)).astype(np.float32) for size in sizes]
        self.ids = np.split(ids, np.cumsum(sizes)[:-1]) if sizes else []
        self.codes = [
            np.ascontiguousarray(np.hstack([np.packbits(bits, axis=1, bitorder="little"), factors.view(np.uint8)]))
            for bits, factors in zip(self.bits, self.factors, strict=True)
        ]

    @property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        return (
            np.array([codes.ctypes.data for codes in self.codes], np.uint64),
            np.array([ids.ctypes.data for ids in self.ids], np.uint64),
        )

    def scan(self, near: list[int], bitmap: np.ndarray | None, wanted: int, **how: object) -> tuple:
        return bulk.scan(
            self.query, self.centroids, self.places, self.sizes, np.array(near, np.int64), bitmap, wanted, **how
        )

    def expected(self, number: int, squares: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Estimates of one list's entries, and how far rounding the query may put them off."""
        query, centroid = self.query.astype(np.float64), self.centroids[number].astype(np.float64)
        square = centroid @ centroid
        share = query @ centroid / (square + 0.01)
        rest = query - share * centroid
        residuals, multipliers = self.factors[number].astype(np.float64).T
        signs = 2.0 * self.bits[number] - 1
        own = np.ones(len(signs)) if squares is None else squares[self.ids[number]]
        estimates = query @ centroid + share * (own - square - residuals) / 2
        estimates += multipliers * (signs @ rest) / self.dimension**0.5
        off = multipliers * self.dimension**0.5 * np.abs(rest).max() / 254
        if squares is None:
            return estimates / np.sqrt(query @ query), off / np.sqrt(query @ query)
        return estimates - own / 2, off


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 999),
    dimension=st.sampled_from([1, 7, 8, 63, 64, 65, 128, 200, 384, 1_024]),
    sizes=st.lists(st.sampled_from([0, 1, 3, 40, 300]), min_size=1, max_size=5).filter(any),
    length=st.sampled_from([1.0, 1e-3, 30.0]),
    nearest=st.booleans(),
)
def test_estimates_are_what_the_paper_says(
    seed: int, dimension: int, sizes: list[int], length: float, nearest: bool
) -> None:
    lists = Lists(seed, dimension, sizes, length=length)
    total = sum(sizes)
    squares = np.random.default_rng(seed).uniform(0.2, 1, 2 * total).astype(np.float32) if nearest else None
    slots, estimates = lists.scan(list(range(len(sizes))), None, total + 5, squares=squares)
    assert len(slots) == total
    got = dict(zip(slots.tolist(), estimates.tolist(), strict=True))
    for number in np.flatnonzero(sizes).tolist():
        right, off = lists.expected(number, squares)
        mine = np.array([got[slot] for slot in lists.ids[number].tolist()])
        assert (np.abs(mine - right) <= 1.01 * off + 1e-5 * np.abs(right) + 1e-5 * max(1, length)).all()


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 999),
    dimension=st.sampled_from([1, 8, 65, 384]),
    sizes=st.lists(st.sampled_from([0, 1, 3, 40, 300]), min_size=1, max_size=6).filter(any),
    wanted=st.sampled_from([1, 2, 10, 100, 2_000]),
    selected=st.sampled_from([0.0, 0.02, 0.5, 1.0, None]),
    portable=st.booleans(),
)
def test_the_best_of_those_that_may_answer_come_first(
    seed: int, dimension: int, sizes: list[int], wanted: int, selected: float | None, portable: bool
) -> None:
    lists, rng = Lists(seed, dimension, sizes), np.random.default_rng(seed)
    near = rng.permutation(np.array([*range(len(sizes)), -1, -1])).tolist()[: len(sizes) + 1]
    total = sum(sizes)
    mask = None if selected is None else rng.random(2 * total) < selected
    bitmap = None if mask is None else np.packbits(mask, bitorder="little")
    every = dict(zip(*(part.tolist() for part in lists.scan(near, None, 2 * total)), strict=True))
    looked = {slot for number in near if number >= 0 for slot in lists.ids[number].tolist()}
    assert set(every) == looked
    may = [slot for slot in looked if mask is None or mask[slot]]
    right = sorted(may, key=lambda slot: (-every[slot], slot))[:wanted]
    slots, estimates = lists.scan(near, bitmap, wanted, portable=portable)
    assert slots.tolist() == right
    assert estimates.tolist() == [every[slot] for slot in right]  # bit for bit: whatever may answer beside it


def test_equals_come_in_the_order_of_their_slots() -> None:
    lists = Lists(1, 64, [200])
    lists.codes[0][:] = lists.codes[0][0]
    slots, estimates = lists.scan([0], None, 50)
    assert slots.tolist() == np.sort(lists.ids[0])[:50].tolist()
    assert len(set(estimates.tolist())) == 1


def test_ids_beyond_the_bitmap_do_not_answer() -> None:
    lists = Lists(1, 64, [200])
    slots, _ = lists.scan([0], np.full(3, 255, np.uint8), 200)
    assert sorted(slots.tolist()) == sorted(slot for slot in lists.ids[0].tolist() if slot < 24)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("portable", [False, True])
def test_values_that_are_none_end_in_an_answer(value: float, portable: bool) -> None:
    lists = Lists(1, 65, [50, 50])
    lists.query[3] = value
    assert len(lists.scan([0, 1], None, 100, portable=portable)[0]) <= 100
    lists = Lists(1, 65, [50, 50])
    lists.codes[0][7, -8:] = np.array([value, value], np.float32).view(np.uint8)
    assert len(lists.scan([0, 1], None, 100, portable=portable)[0]) <= 100


@pytest.mark.parametrize("near", [[3], [0, 3], [2**62]])
def test_a_list_that_is_not_there_is_refused(near: list[int]) -> None:
    with pytest.raises(ValueError, match="belong together"):
        Lists(1, 64, [3, 4, 5]).scan(near, None, 5)


def test_sizes_that_cannot_be_are_refused() -> None:
    for size in (-1, 2**32):
        lists = Lists(1, 64, [3, 4, 5])
        lists.sizes[1] = size
        with pytest.raises(ValueError, match="belong together"):
            lists.scan([0, 1], None, 5)
    with pytest.raises(ValueError, match="belong together"):
        Lists(1, 4_097, [1]).scan([0], None, 5)
    with pytest.raises(ValueError, match="belong together"):
        Lists(1, 64, [1]).scan([0], None, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"query": np.zeros(64, np.float64)},
        {"query": np.zeros(63, np.float32)},
        {"query": np.zeros(128, np.float32)[::2]},
        {"centroids": np.zeros((3, 65), np.float32)},
        {"sizes": np.zeros(2, np.int64)},
        {"sizes": np.zeros(3, np.int32)},
        {"near": np.zeros(3, np.int32)},
        {"places": (np.zeros(3, np.uint64), np.zeros(2, np.uint64))},
        {"places": (np.zeros(3, np.int64), np.zeros(3, np.uint64))},
        {"bitmap": np.zeros(3, np.bool_)},
        {"squares": np.zeros(3, np.float64)},
    ],
)
def test_what_does_not_belong_together_is_refused(wrong: dict) -> None:
    right: dict = {
        "query": np.zeros(64, np.float32),
        "centroids": np.zeros((3, 64), np.float32),
        "places": (np.zeros(3, np.uint64), np.zeros(3, np.uint64)),
        "sizes": np.zeros(3, np.int64),
        "near": np.arange(3),
        "bitmap": None,
        "wanted": 4,
    }
    assert len(bulk.scan(**right)[0]) == 0
    with pytest.raises(ValueError, match=r"belong together|another type or length"):
        bulk.scan(**(right | wrong))


# --- which lists -------------------------------------------------------------------------------------------------------


def by_hand(away: np.ndarray, numbers: np.ndarray, spread: np.ndarray, enough: float) -> list[int]:
    chosen: list[int] = []
    for at in np.lexsort((-numbers, away)):
        if spread[numbers[at]] == 0:
            continue
        if chosen and sum(spread[chosen]) >= enough:
            break
        chosen.append(int(numbers[at]))
    return chosen


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 999),
    lists=st.integers(1, 60),
    empty=st.sampled_from([0.0, 0.5, 1.0]),
    enough=st.sampled_from([-1.0, 0.0, 1.0, 7.5, 50.0, 1e9, float("inf")]),
    some=st.booleans(),
    ties=st.booleans(),
)
def test_the_nearest_lists_that_hold_enough(
    seed: int, lists: int, empty: float, enough: float, some: bool, ties: bool
) -> None:
    rng = np.random.default_rng(seed)
    spread = np.where(rng.random(lists) < empty, 0, rng.integers(1, 10, lists)).astype(np.int64)
    numbers = rng.permutation(lists)[: max(1, lists // 2)].astype(np.int64) if some else np.arange(lists)
    away = rng.standard_normal(len(numbers)).astype(np.float32)
    if ties:
        away = np.rint(away)
    right = by_hand(away, numbers, spread, enough)
    assert bulk.near_lists(away.copy(), numbers if some else None, spread, enough).tolist() == right


@pytest.mark.parametrize("numbers", [[0, 1, 5], [0, -1, 2], [2**62, 0, 1]])
def test_a_list_that_holds_nothing_known_is_refused(numbers: list[int]) -> None:
    away = np.ones(3, np.float32)
    with pytest.raises(ValueError, match="belong together"):
        bulk.near_lists(away, np.array(numbers, np.int64), np.ones(5, np.int64), 2)
    assert (away == 1).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"away": np.zeros(4, np.float64)},
        {"away": np.zeros(8, np.float32)[::2]},
        {"away": np.zeros(5, np.float32)},
        {"spread": np.zeros(4, np.int32)},
        {"spread": np.zeros(3, np.int64)},
        {"numbers": np.zeros(3, np.int64)},
    ],
)
def test_lists_that_do_not_belong_together_are_refused(wrong: dict) -> None:
    right = {"away": np.zeros(4, np.float32), "numbers": None, "spread": np.ones(4, np.int64), "enough": 2.0}
    with pytest.raises(ValueError, match=r"belong together|another type or length"):
        bulk.near_lists(**(right | wrong))
