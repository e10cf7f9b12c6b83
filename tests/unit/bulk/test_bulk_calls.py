"""Many values in one call: what opens is what was sealed, what does not leaves nothing, what does not fit is refused."""

import os
import struct
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_embed import bulk

compiled = pytest.mark.skipif(
    bulk.compiled() is None and not os.environ.get("SECURE_EMBED_REQUIRE_COMPILED"), reason="it is not compiled here"
)
HEADER = b"\x01\x02\x03"


class Sealed:
    """``count`` values of ``size`` bytes, sealed by another library; the n-th is row ``rows[n]`` of a larger table."""

    def __init__(self, count: int, size: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.size = size
        self.rows = rng.permutation(2 * count)[:count].astype(np.int64)
        self.numbers = rng.integers(-(2**62), 2**62, count)
        self.place = rng.bytes(30)
        self.keys = bytearray(rng.bytes(32 * count))
        self.plain = [rng.bytes(size) for _ in range(count)]
        self.table = rng.integers(0, 256, (2 * count, len(HEADER) + 12 + size + 16), np.uint8)
        for n in range(count):
            nonce = rng.bytes(12)
            place = self.place[:7] + struct.pack(">q", self.numbers[n]) + self.place[15:]
            value = AESGCM(bytes(self.keys[32 * n : 32 * n + 32])).encrypt(nonce, self.plain[n], place)
            self.table[self.rows[n]] = np.frombuffer(HEADER + nonce + value, np.uint8)
        self.out = np.full((2 * count, size), 9, np.uint8)

    def open(self, **other: object) -> np.ndarray:
        given = {"number_at": 7, "header": HEADER} | {k: v for k, v in other.items() if k in _named}
        rest = [other.get(name, getattr(self, of)) for name, of in _given.items()]
        return bulk.open_values(*rest, **given)


_named = ("number_at", "header")
_given = {"rows": "rows", "keys": "keys", "numbers": "numbers", "additional": "place", "sealed": "table", "out": "out"}


def test_it_is_compiled_where_it_has_to_be() -> None:
    if os.environ.get("SECURE_EMBED_REQUIRE_COMPILED"):
        assert "OpenSSL" in (bulk.compiled() or "")


@compiled
@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 40), size=st.integers(1, 300), seed=st.integers(0, 999))
def test_what_another_library_sealed_opens_into_its_row(count: int, size: int, seed: int) -> None:
    some = Sealed(count, size, seed)
    assert some.open().tolist() == [True] * count
    assert [some.out[row].tobytes() for row in some.rows] == some.plain
    assert (np.delete(some.out, some.rows, axis=0) == 9).all()


@compiled
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_one_flipped_bit_opens_nothing_of_that_value_and_all_of_the_others(data: st.DataObject) -> None:
    some = Sealed(5, 40)
    bad = data.draw(st.integers(0, 4))
    what = data.draw(st.sampled_from(["sealed", "key", "number"]))
    if what == "sealed":
        at = data.draw(st.integers(0, some.table.shape[1] - 1))  # the header as well
        some.table[some.rows[bad], at] ^= 1 << data.draw(st.integers(0, 7))
    elif what == "key":
        some.keys[32 * bad + data.draw(st.integers(0, 31))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        some.numbers[bad] ^= 1 << data.draw(st.integers(0, 62))
    assert some.open().tolist() == [n != bad for n in range(5)]
    assert not some.out[some.rows[bad]].any()
    assert all(some.out[some.rows[n]].tobytes() == some.plain[n] for n in range(5) if n != bad)


@compiled
def test_other_additional_data_open_nothing() -> None:
    some = Sealed(3, 16)
    assert not some.open(additional=bytes([some.place[0] ^ 1]) + some.place[1:]).any()
    assert not some.out[some.rows].any()


@compiled
@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": np.array([0, 1, 6])},  # one past the table
        {"rows": np.array([0, 1, -1])},
        {"rows": np.array([0, 1, 2], np.int32)},
        {"rows": np.arange(6)[::2]},  # not in one piece
        {"keys": bytes(95)},
        {"keys": bytes(97)},
        {"numbers": np.array([1, 2])},
        {"additional": bytes(14)},  # the number would lie past its end
        {"additional": bytes(257)},
        {"number_at": -1},
        {"header": b"\x01\x02\x03\x04"},
        {"sealed": np.zeros((5, 47), np.uint8)},
        {"sealed": np.zeros((6, 48), np.uint8)},
        {"sealed": np.zeros((6, 94), np.uint8)[:, ::2]},
        {"out": np.zeros((6, 17), np.uint8)},
        {"out": np.zeros((5, 16), np.uint8)},
        {"out": np.zeros((6, 16), np.int8)},
        {"out": np.zeros(96, np.uint8)},
    ],
)
def test_what_does_not_belong_together_is_refused_before_anything_is_touched(wrong: dict) -> None:
    some = Sealed(3, 16)
    with pytest.raises(ValueError, match=r"belong together|another type or length"):
        some.open(**wrong)
    assert (some.out == 9).all()


