"""From some thousand lists on the centroids' own codes say which are near: the same answers, and as full."""

from collections.abc import Callable

import numpy as np
import pytest

from secure_embed.index import Added, Codebook, Effort, RabitqShard
from secure_embed.types import Compare, RowFilter, TruthValue

RECORDS, DIMENSION, LISTS = 12_000, 96, 512
EVERYTHING = RowFilter(permits=(TruthValue(True),))


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    rng = np.random.default_rng(4)
    made = np.repeat(rng.standard_normal((600, DIMENSION)), 20, axis=0)
    made += 0.6 * rng.standard_normal((RECORDS, DIMENSION))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def codebook(vectors: np.ndarray) -> Codebook:
    return Codebook.train(vectors, version=2, lists=LISTS, random_bytes=np.random.default_rng(5).bytes)


@pytest.fixture
def shard(codebook: Codebook, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RabitqShard]:
    def made(*, coded_from: int) -> RabitqShard:
        monkeypatch.setattr("secure_embed.index._codes.coded_lists_min", coded_from)
        one = RabitqShard(
            codebook=codebook,
            schema={"n": "long"},
            tag_attribute=lambda *_: b"",
            open_vectors=lambda at, out: np.ones(len(at), np.bool_),
        )
        attributes = [{"n": n % 1_000} for n in range(RECORDS)]
        one.apply([Added(sequence=1, positions=np.arange(RECORDS), vectors=vectors, attributes=attributes)])
        return one

    return made


def found(shard: RabitqShard, query: np.ndarray, rows: RowFilter) -> list[int]:
    selection = shard.select(rows, None)
    return shard.scan(query[None], selection, k=10, effort=Effort(candidates=50, lists=4)).positions.tolist()


def test_the_same_is_found_as_by_all_centroids(shard, vectors) -> None:
    by_codes, by_all = shard(coded_from=2), shard(coded_from=10**9)
    assert by_codes.footprint().codes > by_all.footprint().codes  # it is what it says
    same = sum(found(by_codes, q, EVERYTHING) == found(by_all, q, EVERYTHING) for q in vectors[::60])
    assert same >= 0.97 * len(vectors[::60])


@pytest.mark.parametrize("below", [1_000, 500, 250, 180])
def test_what_one_query_finds_is_the_same_whatever_is_looked_for_beside_it(shard, vectors, below: int) -> None:
    made = shard(coded_from=2)
    codes, turned = made._codes, made._rotation.products(vectors[::500])
    spread = codes.spread(np.arange(RECORDS) % 1_000 < below)

    def nearest(some: np.ndarray) -> list[list[int]]:
        near, squares = codes._nearest_lists(some, spread, codes._enough(50, 4))
        return [
            list(zip(n[n >= 0].tolist(), s[n >= 0].tolist(), strict=True)) for n, s in zip(near, squares, strict=True)
        ]

    together = nearest(turned)
    assert [nearest(turned[n : n + 1])[0] for n in range(len(turned))] == together


@pytest.mark.parametrize("below", [999, 500, 250, 180])
def test_behind_a_filter_as_many_are_found_as_are_wanted(shard, vectors, below: int) -> None:
    by_codes, by_all = shard(coded_from=2), shard(coded_from=10**9)
    rows = RowFilter(permits=(Compare("n", "<", below),))
    for query in vectors[::600]:
        here, there = found(by_codes, query, rows), found(by_all, query, rows)
        assert len(here) == len(there) == 400
        assert all(position % 1_000 < below for position in here)
        assert len(set(here) & set(there)) >= 320
