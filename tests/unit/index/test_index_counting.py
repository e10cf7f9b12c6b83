"""What a search looks at can be counted without a clock, and records can be selected by name: both for a tuning."""

import numpy as np
import pytest

from secure_embed.errors import Conflict
from secure_embed.index import Codebook, Effort, RabitqShard, bits_for, every_list
from secure_embed.types import RowFilter, TruthValue

dimension, records, lists = 32, 4_000, 32
EVERYTHING = RowFilter(permits=(TruthValue(True),))


def made() -> tuple[RabitqShard, np.ndarray]:
    vectors = np.random.default_rng(1).standard_normal((records, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def open_vectors(at: np.ndarray, out: np.ndarray) -> np.ndarray:
        out[:] = vectors[at]
        return np.ones(len(at), np.bool_)

    shard = RabitqShard(
        codebook=Codebook.train(vectors, version=1, lists=lists),
        schema={},
        tag_attribute=lambda *_: b"",
        open_vectors=open_vectors,
    )
    shard.load(np.arange(records, dtype=np.int64), vectors, [{}] * records)
    return shard, vectors


def test_the_codes_that_are_looked_at_grow_with_the_lists_up_to_all() -> None:
    shard, vectors = made()
    everything = shard.select(EVERYTHING, None)
    counts = [
        shard.scan(vectors[:1], everything, k=10, effort=Effort(candidates=50, lists=n)).looked
        for n in (1, 4, 16, every_list)
    ]
    assert counts == sorted(counts)
    assert 50 <= counts[0] < counts[-1] == records


def test_enough_lists_for_the_candidates_are_looked_at() -> None:
    shard, vectors = made()
    everything = shard.select(EVERYTHING, None)
    found = shard.scan(vectors[:1], everything, k=10, effort=Effort(candidates=1_500, lists=1))
    assert found.looked >= 1_500


def test_named_records_alone_answer() -> None:
    shard, vectors = made()
    at = np.arange(0, records, 7, dtype=np.int64)
    some = shard.named(np.concatenate([at, np.array([records + 5])]))  # one that is not there
    assert some.count == some.permitted == len(at)
    found = shard.scan(vectors[:1], some, k=10, effort=Effort())
    assert sorted(found.positions.tolist()) == at.tolist()
    assert found.looked == (0 if found.exhaustive else len(at))


def test_a_selection_of_another_shard_is_refused() -> None:
    shard, vectors = made()
    other, _ = made()
    with pytest.raises(Conflict) as refused:
        shard.scan(vectors[:1], other.named(np.arange(9)), k=1, effort=Effort())
    assert refused.value.code == "selection_stale"


@pytest.mark.parametrize(("of", "bits"), [(32, 2), (127, 2), (128, 1), (384, 1), (1_024, 1)])
def test_a_new_collection_has_bits_by_its_dimension(of: int, bits: int) -> None:
    assert bits_for(of) == bits