@compiled
def test_a_read_only_buffer_is_not_written_to() -> None:
    some = Sealed(3, 16)
    some.out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        some.open()


@pytest.fixture
def file(tmp_path: Path) -> tuple[int, bytes]:
    content = np.random.default_rng(1).bytes(1_000)
    (tmp_path / "slots").write_bytes(content)
    return os.open(tmp_path / "slots", os.O_RDONLY), content


@compiled
@settings(max_examples=60, deadline=None)
@given(offsets=st.lists(st.integers(0, 1_100), max_size=30), size=st.integers(1, 60), follow=st.booleans())
def test_slots_are_read_as_far_as_they_are_there(offsets: list[int], size: int, follow: bool, tmp_path_factory) -> None:
    content = np.random.default_rng(1).bytes(1_000)
    path = tmp_path_factory.getbasetemp() / "slots-of-a-property"
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDONLY)
    if follow:
        offsets = [n * size for n in range(len(offsets))]
    out = np.zeros((len(offsets), size), np.uint8)
    done = bulk.read_slots(np.full(len(offsets), descriptor, np.int32), np.array(offsets, np.int64), out)
    os.close(descriptor)
    whole = [offset + size <= len(content) for offset in offsets]
    assert done == (whole.index(False) if False in whole else len(whole))
    assert [out[n].tobytes() for n in range(done)] == [content[o : o + size] for o in offsets[:done]]


@compiled
@pytest.mark.parametrize("in_memory", [True, False])
def test_many_slots_are_read_whether_or_not_the_kernel_has_them_in_memory(tmp_path: Path, in_memory: bool) -> None:
    slot, count = 2_081, 1_300
    content = np.random.default_rng(2).integers(0, 256, (4 * count, slot), np.uint8)
    (tmp_path / "slots").write_bytes(content.tobytes())
    descriptor = os.open(tmp_path / "slots", os.O_RDONLY)
    at = np.sort(np.random.default_rng(3).choice(len(content), count, replace=False)).astype(np.int64)
    at[-1] = len(content)  # past the end
    if not in_memory:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    out = np.zeros((count, slot), np.uint8)
    assert bulk.read_slots(np.full(count, descriptor, np.int32), at * slot, out) == count - 1
    os.close(descriptor)
    assert (out[:-1] == content[at[:-1]]).all()


@compiled
def test_what_cannot_be_read_is_said_and_raises_nothing(file, tmp_path: Path) -> None:
    descriptor, content = file
    folder, closed = os.open(tmp_path, os.O_RDONLY), 10_000
    for bad in (folder, closed, -1):
        out = np.zeros((3, 10), np.uint8)
        assert bulk.read_slots(np.array([descriptor, bad, descriptor], np.int32), np.arange(3) * 10, out) == 1
        assert out[0].tobytes() == content[:10]
    assert bulk.read_slots(np.array([descriptor], np.int32), np.array([-1]), np.zeros((1, 4), np.uint8)) == 0
    with pytest.raises(ValueError, match="belong together"):
        bulk.read_slots(np.array([descriptor], np.int32), np.array([0]), np.zeros((2, 4), np.uint8))
    os.close(folder)
    os.close(descriptor)


