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
        monkeypatch.setattr("secure_embed.index._search.coded_lists_min", coded_from)
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
    assert by_codes.footprint().codebook != by_all.footprint().codebook  # it is what it says
    same = sum(found(by_codes, q, EVERYTHING) == found(by_all, q, EVERYTHING) for q in vectors[::60])
    assert same >= 0.97 * len(vectors[::60])


@pytest.mark.parametrize("below", [999, 500, 250, 180])
def test_behind_a_filter_as_many_are_found_as_are_wanted(shard, vectors, below: int) -> None:
    by_codes, by_all = shard(coded_from=2), shard(coded_from=10**9)
    rows, same = RowFilter(permits=(Compare("n", "<", below),)), 0
    for query in vectors[::600]:
        here, there = found(by_codes, query, rows), found(by_all, query, rows)
        assert len(here) == len(there) == 400
        assert all(position % 1_000 < below for position in here)
        same += len(set(here) & set(there))
    assert same >= 0.9 * 400 * len(vectors[::600])