@compiled
def test_another_thread_runs_meanwhile() -> None:
    """Threads are never told to give way here, so the other one counts only if the call lets go of the lock."""
    some, counted, over = Sealed(2_000, 4_096), [0], threading.Event()

    def count() -> None:
        while not over.is_set():
            counted[0] += 1
            over.wait(0.0001)

    other, before = threading.Thread(target=count), sys.getswitchinterval()
    sys.setswitchinterval(600)
    try:
        other.start()
        seen = []
        for _ in range(20):
            start = counted[0]
            assert some.open().all()
            seen.append(counted[0] - start)
    finally:
        over.set()
        other.join()
        sys.setswitchinterval(before)
    assert max(seen) > 0


# --- scoring -----------------------------------------------------------------------------------------------------------


class Scored:
    def __init__(self, count: int, dimension: int, queries: int = 3, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.halves = (rng.standard_normal((count, dimension)) / dimension**0.5).astype(np.float16)
        self.queries = rng.standard_normal((queries, dimension)).astype(np.float32)
        self.query_of = rng.integers(0, queries, count).astype(np.int32)
        self.products = np.full(count, 7, np.float32)
        self.squares = np.full(count, 7, np.float32)

    def score(self, **other: np.ndarray) -> bool:
        names = ("halves", "queries", "query_of", "products", "squares")
        return bulk.score_halves(*(other.get(name, getattr(self, name)) for name in names))


@compiled
@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 20), dimension=st.integers(1, 200), seed=st.integers(0, 999))
def test_products_and_squares_are_those_of_exact_arithmetic_and_the_vectors_are_gone(
    count: int, dimension: int, seed: int
) -> None:
    some = Scored(count, dimension, seed=seed)
    exact, queries = some.halves.astype(np.float64), some.queries.astype(np.float64)[some.query_of]
    assert some.score()
    assert np.allclose(some.products, (exact * queries).sum(axis=1), rtol=0, atol=1e-5 * (1 + dimension**0.5))
    assert np.allclose(some.squares, (exact * exact).sum(axis=1), rtol=1e-5, atol=1e-12)
    assert not some.halves.any()


@compiled
def test_a_score_is_the_same_whatever_is_scored_beside_it() -> None:
    together, alone = Scored(30, 1_024), Scored(30, 1_024)
    assert together.score()
    for n in range(30):
        one = slice(n, n + 1)
        query = alone.query_of[n]
        assert bulk.score_halves(
            alone.halves[one],
            np.ascontiguousarray(alone.queries[query : query + 1]),
            np.zeros(1, np.int32),
            alone.products[one],
            alone.squares[one],
        )
    assert (together.products == alone.products).all()
    assert (together.squares == alone.squares).all()


@compiled
def test_every_binary16_is_widened_exactly_and_what_is_not_finite_is_beyond() -> None:
    halves = np.arange(65_536, dtype=np.uint16).view(np.float16).reshape(65_536, 1)
    finite, exact = np.isfinite(halves[:, 0]), halves[:, 0].astype(np.float32)
    products, squares = np.empty(65_536, np.float32), np.empty(65_536, np.float32)
    one = np.ones((1, 1), np.float32)
    assert bulk.score_halves(halves.copy(), one, np.zeros(65_536, np.int32), products, squares)
    assert (products[finite] == exact[finite]).all()
    assert (squares[~finite] >= np.float32(65_536.0**2)).all()


@compiled
@pytest.mark.parametrize(
    "wrong",
    [
        {"halves": np.zeros((4, 8), np.float32)},
        {"halves": np.zeros((5, 8), np.float16)},
        {"halves": np.zeros((4, 9), np.float16)},
        {"halves": np.zeros((4, 16), np.float16)[:, ::2]},
        {"halves": np.zeros(32, np.float16)},
        {"queries": np.zeros((3, 8))},
        {"queries": np.zeros(24, np.float32)},
        {"query_of": np.array([0, 1, 2, 3], np.int32)},  # one past the queries
        {"query_of": np.array([0, 1, 2, -1], np.int32)},
        {"query_of": np.array([0, 1, 2, 2])},
        {"products": np.zeros(3, np.float32)},
        {"squares": np.zeros(4)},
    ],
)
def test_what_cannot_be_scored_is_refused_before_anything_is_touched(wrong: dict) -> None:
    some = Scored(4, 8)
    kept = some.halves.copy()
    with pytest.raises(ValueError, match=r"belong together|another type or length"):
        some.score(**wrong)
    assert (some.halves == kept).all()
    assert (some.products == 7).all()


# --- coarse products ---------------------------------------------------------------------------------------------------


@compiled
@settings(max_examples=60, deadline=None)
@given(rows=st.integers(0, 20), dimension=st.integers(1, 300), queries=st.integers(0, 4), seed=st.integers(0, 999))
def test_coarse_products_are_as_near_as_rounding_the_query_lets_them(
    rows: int, dimension: int, queries: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(-128, 128, (rows, dimension)).astype(np.int8)
    steps = rng.uniform(0.001, 2, rows).astype(np.float32)
    asked = rng.standard_normal((queries, dimension)).astype(np.float32)
    products = np.full((queries, rows), np.nan, np.float32)
    bulk.coarse_products(table, steps, asked, products)
    exact = asked.astype(np.float64) @ (table * steps[:, None].astype(np.float64)).T
    step = np.abs(asked).max(axis=1, initial=0) / min(2**31 // (128 * dimension), 32_767)
    off = 0.51 * step[:, None] * np.abs(table.astype(np.float64) * steps[:, None]).sum(axis=1)
    assert (np.abs(products - exact) <= off + 1e-6 * np.abs(exact)).all()


@compiled
@pytest.mark.parametrize("dimension", [1, 1_024, 4_096])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_values_do_not_overflow(dimension: int, sign: int) -> None:
    products = np.zeros((1, 1), np.float32)
    table, asked = np.full((1, dimension), -128, np.int8), np.full((1, dimension), sign * 3.0, np.float32)
    bulk.coarse_products(table, np.ones(1, np.float32), asked, products)
    assert products[0, 0] == pytest.approx(-sign * 3.0 * 128 * dimension, rel=1e-4)


@compiled
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_query_that_is_none_ends_in_an_answer(value: float) -> None:
    asked = np.ones((2, 8), np.float32)
    asked[0, 3] = value
    products = np.zeros((2, 4), np.float32)
    bulk.coarse_products(np.ones((4, 8), np.int8), np.ones(4, np.float32), asked, products)
    assert np.allclose(products[1], 8, rtol=1e-3)  # and the other is not touched by it


@compiled
@pytest.mark.parametrize(
    "wrong",
    [
        {"table": np.zeros((4, 8), np.uint8)},
        {"table": np.zeros((4, 9), np.int8)},
        {"table": np.zeros((5, 8), np.int8)},
        {"table": np.zeros((4, 16), np.int8)[:, ::2]},
        {"table": np.zeros((4, 4_097), np.int8), "queries": np.zeros((3, 4_097), np.float32)},
        {"table": np.zeros((4, 0), np.int8), "queries": np.zeros((3, 0), np.float32)},
        {"steps": np.zeros(3, np.float32)},
        {"steps": np.zeros(4, np.float64)},
        {"queries": np.zeros((3, 8), np.float64)},
        {"queries": np.zeros((2, 8), np.float32)},
        {"queries": np.zeros(24, np.float32)},
        {"products": np.zeros((4, 3), np.float32)},
        {"products": np.zeros((3, 4), np.float64)},
    ],
)
def test_what_cannot_be_multiplied_is_refused_before_anything_is_touched(wrong: dict) -> None:
    right = {
        "table": np.zeros((4, 8), np.int8),
        "steps": np.ones(4, np.float32),
        "queries": np.zeros((3, 8), np.float32),
        "products": np.full((3, 4), 7, np.float32),
    }
    with pytest.raises(ValueError, match=r"belong together|another type or length"):
        bulk.coarse_products(*(right | wrong).values())
    assert (right["products"] == 7).all()
